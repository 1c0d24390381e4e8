//! Another version of an adapter is taken while messages flow, and left again when it does not behave.

use std::sync::Arc;

use otahost_disk::Place;
use otahost_disk::sim::{Loss, SimDisk};
use otahost_journal::{Journal, Key};

use crate::component_path;
use crate::sim::{Boot, Scenario, World, dock, rogue_output, told_later};

/// Tells the rogue these, a second apart, and has its next release installed after so many of them.
pub fn story(name: &'static str, commands: &[&str], installed_after: u64) -> Scenario {
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

/// The rows of its journal.
pub fn rows(disk: &SimDisk) -> Vec<(Key, Vec<u8>)> {
    // A copy: to open a journal is to write to its disk, and nobody noted the world at that.
    let disk = SimDisk::from_image(disk.image(Loss::AllKept));
    let journal = Journal::open(Arc::new(disk), Place::data("journal.redb")).unwrap();
    journal.load().unwrap()
}

/// What was published, without what was told again: publications go out at least once.
pub fn outputs(world: &World) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for text in rogue_output(world) {
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen
}

/// No event was set aside.
///
/// # Errors
/// When some were.
pub fn no_event_was_set_aside(disk: &SimDisk) -> Result<(), String> {
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
///
/// # Errors
/// When they were others.
pub fn counted_once_each(world: &World, disk: &SimDisk) -> Result<(), String> {
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

/// Six messages around the swap to another version.
pub fn swapped() -> Scenario {
    let mut scenario = story("adapter update", &["count"; 6], 3);
    scenario.promises = counted_once_each;
    scenario
}

/// A version that traps where the one before does not.
pub fn left() -> Scenario {
    let commands = ["count", "stumble", "count"];
    let mut scenario = story("adapter rollback", &commands, 1);
    scenario.promises = |world, disk| {
        if !outputs(world).contains(&"steady".to_owned()) {
            return Err(format!("nobody handled the message: {:?}", outputs(world)));
        }
        no_event_was_set_aside(disk)
    };
    scenario
}
