//! Recorded steps: what is kept of them, and what running them again shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use otahost_core::model::{Event, Message};
use otahost_core::view::View;
use otahost_sandbox::{
    Adapter, Brief, Finding, Handled, Limits, Outcome, Recorder, Replay, Replayer, Sandbox,
    StepRecord, TraceRing, replay,
};

use crate::components::rogue_but;
use crate::{rogue, view};

/// What the journal has of a ring.
pub(crate) type Rows = BTreeMap<u64, Vec<u8>>;

pub(crate) fn record(
    ring: &mut TraceRing,
    adapter: &Adapter,
    view: &View,
    state: &[u8],
    event: &Event,
) -> Option<Vec<u8>> {
    let outcome = adapter.handle(&Arc::new(view.clone()), state, event);
    let version = adapter.describe().unwrap().state_version;
    ring.push(Recorder::default().record(adapter, version, view, state, event, &outcome));
    match outcome {
        Ok(Handled {
            result: Ok(step), ..
        }) => Some(step.state),
        _ => None,
    }
}

fn timer(command: &str) -> Event {
    Event::Timer(command.into())
}

/// One step of the rogue.
fn recorded_by(adapter: &Adapter, command: &str) -> StepRecord {
    let mut ring = TraceRing::new(TraceRing::CAPACITY);
    record(&mut ring, adapter, &view(), b"before", &timer(command));
    ring.steps().next().unwrap().record().unwrap()
}

fn recorded(command: &str) -> StepRecord {
    recorded_by(&rogue(), command)
}

pub(crate) fn store(rows: &mut Rows, ring: &mut TraceRing, most: usize) {
    for change in ring.take_changes(most) {
        match change.row {
            Some(row) => assert_eq!(rows.insert(change.n, row), None, "a row is written once"),
            None => assert!(
                rows.remove(&change.n).is_some(),
                "only what is there is removed"
            ),
        }
    }
}

pub(crate) fn all(ring: &TraceRing) -> Vec<StepRecord> {
    ring.steps().map(|step| step.record().unwrap()).collect()
}

pub(crate) fn load(component: &[u8]) -> Adapter {
    Sandbox::new(Limits::default())
        .unwrap()
        .load("rogue", component)
        .unwrap()
}

