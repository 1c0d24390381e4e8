//! Time: a wall clock that is in 1970 after a boot, or jumps by fifty years or an hour at any moment of an update, changes nothing about
//! how it ends, and nothing waits for ever (DESIGN §6).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use otahost_e2e::sim::{
    Boot, NEW, OLD, Release, Story, WallClock, When, check, ended, is_told, rogue_output,
};

const SECOND: u64 = 1_000;
const HOUR: i64 = 3_600_000;
const FIFTY_YEARS: i64 = 50 * 365 * 24 * HOUR;

/// What a clock may do at a moment of the story.
fn clocks(at: u64) -> Vec<(&'static str, WallClock)> {
    let steps = |steps: &[(u64, i64)]| WallClock {
        set_after: None,
        steps: steps.to_vec(),
    };
    vec![
        (
            "1970 until the network sets it",
            WallClock {
                set_after: Some(at),
                steps: vec![],
            },
        ),
        ("fifty years forward", steps(&[(at, FIFTY_YEARS)])),
        ("fifty years back", steps(&[(0, FIFTY_YEARS), (at, 0)])),
        ("an hour back", steps(&[(at, -HOUR)])),
        ("an hour forward", steps(&[(at, HOUR)])),
        (
            "fifty years forward and back",
            steps(&[(at, FIFTY_YEARS), (at + 2 * SECOND, 0)]),
        ),
    ]
}

/// Plays the story with every clock, jumping at every so many milliseconds up to the end of the story.
fn with_every_clock(story: &mut Story, every: u64, longest: u64) {
    let played = story.scenario.play();
    played.verdict.unwrap();
    let end = played.world.past;
    let mut never = WallClock {
        set_after: Some(u64::MAX),
        steps: vec![],
    };
    for (name, clock) in (0..end / every)
        .flat_map(|n| clocks(n * every))
        .chain([("1970 for ever", std::mem::take(&mut never))])
    {
        story.world().clock = clock.clone();
        let run = story.scenario.play();
        if let Err(error) = run.verdict {
            panic!("{name}, {clock:?}: {error}");
        }
        assert!(
            run.world.past <= longest,
            "{name}, {clock:?}: it took {} ms",
            run.world.past
        );
    }
}

#[test]
fn an_update_ends_well_whatever_the_wall_clock_does_in_any_phase() {
    let mut story = Story::new("clock");
    story.command("bid-1", &Release::default());
    story.world().cuts = vec![20_000];
    story.world().ready_after = 15 * SECOND;
    story.world().well_after = 10 * SECOND;
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    with_every_clock(&mut story, 1_500, 150 * SECOND);
}

#[test]
fn a_timer_fires_once_whatever_the_wall_clock_does() {
    let mut story = Story::new("clock, timer");
    story.add_rogue();
    story.tell_rogue(When::At(0), "timer once 20000");
    story.scenario.told = |world| is_told::<0>(world) && rogue_output(world).len() > 1;
    story.scenario.promises = |world, _| {
        let heard = rogue_output(world);
        check(heard == ["started installed", "timer once"], || {
            format!("{heard:?}")
        })
    };
    with_every_clock(&mut story, 2 * SECOND, 70 * SECOND);
}

#[test]
fn without_a_battery_an_update_ends_well_whenever_power_is_cut() {
    let mut story = Story::new("no battery");
    story.command("bid-1", &Release::default());
    story.world().clock.set_after = Some(1_500);
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    story.scenario.holds(5);
}

#[test]
fn an_update_rolls_back_whatever_the_wall_clock_does() {
    let mut story = Story::new("clock, rolled back");
    let dead = Release {
        boot: Boot::Dead,
        ..Release::default()
    };
    story.command("bid-1", &dead);
    story.scenario.promises = |world, _| ended(world, &[("failed", 312_028)], 0, OLD);
    with_every_clock(&mut story, SECOND, 150 * SECOND);
}

#[test]
fn a_version_that_never_gets_well_is_rolled_back_in_its_time_whatever_the_wall_clock_does() {
    let mut story = Story::new("clock, never well");
    story.command("bid-1", &Release::default());
    story.target().confirm_within = Duration::from_secs(30);
    story.world().well_after = u64::MAX;
    story.scenario.promises = |world, _| ended(world, &[("failed", 312_017)], 0, OLD);
    with_every_clock(&mut story, 2 * SECOND, 200 * SECOND);
}

#[test]
fn a_download_times_out_in_its_time_whatever_the_wall_clock_does() {
    let mut story = Story::new("clock, deadline");
    story.command("bid-1", &Release::default());
    story.setup().deadlines.download = Duration::from_secs(30);
    story.setup().transfer.attempts = 1_000;
    story.world().statuses = vec![503; 1_000];
    story.scenario.promises = |world, _| ended(world, &[("timeout", 312_013)], 0, OLD);
    with_every_clock(&mut story, 2 * SECOND, 150 * SECOND);
}

/// An update within a maintenance window that is open every day from two to four.
fn at_night(name: &'static str) -> Story {
    let mut story = Story::new(name);
    story.command("bid-1", &Release::default());
    story.target().policy.windows = vec!["02:00-04:00".parse().unwrap()];
    story.setup().deadlines.waiting = Duration::from_secs(48 * 3_600);
    story.scenario.patience = Duration::from_secs(50 * 3_600);
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    story
}

#[test]
fn with_windows_a_clock_that_is_not_set_is_waited_for_and_then_the_window() {
    let mut story = at_night("clock, window");
    let set = 3 * HOUR as u64;
    story.world().clock.set_after = Some(set);
    story.scenario.promises = |world, _| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        // Both boots wait for the clock; the network takes its time in each.
        check(world.requests[0] >= 3 * HOUR as u64, || {
            format!("asked for the file at {:?}", world.requests)
        })
    };
    story.scenario.play().verdict.unwrap();
}

#[test]
fn a_clock_that_jumps_while_a_window_is_waited_for_costs_at_most_a_day() {
    for at in [
        0,
        30 * 60,
        90 * 60,
        2 * 3_600 - 1,
        2 * 3_600 + 1,
        2 * 3_600 + 3,
    ] {
        for (name, clock) in clocks(at * SECOND) {
            let mut story = at_night("clock jumps before the window");
            story.world().clock = clock.clone();
            let run = story.scenario.play();
            if let Err(error) = run.verdict {
                panic!("{name}, {clock:?}: {error}");
            }
            assert!(
                run.world.past <= 28 * HOUR as u64,
                "{name}, {clock:?}: it took {} ms",
                run.world.past
            );
        }
    }
}

#[test]
fn activations_of_fifty_years_ahead_do_not_count_for_fifty_years() {
    let mut story = Story::new("clock, activations");
    story.target().policy.max_activations_per_day = 1;
    story.command("bid-1", &Release::default());
    let next = Release {
        version: "1.3.0",
        ..Release::default()
    };
    story.command_later(When::At(600 * SECOND), "bid-2", &next);
    story.world().clock.steps = vec![(0, FIFTY_YEARS), (300 * SECOND, 0)];
    story.scenario.told = is_told::<2>;
    story.scenario.patience = Duration::from_secs(48 * 3_600);
    story.setup().deadlines.waiting = Duration::from_secs(48 * 3_600);
    story.scenario.promises = |world, _| ended(world, &[("ok", 0), ("ok", 0)], 0, "1.3.0");
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert!(run.world.past <= 25 * HOUR as u64, "{} ms", run.world.past);
}
