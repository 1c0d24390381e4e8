//! Readiness and policy: a device that is not ready is not rebooted, and the operator says when which updates may happen
//! (DESIGN §6).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use otahost_core::model::Phase;
use otahost_core::policy::{Downgrade, Outside};
use otahost_e2e::sim::{
    Boot, EPOCH, NEW, OLD, Release, Story, When, check, ended, history, is_told, jobs, rogue_output,
};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

/// A dock whose cloud has just commanded an update that would go well.
fn commanded(name: &'static str) -> Story {
    let mut story = Story::new(name);
    story.command("bid-1", &Release::default());
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    story
}

#[test]
fn a_device_that_is_not_ready_waits_and_is_not_rebooted_whenever_power_is_cut() {
    let mut story = commanded("not ready");
    story.world().ready_after = 60 * SECOND;
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        let waits = history(disk, "not ready")?;
        let switches = history(disk, "switching")?;
        check(
            waits.phase == Phase::Waiting && switches.at >= EPOCH + 60 * SECOND,
            || format!("{waits:?}, {switches:?}"),
        )
    };
    story.scenario.holds(3);
}

#[test]
fn a_device_that_stops_being_ready_after_the_read_back_is_not_rebooted_whenever_power_is_cut() {
    let mut story = commanded("no longer ready");
    story.world().ready_answers = vec![true, false, false, false];
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        history(disk, "not ready").map(drop)
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    let [job] = jobs(&run.disk).try_into().unwrap();
    let phases: Vec<Phase> = job.history.iter().map(|line| line.phase).collect();
    let waits = phases.iter().position(|p| *p == Phase::Waiting).unwrap();
    assert!(
        phases[..waits].contains(&Phase::Installing),
        "it waits behind the read-back: {phases:?}"
    );
    story.scenario.holds(3);
}

#[test]
fn a_job_that_waits_for_readiness_is_reported_as_waiting() {
    let mut story = commanded("reported as waiting");
    story.add_rogue();
    story.world().ready_after = 60 * SECOND;
    let run = story.scenario.play();
    run.verdict.unwrap();
    let [job] = jobs(&run.disk).try_into().unwrap();
    let reports: Vec<String> = rogue_output(&run.world)
        .iter()
        .filter_map(|line| line.strip_prefix(&format!("job {} ", job.plan.key)))
        .map(str::to_owned)
        .collect();
    let at = |phase: &str| reports.iter().position(|r| r == phase);
    assert!(
        at("waiting").unwrap() < at("activating").unwrap(),
        "{reports:?}"
    );
}

#[test]
fn a_device_that_never_gets_ready_keeps_its_version_and_the_update_ends_as_timeout() {
    let mut story = commanded("never ready");
    story.world().ready_after = u64::MAX;
    story.setup().deadlines.waiting = Duration::from_secs(1_800);
    story.scenario.promises = |world, _| {
        ended(world, &[("timeout", 312_013)], 0, OLD)?;
        check(world.reboots == 0, || "it was rebooted".into())
    };
    story.scenario.holds(11);
}

#[test]
fn a_device_that_loses_power_every_half_hour_runs_out_of_time_all_the_same() {
    let mut story = commanded("never ready, and power cuts");
    story.world().ready_after = u64::MAX;
    story.world().power_cuts = (1..15).map(|boot| (boot, 1_800_000)).collect();
    story.setup().deadlines.waiting = Duration::from_secs(2 * 3_600);
    story.scenario.patience = Duration::from_secs(3 * 3_600);
    story.scenario.promises = |world, _| ended(world, &[("timeout", 312_013)], 0, OLD);
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert!(run.world.boots <= 8, "{} boots", run.world.boots);
}

#[test]
fn a_job_that_waits_for_hours_writes_next_to_nothing() {
    let writes = |hours: u64| {
        let mut story = commanded("long wait");
        story.world().ready_after = hours * HOUR;
        story.scenario.patience = Duration::from_secs(24 * 3_600);
        let run = story.scenario.play();
        run.verdict.unwrap();
        run.disk.operations()
    };
    let (short, long) = (writes(1), writes(11));
    let an_hour = (long - short) / 10;
    assert!(an_hour <= 60, "{an_hour} disk operations an hour");
}

#[test]
fn while_a_lock_file_is_there_nothing_is_fetched_whenever_power_is_cut() {
    let mut story = commanded("locked");
    story.world().locked = (0, 60 * SECOND);
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        history(disk, "/run/no-update")?;
        check(world.requests[0] >= 60 * SECOND, || {
            format!("asked for the file at {:?}", world.requests)
        })
    };
    story.scenario.holds(11);
}

#[test]
fn a_lock_file_that_appears_during_the_download_holds_the_activation_up() {
    let mut story = commanded("locked in mid-download");
    story.world().locked = (2 * SECOND, 60 * SECOND);
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        let waits = history(disk, "/run/no-update")?;
        let switches = history(disk, "switching")?;
        check(
            world.requests[0] < SECOND
                && waits.at < EPOCH + 60 * SECOND
                && switches.at >= EPOCH + 60 * SECOND,
            || format!("{waits:?}, {switches:?}"),
        )
    };
    story.scenario.play().verdict.unwrap();
}

