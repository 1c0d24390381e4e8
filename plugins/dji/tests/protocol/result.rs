//! The result is told until the cloud says that it has it; D15 and the rules of `need_reply`.

use crate::cloud::{
    EVENTS, EVENTS_REPLY, REPLIES, SN, accept, answer, at, bench, bench_with, command, ended,
    is_durable, on, online, only, send,
};
use dji::Dji;
use otahost_adapter::bench::{Bench, published, started, timers};
use otahost_adapter::{Effect, JobPlan, Level, Persistence, Phase, StartReason};
use serde_json::{Value, json};

const SIZE: u64 = 603_696_942;

/// An update that has just ended, and its result.
fn told(bench: &mut Bench<Dji>, ids: (&str, &str), phase: Phase) -> Value {
    let plan = accept(bench, ids.0, ids.1);
    bench.report(at(&plan, Phase::Activating, SIZE)).unwrap();
    end(bench, &plan, phase)
}

fn end(bench: &mut Bench<Dji>, plan: &JobPlan, phase: Phase) -> Value {
    let effects = bench
        .report(ended(plan, phase, "boot-failed", "confirm"))
        .unwrap();
    let timer = timers(&effects);
    assert_eq!(
        timer
            .iter()
            .map(|t| (t.name.as_str(), t.after, t.period))
            .collect::<Vec<_>>(),
        [("result", 5_000, None)]
    );
    assert!(is_durable(EVENTS, &effects));
    only(EVENTS, &effects)
}

/// How long the next wait for a reply is.
fn next_wait(effects: &[Effect]) -> Option<u64> {
    timers(effects)
        .iter()
        .find(|t| t.name == "result")
        .map(|t| t.after)
}

#[test]
fn without_a_reply_the_same_result_is_told_again_after_ever_longer_waits() {
    let mut bench = bench();
    let result = told(&mut bench, ("t1", "b1"), Phase::Succeeded);
    assert_eq!(result["need_reply"], 1);
    let mut waits = Vec::new();
    for _ in 0..8 {
        bench.advance(400_000);
        let effects = bench.timer("result").unwrap();
        assert_eq!(
            only(EVENTS, &effects),
            result,
            "the same to the last byte, its tid included"
        );
        // Copies do not pile up for a broker that is away.
        assert!(matches!(
            published(&effects)[0].persistence,
            Persistence::Latest(_)
        ));
        waits.push(next_wait(&effects).unwrap());
    }
    assert_eq!(
        waits,
        [
            10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000
        ]
    );
}

#[test]
fn the_reply_ends_it_and_another_events_reply_does_not() {
    let mut bench = bench();
    let result = told(&mut bench, ("t1", "b1"), Phase::Succeeded);
    for (tid, method) in [("stranger", "ota_progress"), ("t1", "ota_create")] {
        let other = json!({ "tid": tid, "bid": "b1", "method": method, "data": { "result": 0 } });
        assert_eq!(bench.message("cloud", EVENTS_REPLY, &other).unwrap(), []);
    }
    assert_eq!(on(EVENTS, &bench.timer("result").unwrap()).len(), 1);
    assert_eq!(
        answer(&mut bench, &result),
        [Effect::CancelTimer("result".into())]
    );
    assert_eq!(
        bench.timer("result").unwrap(),
        [],
        "a timer that was already due"
    );
    assert_eq!(
        answer(&mut bench, &result),
        [],
        "an answer that comes twice"
    );
    let up = bench.link("cloud", true, false).unwrap();
    assert_eq!(next_wait(&up), None);
}

#[test]
fn a_cloud_that_has_the_result_but_does_not_like_it_has_it() {
    let mut bench = bench();
    let result = told(&mut bench, ("t1", "b1"), Phase::RolledBack);
    let bad = json!({ "tid": result["tid"], "bid": "b1", "method": "ota_progress", "data": { "result": 7 } });
    assert_eq!(
        bench.message("cloud", EVENTS_REPLY, &bad).unwrap(),
        [Effect::CancelTimer("result".into())]
    );
    assert!(
        bench
            .log()
            .iter()
            .any(|(level, line)| *level == Level::Warn && line.contains("result 7"))
    );
}

#[test]
fn after_a_day_without_a_reply_it_is_told_no_more() {
    let mut bench = bench();
    let result = told(&mut bench, ("t1", "b1"), Phase::Succeeded);
    let (mut copies, mut waited) = (1, 5_000);
    for _ in 0..1_000 {
        let effects = bench.timer("result").unwrap();
        copies += on(EVENTS, &effects).len();
        let Some(wait) = next_wait(&effects) else {
            break;
        };
        waited += wait;
    }
    assert_eq!(copies, 294);
    assert!(waited > 24 * 3_600_000, "{waited}");
    assert!(
        bench
            .log()
            .iter()
            .any(|(_, line)| line.contains("294 times"))
    );
    assert_eq!(bench.timer("result").unwrap(), []);
    assert_eq!(next_wait(&bench.link("cloud", true, false).unwrap()), None);
    assert_eq!(
        answer(&mut bench, &result),
        [],
        "a reply as late as that changes nothing"
    );
}

