//! `ota/upgrade`: the EMS itself, and what hangs on it by its `source`.

use std::fs;

use otahost_e2e::device::PATIENCE;
use otahost_lab::files::Fault;
use otahost_lab::image::Image;
use otahost_lab::wudun::site::{self, EMS_OLD};
use otahost_lab::wudun::{Answer, Kind, ota_upgrade};
use serde_json::json;

use crate::ems::{EMS_NEW, Ems, KIB, UID};

fn new_image() -> Image {
    Image::new(EMS_NEW, 256 * KIB)
}

/// W01, W09 and W16: one download, 2 before the reboot and 4 after it, with the trace_id of the command and on its form of the topics.
#[test]
fn w01_w09_an_upgrade_says_2_reboots_and_says_4_under_the_trace_id_of_the_command() {
    let mut ems = Ems::online(&[]);
    ems.base = site::bases(UID)[1].clone();
    let package = ems.release(&new_image(), EMS_NEW);
    let sent = ems.upgrade(&package);
    // The platform's book holds each of them against the command: trace_id, reply, topic, order.
    let answers = ems.platform.await_answers(&sent, 2, PATIENCE).unwrap();
    let [prepared, done] = &answers[..] else {
        panic!("{answers:#?}")
    };
    assert_eq!(
        prepared.data,
        json!({ "source": "ems_II", "version": EMS_OLD, "target_version": EMS_NEW, "status": 2 })
    );
    assert_eq!(
        done.data,
        json!({ "source": "ems_II", "target_version": EMS_NEW, "final_version": EMS_NEW, "status": 4 })
    );
    for answer in &answers {
        assert_eq!(answer.message["type"], json!("ota_upgrade"));
        assert_eq!(answer.message["reply"], json!(sent.mid));
        assert_eq!(answer.trace_id, sent.trace_id);
    }
    ems.assert_runs(EMS_NEW, "b");
    assert_eq!(ems.site.machine.boot_count(), 2);
    assert_eq!(ems.requests(&package).len(), 1);
    ems.assert_well();
    assert_eq!(ems.all_numbers(&sent), [2, 4]);
}

/// W09 where the broker cannot be reached from before the reboot until long after the new version is confirmed.
#[test]
fn w09_the_4_waits_for_the_broker_and_is_the_first_that_is_said_after_the_boot() {
    let ems = Ems::online(&[]);
    let package = ems.release(&new_image(), EMS_NEW);
    ems.files.fault(&package.name, 1, Fault::StallAfter(0));
    let sent = ems.upgrade(&package);
    ems.await_fetching(&package);
    ems.proxy.refuse(true);
    ems.proxy.cut();
    ems.files.release();
    ems.site.machine.await_boots(2, PATIENCE).unwrap();
    ems.await_success();
    assert_eq!(ems.platform.answers(&sent), []);
    // Asked while it was away: the broker keeps it for the device's session.
    let question = ems.send(Kind::EmuVersion, &otahost_lab::wudun::emu_version());
    ems.proxy.refuse(false);
    assert_eq!(ems.numbers(&sent, 2), [2, 4]);
    ems.platform.await_answers(&question, 1, PATIENCE).unwrap();
    let times = |answers: &[Answer]| -> Vec<u64> {
        let time = |answer: &Answer| answer.message["timestamp"].as_u64().unwrap();
        answers.iter().map(time).collect()
    };
    let said = times(&ems.platform.answers(&sent));
    let later = times(&ems.platform.answers(&question));
    assert!(said[1] <= later[0], "{said:?} {later:?}");
    ems.assert_runs(EMS_NEW, "b");
    assert_eq!(ems.requests(&package).len(), 1);
    ems.assert_well();
}

#[test]
fn w09_a_power_cut_after_the_2_does_not_lose_the_4() {
    let ems = Ems::online(&[]);
    let package = ems.release(&new_image(), EMS_NEW);
    let sent = ems.upgrade(&package);
    assert_eq!(ems.numbers(&sent, 1)[0], 2);
    ems.site.machine.lose_power();
    ems.site.machine.power_on().unwrap();
    assert_eq!(ems.numbers(&sent, 2), [2, 4]);
    ems.assert_runs(EMS_NEW, "b");
    assert_eq!(ems.requests(&package).len(), 1);
    ems.assert_well();
}

