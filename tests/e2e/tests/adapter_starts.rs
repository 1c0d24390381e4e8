//! What an adapter is told when another version of it starts, and what waits meanwhile, wherever power goes (DESIGN §1, §7).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use otahost::platform::FaultyAdapter;
use otahost_disk::sim::{Controls, Loss, SimDisk};
use otahost_e2e::component_path;
use otahost_e2e::sim::scenarios::adapters::{
    counted_once_each, left, no_event_was_set_aside, outputs, rows, swapped,
};
use otahost_e2e::sim::{
    Boot, Release, Scenario, Story, When, World, dock, rogue_output, told_later,
};
use otahost_journal::Key;

const LOSSES: [Loss; 2] = [Loss::AllDropped, Loss::AllKept];

/// The version that ran last.
fn version(disk: &SimDisk) -> String {
    let rows = rows(disk);
    let row = rows
        .iter()
        .find(|(key, _)| matches!(key, Key::Adapter(name) if name == "rogue"));
    let row: serde_json::Value = serde_json::from_slice(&row.unwrap().1).unwrap();
    row["version"].as_str().unwrap().to_owned()
}

/// How often it was told this, one committed step each: what goes out again goes out before anything newer.
fn starts(world: &World, reason: &str) -> usize {
    let mut starts = rogue_output(world);
    starts.retain(|text| text.starts_with("started"));
    starts.dedup();
    let told = format!("started {reason}");
    starts.iter().filter(|text| **text == told).count()
}

fn told_once(world: &World, reason: &str) -> Result<(), String> {
    match starts(world, reason) {
        1 => Ok(()),
        n => Err(format!(
            "it was told {n} times that it was {reason}: {:?}",
            rogue_output(world)
        )),
    }
}

#[test]
fn a_version_is_told_once_that_it_took_over_wherever_power_goes() {
    let mut scenario = swapped();
    scenario.promises = |world, disk| {
        if version(disk) == "0.2.0" {
            told_once(world, "upgraded 0.1.0")?;
        }
        counted_once_each(world, disk)
    };
    let found = scenario.cut_everywhere(Controls::default(), &LOSSES, 1);
    found.assert_none(scenario.name);
}

#[test]
fn a_version_is_told_once_that_it_is_back_wherever_power_goes() {
    let mut scenario = left();
    scenario.promises = |world, disk| {
        // The operator whose answer was cut off asks again, and then it takes over once more. After a cut the message may come before the
        // new version, which has nothing to fail at then.
        let (over, back) = (
            starts(world, "upgraded 0.1.0"),
            starts(world, "rolled-back 0.2.0"),
        );
        let runs_next = usize::from(version(disk) == "0.2.0");
        if over != back + runs_next {
            return Err(format!(
                "it was told {over} times that it took over and {back} times that it is back: {:?}",
                rogue_output(world)
            ));
        }
        no_event_was_set_aside(disk)
    };
    let found = scenario.cut_everywhere(Controls::default(), &LOSSES, 1);
    found.assert_none(scenario.name);
}

fn install_next(scenario: &mut Scenario, at: u64) {
    let next = format!("rogue {}", component_path("rogue-next").display());
    scenario.world.operator.push((at, next));
}

/// The next release begins a job, is left while it goes on, and comes back after its end.
fn begun_by_a_version_that_is_left() -> Scenario {
    let mut story = Story::new("a job of a version that was left");
    story.add_rogue();
    let order = story.rogue_order("k", &Release::default());
    let with_ids = order.replacen(
        '{',
        r#"{"context": {"ids": [1, 2]}, "when_told": true, "#,
        1,
    );
    story.tell_rogue(When::At(2_000), &with_ids);
    story.tell_rogue(When::At(30_000), "stumble");
    story.tell_rogue(When::At(40_000), "view");
    story.tell_rogue(When::At(50_000), "cancel k");
    install_next(&mut story.scenario, 1_000);
    install_next(&mut story.scenario, 70_000);
    story.scenario.told = World::is_quiet;
    story.scenario
}

