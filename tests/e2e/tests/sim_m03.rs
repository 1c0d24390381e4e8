//! A command that was delivered and not acknowledged, over a power cut just before its commit is durable and just after (M03): it comes
//! again, is a job once, and ends once.
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_disk::sim::{Controls, Loss, Record, SimDisk};
use otahost_e2e::sim::{NEW, Release, Run, SLOW, Scenario, Story, When, World, ended, jobs};

/// A command for an adapter that has nothing else to do: its message is consumed in the commit of its step.
fn story() -> Scenario {
    let mut story = Story::new("a command to an idle dock");
    story.command_later(When::At(30_000), "bid-1", &Release::default());
    story.scenario.seam = SLOW;
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    story.scenario
}

/// The story as it was recorded, and the first operation after which its command is durable.
fn recorded() -> (Scenario, Record, Vec<World>, usize) {
    let scenario = story();
    let (run, worlds) = scenario.record(Controls::default());
    run.verdict.unwrap();
    let record = run.disk.record();
    let is_durable = |cut: usize| {
        let image = record.image_after(cut, Loss::AllDropped);
        !jobs(&SimDisk::from_image(image)).is_empty()
    };
    let (mut before, mut after) = (0, record.ops.len());
    while after - before > 1 {
        let middle = before.midpoint(after);
        if is_durable(middle) {
            after = middle;
        } else {
            before = middle;
        }
    }
    (scenario, record, worlds, after)
}

/// Power goes before this operation, and what was not synced is lost; the world is the one at another operation.
fn goes_on(scenario: &Scenario, record: &Record, cut: usize, world: &World) -> Run {
    assert_eq!(
        world.inbox.len(),
        1,
        "the broker has delivered the command and has no acknowledgement"
    );
    let run = scenario.run(
        SimDisk::from_image(record.image_after(cut, Loss::AllDropped)),
        world.clone(),
    );
    if let Err(error) = &run.verdict {
        panic!("{error}");
    }
    run
}

fn is_handled_once(run: &Run) {
    assert_eq!(jobs(&run.disk).len(), 1);
    assert_eq!(run.world.endings.len(), 1, "{:?}", run.world.endings);
    assert!(run.world.inbox.is_empty(), "{:?}", run.world.inbox);
    assert_eq!(run.world.switches.len(), 1, "{:?}", run.world.switches);
}

#[test]
fn m03_a_command_that_is_killed_before_its_commit_comes_again_and_is_handled_once() {
    let (scenario, record, worlds, durable) = recorded();
    let cut = durable - 1;
    let lost = SimDisk::from_image(record.image_after(cut, Loss::AllDropped));
    assert_eq!(jobs(&lost), [], "nothing of it is there");
    let run = goes_on(&scenario, &record, cut, &worlds[cut]);
    is_handled_once(&run);
}

#[test]
fn m03_a_command_that_is_killed_after_its_commit_and_before_its_acknowledgement_is_not_handled_again()
 {
    let (scenario, record, worlds, durable) = recorded();
    let kept = SimDisk::from_image(record.image_after(durable, Loss::AllDropped));
    assert_eq!(jobs(&kept).len(), 1, "all of it is there");
    // The world before the operation that made it durable: no acknowledgement has left.
    let run = goes_on(&scenario, &record, durable, &worlds[durable - 1]);
    is_handled_once(&run);
    // Acknowledged when it came again, and not before.
    assert_eq!(run.world.acknowledged, worlds[durable - 1].acknowledged + 1);
}
