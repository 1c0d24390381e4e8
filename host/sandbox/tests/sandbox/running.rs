//! Calls: what comes back, what is stopped, and what is left behind.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use otahost_core::model::{
    Effect, Event, FailedAttempt, FetchOutcome, FetchResult, Field, HttpResponse, InboundRequest,
    JobReport, Level, LinkState, ListingOutcome, Message, Persistence, Phase, Publication,
    StartReason, Step,
};
use otahost_sandbox::{FailureKind, Limits, Sandbox};

use crate::components::rogue_component;
use crate::{command, failure, rogue, rogue_with, step, view};

#[test]
fn a_step_comes_back_as_the_guest_made_it() {
    let adapter = rogue();
    assert_eq!(
        step(&adapter, "anything else"),
        Step {
            state: b"before".to_vec(),
            effects: vec![]
        }
    );
    assert_eq!(
        step(&adapter, "publish").effects,
        [Effect::Publish(Publication {
            link: "cloud".into(),
            topic: "a/b".into(),
            payload: b"{}".to_vec(),
            qos: 1,
            retain: false,
            persistence: Persistence::Durable,
        })]
    );
}

#[test]
fn every_event_of_the_contract_reaches_the_guest() {
    let field = || {
        vec![Field {
            name: "a".into(),
            value: "b".into(),
        }]
    };
    let events = [
        Event::Started(StartReason::Upgraded("1".into())),
        Event::Link(LinkState {
            link: "l".into(),
            up: true,
            session_present: false,
            reason: String::new(),
        }),
        Event::Message(Message {
            link: "l".into(),
            topic: "t".into(),
            payload: vec![1; 256 * 1024],
            duplicate: false,
            retained: true,
        }),
        Event::Request(InboundRequest {
            id: "i".into(),
            link: "l".into(),
            method: "GET".into(),
            path: "/".into(),
            query: field(),
            headers: field(),
            body: vec![],
            principal: String::new(),
            deadline: 1,
        }),
        Event::Response(FetchOutcome {
            tag: "t".into(),
            outcome: FetchResult::Answered(HttpResponse {
                status: 200,
                headers: field(),
                body: vec![2],
            }),
        }),
        Event::Listing(ListingOutcome {
            tag: "t".into(),
            entries: Err("gone".into()),
        }),
        Event::Attempt(FailedAttempt {
            job: "k".into(),
            install: 0,
            attempt: 1,
            status: 403,
            headers: field(),
            body: vec![],
            reason: "r".into(),
        }),
        Event::Job(JobReport {
            key: "k".into(),
            foreign: false,
            context: vec![1],
            phase: Phase::Downloading,
            paused: false,
            until: None,
            reason: None,
            rate: 1,
            installs: vec![],
        }),
        Event::Target("dock".into()),
    ];
    for event in events {
        let handled = rogue().handle(&view(), b"kept", &event).unwrap();
        assert_eq!(handled.result.unwrap().state, b"kept", "{}", event.kind());
    }
}

#[test]
fn the_host_answers_from_the_frozen_view() {
    assert_eq!(
        step(&rogue(), "now").state,
        1_700_000_000_123u64.to_le_bytes()
    );
    let drawn = step(&rogue(), "random").state;
    assert_eq!(drawn.len(), 16);
    assert_eq!(
        step(&rogue(), "random").state,
        drawn,
        "a replay draws the same"
    );
}

#[test]
fn the_other_functions_answer_too() {
    let adapter = rogue();
    let description = adapter.describe().unwrap();
    assert_eq!(
        (description.protocol.as_str(), description.state_version),
        ("rogue protocol", 3)
    );
    assert_eq!(
        adapter.requirements("{}").unwrap().unwrap(),
        Default::default()
    );
    assert_eq!(
        adapter.requirements("fault").unwrap().unwrap_err(),
        ["no thanks\\n", "0.0.1"]
    );
    assert_eq!(adapter.migrate(1, b"old").unwrap().unwrap(), b"old");
    assert_eq!(
        adapter.migrate(2, b"old").unwrap().unwrap_err(),
        "no thanks\\n"
    );
    assert_eq!(adapter.name(), "rogue");
    assert!(
        adapter.digest().starts_with("sha256:") && adapter.digest().len() == 71,
        "{}",
        adapter.digest()
    );
}

