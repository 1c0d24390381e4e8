#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const HOUR: Millis = 60 * 60 * 1_000;
/// Monday, 3 August 2026, 00:00 UTC.
const MONDAY: Instant = 1_785_715_200_000;
const TWO: Instant = MONDAY + 2 * HOUR;

fn facts() -> Facts {
    Facts {
        now: MONDAY,
        clock: ClockQuality::Synced,
        operator: false,
        locked: None,
        ready: Ok(()),
    }
}

fn nightly() -> Policy {
    Policy {
        windows: vec!["02:00-04:00".parse().unwrap()],
        ..Policy::default()
    }
}

fn no_downgrade() -> Policy {
    Policy {
        downgrade: Downgrade::Refuse,
        ..Policy::default()
    }
}

fn busy_day() -> TargetMemory {
    TargetMemory {
        activations: vec![MONDAY - HOUR; 4],
        ..TargetMemory::default()
    }
}

/// A gate in a few words: what, code, stage, the end of a wait.
fn said(gate: &Gate) -> String {
    match gate {
        Gate::Go => "go".into(),
        Gate::Refuse(reason) => format!("refuse {} {}", reason.code, reason.stage),
        Gate::Wait { reason, until, .. } => {
            let end = until.map_or("open".into(), |u| format!("+{}h", (u - MONDAY) / HOUR));
            format!("wait {} {} {end}", reason.code, reason.stage)
        }
    }
}

fn begin(policy: &Policy, facts: &Facts) -> String {
    said(&judge_begin(policy, facts, Some("2.0"), "1.0"))
}

fn activation(policy: &Policy, facts: &Facts, memory: &TargetMemory) -> String {
    said(&judge_activation(policy, facts, memory))
}

#[test]
fn what_stands_against_a_job_when_it_begins() {
    let refusing = Policy {
        outside: Outside::Refuse,
        ..nightly()
    };
    let unset = |clock| Facts { clock, ..facts() };
    let in_window = Facts {
        now: TWO,
        ..facts()
    };
    let locked = Facts {
        locked: Some("/run/otahost.lock".into()),
        ..facts()
    };
    let unready = Facts {
        ready: Err("a call is in progress".into()),
        ..facts()
    };
    for (name, policy, facts, expected) in [
        ("nothing", Policy::default(), facts(), "go"),
        ("outside", nightly(), facts(), "wait policy admit +2h"),
        ("inside", nightly(), in_window.clone(), "go"),
        (
            "outside, refusing",
            refusing.clone(),
            facts(),
            "refuse policy admit",
        ),
        ("inside, refusing", refusing.clone(), in_window, "go"),
        (
            "clock never set",
            nightly(),
            unset(ClockQuality::Unset),
            "wait policy admit open",
        ),
        (
            "clock at its floor",
            nightly(),
            unset(ClockQuality::Floor),
            "wait policy admit open",
        ),
        // Nobody knows whether it is outside.
        (
            "no clock, refusing",
            refusing.clone(),
            unset(ClockQuality::Floor),
            "wait policy admit open",
        ),
        (
            "no clock, no windows",
            Policy::default(),
            unset(ClockQuality::Unset),
            "go",
        ),
        (
            "locked",
            Policy::default(),
            locked.clone(),
            "wait policy admit open",
        ),
        (
            "locked and outside",
            nightly(),
            locked.clone(),
            "wait policy admit +2h",
        ),
        ("older", no_downgrade(), facts(), "refuse downgrade admit"),
        // It would be refused in the end: there is nothing to wait for.
        (
            "older and locked",
            no_downgrade(),
            locked,
            "refuse downgrade admit",
        ),
        ("not ready", Policy::default(), unready, "go"),
    ] {
        assert_eq!(begin(&policy, &facts), expected, "{name}");
    }
}

