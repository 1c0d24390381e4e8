//! EMUs: the list, an update as it goes on, and its repetition.

use otahost_e2e::device::{PATIENCE, eventually};
use otahost_lab::files::Fault;
use otahost_lab::wudun::Kind;
use otahost_lab::wudun::emu_upgrade_result;
use otahost_lab::wudun::site::{self, EMU_NEW, EMU_OLD};
use serde_json::json;

use crate::ems::{Ems, KIB};

/// W10: the vendor's sample of 2024-11, with the EMUs that it has.
#[test]
fn w10_the_list_has_every_emu_and_nulls_for_the_one_that_is_away() {
    let ems = Ems::off(&[2, 3, 4], |_| {});
    ems.site.emu(4).take_away().unwrap();
    ems.switch_on();
    let never = |id: i64| {
        json!({
            "device_id": id, "status": 1, "emu_upgrade_success": null, "emu_upgrade_device": 3, "emu_upgrade_status": null,
            "emu_upgrade_content": null, "emu_product_sn": EMU_OLD,
        })
    };
    let away = json!({
        "device_id": 4, "status": 2, "emu_upgrade_success": null, "emu_upgrade_device": null, "emu_upgrade_status": null,
        "emu_upgrade_content": null, "emu_product_sn": "",
    });
    assert_eq!(ems.ping().data, json!([never(2), never(3), away]));

    let sent = ems.emu_upgrade(2, &ems.serve("emu.zip", site::ZIP));
    assert_eq!(ems.numbers(&sent, 1), [1]);
    let updated = json!({
        "device_id": 2, "status": 1, "emu_upgrade_success": 1, "emu_upgrade_device": 3, "emu_upgrade_status": 5,
        "emu_upgrade_content": 100, "emu_product_sn": EMU_NEW,
    });
    eventually("the end of the update in the list", || {
        ems.ping().data == json!([updated, never(3), away])
    });
    ems.assert_well();
}

/// W11 and W13: a zip to EMU 2; asked while it is handed over; 1 at the push and not before.
#[test]
fn w11_w13_an_update_tells_how_far_it_is_while_it_is_handed_over_and_says_1_at_the_push() {
    let ems = Ems::online(&[2, 3]);
    let emu = ems.site.emu(2);
    emu.hold(true).unwrap();
    let package = ems.serve("emu.zip", site::ZIP);
    let sent = ems.emu_upgrade(2, &package);
    // Unpacking is the first half, and the program hangs at two fifths of the second.
    let mut contents = Vec::new();
    eventually("70 %", || {
        let standing = ems.standing(2);
        if standing["emu_upgrade_status"] == json!(3) {
            assert_eq!(standing["emu_upgrade_success"], json!(null));
            contents.push(standing["emu_upgrade_content"].as_u64().unwrap());
        }
        contents.last() == Some(&70)
    });
    assert!(contents.is_sorted(), "{contents:?}");
    assert_eq!(ems.platform.answers(&sent), [], "it is not handed over yet");
    assert_eq!(ems.standing(3)["emu_upgrade_status"], json!(null));
    assert_eq!(emu.version().as_deref(), Some(EMU_OLD));

    emu.hold(false).unwrap();
    let answer = &ems.platform.await_answers(&sent, 1, PATIENCE).unwrap()[0];
    assert_eq!(answer.data, json!({ "device_id": 2, "download_status": 1 }));
    assert_eq!(answer.message["sub_device_id"], json!(2));
    assert!(emu.is_new(), "handed over, and whole");
    eventually("the end of the update", || {
        let standing = ems.standing(2);
        standing["emu_upgrade_status"] == json!(5)
            && standing["emu_upgrade_content"] == json!(100)
            && standing["emu_upgrade_success"] == json!(1)
            && standing["emu_product_sn"] == json!(EMU_NEW)
    });
    assert_eq!(ems.site.emu(3).version().as_deref(), Some(EMU_OLD));
    assert_eq!(ems.requests(&package).len(), 1);
    assert_eq!(ems.all_numbers(&sent), [1]);
    ems.assert_well();
}