#[test]
fn a_refusal_is_no_failure() {
    let handled = command(&rogue(), "err").unwrap();
    assert_eq!(handled.result.unwrap_err(), "no thanks\\n");
    assert!(handled.fuel > 0);
}

#[test]
fn nothing_survives_between_two_calls() {
    let adapter = rogue();
    for _ in 0..3 {
        assert_eq!(step(&adapter, "count").state, [1]);
    }
}

#[test]
fn a_trap_is_a_failure_that_names_the_place_and_keeps_the_log() {
    let failed = command(&rogue(), "trap").unwrap_err();
    let FailureKind::Trap(text) = &failed.kind else {
        panic!("{failed}")
    };
    assert!(
        text.contains("unreachable") && text.contains("handle"),
        "{text}"
    );

    let failed = command(&rogue(), "write and trap").unwrap_err();
    assert!(matches!(failed.kind, FailureKind::Trap(_)), "{failed}");
    assert_eq!(failed.log.len(), 1);
    assert_eq!(
        (failed.log[0].level, failed.log[0].text.as_str()),
        (Level::Error, "no thanks\\n")
    );
}

#[test]
fn endless_recursion_is_a_trap() {
    let kind = failure(&rogue(), "deep");
    assert!(
        matches!(&kind, FailureKind::Trap(text) if text.contains("stack")),
        "{kind}"
    );
}

#[test]
fn an_endless_loop_runs_out_of_fuel_and_always_at_the_same_point() {
    let adapter = rogue_with(Limits {
        handle_fuel: 1_000_000,
        ..Limits::default()
    });
    let first = command(&adapter, "loop").unwrap_err();
    let second = command(&adapter, "loop").unwrap_err();
    assert_eq!(first.kind, FailureKind::OutOfFuel(1_000_000));
    assert_eq!(first, second);
    assert!(first.fuel >= 1_000_000, "{}", first.fuel);
}

#[test]
fn the_same_step_costs_the_same_fuel() {
    let costs: Vec<u64> = (0..3)
        .map(|_| command(&rogue(), "publish").unwrap().fuel)
        .collect();
    assert!(
        costs[0] > 0 && costs.iter().all(|c| *c == costs[0]),
        "{costs:?}"
    );
}

#[test]
fn the_backstop_ends_what_fuel_does_not() {
    let limits = Limits {
        handle_fuel: u64::MAX,
        backstop: Duration::from_millis(20),
        ..Limits::default()
    };
    assert_eq!(
        failure(&rogue_with(limits), "loop"),
        FailureKind::Timeout(20)
    );
}

#[test]
fn a_memory_bomb_is_stopped_at_the_limit() {
    let kind = failure(&rogue(), "memory");
    assert!(
        matches!(&kind, FailureKind::Limit(text) if text.contains("16777216")),
        "{kind}"
    );
    let kind = failure(&rogue(), "x");
    assert!(
        matches!(&kind, FailureKind::Limit(text) if text.contains("20000")),
        "{kind}"
    );
}

#[test]
fn a_component_that_begins_too_large_does_not_begin() {
    for limits in [
        Limits {
            memory_bytes: 3 * 65_536,
            ..Limits::default()
        },
        Limits {
            table_elements: 0,
            ..Limits::default()
        },
        Limits {
            instances: 1,
            ..Limits::default()
        },
        Limits {
            memories: 0,
            ..Limits::default()
        },
        Limits {
            tables: 0,
            ..Limits::default()
        },
    ] {
        let kind = failure(&rogue_with(limits.clone()), "count");
        assert!(
            matches!(kind, FailureKind::Limit(_)),
            "{kind} with {limits:?}"
        );
    }
}

