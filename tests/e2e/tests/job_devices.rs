//! Several devices in one job: all are verified before any is activated, the device's own is last, and a mixed outcome is told once
//! (DESIGN §6).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use otahost_core::model::Phase;
use otahost_disk::sim::SimDisk;
use otahost_e2e::sim::scenarios::dock::{dock_and_drone, drone_runs, each, only_job};
use otahost_e2e::sim::{Boot, Manner, NEW, OLD, Release, check, ended};

fn outcome(disk: &SimDisk, phase: Phase, drone: Phase, dock: Phase) -> Result<(), String> {
    let job = only_job(disk)?;
    let expected = [("drone".to_owned(), drone), ("dock".to_owned(), dock)];
    check(job.phase == phase && each(disk)? == expected, || {
        format!("{} with {:?}", job.phase, each(disk))
    })
}

#[test]
fn dock_and_drone_are_verified_then_the_drone_then_the_dock_and_one_ok_is_told_whenever_power_is_cut()
 {
    let mut story = dock_and_drone("both", Manner::Takes, Release::default());
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        drone_runs(world, NEW, 1)?;
        check(world.drone.confirmed, || format!("{:?}", world.drone))?;
        outcome(disk, Phase::Succeeded, Phase::Succeeded, Phase::Succeeded)
    };
    story.scenario.holds(2);
    story.scenario.holds_over_two_cuts(31, 23);
}

#[test]
fn a_drone_that_takes_its_version_and_a_dock_that_falls_back_are_partial_and_failed_is_told_once_whenever_power_is_cut()
 {
    let dead = Release {
        boot: Boot::Dead,
        ..Release::default()
    };
    let mut story = dock_and_drone("partial", Manner::Takes, dead);
    story.scenario.promises = |world, disk| {
        ended(world, &[("failed", 312_013)], 0, OLD)?;
        drone_runs(world, NEW, 1)?;
        outcome(disk, Phase::Partial, Phase::Succeeded, Phase::RolledBack)
    };
    story.scenario.holds(2);
}

#[test]
fn a_drone_that_refuses_leaves_the_dock_as_it_is_whenever_power_is_cut() {
    let mut story = dock_and_drone("refuses", Manner::Refuses, Release::default());
    story.scenario.promises = |world, disk| {
        ended(world, &[("failed", 312_013)], 0, OLD)?;
        drone_runs(world, OLD, 0)?;
        check(world.reboots == 0, || "the dock was rebooted".into())?;
        outcome(disk, Phase::Failed, Phase::Failed, Phase::Failed)
    };
    story.scenario.holds(3);
}

#[test]
fn a_drone_that_reports_the_old_version_is_taken_back_and_the_dock_left_as_it_is_whenever_power_is_cut()
 {
    let mut story = dock_and_drone("stays old", Manner::StaysOld, Release::default());
    story.scenario.promises = |world, disk| {
        ended(world, &[("failed", 312_017)], 0, OLD)?;
        check(world.drone.runs.is_none() && world.reboots == 0, || {
            format!("{:?}, {} reboots", world.drone, world.reboots)
        })?;
        outcome(disk, Phase::RolledBack, Phase::RolledBack, Phase::Failed)
    };
    story.scenario.holds(3);
}

#[test]
fn a_drone_that_is_never_well_is_taken_back_when_its_time_is_up_whenever_power_is_cut() {
    let mut story = dock_and_drone("falls ill", Manner::FallsIll, Release::default());
    story.setup().targets[1].confirm_within = Duration::from_secs(60);
    story.scenario.promises = |world, disk| {
        ended(world, &[("failed", 312_017)], 0, OLD)?;
        check(world.drone.runs.is_none() && world.reboots == 0, || {
            format!("{:?}, {} reboots", world.drone, world.reboots)
        })?;
        outcome(disk, Phase::RolledBack, Phase::RolledBack, Phase::Failed)
    };
    story.scenario.holds(7);
}

#[test]
fn where_one_file_is_refused_no_device_is_activated_whenever_power_is_cut() {
    let wrong = Release {
        compatible: "ark",
        ..Release::default()
    };
    let mut story = dock_and_drone("one file is wrong", Manner::Takes, wrong);
    story.scenario.promises = |world, disk| {
        ended(world, &[("failed", 312_003)], 0, OLD)?;
        drone_runs(world, OLD, 0)?;
        outcome(disk, Phase::Failed, Phase::Failed, Phase::Failed)
    };
    story.scenario.holds(7);
}

#[test]
fn two_devices_are_not_activated_before_both_may_be() {
    let mut story = dock_and_drone("not ready", Manner::Takes, Release::default());
    // The drone is asked first: it is ready before the dock is, and falls out of readiness again.
    story.world().ready_answers = vec![true, false, true, true, true, false, true, true];
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        drone_runs(world, NEW, 1)?;
        let job = only_job(disk)?;
        let waits = job
            .history
            .iter()
            .filter(|line| line.phase == Phase::Waiting);
        check(waits.count() >= 2, || format!("{:#?}", job.history))
    };
    story.scenario.play().verdict.unwrap();
}