pub(crate) fn lines(replay: &Replay) -> Vec<String> {
    match &replay.finding {
        Finding::Differs { differences, .. } => {
            differences.iter().map(ToString::to_string).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_has_all_that_the_step_was_shown_and_gave() {
    let record = recorded("publish");
    assert_eq!(record.component, rogue().digest());
    assert_eq!(record.state_version, 3);
    assert_eq!(record.event, timer("publish"));
    assert_eq!(record.state, b"before");
    assert_eq!(record.view, *view());
    let Outcome::Step {
        state: Some(state),
        effects: Some(effects),
        state_digest,
        ..
    } = &record.outcome
    else {
        panic!("{record:?}")
    };
    assert_eq!((state.as_slice(), effects.len()), (&b"before"[..], 1));
    assert!(state_digest.starts_with("sha256:"), "{state_digest}");
    let json = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<StepRecord>(&json).unwrap(), record);
}

#[test]
fn every_kind_of_outcome_replays_the_same_to_the_last_unit_of_fuel() {
    for command in [
        "publish",
        "now",
        "random",
        "count",
        "err",
        "trap",
        "write",
        "deep",
        "loop",
        "memory",
        "x",
        "host calls",
        "big",
        "garrulous",
        "utf-8",
        "variant",
        "state",
        "qos",
        "outside",
    ] {
        let record = recorded(command);
        let again = replay(&rogue(), &record);
        assert_eq!(again.finding, Finding::Same, "{command}: {again}");
        assert_eq!(again.fuel_now, Some(record.fuel), "{command}");
    }
    let looped = recorded("loop");
    assert!(
        matches!(&looped.outcome, Outcome::Failed { kind, .. } if kind == "out-of-fuel"),
        "{looped:?}"
    );
}

#[test]
fn what_the_record_says_is_what_the_replay_sees() {
    let mut record = recorded("now");
    record.view.now += 1;
    let found = lines(&replay(&rogue(), &record));
    assert!(found[0].starts_with("state: 8 bytes"), "{found:?}");
    let mut record = recorded("random");
    record.view.seed[0] ^= 1;
    assert_ne!(replay(&rogue(), &record).finding, Finding::Same);
}

#[test]
fn a_changed_component_shows_its_difference_by_effect_and_field() {
    let changed = load(&rogue_but(
        r#"(i32.const 112) "a/b""#,
        r#"(i32.const 112) "a/c""#,
    ));
    let found = replay(&changed, &recorded("publish"));
    assert_eq!(
        lines(&found),
        [
            "effect 1 (publish cloud a/b): publish cloud a/b (2 bytes, QoS 1) -> nothing",
            "effect 1 now (publish cloud a/c): nothing -> publish cloud a/c (2 bytes, QoS 1)",
        ]
    );
    assert_eq!(
        (found.recorded_by.as_str(), found.run_by.as_str()),
        (rogue().digest(), changed.digest())
    );

    let changed = load(&rogue_but(
        r#"(i32.const 48) "{}""#,
        r#"(i32.const 48) "[]""#,
    ));
    // Its description is out of shape now: the schema is no object.
    let found = replay(&changed, &recorded("publish"));
    assert!(
        matches!(&found.finding, Finding::Failed(why) if why.contains("describe")),
        "{found}"
    );

    let payload = "(call $pair (i32.const 6024) (i32.const 48) (i32.const 2))";
    let changed = load(&rogue_but(
        payload,
        "(call $pair (i32.const 6024) (i32.const 32) (i32.const 5))",
    ));
    let found = replay(&changed, &recorded("publish"));
    assert_eq!(
        lines(&found),
        ["effect 1 (publish cloud a/b), payload: {} -> \"0.0.1\""]
    );
    assert_eq!(
        found.to_string(),
        "step 3 (timer publish): differs\n  effect 1 (publish cloud a/b), payload: {} -> \"0.0.1\""
            .replace("step 3", &format!("step {}", found.n))
    );
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(
        json["finding"]["differs"]["differences"][0]["field"],
        "payload"
    );
    assert_eq!(
        json["finding"]["differs"]["recorded"][0],
        "publish cloud a/b (2 bytes, QoS 1)"
    );
}

#[test]
fn another_outcome_is_told_in_words() {
    let sound = load(&rogue_but(
        "(then (unreachable)))\n    ;; `d`",
        "(then (nop)))\n    ;; `d`",
    ));
    let found = lines(&replay(&sound, &recorded("trap")));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("outcome: failed (the adapter trapped:")
            && found[0].ends_with("-> a step with 0 effects"),
        "{found:?}"
    );
    let found = lines(&replay(&rogue(), &recorded_by(&sound, "trap")));
    assert!(
        found[0].starts_with("outcome: a step with 0 effects -> failed"),
        "{found:?}"
    );
    let reworded = load(&rogue_but("no thanks", "no thankS"));
    let found = lines(&replay(&reworded, &recorded("err")));
    assert_eq!(found, ["outcome, refusal: no thanks\\n -> no thankS\\n"]);
}

#[test]
fn a_step_that_failed_by_the_device_is_not_compared() {
    let mut record = recorded("loop");
    record.outcome = Outcome::Failed {
        kind: "timeout".into(),
        text: "too slow".into(),
    };
    let found = replay(&rogue(), &record);
    assert!(
        matches!(&found.finding, Finding::Failed(why) if why.contains("too slow")),
        "{found}"
    );
}

#[test]
fn a_record_of_another_state_version_is_migrated_on_a_copy() {
    // Its successor describes version 4 and gives a state back as it came, but from version 2, which it refuses.
    let successor = load(&rogue_but(
        "(i32.store (i32.const 4120) (i32.const 3))",
        "(i32.store (i32.const 4120) (i32.const 4))",
    ));
    let replayer = Replayer::new(&successor).unwrap();
    let record = StepRecord {
        state_version: 1,
        ..recorded("publish")
    };
    let before = record.clone();
    assert_eq!(replayer.replay(&record).finding, Finding::Same);
    assert_eq!(record, before);
    let found = replayer.replay(&StepRecord {
        state_version: 2,
        ..record
    });
    assert!(
        matches!(&found.finding, Finding::Failed(why) if why.contains("the state before (state version 2)")),
        "{found}"
    );
}

#[test]
fn parts_that_stay_the_same_are_stored_once() {
    let mut ring = TraceRing::new(TraceRing::CAPACITY);
    let mut large = (*view()).clone();
    large.config = format!("{{\"a\": \"{}\"}}", "x".repeat(20_000));
    let state = vec![7; 20_000];
    for second in 0..20 {
        large.now += second;
        record(&mut ring, &rogue(), &large, &state, &timer("publish"));
    }
    assert_eq!(ring.steps().count(), 20);
    assert!(ring.bytes() < 40_000 + 20 * 6_000, "{}", ring.bytes());
    let last = ring.steps().next_back().unwrap().record().unwrap();
    assert_eq!((last.view, last.state), (large, state));
}

#[test]
fn the_oldest_go_when_the_ring_is_full_and_the_rest_stays_whole() {
    let mut ring = TraceRing::new(64 * 1024);
    let mut rows = Rows::new();
    for n in 0..200u32 {
        let state = vec![n as u8; 3_000];
        let after = record(
            &mut ring,
            &rogue(),
            &view(),
            &state,
            &timer(&format!("any {n}")),
        );
        assert_eq!(after, Some(state));
        assert!(ring.bytes() <= 64 * 1024, "{}", ring.bytes());
        if n % 7 == 0 {
            store(&mut rows, &mut ring, 10_000);
            assert!(rows.values().map(Vec::len).sum::<usize>() < 128 * 1024);
        }
    }
    let steps = all(&ring);
    assert!(steps.len() > 5, "{}", steps.len());
    assert_eq!(steps.last().unwrap().event, timer("any 199"));
    assert!(steps.windows(2).all(|two| two[0].n < two[1].n));
    for step in &steps {
        assert_eq!(replay(&rogue(), step).finding, Finding::Same);
    }
}

#[test]
fn a_ring_comes_back_from_the_journal_as_it_was_written() {
    let mut ring = TraceRing::new(64 * 1024);
    let mut rows = Rows::new();
    for n in 0..60u32 {
        let state = vec![(n / 3) as u8; 2_000];
        record(
            &mut ring,
            &rogue(),
            &view(),
            &state,
            &timer(&format!("publish {n}")),
        );
        store(&mut rows, &mut ring, 3_000);
        // A cut here: what was written so far is a ring, and every step in it is whole.
        let back = TraceRing::restore(64 * 1024, rows.clone());
        assert!(all(&back).len() <= all(&ring).len());
    }
    for _ in 0..200 {
        store(&mut rows, &mut ring, 3_000);
    }
    let mut back = TraceRing::restore(64 * 1024, rows.clone());
    assert_eq!(all(&back), all(&ring));
    assert_eq!(back.bytes(), ring.bytes());
    assert!(back.take_changes(usize::MAX).is_empty(), "nothing is new");
    record(&mut back, &rogue(), &view(), b"", &timer("one more"));
    let newest = back.steps().next_back().unwrap().n();
    assert!(newest > all(&ring).last().unwrap().n);

    let smaller = TraceRing::restore(16 * 1024, rows);
    assert!(smaller.bytes() <= 16 * 1024 && smaller.steps().count() > 0);
}

#[test]
fn damaged_rows_cost_their_steps_and_nothing_else() {
    let mut ring = TraceRing::new(TraceRing::CAPACITY);
    for n in 0..4u8 {
        record(&mut ring, &rogue(), &view(), &[n; 500], &timer("publish"));
    }
    let mut rows = Rows::new();
    store(&mut rows, &mut ring, usize::MAX);
    let sound: Vec<_> = ring
        .steps()
        .map(|step| (step.brief(), step.record().ok()))
        .collect();
    let mut lost = Vec::new();
    for (n, row) in rows.clone() {
        let mut damaged = rows.clone();
        damaged.insert(n, row[..row.len() / 2].to_vec());
        damaged.insert(1_000, b"junk".to_vec());
        damaged.insert(1_001, vec![]);
        let mut back = TraceRing::restore(TraceRing::CAPACITY, damaged);
        let left: Vec<_> = back
            .steps()
            .map(|step| (step.brief(), step.record().ok()))
            .collect();
        assert_ne!(left, sound, "row {n}");
        let untouched = left.iter().filter(|step| sound.contains(step)).count();
        lost.push(4 - untouched);
        for step in back.steps() {
            assert!(
                step.record().is_err()
                    || replay(&rogue(), &step.record().unwrap()).finding == Finding::Same
            );
        }
        let removed: Vec<u64> = back
            .take_changes(0)
            .into_iter()
            .filter(|c| c.row.is_none())
            .map(|c| c.n)
            .collect();
        assert!(
            removed.contains(&1_000) && removed.contains(&1_001),
            "{removed:?}"
        );
    }
    assert!(
        lost.contains(&1) && lost.contains(&4),
        "a step, or a part that all have: {lost:?}"
    );
}

#[test]
fn effects_that_were_too_large_to_keep_are_compared_by_their_digest() {
    let mut record = recorded("publish");
    let Outcome::Step { effects, state, .. } = &mut record.outcome else {
        panic!("{record:?}")
    };
    (*effects, *state) = (None, None);
    assert_eq!(replay(&rogue(), &record).finding, Finding::Same);
    record.event = timer("count");
    let found = lines(&replay(&rogue(), &record));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("effects: sha256:"), "{found:?}");
    assert!(found[1].starts_with("state: sha256:"), "{found:?}");
}

