//! The same command again: its results are said again, and nothing is done. W05.

use crate::platform::{
    BASE, EMU_UPGRADE, MID, UPGRADE, accept, at, bench, bench_with, download_statuses, emu_upgrade,
    ends, goes, results, send, statuses, upgrade,
};
use otahost_adapter::bench::{published, started};
use otahost_adapter::{Effect, Event, Message, Phase, StartReason, Verdict};
use serde_json::{Value, json};

/// The results without what must differ each time.
fn contents(path: &str, effects: &[Effect]) -> Vec<Value> {
    let mut all = results(path, effects);
    for result in &mut all {
        result["mid"] = Value::Null;
        result["timestamp"] = Value::Null;
    }
    all
}

#[test]
fn w05_a_redelivered_command_is_one_download_and_its_results_are_said_again() {
    let mut bench = bench();
    let command = upgrade(MID);
    let plan = accept(&mut bench, UPGRADE, &command);
    let duplicate = Event::Message(Message {
        link: "cloud".into(),
        topic: format!("{BASE}/{UPGRADE}/command"),
        payload: serde_json::to_vec(&command).unwrap(),
        duplicate: true,
        retained: false,
    });
    assert!(
        bench.send(duplicate.clone()).unwrap().is_empty(),
        "nothing to say yet"
    );
    let prepared = goes(&mut bench, &plan, Phase::Prepared);
    let again = bench.send(duplicate.clone()).unwrap();
    assert_eq!(contents(UPGRADE, &again), contents(UPGRADE, &prepared));
    bench.world.targets[0].version = Some("0.9.1".into());
    let last = goes(&mut bench, &plan, Phase::Succeeded);
    bench.advance(86_400_000);
    bench.reboot("boot-2", 5);
    bench.start(StartReason::Booted).unwrap();
    bench.world.jobs.clear();
    // What runs by now is not what that result said.
    bench.world.targets[0].version = Some("1.2.3".into());
    let again = bench.send(duplicate).unwrap();
    assert!(started(&again).is_empty());
    assert_eq!(statuses(&again), [2, 4]);
    let told = [prepared, last].concat();
    assert_eq!(contents(UPGRADE, &again), contents(UPGRADE, &told));
    let mut mids: Vec<_> = results(UPGRADE, &[again, told].concat())
        .iter()
        .map(|r| r["mid"].to_string())
        .collect();
    mids.sort();
    mids.dedup();
    assert_eq!(mids.len(), 4, "a mid of its own each time");
}

#[test]
fn w05_every_other_end_is_said_again_too() {
    for (phase, prepared, expected) in [
        (Phase::Failed, false, vec![3]),
        (Phase::Rejected, false, vec![1]),
        (Phase::RolledBack, true, vec![2, 5]),
        (Phase::RollbackFailed, true, vec![2, 6]),
    ] {
        let mut bench = bench();
        let plan = accept(&mut bench, UPGRADE, &upgrade("m"));
        if prepared {
            goes(&mut bench, &plan, Phase::Prepared);
        }
        ends(&mut bench, &plan, phase, "digest", "verify");
        let again = send(&mut bench, UPGRADE, &upgrade("m"));
        assert_eq!(statuses(&again), expected);
        assert!(started(&again).is_empty());
    }
}

#[test]
fn a_refusal_stands_also_when_the_reason_is_gone() {
    let mut bench = bench();
    bench.world.verdict = Verdict::Refuse(otahost_adapter::Reason::new("policy", "admit", "why"));
    assert_eq!(statuses(&send(&mut bench, UPGRADE, &upgrade("m"))), [1]);
    bench.world.verdict = Verdict::Allow;
    let again = send(&mut bench, UPGRADE, &upgrade("m"));
    assert_eq!(statuses(&again), [1]);
    assert!(started(&again).is_empty());
    assert_eq!(started(&send(&mut bench, UPGRADE, &upgrade("n"))).len(), 1);
}

