//! An adapter that is called, that calls, and that raises alerts.

use std::collections::BTreeSet;

use otahost_disk::sim::{Loss, SimDisk};
use otahost_journal::Key;
use serde_json::{Value, json};

use crate::sim::{Caller, SLOW, Scenario, Sink, Story, World, check, output, rows};

/// An adapter on all links that is told these things, one second after the other.
fn rogue(name: &'static str, commands: &[&str]) -> Story {
    let mut story = Story::bare(name);
    story.add_linked_rogue("rogue");
    for (at, command) in (1..).zip(commands) {
        story.tell(at * 1_000, "rogue", command);
    }
    story.scenario.seam = SLOW;
    story
}

/// Three callers who insist: each is told a number, and none is told twice.
pub fn counted() -> Scenario {
    let mut story = rogue("requests in", &[]);
    let ask = |at| Caller::new(at, "POST", "/rogue/do", "count").until(700, &["200 "]);
    story.world().web.callers = [1_000, 1_000, 4_000].map(ask).into();
    story.scenario.promises = |world, _| {
        // A count that was told and forgotten would be told again.
        let counts = world.web.bodies(200);
        let numbers: BTreeSet<u32> = counts.iter().filter_map(|n| n.parse().ok()).collect();
        check(counts.len() == 3 && numbers.len() == 3, || {
            format!("{counts:?}")
        })?;
        check(world.web.unheard == 0, || {
            format!("{} answers to nobody", world.web.unheard)
        })
    };
    story.scenario
}

/// How the adapter was told that its requests ended: what it published, each different line once.
fn ends(world: &World) -> BTreeSet<String> {
    let lines = output(world, "rogue").into_iter();
    lines.filter(|line| line.starts_with("answer ")).collect()
}

fn calls(disk: &SimDisk) -> usize {
    let rows = rows(disk.image(Loss::AllKept));
    let calls = rows
        .iter()
        .filter(|(key, _)| matches!(key, Key::Call { .. }));
    calls.count()
}

/// A request that may not be repeated: sent once at most, and answered or interrupted.
pub fn called_once() -> Scenario {
    let once = r#"fetch {"tag":"t","path":"/free/x","once":true}"#;
    let mut story = rogue("requests out", &[once]);
    story.scenario.told = |world| world.is_quiet() && !ends(world).is_empty();
    story.scenario.promises = |world, disk| {
        let (sent, ends) = (world.api.count("/free/x"), ends(world));
        check(sent <= 1, || format!("sent {sent} times"))?;
        check(ends.len() == 1 && calls(disk) == 0, || {
            format!("{ends:?}, {} rows are left", calls(disk))
        })
    };
    story.scenario
}

/// An alert for two sinks, one of which is away: told to each.
pub fn alerted() -> Scenario {
    let mut story = rogue("alerts", &["alert a error first", "count"]);
    let away = Sink {
        takes_after: 600_000,
        ..Sink::new("later")
    };
    story.world().sinks = vec![Sink::new("now"), away];
    fn taken(world: &World, sink: &str) -> usize {
        let rung = world.rung.iter();
        let taken = rung.filter(|r| r.taken && r.sink == sink && r.code == "a");
        taken.count()
    }
    story.scenario.told = |world| world.is_quiet() && taken(world, "later") > 0;
    story.scenario.promises = |world, disk| {
        for sink in ["now", "later"] {
            let times = taken(world, sink);
            // Every boot but the first is a cut, which may take the word that it was told.
            check((1..=world.boots as usize).contains(&times), || {
                format!("{sink} was told {times} times")
            })?;
        }
        let rows = rows(disk.image(Loss::AllKept));
        let waits = |(key, row): &&(Key, Vec<u8>)| {
            matches!(key, Key::Alert { .. })
                && serde_json::from_slice::<Value>(row).unwrap()["waiting"] != json!([])
        };
        check(!rows.iter().any(|row| waits(&row)), || {
            "an alert still waits".into()
        })
    };
    story.scenario
}