#[test]
fn a_step_too_large_to_keep_is_told_and_not_replayed() {
    let mut ring = TraceRing::new(TraceRing::CAPACITY);
    let message = Event::Message(Message {
        link: "cloud".into(),
        topic: "a/b".into(),
        payload: vec![1; 256 * 1024],
        duplicate: false,
        retained: false,
    });
    record(&mut ring, &rogue(), &view(), b"s", &timer("publish"));
    record(&mut ring, &rogue(), &view(), b"s", &message);
    assert!(ring.bytes() <= TraceRing::CAPACITY);
    assert_eq!(ring.steps().count(), 2, "the step before it stays");
    let entry = ring.steps().next_back().unwrap();
    let error = entry.record().unwrap_err();
    assert_eq!(error.missing, ["the event"]);
    let brief = entry.brief();
    assert!(!brief.replayable);
    assert_eq!(brief.event, "message on cloud a/b (262144 bytes)");
    assert!(
        brief.to_string().contains("too large to be replayed"),
        "{brief}"
    );
}

#[test]
fn a_brief_tells_what_happened_and_shows_no_payload() {
    let mut ring = TraceRing::new(TraceRing::CAPACITY);
    let of = |ring: &mut TraceRing, command: &str| -> Brief {
        record(ring, &rogue(), &view(), b"before", &timer(command));
        ring.steps().next_back().unwrap().brief()
    };
    let published = of(&mut ring, "publish");
    assert_eq!(
        published.effects.as_deref().unwrap(),
        ["publish cloud a/b (2 bytes, QoS 1)"]
    );
    assert_eq!(
        (
            published.outcome.as_str(),
            published.state_changed,
            published.replayable
        ),
        ("step", false, true)
    );
    assert_eq!((published.now, published.uptime), (1_700_000_000_123, 5));
    assert!(of(&mut ring, "count").state_changed);
    let failed = of(&mut ring, "write and trap");
    assert_eq!(failed.outcome, "trap");
    assert!(
        failed.to_string().contains("log Error: no thanks"),
        "{failed}"
    );
    let refused = of(&mut ring, "err");
    assert_eq!(
        (refused.outcome.as_str(), refused.reason.as_deref()),
        ("refused", Some("no thanks\\n"))
    );

    let outcome = rogue().handle(&view(), b"s", &timer("publish"));
    let recording =
        Recorder::default().record(&rogue(), 3, &view(), b"s", &timer("publish"), &outcome);
    let n = ring.push(recording.discarded("the outbox is full"));
    let discarded = ring.step(n).unwrap();
    assert_eq!(
        discarded.brief().discarded.as_deref(),
        Some("the outbox is full")
    );
    assert_eq!(
        discarded.record().unwrap().discarded.as_deref(),
        Some("the outbox is full")
    );
    assert_eq!(ring.step(n + 1).map(|step| step.n()), None);
}

