//! What comes over the wire besides good commands: the vendor's own samples, half of them, what is meant for others, and both prefixes.

use otahost_e2e::device::PATIENCE;
use otahost_lab::image::Image;
use otahost_lab::wudun::site::{self, EMU_NEW};
use otahost_lab::wudun::{Kind, emu_version};
use serde_json::{Value, json};

use crate::ems::{EMS_NEW, Ems, KIB, UID};

const UPGRADE: &str =
    include_str!("../../../../plugins/wudun/fixtures/wudun_ota_upgrade_command.lenient");
const EMU_UPGRADE: &str =
    include_str!("../../../../plugins/wudun/fixtures/wudun_2025_07_emu_upgrade_command.lenient");
const EMU_RESULT: &str = include_str!(
    "../../../../plugins/wudun/fixtures/wudun_2025_07_emu_upgrade_result_command.lenient"
);
const EMU_VERSION: &str =
    include_str!("../../../../plugins/wudun/fixtures/wudun_2025_07_emu_version_command.json");

/// What a sample means, without its trailing commas.
fn meaning(sample: &str) -> Value {
    let mut text = String::new();
    for line in sample.lines() {
        let line = line.trim();
        if line.starts_with('}') && text.ends_with(',') {
            text.pop();
        }
        text.push_str(line);
    }
    serde_json::from_str(&text).unwrap()
}

