//! Withnox whole, with the real adapter: tokens that expire and rotate, a transfer that is cut and resumed, the reboot, the report. Power
//! is cut at every disk operation (issue 6, R04 to R17 as one).
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_core::model::Phase;
use otahost_disk::sim::{Controls, Loss};
use otahost_e2e::sim::scenarios::withnox::{camera, neighbours, release};
use otahost_e2e::sim::{Boot, Broken, LOSSES, OLD, Sink, Story, World, check, jobs};

#[test]
fn undisturbed_the_account_signs_in_once_and_every_byte_is_fetched_once() {
    let run = camera("undisturbed").scenario.play();
    run.verdict.unwrap();
    let (world, api) = (&run.world, &run.world.api);
    assert_eq!((api.sign_ins, world.reboots, world.boots), (1, 1, 2));
    assert!(api.refreshes >= 2, "{} refreshes", api.refreshes);
    assert_eq!(world.served, world.offered());
    assert_eq!((&api.reports[..], jobs(&run.disk).len()), (&[7][..], 1));
}

#[test]
fn a_camera_is_updated_once_and_says_so_whenever_power_is_cut() {
    let story = camera("withnox");
    let found = story
        .scenario
        .cut_everywhere(Controls::default(), &LOSSES, 1);
    found.assert_none(story.scenario.name);
}

#[test]
fn a_second_cut_while_the_first_is_recovered_from_costs_a_sign_in_at_most() {
    let story = camera("withnox, two cuts");
    story.scenario.holds_over_two_cuts(41, 29);
}

#[test]
fn a_neighbour_on_the_link_waits_for_new_tokens_until_they_are_durable_whenever_power_is_cut() {
    let story = neighbours("withnox, two adapters");
    let losses = [Loss::AllDropped, Loss::Seeded(1)];
    let found = story
        .scenario
        .cut_everywhere(Controls::default(), &losses, 2);
    found.assert_none(story.scenario.name);
}

#[test]
fn a_token_that_is_used_before_it_is_durable_is_found_so_the_search_can_fail() {
    let mut story = neighbours("withnox, negative control");
    story.scenario.broken = Broken::SecretWait;
    let found = story
        .scenario
        .cut_everywhere(Controls::default(), &[Loss::AllDropped], 1);
    println!("{} of {} runs failed", found.failures.len(), found.runs);
    let early = "was used before it was durable";
    assert!(found.failures.iter().any(|f| f.contains(early)));
}

#[test]
fn r14_a_report_that_fails_twice_is_told_until_it_is_taken_whenever_power_is_cut() {
    let mut story = camera("withnox, the report fails");
    story.world().api.report_failures = 2;
    let run = story.scenario.play();
    run.verdict.unwrap();
    let told = "/api/v1/addnox/firmware/update-result/4/7/9";
    assert!(run.world.api.count(told) >= 3);
    assert_eq!(run.world.api.reports, [7], "taken once, and told no more");
    story.scenario.holds(5);
}

#[test]
fn a_firmware_that_rolls_back_is_not_told_of_and_not_taken_again_whenever_power_is_cut() {
    let mut story = Story::withnox("withnox, rolled back", &release(Boot::Dead));
    story.world().sinks = vec![Sink::new("s")];
    fn shelved(world: &World) -> bool {
        world
            .rung
            .iter()
            .any(|r| r.taken && r.code == "not-again-7")
    }
    // Several polls later.
    story.scenario.told = |world| {
        shelved(world)
            && world.api.count("/api/v1/addnox/firmware/latest/4/9") >= 4
            && world.past > 24 * 3_600_000
    };
    story.scenario.promises = |world, disk| {
        check((world.slot, world.version.as_str()) == (0, OLD), || {
            format!("{} runs in slot {}", world.version, world.slot)
        })?;
        check(world.api.reports.is_empty(), || {
            format!("reported {:?}", world.api.reports)
        })?;
        let phases: Vec<Phase> = jobs(disk).iter().map(|job| job.phase).collect();
        check(phases == [Phase::RolledBack], || format!("{phases:?}"))
    };
    story.scenario.holds(5);
}
