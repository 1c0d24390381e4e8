//! `getDeviceInfo` and `healthCheck`: which version counts, and what is told of the last update.

use otahost_adapter::{Health, JobReport, Phase, StartReason};
use serde_json::{Value, json};

use crate::centre::{KIT, answer, at, begin, bench, bench_with, device_info, ended, health};

#[test]
fn device_info_says_what_the_operator_wrote_and_the_version() {
    let mut bench = bench();
    for method in ["GET", "POST"] {
        let effects = bench.request("kit", method, "/getDeviceInfo", "").unwrap();
        let said = answer(&effects);
        assert_eq!(
            said["data"],
            json!({ "kitId": KIT, "brand": "Evonest", "model": "K1", "version": "0.0.21" })
        );
    }
}

#[test]
fn base_path_goes_before_every_service() {
    let mut bench = bench_with(&json!({ "base_path": "/api/v1" }));
    for (method, path) in [
        ("POST", "updateDevice"),
        ("GET", "getDeviceInfo"),
        ("POST", "healthCheck"),
    ] {
        let body = json!({ "kitId": KIT }).to_string();
        assert!(
            bench
                .request("kit", method, &format!("/{path}"), body.as_str())
                .is_err()
        );
        let effects = bench
            .request("kit", method, &format!("/api/v1/{path}"), body)
            .unwrap();
        assert!(!effects.is_empty());
    }
}