#[test]
fn what_stands_against_an_activation() {
    let none = TargetMemory::default();
    let refusing = Policy {
        outside: Outside::Refuse,
        ..nightly()
    };
    let locked = Facts {
        locked: Some("/run/otahost.lock".into()),
        ..facts()
    };
    let unready = Facts {
        ready: Err("a call is in progress".into()),
        ..facts()
    };
    let unset = Facts {
        clock: ClockQuality::Floor,
        ..facts()
    };
    let one_more = Policy {
        max_activations_per_day: 5,
        ..Policy::default()
    };
    let default = Policy::default();
    for (name, policy, facts, memory, expected) in [
        ("nothing", &default, &facts(), &none, "go"),
        (
            "not ready",
            &default,
            &unready,
            &none,
            "wait not-ready activate open",
        ),
        (
            "locked",
            &default,
            &locked,
            &none,
            "wait policy activate open",
        ),
        (
            "outside",
            &nightly(),
            &facts(),
            &none,
            "wait policy activate +2h",
        ),
        (
            "clock not set",
            &nightly(),
            &unset,
            &none,
            "wait policy activate open",
        ),
        // The image is here: it waits for the next window, though a new request would be refused.
        (
            "outside, refusing",
            &refusing,
            &facts(),
            &none,
            "wait policy activate +2h",
        ),
        (
            "a day too full",
            &default,
            &facts(),
            &busy_day(),
            "wait too-many-activations activate +23h",
        ),
        ("room for one more", &one_more, &facts(), &busy_day(), "go"),
        // What was begun is not refused for its version: the version did not change.
        ("older", &no_downgrade(), &facts(), &none, "go"),
    ] {
        assert_eq!(activation(policy, facts, memory), expected, "{name}");
    }
}

#[test]
fn the_operator_skips_windows_and_downgrade_but_never_lock_or_readiness() {
    let strict = Policy {
        outside: Outside::Refuse,
        downgrade: Downgrade::Refuse,
        ..nightly()
    };
    let none = TargetMemory::default();
    let operator = Facts {
        operator: true,
        clock: ClockQuality::Unset,
        ..facts()
    };
    assert_eq!(begin(&strict, &operator), "go");
    assert_eq!(activation(&strict, &operator, &none), "go");
    let locked = Facts {
        locked: Some("/run/otahost.lock".into()),
        ..operator.clone()
    };
    assert_eq!(begin(&strict, &locked), "wait policy admit open");
    assert_eq!(
        activation(&strict, &locked, &none),
        "wait policy activate open"
    );
    let unready = Facts {
        ready: Err("the drone is in the air".into()),
        ..operator.clone()
    };
    assert_eq!(
        activation(&strict, &unready, &none),
        "wait not-ready activate open"
    );
    assert_eq!(
        activation(&strict, &operator, &busy_day()),
        "wait too-many-activations activate +23h"
    );
}

#[test]
fn only_a_version_that_is_known_to_be_older_is_a_downgrade() {
    for (old, new, expected) in [
        (Some("2.0"), "1.9", true),
        (Some("2.0"), "2.0-rc.1", true),
        (Some("2.0"), "2.0", false),
        (Some("2.0"), "v2.1", false),
        (Some("2.0"), "WM265E_07.zip", false),
        (Some("unknown"), "1.0", false),
        (None, "1.0", false),
    ] {
        let judged = |policy: &Policy| judge_begin(policy, &facts(), old, new);
        let refused = matches!(judged(&no_downgrade()), Gate::Refuse(r) if r.code == "downgrade");
        assert_eq!(refused, expected, "{old:?} to {new}");
        assert_eq!(judged(&Policy::default()), Gate::Go);
    }
}

