//! The whole flow against the real vsftpd, which takes data connections only with a resumed TLS session.

use std::fs;

use otahost_e2e::device::eventually;
use otahost_e2e::kit::{Kit, KitSpec, NEW, OLD, PATIENCE};
use otahost_lab::centre::Centre;
use otahost_lab::image::Image;
use otahost_lab::vsftpd::Vsftpd;
use serde_json::json;

use super::{MIB, PASSWORD};

fn vsftpd() -> (Vsftpd, KitSpec) {
    let server = Vsftpd::start(PASSWORD).unwrap();
    let spec = KitSpec::new(server.port(), Vsftpd::USER, PASSWORD);
    (server, spec)
}

/// K01, K04: with the page's own body, whose kit id is no UUID.
#[test]
fn k01_the_pages_call_updates_the_kit_and_the_new_version_is_said_once_it_is_confirmed() {
    let (server, mut spec) = vsftpd();
    let dir = tempfile::tempdir().unwrap();
    let well = dir.path().join("well");
    // The new version is not well before the test says so.
    let probe = json!([
        "/bin/sh",
        "-c",
        format!("test -e \"$0\" || grep -q {OLD} os-release"),
        well
    ]);
    spec.target_lines = format!("probe = {probe}");
    let kit = Kit::on(&spec);
    server.put(&format!("kit-{OLD}.img"), b"old").unwrap();
    let release = kit.release(NEW, MIB);
    server.put(&release.name, &release.bytes).unwrap();

    let page =
        include_bytes!("../../../../plugins/kit112/fixtures/page_update_device_request.json");
    let answer = kit.centre.call("POST", "/updateDevice", page).unwrap();
    let envelope = answer.envelope().unwrap();
    assert_eq!(answer.status, 200, "{envelope}");
    let data = &envelope["data"];
    assert_eq!(
        (&data["oldVersion"], &data["newVersion"]),
        (&json!(OLD), &json!(NEW))
    );
    let seconds = data["estimatedTime"].as_u64().unwrap();
    assert!((1..3_600).contains(&seconds), "{seconds} s for 1 MiB");
    assert_eq!(envelope["message"], "Güncelleme İşlemi Başlatıldı");

    kit.machine.await_boots(2, PATIENCE).unwrap();
    let mut health = json!(null);
    eventually("a new version that is on trial", || {
        health = kit.centre.ask("/healthCheck").unwrap_or_default();
        health["phase"] == json!("confirming")
    });
    assert_eq!(kit.machine.version().as_deref(), Some(NEW));
    assert_eq!(
        (&health["updating"], &health["version"]),
        (&json!(true), &json!(OLD))
    );
    assert_eq!(kit.centre.version().as_deref(), Some(OLD));

    fs::write(&well, "").unwrap();
    kit.assert_runs(NEW, "b");
    kit.assert_holds("b", &release);
    let last = kit.await_last_update("succeeded");
    assert_eq!(
        (
            &last["oldVersion"],
            &last["newVersion"],
            &last["requestedBy"]
        ),
        (&json!(OLD), &json!(NEW), &json!("centre"))
    );
    let log = server.log();
    assert!(
        !log.contains("\"522 ") && log.contains("\"226 "),
        "a session was not resumed: {log}"
    );
    assert_eq!(kit.machine.boot_count(), 2);
    // The folder holds nothing newer now.
    kit.refused(404);
    kit.assert_well();
}

/// K10: vsftpd is killed in the middle and comes back.
#[test]
fn k10_an_update_goes_on_where_vsftpd_broke_off() {
    let (mut server, spec) = {
        let mut options = otahost_lab::vsftpd::VsftpdOptions::new(PASSWORD);
        options.rate = Some(256 * 1024);
        let server = Vsftpd::start_with(options).unwrap();
        let spec = KitSpec::new(server.port(), Vsftpd::USER, PASSWORD);
        (server, spec)
    };
    let kit = Kit::on(&spec);
    let release = kit.release(NEW, 3 * MIB);
    server.put(&release.name, &release.bytes).unwrap();
    kit.update();
    eventually("a download that is well under way", || {
        let received = kit.job()["installs"][0]["received"].as_u64();
        received.is_some_and(|received| received > MIB / 2)
    });
    server.kill();
    server.set_rate(None);
    server.restart().unwrap();
    kit.assert_runs(NEW, "b");
    kit.assert_holds("b", &release);
    let log = server.log();
    assert!(log.contains("\"REST "), "it was resumed: {log}");
    kit.assert_well();
}

/// K17
#[test]
fn k17_names_that_are_no_versions_are_compared_as_configured() {
    const BEFORE: &str = "B359_1029_B242_D25070903";
    const AFTER: &str = "B359_1029_B242_D25080802";
    let (server, mut spec) = vsftpd();
    spec.factory = BEFORE.into();
    spec.config_lines = r"
[adapters.kit112.config.files]
pattern = '(?<version>B359_1029_B(?<build>\d+)_D(?<date>\d+))'
order = [{ group = 'build', as = 'number' }, { group = 'date', as = 'number' }]
"
    .into();
    let kit = Kit::on(&spec);
    // A later date of an older build is not newer, nor is what the pattern does not take.
    for name in ["B359_1029_B9_D99999999", BEFORE, "B360_1029_B999_D25080802"] {
        server.put(name, b"not this one").unwrap();
    }
    let release = kit.release(AFTER, MIB / 4);
    server.put(AFTER, &release.bytes).unwrap();
    let data = kit.update();
    assert_eq!(
        (&data["oldVersion"], &data["newVersion"]),
        (&json!(BEFORE), &json!(AFTER))
    );
    kit.assert_runs(AFTER, "b");
    kit.assert_well();
}

/// The page: the version does not change by an update that comes to nothing.
#[test]
fn an_image_that_does_not_come_up_is_rolled_back_and_the_kit_says_so() {
    let (server, spec) = vsftpd();
    let kit = Kit::on(&spec);
    let dead = kit.release_image(&Image::new(NEW, MIB / 4).that_does_not_boot(), NEW);
    server.put(&dead.name, &dead.bytes).unwrap();
    kit.update();
    let last = kit.await_last_update("rolled-back");
    assert_eq!(last["newVersion"], NEW);
    kit.await_idle();
    assert_eq!(kit.centre.version().as_deref(), Some(OLD));
    assert_eq!(kit.machine.slot().as_deref(), Some("a"));
    kit.assert_well();
}

/// The link of a kit holds credentials of its own: what the centre calls with does not open the update server, nor the other way.
#[test]
fn the_two_pairs_are_two() {
    let (_server, spec) = vsftpd();
    let kit = Kit::on(&spec);
    let other = Centre::new(kit.centre.port, &kit.centre.kit_id, Vsftpd::USER, PASSWORD);
    assert_eq!(other.update_device().unwrap().status, 401);
}
