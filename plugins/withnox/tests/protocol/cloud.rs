//! The cloud's side for the tests: answers by the vendor's pages, and a reader for what is asked.

use otahost_adapter::bench::{Bench, World, alerts, fetched, started, target, timers};
use otahost_adapter::{Effect, Fetch, JobPlan, JobReport, Phase, Reason, StartReason};
use serde_json::{Value, json};
use withnox::Withnox;
use withnox::state::State;

/// The list of the vendor's page: firmware 7, version 1.0.0, hardware 3.
pub(crate) const PAGE: &str = include_str!("../../fixtures/withnox_firmware_latest.json");
pub(crate) const LATEST: &str = "/api/v1/addnox/firmware/latest/4/9";
pub(crate) const REFRESH: &str = "/api/v1/addnox/auth/refresh-token";
pub(crate) const SIGN_IN: &str = "/api/v1/addnox/auth/email/signin";
pub(crate) const HOUR: u64 = 3_600_000;
pub(crate) const MINUTE: u64 = 60_000;

pub(crate) fn config() -> Value {
    json!({ "target": "cam", "device_id": 4, "user_id": 9 })
}

/// A bench whose target runs 0.9.0.
pub(crate) fn bench() -> Bench<Withnox> {
    bench_with(&config())
}

pub(crate) fn bench_with(config: &Value) -> Bench<Withnox> {
    let world = World {
        targets: vec![target("cam", "0.9.0")],
        ..World::default()
    };
    Bench::in_world(&config.to_string(), world).unwrap()
}

/// The one request among these effects.
pub(crate) fn only(effects: &[Effect]) -> Fetch {
    let requests = fetched(effects);
    assert_eq!(requests.len(), 1, "{effects:?}");
    requests[0].clone()
}

/// `METHOD path` of the requests among these effects.
pub(crate) fn asked(effects: &[Effect]) -> Vec<String> {
    fetched(effects)
        .iter()
        .map(|f| format!("{} {}", f.method, f.path))
        .collect()
}

/// How long until the timer with this name.
pub(crate) fn wait(effects: &[Effect], name: &str) -> Option<u64> {
    timers(effects)
        .iter()
        .rfind(|t| t.name == name)
        .map(|t| t.after)
}

/// Codes of the alerts among these effects.
pub(crate) fn codes(effects: &[Effect]) -> Vec<String> {
    alerts(effects).iter().map(|a| a.code.clone()).collect()
}

pub(crate) fn state(bench: &Bench<Withnox>) -> State {
    bench.read_state().unwrap()
}

/// The status word.
pub(crate) fn status(bench: &Bench<Withnox>) -> String {
    let state: Value = serde_json::from_slice(bench.state()).unwrap();
    state["status"].as_str().unwrap().to_owned()
}

pub(crate) fn error(detail: &str) -> Value {
    json!({ "detail": detail })
}

/// One entry of the list, by the vendor's page, with another id and version.
pub(crate) fn entry(firmware: u64, version: &str) -> Value {
    let page: Value = serde_json::from_str(PAGE).unwrap();
    let mut entry = page[0].clone();
    entry["id"] = json!(firmware + 1_000);
    entry["firmware_id"] = json!(firmware);
    entry["firmware"]["id"] = json!(firmware);
    entry["firmware"]["version"] = json!(version);
    entry["firmware"]["file_key"] = json!(format!("firmwares/{firmware}.bin"));
    entry
}

/// The next poll, from its timer.
pub(crate) fn poll(bench: &mut Bench<Withnox>) -> Fetch {
    let effects = bench.timer("poll").unwrap();
    let request = only(&effects);
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("GET", LATEST)
    );
    request
}

/// Polls and lets the cloud answer with this.
pub(crate) fn polled(bench: &mut Bench<Withnox>, http: u16, body: &Value) -> Vec<Effect> {
    let request = poll(bench);
    bench.answered(&request.tag, http, body).unwrap()
}

/// The cloud lists this one version, and a job is made of it.
pub(crate) fn offered(bench: &mut Bench<Withnox>, firmware: u64, version: &str) -> JobPlan {
    let effects = polled(bench, 200, &json!([entry(firmware, version)]));
    let plan = started(&effects)[0].clone();
    bench.set_job(at(&plan, Phase::Queued));
    plan
}

pub(crate) fn at(plan: &JobPlan, phase: Phase) -> JobReport {
    otahost_adapter::bench::report(plan, phase)
}

/// The job ended this way for this reason.
pub(crate) fn ended(plan: &JobPlan, phase: Phase, code: &str, stage: &str) -> JobReport {
    JobReport {
        reason: Some(Reason::new(code, stage, "why")),
        ..at(plan, phase)
    }
}

/// The target says that it runs this.
pub(crate) fn runs(bench: &mut Bench<Withnox>, version: &str) {
    bench.world.targets[0].version = Some(version.into());
}

/// The update goes through its reboot and is confirmed; the effects of its last report.
pub(crate) fn succeed(bench: &mut Bench<Withnox>, plan: &JobPlan) -> Vec<Effect> {
    bench.report(at(plan, Phase::Activating)).unwrap();
    bench.reboot("boot-2", 3_000);
    bench.start(StartReason::Booted).unwrap();
    runs(bench, &plan.installs[0].version);
    bench.report(at(plan, Phase::Confirming)).unwrap();
    bench.report(at(plan, Phase::Succeeded)).unwrap()
}

/// The device's page after `update-result`.
pub(crate) fn device(now: u64) -> Value {
    let mut device: Value = serde_json::from_str(include_str!(
        "../../fixtures/withnox_update_result_200.json"
    ))
    .unwrap();
    device["now_firmware_id"] = json!(now);
    device
}

/// The page's answer with new tokens, as the host shows it: what was captured is cut.
pub(crate) fn tokens() -> Value {
    let mut tokens: Value = serde_json::from_str(include_str!(
        "../../fixtures/withnox_refresh_token_200.json"
    ))
    .unwrap();
    tokens.as_object_mut().unwrap().remove("access_token");
    tokens.as_object_mut().unwrap().remove("refresh_token");
    tokens
}
