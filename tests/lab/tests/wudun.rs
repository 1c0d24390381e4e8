//! The wudun platform against a device made by hand, over a real broker; and the EMUs of a site.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use otahost_lab::ids::uuid;
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::wudun::site::{self, EMU_OLD, Site, SiteSpec};
use otahost_lab::wudun::{
    Kind, Platform, Sent, emu_upgrade, emu_upgrade_result, emu_version, ota_upgrade,
};
use rumqttc::{Client, Event, MqttOptions, Packet, PublishOptions, QoS};
use serde_json::{Value, json};

const UID: &str = "iYRkfVpi77";
const SOON: Duration = Duration::from_secs(20);

/// A device that says what the test wants.
struct Device {
    client: Client,
    inbox: mpsc::Receiver<(String, Value)>,
    base: String,
}

impl Device {
    fn connect(port: u16) -> Self {
        let options = MqttOptions::new("ems", ("127.0.0.1", port));
        let (client, mut connection) = Client::builder(options).capacity(64).build();
        client
            .subscribe("v1/user/acme/+/ota/+/command", QoS::AtLeastOnce)
            .unwrap();
        let (sender, inbox) = mpsc::channel();
        let (ready, subscribed) = mpsc::channel();
        thread::spawn(move || {
            // Ends at the first error: with the broker, or with the test.
            for event in connection.iter().map_while(Result::ok) {
                match event {
                    Event::Incoming(Packet::SubAck(_)) => ready.send(()).unwrap(),
                    Event::Incoming(Packet::Publish(publish)) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                        let message = serde_json::from_slice(&publish.payload).unwrap();
                        if sender.send((topic, message)).is_err() {
                            return;
                        }
                    }
                    _ => {}
                }
            }
        });
        subscribed.recv_timeout(SOON).unwrap();
        let base = site::bases(UID)[0].clone();
        Device {
            client,
            inbox,
            base,
        }
    }

    fn next(&self) -> (String, Value) {
        self.inbox.recv_timeout(SOON).unwrap()
    }

    fn publish(&self, kind: Kind, message: &Value) {
        let topic = format!("{}/ota/{}/result", self.base, kind.level());
        let payload = message.to_string().into_bytes();
        self.client
            .publish(topic, payload, PublishOptions::at_least_once())
            .unwrap();
    }

    fn says(&self, to: &Sent, data: &Value) {
        self.publish(to.kind, &result(to, data));
    }

    fn status(&self, to: &Sent, status: u8) {
        self.says(to, &json!({ "source": "ems_II", "status": status }));
    }
}

/// A result as it should be.
fn result(to: &Sent, data: &Value) -> Value {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let mut message = json!({
        "trace_id": to.trace_id, "mid": uuid(), "type": to.kind.word(), "reply": to.mid, "device_uid": UID,
        "timestamp": now.unwrap().as_millis() as u64, "data": data,
    });
    if let Some(id) = to.message.get("sub_device_id") {
        message["sub_device_id"] = id.clone();
    }
    message
}

struct Bench {
    platform: Platform,
    device: Device,
    _broker: Mosquitto,
}

impl Bench {
    fn start() -> Self {
        let broker = Mosquitto::start().unwrap();
        Bench {
            platform: Platform::connect(broker.port(), UID).unwrap(),
            device: Device::connect(broker.port()),
            _broker: broker,
        }
    }

    fn send(&self, kind: Kind, message: &Value) -> Sent {
        self.platform
            .send(&self.device.base, kind, message)
            .unwrap()
    }

    fn upgrade(&self) -> Sent {
        self.send(Kind::Upgrade, &ota_upgrade("ems_II", "http://x/y", "0"))
    }

    /// Everything the device said before has been judged when this returns.
    fn violations(&self) -> Vec<String> {
        let last = self.send(Kind::EmuVersion, &emu_version());
        self.device.says(&last, &json!([]));
        self.platform.await_answers(&last, 1, SOON).unwrap();
        self.platform.violations()
    }

    /// What the device said last broke exactly one rule, the one with these words.
    fn breaks(&self, words: &str) {
        let found = self.violations();
        assert!(
            found.iter().any(|v| v.contains(words)),
            "{words}: {found:?}"
        );
    }
}

