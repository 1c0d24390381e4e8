//! `ota_create` by the real process: the agent as a child of a machine, a real broker, the vendor's cloud and a file server. One
//! promise a test, named after the protocol's list (D01 to D16).
//!
//! What concerns the image is in `images.rs`, what concerns the broker in `broker.rs`, what a person at the device does beside the
//! cloud in `operator.rs`; D15 is in `kills.rs`.
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_e2e::device::{ATTEMPTS, Device, NEW, PATIENCE, SERIAL, eventually, ota_create};
use otahost_lab::cloud::{Progress, Status};
use otahost_lab::files::{Fault, Request};
use otahost_lab::machine::SlotState;
use serde_json::{Value, json};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Where each request began, by its `Range`; 0 for the whole file.
fn starts(requests: &[Request]) -> Vec<u64> {
    let start = |request: &Request| match request.range() {
        None => 0,
        Some(range) => range
            .trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse()
            .unwrap(),
    };
    requests.iter().map(start).collect()
}

#[test]
fn d01_the_reply_comes_before_the_first_byte_is_fetched() {
    let device = Device::online();
    let release = device.release(NEW, 64 * KIB);
    device.files.fault(&release.name, 1, Fault::StallAfter(0));
    let reply = device.send(&ota_create(&[&device.order(&release)]));
    assert_eq!((reply.result, reply.status), (0, Some(Status::Sent)));
    assert_eq!(
        (&reply.message["method"], &reply.message["gateway"]),
        (&json!("ota_create"), &json!(SERIAL))
    );
    device.await_requests(&release, 1);
    assert_eq!(device.files.bytes_sent(), 0);

    device.files.release();
    device.assert_ok(&reply.ids);
    device.assert_well();
}

#[test]
fn d02_an_update_reboots_into_the_new_version_and_ends_with_ok_and_100() {
    let device = Device::online();
    let release = device.release(NEW, MIB);
    // Of reports that come while the adapter is busy it is told the last.
    let half = Fault::StallAfter(MIB / 2);
    device.files.fault(&release.name, 1, half);
    let ids = device.command(&device.order(&release));
    let downloads = |progress: &Progress| progress.step_key == "download_firmware";
    let told = device.cloud.await_progress(&ids.bid, PATIENCE, downloads);
    told.unwrap();
    device.await_sent(MIB / 2);
    device.files.release();
    device.assert_ok(&ids);

    device.assert_runs(NEW, "b");
    assert_eq!(
        device.machine.selector().unwrap().slots["a"].state,
        SlotState::Good,
        "the way back stays"
    );
    assert_eq!(device.machine.boot_count(), 2);
    assert_eq!(device.files.requests().len(), 1);
    // The cloud's book checks each event: the status is one of the eight, the percentage does not fall, nothing follows the end.
    let events = device.cloud.events();
    assert!(
        events.iter().all(|event| event.ids.bid == ids.bid),
        "{events:#?}"
    );
    let result = &device.cloud.results()[..];
    assert_eq!(result.len(), 1, "{result:#?}");
    let steps: Vec<&str> = events.iter().map(|event| event.step_key.as_str()).collect();
    assert!(steps.contains(&"download_firmware"), "{steps:?}");
    assert_eq!(steps.last(), Some(&"upgrade_firmware"));
    eventually("an osd that says idle", || {
        device
            .cloud
            .osd()
            .is_some_and(|osd| osd["mode_code"] == json!(0))
    });
    device.assert_well();
}

#[test]
fn d02_a_second_update_goes_back_to_the_first_slot() {
    let device = Device::online();
    device.update(&device.order(&device.release(NEW, 64 * KIB)));
    device.update(&device.order(&device.release("1.3.0", 64 * KIB)));
    device.assert_runs("1.3.0", "a");
    assert_eq!(device.machine.boot_count(), 3);
    device.assert_well();
}