/// W02, W03, W04 and a package that nobody has signed: 3 and nothing else, and the next good one is installed.
#[test]
fn w02_w03_w04_a_package_that_is_wrong_or_not_there_is_3_alone() {
    let ems = Ems::online(&[]);
    let good = ems.release(&new_image(), EMS_NEW);
    let mut wrong = ems.serve("wrong", b"something else");
    wrong.md5 = good.md5.clone();
    let mut no_digest = ems.serve("no-digest", b"x");
    no_digest.md5 = "50a2811e".to_owned();
    let missing = ems.serve("missing", b"x");
    ems.files.remove("missing");
    let empty = ems.serve("empty", b"");
    assert_eq!(empty.md5, "d41d8cd98f00b204e9800998ecf8427e");
    let unsigned = ems.serve("unsigned", &vec![7; 64 * KIB as usize]);
    for package in [&wrong, &no_digest, &missing, &empty, &unsigned] {
        let sent = ems.upgrade(package);
        assert_eq!(ems.numbers(&sent, 1), [3], "{}", package.name);
        let answers = ems.platform.answers(&sent);
        assert_eq!(answers[0].data["version"], json!(EMS_OLD));
        let code = if package.md5.len() == 32 {
            json!(null)
        } else {
            json!(400)
        };
        assert_eq!(answers[0].message["code"], code, "{}", package.name);
        ems.assert_unchanged();
    }
    assert_eq!(ems.requests(&no_digest).len(), 0);
    assert_eq!(ems.requests(&missing).len(), 1, "404 is final");
    ems.assert_well();

    let sent = ems.upgrade(&good);
    assert_eq!(ems.numbers(&sent, 2), [2, 4]);
    ems.assert_runs(EMS_NEW, "b");
    ems.assert_well();
}

/// W05, also after a reconnect: what was said is said again, and nothing is fetched or installed.
#[test]
fn w05_the_same_command_again_is_one_update_and_its_stored_results() {
    let ems = Ems::online(&[]);
    let package = ems.release(&new_image(), EMS_NEW);
    ems.files
        .fault(&package.name, 1, Fault::StallAfter(64 * KIB));
    let sent = ems.upgrade(&package);
    ems.await_fetching(&package);
    ems.platform.send_again(&sent).unwrap();
    assert_eq!(ems.all_numbers(&sent), [0; 0], "nothing was said yet");
    ems.files.release();
    assert_eq!(ems.numbers(&sent, 2), [2, 4]);

    ems.proxy.cut();
    ems.ping();
    ems.platform.send_again(&sent).unwrap();
    assert_eq!(ems.all_numbers(&sent), [2, 4, 2, 4]);
    let answers = ems.platform.answers(&sent);
    assert_eq!(answers[3].data, answers[1].data);
    // After a restart of the agent it is the same.
    ems.site.machine.kill_agent().unwrap();
    ems.site.machine.start_agent().unwrap();
    ems.platform.send_again(&sent).unwrap();
    assert_eq!(ems.all_numbers(&sent), [2, 4, 2, 4, 2, 4]);

    assert_eq!(ems.requests(&package).len(), 1);
    assert_eq!(ems.site.machine.boot_count(), 2);
    assert_eq!(ems.jobs().len(), 1);
    ems.assert_well();
}

#[test]
fn w06_another_command_while_one_is_carried_out_is_1_and_the_first_ends_well() {
    let ems = Ems::online(&[]);
    let package = ems.release(&new_image(), EMS_NEW);
    let other = ems.release(&Image::new("0.9.2", 64 * KIB), "0.9.2");
    ems.files
        .fault(&package.name, 1, Fault::StallAfter(64 * KIB));
    let first = ems.upgrade(&package);
    ems.await_fetching(&package);
    // Another package, and the same one with another mid.
    for package in [&other, &package] {
        let second = ems.upgrade(package);
        assert_eq!(ems.numbers(&second, 1), [1]);
    }
    ems.files.release();
    assert_eq!(ems.numbers(&first, 2), [2, 4]);
    assert_eq!(ems.requests(&package).len(), 1);
    assert_eq!(ems.requests(&other).len(), 0);
    ems.assert_runs(EMS_NEW, "b");
    ems.assert_well();
}

