//! The systemd units call commands that exist, at times that fit.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use clap::Parser;
use otahost::cli::{Cli, Command};
use otahost::config::schema;

const AGENT: &str = include_str!("../systemd/otahost.service");
const DEADMAN: &str = include_str!("../systemd/otahost-deadman.service");
const TIMER: &str = include_str!("../systemd/otahost-deadman.timer");

fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let mut values = unit
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value);
    let value = values.next().unwrap();
    assert_eq!(values.next(), None, "{key} stands there twice");
    value
}

fn command(unit: &str) -> Command {
    let line = value(unit, "ExecStart");
    assert!(line.starts_with("/usr/bin/otahost "), "{line}");
    Cli::try_parse_from(line.split(' ')).unwrap().command
}

fn minutes(text: &str) -> Duration {
    let number = text
        .strip_suffix("min")
        .or_else(|| text.strip_suffix('m'))
        .unwrap();
    Duration::from_secs(60 * number.parse::<u64>().unwrap())
}

#[test]
fn the_units_start_commands_that_exist() {
    assert!(matches!(command(AGENT), Command::Run));
    assert!(matches!(command(DEADMAN), Command::Deadman));
}

#[test]
fn the_dead_man_waits_longer_than_a_new_version_has_to_prove_itself() {
    let confirm_within = schema::TABLES
        .iter()
        .find(|table| table.path == "targets.<name>")
        .and_then(|table| table.keys.iter().find(|key| key.name == "confirm_within"))
        .unwrap();
    let least = minutes(confirm_within.default) + Duration::from_secs(120);
    assert!(minutes(value(TIMER, "OnBootSec")) > least);
}

#[test]
fn the_dead_man_depends_on_nothing_of_the_agent() {
    for unit in [DEADMAN, TIMER] {
        for line in unit.lines().filter(|line| !line.starts_with('#')) {
            assert!(!line.contains("otahost.service"), "{line}");
        }
    }
}