#[test]
fn one_recorder_records_each_step_with_the_targets_it_was_shown() {
    let (recorder, mut ring) = (Recorder::default(), TraceRing::new(TraceRing::CAPACITY));
    let mut push = |view: &View| {
        let shown = Arc::new(view.clone());
        let outcome = rogue().handle(&shown, b"s", &timer("publish"));
        let recording = recorder.record(&rogue(), 3, &shown, b"s", &timer("publish"), &outcome);
        let n = ring.push(recording);
        (n, ring.step(n).unwrap().record())
    };
    // The same, shared; changed in place of the others' picture; and the same again in another place.
    let mut seen = (*view()).clone();
    assert_eq!(push(&seen).1.unwrap().view, seen);
    assert_eq!(push(&seen).1.unwrap().view, seen);
    Arc::make_mut(&mut seen.targets)[0].version = Some("2".into());
    assert_eq!(push(&seen).1.unwrap().view, seen);
    seen.targets = Arc::new(seen.targets.to_vec());
    assert_eq!(push(&seen).1.unwrap().view, seen);

    // Of a device with a great many only what happened is kept.
    let target = seen.targets[0].clone();
    seen.targets = Arc::new(vec![target; 201]);
    let (n, record) = push(&seen);
    let missing = record.unwrap_err();
    assert_eq!(missing.missing, ["the view's targets"]);
    assert!(
        missing.to_string().contains("cannot be replayed"),
        "{missing}"
    );
    let brief = ring.step(n).unwrap().brief();
    assert!(!brief.replayable);
    assert_eq!(brief.effects.map(|effects| effects.len()), Some(1));
}
