//! W12: each `download_status` from its cause, and what is refused.

use std::fs;

use otahost_e2e::device::eventually;
use otahost_lab::wudun::site::{self, EMU_OLD};
use serde_json::json;

use crate::ems::{Ems, Package};

/// The update of EMU 2 with this package ends with this number, the EMU is as it was, and what is said of the update afterwards says so.
fn fails(ems: &Ems, package: &Package, status: u64) {
    let emu = ems.site.emu(2);
    let before = emu.version();
    let sent = ems.emu_upgrade(2, package);
    assert_eq!(ems.numbers(&sent, 1), [status], "{}", package.name);
    assert_eq!(ems.all_numbers(&sent), [status], "{}", package.name);
    assert_eq!(emu.version(), before, "{}", package.name);
}

fn is_over_and_failed(ems: &Ems) {
    let standing = ems.standing(2);
    assert_eq!(
        (
            &standing["emu_upgrade_status"],
            &standing["emu_upgrade_success"]
        ),
        (&json!(5), &json!(0)),
        "{standing}"
    );
}

#[test]
fn w12_what_cannot_be_fetched_is_2_and_what_is_not_what_was_announced_is_3() {
    let ems = Ems::online(&[2]);
    let good = ems.serve("emu.zip", site::ZIP);
    let missing = ems.serve("missing", b"x");
    ems.files.remove("missing");
    fails(&ems, &missing, 2);
    is_over_and_failed(&ems);
    let mut elsewhere = ems.serve("elsewhere", b"x");
    elsewhere.url = "http://192.0.2.1/emu.zip".to_owned();
    fails(&ems, &elsewhere, 2);

    let mut wrong = ems.serve("wrong.zip", site::TAR_GZ);
    wrong.md5 = good.md5.clone();
    fails(&ems, &wrong, 3);
    let mut no_digest = ems.serve("no-digest", b"x");
    no_digest.md5 = "x".repeat(32);
    fails(&ems, &no_digest, 3);

    assert_eq!(ems.site.emu(2).deliveries(), (0, 0));
    let sent = ems.emu_upgrade(2, &good);
    assert_eq!(ems.numbers(&sent, 1), [1]);
    assert!(ems.site.emu(2).is_new());
    ems.assert_well();
}

#[test]
fn w12_a_staging_folder_that_cannot_be_cleared_is_4() {
    let ems = Ems::online(&[2]);
    // What somebody put where the agent's own link belongs is not the agent's to remove.
    let foreign = ems.site.emu(2).staging().join("current");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("keep"), "x").unwrap();
    let package = ems.serve("emu.zip", site::ZIP);
    fails(&ems, &package, 4);
    is_over_and_failed(&ems);
    assert!(foreign.join("keep").exists());

    fs::remove_dir_all(&foreign).unwrap();
    let sent = ems.emu_upgrade(2, &package);
    assert_eq!(ems.numbers(&sent, 1), [1]);
    assert!(ems.site.emu(2).is_new());
    ems.assert_well();
}

#[test]
fn w12_a_broken_or_hostile_archive_is_5_and_nothing_outside_the_staging_folder_is_touched() {
    let ems = Ems::online(&[2]);
    let first = ems.emu_upgrade(2, &ems.serve("first.zip", site::ZIP));
    assert_eq!(ems.numbers(&first, 1), [1]);
    // It was handed over, and has yet to be confirmed.
    ems.await_success();
    let staging = ems.site.emu(2).staging().to_path_buf();
    let current = || fs::read_to_string(staging.join("current/version")).unwrap();
    let installed = current();

    for (name, bytes) in [
        ("cut.zip", &site::ZIP[..site::ZIP.len() - 100]),
        ("cut.tar.gz", &site::TAR_GZ[..site::TAR_GZ.len() / 2]),
        ("cut.tar.zst", &site::TAR_ZST[..site::TAR_ZST.len() / 2]),
        ("text.zip", b"this is no archive"),
        ("escape.zip", site::HOSTILE_ZIP),
    ] {
        fails(&ems, &ems.serve(name, bytes), 5);
        is_over_and_failed(&ems);
        assert_eq!(current(), installed, "{name}: the old directory stays");
    }
    let beside = |dir: &std::path::Path| {
        let names = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = names.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(beside(staging.parent().unwrap()), ["2"]);
    assert_eq!(
        beside(ems.site.dir()),
        ["emu-push", "emus", "machine", "staging"]
    );
    assert_eq!(ems.site.emu(2).deliveries(), (1, 1));
    ems.assert_well();
}

#[test]
fn w12_a_delivery_that_the_emu_refuses_is_6() {
    let ems = Ems::online(&[2]);
    let emu = ems.site.emu(2);
    emu.refuse(true).unwrap();
    let package = ems.serve("emu.zip", site::ZIP);
    fails(&ems, &package, 6);
    is_over_and_failed(&ems);
    assert!(ems.log().contains("the EMU does not take it"));

    emu.refuse(false).unwrap();
    let sent = ems.emu_upgrade(2, &package);
    assert_eq!(ems.numbers(&sent, 1), [1]);
    assert!(emu.is_new());
    eventually("the end of the update", || {
        ems.standing(2)["emu_upgrade_success"] == json!(1)
    });
    ems.assert_well();
}

#[test]
fn an_emu_that_is_away_takes_no_update() {
    let ems = Ems::off(&[2], |_| {});
    ems.site.emu(2).take_away().unwrap();
    ems.switch_on();
    let package = ems.serve("emu.zip", site::ZIP);
    fails(&ems, &package, 6);
    assert!(ems.files.requests().is_empty());
    ems.assert_well();
}

/// The policy that refuses, seen only when the signed header is here.
#[test]
fn a_downgrade_that_the_policy_refuses_is_6() {
    let ems = Ems::off(&[2], |_| {});
    let signed = format!(
        "policy = {{ downgrade = \"refuse\" }}\ntrust = {{ minisign = [\"{}\"], compatible = \"wudun-emu\" }}",
        ems.publisher.public_key()
    );
    ems.site.configure("trust = \"unsigned\"", &signed).unwrap();
    // The order of versions is known of numbers only.
    let version = ems.site.dir().join("emus/emu-2/version");
    fs::write(&version, "1.1.0\n").unwrap();
    ems.switch_on();
    fails(&ems, &ems.sign(site::ZIP, "wudun-emu", "1.0.9"), 6);
    fs::write(&version, EMU_OLD).unwrap();
    assert_eq!(ems.site.emu(2).deliveries(), (0, 0));
    ems.assert_well();
}
