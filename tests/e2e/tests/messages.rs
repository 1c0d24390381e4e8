//! Where messages wait while their adapter is busy: for a short time with the broker, which costs nothing, then in the journal, so that
//! nobody else on that link waits for a slow step.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use otahost_disk::Seam;
use otahost_disk::sim::{Controls, Loss};
use otahost_e2e::sim::{Scenario, Story, When, World, check, rogue_output};

/// So many messages at once, for an adapter whose steps take so long (and whose commits do).
fn at_once<const MESSAGES: usize>(step: Duration) -> Scenario {
    let mut story = Story::new("messages at once");
    story.add_rogue();
    for _ in 0..MESSAGES {
        story.tell_rogue(When::At(COME), "count");
    }
    story.scenario.seam = Seam::After(step);
    story.scenario.told = |world| counts(world).last() == Some(&MESSAGES.to_string());
    story.scenario.promises = |world, _| {
        // What was published and not known to be may come again; nothing overtakes, and nothing is counted twice.
        let mut first = Vec::new();
        for count in counts(world) {
            if !first.contains(&count) {
                first.push(count);
            }
        }
        let all: Vec<String> = (1..=MESSAGES).map(|count| count.to_string()).collect();
        check(first == all, || format!("{:?}", rogue_output(world)))
    };
    story.scenario
}

fn three(step: Duration) -> Scenario {
    at_once::<3>(step)
}

/// When messages come.
const COME: u64 = 30_000;

fn counts(world: &World) -> Vec<String> {
    let out = rogue_output(world).into_iter();
    out.filter(|line| line.parse::<u32>().is_ok()).collect()
}

/// The most messages that were acknowledged at one moment before the first was answered.
fn acknowledged_unanswered(scenario: &Scenario) -> u64 {
    let (run, worlds) = scenario.record(Controls::default());
    run.verdict.unwrap();
    let before = worlds.iter().filter(|world| counts(world).is_empty());
    before.map(|world| world.acknowledged).max().unwrap()
}

#[test]
fn behind_short_steps_messages_wait_with_the_broker_and_behind_a_long_one_in_the_journal() {
    let short = three(Duration::from_millis(10));
    assert_eq!(acknowledged_unanswered(&short), 0);
    let long = three(Duration::from_millis(400));
    assert_eq!(acknowledged_unanswered(&long), 3);
}

#[test]
fn messages_that_wait_keep_their_order_and_their_number_over_every_power_cut() {
    for step in [10, 400] {
        let scenario = three(Duration::from_millis(step));
        let losses = [Loss::AllDropped, Loss::AllKept, Loss::Seeded(7)];
        let found = scenario.cut_everywhere(Controls::default(), &losses, 1);
        found.assert_none(&format!("steps of {step} ms"));
    }
}

#[test]
fn a_backlog_of_short_steps_keeps_no_broker_waiting_for_all_of_it() {
    // Within its 50 ms an adapter comes to two of them.
    let (run, worlds) = at_once::<8>(Duration::from_millis(20)).record(Controls::default());
    run.verdict.unwrap();
    let ahead = worlds.iter().map(|world| {
        world
            .acknowledged
            .saturating_sub(counts(world).len() as u64)
    });
    assert!(ahead.max().unwrap() >= 5);
}

#[test]
fn what_a_broker_has_forgotten_is_kept_by_the_device() {
    let mut scenario = three(Duration::from_millis(40));
    scenario.world.forgets = Some(COME + 5);
    // Before the first step is durable, and before they would become rows by their age.
    scenario.world.power_cuts = vec![(1, COME + 60)];
    let run = scenario.play();
    run.verdict.unwrap();
    assert_eq!(run.world.boots, 2);
}
