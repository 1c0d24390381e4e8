//! After an update that leaves the device unwell, company and vehicle owner hear of it, once.

use otahost_adapter::bench::{alerts, timers};
use otahost_adapter::{Effect, Event, Health, JobReport, Level, Phase};
use serde_json::json;

use crate::centre::{at, begin, bench, bench_with, ended, health};

#[test]
fn an_update_that_rolled_back_is_an_alert_once() {
    for (phase, code, level) in [
        (Phase::RolledBack, "update-rolled-back", Level::Warn),
        (
            Phase::RollbackFailed,
            "update-rollback-failed",
            Level::Error,
        ),
    ] {
        let mut bench = bench();
        let plan = begin(&mut bench);
        let report = ended(&plan, phase, "probe-failed", "confirm");
        let effects = bench.report(report.clone()).unwrap();
        let alert = alerts(&effects)[0];
        assert_eq!((alert.code.as_str(), alert.level), (code, level));
        for part in ["34 ABC 112", "0.0.22"] {
            assert!(alert.text.contains(part), "{}", alert.text);
        }
        assert!(!alert.text.contains('{'), "{}", alert.text);
        assert_eq!(effects.len(), 1, "{effects:?}");
        assert_eq!(bench.report(report).unwrap(), [], "the report came twice");
    }
}

#[test]
fn the_next_update_of_the_same_file_that_rolls_back_is_an_alert_of_its_own() {
    let mut bench = bench();
    for _ in 0..3 {
        let plan = begin(&mut bench);
        let effects = bench
            .report(ended(&plan, Phase::RolledBack, "boot-failed", "activate"))
            .unwrap();
        assert_eq!(alerts(&effects).len(), 1);
    }
}

#[test]
fn an_update_at_the_station_that_rolls_back_is_an_alert_once_for_each_time() {
    let mut bench = bench();
    let plan = begin(&mut bench);
    bench.world.jobs.clear();
    let foreign = |report: JobReport| JobReport {
        key: "operator/1".into(),
        foreign: true,
        context: Vec::new(),
        ..report
    };
    for _ in 0..2 {
        bench.report(foreign(at(&plan, Phase::Confirming))).unwrap();
        let last = foreign(ended(&plan, Phase::RolledBack, "probe-failed", "confirm"));
        assert_eq!(alerts(&bench.report(last.clone()).unwrap()).len(), 1);
        assert_eq!(bench.report(last).unwrap(), []);
    }
}

#[test]
fn a_confirmed_version_that_becomes_unwell_is_an_alert_once() {
    let mut bench = bench();
    let plan = begin(&mut bench);
    let effects = bench.report(at(&plan, Phase::Succeeded)).unwrap();
    assert!(alerts(&effects).is_empty());
    assert_eq!(timers(&effects)[0].after, 24 * 3_600_000);
    let mut becomes = |health| {
        bench.world.targets[0].health = health;
        bench.send(Event::Target("kit".into())).unwrap()
    };
    assert_eq!(becomes(Health::Healthy), []);
    assert_eq!(becomes(Health::Offline), []);
    let effects = becomes(Health::Unwell);
    assert_eq!(alerts(&effects)[0].code, "unwell-after-update");
    assert!(effects.contains(&Effect::CancelTimer("watch".into())));
    assert_eq!(becomes(Health::Healthy), []);
    assert_eq!(becomes(Health::Unwell), []);
}

#[test]
fn a_version_that_is_confirmed_on_an_unwell_device_is_an_alert_at_once() {
    let mut bench = bench_with(&json!({ "watch_hours": 0 }));
    let plan = begin(&mut bench);
    bench.world.targets[0].health = Health::Unwell;
    let effects = bench.report(at(&plan, Phase::Succeeded)).unwrap();
    assert_eq!(alerts(&effects).len(), 1);
    assert_eq!(bench.report(at(&plan, Phase::Succeeded)).unwrap(), []);
}

#[test]
fn what_becomes_unwell_long_after_an_update_is_not_blamed_on_it() {
    for watch_hours in [0, 24] {
        let mut bench = bench_with(&json!({ "watch_hours": watch_hours }));
        let plan = begin(&mut bench);
        bench.report(at(&plan, Phase::Succeeded)).unwrap();
        bench.timer("watch").unwrap();
        bench.world.targets[0].health = Health::Unwell;
        assert_eq!(bench.send(Event::Target("kit".into())).unwrap(), []);
    }
}

#[test]
fn while_the_next_update_works_on_it_a_device_may_be_unwell() {
    let mut bench = bench();
    let first = begin(&mut bench);
    bench.report(at(&first, Phase::Succeeded)).unwrap();
    let second = begin(&mut bench);
    bench.report(at(&second, Phase::Installing)).unwrap();
    bench.world.targets[0].health = Health::Unwell;
    assert_eq!(bench.send(Event::Target("kit".into())).unwrap(), []);
    let effects = bench
        .report(ended(&second, Phase::Failed, "flash", "install"))
        .unwrap();
    assert_eq!(alerts(&effects).len(), 1, "it stayed unwell");
}

#[test]
fn of_a_mixed_end_only_our_target_counts() {
    let mut bench = bench();
    let plan = begin(&mut bench);
    let mut report = ended(&plan, Phase::Partial, "other", "confirm");
    let mut other = report.installs[0].clone();
    other.target = "camera".into();
    other.phase = Phase::RolledBack;
    report.installs[0].phase = Phase::Succeeded;
    report.installs.push(other);
    let effects = bench.report(report).unwrap();
    assert!(alerts(&effects).is_empty());
    assert_eq!(health(&mut bench)["lastUpdate"]["outcome"], "succeeded");
}

#[test]
fn a_job_on_other_targets_and_one_that_others_were_refused_are_nothing_to_us() {
    let mut bench = bench();
    let plan = begin(&mut bench);
    let state = bench.state().to_vec();
    let mut camera = ended(&plan, Phase::RolledBack, "probe-failed", "confirm");
    camera.installs[0].target = "camera".into();
    assert_eq!(bench.report(camera).unwrap(), []);
    let mut refused = ended(&plan, Phase::Rejected, "busy", "admit");
    refused.foreign = true;
    assert_eq!(bench.report(refused).unwrap(), []);
    assert_eq!(bench.state(), state);
}

#[test]
fn a_job_whose_context_cannot_be_read_is_logged() {
    let mut bench = bench();
    let mut report = ended(&begin(&mut bench), Phase::RolledBack, "other", "confirm");
    report.context = b"{}".to_vec();
    assert_eq!(bench.report(report).unwrap(), []);
    assert!(bench.log().iter().any(|(level, _)| *level == Level::Error));
}

#[test]
fn an_end_is_handled_also_by_an_adapter_that_was_put_in_anew() {
    let mut bench = bench();
    for _ in 0..4 {
        let plan = begin(&mut bench);
        bench
            .report(ended(&plan, Phase::Failed, "digest", "verify"))
            .unwrap();
    }
    let old = begin(&mut bench);
    bench.set_state(Vec::new());
    assert_eq!(
        alerts(
            &bench
                .report(ended(&old, Phase::RolledBack, "other", "confirm"))
                .unwrap()
        )
        .len(),
        1
    );
    let new = begin(&mut bench);
    assert_eq!(
        alerts(
            &bench
                .report(ended(&new, Phase::RolledBack, "other", "confirm"))
                .unwrap()
        )
        .len(),
        1
    );
}
