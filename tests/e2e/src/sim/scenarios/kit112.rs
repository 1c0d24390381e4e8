//! A kit of the 112 system: the centre's call, the folder, a transfer that is cut and resumed, the reboot, and what the kit says then.

use otahost_core::model::Phase;
use otahost_disk::sim::SimDisk;
use serde_json::{Value, json};

use crate::sim::{Boot, Caller, KIT_ID, OLD, Release, Scenario, Story, World, check, jobs};

/// The version in its folder.
pub const NEXT: &str = "1.2.0";

/// A kit whose folder holds that version.
pub fn kit(name: &'static str, boot: Boot) -> Story {
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
pub fn order() -> Caller {
    order_every(10_000)
}

/// The same, with so many virtual milliseconds from one call to the next.
pub fn order_every(every: u64) -> Caller {
    let body = json!({ "kitId": KIT_ID }).to_string();
    Caller::new(2_000, "POST", "/updateDevice", &body).until(every, &["200 ", "409 ", "404 "])
}

/// It looks every 20 s, until the kit says this.
pub fn look(path: &str, text: &str) -> Caller {
    Caller::new(3_000, "GET", path, "").until(20_000, &[text])
}

/// The updates the centre was told of, old version and new.
pub fn accepted(world: &World) -> Vec<(String, String)> {
    let heard = world.web.heard.iter();
    let updates = heard.filter(|h| h.path == "/updateDevice" && h.status == 200);
    let data = updates.map(|h| serde_json::from_str::<Value>(&h.body).unwrap()["data"].clone());
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    data.map(|data| (word(&data["oldVersion"]), word(&data["newVersion"])))
        .collect()
}

/// The versions the kit said, in order, each change once.
pub fn said(world: &World) -> Vec<String> {
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
///
/// # Errors
/// When it was another.
pub fn told_once(world: &World, disk: &SimDisk, phase: Phase) -> Result<(), String> {
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

/// A kit that is told to updates once and says so.
pub fn updated() -> Scenario {
    let mut story = kit("112, FTPS resumed", Boot::Up);
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
    story.scenario
}