#[test]
fn host_calls_are_counted_and_weighed() {
    let kind = failure(&rogue(), "host calls");
    assert!(
        matches!(&kind, FailureKind::Limit(text) if text.contains("10000 host calls")),
        "{kind}"
    );
    let kind = failure(&rogue(), "big");
    assert!(matches!(kind, FailureKind::Malformed(_)), "{kind}");
    let kind = failure(&rogue(), "B");
    assert!(
        matches!(&kind, FailureKind::Limit(text) if text.contains("bytes in host calls")),
        "{kind}"
    );
}

#[test]
fn the_log_of_a_step_is_cut_at_64_kib() {
    let handled = command(&rogue(), "garrulous").unwrap();
    assert!(handled.result.is_ok());
    let kept: usize = handled.log.iter().map(|line| line.text.len()).sum();
    assert!((64 * 1024..64 * 1024 + 200).contains(&kept), "{kept}");
    assert_eq!(handled.log[0].level, Level::Info);
    assert_eq!(handled.log.last().unwrap().level, Level::Warn);
}

#[test]
fn an_answer_out_of_shape_is_malformed() {
    for (name, expected) in [
        ("state", "the state: 60001 bytes"),
        ("qos", "effect 1 (publish): the QoS"),
        ("outside memory", "border"),
        ("utf-8", "border"),
        ("variant", "border"),
    ] {
        let kind = failure(&rogue(), name);
        assert!(
            matches!(&kind, FailureKind::Malformed(text) if text.contains(expected)),
            "{name}: {kind}"
        );
    }
    let failed = rogue().migrate(3, b"").unwrap_err();
    assert!(failed.to_string().contains("60001"), "{failed}");
    let failed = rogue().requirements("t").unwrap_err();
    assert!(failed.to_string().contains("a target is empty"), "{failed}");
}

#[test]
fn only_handle_may_ask_the_host() {
    let failed = rogue().requirements("h").unwrap_err();
    assert!(
        matches!(&failed.kind, FailureKind::Malformed(text) if text.contains("`now`")),
        "{failed}"
    );
}

#[test]
fn the_engine_goes_on_after_every_kind_of_failure() {
    let limits = Limits {
        handle_fuel: 5_000_000,
        ..Limits::default()
    };
    let adapter = rogue_with(limits);
    for name in [
        "trap", "deep", "loop", "memory", "x", "host", "big", "B", "utf-8", "variant", "state",
        "outside", "qos",
    ] {
        assert!(command(&adapter, name).is_err(), "{name}");
        assert_eq!(step(&adapter, "count").state, [1], "after {name}");
    }
}

#[test]
fn calls_run_side_by_side() {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(step(&rogue(), "count").state, [1]);
                    assert!(matches!(failure(&rogue(), "trap"), FailureKind::Trap(_)));
                }
            });
        }
    });
}

#[test]
fn more_calls_at_once_than_there_are_places_wait_for_one_and_do_not_fail() {
    let limits = Limits {
        handle_fuel: 50_000_000,
        ..Limits::default()
    };
    let adapter = rogue_with(limits);
    let together = Barrier::new(64);
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                together.wait();
                assert_eq!(
                    failure(&adapter, "loop"),
                    FailureKind::OutOfFuel(50_000_000)
                );
                assert_eq!(step(&adapter, "count").state, [1]);
            });
        }
    });
}

#[test]
fn an_adapter_outlives_the_sandbox_it_was_loaded_in() {
    let sandbox = Sandbox::new(Limits {
        backstop: Duration::from_millis(20),
        handle_fuel: u64::MAX,
        ..Limits::default()
    });
    let adapter = sandbox.unwrap().load("rogue", rogue_component()).unwrap();
    assert_eq!(failure(&adapter, "loop"), FailureKind::Timeout(20));
}