#[test]
fn outside_the_maintenance_windows_nothing_is_fetched_until_one_opens() {
    let mut story = commanded("window");
    story.target().policy.windows = vec!["mon 02:00-04:00".parse().unwrap()];
    story.scenario.patience = Duration::from_secs(4 * 3_600);
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        let waits = history(disk, "maintenance windows")?;
        check(
            waits.phase == Phase::Waiting && (2 * HOUR..4 * HOUR).contains(&world.requests[0]),
            || format!("{waits:?}, asked for the file at {:?}", world.requests),
        )
    };
    story.scenario.holds(37);
}

#[test]
fn a_window_that_closes_during_the_download_holds_the_activation_up_until_the_next_opens() {
    let mut story = commanded("window closes");
    story.world().past = 58 * SECOND;
    let windows = ["mon 00:00-00:01", "mon 03:00-04:00"];
    story.target().policy.windows = windows.map(|w| w.parse().unwrap()).into();
    story.scenario.patience = Duration::from_secs(5 * 3_600);
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        let switches = history(disk, "switching")?;
        check(
            world.requests[0] < 60 * SECOND && switches.at >= EPOCH + 3 * HOUR,
            || format!("{switches:?}"),
        )
    };
    story.scenario.holds(37);
}

#[test]
fn where_requests_outside_the_windows_are_refused_the_command_is_rejected_and_nothing_is_fetched() {
    let mut story = commanded("window, refuse");
    let policy = &mut story.target().policy;
    policy.windows = vec!["mon 02:00-04:00".parse().unwrap()];
    policy.outside = Outside::Refuse;
    refused_at_once(story, 312_015);
}

#[test]
fn a_downgrade_is_refused_with_312017_and_nothing_is_fetched() {
    let mut story = Story::new("downgrade");
    story.target().policy.downgrade = Downgrade::Refuse;
    let older = Release {
        version: "0.9.9",
        ..Release::default()
    };
    story.command("bid-1", &older);
    refused_at_once(story, 312_017);
}

/// The command gets this number; nothing else happens.
fn refused_at_once(mut story: Story, result: i64) {
    story.scenario.told = is_told::<0>;
    story.scenario.promises = |world, _| ended(world, &[], 0, OLD);
    let run = story.scenario.play();
    run.verdict.unwrap();
    let answers = run.world.answers();
    let said: Vec<_> = answers.iter().map(|a| (&*a.status, a.result)).collect();
    assert_eq!(said, [("rejected", result)]);
    assert!(run.world.requests.is_empty());
    story.scenario.holds(11);
}

#[test]
fn a_downgrade_that_is_announced_as_an_upgrade_is_refused_before_its_payload_is_fetched() {
    let mut story = Story::new("downgrade in disguise");
    story.target().policy.downgrade = Downgrade::Refuse;
    let older = Release {
        version: "0.9.9",
        announced: Some(NEW),
        ..Release::default()
    };
    story.command("bid-1", &older);
    story.scenario.promises = |world, _| {
        ended(world, &[("failed", 312_017)], 0, OLD)?;
        check(world.reboots == 0, || "it was rebooted".into())
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert!(run.world.served <= 8 * 1024, "{} bytes", run.world.served);
    story.scenario.holds(11);
}

#[test]
fn after_as_many_activations_as_a_day_allows_the_next_waits_for_the_next_day() {
    let mut story = commanded("too many activations");
    story.target().policy.max_activations_per_day = 1;
    story.setup().deadlines.waiting = Duration::from_secs(48 * 3_600);
    let next = Release {
        version: "1.3.0",
        ..Release::default()
    };
    story.command_later(When::Results(1), "bid-2", &next);
    story.scenario.patience = Duration::from_secs(26 * 3_600);
    story.scenario.told = is_told::<2>;
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0), ("ok", 0)], 0, "1.3.0")?;
        let waits = history(disk, "within a day")?;
        let switches = history(disk, "switching")?;
        check(
            waits.phase == Phase::Waiting && switches.at >= EPOCH + 24 * HOUR,
            || format!("{waits:?}, {switches:?}"),
        )
    };
    story.scenario.play().verdict.unwrap();
}

#[test]
fn an_activation_that_was_rolled_back_counts_too() {
    let mut story = Story::new("too many activations, rolled back");
    story.target().policy.max_activations_per_day = 1;
    story.setup().deadlines.waiting = Duration::from_secs(600);
    let dead = Release {
        version: "1.1.0",
        boot: Boot::Dead,
        ..Release::default()
    };
    story.command("bid-1", &dead);
    story.command_later(When::Results(1), "bid-2", &Release::default());
    story.scenario.told = is_told::<2>;
    story.scenario.promises =
        |world, _| ended(world, &[("failed", 312_028), ("timeout", 312_013)], 0, OLD);
    story.scenario.holds(37);
}
