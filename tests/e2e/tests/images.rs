//! Images by the real process: what nobody trusted has signed is not installed, and what does not prove itself does not stay.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use otahost_e2e::device::{Device, NEW, OLD, PATIENCE, Release};
use otahost_flash::slots::TRIES;
use otahost_lab::files::Fault;
use otahost_lab::image::{Described, Image};
use otahost_lab::signing::Publisher;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// The command fails in verification, after a small part of the file, and nothing changes.
fn assert_refused_early(device: &Device, release: &Release) {
    // Whoever has not refused it by half of it waits there, and asks again.
    let half = release.file.size / 2;
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(half));
    let ids = device.command(&device.order(release));
    device.assert_failed(&ids, 312_003, "VERIFY_FAILED");
    let requests = device.files.requests();
    let (sidecars, attempts): (Vec<_>, Vec<_>) =
        requests.iter().partition(|r| r.path.ends_with(".minisig"));
    assert_eq!(attempts.len(), 1, "no second attempt");
    assert!(sidecars.len() <= 1, "the sidecar is asked for once");
    assert!(attempts[0].sent <= half, "{:?}", attempts[0]);
    device.assert_unchanged();
    device.assert_well();
}

#[test]
fn an_unsigned_image_is_refused_before_most_of_it_is_fetched() {
    let device = Device::online();
    let release = device.release_unsigned(NEW, MIB);
    assert_refused_early(&device, &release);
}

#[test]
fn an_image_signed_by_a_stranger_is_refused_before_most_of_it_is_fetched() {
    let device = Device::online();
    let stranger = Publisher::generate().unwrap();
    let release = device.release_by(&stranger, &Image::new(NEW, MIB), NEW);
    assert_refused_early(&device, &release);
}

#[test]
fn an_image_that_was_changed_after_it_was_signed_is_refused() {
    let device = Device::online();
    let mut release = device.release(NEW, 256 * KIB);
    let mut bytes = std::fs::read(device.medium(&release)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    // The platform describes what it has: its MD5 is right.
    let path = PathBuf::from(device.medium(&release));
    std::fs::write(&path, &bytes).unwrap();
    release.file = Described::of(&path).unwrap();
    device.files.put(&release.name, bytes);
    let ids = device.command(&device.order(&release));
    device.assert_failed(&ids, 312_003, "VERIFY_FAILED");
    device.assert_unchanged();
    device.assert_well();
}

#[test]
fn an_image_that_does_not_boot_is_rolled_back_and_reported() {
    let device = Device::online();
    let image = Image::new(NEW, 64 * KIB).that_does_not_boot();
    let release = device.release_image(&image, NEW);
    let ids = device.command(&device.order(&release));
    device.assert_failed(&ids, 312_028, "UPGRADE_FAIL");
    device.cloud.await_online(2, PATIENCE).unwrap();
    device.cloud.await_firmware(OLD, PATIENCE).unwrap();
    assert_eq!(device.machine.slot().as_deref(), Some("a"));
    let tried = |device: &Device| {
        let boots = device.machine.boots().into_iter();
        boots
            .filter(|boot| boot.version.as_deref() == Some(NEW))
            .count()
    };
    assert_eq!(
        tried(&device),
        usize::from(TRIES),
        "{:?}",
        device.machine.boots()
    );
    device.assert_well();

    // It is over: the next boot does not try it again, and the next update finds everything in order.
    device.machine.lose_power();
    device.machine.power_on().unwrap();
    assert_eq!(
        tried(&device),
        usize::from(TRIES),
        "{:?}",
        device.machine.boots()
    );
    device.cloud.await_online(3, PATIENCE).unwrap();
    device.update(&device.order(&device.release("1.3.0", 64 * KIB)));
    device.assert_runs("1.3.0", "b");
    assert_eq!(device.cloud.results().len(), 2);
    device.assert_well();
}

#[test]
fn an_image_that_reports_another_version_is_rolled_back_and_reported() {
    let device = Device::online();
    // Signed and ordered as 1.2.0.69, but that is not what it says of itself once it runs.
    let release = device.release_image(&Image::new("1.1.9", 64 * KIB), NEW);
    let ids = device.command(&device.order(&release));
    device.assert_failed(&ids, 312_017, "UPGRADE_FAIL");
    device.assert_runs(OLD, "a");
    device.assert_well();
}