#[test]
fn a_command_is_the_vendors_with_fresh_ids_on_the_topic_of_its_kind() {
    let bench = Bench::start();
    for (kind, level, message) in [
        (
            Kind::Upgrade,
            "upgrade",
            ota_upgrade("ems_I", "http://x", "m"),
        ),
        (Kind::EmuVersion, "emu_version", emu_version()),
        (
            Kind::EmuUpgrade,
            "emu_upgrade",
            emu_upgrade(7, "http://x", "m"),
        ),
        (
            Kind::EmuUpgradeResult,
            "emu_upgrade_result",
            emu_upgrade_result(7),
        ),
    ] {
        let sent = bench.send(kind, &message);
        let (topic, got) = bench.device.next();
        assert_eq!(topic, format!("v1/user/acme/{UID}/ota/{level}/command"));
        assert_eq!(got, sent.message);
        assert_eq!(
            (&got["mid"], &got["device_uid"]),
            (&json!(sent.mid), &json!(UID))
        );
        let fields = |value: &Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(fields(&got), fields(&message), "those of the vendor's page");
        assert_eq!(got["type"], json!(kind.word()));
    }
}

#[test]
fn what_a_device_says_by_the_book_is_no_violation() {
    let bench = Bench::start();
    for statuses in [&[1][..], &[3], &[2, 4], &[2, 5], &[2, 6]] {
        let sent = bench.upgrade();
        for status in statuses {
            bench.device.status(&sent, *status);
        }
        let answers = bench.platform.await_answers(&sent, statuses.len(), SOON);
        assert_eq!(answers.unwrap().len(), statuses.len());
    }
    let sent = bench.send(Kind::EmuUpgrade, &emu_upgrade(2, "http://x/y", "0"));
    bench
        .device
        .says(&sent, &json!({ "device_id": 2, "download_status": 1 }));
    let sent = bench.send(Kind::EmuUpgradeResult, &emu_upgrade_result(2));
    let emu = json!({
        "device_id": 2, "status": 1, "emu_upgrade_success": null, "emu_upgrade_device": 3, "emu_upgrade_status": 3,
        "emu_upgrade_content": 40, "emu_product_sn": "emu-v1.0.0",
    });
    bench.device.says(&sent, &emu);
    let sent = bench.send(Kind::EmuVersion, &emu_version());
    let away = json!({ "device_id": 4, "status": 2, "emu_product_sn": "" });
    bench.device.says(&sent, &json!([emu, away]));
    assert_eq!(bench.violations(), Vec::<String>::new());
}

#[test]
fn statuses_in_an_order_the_vendor_does_not_know_are_violations() {
    for statuses in [
        &[4][..],
        &[5],
        &[2, 2],
        &[2, 1],
        &[2, 3],
        &[2, 4, 4],
        &[1, 2],
        &[3, 3],
        &[7],
    ] {
        let bench = Bench::start();
        let sent = bench.upgrade();
        for status in statuses {
            bench.device.status(&sent, *status);
        }
        let found = bench.violations();
        assert_eq!(found.len(), 1, "{statuses:?}: {found:?}");
        assert!(found[0].contains("status Some"), "{statuses:?}: {found:?}");
    }
}

#[test]
fn a_command_sent_again_may_be_answered_by_the_same_once_more_and_by_nothing_else() {
    let bench = Bench::start();
    let sent = bench.upgrade();
    bench.device.status(&sent, 2);
    bench.device.status(&sent, 4);
    bench.platform.await_answers(&sent, 2, SOON).unwrap();
    bench.platform.send_again(&sent).unwrap();
    bench.device.status(&sent, 2);
    bench.device.status(&sent, 4);
    assert_eq!(bench.violations(), Vec::<String>::new());
    bench.device.status(&sent, 5);
    bench.breaks("status Some(5)");

    let bench = Bench::start();
    let sent = bench.send(Kind::EmuUpgrade, &emu_upgrade(2, "http://x/y", "0"));
    let data = json!({ "device_id": 2, "download_status": 1 });
    bench.device.says(&sent, &data);
    bench.platform.await_answers(&sent, 1, SOON).unwrap();
    bench.platform.send_again(&sent).unwrap();
    bench.device.says(&sent, &data);
    assert_eq!(bench.violations(), Vec::<String>::new());
    bench.device.says(&sent, &data);
    bench.breaks("a second result");
}