#[test]
fn zip_tar_gz_and_tar_zst_made_by_the_tools_that_people_have_are_installed() {
    let ems = Ems::online(&[2, 3, 4]);
    for (id, name, bytes) in [
        (2, "emu.zip", site::ZIP),
        (3, "emu.tar.gz", site::TAR_GZ),
        (4, "emu.tar.zst", site::TAR_ZST),
    ] {
        let sent = ems.emu_upgrade(id, &ems.serve(name, bytes));
        assert_eq!(ems.numbers(&sent, 1), [1], "{name}");
        let emu = ems.site.emu(id);
        assert!(emu.is_new(), "{name}");
        let name_of_text = emu.staging().join("current/说明.txt");
        let text = std::fs::read_to_string(name_of_text).unwrap();
        assert!(text.starts_with("固件包"), "{name}: {text}");
    }
    ems.assert_well();
}

/// A package for the EMUs that is signed: its version is known, and has to run afterwards.
#[test]
fn a_signed_package_is_handed_over_without_its_header() {
    let ems = Ems::off(&[2], |_| {});
    let trust = format!(
        "trust = {{ minisign = [\"{}\"], compatible = \"wudun-emu\" }}",
        ems.publisher.public_key()
    );
    ems.site.configure("trust = \"unsigned\"", &trust).unwrap();
    ems.switch_on();
    let unsigned = ems.emu_upgrade(2, &ems.serve("emu.zip", site::ZIP));
    assert_eq!(ems.numbers(&unsigned, 1), [3]);
    let package = ems.sign(site::ZIP, "wudun-emu", EMU_NEW);
    let sent = ems.emu_upgrade(2, &package);
    assert_eq!(ems.numbers(&sent, 1), [1]);
    assert!(ems.site.emu(2).is_new());
    ems.await_success();
    ems.assert_well();
}

/// The same `mid` again: nothing while it is on its way, the stored result afterwards, and no second download or delivery.
#[test]
fn w05_the_same_emu_upgrade_again_is_one_delivery_and_its_stored_result() {
    let ems = Ems::online(&[2]);
    let package = ems.serve("emu.zip", site::ZIP);
    ems.files
        .fault(&package.name, 1, Fault::StallAfter(4 * KIB));
    let sent = ems.emu_upgrade(2, &package);
    ems.await_fetching(&package);
    ems.platform.send_again(&sent).unwrap();
    assert_eq!(ems.all_numbers(&sent), [0; 0]);
    // Another command for the same EMU meanwhile.
    let other = ems.emu_upgrade(2, &package);
    assert_eq!(ems.numbers(&other, 1), [6]);
    ems.files.release();
    assert_eq!(ems.numbers(&sent, 1), [1]);
    ems.platform.send_again(&sent).unwrap();
    assert_eq!(ems.all_numbers(&sent), [1, 1]);
    ems.platform.send_again(&other).unwrap();
    assert_eq!(ems.all_numbers(&other), [6, 6]);
    assert_eq!(ems.requests(&package).len(), 1);
    assert_eq!(ems.site.emu(2).deliveries(), (1, 1));
    ems.assert_well();
}

#[test]
fn an_emu_that_nobody_knows_is_offline_and_takes_no_update() {
    let ems = Ems::online(&[2]);
    let package = ems.serve("emu.zip", site::ZIP);
    let sent = ems.emu_upgrade(9, &package);
    assert_eq!(ems.numbers(&sent, 1), [6]);
    assert_eq!(ems.platform.answers(&sent)[0].message["code"], json!(400));
    let answer = ems.ask(Kind::EmuUpgradeResult, &emu_upgrade_result(9));
    assert_eq!(
        (&answer.data["status"], &answer.message["code"]),
        (&json!(2), &json!(400))
    );
    assert!(ems.files.requests().is_empty());
    ems.assert_well();
}
