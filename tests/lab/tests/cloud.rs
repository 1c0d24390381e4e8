//! The cloud against a device made by hand, over a real broker.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use otahost_lab::broker::Broker;
use otahost_lab::cloud::{Cloud, CloudError, Ids, Status};
use otahost_lab::proxy::Proxy;
use rumqttc::{Client, Event, MqttOptions, Packet, PublishOptions, QoS};
use serde_json::{Value, json};

const SN: &str = "NM1";
const SOON: Duration = Duration::from_secs(20);

/// A device that does what the test says and shows what it gets.
struct Device {
    client: Client,
    inbox: mpsc::Receiver<(String, Value)>,
}

impl Device {
    fn connect(port: u16) -> Self {
        let options = MqttOptions::new("device", ("127.0.0.1", port));
        let (client, mut connection) = Client::builder(options).capacity(64).build();
        let filters = [
            "thing/product/NM1/services",
            "thing/product/NM1/events_reply",
            "sys/product/NM1/status_reply",
        ];
        for filter in filters {
            client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        }
        let (sender, inbox) = mpsc::channel();
        let (ready, subscribed) = mpsc::channel();
        thread::spawn(move || {
            let mut answers = 0;
            // Ends at the first error: with the broker, or with the test.
            for event in connection.iter().map_while(Result::ok) {
                match event {
                    Event::Incoming(Packet::SubAck(_)) => {
                        answers += 1;
                        if answers == filters.len() {
                            ready.send(()).unwrap();
                        }
                    }
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
        Device { client, inbox }
    }

    fn publish(&self, topic: &str, message: &Value) {
        let payload = message.to_string().into_bytes();
        self.client
            .publish(topic.to_owned(), payload, PublishOptions::at_least_once())
            .unwrap();
    }

    fn event(&self, tid: &str, bid: &str, status: &str, percent: u8, need_reply: u8) {
        let progress = json!({"percent": percent, "step_key": "download_firmware"});
        let message = json!({
            "tid": tid, "bid": bid, "timestamp": 1, "gateway": SN, "method": "ota_progress", "need_reply": need_reply,
            "data": {"result": 0, "output": {"status": status, "progress": progress}},
        });
        self.publish("thing/product/NM1/events", &message);
    }

    fn next(&self) -> (String, Value) {
        self.inbox.recv_timeout(SOON).unwrap()
    }

    fn reply(&self, tid: &Value, bid: &Value) {
        let message = json!({
            "tid": tid, "bid": bid, "timestamp": 1, "gateway": SN, "method": "ota_create",
            "data": {"result": 0, "output": {"status": "sent"}},
        });
        self.publish("thing/product/NM1/services_reply", &message);
    }
}

fn command() -> Value {
    json!({"tid": "old", "bid": "old", "timestamp": 0, "method": "ota_create", "data": {"devices": []}})
}

fn start() -> (Broker, Cloud, Device) {
    let broker = Broker::start();
    let cloud = Cloud::connect(broker.port(), SN).unwrap();
    let device = Device::connect(broker.port());
    (broker, cloud, device)
}

#[test]
fn a_command_goes_out_with_fresh_ids_and_only_both_of_them_make_a_reply() {
    let (_broker, cloud, device) = start();
    let ids = cloud.send_ota_create(&command()).unwrap();
    let (topic, message) = device.next();
    assert_eq!(
        (topic.as_str(), &message["method"]),
        ("thing/product/NM1/services", &json!("ota_create"))
    );
    assert_eq!(
        (&message["tid"], &message["bid"]),
        (&json!(ids.tid), &json!(ids.bid))
    );
    assert!(message["timestamp"].as_u64().unwrap() > 0);

    device.reply(&message["tid"], &json!("another"));
    device.reply(&message["tid"], &message["bid"]);
    let reply = cloud.await_reply(&ids, SOON).unwrap();
    assert_eq!((reply.result, reply.status), (0, Some(Status::Sent)));
    assert_eq!(cloud.violations().len(), 1, "{:?}", cloud.violations());
}

#[test]
fn a_command_without_an_answer_is_sent_three_times_with_fresh_ids() {
    let (_broker, cloud, device) = start();
    let device = thread::spawn(move || {
        let ids: Vec<(Value, Value)> = (0..3)
            .map(|_| device.next().1)
            .map(|m| (m["tid"].clone(), m["bid"].clone()))
            .collect();
        device.reply(&ids[2].0, &ids[2].1);
        (device, ids)
    });
    let reply = cloud.send_with_retries(&command()).unwrap();
    let (_device, ids) = device.join().unwrap();
    assert_eq!(json!(reply.ids.tid), ids[2].0);
    assert!(ids[0].0 != ids[1].0 && ids[1].0 != ids[2].0 && ids[0].1 != ids[1].1);
}

#[test]
fn topology_and_events_that_ask_for_it_are_answered_with_their_own_ids() {
    let (_broker, cloud, device) = start();
    let data = json!({"type": 1, "sub_type": 0, "sub_devices": []});
    let topo =
        json!({"tid": "t1", "bid": "b1", "timestamp": 1, "method": "update_topo", "data": data});
    device.publish("sys/product/NM1/status", &topo);
    let (topic, answer) = device.next();
    assert_eq!(topic, "sys/product/NM1/status_reply");
    assert_eq!(
        (&answer["tid"], &answer["bid"], &answer["data"]["result"]),
        (&json!("t1"), &json!("b1"), &json!(0))
    );
    cloud.await_online(1, SOON).unwrap();

    let ids = cloud.send_ota_create(&command()).unwrap();
    device.next();
    device.event("e1", &ids.bid, "in_progress", 10, 0);
    device.event("e2", &ids.bid, "ok", 100, 1);
    let (topic, answer) = device.next();
    assert_eq!(
        (topic.as_str(), &answer["tid"]),
        ("thing/product/NM1/events_reply", &json!("e2"))
    );
    assert_eq!(cloud.violations(), Vec::<String>::new());
}

#[test]
fn the_same_result_again_is_a_copy_and_another_one_is_another() {
    let (_broker, cloud, device) = start();
    let ids = cloud.send_ota_create(&command()).unwrap();
    for tid in ["e1", "e1", "e2"] {
        device.event(tid, &ids.bid, "ok", 100, 1);
    }
    cloud
        .await_progress(&ids.bid, SOON, |progress| progress.ids.tid == "e2")
        .unwrap();
    assert_eq!(
        cloud
            .results()
            .iter()
            .map(|result| result.copies)
            .collect::<Vec<_>>(),
        [2, 1]
    );
    assert_eq!(cloud.violations().len(), 1, "{:?}", cloud.violations());
}

#[test]
fn nothing_is_lost_while_the_cloud_is_away() {
    let broker = Broker::start();
    let proxy = Proxy::to_port(broker.port());
    let cloud = Cloud::connect(proxy.port(), SN).unwrap();
    let device = Device::connect(broker.port());
    let ids = cloud.send_ota_create(&command()).unwrap();
    device.next();
    proxy.refuse(true);
    proxy.cut();
    device.event("e1", &ids.bid, "ok", 100, 1);
    assert!(matches!(
        cloud.await_terminal(&ids.bid, Duration::ZERO),
        Err(CloudError::Timeout { .. })
    ));
    proxy.refuse(false);
    let end = cloud.await_terminal(&ids.bid, SOON).unwrap();
    assert_eq!(
        end.ids,
        Ids {
            tid: "e1".to_owned(),
            bid: ids.bid
        }
    );
}

#[test]
fn a_cloud_that_is_told_to_be_silent_answers_no_event() {
    let (_broker, cloud, device) = start();
    let ids = cloud.send_ota_create(&command()).unwrap();
    device.next();
    cloud.withhold_replies(true);
    device.event("e1", &ids.bid, "ok", 100, 1);
    cloud.await_terminal(&ids.bid, SOON).unwrap();
    cloud.withhold_replies(false);
    device.event("e1", &ids.bid, "ok", 100, 1);
    // Had the first been answered, there would be two answers before the command that follows.
    assert_eq!(device.next().1["tid"], "e1");
    cloud.send_ota_create(&command()).unwrap();
    assert_eq!(device.next().1["method"], "ota_create");
}
