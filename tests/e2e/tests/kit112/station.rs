//! The station without network: a file on a medium, or a person with the command line; and what the centre hears afterwards.

use std::fs;
use std::path::Path;

use otahost_e2e::device::eventually;
use otahost_e2e::kit::{DEVICE, Kit, NEW, OLD, PATIENCE, Release, quoted};
use otahost_lab::image::Image;
use otahost_lab::signing::Publisher;
use serde_json::{Value, json};

use super::{KIB, MIB, strict};

/// A running kit whose station is the directory `medium`, and whose lamp writes into `lamp`.
fn at_station(dir: &Path) -> Kit {
    let (server, mut spec) = strict();
    // There is no network.
    drop(server);
    let script = json!("echo \"$1 $2 $3\" >> \"$0\"");
    spec.tables = format!(
        "[offline]\npath = {}\nevery = \"1s\"\nprogress = [\"/bin/sh\", \"-c\", {script}, {}]\n",
        quoted(&dir.join("medium")),
        quoted(&dir.join("lamp")),
    );
    Kit::on(&spec)
}

/// The result beside a file, once it is there.
pub(crate) fn result(medium: &Path, name: &str) -> Value {
    let path = medium.join(format!("{name}.{DEVICE}.kit.result.json"));
    eventually(&format!("a result of {name}"), || path.exists());
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn put(medium: &Path, name: &str, release: &Release) {
    fs::write(medium.join(name), &release.bytes).unwrap();
}

#[test]
fn a_signed_file_on_a_medium_installs_by_itself_once_and_the_centre_is_told_when_it_asks() {
    let dir = tempfile::tempdir().unwrap();
    let medium = dir.path().join("medium");
    let kit = at_station(dir.path());
    let release = kit.release(NEW, MIB);
    let stranger = Publisher::generate().unwrap();
    let newer = Image::new("9.9.9", 8 * KIB);

    // A stick is plugged in that holds files of other people's too.
    fs::create_dir(&medium).unwrap();
    fs::write(medium.join("unsigned.img"), vec![7; 9_000]).unwrap();
    let foreign = kit.release_by(&stranger, &newer, "9.9.9");
    put(&medium, "stranger.img", &foreign);
    let model = kit.release_image(&newer, "9.9.9");
    let mut other = model.bytes.clone();
    other[200] ^= 1;
    fs::write(medium.join("forged.img"), other).unwrap();
    put(&medium, "update.img", &release);

    kit.machine.await_boots(2, PATIENCE).unwrap();
    kit.assert_runs(NEW, "b");
    kit.assert_holds("b", &release);
    let left = result(&medium, "update.img");
    assert_eq!(
        (&left["device"], &left["target"], &left["outcome"]),
        (&json!(DEVICE), &json!("kit"), &json!("succeeded"))
    );
    assert_eq!(
        (&left["old_version"], &left["version"]),
        (&json!(OLD), &json!(NEW))
    );
    let lamp = fs::read_to_string(dir.path().join("lamp")).unwrap();
    let told: Vec<&str> = lamp.lines().collect();
    assert!(
        told.iter().any(|line| line.starts_with("downloading ")),
        "{told:?}"
    );
    assert_eq!(told.last(), Some(&"succeeded 100 kit"), "{told:?}");

    let last = kit.await_last_update("succeeded");
    assert_eq!(
        (
            &last["oldVersion"],
            &last["newVersion"],
            &last["requestedBy"]
        ),
        (&json!(OLD), &json!(NEW), &json!("local"))
    );

    // Another boot with the stick still in. A file that is looked at later shows that all of them were.
    kit.machine.lose_power();
    kit.machine.power_on().unwrap();
    kit.await_version(NEW);
    let same = kit.release_image(&Image::new(NEW, MIB).with_seed(9), NEW);
    put(&medium, "zz-same-version.img", &same);
    assert_eq!(
        result(&medium, "zz-same-version.img")["outcome"],
        "up-to-date"
    );
    assert_eq!(kit.json(&["jobs"]).as_array().unwrap().len(), 1);
    assert_eq!(kit.machine.boot_count(), 3);
    let results = fs::read_dir(&medium).unwrap().filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".result.json")
    });
    assert_eq!(results.count(), 2, "only of what is for this kit");
    kit.assert_well();
}

#[test]
fn a_file_for_another_model_is_nothing_to_this_kit() {
    let dir = tempfile::tempdir().unwrap();
    let medium = dir.path().join("medium");
    let kit = at_station(dir.path());
    fs::create_dir(&medium).unwrap();
    let other = kit.release_for("kit-model-2", &Image::new(NEW, 8 * KIB), NEW);
    put(&medium, "a-other-model.img", &other);
    // Looked at after it.
    let same = kit.release(OLD, 8 * KIB);
    put(&medium, "b-same-version.img", &same);
    assert_eq!(
        result(&medium, "b-same-version.img")["outcome"],
        "up-to-date"
    );
    assert_eq!(kit.json(&["jobs"]), json!([]));
    kit.assert_unchanged();
}

#[test]
fn an_image_of_the_medium_that_does_not_come_up_leaves_the_old_version_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let medium = dir.path().join("medium");
    let kit = at_station(dir.path());
    fs::create_dir(&medium).unwrap();
    let dead = kit.release_image(&Image::new(NEW, MIB / 4).that_does_not_boot(), NEW);
    put(&medium, "update.img", &dead);
    let left = result(&medium, "update.img");
    assert_eq!(left["outcome"], "rolled-back");
    assert!(
        left["reason"].as_str().is_some_and(|r| !r.is_empty()),
        "{left}"
    );
    let lamp = fs::read_to_string(dir.path().join("lamp")).unwrap();
    let last = lamp.lines().last().unwrap();
    assert!(last.starts_with("rolled-back "), "{lamp}");
    let last = kit.await_last_update("rolled-back");
    assert_eq!(last["requestedBy"], "local");
    kit.await_idle();
    assert_eq!(kit.centre.version().as_deref(), Some(OLD));
    assert_eq!(kit.machine.slot().as_deref(), Some("a"));
    kit.assert_well();
}

#[test]
fn after_otahost_install_the_centre_hears_the_new_version_and_who_did_it() {
    let (_server, spec) = strict();
    let kit = Kit::on(&spec);
    let release = kit.release(NEW, MIB);
    let file = kit.path("update.img");
    fs::write(&file, &release.bytes).unwrap();
    let file = file.display().to_string();
    let said = kit.cli(&["install", &file, "--target", "kit"]);
    assert!(said.status.success(), "{said:?}");
    kit.assert_runs(NEW, "b");
    let last = kit.await_last_update("succeeded");
    assert_eq!(
        (
            &last["oldVersion"],
            &last["newVersion"],
            &last["requestedBy"]
        ),
        (&json!(OLD), &json!(NEW), &json!("local"))
    );
    kit.assert_well();
}
