//! A disk operation that fails ends the engine or the step it was for; the engine comes again from the journal, in the same boot, and the
//! update still ends, once (DESIGN §6).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::ErrorKind;

use otahost_core::model::Phase;
use otahost_disk::sim::{Controls, Op, SimDisk};
use otahost_e2e::sim::{
    Boot, DOCK_SN, DRONE_SN, NEW, OLD, Release, Run, Scenario, Story, World, check, ended, jobs,
};

/// Plays the story with one operation that fails, for every `stride`-th of them.
fn fail_everywhere(scenario: &Scenario, stride: usize) -> Vec<(usize, Run)> {
    let (run, _) = scenario.record(Controls::default());
    run.verdict.unwrap();
    let log = run.disk.log();
    let own = log.iter().filter(|op| !matches!(op, Op::Outside { .. }));
    let count = own.count();
    let failing = (0..count).step_by(stride).map(|nth| {
        let disk = SimDisk::from_image(scenario.image.clone());
        disk.fail_after(nth, ErrorKind::Other);
        (nth, scenario.run(disk, scenario.world.clone()))
    });
    failing.collect()
}

/// An update whose end is told once, whatever it is, and is true.
fn ended_once(world: &World) -> Result<(), String> {
    let outcomes: Vec<_> = world.endings.iter().map(|e| e.status.as_str()).collect();
    match outcomes.as_slice() {
        ["ok"] => ended(world, &[("ok", 0)], 1, NEW),
        ["failed"] => {
            let result = world.endings[0].result;
            ended(world, &[("failed", result)], 0, OLD)
        }
        other => Err(format!("told {other:?}")),
    }
}

#[test]
fn a_disk_operation_that_fails_in_any_phase_costs_a_new_start_at_most_and_the_end_is_told_once() {
    let mut story = Story::new("one failure");
    story.command("bid-1", &Release::default());
    story.world().cuts = vec![20_000];
    story.world().ready_after = 15_000;
    story.world().well_after = 10_000;
    story.scenario.promises = |world, disk| {
        ended_once(world)?;
        check(world.answers().len() == 1, || {
            format!("{:?}", world.answers())
        })?;
        check(jobs(disk).len() == 1, || "not one job".into())
    };
    for (nth, run) in fail_everywhere(&story.scenario, 1) {
        if let Err(error) = &run.verdict {
            panic!("operation {nth} fails: {error}");
        }
        let [job] = jobs(&run.disk).try_into().unwrap();
        assert_eq!(
            (job.phase, job.reason),
            (Phase::Succeeded, None),
            "operation {nth} fails"
        );
    }
}

#[test]
fn a_rollback_is_carried_out_and_told_once_when_a_disk_operation_fails_in_any_phase() {
    let mut story = Story::new("one failure, rolled back");
    let dead = Release {
        boot: Boot::Dead,
        ..Release::default()
    };
    story.command("bid-1", &dead);
    story.scenario.promises = |world, _| ended_once(world);
    for (nth, run) in fail_everywhere(&story.scenario, 2) {
        if let Err(error) = &run.verdict {
            panic!("operation {nth} fails: {error}");
        }
    }
}

#[test]
fn two_devices_end_alike_or_it_is_said_when_a_disk_operation_fails_in_any_phase() {
    let mut story = Story::new("one failure, two devices");
    let drone = Release {
        compatible: "drone",
        ..Release::default()
    };
    let order = story.order("bid-1", &[(DOCK_SN, Release::default()), (DRONE_SN, drone)]);
    story.world().inbox.push(order);
    story.scenario.promises = |world, _| {
        let drone = world.drone.version();
        check(world.drone.activations <= 1, || {
            format!("{:?}", world.drone)
        })?;
        match world.endings.as_slice() {
            [ending] if ending.status == "ok" => {
                ended(world, &[("ok", 0)], 1, NEW)?;
                check(drone == NEW, || format!("the drone runs {drone}"))
            }
            [ending] => ended(world, &[("failed", ending.result)], 0, OLD),
            other => Err(format!("told {other:?}")),
        }
    };
    for (nth, run) in fail_everywhere(&story.scenario, 2) {
        if let Err(error) = &run.verdict {
            panic!("operation {nth} fails: {error}");
        }
    }
}
