//! A kit of 112 whole, with the real adapter: the centre's call, the folder, a transfer that is cut and resumed, the reboot, and what the
//! kit says then. Power is cut at every disk operation (issue 4, K01 to K17 as one).
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_core::model::Phase;
use otahost_disk::sim::{Controls, SimDisk};
use otahost_e2e::sim::{Boot, Caller, KIT_ID, LOSSES, OLD, Release, Story, World, check, jobs};
use serde_json::{Value, json};

const NEXT: &str = "1.2.0";

fn kit(name: &'static str, boot: Boot) -> Story {
    let release = Release {
        version: NEXT,
        boot,
        ..Release::default()
    };
    let mut story = Story::kit112(name, &release);
    story.world().cuts = vec![20_000, 40_000];
    story
}

/// The centre calls until it has an answer that it can do something with.
fn order() -> Caller {
    let body = json!({ "kitId": KIT_ID }).to_string();
    Caller::new(2_000, "POST", "/updateDevice", &body).until(10_000, &["200 ", "409 ", "404 "])
}

/// It looks every 20 s, until the kit says this.
fn look(path: &str, text: &str) -> Caller {
    Caller::new(3_000, "GET", path, "").until(20_000, &[text])
}

/// The updates the centre was told of, old version and new.
fn accepted(world: &World) -> Vec<(String, String)> {
    let heard = world.web.heard.iter();
    let updates = heard.filter(|h| h.path == "/updateDevice" && h.status == 200);
    let data = updates.map(|h| serde_json::from_str::<Value>(&h.body).unwrap()["data"].clone());
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    data.map(|data| (word(&data["oldVersion"]), word(&data["newVersion"])))
        .collect()
}

/// The versions the kit said, in order, each change once.
fn said(world: &World) -> Vec<String> {
    let heard = world.web.heard.iter();
    let infos = heard.filter(|h| h.path == "/getDeviceInfo" && h.status == 200);
    let mut said: Vec<String> = infos
        .filter_map(|h| {
            let answer: Value = serde_json::from_str(&h.body).unwrap();
            Some(answer["data"]["version"].as_str()?.to_owned())
        })
        .collect();
    said.dedup();
    said
}

/// One update, of which the centre heard at most once that it begins.
fn told_once(world: &World, disk: &SimDisk, phase: Phase) -> Result<(), String> {
    check(world.faults.is_empty() && world.web.unheard == 0, || {
        format!("{:?}, {} unheard", world.faults, world.web.unheard)
    })?;
    let phases: Vec<Phase> = jobs(disk).iter().map(|job| job.phase).collect();
    check(phases == [phase], || format!("{phases:?}"))?;
    let accepted = accepted(world);
    let right = accepted
        .iter()
        .all(|pair| *pair == (OLD.to_owned(), NEXT.to_owned()));
    check(right && accepted.len() <= 1, || format!("{accepted:?}"))
}

#[test]
fn a_kit_that_is_told_to_updates_once_and_says_so_whenever_power_is_cut() {
    let mut story = kit("112", Boot::Up);
    let version = format!(r#""version":"{NEXT}""#);
    story.world().web.callers = vec![order(), look("/getDeviceInfo", &version)];
    story.scenario.promises = |world, disk| {
        told_once(world, disk, Phase::Succeeded)?;
        check((world.slot, world.version.as_str()) == (1, NEXT), || {
            format!("{} runs in slot {}", world.version, world.slot)
        })?;
        // The new one is said when it is confirmed, and then for good.
        let said = said(world);
        check(said == [OLD, NEXT] || said == [NEXT], || {
            format!("{said:?}")
        })
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    let world = &run.world;
    assert_eq!(accepted(world), [(OLD.to_owned(), NEXT.to_owned())]);
    assert_eq!((world.reboots, world.boots), (1, 2));
    assert_eq!(world.served, world.offered(), "every byte once");
    let found = story
        .scenario
        .cut_everywhere(Controls::default(), &LOSSES, 1);
    found.assert_none(story.scenario.name);
}

#[test]
fn a_kit_whose_new_version_does_not_come_up_says_the_old_one_and_how_it_ended_whenever_power_is_cut()
 {
    let mut story = kit("112, rolled back", Boot::Dead);
    let ended = r#""outcome":"rolled-back""#;
    story.world().web.callers = vec![order(), look("/healthCheck", ended)];
    story.scenario.promises = |world, disk| {
        told_once(world, disk, Phase::RolledBack)?;
        check((world.slot, world.version.as_str()) == (0, OLD), || {
            format!("{} runs in slot {}", world.version, world.slot)
        })
    };
    story.scenario.play().verdict.unwrap();
    story.scenario.holds(3);
}

#[test]
fn a_wrong_kit_id_changes_nothing() {
    let mut story = kit("112, another kit", Boot::Up);
    let other = KIT_ID.replace('7', "8");
    let body = json!({ "kitId": other }).to_string();
    let call = |body: &str| Caller::new(2_000, "POST", "/updateDevice", body);
    story.world().web.callers = vec![call(&body), call("no JSON")];
    let run = story.scenario.play();
    run.verdict.unwrap();
    let statuses: Vec<u16> = run.world.web.heard.iter().map(|h| h.status).collect();
    assert_eq!(statuses, [404, 400]);
    assert!(run.world.listings.is_empty() && jobs(&run.disk).is_empty());
}
