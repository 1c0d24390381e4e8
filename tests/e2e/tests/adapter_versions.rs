//! Another version of an adapter is taken while messages flow, and left again when it does not behave; nothing is lost and nothing is
//! handled twice, wherever power goes (DESIGN §7).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use otahost_disk::Place;
use otahost_disk::sim::{Controls, Loss, SimDisk};
use otahost_e2e::component_path;
use otahost_e2e::sim::{Boot, Scenario, World, dock, rogue_output, told_later};
use otahost_journal::{Journal, Key};

/// Tells the rogue these, a second apart, and has its next release installed after so many of them.
fn story(name: &'static str, commands: &[&str], installed_after: u64) -> Scenario {
    let mut scenario = told_later(dock(name, Boot::Up, &[]), commands);
    let next = format!("rogue {}", component_path("rogue-next").display());
    scenario
        .world
        .operator
        .push((installed_after * 1_000 + 500, next));
    scenario.told = World::is_quiet;
    scenario.promises = |_, _| Ok(());
    scenario
}

fn rows(disk: &SimDisk) -> Vec<(Key, Vec<u8>)> {
    let journal = Journal::open(Arc::new(disk.clone()), Place::data("journal.redb")).unwrap();
    journal.load().unwrap()
}

fn version(disk: &SimDisk) -> String {
    let rows = rows(disk);
    let row = rows
        .iter()
        .find(|(key, _)| matches!(key, Key::Adapter(name) if name == "rogue"));
    let row: serde_json::Value = serde_json::from_slice(&row.unwrap().1).unwrap();
    row["version"].as_str().unwrap().to_owned()
}

/// What was published, without what was told again: publications go out at least once.
fn outputs(world: &World) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for text in rogue_output(world) {
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen
}

fn no_event_was_set_aside(disk: &SimDisk) -> Result<(), String> {
    let dead = rows(disk)
        .into_iter()
        .filter(|(key, _)| matches!(key, Key::Dead { .. }))
        .count();
    match dead {
        0 => Ok(()),
        n => Err(format!("{n} events were set aside")),
    }
}

/// Six counts: each one higher than the one before, and once by the thousand of the migration at most.
fn counted_once_each(world: &World, disk: &SimDisk) -> Result<(), String> {
    let counts: Vec<i64> = outputs(world)
        .iter()
        .filter_map(|t| t.parse().ok())
        .collect();
    let steps: Vec<i64> = counts.windows(2).map(|w| w[1] - w[0]).collect();
    let jumps = steps.iter().filter(|s| **s == 1_001).count();
    let is_one = |s: &i64| *s == 1 || *s == 1_001;
    if counts.len() != 6
        || counts[0] != 1 && counts[0] != 1_001
        || !steps.iter().all(is_one)
        || jumps > 1
    {
        return Err(format!("the counts were {counts:?}"));
    }
    no_event_was_set_aside(disk)
}

#[test]
fn a_new_version_takes_over_between_two_messages_with_what_the_old_one_knew() {
    let scenario = story("a swap", &["count"; 6], 3);
    let run = scenario.play();
    run.verdict.as_ref().unwrap();
    assert_eq!(run.world.operator_heard, ["Done"]);
    let counts: Vec<String> = outputs(&run.world)
        .into_iter()
        .filter(|t| t.parse::<u64>().is_ok())
        .collect();
    assert_eq!(counts, ["1", "2", "3", "1004", "1005", "1006"]);
    assert_eq!(version(&run.disk), "0.2.0");
}

#[test]
fn a_swap_loses_nothing_and_handles_nothing_twice_wherever_power_goes() {
    let mut scenario = story("power goes around a swap", &["count"; 6], 3);
    scenario.promises = counted_once_each;
    let found = scenario.cut_everywhere(Controls::default(), &[Loss::AllDropped, Loss::AllKept], 1);
    found.assert_none(scenario.name);
}

#[test]
fn a_version_that_traps_where_the_old_one_does_not_is_left_and_its_message_is_handled() {
    let commands = ["count", "count", "count", "stumble", "count"];
    let run = story("a bad version", &commands, 2).play();
    run.verdict.as_ref().unwrap();
    let said: Vec<String> = outputs(&run.world)
        .into_iter()
        .filter(|t| !t.starts_with("started"))
        .collect();
    // The first release is back with the state it had.
    assert_eq!(said, ["1", "2", "1003", "steady", "3"]);
    assert_eq!(version(&run.disk), "0.1.0");
    no_event_was_set_aside(&run.disk).unwrap();
}

#[test]
fn what_both_versions_fail_at_is_the_messages_fault() {
    let run = story("a bad message", &["count", "count", "trap", "count"], 2).play();
    run.verdict.as_ref().unwrap();
    let counts: Vec<String> = outputs(&run.world)
        .into_iter()
        .filter(|t| t.parse::<u64>().is_ok())
        .collect();
    assert_eq!(counts, ["1", "2", "1003"]);
    assert_eq!(version(&run.disk), "0.2.0");
    assert!(
        no_event_was_set_aside(&run.disk).is_err(),
        "the message is kept"
    );
}

#[test]
fn a_bad_version_is_left_wherever_power_goes() {
    let commands = ["count", "stumble", "count"];
    let mut scenario = story("power goes around a return", &commands, 1);
    scenario.promises = |world, disk| {
        if !outputs(world).contains(&"steady".to_owned()) {
            return Err(format!("nobody handled the message: {:?}", outputs(world)));
        }
        no_event_was_set_aside(disk)
    };
    let found = scenario.cut_everywhere(Controls::default(), &[Loss::AllDropped, Loss::AllKept], 1);
    found.assert_none(scenario.name);
}
