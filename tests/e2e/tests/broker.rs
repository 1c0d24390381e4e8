//! `ota_create` over a real broker that delivers twice, forgets, stays away or carries too much, by the real process. (D09, D12, D14
//! of the protocol's list; M02 and M04 of every MQTT link.)
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_e2e::device::{Device, NEW, PATIENCE, eventually, ota_create};
use otahost_lab::files::Fault;
use serde_json::json;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

#[test]
fn d09_a_command_the_broker_delivers_again_makes_no_second_job() {
    let device = Device::online();
    let release = device.release(NEW, 256 * KIB);
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(64 * KIB));
    // Neither the reply nor the PUBACK gets through, so the broker has to deliver the command a second time.
    device.proxy.hold_to_server(true);
    let message = ota_create(&[&device.order(&release)]);
    let ids = device.cloud.send_ota_create(&message).unwrap();
    device.await_sent(64 * KIB);
    assert!(device.replies(&ids).is_empty());
    device.proxy.cut();
    device.proxy.hold_to_server(false);

    device.cloud.await_reply(&ids, PATIENCE).unwrap();
    device.cloud.await_online(2, PATIENCE).unwrap();
    device.ping();
    let log = device.broker.log();
    assert!(
        log.lines()
            .any(|line| line.contains("Sending PUBLISH") && line.contains("d1")),
        "the broker did deliver it twice"
    );
    device.files.release();
    device.assert_ok(&ids);
    let said = device.replies(&ids);
    assert_eq!(said, vec![said[0].clone(); said.len()]);
    assert_eq!(device.json(&["jobs"]).as_array().map(Vec::len), Some(1));
    assert_eq!(device.files.requests().len(), 1);
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn d12_a_packet_over_every_limit_does_not_block_what_comes_after_it() {
    let device = Device::online();
    let release = device.release(NEW, 64 * KIB);
    // Over the limit of a payload; then over that of a packet, which the broker would deliver again and again.
    for size in [300 * KIB, MIB] {
        device.cloud.send_raw(&vec![b' '; size as usize]).unwrap();
    }
    // By the protocol's own rule: the way out may cost what waits behind such a packet.
    let reply = device
        .cloud
        .send_with_retries(&ota_create(&[&device.order(&release)]))
        .unwrap();
    device.assert_ok(&reply.ids);
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn d14_m02_a_download_goes_on_without_the_broker_and_the_result_arrives_when_it_is_back() {
    let mut device = Device::online();
    let release = device.release(NEW, 512 * KIB);
    let half = release.file.size / 2;
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(half));
    let ids = device.command(&device.order(&release));
    device.await_sent(half);

    device.broker.kill();
    device.files.release();
    device.machine.await_boots(2, PATIENCE).unwrap();
    assert_eq!(device.machine.version().as_deref(), Some(NEW));
    assert_eq!(device.files.bytes_sent(), release.file.size);
    assert!(device.cloud.results().is_empty());

    device.restart_broker();
    device.assert_ok(&ids);
    device.cloud.await_online(2, PATIENCE).unwrap();
    assert_eq!(device.cloud.results().len(), 1);
    device.assert_runs(NEW, "b");
    // It has subscribed again.
    device.ping();
    device.assert_well();
}

#[test]
fn d14_a_broker_that_comes_back_in_mid_download_hears_the_newest_progress_and_the_end() {
    let mut device = Device::online();
    let release = device.release(NEW, 512 * KIB);
    let half = release.file.size / 2;
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(half));
    let ids = device.command(&device.order(&release));
    device.await_sent(half);
    device.broker.kill();
    let before = device.cloud.events().len();
    device.restart_broker();
    device.cloud.await_online(2, PATIENCE).unwrap();
    eventually("an event on the new connection", || {
        device.cloud.events().len() > before
    });
    assert!(
        !device.cloud.events()[before].status.is_terminal(),
        "the download still stands"
    );
    device.files.release();
    device.assert_ok(&ids);
    assert_eq!(device.files.requests().len(), 1, "the download went on");
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn m04_commands_of_64_kib_and_more_are_carried_out() {
    let device = Device::online();
    for (version, slot, padding) in [(NEW, "b", 64 * KIB), ("1.3.0", "a", 250 * KIB)] {
        let mut message = ota_create(&[&device.order(&device.release(version, 64 * KIB))]);
        message["padding"] = json!("x".repeat(padding as usize));
        let reply = device.send(&message);
        assert_eq!(reply.result, 0, "{padding}");
        device.assert_ok(&reply.ids);
        device.assert_runs(version, slot);
    }
    device.assert_well();
}
