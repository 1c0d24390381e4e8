//! The cloud's side for the tests: commands by the vendor's own page, and a reader for what comes back.

use dji::Dji;
use otahost_adapter::bench::{Bench, World, published, started, target};
use otahost_adapter::{Effect, Field, JobPlan, JobReport, Persistence, Phase, Reason};
use serde_json::{Value, json};

/// The command of the vendor's page.
pub(crate) const PAGE: &str = include_str!("../../fixtures/autel_page_ota_create.json");
/// The serial number it names; the gateway's own.
pub(crate) const SN: &str = "NM1923221021";
pub(crate) const SERVICES: &str = "thing/product/NM1923221021/services";
pub(crate) const REPLIES: &str = "thing/product/NM1923221021/services_reply";
pub(crate) const EVENTS: &str = "thing/product/NM1923221021/events";
pub(crate) const EVENTS_REPLY: &str = "thing/product/NM1923221021/events_reply";
pub(crate) const STATE: &str = "thing/product/NM1923221021/state";
pub(crate) const OSD: &str = "thing/product/NM1923221021/osd";
pub(crate) const STATUS: &str = "sys/product/NM1923221021/status";
pub(crate) const STATUS_REPLY: &str = "sys/product/NM1923221021/status_reply";

/// A bench with the page's dock as its own target and a drone behind it.
pub(crate) fn bench() -> Bench<Dji> {
    bench_with(&json!({ "gateway_sn": SN }))
}

pub(crate) fn bench_with(config: &Value) -> Bench<Dji> {
    let mut dock = target("dock", "1.2.0.68");
    dock.attributes.push(Field {
        name: "sn".into(),
        value: SN.into(),
    });
    let world = World {
        targets: vec![dock],
        ..World::default()
    };
    Bench::in_world(&config.to_string(), world).unwrap()
}

/// The serial number of the drone behind the dock.
pub(crate) const DRONE_SN: &str = "DRONE";

/// A bench with a drone behind the dock.
pub(crate) fn dock_and_drone(config: &Value) -> Bench<Dji> {
    let mut bench = bench_with(config);
    let mut drone = target("drone", "7.0");
    drone.parent = Some("dock".into());
    for (name, value) in [("sn", DRONE_SN), ("type", "60"), ("domain", "0")] {
        drone.attributes.push(Field {
            name: name.into(),
            value: value.into(),
        });
    }
    bench.world.targets.push(drone);
    bench
}

/// The cloud accepts the gateway, as the vendor's page shows it. Only where the presence is the adapter's own.
pub(crate) fn online(bench: &mut Bench<Dji>) -> Vec<Effect> {
    let up = bench.link("cloud", true, false).unwrap();
    let announcement = only(STATUS, &up);
    accepted(bench, &announcement)
}

/// The cloud's answer by the vendor's page to this announcement.
pub(crate) fn accepted(bench: &mut Bench<Dji>, announcement: &Value) -> Vec<Effect> {
    let mut reply: Value =
        serde_json::from_str(include_str!("../../fixtures/dji_1_11_3_status_reply.json")).unwrap();
    reply["tid"] = announcement["tid"].clone();
    reply["bid"] = announcement["bid"].clone();
    bench.message("cloud", STATUS_REPLY, &reply).unwrap()
}

/// The cloud's answer by the vendor's page to this event.
pub(crate) fn answer(bench: &mut Bench<Dji>, event: &Value) -> Vec<Effect> {
    let mut reply: Value = serde_json::from_str(include_str!(
        "../../fixtures/dji_1_11_3_events_reply_envelope.json"
    ))
    .unwrap();
    reply["tid"] = event["tid"].clone();
    reply["bid"] = event["bid"].clone();
    reply["method"] = json!("ota_progress");
    bench.message("cloud", EVENTS_REPLY, &reply).unwrap()
}

/// The page's command with these ids.
pub(crate) fn command(tid: &str, bid: &str) -> Value {
    let mut command: Value = serde_json::from_str(PAGE).unwrap();
    command["tid"] = json!(tid);
    command["bid"] = json!(bid);
    command
}

/// Sends a command to the adapter.
pub(crate) fn send(bench: &mut Bench<Dji>, command: &Value) -> Vec<Effect> {
    bench.message("cloud", SERVICES, command).unwrap()
}

/// Sends the page's command with these ids and gives the job it became.
pub(crate) fn accept(bench: &mut Bench<Dji>, tid: &str, bid: &str) -> JobPlan {
    let effects = send(bench, &command(tid, bid));
    let plan = started(&effects)[0].clone();
    bench.set_job(otahost_adapter::bench::report(&plan, Phase::Queued));
    plan
}

/// The messages on this topic, read.
pub(crate) fn on(topic: &str, effects: &[Effect]) -> Vec<Value> {
    published(effects)
        .into_iter()
        .filter(|p| p.topic == topic)
        .map(|p| p.payload_json().unwrap())
        .collect()
}

/// The only message on this topic.
pub(crate) fn only(topic: &str, effects: &[Effect]) -> Value {
    let all = on(topic, effects);
    assert_eq!(all.len(), 1, "{topic}: {effects:?}");
    all[0].clone()
}

/// True when the only message on this topic outlives a reboot.
pub(crate) fn is_durable(topic: &str, effects: &[Effect]) -> bool {
    published(effects)
        .into_iter()
        .filter(|p| p.topic == topic)
        .all(|p| p.persistence == Persistence::Durable && p.qos == 1)
}

/// How the job stands, with so much of its file here.
pub(crate) fn at(plan: &JobPlan, phase: Phase, received: u64) -> JobReport {
    let mut report = otahost_adapter::bench::report(plan, phase);
    for install in &mut report.installs {
        install.received = received;
    }
    report
}

/// The job ended this way for this reason.
pub(crate) fn ended(plan: &JobPlan, phase: Phase, code: &str, stage: &str) -> JobReport {
    JobReport {
        reason: Some(Reason::new(code, stage, "why")),
        ..at(plan, phase, 0)
    }
}