#[test]
fn d03_an_md5_that_differs_in_one_nibble_fails_and_changes_nothing() {
    let device = Device::online();
    let release = device.release(NEW, 256 * KIB);
    let mut order = device.order(&release);
    let last = if release.file.md5.ends_with('0') {
        "1"
    } else {
        "0"
    };
    order["md5"] = json!(format!("{}{last}", &release.file.md5[..31]));
    let ids = device.command(&order);
    device.assert_failed(&ids, 312_003, "VERIFY_FAILED");
    device.assert_unchanged();
    device.assert_well();

    // And it is not held against the right one.
    device.update(&device.order(&release));
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn d04_an_md5_in_upper_case_is_accepted() {
    let device = Device::online();
    let mut order = device.order(&device.release(NEW, 64 * KIB));
    order["md5"] = json!(order["md5"].as_str().unwrap().to_uppercase());
    device.update(&order);
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn d05_a_body_that_ends_early_is_resumed_by_range_from_what_is_there() {
    let device = Device::online();
    let release = device.release(NEW, 512 * KIB);
    let missing = 100 * KIB;
    device
        .files
        .fault(&release.name, 1, Fault::Shorter(missing));
    device.update(&device.order(&release));
    let requests = device.files.requests();
    assert_eq!(starts(&requests), [0, release.file.size - missing]);
    assert_eq!(device.files.bytes_sent(), release.file.size);
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn d05_a_connection_that_is_cut_is_resumed_by_range() {
    let device = Device::online();
    let release = device.release(NEW, MIB);
    let half = release.file.size / 2;
    device.files.fault(&release.name, 1, Fault::CutAfter(half));
    device.update(&device.order(&release));
    let starts = starts(&device.files.requests());
    // What the server gave to the network when the line broke may be lost.
    assert!(
        starts.len() == 2 && starts[0] == 0 && (1..=half).contains(&starts[1]),
        "{starts:?}"
    );
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn d05_a_body_that_always_ends_early_fails_after_some_attempts_and_is_resumed_by_the_next_command()
{
    let device = Device::online();
    let release = device.release(NEW, 512 * KIB);
    let missing = 100 * KIB;
    let partial = release.file.size - missing;
    device
        .files
        .fault_always(&release.name, Fault::Shorter(missing));
    let ids = device.command(&device.order(&release));
    device.assert_failed(&ids, 312_013, "DOWNLOAD_FAILED");
    let mut expected = vec![0];
    expected.resize(ATTEMPTS, partial);
    assert_eq!(starts(&device.files.requests()), expected);
    device.assert_unchanged();

    device.files.heal(&release.name);
    let mut order = device.order(&release);
    order["file_url"] = json!(format!(
        "{}?X-Signature=another",
        device.files.url(&release.name)
    ));
    device.update(&order);
    assert_eq!(starts(&device.files.requests()).last(), Some(&partial));
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn d06_a_body_longer_than_file_size_fails_soon_behind_it() {
    let device = Device::online();
    // Once as a stream without a length, once announced.
    for (version, announced) in [("1.2.0", false), ("1.2.1", true)] {
        let release = device.release(version, 128 * KIB);
        let mut long = vec![0xa5; 4 * MIB as usize];
        let bytes = std::fs::read(device.medium(&release)).unwrap();
        long[..bytes.len()].copy_from_slice(&bytes);
        device.files.put(&release.name, long);
        // Whoever does not see it soon waits there and asks again, or has what must not be sent long before it is done.
        let fault = match announced {
            true => Fault::StallAfter(release.file.size + 64 * KIB),
            false => Fault::Longer(0),
        };
        device.files.throttle(Some(128 * KIB));
        device.files.fault_always(&release.name, fault);
        let before = device.files.requests().len();
        let ids = device.command(&device.order(&release));
        device.assert_failed(&ids, 312_003, "DOWNLOAD_FAILED");
        let requests = device.files.requests();
        assert_eq!(
            requests.len(),
            before + 1,
            "no second attempt: {requests:#?}"
        );
        let sent = requests[before].sent;
        assert!(sent <= release.file.size + MIB, "{sent} bytes");
        device.assert_unchanged();
    }
    device.assert_well();
}

#[test]
fn d07_the_same_command_three_times_with_new_ids_is_one_job_under_the_last_ids() {
    let device = Device::online();
    let release = device.release(NEW, 256 * KIB);
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(64 * KIB));
    let order = device.order(&release);
    device.command(&order);
    device.await_requests(&release, 1);
    device.command(&order);
    let last = device.command(&order);
    device.files.release();
    device.assert_ok(&last);
    assert_eq!(device.cloud.results().len(), 1);
    assert_eq!(device.files.requests().len(), 1);
    assert_eq!(device.machine.boot_count(), 2);
    device.assert_well();
}

#[test]
fn d08_another_version_while_one_is_installed_is_rejected_and_the_first_ends_well() {
    let device = Device::online();
    let release = device.release(NEW, 256 * KIB);
    let other = device.release("1.3.0", 64 * KIB);
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(64 * KIB));
    let ids = device.command(&device.order(&release));
    device.await_sent(64 * KIB);

    let mut renamed = device.order(&release);
    renamed["product_version"] = json!("1.2.0.70");
    for order in [device.order(&other), renamed] {
        let reply = device.send(&ota_create(&[&order]));
        assert_eq!(
            (reply.result, reply.status),
            (312_014, Some(Status::Rejected))
        );
    }

    device.files.release();
    device.assert_ok(&ids);
    assert_eq!(device.cloud.results().len(), 1);
    assert_eq!(device.files.requests().len(), 1);
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn d09_a_command_sent_again_with_the_same_ids_gets_the_same_reply_and_makes_no_second_job() {
    let device = Device::online();
    let release = device.release(NEW, 256 * KIB);
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(64 * KIB));
    let message = ota_create(&[&device.order(&release)]);
    let ids = device.send(&message).ids;
    device.await_sent(64 * KIB);
    device.cloud.send_with(&message, &ids).unwrap();
    device.ping();
    device.cloud.send_with(&message, &ids).unwrap();
    device.ping();
    let said = device.replies(&ids);
    assert_eq!(said, vec![said[0].clone(); 3]);

    device.files.release();
    device.assert_ok(&ids);
    let jobs = device.json(&["jobs"]);
    assert_eq!(jobs.as_array().map(Vec::len), Some(1), "{jobs}");
    assert_eq!(device.files.requests().len(), 1);
    device.assert_well();

    // After the end it is that result's late twin, no new attempt.
    device.cloud.send_with(&message, &ids).unwrap();
    device.ping();
    let late = device.replies(&ids).pop().unwrap();
    assert_eq!(late["data"]["output"]["status"], json!("ok"), "{late}");
    assert_eq!(device.json(&["jobs"]).as_array().map(Vec::len), Some(1));
    assert_eq!(device.files.requests().len(), 1);
    device.assert_well();
}

/// The command is refused with 312012, and nothing else happens.
fn assert_refused(device: &Device, message: &Value) {
    let reply = device.send(message);
    assert_eq!(
        (reply.result, reply.status),
        (312_012, Some(Status::Rejected)),
        "{message}"
    );
}

fn assert_nothing_happened(device: &Device) {
    // What would have been started by what was sent before has been, by now.
    device.ping();
    assert_eq!(device.json(&["jobs"]), json!([]));
    assert!(device.files.requests().is_empty());
    assert!(device.cloud.events().is_empty());
    device.assert_unchanged();
    device.assert_well();
}

#[test]
fn d10_orders_without_a_usable_file_are_refused() {
    let device = Device::online();
    let vendors: Value = serde_json::from_str(include_str!(
        "../../../plugins/dji/fixtures/dji_1_11_3_ota_create.json"
    ))
    .unwrap();
    assert_refused(&device, &vendors);
    // The same with serial numbers that the device knows.
    for index in [0, 1] {
        let mut order = vendors["data"]["devices"][index].clone();
        order["sn"] = json!(SERIAL);
        assert_refused(&device, &ota_create(&[&order]));
    }
    let order = device.order(&device.release(NEW, 64 * KIB));
    for field in ["file_url", "md5", "file_size", "product_version", "sn"] {
        let mut order = order.clone();
        order.as_object_mut().unwrap().remove(field);
        assert_refused(&device, &ota_create(&[&order]));
    }
    let mut elsewhere = order;
    elsewhere["file_url"] = json!("http://192.0.2.1/public/dock.img");
    assert_refused(&device, &ota_create(&[&elsewhere]));
    assert_nothing_happened(&device);
}

#[test]
fn d11_no_device_three_devices_or_an_unknown_one_are_refused() {
    let device = Device::online();
    let order = device.order(&device.release(NEW, 64 * KIB));
    let named = |sn: &str| {
        let mut order = order.clone();
        order["sn"] = json!(sn);
        order
    };
    assert_refused(&device, &ota_create(&[]));
    assert_refused(
        &device,
        &ota_create(&[&order, &named("DRONE1"), &named("DRONE2")]),
    );
    assert_refused(&device, &ota_create(&[&named("NM1923221022")]));
    assert_refused(&device, &ota_create(&[&order, &named("NM1923221022")]));
    assert_refused(&device, &json!({ "method": "ota_create", "data": {} }));
    assert_nothing_happened(&device);
}

#[test]
fn d12_what_cannot_be_answered_is_dropped_and_counted_and_the_agent_lives() {
    let device = Device::online();
    let release = device.release(NEW, 64 * KIB);
    let whole = |without: &str| {
        let mut message = ota_create(&[&device.order(&release)]);
        for (name, value) in [
            ("tid", json!("t")),
            ("bid", json!("b")),
            ("timestamp", json!(1)),
        ] {
            message[name] = value;
        }
        message.as_object_mut().unwrap().remove(without);
        message.to_string().into_bytes()
    };
    let dropped = [
        whole("bid"),
        whole("tid"),
        whole("method"),
        b"no JSON".to_vec(),
        b"[]".to_vec(),
        Vec::new(),
        b"{\"tid\":\"\xff\"}".to_vec(),
        vec![b'['; 200 * KIB as usize],
    ];
    for payload in &dropped {
        device.cloud.send_raw(payload).unwrap();
    }
    device.ping();
    let log = std::fs::read_to_string(device.machine.layout().log()).unwrap();
    let count = format!("({} so far)", dropped.len());
    assert!(log.contains(&count), "{count} is not in {log}");
    assert_eq!(device.cloud.replies().len(), 1, "that to the ping");
    assert_nothing_happened(&device);
}

#[test]
fn d13_a_method_nobody_knows_is_answered_with_314000() {
    let device = Device::online();
    let reply = device.send(&json!({ "method": "reboot_the_moon", "data": { "x": 1 } }));
    assert_eq!(reply.result, 314_000);
    assert_eq!(reply.message["method"], json!("reboot_the_moon"));
    assert_nothing_happened(&device);
}

#[test]
fn d16_a_serial_number_that_would_break_topics_is_a_fault_of_the_configuration() {
    for sn in ["a/b", "+", "#", ""] {
        let device = Device::off("");
        device.configure(
            &format!("gateway_sn = \"{SERIAL}\""),
            &format!("gateway_sn = \"{sn}\""),
        );
        // The agent runs all the same, without this adapter: firmware that is on trial must be confirmed by somebody.
        device.machine.power_on().unwrap();
        eventually("the adapter to be set aside", || {
            let said = device.cli(&["status", "--json"]).end();
            let status: Value = serde_json::from_str(&said.out).unwrap_or_default();
            let why = &status["adapters"][0]["health"]["set-aside"]["why"];
            why.as_str().is_some_and(|why| why.contains("gateway_sn"))
        });
        let said = device.cli(&["check"]).end();
        assert_eq!(said.code(), Some(3), "{sn:?}: {}{}", said.out, said.err);
        let words = format!("{}{}", said.out, said.err);
        assert!(words.contains("gateway_sn"), "{sn:?}: {words}");
    }
}
