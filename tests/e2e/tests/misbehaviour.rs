//! An adapter that misbehaves harms nobody but itself: the agent and the other adapters go on, and what it was told is set
//! aside and not lost (DESIGN §1, "when a step fails").
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use otahost_disk::Place;
use otahost_disk::sim::{Controls, Loss, SimDisk};
use otahost_e2e::sim::{Boot, Run, dock, rogue_output, with_rogue};
use otahost_journal::{Journal, Key};

/// Each breaks a rule; the step never happens.
const CRIMES: [&str; 10] = [
    "trap",
    "loop",
    "bomb",
    "recurse",
    "big-state",
    "big-output",
    "many-effects",
    "heavy-effects",
    "undeclared",
    "wildcard",
];

fn dead_letters(disk: &SimDisk) -> usize {
    let journal = Journal::open(Arc::new(disk.clone()), Place::data("journal.redb")).unwrap();
    journal
        .load()
        .unwrap()
        .iter()
        .filter(|(key, _)| matches!(key, Key::Dead { adapter, .. } if adapter == "rogue"))
        .count()
}

fn run(commands: &[&str]) -> Run {
    let scenario = with_rogue(dock("misbehaviour", Boot::Up, &[]), commands);
    let run = scenario.run(
        SimDisk::from_image(scenario.image.clone()),
        scenario.world.clone(),
    );
    run.verdict.as_ref().unwrap();
    run
}

#[test]
fn the_dock_is_updated_whatever_another_adapter_does_on_the_same_link() {
    let mut commands = CRIMES.to_vec();
    commands.extend(["refuse", "echo still here"]);
    let run = run(&commands);
    assert!(
        rogue_output(&run.world).contains(&"still here".to_owned()),
        "{:?}",
        rogue_output(&run.world)
    );
    assert_eq!(
        dead_letters(&run.disk),
        CRIMES.len(),
        "each failed event is kept, and a refused one is not"
    );
    assert!(run.world.inbox.is_empty(), "every message is acknowledged");
}

#[test]
fn nothing_of_a_failed_step_happens() {
    let run = run(&["count", "trap", "count", "undeclared", "big-state", "count"]);
    let counts: Vec<String> = rogue_output(&run.world)
        .into_iter()
        .filter(|line| line.parse::<u32>().is_ok())
        .collect();
    assert_eq!(
        counts,
        ["1", "2", "3"],
        "the state is that of the last good step"
    );
    assert!(
        !run.world
            .received
            .iter()
            .any(|(topic, _)| topic == "elsewhere")
    );
}

#[test]
fn messages_to_a_busy_adapter_are_each_handled_once_over_power_cuts() {
    let mut scenario = with_rogue(
        dock("counting", Boot::Up, &[]),
        &["count", "count", "trap", "count", "count"],
    );
    scenario.promises = |world, _| {
        let counts = rogue_output(world);
        for n in ["1", "2", "3", "4"] {
            if !counts.iter().any(|line| line == n) {
                return Err(format!("count {n} is missing in {counts:?}"));
            }
        }
        match counts.iter().find(|line| *line == "5") {
            Some(_) => Err(format!("a message was counted twice: {counts:?}")),
            None => Ok(()),
        }
    };
    let found = scenario.cut_everywhere(Controls::default(), &[Loss::AllDropped, Loss::AllKept], 1);
    assert!(
        found.failures.is_empty(),
        "{} of {} runs failed, such as {:#?}",
        found.failures.len(),
        found.runs,
        found.failures.first()
    );
}

#[test]
fn messages_are_handled_in_the_order_in_which_they_came_whenever_power_is_cut() {
    let commands = ["echo a", "echo b", "echo c", "echo d", "echo e"];
    let mut scenario = with_rogue(dock("order", Boot::Up, &[]), &commands);
    scenario.promises = |world, _| {
        let mut lines = rogue_output(world);
        let mut heard = std::collections::BTreeSet::new();
        // What is published again is not what counts.
        lines.retain(|line| line.len() == 1 && heard.insert(line.clone()));
        if lines == ["a", "b", "c", "d", "e"] {
            Ok(())
        } else {
            Err(format!("{lines:?}"))
        }
    };
    let found = scenario.cut_everywhere(Controls::default(), &[Loss::AllDropped, Loss::AllKept], 1);
    found.assert_none("order");
}
