//! Another version of an adapter is taken while messages flow, and left again when it does not behave; nothing is lost and nothing is
//! handled twice, wherever power goes (DESIGN §7).
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_disk::sim::{Controls, Loss, SimDisk};
use otahost_e2e::sim::scenarios::adapters::{
    left, no_event_was_set_aside, outputs, rows, story, swapped,
};
use otahost_journal::Key;

fn version(disk: &SimDisk) -> String {
    let rows = rows(disk);
    let row = rows
        .iter()
        .find(|(key, _)| matches!(key, Key::Adapter(name) if name == "rogue"));
    let row: serde_json::Value = serde_json::from_slice(&row.unwrap().1).unwrap();
    row["version"].as_str().unwrap().to_owned()
}

#[test]
fn a_new_version_takes_over_between_two_messages_with_what_the_old_one_knew() {
    let scenario = story("a swap", &["count"; 6], 3);
    let run = scenario.play();
    run.verdict.as_ref().unwrap();
    let heard = &run.world.operator_heard;
    assert!(
        heard.len() == 1 && heard[0].starts_with("Taken"),
        "{heard:?}"
    );
    let counts: Vec<String> = outputs(&run.world)
        .into_iter()
        .filter(|t| t.parse::<u64>().is_ok())
        .collect();
    assert_eq!(counts, ["1", "2", "3", "1004", "1005", "1006"]);
    assert_eq!(version(&run.disk), "0.2.0");
}

#[test]
fn a_swap_loses_nothing_and_handles_nothing_twice_wherever_power_goes() {
    let scenario = swapped();
    let found = scenario.cut_everywhere(Controls::default(), &[Loss::AllDropped, Loss::AllKept], 1);
    found.assert_none(scenario.name);
}

#[test]
fn a_version_that_traps_where_the_old_one_does_not_is_left_and_its_message_is_handled() {
    let commands = ["count", "count", "count", "stumble", "count"];
    let run = story("a bad version", &commands, 2).play();
    run.verdict.as_ref().unwrap();
    let said: Vec<String> = outputs(&run.world)
        .into_iter()
        .filter(|t| !t.starts_with("started"))
        .collect();
    // The first release is back with the state it had.
    assert_eq!(said, ["1", "2", "1003", "steady", "3"]);
    assert_eq!(version(&run.disk), "0.1.0");
    no_event_was_set_aside(&run.disk).unwrap();
}

#[test]
fn what_both_versions_fail_at_is_the_messages_fault() {
    let run = story("a bad message", &["count", "count", "trap", "count"], 2).play();
    run.verdict.as_ref().unwrap();
    let counts: Vec<String> = outputs(&run.world)
        .into_iter()
        .filter(|t| t.parse::<u64>().is_ok())
        .collect();
    assert_eq!(counts, ["1", "2", "1003"]);
    assert_eq!(version(&run.disk), "0.2.0");
    assert!(
        no_event_was_set_aside(&run.disk).is_err(),
        "the message is kept"
    );
}

#[test]
fn a_bad_version_is_left_wherever_power_goes() {
    let scenario = left();
    let found = scenario.cut_everywhere(Controls::default(), &[Loss::AllDropped, Loss::AllKept], 1);
    found.assert_none(scenario.name);
}
