//! `ota_create` over a real broker that delivers twice, forgets, stays away, refuses or carries too much, by the real process. (D09, D12,
//! D14 of the protocol's list; M01 to M04 of every MQTT link.)
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::time::{Duration, Instant};

use otahost_e2e::device::{Device, NEW, PATIENCE, SERIAL, eventually, ota_create};
use otahost_lab::files::Fault;
use otahost_lab::mosquitto::MosquittoOptions;
use otahost_lab::peer::Peer;
use serde_json::{Value, json};

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
    // The way out may cost what waits behind such a packet.
    let log = || fs::read_to_string(device.machine.layout().log()).unwrap();
    eventually("a session that was emptied", || {
        let log = log();
        let emptied = log.split_once("the next one empties the broker's session");
        emptied.is_some_and(|(_, after)| after.contains("session_present=false"))
    });
    let reply = device.send(&ota_create(&[&device.order(&release)]));
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

/// How the agent's one link stands.
fn link(device: &Device) -> Value {
    device.json(&["status"])["links"][0].clone()
}

#[test]
fn m01_after_each_of_three_broker_deaths_the_device_is_online_and_hears_its_commands() {
    let mut device = Device::online();
    for _ in 1..=3 {
        let before = device.cloud.announcements();
        device.restart_broker();
        device.cloud.await_online(before + 1, PATIENCE).unwrap();
        device.ping();
    }
    let release = device.release(NEW, 64 * KIB);
    device.update(&device.order(&release));
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn m02_a_result_whose_acknowledgement_was_lost_and_forgotten_by_the_broker_arrives_again() {
    let mut device = Device::online();
    let release = device.release(NEW, 256 * KIB);
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(64 * KIB));
    let ids = device.command(&device.order(&release));
    device.await_sent(64 * KIB);
    device.proxy.hold_to_client(true);
    let key = device.json(&["jobs"])[0]["key"].clone();
    device.cli(&["cancel", key.as_str().unwrap()]).end();
    let copies = |device: &Device| {
        let events = device.cloud.events().into_iter();
        let told = events.filter(|event| event.ids.bid == ids.bid && event.status.is_terminal());
        told.collect::<Vec<_>>()
    };
    // The platform has it, the device does not know, and the broker forgets both.
    let end = device.end_of(&ids);
    assert_eq!(copies(&device).len(), 1);
    device.restart_broker();
    device.proxy.cut();
    device.proxy.hold_to_client(false);
    eventually("the result once more", || copies(&device).len() > 1);
    assert!(copies(&device).iter().all(|copy| copy.status == end.status));
    device.cloud.await_online(2, PATIENCE).unwrap();
    device.assert_unchanged();
    device.assert_well();
}

#[test]
fn m03_a_command_that_was_taken_and_not_acknowledged_makes_no_second_job_after_a_kill() {
    let device = Device::online();
    let release = device.release(NEW, 256 * KIB);
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(64 * KIB));
    device.proxy.hold_to_server(true);
    let ids = device
        .cloud
        .send_ota_create(&ota_create(&[&device.order(&release)]))
        .unwrap();
    // It is on the disk, or nothing would be fetched; the broker has heard nothing of it.
    device.await_sent(64 * KIB);
    device.machine.kill_agent().unwrap();
    device.proxy.cut();
    device.proxy.hold_to_server(false);
    device.files.release();
    device.machine.start_agent().unwrap();
    device.assert_ok(&ids);
    let said = device.replies(&ids);
    assert_eq!(said, vec![said[0].clone(); said.len()], "one reply");
    assert_eq!(device.json(&["jobs"]).as_array().map(Vec::len), Some(1));
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn a_connection_that_is_reset_is_made_again_and_nothing_is_lost_with_it() {
    let device = Device::online();
    for reset in 1..=5 {
        device.proxy.hold_to_server(true);
        let ids = device
            .cloud
            .send_ota_create(&json!({ "method": "no_such_method", "data": {} }))
            .unwrap();
        device.proxy.reset();
        device.proxy.hold_to_server(false);
        let reply = device.cloud.await_reply(&ids, PATIENCE).unwrap();
        assert_eq!(reply.result, 314_000, "reset {reset}");
    }
    device.assert_unchanged();
    device.assert_well();
}

