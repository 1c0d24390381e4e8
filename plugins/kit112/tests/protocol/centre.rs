//! The centre's side for the tests: the vendor page's request, the folder, and a reader for what is answered.

use kit112::Kit112;
use otahost_adapter::bench::{Bench, World, file, listings, report, responses, started, target};
use otahost_adapter::{DirectoryEntry, Effect, JobPlan, JobReport, Phase, Reason};
use serde_json::{Value, json};

/// The request of the vendor's page.
pub(crate) const PAGE: &str = include_str!("../../fixtures/page_update_device_request.json");
/// The answer of the vendor's page.
pub(crate) const PAGE_ANSWER: &str =
    include_str!("../../fixtures/page_update_device_response.json");
/// The kit id of the page, which is no UUID.
pub(crate) const KIT: &str = "d8110f9d-d5ce-4451-ab12-d5881d-dfe4d6";
pub(crate) const SIZE: u64 = 52_428_800;

/// A bench with the page's kit at the page's old version. An update takes as long as in the page's example.
pub(crate) fn bench() -> Bench<Kit112> {
    bench_with(&json!({}))
}

/// The same with these keys in the configuration.
pub(crate) fn bench_with(keys: &Value) -> Bench<Kit112> {
    let mut config = json!({
        "kit_id": KIT,
        "vehicle": "34 ABC 112",
        "device_info": { "brand": "Evonest", "model": "K1" },
    });
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    let world = World {
        targets: vec![target("kit", "0.0.21")],
        estimate_seconds: 5_400,
        ..World::default()
    };
    Bench::in_world(&config.to_string(), world).unwrap()
}

/// The folder with the page's new version and older ones.
pub(crate) fn folder() -> Vec<DirectoryEntry> {
    vec![
        file("kit-0.0.9.img", 7),
        file("kit-0.0.22.img", SIZE),
        file("kit-0.0.22.img.sha256", 64),
        file("kit-0.0.21.img", 7),
    ]
}

/// Sends the page's request.
pub(crate) fn post(bench: &mut Bench<Kit112>) -> Vec<Effect> {
    bench.request("kit", "POST", "/updateDevice", PAGE).unwrap()
}

/// The tag of the only directory that is to be listed.
pub(crate) fn tag(effects: &[Effect]) -> String {
    let all = listings(effects);
    assert_eq!(all.len(), 1, "{effects:?}");
    all[0].tag.clone()
}

/// Sends the page's request, lists the folder, and gives all effects of the latter.
pub(crate) fn post_and_list(
    bench: &mut Bench<Kit112>,
    entries: Vec<DirectoryEntry>,
) -> Vec<Effect> {
    let asked = post(bench);
    bench.listing(&tag(&asked), Ok(entries)).unwrap()
}

/// The page's request leads to this job, which is now queued.
pub(crate) fn begin(bench: &mut Bench<Kit112>) -> JobPlan {
    let effects = post_and_list(bench, folder());
    let plan = started(&effects)[0].clone();
    bench.set_job(report(&plan, Phase::Queued));
    plan
}

/// The only answer, checked against its own envelope.
pub(crate) fn answer(effects: &[Effect]) -> Value {
    let all = answers(effects);
    assert_eq!(all.len(), 1, "{effects:?}");
    all[0].1.clone()
}

/// The ids of the requests answered and what they were answered, each checked against its own envelope.
pub(crate) fn answers(effects: &[Effect]) -> Vec<(String, Value)> {
    let read = |response: &&otahost_adapter::ResponseTo| {
        let body: Value = response.response.json().unwrap();
        let mut keys: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        assert_eq!(keys, ["data", "message", "status", "success", "timestamp"]);
        assert_eq!(body["status"], response.response.status);
        assert_eq!(body["success"], response.response.status == 200);
        assert_eq!(body["data"].is_null(), response.response.status != 200);
        assert!(body["timestamp"].as_u64().unwrap() >= 1_767_225_600_000);
        assert!(!body["message"].as_str().unwrap().is_empty());
        let json = response
            .response
            .headers
            .iter()
            .any(|h| h.name == "content-type" && h.value == "application/json");
        assert!(json);
        (response.request.clone(), body)
    };
    responses(effects).iter().map(read).collect()
}

/// What `getDeviceInfo` says.
pub(crate) fn device_info(bench: &mut Bench<Kit112>) -> Value {
    let effects = bench.request("kit", "GET", "/getDeviceInfo", "").unwrap();
    answer(&effects)["data"].clone()
}

/// What `healthCheck` says.
pub(crate) fn health(bench: &mut Bench<Kit112>) -> Value {
    let effects = bench.request("kit", "GET", "/healthCheck", "").unwrap();
    answer(&effects)["data"].clone()
}

/// How the job stands, as the host says it: from the page's old version.
pub(crate) fn at(plan: &JobPlan, phase: Phase) -> JobReport {
    let mut report = report(plan, phase);
    report.installs[0].old_version = Some("0.0.21".into());
    report
}

/// The job ended this way for this reason.
pub(crate) fn ended(plan: &JobPlan, phase: Phase, code: &str, stage: &str) -> JobReport {
    JobReport {
        reason: Some(Reason::new(code, stage, "why")),
        ..at(plan, phase)
    }
}