#[test]
fn a_wrong_envelope_is_a_violation() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 11] = [
        ("is no UUID", |m| m["mid"] = json!("1")),
        ("was used before", |m| m["mid"] = m["reply"].clone()),
        ("was sent with trace_id", |m| m["trace_id"] = json!("t")),
        ("no mid or no trace_id", |m| m["mid"] = json!(7)),
        ("type is", |m| m["type"] = json!("upgrade")),
        ("device_uid is", |m| m["device_uid"] = json!("test")),
        ("reply is", |m| m["reply"] = json!("r")),
        ("timestamp is", |m| m["timestamp"] = json!(1)),
        ("sub_device_id is", |m| m["sub_device_id"] = json!(2)),
        ("no field of the vendor's", |m| m["bid"] = json!("b")),
        ("source is", |m| m["data"]["source"] = json!("ems_I")),
    ];
    let bench = Bench::start();
    for (words, change) in changes {
        let sent = bench.upgrade();
        let mut message = result(&sent, &json!({ "source": "ems_II", "status": 1 }));
        change(&mut message);
        bench.device.publish(Kind::Upgrade, &message);
        bench.breaks(words);
    }
    // The wrong topic, and no JSON.
    let sent = bench.upgrade();
    bench
        .device
        .publish(Kind::EmuUpgrade, &result(&sent, &json!({})));
    bench.breaks("no emu_upgrade was sent");
    for (topic, words) in [
        (
            format!("v1/wudun/EMS200/{UID}/ota/upgrade/result"),
            "its command came on",
        ),
        ("v1/elsewhere".to_owned(), "nobody subscribes"),
    ] {
        let payload = result(&sent, &json!({ "source": "ems_II", "status": 1 })).to_string();
        let options = PublishOptions::at_least_once();
        bench
            .device
            .client
            .publish(topic, payload, options)
            .unwrap();
        bench.breaks(words);
    }
    let (topic, options) = (
        format!("v1/user/acme/{UID}/ota/upgrade/result"),
        PublishOptions::at_least_once(),
    );
    bench.device.client.publish(topic, "{", options).unwrap();
    bench.breaks("no JSON object");
}

#[test]
fn a_standing_out_of_the_vendors_ranges_is_a_violation() {
    let bench = Bench::start();
    for (field, value) in [
        ("status", json!(4)),
        ("emu_upgrade_status", json!(0)),
        ("emu_upgrade_content", json!(101)),
        ("emu_upgrade_device", json!("3")),
        ("emu_upgrade_success", json!(1024)),
        ("emu_product_sn", json!(1)),
        ("device_id", json!(null)),
    ] {
        let sent = bench.send(Kind::EmuUpgradeResult, &emu_upgrade_result(2));
        let mut emu = json!({ "device_id": 2, "status": 1 });
        emu[field] = value;
        bench.device.says(&sent, &emu);
        bench.breaks(field);
    }
    let sent = bench.send(Kind::EmuVersion, &emu_version());
    let twice = json!({ "device_id": 2, "status": 1 });
    bench.device.says(&sent, &json!([twice, twice]));
    bench.breaks("is there twice");
}

/// What the EMS does with an EMU: unpacks, and calls the program that its configuration names.
fn push(site: &Site, package: &str) -> Output {
    Command::new("/bin/sh")
        .arg(site.dir().join("emu-push"))
        .arg(site.dir().join("emus"))
        .args([package, "emu-2", ""])
        .output()
        .unwrap()
}

#[test]
fn an_emu_runs_what_was_handed_to_it_and_keeps_account() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::create(dir.path(), &SiteSpec::new(UID, 1, &[2, 3])).unwrap();
    let (emu, other) = (site.emu(2), site.emu(3));
    let package = tempfile::tempdir().unwrap();
    fs::write(package.path().join("p"), site::TAR_GZ).unwrap();
    let unpacked = Command::new("tar")
        .args(["-xzf", "p"])
        .current_dir(&package)
        .status();
    assert!(unpacked.unwrap().success());
    let package = package.path().display().to_string();

    emu.refuse(true).unwrap();
    assert_eq!(push(&site, &package).status.code(), Some(1));
    assert_eq!(emu.version().as_deref(), Some(EMU_OLD));
    assert_eq!((emu.is_new(), emu.deliveries()), (false, (1, 0)));

    emu.refuse(false).unwrap();
    let said = String::from_utf8(push(&site, &package).stdout).unwrap();
    for line in said.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    assert_eq!((emu.is_new(), emu.deliveries()), (true, (2, 1)));
    assert_eq!(other.version().as_deref(), Some(EMU_OLD));
    other.take_away().unwrap();
    assert_eq!(other.version(), None);
}