#[test]
fn a_connection_that_the_network_has_forgotten_is_given_up_and_its_command_arrives() {
    let device = Device::off("");
    device.configure(
        "kind = \"mqtt\"\n",
        "kind = \"mqtt\"\nkeep_alive = \"5s\"\n",
    );
    device.switch_on();
    let before = device.proxy.connections();
    device.proxy.forget();
    // Neither side hears of an end: the broker sends this into the void.
    let ids = device
        .cloud
        .send_ota_create(&json!({ "method": "no_such_method", "data": {} }))
        .unwrap();
    let reply = device.cloud.await_reply(&ids, PATIENCE).unwrap();
    assert_eq!(reply.result, 314_000);
    assert_eq!(device.proxy.connections(), before + 1, "once is enough");
    device.ping();
    device.assert_unchanged();
    device.assert_well();
}

#[test]
fn a_second_client_with_the_agents_id_costs_one_connection_each_time_and_no_command_when_it_is_gone()
 {
    let device = Device::online();
    let before = device.proxy.connections();
    let id = format!("otahost-{SERIAL}-cloud");
    let double = Peer::connect_as(device.broker.port(), &id, "nothing").unwrap();
    // Each throws the other out, again and again.
    assert!(device.proxy.wait_for_connections(before + 5, PATIENCE));
    drop(double);
    eventually("the link is up for good", || link(&device)["up"] == true);
    let takeovers = device
        .broker
        .log()
        .matches(&format!("Client {id} already connected"))
        .count() as u64;
    let made = device.proxy.connections() - before;
    // No more than there was reason for: half of the takeovers are the agent's own.
    assert!(
        made <= takeovers + 2,
        "{made} connections, {takeovers} takeovers"
    );
    let release = device.release(NEW, 64 * KIB);
    let reply = device.send(&ota_create(&[&device.order(&release)]));
    device.assert_ok(&reply.ids);
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn a_wrong_password_is_said_and_knocked_with_slowly_and_the_right_one_lets_it_in() {
    let options = MosquittoOptions {
        account: Some(("dock", "Right-Pass-7")),
        ..MosquittoOptions::default()
    };
    let device = Device::off_at(options, "");
    let secret = device.machine.layout().data().with_file_name("password");
    fs::write(&secret, "Wrong-Pass-7\n").unwrap();
    device.configure(
        "kind = \"mqtt\"\n",
        &format!(
            "kind = \"mqtt\"\nusername = \"dock\"\npassword = {{ file = {} }}\n",
            json!(secret)
        ),
    );
    let began = Instant::now();
    device.machine.power_on().unwrap();
    // A loop without pauses makes so many within a few milliseconds; these take a second by their jittered pauses of up to a second,
    // in all but one of ten million runs.
    assert!(device.proxy.wait_for_connections(15, PATIENCE));
    assert!(began.elapsed() > Duration::from_secs(1));
    let link = link(&device);
    let reason = link["reason"].as_str().unwrap();
    assert!(
        link["up"] == false && (reason.contains("password") || reason.contains("authorised")),
        "{link}"
    );
    let log = fs::read_to_string(device.machine.layout().log()).unwrap();
    assert!(!log.contains("Wrong-Pass-7"), "a password in the log");

    fs::write(&secret, "Right-Pass-7\n").unwrap();
    device.machine.lose_power();
    device.switch_on();
    device.ping();
    device.assert_well();
}

#[test]
fn a_filter_that_the_broker_refuses_is_said_and_takes_nothing_else_along() {
    let options = MosquittoOptions {
        refused: Some("thing/product/NM1923221021/events_reply"),
        ..MosquittoOptions::default()
    };
    let device = Device::off_at(options, "");
    device.switch_on();
    let connections = device.proxy.connections();
    let log = fs::read_to_string(device.machine.layout().log()).unwrap();
    let told = log
        .lines()
        .filter(|line| line.contains("the broker refused this topic filter"));
    let told: Vec<&str> = told.collect();
    assert!(
        matches!(told[..], [line] if line.contains("events_reply")),
        "{told:?}"
    );
    let release = device.release(NEW, 64 * KIB);
    device.update(&device.order(&release));
    device.assert_runs(NEW, "b");
    // It is not asked for again and again: one connection in each boot.
    assert_eq!(device.proxy.connections(), connections + 1);
    device.assert_well();
}