#[test]
fn w05_an_emu_upgrade_that_comes_again_is_not_pushed_again() {
    let mut bench = bench();
    let command = emu_upgrade("m", 2);
    let plan = accept(&mut bench, EMU_UPGRADE, &command);
    goes(&mut bench, &plan, Phase::Delivering);
    assert!(send(&mut bench, EMU_UPGRADE, &command).is_empty());
    let told = goes(&mut bench, &plan, Phase::Delivered);
    for _ in 0..2 {
        let again = send(&mut bench, EMU_UPGRADE, &command);
        assert_eq!(contents(EMU_UPGRADE, &again), contents(EMU_UPGRADE, &told));
        assert!(started(&again).is_empty());
        ends(&mut bench, &plan, Phase::Failed, "probe-failed", "confirm");
    }
    let other = emu_upgrade("n", 2);
    let plan = accept(&mut bench, EMU_UPGRADE, &other);
    ends(&mut bench, &plan, Phase::Failed, "flash", "unpack");
    assert_eq!(
        download_statuses(&send(&mut bench, EMU_UPGRADE, &other)),
        [5]
    );
}

#[test]
fn the_vendors_mid_is_the_same_on_all_its_pages_and_still_names_four_commands() {
    let mut bench = bench();
    accept(&mut bench, UPGRADE, &upgrade(MID));
    accept(&mut bench, EMU_UPGRADE, &emu_upgrade(MID, 2));
}

#[test]
fn the_same_command_on_the_other_form_of_the_topics_is_no_second_one() {
    let config = json!({ "device_uid": "test", "tenant": "T", "product_key": "PK" });
    let mut bench = bench_with(&config);
    let plan = accept(&mut bench, UPGRADE, &upgrade("m"));
    let other = "v1/wudun/PK/test/ota/upgrade/command";
    assert!(
        bench
            .message("cloud", other, &upgrade("m"))
            .unwrap()
            .is_empty()
    );
    assert_eq!(statuses(&goes(&mut bench, &plan, Phase::Prepared)), [2]);
    let again = bench.message("cloud", other, &upgrade("m")).unwrap();
    assert!(started(&again).is_empty());
    assert_eq!(
        published(&again)[0].topic,
        "v1/wudun/PK/test/ota/upgrade/result"
    );
}

#[test]
fn a_result_is_remembered_over_hundreds_of_other_commands_but_not_for_ever() {
    let mut bench = bench();
    let plan = accept(&mut bench, UPGRADE, &upgrade("first"));
    ends(&mut bench, &plan, Phase::Failed, "digest", "verify");
    let refused = |bench: &mut _, n: usize| {
        let mut command = upgrade(&format!("other-{n}"));
        command["data"]["source"] = json!("nobody");
        assert_eq!(statuses(&send(bench, UPGRADE, &command)), [1]);
    };
    for n in 0..511 {
        refused(&mut bench, n);
    }
    assert_eq!(statuses(&send(&mut bench, UPGRADE, &upgrade("first"))), [3]);
    refused(&mut bench, 511);
    assert_eq!(
        started(&send(&mut bench, UPGRADE, &upgrade("first"))).len(),
        1
    );
}

#[test]
fn questions_do_not_push_out_what_was_carried_out() {
    let mut bench = bench();
    let plan = accept(&mut bench, UPGRADE, &upgrade("first"));
    ends(&mut bench, &plan, Phase::Failed, "digest", "verify");
    for n in 0..1_000 {
        send(&mut bench, "ota/emu_version", &upgrade(&format!("q{n}")));
    }
    assert_eq!(statuses(&send(&mut bench, UPGRADE, &upgrade("first"))), [3]);
}

#[test]
fn a_job_whose_command_is_forgotten_still_gets_its_results_once() {
    let mut bench = bench();
    let plan = accept(&mut bench, UPGRADE, &upgrade("m"));
    bench.set_state(Vec::new());
    assert_eq!(statuses(&goes(&mut bench, &plan, Phase::Prepared)), [2]);
    assert_eq!(
        statuses(&bench.report(at(&plan, Phase::Succeeded, 100)).unwrap()),
        [4]
    );
    assert!(
        bench
            .report(at(&plan, Phase::Succeeded, 100))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn progress_that_says_nothing_new_leaves_the_state_as_it_is() {
    let mut bench = bench();
    let upgrade = accept(&mut bench, UPGRADE, &upgrade("m"));
    let emu = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
    goes(&mut bench, &emu, Phase::Delivering);
    let before = bench.state().to_vec();
    for percent in 0..100 {
        bench
            .report(at(&upgrade, Phase::Downloading, percent))
            .unwrap();
        bench.report(at(&emu, Phase::Delivering, percent)).unwrap();
    }
    assert_eq!(
        bench.state(),
        before,
        "or each second would be a write to the flash"
    );
}
