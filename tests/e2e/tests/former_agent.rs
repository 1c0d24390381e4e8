//! The agent is updated with the firmware, and its journal stays: what an agent of before has promised, the one of today keeps.
//!
//! The journal in `golden/` was written by the real program of an earlier commit on the lab's machine: an update to 1.1.0 that went well,
//! and another to 1.2.0.69 that is downloaded, verified, and waits because the device is not ready. The agent of today is started on it.
//! (The way back, an old agent on what a new one has written, is in the simulator: "agent rolled back".)
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File};
use std::path::Path;

use otahost_e2e::device::{Device, PATIENCE, SERIAL, eventually};
use otahost_lab::image::Image;
use otahost_lab::machine::{Slot, SlotState};
use serde_json::{Value, json};

/// Bytes of the images it speaks of.
const IMAGE: u64 = 32 * 1024;
const BEFORE: &str = "1.1.0";
const WAITING: &str = "1.2.0.69";

/// A device as that agent left it when its power went.
fn device() -> Device {
    let device = Device::off("");
    let layout = device.machine.layout().clone();
    let ready = layout.data().with_file_name("ready");
    device.configure(
        "[targets.dock]\n",
        &format!("[targets.dock]\nready = {{ file = {} }}\n", json!(ready)),
    );
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/journal-0.1.0.redb.zst");
    let mut packed = File::open(packed).unwrap();
    let mut journal = ruzstd::decoding::StreamingDecoder::new(&mut packed).unwrap();
    let mut file = File::create(layout.data().join("journal.redb")).unwrap();
    std::io::copy(&mut journal, &mut file).unwrap();
    Image::new(BEFORE, IMAGE).write(&layout.slot("b")).unwrap();
    Image::new(WAITING, IMAGE).write(&layout.slot("a")).unwrap();
    let mut selector = device.machine.selector().unwrap();
    for (slot, state) in [("a", SlotState::Bad), ("b", SlotState::Good)] {
        let slot = selector
            .slots
            .insert(slot.into(), Slot { state, tries: None });
        assert!(slot.is_some());
    }
    (selector.booted, selector.primary) = ("b".into(), "b".into());
    selector.write(&layout.selector()).unwrap();
    device
}

/// Makes it ready for its update.
fn make_ready(device: &Device) {
    fs::write(device.machine.layout().data().with_file_name("ready"), "").unwrap();
}

fn jobs(device: &Device) -> Vec<Value> {
    device.json(&["jobs"]).as_array().cloned().unwrap()
}

#[test]
fn the_agent_of_today_finds_the_jobs_of_the_one_before_and_ends_what_it_began() {
    let device = device();
    device.machine.power_on().unwrap();
    device.cloud.await_firmware(BEFORE, PATIENCE).unwrap();

    let [waiting, done] = jobs(&device).try_into().unwrap();
    let view = |job: &Value| {
        (
            job["id"].clone(),
            job["owner"].clone(),
            job["phase"].clone(),
        )
    };
    assert_eq!(view(&done), (json!("1"), json!("dji"), json!("succeeded")));
    assert_eq!(done["installs"][0]["new_version"], BEFORE);
    assert_eq!(view(&waiting), (json!("2"), json!("dji"), json!("waiting")));
    let install = &waiting["installs"][0];
    assert_eq!(
        (
            &install["old_version"],
            &install["new_version"],
            &install["total"]
        ),
        (&json!(BEFORE), &json!(WAITING), &json!(IMAGE + 4 * 1024))
    );
    // Who saw it accepted goes on reading where it stood.
    assert_eq!(waiting["history"][0]["text"], "accepted");
    let memory = &device.json(&["status"])["targets"][0]["memory"];
    assert_eq!(memory["rollback_index"], 1, "{memory}");

    make_ready(&device);
    // The command's id is in the context that the adapter gave the job.
    let end = device.cloud.await_terminal("bid-2", PATIENCE).unwrap();
    assert_eq!((end.percent, end.result), (100, 0), "{}", end.message);
    device.assert_runs(WAITING, "a");
    assert_eq!(device.files.requests().len(), 0, "nothing is fetched again");
    // Its rollback index counts as ever: the next image names a lower one.
    let ids = device.command(&device.order(&device.release("1.3.0", 2 * IMAGE)));
    device.assert_failed(&ids, 312_003, "VERIFY_FAILED");
    assert_eq!(jobs(&device).len(), 3);
    let adapter = &device.json(&["status"])["adapters"][0];
    assert_eq!(
        (&adapter["health"], &adapter["dead_letters"]),
        (&json!("running"), &json!(0)),
        "{adapter}"
    );
    assert!(device.machine.crashes().is_empty());
    device.machine.lose_power();
    let said = device.cli(&["doctor", "--json"]).end();
    assert_eq!(said.code(), Some(0), "{said:?}");
}

#[test]
fn an_update_of_the_agent_before_can_be_cancelled_and_its_platform_hears_of_it() {
    let device = device();
    device.machine.power_on().unwrap();
    device.cloud.await_firmware(BEFORE, PATIENCE).unwrap();
    let key = jobs(&device)[0]["key"].as_str().unwrap().to_owned();
    assert!(key.contains(SERIAL), "{key}");
    device.cli(&["cancel", &key]).end();
    let end = device.cloud.await_terminal("bid-2", PATIENCE).unwrap();
    assert_eq!(end.status.to_string(), "canceled");
    eventually("the end of the job", || {
        jobs(&device)[0]["phase"] == "cancelled"
    });
    assert_eq!(device.machine.version().as_deref(), Some(BEFORE));
}