/// W14: byte for byte as the vendor's pages have them, one `mid` for all four.
#[test]
fn w14_the_vendors_own_samples_are_answered_as_published() {
    let ems = Ems::online(&[2, 3]);
    let send = |kind: Kind, sample: &str| {
        let meaning = meaning(sample);
        let bytes = sample.as_bytes();
        let sent = ems.platform.send_as(&ems.base, kind, bytes, &meaning);
        let sent = sent.unwrap();
        let mut answers = ems.platform.await_answers(&sent, 1, PATIENCE).unwrap();
        answers.swap_remove(0).data
    };
    // The address of the samples is granted to nobody.
    let refused = send(Kind::Upgrade, UPGRADE);
    assert_eq!(
        (&refused["source"], &refused["status"]),
        (&json!("ems_II"), &json!(1))
    );
    assert_eq!(
        send(Kind::EmuUpgrade, EMU_UPGRADE),
        json!({ "device_id": 2, "download_status": 2 })
    );
    assert_eq!(
        send(Kind::EmuUpgradeResult, EMU_RESULT)["device_id"],
        json!(2)
    );
    assert_eq!(
        send(Kind::EmuVersion, EMU_VERSION)
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert!(ems.log().contains("trailing commas"), "a warning says so");
    ems.assert_unchanged();
    ems.assert_well();
}

/// W14: the same with an address and a digest that are there.
#[test]
fn w14_the_vendors_own_samples_update_ems_and_emu_with_nothing_changed_but_the_file() {
    let ems = Ems::online(&[2]);
    let image = ems.release(&Image::new(EMS_NEW, 64 * KIB), EMS_NEW);
    let zip = ems.serve("ems_II", site::ZIP);
    let send = |kind, sample: &str, url: &str, md5: &str| {
        let sample = sample
            .replace("http://example.com/ems_II", url)
            .replace("50a2811e047dd49ace3801685eedb732", md5);
        let meaning = meaning(&sample);
        ems.platform
            .send_as(&ems.base, kind, sample.as_bytes(), &meaning)
            .unwrap()
    };
    let emu = send(Kind::EmuUpgrade, EMU_UPGRADE, &zip.url, &zip.md5);
    assert_eq!(ems.numbers(&emu, 1), [1]);
    let sent = send(Kind::Upgrade, UPGRADE, &image.url, &image.md5);
    assert_eq!(ems.numbers(&sent, 2), [2, 4]);
    assert!(ems.site.emu(2).is_new());
    ems.assert_runs(EMS_NEW, "b");
    ems.assert_well();
}

/// W14: what is cut off somewhere is neither answered nor does it harm.
#[test]
fn w14_truncated_json_is_not_answered_and_the_next_command_works() {
    let ems = Ems::online(&[2]);
    let mut dropped = 0;
    for (kind, sample) in [
        (Kind::Upgrade, UPGRADE),
        (Kind::EmuUpgrade, EMU_UPGRADE),
        (Kind::EmuUpgradeResult, EMU_RESULT),
        (Kind::EmuVersion, EMU_VERSION),
    ] {
        let whole = sample.trim_end().as_bytes();
        for cut in (0..whole.len()).step_by(11) {
            // Even an answer with the sample's own trace_id would be one to a command that nobody sent.
            ems.platform
                .send_raw(&ems.base, kind, &whole[..cut])
                .unwrap();
            dropped += 1;
        }
    }
    for odd in [
        &b"[]"[..],
        b"7",
        b"null",
        b"{\"mid\":\"\xff\"}",
        &[b'['; 200_000],
    ] {
        ems.platform
            .send_raw(&ems.base, Kind::Upgrade, odd)
            .unwrap();
        dropped += 1;
    }
    ems.ping();
    let count = format!("({dropped} so far)");
    let log = ems.log();
    assert!(log.contains(&count), "{count} is not in the log");
    assert_eq!(ems.jobs(), Vec::<Value>::new());
    assert_eq!(ems.platform.count(Kind::Upgrade), 0);
    let sent = ems.emu_upgrade(2, &ems.serve("emu.zip", site::ZIP));
    assert_eq!(ems.numbers(&sent, 1), [1]);
    ems.assert_unchanged();
    ems.assert_well();
}

#[test]
fn w15_what_is_meant_for_another_device_or_was_retained_long_ago_is_dropped() {
    let ems = Ems::off(&[2], |_| {});
    let package = ems.serve("emu.zip", site::ZIP);
    let mut message = otahost_lab::wudun::emu_upgrade(2, &package.url, &package.md5);
    message["mid"] = json!("ee2e8f09-b280-4e4d-bcb9-1529b703cfe0");
    message["timestamp"] = json!(1_697_789_021_000_u64);
    // The broker gives it to the device as soon as that subscribes.
    let text = message.to_string();
    ems.platform
        .send_retained(&ems.base, Kind::EmuUpgrade, text.as_bytes())
        .unwrap();
    ems.switch_on();
    message["device_uid"] = json!("iYRkfVpi77");
    let text = message.to_string();
    for kind in [Kind::EmuUpgrade, Kind::EmuUpgradeResult, Kind::EmuVersion] {
        ems.platform
            .send_raw(&ems.base, kind, text.as_bytes())
            .unwrap();
    }
    ems.ping();
    assert!(ems.log().contains("(4 so far)"));
    assert_eq!(ems.jobs(), Vec::<Value>::new());
    assert!(ems.files.requests().is_empty());
    // All that was said is the answers to this test's questions; the platform's book knows of no other.
    ems.assert_well();
}

/// W16: each form is answered on itself; a command that comes over two of them is one.
#[test]
fn w16_a_result_goes_out_on_the_form_its_command_came_by_and_on_no_other() {
    let ems = Ems::online(&[2]);
    for base in site::bases(UID) {
        let answer = ems
            .platform
            .ask(&base, Kind::EmuVersion, &emu_version(), PATIENCE);
        assert_eq!(answer.unwrap().base, base);
    }
    let [first, second, third] = site::bases(UID);
    let package = ems.serve("emu.zip", site::ZIP);
    let message = otahost_lab::wudun::emu_upgrade(2, &package.url, &package.md5);
    let sent = ems
        .platform
        .send(&second, Kind::EmuUpgrade, &message)
        .unwrap();
    assert_eq!(ems.numbers(&sent, 1), [1]);
    assert_eq!(ems.platform.answers(&sent)[0].base, second);
    // The platform's book takes an answer on another form than the command's for a violation, and here there are two commands with one
    // mid; so what comes of them is counted, not judged.
    for base in [&first, &third] {
        let again = ems.platform.send_as(
            base,
            Kind::EmuUpgrade,
            sent.message.to_string().as_bytes(),
            &sent.message,
        );
        again.unwrap();
    }
    ems.ping();
    assert_eq!(ems.site.emu(2).version().as_deref(), Some(EMU_NEW));
    assert_eq!(ems.site.emu(2).deliveries(), (1, 1));
    assert_eq!(ems.requests(&package).len(), 1);
    assert_eq!(ems.jobs().len(), 1);
}