#[test]
fn how_a_job_ended_waits_for_a_version_that_can_tell_its_platform() {
    let run = begun_by_a_version_that_is_left().play();
    run.verdict.as_ref().unwrap();
    let said = outputs(&run.world);
    let at = |text: &str| {
        said.iter()
            .position(|said| said == text)
            .unwrap_or_else(|| panic!("{text}: {said:#?}"))
    };
    let (back, ended) = (at("started rolled-back 0.2.0"), at("job k cancelled"));
    // The former version sees that there is a job, and is told nothing that it could not read.
    let seen = said.iter().find(|text| text.contains("active_jobs"));
    assert!(seen.unwrap().contains(r#""key":"k""#), "{said:#?}");
    let meanwhile = said[back..ended].iter();
    let reports = meanwhile.filter(|text| text.starts_with("job "));
    assert_eq!(reports.count(), 0, "{said:#?}");
    assert_eq!(starts(&run.world, "upgraded 0.1.0"), 2);
    assert_eq!(version(&run.disk), "0.2.0");
}

#[test]
fn how_a_job_ended_reaches_its_platform_wherever_power_goes() {
    let mut scenario = begun_by_a_version_that_is_left();
    scenario.promises = |world, disk| {
        let said = outputs(world);
        let began = said.iter().any(|text| text.starts_with("job k "));
        let ended = said.iter().any(|text| text == "job k cancelled");
        match began && version(disk) == "0.2.0" && !ended {
            true => Err(format!("nobody was told how the job ended: {said:#?}")),
            false => Ok(()),
        }
    };
    let found = scenario.cut_everywhere(Controls::default(), &LOSSES, 23);
    found.assert_none(scenario.name);
}

/// A device whose rogue counted to one, and whose file is damaged since.
fn set_aside(commands: &[&str], more: fn(&mut Scenario)) -> Scenario {
    let mut before = told_later(dock("before", Boot::Up, &[]), &["count"]);
    before.told = World::is_quiet;
    before.promises = |_, _| Ok(());
    let ran = before.play();
    ran.verdict.as_ref().unwrap();
    let mut scenario = told_later(dock("set aside", Boot::Up, &[]), commands);
    let setup = Arc::make_mut(&mut scenario.setup);
    let rogue = setup.adapters.pop().unwrap();
    assert_eq!(rogue.name, "rogue");
    setup.faulty.push(FaultyAdapter {
        name: rogue.name,
        config: rogue.config,
        grants: rogue.grants,
        why: "its file is damaged".into(),
    });
    scenario.image = ran.disk.image(Loss::AllKept);
    let later = scenario.world.later.clone();
    scenario.world = World {
        later,
        ..ran.world.clone()
    };
    for (when, _) in &mut scenario.world.later {
        if let When::At(at) = when {
            *at += ran.world.past;
        }
    }
    scenario.told = World::is_quiet;
    scenario.promises = |_, _| Ok(());
    more(&mut scenario);
    scenario
}

#[test]
fn messages_for_an_adapter_that_is_set_aside_wait_wherever_power_goes() {
    let mut scenario = set_aside(&["count", "count", "count"], |scenario| {
        let at = scenario.world.past + 3_500;
        install_next(scenario, at);
    });
    scenario.promises = |world, disk| {
        let said = outputs(world);
        let counts: Vec<&String> = said.iter().filter(|t| t.parse::<u64>().is_ok()).collect();
        let waits = rows(disk)
            .iter()
            .filter(|(key, _)| matches!(key, Key::Inbox { .. }))
            .count();
        // Power may go before the operator's word is durable: then all of them wait.
        match (counts.as_slice(), waits) {
            ([_], 3) => Ok(()),
            ([first, rest @ ..], 0) if *first == "1" && rest == ["1002", "1003", "1004"] => Ok(()),
            _ => Err(format!("{counts:?}, and {waits} wait")),
        }
    };
    let run = scenario.play();
    run.verdict.as_ref().unwrap();
    assert_eq!(version(&run.disk), "0.2.0");
    let found = scenario.cut_everywhere(Controls::default(), &LOSSES, 1);
    found.assert_none(scenario.name);
}

#[test]
fn a_full_inbox_of_an_adapter_that_is_set_aside_holds_up_nobody_and_keeps_the_newest() {
    let commands = vec!["count"; 1_010];
    let mut scenario = set_aside(&commands, |_| {});
    for (n, (when, delivery)) in (0..).zip(&mut scenario.world.later) {
        *when = When::At(scenario.world.past + 1_000 + n * 10);
        delivery.payload = format!("echo {n}").into_bytes();
    }
    scenario.promises = |_, disk| {
        let kept: Vec<u64> = rows(disk)
            .into_iter()
            .filter_map(|(key, _)| match key {
                Key::Inbox { n, .. } => Some(n),
                _ => None,
            })
            .collect();
        match (kept.len(), kept.first()) {
            (1_000, Some(10)) => Ok(()),
            (n, first) => Err(format!("{n} wait, from {first:?} on")),
        }
    };
    // Each of them was acknowledged to the broker, or the story would not be quiet.
    scenario.play().verdict.unwrap();
}
