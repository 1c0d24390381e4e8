//! wudun's two-phase answers: 2 when the package is here and good, 4 when the new version runs.

use std::collections::BTreeSet;

use md5::{Digest, Md5};
use otahost::platform::AdapterSetup;
use otahost_core::grants::{Grants, LinkGrant};
use otahost_core::model::{Field, Phase};
use serde_json::{Value, json};

use super::dock::only_job;
use crate::sim::story::{FILES, adapter};
use crate::sim::{Boot, Delivery, NEW, OLD, Release, SLOW, Scenario, Story, World, check};

const UID: &str = "ems-1";
const BASE: &str = "v1/user/acme/ems-1";
const TRACE: &str = "577f5df0-65d6-432d-8aac-06hjkgfg2";

/// The adapter, for the dock.
pub(in crate::sim) fn wudun() -> AdapterSetup {
    let cloud = LinkGrant {
        subscribe: vec![format!("{BASE}/ota/+/command")],
        publish: vec![format!("{BASE}/ota/+/result")],
        ..LinkGrant::default()
    };
    let grants = Grants {
        links: [("cloud".to_owned(), cloud)].into(),
        download: vec![FILES.into()],
        targets: vec!["dock".into()],
    };
    let config = json!({ "device_uid": UID, "tenant": "acme" });
    adapter("wudun", "wudun", &config, grants)
}

/// An energy management system that is told to take this release.
fn story(name: &'static str, boot: Boot) -> Story {
    let mut story = Story::bare(name);
    story.setup().adapters.push(wudun());
    story.target().attributes = vec![Field {
        name: "source".into(),
        value: "ems_II".into(),
    }];
    let url = story.publish(&Release {
        boot,
        ..Release::default()
    });
    let md5: String = Md5::digest(story.world().files[&url].as_slice())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let command = json!({
        "trace_id": TRACE, "mid": "ee2e8f09-b280-4e4d-bcb9-1529b703cfed", "type": "ota_upgrade", "device_uid": UID,
        "timestamp": 1_697_789_021_000_u64,
        "data": { "source": "ems_II", "download_url": url, "md5_code": md5 },
    });
    story.world().inbox.push(Delivery {
        packet: 1,
        topic: format!("{BASE}/ota/upgrade/command"),
        payload: command.to_string().into_bytes(),
    });
    story.world().cuts = vec![20_000];
    story.scenario.seam = SLOW;
    story
}

/// The results as the platform got them: each `mid` once, in order.
fn results(world: &World) -> Vec<Value> {
    let mut mids = BTreeSet::new();
    let to_us = world
        .received
        .iter()
        .filter(|(topic, _)| topic.ends_with("/ota/upgrade/result"));
    let messages = to_us.map(|(_, payload)| serde_json::from_slice::<Value>(payload).unwrap());
    messages
        .filter(|message| mids.insert(message["mid"].to_string()))
        .collect()
}

fn statuses(world: &World) -> Vec<u64> {
    let results = results(world);
    let data = results.iter().map(|message| &message["data"]["status"]);
    data.filter_map(Value::as_u64).collect()
}

fn is_told(world: &World) -> bool {
    world.is_quiet() && statuses(world).len() >= 2
}

/// 2, the reboot, 4: each once, under the command's trace id.
pub fn two_phases() -> Scenario {
    let mut story = story("wudun, two phases", Boot::Up);
    story.scenario.told = is_told;
    story.scenario.promises = |world, disk| {
        let said = statuses(world);
        check(said == [2, 4], || format!("{said:?}"))?;
        let results = results(world);
        check(results.iter().all(|r| r["trace_id"] == TRACE), || {
            format!("{results:?}")
        })?;
        check((world.slot, world.version.as_str()) == (1, NEW), || {
            format!("{} runs in slot {}", world.version, world.slot)
        })?;
        check(world.switches == [NEW], || format!("{:?}", world.switches))?;
        check(only_job(disk)?.phase == Phase::Succeeded, || {
            "another end".into()
        })
    };
    story.scenario
}

/// 2, and 5 because the new version does not come up.
pub fn rolled_back() -> Scenario {
    let mut story = story("wudun, rolled back", Boot::Dead);
    story.scenario.told = is_told;
    story.scenario.promises = |world, _| {
        let said = statuses(world);
        check(said == [2, 5], || format!("{said:?}"))?;
        check((world.slot, world.version.as_str()) == (0, OLD), || {
            format!("{} runs in slot {}", world.version, world.slot)
        })
    };
    story.scenario
}
