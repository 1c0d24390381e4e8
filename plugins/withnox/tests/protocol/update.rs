//! Updates that do not end well: what rolled back is not taken again. R17.

use otahost_adapter::bench::{Bench, started};
use otahost_adapter::{Phase, Reason, StartReason, Verdict};
use serde_json::{Value, json};
use withnox::Withnox;

use crate::cloud::{
    asked, at, bench, bench_with, codes, config, ended, entry, offered, polled, runs, status,
    succeed, wait,
};

/// The update is activated, does not prove itself and is rolled back; the codes of the alerts meanwhile.
fn roll_back(bench: &mut Bench<Withnox>, firmware: u64, version: &str) -> Vec<String> {
    let plan = offered(bench, firmware, version);
    let old = bench.world.targets[0].version.clone();
    bench.report(at(&plan, Phase::Activating)).unwrap();
    bench.reboot("boot-2", 3_000);
    bench.start(StartReason::Booted).unwrap();
    runs(bench, version);
    bench.report(at(&plan, Phase::Confirming)).unwrap();
    bench.world.targets[0].version = old;
    let effects = bench
        .report(ended(&plan, Phase::RolledBack, "probe-failed", "confirm"))
        .unwrap();
    assert!(asked(&effects).is_empty(), "no PATCH after a roll-back");
    codes(&effects)
}

fn known_bad() -> Verdict {
    Verdict::Refuse(Reason::new("known-bad", "admit", "rolled back once"))
}

#[test]
fn r17_what_was_rolled_back_is_not_installed_again_and_alerted_once() {
    let mut bench = bench();
    assert_eq!(roll_back(&mut bench, 7, "1.0.0"), ["not-again-7"]);
    let list = json!([entry(7, "1.0.0")]);
    for n in 0..40 {
        let effects = polled(&mut bench, 200, &list);
        assert!(
            started(&effects).is_empty() && codes(&effects).is_empty(),
            "poll {n}"
        );
        assert_eq!(status(&bench), "known-bad");
        bench.start(StartReason::Booted).unwrap();
    }
}

#[test]
fn r17_what_the_host_says_is_known_bad_is_alerted_once_and_taken_when_it_is_cleared() {
    let mut bench = bench();
    bench.world.verdict = known_bad();
    let list = json!([entry(7, "1.0.0")]);
    assert_eq!(codes(&polled(&mut bench, 200, &list)), ["not-again-7"]);
    for _ in 0..40 {
        let effects = polled(&mut bench, 200, &list);
        assert!(started(&effects).is_empty() && codes(&effects).is_empty());
    }
    bench.world.verdict = Verdict::Allow;
    assert_eq!(started(&polled(&mut bench, 200, &list)).len(), 1);
}

#[test]
fn r17_a_roll_back_that_the_host_knows_too_is_cleared_by_the_host() {
    let mut bench = bench();
    roll_back(&mut bench, 7, "1.0.0");
    let list = json!([entry(7, "1.0.0")]);
    bench.world.verdict = known_bad();
    assert!(
        codes(&polled(&mut bench, 200, &list)).is_empty(),
        "one alert for both"
    );
    bench.world.verdict = Verdict::Allow;
    assert_eq!(started(&polled(&mut bench, 200, &list)).len(), 1);
}

#[test]
fn another_version_is_taken_beside_the_one_that_was_rolled_back() {
    let mut bench = bench();
    roll_back(&mut bench, 7, "1.0.0");
    let list = json!([entry(7, "1.0.0"), entry(8, "1.0.1")]);
    assert_eq!(started(&polled(&mut bench, 200, &list))[0].key, "withnox/8");

    let mut bench = crate::cloud::bench();
    roll_back(&mut bench, 8, "1.0.1");
    assert_eq!(started(&polled(&mut bench, 200, &list))[0].key, "withnox/7");
}

#[test]
fn another_file_under_the_same_id_is_another_offer() {
    let mut bench = bench();
    roll_back(&mut bench, 7, "1.0.0");
    let mut fixed = entry(7, "1.0.0");
    fixed["firmware"]["description"] = json!("still the same file");
    assert!(started(&polled(&mut bench, 200, &json!([fixed]))).is_empty());
    fixed["firmware"]["name"] = json!("Addnox_MP_00000000.bin");
    assert_eq!(started(&polled(&mut bench, 200, &json!([fixed]))).len(), 1);
}

#[test]
fn stepwise_never_leaps_over_a_step_that_was_rolled_back() {
    let mut stepwise = config();
    stepwise["stepwise"] = json!(true);
    let mut bench = bench_with(&stepwise);
    roll_back(&mut bench, 7, "1.0.0");
    let list = json!([entry(7, "1.0.0"), entry(8, "1.0.1")]);
    assert!(started(&polled(&mut bench, 200, &list)).is_empty());
    assert_eq!(status(&bench), "known-bad");
}

#[test]
fn a_changed_configuration_has_it_looked_at_anew() {
    let mut bench = bench();
    roll_back(&mut bench, 7, "1.0.0");
    bench.start(StartReason::Reconfigured).unwrap();
    assert_eq!(
        started(&polled(&mut bench, 200, &json!([entry(7, "1.0.0")]))).len(),
        1
    );
}

#[test]
fn a_file_with_a_fault_of_its_own_is_not_fetched_at_every_poll_but_again_after_a_week() {
    let mut bench = bench();
    let plan = offered(&mut bench, 7, "1.0.0");
    let effects = bench
        .report(ended(&plan, Phase::Failed, "signature", "verify"))
        .unwrap();
    assert_eq!(codes(&effects), ["not-again-7"]);
    let list = json!([entry(7, "1.0.0")]);
    let mut polls = 0;
    while started(&polled(&mut bench, 200, &list)).is_empty() {
        polls += 1;
        assert!(polls < 100);
    }
    assert_eq!(polls, 27);
}

#[test]
fn a_job_that_failed_on_its_way_is_tried_again_at_the_next_poll() {
    for (phase, code) in [
        (Phase::Failed, "source-lost"),
        (Phase::Failed, "digest"),
        (Phase::Failed, "not-ready"),
        (Phase::Cancelled, "cancelled"),
        (Phase::Rejected, "busy"),
    ] {
        let mut bench = bench();
        let plan = offered(&mut bench, 7, "1.0.0");
        let effects = bench.report(ended(&plan, phase, code, "download")).unwrap();
        assert!(effects.is_empty(), "{code}: {effects:?}");
        let effects = polled(&mut bench, 200, &json!([entry(7, "1.0.0")]));
        assert_eq!(started(&effects)[0].installs, plan.installs, "{code}");
    }
}

#[test]
fn after_an_update_the_next_poll_comes_soon_so_that_stepwise_goes_on() {
    let mut bench = bench();
    let plan = offered(&mut bench, 7, "1.0.0");
    let effects = succeed(&mut bench, &plan);
    assert!(wait(&effects, "poll").unwrap() < 120_000);
    let effects = polled(&mut bench, 200, &json!([entry(8, "1.0.1")]));
    assert_eq!(started(&effects)[0].key, "withnox/8");
}

#[test]
fn a_job_whose_context_cannot_be_read_is_survived() {
    let mut bench = bench();
    let mut plan = offered(&mut bench, 7, "1.0.0");
    plan.context = b"\xff{".to_vec();
    for phase in [Phase::Succeeded, Phase::RolledBack] {
        bench.report(at(&plan, phase)).unwrap();
    }
    let _: Value = serde_json::from_slice(bench.state()).unwrap();
}