#[test]
fn a_reason_says_what_it_waits_for() {
    let text = |gate: Gate| match gate {
        Gate::Go => String::new(),
        Gate::Wait { reason, .. } | Gate::Refuse(reason) => reason.text,
    };
    let locked = Facts {
        locked: Some("/run/otahost.lock".into()),
        ..facts()
    };
    let unready = Facts {
        ready: Err("a call is in progress".into()),
        ..facts()
    };
    let (policy, none) = (Policy::default(), TargetMemory::default());
    for (gate, words) in [
        (
            judge_begin(&nightly(), &facts(), None, "1"),
            "02:00-04:00 UTC",
        ),
        (
            judge_begin(&policy, &locked, None, "1"),
            "/run/otahost.lock",
        ),
        (
            judge_begin(&no_downgrade(), &facts(), Some("2"), "1"),
            "1 is older than 2",
        ),
        (
            judge_activation(&policy, &unready, &none),
            "a call is in progress",
        ),
        (
            judge_activation(&policy, &facts(), &busy_day()),
            "4 times within a day",
        ),
    ] {
        let text = text(gate);
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_gate_becomes_the_verdict_of_the_contract() {
    let reason = || Reason::new("policy", "admit", "x");
    let wait = |until| Gate::Wait {
        reason: reason(),
        until,
        ask_again: 10,
    };
    for (gate, expected) in [
        (Gate::Go, Verdict::Allow),
        (wait(Some(77)), Verdict::Defer(77)),
        (wait(None), Verdict::Defer(MONDAY + 10)),
        (Gate::Refuse(reason()), Verdict::Refuse(reason())),
    ] {
        assert_eq!(gate.verdict(MONDAY), expected);
    }
}

#[test]
fn a_policy_is_kept_as_it_is_written_and_missing_parts_are_the_defaults() {
    assert_eq!(
        serde_json::from_str::<Policy>("{}").unwrap(),
        Policy::default()
    );
    assert_eq!(Policy::default().max_activations_per_day, 4);
    let policy = Policy {
        outside: Outside::Refuse,
        ..nightly()
    };
    let json = serde_json::to_value(&policy).unwrap();
    assert_eq!(
        json,
        serde_json::json!({ "windows": ["02:00-04:00"], "outside": "refuse", "downgrade": "allow", "max-activations-per-day": 4 })
    );
    assert_eq!(serde_json::from_value::<Policy>(json).unwrap(), policy);
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let window = prop::sample::select(vec![
        "02:00-04:00",
        "sat,sun 22:00-06:00",
        "mon-fri 12:00-13:00",
        "00:00-24:00",
        "thu 00:00-00:01",
    ]);
    (
        prop::collection::vec(window, 0..3),
        any::<bool>(),
        any::<bool>(),
        0u32..6,
    )
        .prop_map(|(windows, refuse, downgrade, most)| Policy {
            windows: windows.into_iter().map(|w| w.parse().unwrap()).collect(),
            outside: if refuse {
                Outside::Refuse
            } else {
                Outside::Defer
            },
            downgrade: if downgrade {
                Downgrade::Refuse
            } else {
                Downgrade::Allow
            },
            max_activations_per_day: most,
        })
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let clock = prop::sample::select(vec![
        ClockQuality::Unset,
        ClockQuality::Floor,
        ClockQuality::Synced,
    ]);
    (
        0..8 * 24 * HOUR,
        clock,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(after, clock, operator, locked, ready)| Facts {
            now: MONDAY + after,
            clock,
            operator,
            locked: locked.then(|| "/run/lock".into()),
            ready: if ready { Ok(()) } else { Err("in use".into()) },
        })
}

/// What holds for every wait: it is asked again soon enough, and its end lies ahead.
fn check_wait(gate: &Gate, now: Instant) -> Result<(), TestCaseError> {
    if let Gate::Wait {
        until, ask_again, ..
    } = gate
    {
        prop_assert!((1_000..=ASK_LATEST).contains(ask_again));
        if let Some(until) = until {
            prop_assert!(*until > now);
            prop_assert!(now + ask_again <= (*until).max(now + 1_000));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn nothing_goes_past_a_lock_nor_is_activated_when_it_is_not_ready(
        policy in any_policy(), facts in any_facts(), activations in prop::collection::vec(0..9 * 24 * HOUR, 0..8),
    ) {
        let memory = TargetMemory { activations: activations.iter().map(|a| MONDAY + a).collect(), ..TargetMemory::default() };
        let begin = judge_begin(&policy, &facts, Some("2"), "1");
        let activation = judge_activation(&policy, &facts, &memory);
        prop_assert!(facts.locked.is_none() || begin != Gate::Go && activation != Gate::Go);
        prop_assert!(facts.ready.is_ok() || activation != Gate::Go);
        prop_assert!(!matches!(activation, Gate::Refuse(_)), "what is accepted is never refused later");
        prop_assert!(!(facts.operator && matches!(begin, Gate::Refuse(_))));
        check_wait(&begin, facts.now)?;
        check_wait(&activation, facts.now)?;
    }

    #[test]
    fn whoever_waits_for_what_has_an_end_gets_through(
        policy in any_policy(), facts in any_facts(), activations in prop::collection::vec(0..24 * HOUR, 0..8),
    ) {
        let memory = TargetMemory { activations: activations.iter().map(|a| MONDAY + a).collect(), ..TargetMemory::default() };
        let mut facts = Facts { clock: ClockQuality::Synced, locked: None, ready: Ok(()), ..facts };
        // One end of a full day and one of a closed window may follow each other a few times, never for ever.
        for _ in 0..20 {
            match judge_activation(&policy, &facts, &memory) {
                Gate::Go => return Ok(()),
                Gate::Wait { until: Some(until), .. } => facts.now = until,
                gate => return Err(TestCaseError::fail(format!("{gate:?}"))),
            }
        }
        prop_assert!(false, "it waits for ever");
    }
}
