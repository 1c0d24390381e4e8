//! What an update has used up of its budget stays used up: neither a reboot nor an agent that is started again gives a job its attempts
//! or its time back, or a device on a bad line would fetch for ever. (DESIGN §5, §6; issue 8, "attempts counted and bounded".)
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use otahost_e2e::sim::{NEW, OLD, Release, Story, ended, jobs};

/// Attempts in a row without progress that the stories' set-up allows.
const ATTEMPTS: usize = 5;

fn commanded(name: &'static str) -> Story {
    let mut story = Story::new(name);
    story.command("bid-1", &Release::default());
    story
}

#[test]
fn attempts_that_failed_before_power_was_cut_count_afterwards() {
    let mut story = commanded("attempts over boots");
    story.world().statuses = vec![503; 100];
    // Between two attempts: the pauses between them are up to eight seconds.
    story.world().power_cuts = (1..=6).map(|boot| (boot, 3_000)).collect();
    story.scenario.promises = |world, _| ended(world, &[("failed", 312_013)], 0, OLD);
    let run = story.scenario.play();
    run.verdict.unwrap();
    let asked = &run.world.requests;
    assert_eq!(asked.len(), ATTEMPTS, "{asked:?}");
    assert!(
        asked[0] < 3_000 && asked[ATTEMPTS - 1] >= 3_000,
        "{asked:?}"
    );
    let [job] = jobs(&run.disk).try_into().unwrap();
    assert_eq!(job.attempts as usize, ATTEMPTS);
}

#[test]
fn attempts_that_come_no_further_end_also_where_power_goes_after_each_of_them() {
    let mut story = commanded("no further in any boot");
    // The line breaks at the same byte each time, and what came after the last mark is fetched again in each boot.
    story.world().cuts = vec![20_000; 100];
    story.world().power_cuts = (1..=15).map(|boot| (boot, 2_500)).collect();
    story.scenario.promises = |world, _| ended(world, &[("failed", 312_013)], 0, OLD);
    let run = story.scenario.play();
    run.verdict.unwrap();
    let asked = run.world.requests.len();
    assert!(
        asked <= 2 * ATTEMPTS,
        "{asked} requests: {:?}",
        run.world.requests
    );
}

#[test]
fn the_time_of_a_download_goes_on_over_boots_and_ends_as_timeout_once() {
    let mut story = commanded("time over boots");
    story.setup().deadlines.download = Duration::from_secs(600);
    story.setup().transfer.attempts = 10_000;
    story.world().statuses = vec![503; 10_000];
    story.world().power_cuts = (1..18).map(|boot| (boot, 120_000)).collect();
    story.scenario.promises = |world, _| ended(world, &[("timeout", 312_013)], 0, OLD);
    let run = story.scenario.play();
    run.verdict.unwrap();
    // Ten minutes are five such boots; what of a boot was not noted before its end comes on top.
    assert!(
        (5..=8).contains(&run.world.boots),
        "{} boots",
        run.world.boots
    );
}

#[test]
fn a_reboot_in_mid_download_costs_no_attempt_that_made_progress() {
    let mut story = commanded("progress over boots");
    story.world().cuts = (1..=9).map(|n| n * 4_096 + 1_000).collect();
    story.world().power_cuts = vec![(1, 2_000), (2, 4_000)];
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    let run = story.scenario.play();
    run.verdict.unwrap();
}