#[test]
fn another_kits_id_is_404_and_a_broken_body_400_where_none_is_needed() {
    let mut bench = bench();
    for service in ["/getDeviceInfo", "/healthCheck"] {
        let mut status = |method: &str, query: &str, body: &str| {
            let effects = bench
                .request("kit", method, &format!("{service}{query}"), body)
                .unwrap();
            answer(&effects)["status"].clone()
        };
        assert_eq!(status("POST", "", r#"{"kitId":"other"}"#), 404);
        assert_eq!(status("GET", "?kitId=other", ""), 404);
        assert_eq!(status("POST", "", "[]"), 400);
        assert_eq!(status("POST", "", r#"{"kitId":1}"#), 400);
        assert_eq!(status("POST", "", "{}"), 200);
        assert_eq!(status("GET", &format!("?kitId={KIT}"), ""), 200);
    }
    let mut strict = bench_with(&json!({ "info_kit_id": "required" }));
    for (path, expected) in [
        ("/healthCheck".to_owned(), 400),
        (format!("/healthCheck?kitId={KIT}"), 200),
    ] {
        let effects = strict.request("kit", "GET", &path, "").unwrap();
        assert_eq!(answer(&effects)["status"], expected);
    }
}

#[test]
fn the_version_changes_only_when_the_new_one_is_confirmed() {
    let mut bench = bench();
    let plan = begin(&mut bench);
    for phase in [Phase::Downloading, Phase::Installing, Phase::Activating] {
        bench.report(at(&plan, phase)).unwrap();
        assert_eq!(device_info(&mut bench)["version"], "0.0.21", "{phase}");
    }
    bench.reboot("boot-2", 3_000);
    bench.start(StartReason::Booted).unwrap();
    bench.world.targets[0].version = Some("0.0.22".into());
    bench.report(at(&plan, Phase::Confirming)).unwrap();
    assert_eq!(device_info(&mut bench)["version"], "0.0.21");
    assert_eq!(health(&mut bench)["version"], "0.0.21");
    bench.report(at(&plan, Phase::Succeeded)).unwrap();
    assert_eq!(device_info(&mut bench)["version"], "0.0.22");
    assert_eq!(health(&mut bench)["version"], "0.0.22");
}

#[test]
fn on_trial_the_old_version_is_the_one_that_was_answered_where_the_host_does_not_know_it() {
    let mut bench = bench();
    let plan = begin(&mut bench);
    bench.world.targets[0].version = Some("0.0.22".into());
    let mut confirming = at(&plan, Phase::Confirming);
    confirming.installs[0].old_version = None;
    bench.report(confirming).unwrap();
    assert_eq!(device_info(&mut bench)["version"], "0.0.21");
}

#[test]
fn a_new_version_that_was_never_confirmed_counts_only_once_the_device_is_well_with_it() {
    for phase in [Phase::RolledBack, Phase::RollbackFailed] {
        let mut bench = bench();
        let plan = begin(&mut bench);
        bench.world.targets[0].version = Some("0.0.22".into());
        bench.world.targets[0].health = Health::Unwell;
        bench
            .report(ended(&plan, phase, "probe-failed", "confirm"))
            .unwrap();
        assert_eq!(device_info(&mut bench)["version"], "0.0.21", "{phase}");
        bench.world.targets[0].health = Health::Healthy;
        assert_eq!(device_info(&mut bench)["version"], "0.0.22", "{phase}");
        bench.world.targets[0].version = Some("0.0.21".into());
        assert_eq!(device_info(&mut bench)["version"], "0.0.21", "{phase}");
    }
}

/// The same job as another's: the operator's file at the station.
fn station(report: &JobReport) -> JobReport {
    JobReport {
        key: "operator/7".into(),
        foreign: true,
        context: Vec::new(),
        ..report.clone()
    }
}

#[test]
fn an_update_at_the_station_is_told_when_the_centre_asks() {
    let mut bench = bench();
    let plan = begin(&mut bench);
    bench.world.jobs.clear();
    bench
        .report(station(&at(&plan, Phase::Downloading)))
        .unwrap();
    bench.world.targets[0].version = Some("0.0.22".into());
    bench
        .report(station(&at(&plan, Phase::Confirming)))
        .unwrap();
    let during = health(&mut bench);
    assert_eq!(during["updating"], true);
    assert_eq!(during["phase"], "confirming");
    assert_eq!(during["version"], "0.0.21");
    bench.advance(5_000);
    bench.report(station(&at(&plan, Phase::Succeeded))).unwrap();
    let after = health(&mut bench);
    assert_eq!(
        after,
        json!({
            "kitId": KIT,
            "version": "0.0.22",
            "health": "healthy",
            "updating": false,
            "phase": null,
            "lastUpdate": {
                "outcome": "succeeded",
                "oldVersion": "0.0.21",
                "newVersion": "0.0.22",
                "requestedBy": "local",
                "reason": null,
                "timestamp": bench.world.now,
            },
        })
    );
}

#[test]
fn a_version_on_trial_is_not_said_even_where_nobody_knows_the_one_before() {
    let mut bench = bench();
    let plan = begin(&mut bench);
    bench.world.jobs.clear();
    for (phase, version) in [
        (Phase::Downloading, "0.0.21"),
        (Phase::Activating, "unknown"),
        (Phase::Confirming, "unknown"),
    ] {
        // Another's job whose reports this adapter was not there to see.
        bench.set_job(station(&at(&plan, phase)));
        assert_eq!(device_info(&mut bench)["version"], version, "{phase}");
    }
}

#[test]
fn an_unwell_device_answers_200_and_says_so() {
    let mut bench = bench();
    for (is, word) in [
        (Health::Unwell, "unwell"),
        (Health::Offline, "offline"),
        (Health::Unknown, "unknown"),
    ] {
        bench.world.targets[0].health = is;
        assert_eq!(health(&mut bench)["health"], word);
    }
}

#[test]
fn what_failed_before_it_was_activated_is_told_only_by_configuration() {
    for (failed_updates, expected) in [("hidden", Value::Null), ("shown", json!("failed"))] {
        let mut bench = bench_with(&json!({ "failed_updates": failed_updates }));
        let plan = begin(&mut bench);
        bench
            .report(ended(&plan, Phase::Failed, "source-lost", "download"))
            .unwrap();
        assert_eq!(health(&mut bench)["lastUpdate"]["outcome"], expected);
        assert_eq!(health(&mut bench)["updating"], false);
        // What was activated is told in any case.
        let plan = begin(&mut bench);
        bench
            .report(ended(&plan, Phase::RolledBack, "boot-failed", "activate"))
            .unwrap();
        let last = health(&mut bench)["lastUpdate"].clone();
        assert_eq!(
            (&last["outcome"], &last["reason"]),
            (&json!("rolled-back"), &json!("boot-failed"))
        );
        assert_eq!(last["requestedBy"], "centre");
    }
}

#[test]
fn asking_changes_nothing() {
    let mut bench = bench();
    begin(&mut bench);
    let state = bench.state().to_vec();
    device_info(&mut bench);
    health(&mut bench);
    assert_eq!(bench.state(), state);
}
