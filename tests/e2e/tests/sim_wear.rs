//! What the agent writes costs the flash its life: an update and an idle day stay within what DESIGN §10 allows.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use otahost_disk::Place;
use otahost_disk::sim::{Op, SimDisk};
use otahost_e2e::sim::{NEW, Release, Story, ended};

/// Bytes that an update may write.
const UPDATE: u64 = 50_000_000;

/// Bytes that a day may write on which nothing happens.
const IDLE_DAY: u64 = 20_000_000;

/// What was written into the agent's own files, and how often it was synced.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wear {
    bytes: u64,
    writes: u64,
    syncs: u64,
}

/// Of a run that began with an empty data directory.
fn wear(disk: &SimDisk) -> Wear {
    let mut own = BTreeSet::new();
    let mut wear = Wear::default();
    for op in disk.log() {
        match op {
            Op::Create {
                place: Place::Data(_),
                file,
            } => drop(own.insert(file)),
            Op::Write { file, bytes, .. } if own.contains(&file) => {
                wear.bytes += bytes.len() as u64;
                wear.writes += 1;
            }
            Op::SyncFile { file, .. } if own.contains(&file) => wear.syncs += 1,
            _ => {}
        }
    }
    wear
}

#[test]
fn an_update_with_a_download_that_is_cut_stays_within_its_budget() {
    let mut story = Story::new("an update");
    story.command("bid-1", &Release::default());
    story.world().cuts = vec![10_000, 20_000, 30_000];
    story.world().well_after = 60_000;
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    let run = story.scenario.play();
    run.verdict.unwrap();
    let wear = wear(&run.disk);
    println!(
        "an update: {:.1} MB in {} writes and {} syncs",
        wear.bytes as f64 / 1e6,
        wear.writes,
        wear.syncs
    );
    assert!(wear.bytes <= UPDATE, "{wear:?}");
}

#[test]
fn an_idle_day_of_four_adapters_with_telemetry_stays_within_its_budget() {
    let story = Story::idle("an idle day", Duration::from_secs(86_400));
    let run = story.scenario.play();
    run.verdict.unwrap();
    let wear = wear(&run.disk);
    println!(
        "an idle day: {:.1} MB in {} writes and {} syncs",
        wear.bytes as f64 / 1e6,
        wear.writes,
        wear.syncs
    );
    // It was a day on which something was said: telemetry every two seconds, to begin with.
    let world = &run.world;
    assert!(world.seeds > 43_000, "{} steps", world.seeds);
    assert!(
        world.web.bodies(200).len() > 1_400,
        "{:?}",
        world.web.bodies(504)
    );
    assert!(world.api.count("/api/v1/addnox/firmware/latest/4/9") >= 3);
    let topics: BTreeSet<&str> = world
        .received
        .iter()
        .map(|(topic, _)| topic.as_str())
        .collect();
    assert!(
        topics.iter().any(|topic| topic.ends_with("/state")),
        "{topics:?}"
    );
    assert_eq!(world.faults, Vec::<String>::new());
    assert!(wear.bytes <= IDLE_DAY, "{wear:?}");
}
