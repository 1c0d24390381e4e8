//! Which images may run: none that was rolled back twice, is for another device or older than the rollback index; and a good one is
//! not rolled back because power was lost in its first boots (DESIGN §6).
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_core::job::MAX_REARMS;
use otahost_disk::Place;
use otahost_disk::sim::{Controls, Image, Loss, Replay, SimDisk};
use otahost_e2e::sim::{
    Boot, NEW, OLD, Release, SLOTS, Scenario, Story, When, World, check, ended, is_told, memory,
};
use otahost_flash::slots::TRIES;

/// Bytes of which nobody can say that the payload was fetched: the header, and what was on its way.
const HEADER: u64 = 8 * 1024;

fn dead() -> Release {
    Release {
        boot: Boot::Dead,
        ..Release::default()
    }
}

fn rolled_back_twice(name: &'static str) -> Story {
    let mut story = Story::new(name);
    story.command("bid-1", &dead());
    story.command_later(When::Results(1), "bid-2", &dead());
    story.scenario.told = is_told::<2>;
    story
}

/// The last command was refused with this number.
fn refused(world: &World, bid: &str, result: i64) -> Result<(), String> {
    let answers = world.answers();
    let said: Vec<_> = answers.iter().filter(|a| a.bid == bid).collect();
    match said.as_slice() {
        [answer] if answer.status == "rejected" && answer.result == result => Ok(()),
        _ => Err(format!("the answer is not {result} but {said:?}")),
    }
}

#[test]
fn an_image_that_was_rolled_back_twice_is_refused_and_not_fetched_whenever_power_is_cut() {
    let mut story = rolled_back_twice("known bad");
    story.command_later(When::Results(2), "bid-3", &dead());
    story.scenario.promises = |world, disk| {
        ended(world, &[("failed", 312_028), ("failed", 312_028)], 0, OLD)?;
        refused(world, "bid-3", 312_003)?;
        let memory = memory(disk.image(Loss::AllKept), "dock");
        let rollbacks: Vec<u32> = memory.bad.iter().map(|bad| bad.rollbacks).collect();
        check(rollbacks == [2], || format!("{memory:?}"))
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!(
        run.world.served,
        2 * run.world.offered(),
        "two installations fetched it, and the third command nothing"
    );
    story.scenario.holds(5);
}

#[test]
fn an_image_that_was_rolled_back_twice_is_known_under_another_signature_and_not_activated() {
    let mut story = rolled_back_twice("known bad, signed anew");
    let anew = Release { index: 2, ..dead() };
    story.command_later(When::Results(2), "bid-3", &anew);
    story.scenario.told = is_told::<3>;
    story.scenario.promises = |world, disk| {
        let outcomes = [
            ("failed", 312_028),
            ("failed", 312_028),
            ("failed", 312_003),
        ];
        ended(world, &outcomes, 0, OLD)?;
        let activations = memory(disk.image(Loss::AllKept), "dock").activations;
        check(activations.len() == 2, || format!("{activations:?}"))
    };
    story.scenario.holds(17);
}

#[test]
fn what_is_remembered_of_a_bad_image_never_becomes_less_whenever_power_is_cut() {
    let story = rolled_back_twice("memory");
    let (run, _) = story.scenario.record(Controls::default());
    run.verdict.unwrap();
    let record = run.disk.record();
    for loss in [Loss::AllDropped, Loss::AllKept] {
        let mut replay = Replay::new(&record.start);
        let mut known = 0;
        for (cut, op) in record.ops.iter().enumerate() {
            if cut % 4 == 0 {
                let memory = memory(replay.image(loss), "dock");
                let rollbacks = memory.bad.first().map_or(0, |bad| bad.rollbacks);
                assert!(rollbacks >= known, "cut {cut}: {rollbacks} after {known}");
                known = rollbacks;
            }
            replay.apply(op);
        }
        assert_eq!(known, 2);
    }
}

#[test]
fn an_image_older_than_the_rollback_index_is_refused_before_its_payload_is_fetched_whenever_power_is_cut()
 {
    let mut story = Story::new("rollback index");
    let confirmed = Release {
        index: 5,
        ..Release::default()
    };
    let older = Release {
        version: "1.3.0",
        index: 4,
        ..Release::default()
    };
    story.command("bid-1", &confirmed);
    story.command_later(When::Results(1), "bid-2", &older);
    story.scenario.told = is_told::<2>;
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0), ("failed", 312_003)], 1, NEW)?;
        let memory = memory(disk.image(Loss::AllKept), "dock");
        check(memory.rollback_index == 5, || format!("{memory:?}"))
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    let first = run.world.offered() / 2;
    assert!(run.world.served <= first + HEADER, "{}", run.world.served);
    story.scenario.holds(7);
}

#[test]
fn an_image_that_fell_back_does_not_raise_the_rollback_index() {
    let mut story = Story::new("rollback index of a bad image");
    let bad = Release { index: 9, ..dead() };
    let good = Release {
        version: "1.3.0",
        index: 1,
        ..Release::default()
    };
    story.command("bid-1", &bad);
    story.command_later(When::Results(1), "bid-2", &good);
    story.scenario.told = is_told::<2>;
    story.scenario.promises = |world, disk| {
        ended(world, &[("failed", 312_028), ("ok", 0)], 1, "1.3.0")?;
        let memory = memory(disk.image(Loss::AllKept), "dock");
        check(memory.rollback_index == 1, || format!("{memory:?}"))
    };
    story.scenario.holds(17);
}