#[test]
fn d15_a_result_from_before_the_cloud_listened_reaches_it_after_the_reboot() {
    let mut bench = bench();
    online(&mut bench);
    let plan = accept(&mut bench, "t1", "b1");
    bench.report(at(&plan, Phase::Activating, SIZE)).unwrap();
    bench.reboot("boot-2", 3_000);
    bench.start(StartReason::Booted).unwrap();
    // The result is there before the link is: it is kept for the broker, and nothing else is sent or counted yet.
    let effects = bench.report(at(&plan, Phase::Succeeded, SIZE)).unwrap();
    let result = only(EVENTS, &effects);
    assert!(is_durable(EVENTS, &effects));
    assert_eq!(next_wait(&effects), None, "the link is down");
    assert_eq!(bench.timer("result").unwrap(), []);
    let up = bench.link("cloud", true, false).unwrap();
    assert_eq!(next_wait(&up), Some(1_000));
    // The cloud subscribes only when it accepts the gateway: then it is told at once.
    let announcement = only(crate::cloud::STATUS, &up);
    let accepted = crate::cloud::accepted(&mut bench, &announcement);
    assert_eq!(only(EVENTS, &accepted), result);
    assert_eq!(next_wait(&accepted), Some(5_000));
    assert_eq!(result["bid"], "b1");
    answer(&mut bench, &result);
    assert_eq!(bench.timer("result").unwrap(), []);
}

#[test]
fn d15_what_was_not_answered_before_a_reboot_is_told_after_it() {
    for presence in ["own", "none"] {
        let mut bench = bench_with(&json!({ "gateway_sn": SN, "presence": presence }));
        let result = told(&mut bench, ("t1", "b1"), Phase::RolledBack);
        bench.timer("result").unwrap();
        bench.reboot("boot-2", 3_000);
        bench.start(StartReason::Booted).unwrap();
        let up = bench.link("cloud", true, false).unwrap();
        assert_eq!(next_wait(&up), Some(1_000), "{presence}");
        let effects = bench.timer("result").unwrap();
        assert_eq!(only(EVENTS, &effects), result, "{presence}");
        assert_eq!(
            next_wait(&effects),
            Some(5_000),
            "{presence}: the waits begin anew"
        );
    }
}

#[test]
fn while_the_link_is_down_nothing_is_counted() {
    let mut bench = bench();
    told(&mut bench, ("t1", "b1"), Phase::Succeeded);
    let down = bench.link("cloud", false, false).unwrap();
    assert!(
        down.contains(&Effect::CancelTimer("result".into())),
        "{down:?}"
    );
    let state = bench.state().to_vec();
    assert_eq!(bench.timer("result").unwrap(), []);
    assert_eq!(bench.state(), state);
    assert_eq!(
        next_wait(&bench.link("cloud", true, true).unwrap()),
        Some(1_000)
    );
}

#[test]
fn a_start_beside_a_link_that_is_up_tells_again_too() {
    for reason in [
        StartReason::Reconfigured,
        StartReason::Upgraded("0.0.1".into()),
    ] {
        let mut bench = bench();
        told(&mut bench, ("t1", "b1"), Phase::Succeeded);
        assert_eq!(next_wait(&bench.start(reason).unwrap()), Some(1_000));
    }
}

#[test]
fn no_reply_never_blocks_the_next_update() {
    let mut bench = bench();
    let first = told(&mut bench, ("t1", "b1"), Phase::RolledBack);
    let effects = send(&mut bench, &command("t2", "b2"));
    assert_eq!(only(REPLIES, &effects)["data"]["result"], 0);
    let plan = started(&effects)[0].clone();
    bench.report(at(&plan, Phase::Downloading, 1)).unwrap();
    // Meanwhile the old result is not told: a known cloud would take it for the end of the update it shows.
    let state = bench.state().to_vec();
    assert_eq!(bench.timer("result").unwrap(), []);
    assert_eq!(bench.state(), state);
    let second = end(&mut bench, &plan, Phase::Succeeded);
    // Afterwards both are, the newest last.
    assert_eq!(
        on(EVENTS, &bench.timer("result").unwrap()),
        vec![first.clone(), second.clone()]
    );
    assert_eq!(answer(&mut bench, &second), []);
    assert_eq!(only(EVENTS, &bench.timer("result").unwrap()), first);
    assert_eq!(
        answer(&mut bench, &first),
        [Effect::CancelTimer("result".into())]
    );
}

#[test]
fn progress_asks_for_no_reply_and_an_answer_to_it_is_no_fault() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    let effects = bench.report(at(&plan, Phase::Downloading, 1)).unwrap();
    let event = only(EVENTS, &effects);
    assert_eq!(event["need_reply"], 0);
    assert_eq!(next_wait(&effects), None);
    assert_eq!(answer(&mut bench, &event), []);
}

#[test]
fn a_state_of_the_version_before_is_read_and_owes_nothing() {
    let mut bench = bench();
    let result = told(&mut bench, ("t1", "b1"), Phase::Succeeded);
    let mut state: Value = serde_json::from_slice(bench.state()).unwrap();
    let fields = state.as_object_mut().unwrap();
    fields.remove("down");
    fields.remove("told_again");
    fields["endings"][0]
        .as_object_mut()
        .unwrap()
        .remove("unanswered");
    bench.set_state(state.to_string());
    assert_eq!(bench.timer("result").unwrap(), []);
    assert_eq!(answer(&mut bench, &result), []);
    let again = send(&mut bench, &command("t2", "b1"));
    assert_eq!(only(REPLIES, &again)["data"]["output"]["status"], "ok");
}
