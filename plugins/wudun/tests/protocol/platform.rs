//! The platform's side for the tests: commands by the vendor's own pages, and a reader for what comes back.

use otahost_adapter::bench::{Bench, World, published, started, target};
use otahost_adapter::{
    Effect, Field, Health, JobPlan, JobReport, Persistence, Phase, Reason, Target,
};
use serde_json::{Value, json};
use wudun::Wudun;

pub(crate) const UPGRADE: &str = "ota/upgrade";
pub(crate) const EMU_VERSION: &str = "ota/emu_version";
pub(crate) const EMU_UPGRADE: &str = "ota/emu_upgrade";
pub(crate) const EMU_RESULT: &str = "ota/emu_upgrade_result";

/// The `mid` and `trace_id` of the vendor's commands.
pub(crate) const MID: &str = "ee2e8f09-b280-4e4d-bcb9-1529b703cfed";
pub(crate) const TRACE: &str = "577f5df0-65d6-432d-8aac-06hjkgfg2";

/// What stands before the commands' names in the topics of [`bench`].
pub(crate) const BASE: &str = "v1/user/T/test";

/// A payload of the vendor's pages, byte for byte.
pub(crate) fn sample(file: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/");
    std::fs::read(format!("{folder}{file}")).unwrap()
}

pub(crate) fn sample_json(file: &str) -> Value {
    serde_json::from_slice(&sample(file)).unwrap()
}

/// The vendor's `ota/upgrade` with this `mid`.
pub(crate) fn upgrade(mid: &str) -> Value {
    let mut command = sample_json("wudun_ota_upgrade_command.json");
    command["mid"] = json!(mid);
    command
}

/// The vendor's `ota/emu_upgrade` with this `mid`, to this EMU.
pub(crate) fn emu_upgrade(mid: &str, device_id: i64) -> Value {
    let mut command = sample_json("wudun_2025_07_emu_upgrade_command.json");
    command["mid"] = json!(mid);
    command["sub_device_id"] = json!(device_id);
    command
}

/// A target with these attributes.
pub(crate) fn with(id: &str, version: &str, attributes: &[(&str, &str)]) -> Target {
    let mut target = target(id, version);
    target.attributes = attributes
        .iter()
        .map(|(name, value)| Field {
            name: (*name).into(),
            value: (*value).into(),
        })
        .collect();
    target
}

/// A bench with the vendor's EMS and three EMUs behind it, of which the last is offline.
pub(crate) fn bench() -> Bench<Wudun> {
    bench_with(&json!({ "device_uid": "test", "tenant": "T" }))
}

pub(crate) fn bench_with(config: &Value) -> Bench<Wudun> {
    let mut targets = vec![with("ems", "0.9.0", &[("source", "ems_II")])];
    for (id, device_id) in [("emu-2", "2"), ("emu-3", "3"), ("emu-4", "4")] {
        let mut emu = with(id, "emu-v1.0.0", &[("device_id", device_id)]);
        emu.parent = Some("ems".into());
        targets.push(emu);
    }
    targets[3].health = Health::Offline;
    let world = World {
        targets,
        ..World::default()
    };
    Bench::in_world(&config.to_string(), world).unwrap()
}

/// Sends a command on the topics of [`bench`].
pub(crate) fn send(bench: &mut Bench<Wudun>, path: &str, command: &Value) -> Vec<Effect> {
    bench
        .message("cloud", &format!("{BASE}/{path}/command"), command)
        .unwrap()
}

/// Sends a command and gives the job it became, which is queued then.
pub(crate) fn accept(bench: &mut Bench<Wudun>, path: &str, command: &Value) -> JobPlan {
    let effects = send(bench, path, command);
    assert_eq!(
        published(&effects).len(),
        0,
        "nothing is said yet: {effects:?}"
    );
    let plan = started(&effects)[0].clone();
    bench.set_job(otahost_adapter::bench::report(&plan, Phase::Queued));
    plan
}

/// The job goes on to this phase.
pub(crate) fn goes(bench: &mut Bench<Wudun>, plan: &JobPlan, phase: Phase) -> Vec<Effect> {
    bench.report(at(plan, phase, 0)).unwrap()
}

/// The job stands in this phase, at so many percent of it. Its versions are those of the vendor's sample.
pub(crate) fn at(plan: &JobPlan, phase: Phase, percent: u8) -> JobReport {
    let mut report = otahost_adapter::bench::report(plan, phase);
    for install in &mut report.installs {
        install.percent = percent;
        install.old_version = Some("0.9.0".into());
        install.new_version = "0.9.1".into();
    }
    report
}

/// The job ended this way for this reason.
pub(crate) fn ends(
    bench: &mut Bench<Wudun>,
    plan: &JobPlan,
    phase: Phase,
    code: &str,
    stage: &str,
) -> Vec<Effect> {
    let report = JobReport {
        reason: Some(Reason::new(code, stage, "why")),
        ..at(plan, phase, 0)
    };
    bench.report(report).unwrap()
}

/// The results of this command, read. All of them are durable, at QoS 1 and not retained.
pub(crate) fn results(path: &str, effects: &[Effect]) -> Vec<Value> {
    let topic = format!("{BASE}/{path}/result");
    let mut all = Vec::new();
    for publication in published(effects) {
        assert_eq!(publication.topic, topic);
        assert_eq!(publication.persistence, Persistence::Durable);
        assert_eq!((publication.qos, publication.retain), (1, false));
        all.push(publication.payload_json().unwrap());
    }
    all
}

/// The only result.
pub(crate) fn only(path: &str, effects: &[Effect]) -> Value {
    let all = results(path, effects);
    assert_eq!(all.len(), 1, "{effects:?}");
    all[0].clone()
}

/// The `status` of each result of `ota/upgrade`.
pub(crate) fn statuses(effects: &[Effect]) -> Vec<u64> {
    let all = results(UPGRADE, effects);
    all.iter()
        .map(|r| r["data"]["status"].as_u64().unwrap())
        .collect()
}

/// The `download_status` of each result of `ota/emu_upgrade`.
pub(crate) fn download_statuses(effects: &[Effect]) -> Vec<u64> {
    let all = results(EMU_UPGRADE, effects);
    all.iter()
        .map(|r| r["data"]["download_status"].as_u64().unwrap())
        .collect()
}