#[test]
fn an_image_for_another_device_is_refused_before_its_payload_is_fetched_whenever_power_is_cut() {
    let mut story = Story::new("wrong device");
    let foreign = Release {
        compatible: "drone",
        ..Release::default()
    };
    story.command("bid-1", &foreign);
    story.scenario.promises = |world, disk| {
        ended(world, &[("failed", 312_003)], 0, OLD)?;
        let slot = disk.read_outside(&Place::operator(SLOTS[1]));
        check(slot.as_deref() == Some(b"never used"), || {
            "something was written to the other slot".into()
        })
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert!(run.world.served <= HEADER, "{} bytes", run.world.served);
    story.scenario.holds(3);
}

/// An update to a good version that needs half a minute to get well.
fn slow_start(name: &'static str) -> Story {
    let mut story = Story::new(name);
    story.command("bid-1", &Release::default());
    story.world().well_after = 30_000;
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    story
}

#[test]
fn power_cuts_in_the_first_boots_before_the_confirm_do_not_roll_a_good_image_back() {
    for times in 1..=6 {
        for after in [1, 2_000, 29_000] {
            let mut story = slow_start("cuts before the confirm");
            story.world().power_cuts = (2..2 + times).map(|boot| (boot, after)).collect();
            let run = story.scenario.play();
            if let Err(error) = run.verdict {
                panic!("{times} cuts, each after {after} ms: {error}");
            }
            assert_eq!(run.world.boots, times + 2, "each cut was one");
        }
    }
}

#[test]
fn a_version_under_which_power_goes_in_every_boot_falls_back_in_the_end() {
    let mut story = slow_start("cuts in every boot");
    let boots = MAX_REARMS + u32::from(TRIES);
    story.world().power_cuts = (2..2 + boots).map(|boot| (boot, 5_000)).collect();
    story.scenario.promises = |world, _| ended(world, &[("failed", 312_028)], 0, OLD);
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!(run.world.boots, 1 + boots + 1);
}

/// Plays the story, and cuts the power before the `nth` disk operation of each of these boots.
fn cut_in_boots(
    scenario: &Scenario,
    boots: std::ops::Range<u32>,
    nth: usize,
    loss: Loss,
) -> Result<World, String> {
    let (mut image, mut world): (Image, World) = (scenario.image.clone(), scenario.world.clone());
    for boot in boots {
        let (run, notes) = scenario.record_from(image, world, Controls::default());
        run.verdict?;
        let in_boot = notes.iter().enumerate().filter(|(_, w)| w.boots == boot);
        let Some((cut, at)) = in_boot.map(|(cut, at)| (cut, at.clone())).nth(nth) else {
            return Ok(run.world);
        };
        (image, world) = (run.disk.record().image_after(cut, loss), at);
    }
    let run = scenario.run(SimDisk::from_image(image), world);
    run.verdict.map(|()| run.world)
}

#[test]
fn d15_power_cuts_at_the_same_disk_operation_of_three_boots_in_a_row_do_not_roll_a_good_image_back()
{
    let mut story = Story::new("three cuts");
    story.command("bid-1", &Release::default());
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    for loss in [Loss::AllDropped, Loss::AllKept] {
        let mut failed = Vec::new();
        for nth in 0.. {
            match cut_in_boots(&story.scenario, 2..5, nth, loss) {
                Ok(world) if world.boots == 2 => break,
                Ok(_) => {}
                Err(error) => failed.push((nth, error)),
            }
        }
        assert!(failed.is_empty(), "{loss:?}: {failed:#?}");
    }
}

#[test]
fn an_update_survives_power_cuts_at_the_same_disk_operation_of_five_boots_in_a_row() {
    let mut story = Story::new("five cuts");
    story.command("bid-1", &Release::default());
    story.world().cuts = vec![20_000];
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    for nth in (0..250).step_by(6) {
        if let Err(error) = cut_in_boots(&story.scenario, 1..6, nth, Loss::AllDropped) {
            panic!("operation {nth} of each boot: {error}");
        }
    }
}

#[test]
fn an_update_survives_a_second_power_cut_while_it_recovers_from_the_first() {
    let mut story = Story::new("two cuts");
    story.command("bid-1", &Release::default());
    story.world().cuts = vec![20_000];
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    story.scenario.holds_over_two_cuts(11, 13);
}

#[test]
fn a_rollback_survives_a_second_power_cut_while_it_recovers_from_the_first() {
    let mut story = Story::new("two cuts, rolled back");
    story.command("bid-1", &dead());
    story.scenario.promises = |world, _| ended(world, &[("failed", 312_028)], 0, OLD);
    story.scenario.holds_over_two_cuts(13, 11);
}

#[test]
fn an_image_in_which_the_agent_never_comes_up_falls_back_whenever_power_is_cut() {
    let mut story = Story::new("no agent");
    let mute = Release {
        boot: Boot::NoAgent,
        ..Release::default()
    };
    story.command("bid-1", &mute);
    story.scenario.promises = |world, _| ended(world, &[("failed", 312_028)], 0, OLD);
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!(run.world.failed_boots, u32::from(TRIES));
    story.scenario.holds(2);
}
