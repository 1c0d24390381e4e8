//! Power may go at any disk operation of an update: nothing is lost, no bad slot boots, and the result is said once.
//! (D02, D15; DESIGN §10, last row.)
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_disk::sim::{Controls, Loss};
use otahost_e2e::sim::{Boot, Scenario, dock};

const LOSSES: [Loss; 4] = [
    Loss::AllDropped,
    Loss::AllKept,
    Loss::Seeded(1),
    Loss::Seeded(2),
];

fn holds(scenario: &Scenario) {
    let found = scenario.cut_everywhere(Controls::default(), &LOSSES, 1);
    println!(
        "{}: {} operations, {} disks, {} runs",
        scenario.name, found.operations, found.images, found.runs
    );
    let shown: Vec<&String> = found.failures.iter().take(5).collect();
    assert!(
        found.failures.is_empty(),
        "{} of {} runs failed, such as {shown:#?}",
        found.failures.len(),
        found.runs
    );
}

#[test]
fn an_update_with_a_cut_download_survives_a_power_cut_at_every_disk_operation() {
    holds(&dock("update with resume", Boot::Up, &[20_000]));
}

#[test]
fn an_update_that_rolls_back_survives_a_power_cut_at_every_disk_operation() {
    holds(&dock("update that rolls back", Boot::Dead, &[]));
}

#[test]
fn an_undisturbed_update_reboots_once_and_fetches_every_byte_once() {
    let scenario = dock("undisturbed", Boot::Up, &[]);
    let (run, _) = scenario.record(Controls::default());
    run.verdict.unwrap();
    let file: usize = run.world.files.values().map(|file| file.len()).sum();
    assert_eq!(
        (run.world.reboots, run.world.boots, run.world.served),
        (1, 2, file as u64)
    );
}

#[test]
fn leaving_out_every_sync_is_found_so_the_search_can_fail() {
    let scenario = dock("negative control: no sync", Boot::Up, &[]);
    let controls = Controls {
        skip_file_sync: true,
        ..Controls::default()
    };
    let found = scenario.cut_everywhere(controls, &[Loss::AllDropped], 5);
    println!(
        "{}: {} of {} runs failed, such as {:?}",
        scenario.name,
        found.failures.len(),
        found.runs,
        found.failures.first()
    );
    assert!(
        !found.failures.is_empty(),
        "without any sync {} runs found nothing",
        found.runs
    );
}
