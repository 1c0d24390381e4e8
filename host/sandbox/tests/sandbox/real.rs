//! Recorded steps of an adapter that speaks a real protocol.

use std::path::Path;
use std::sync::Arc;

use otahost_core::admit::{Judge, JudgedTarget};
use otahost_core::model::{Event, Field, LinkState, Message, StartReason};
use otahost_sandbox::{Adapter, Finding, Outcome, Replay, Replayer, TraceRing};

use crate::tracing::{Rows, all, lines, load, record, store};
use crate::view;

const SN: &str = "NM1923221021";

/// The component of an adapter, built by `cargo xtask adapters`.
fn built(name: &str) -> Vec<u8> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../target/adapters/{name}.wasm"));
    std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; run `cargo xtask adapters` first", path.display()))
}

/// The DJI adapter on a dock, from its start to the update its cloud asks for.
fn dji_steps(adapter: &Adapter) -> TraceRing {
    let mut view = (*view()).clone();
    view.config = format!("{{\"gateway_sn\": \"{SN}\"}}");
    let dock = &mut Arc::make_mut(&mut view.targets)[0];
    dock.version = Some("1.2.0.68".into());
    dock.attributes = vec![Field {
        name: "sn".into(),
        value: SN.into(),
    }];
    view.judge = Judge {
        targets: Arc::new([("dock".to_owned(), JudgedTarget::default())].into()),
        downloads: Some(vec!["http://192.168.1.1:9000/public/".into()]),
        ..Judge::of_nobody()
    };
    let message = |topic: String, payload: &str| {
        Event::Message(Message {
            link: "cloud".into(),
            topic,
            payload: payload.into(),
            duplicate: false,
            retained: false,
        })
    };
    let create = include_str!("../../../../plugins/dji/fixtures/autel_page_ota_create.json");
    let services = format!("thing/product/{SN}/services");
    let events = [
        Event::Started(StartReason::Installed),
        Event::Link(LinkState {
            link: "cloud".into(),
            up: true,
            session_present: false,
            reason: String::new(),
        }),
        message(services.clone(), create),
        message(services.clone(), create),
        message(services, "{ this is no JSON"),
        Event::Target("dock".into()),
    ];
    let mut ring = TraceRing::new(TraceRing::CAPACITY);
    let mut state = Vec::new();
    for event in events {
        view.now += 1_000;
        view.uptime += 1_000;
        view.seed[0] += 1;
        if let Some(after) = record(&mut ring, adapter, &view, &state, &event) {
            state = after;
        }
    }
    ring
}

#[test]
fn real_steps_of_the_dji_adapter_replay_the_same_also_after_a_restart() {
    let adapter = load(&built("dji"));
    let mut ring = dji_steps(&adapter);
    let mut rows = Rows::new();
    store(&mut rows, &mut ring, usize::MAX);
    let back = TraceRing::restore(TraceRing::CAPACITY, rows);
    let again = load(&built("dji"));
    let replayer = Replayer::new(&again).unwrap();
    let (mut steps, mut effects) = (0, 0);
    for step in all(&back) {
        let found = replayer.replay(&step);
        assert_eq!(found.finding, Finding::Same, "{found}");
        assert_eq!(found.fuel_now, Some(step.fuel));
        steps += 1;
        if let Outcome::Step {
            effects: Some(made),
            ..
        } = &step.outcome
        {
            effects += made.len();
        }
    }
    assert_eq!(steps, 6);
    let briefs: Vec<String> = back.steps().map(|step| step.brief().to_string()).collect();
    assert!(
        effects >= 3 && briefs.concat().contains("start-job"),
        "{briefs:#?}"
    );
}

#[test]
fn a_dji_adapter_that_speaks_otherwise_shows_where() {
    let ring = dji_steps(&load(&built("dji")));
    // The same adapter with one word of its protocol changed, in the file itself.
    let mut component = built("dji");
    let (word, other) = (b"update_topo", b"update_tapa");
    let places: Vec<usize> = (0..component.len() - word.len())
        .filter(|at| component[*at..].starts_with(word))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        component[at..at + word.len()].copy_from_slice(other);
    }
    let changed = load(&component);
    let replayer = Replayer::new(&changed).unwrap();
    let found: Vec<Replay> = all(&ring)
        .iter()
        .map(|step| replayer.replay(step))
        .collect();
    let different: Vec<&Replay> = found
        .iter()
        .filter(|found| found.finding != Finding::Same)
        .collect();
    assert!(
        !different.is_empty() && different.len() < found.len(),
        "one difference stays one: {found:#?}"
    );
    let told = lines(different[0]).join("\n");
    assert!(
        told.contains("payload.method: \"update_topo\" -> \"update_tapa\""),
        "{told}"
    );
}