/// W07; and the policy that refuses: what did not come up twice is refused with 1.
#[test]
fn w07_an_image_that_does_not_come_up_is_2_and_5_and_the_third_time_1() {
    let ems = Ems::online(&[]);
    let package = ems.release(&new_image().that_does_not_boot(), EMS_NEW);
    for _ in 0..2 {
        let sent = ems.upgrade(&package);
        assert_eq!(ems.numbers(&sent, 2), [2, 5]);
        let end = ems.platform.answers(&sent)[1].data.clone();
        assert_eq!(
            (&end["target_version"], &end["final_version"]),
            (&json!(EMS_NEW), &json!(EMS_OLD))
        );
        ems.assert_runs(EMS_OLD, "a");
    }
    let fetched = ems.requests(&package).len();
    let sent = ems.upgrade(&package);
    assert_eq!(ems.numbers(&sent, 1), [1]);
    assert_eq!(ems.all_numbers(&sent), [1]);
    assert_eq!(ems.requests(&package).len(), fetched);
    ems.assert_well();
}

/// A device behind the EMS that a program installs and that takes its time to say which version runs, meant by `source` and `sub_device_uid`: 2, and 5 where the program gives up. (The way
/// back that fails for good, W08, takes minutes of tries in the agent; what it says is a test of the adapter.)
#[test]
fn w07_a_device_behind_the_ems_whose_program_gives_up_is_2_and_5() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("version"), "bms-1\n").unwrap();
    fs::write(at("program"), "exit 10\n").unwrap();
    let more = format!(
        "\n[targets.bms]\nflasher = \"command\"\nparent = \"ems\"\ndirectory = \"{}\"\nprogram = [\"/bin/sh\", \"{}\"]\n\
         trust = \"unsigned\"\nversion = {{ command = [\"/bin/sh\", \"-c\", \"sleep 0.2; cat {}\"] }}\n\
         attributes = {{ source = \"bms\", sub_device_uid = \"B1\" }}\n",
        at("staging"),
        at("program"),
        at("version")
    );
    let ems = Ems::off(&[], |spec| {
        spec.more = more;
        spec.more_targets = vec!["bms".into()];
    });
    ems.switch_on();
    let package = ems.serve("bms.bin", b"whatever it is");
    let order = |uid: Option<&str>| {
        let mut message = ota_upgrade("bms", &package.url, &package.md5);
        if let Some(uid) = uid {
            message["sub_device_uid"] = json!(uid);
        }
        ems.send(Kind::Upgrade, &message)
    };
    for nobody in [order(None), order(Some("B2"))] {
        assert_eq!(ems.numbers(&nobody, 1), [1]);
    }
    let sent = order(Some("B1"));
    assert_eq!(ems.numbers(&sent, 2), [2, 5]);
    let end = ems.platform.answers(&sent)[1].clone();
    assert_eq!(end.data["final_version"], json!("bms-1"));
    assert_eq!(end.message["sub_device_uid"], json!("B1"));

    fs::write(at("program"), format!("echo bms-2 > {}\n", at("version"))).unwrap();
    let sent = order(Some("B1"));
    assert_eq!(ems.numbers(&sent, 2), [2, 4]);
    let end = ems.platform.answers(&sent)[1].clone();
    assert_eq!(end.data["final_version"], json!("bms-2"));
    ems.assert_unchanged();
    ems.assert_well();
}

/// The policy that refuses, seen only when the signed header is here: 1 all the same.
#[test]
fn a_downgrade_that_the_policy_refuses_is_1() {
    let ems = Ems::off(&[], |_| {});
    let target = "[targets.ems]\n";
    let policy = format!("{target}policy = {{ downgrade = \"refuse\" }}\n");
    ems.site.configure(target, &policy).unwrap();
    ems.switch_on();
    let older = ems.release(&Image::new("0.8.9", 64 * KIB), "0.8.9");
    let sent = ems.upgrade(&older);
    assert_eq!(ems.numbers(&sent, 1), [1]);
    assert_eq!(ems.all_numbers(&sent), [1]);
    ems.assert_unchanged();
    ems.assert_well();
}
