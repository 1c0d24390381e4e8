//! What the cloud may send on `services`, and the one reply it gets. D01, D04, D07 to D13 and D16.

use crate::cloud::{
    REPLIES, SERVICES, accept, at, bench, bench_with, command, is_durable, only, send,
};
use otahost_adapter::bench::{Bench, published, started};
use otahost_adapter::{Effect, Health, JobPlan, Message, Phase, Reason, Verdict};
use serde_json::{Value, json};

/// The reply refuses with this number, and nothing is started.
fn refused(effects: &[Effect], code: u32) -> Value {
    let reply = only(REPLIES, effects);
    assert_eq!(reply["data"]["result"], code);
    assert_eq!(reply["data"]["output"]["status"], "rejected");
    assert_eq!(
        effects.len(),
        1,
        "a refusal is a reply and nothing else: {effects:?}"
    );
    reply
}

#[test]
fn d01_ota_create_is_answered_with_sent_and_the_same_ids_before_anything_is_fetched() {
    let mut bench = bench();
    let effects = send(
        &mut bench,
        &serde_json::from_str(crate::cloud::PAGE).unwrap(),
    );
    let [Effect::Publish(_), Effect::StartJob(plan)] = effects.as_slice() else {
        panic!("the reply comes first, then the job: {effects:?}")
    };
    let reply = only("thing/product/NM1923221021/services_reply", &effects);
    assert_eq!(reply["tid"], "74045eba-bd24-4106-b455-d3577f3cbf52");
    assert_eq!(reply["bid"], "8ca0ffa2-5e72-4078-8fa9-dc68216ff5d1");
    assert_eq!(reply["method"], "ota_create");
    assert_eq!(reply["timestamp"], bench.world.now);
    let page: Value = serde_json::from_str(include_str!(
        "../../fixtures/autel_page_ota_create_reply_sent.json"
    ))
    .unwrap();
    assert_eq!(reply["data"], page["data"]);
    assert!(is_durable(REPLIES, &effects));
    assert_eq!(plan.installs.len(), 1);
    assert_eq!(plan.installs[0].target, "dock");
    assert_eq!(plan.installs[0].version, "1.2.0.69");
    assert_eq!(plan.installs[0].artifact.size, Some(603_696_942));
}

#[test]
fn d04_an_md5_in_upper_case_is_accepted() {
    let mut bench = bench();
    let mut upper = command("t1", "b1");
    upper["data"]["devices"][0]["md5"] = json!("D1C9DACEC124ABD350379EB44B9143E5");
    let effects = send(&mut bench, &upper);
    assert_eq!(only(REPLIES, &effects)["data"]["result"], 0);
    assert_eq!(
        started(&effects)[0].installs[0].artifact.digests,
        ["md5:d1c9dacec124abd350379eb44b9143e5"]
    );
}

#[test]
fn d07_the_same_command_three_times_with_new_ids_gets_three_replies_and_is_one_job() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    bench
        .report(at(&plan, Phase::Downloading, 301_848_471))
        .unwrap();
    let mut held = plan.clone();
    for (tid, bid) in [("t2", "b2"), ("t3", "b3")] {
        bench.advance(3_000);
        let effects = send(&mut bench, &command(tid, bid));
        let reply = only(REPLIES, &effects);
        assert_eq!((&reply["tid"], &reply["bid"]), (&json!(tid), &json!(bid)));
        assert_eq!(reply["data"]["result"], 0);
        assert_eq!(reply["data"]["output"]["status"], "in_progress");
        assert_eq!(reply["data"]["output"]["progress"]["percent"], 25);
        let again = started(&effects)[0];
        assert_eq!(
            again.key, plan.key,
            "a taken key changes nothing but the context"
        );
        assert_ne!(again.context, held.context);
        held = again.clone();
        bench.set_job(at(&held, Phase::Downloading, 301_848_471));
    }
}

#[test]
fn d08_another_version_while_one_is_installed_is_rejected_with_312014() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    bench
        .report(at(&plan, Phase::Installing, 603_696_942))
        .unwrap();
    let mut other = command("t2", "b2");
    other["data"]["devices"][0]["product_version"] = json!("1.2.0.70");
    let reply = refused(&send(&mut bench, &other), 312_014);
    assert_eq!((&reply["tid"], &reply["bid"]), (&json!("t2"), &json!("b2")));
    let event = only(
        crate::cloud::EVENTS,
        &bench
            .report(at(&plan, Phase::Succeeded, 603_696_942))
            .unwrap(),
    );
    assert_eq!(
        (&event["bid"], &event["data"]["output"]["status"]),
        (&json!("b1"), &json!("ok"))
    );
}

#[test]
fn d08_another_device_while_one_is_updated_is_rejected_too_because_progress_names_no_device() {
    let mut bench = bench();
    let mut drone = otahost_adapter::bench::target("drone", "1");
    drone.attributes.push(otahost_adapter::Field {
        name: "sn".into(),
        value: "DRONE".into(),
    });
    bench.world.targets.push(drone);
    accept(&mut bench, "t1", "b1");
    let mut other = command("t2", "b2");
    other["data"]["devices"][0]["sn"] = json!("DRONE");
    refused(&send(&mut bench, &other), 312_014);
}

#[test]
fn d09_a_command_delivered_twice_gets_the_identical_reply_and_is_one_job() {
    let mut bench = bench();
    let twice = command("t1", "b1");
    let first = send(&mut bench, &twice);
    let plan = started(&first)[0].clone();
    bench
        .report(at(&plan, Phase::Downloading, 301_848_471))
        .unwrap();
    bench.advance(4_000);
    let again = bench
        .send(otahost_adapter::Event::Message(Message {
            link: "cloud".into(),
            topic: SERVICES.into(),
            payload: twice.to_string().into_bytes(),
            duplicate: true,
            retained: false,
        }))
        .unwrap();
    assert_eq!(published(&first)[0].payload, published(&again)[0].payload);
    assert_eq!(again.len(), 1, "nothing but the reply: {again:?}");

    // The same for a command that was itself a repetition.
    let third = send(&mut bench, &command("t3", "b3"));
    bench.set_job(at(started(&third)[0], Phase::Verifying, 603_696_942));
    bench.advance(4_000);
    let fourth = send(&mut bench, &command("t3", "b3"));
    assert_eq!(published(&third)[0].payload, published(&fourth)[0].payload);
    assert!(started(&fourth).is_empty());
}

#[test]
fn d10_a_command_without_usable_files_is_rejected_with_312012_and_no_progress() {
    let mut bench = bench();
    let mut dock = otahost_adapter::bench::target("dji", "1");
    dock.attributes.push(otahost_adapter::Field {
        name: "sn".into(),
        value: "dock_sn".into(),
    });
    let mut drone = otahost_adapter::bench::target("drone", "1");
    drone.attributes.push(otahost_adapter::Field {
        name: "sn".into(),
        value: "drone_sn".into(),
    });
    bench.world.targets.extend([dock, drone]);
    for page in [
        include_str!("../../fixtures/dji_1_11_3_ota_create.json"),
        include_str!("../../fixtures/dji_2026_ota_create.json"),
    ] {
        let page: Value = serde_json::from_str(page).unwrap();
        refused(&send(&mut bench, &page), 312_012);
    }
}

#[test]
fn d10_a_consistency_upgrade_needs_a_file_like_any_other() {
    let of_type = |kind: u64| {
        let mut command = command("t1", "b1");
        command["data"]["devices"][0]["firmware_upgrade_type"] = json!(kind);
        command
    };
    // With a file it is carried out like a regular one.
    let effects = send(&mut bench(), &of_type(2));
    assert_eq!(only(REPLIES, &effects)["data"]["result"], 0);
    assert_eq!(started(&effects)[0].installs[0].version, "1.2.0.69");
    // Without one there is nothing to install: packages are not kept.
    for kind in [2, 3] {
        for field in ["file_url", "md5", "file_size"] {
            let mut command = of_type(kind);
            command["data"]["devices"][0]
                .as_object_mut()
                .unwrap()
                .remove(field);
            refused(&send(&mut bench(), &command), 312_012);
        }
    }
    // A kind that is not carried out is said as such, whether or not it has a file.
    for kind in [0, 1, 4, 5, u64::MAX] {
        let mut command = of_type(kind);
        refused(&send(&mut bench(), &command), 312_010);
        command["data"]["devices"][0]
            .as_object_mut()
            .unwrap()
            .remove("file_url");
        refused(&send(&mut bench(), &command), 312_010);
    }
}

#[test]
fn a_command_without_a_timestamp_is_read_all_the_same() {
    let mut bench = bench();
    let mut page: Value = serde_json::from_str(include_str!(
        "../../fixtures/dji_thirdparty_cdmi_ota_create_no_timestamp.json"
    ))
    .unwrap();
    let reply = refused(&send(&mut bench, &page), 312_012);
    assert_eq!((&reply["tid"], &reply["bid"]), (&json!("t1"), &json!("b1")));
    // Its placeholders filled in, it is a good command.
    let device = command("t", "b")["data"]["devices"][0].clone();
    for field in ["sn", "file_url", "md5"] {
        page["data"]["devices"][0][field] = device[field].clone();
    }
    assert_eq!(started(&send(&mut bench, &page)).len(), 1);
}

#[test]
fn d11_no_device_three_devices_or_an_unknown_one_is_rejected_with_312012() {
    let mut bench = bench();
    let device = command("t", "b")["data"]["devices"][0].clone();
    let with = |devices: Value| {
        let mut command = command("t1", "b1");
        command["data"]["devices"] = devices;
        command
    };
    refused(&send(&mut bench, &with(json!([]))), 312_012);
    refused(
        &send(&mut bench, &with(json!([device, device, device]))),
        312_012,
    );
    let mut unknown = device;
    unknown["sn"] = json!("NOBODY");
    refused(&send(&mut bench, &with(json!([unknown]))), 312_012);
}

#[test]
fn d12_what_cannot_be_answered_is_dropped_and_counted_and_the_next_command_is_answered() {
    let mut bench = bench();
    let mut no_bid = command("t1", "b1");
    no_bid.as_object_mut().unwrap().remove("bid");
    let payloads = [
        no_bid.to_string().into_bytes(),
        b"{not json".to_vec(),
        b"[\"t\",\"b\",\"ota_create\"]".to_vec(),
        vec![b'x'; 1024 * 1024],
        vec![0xff, 0xfe],
        Vec::new(),
    ];
    let count = payloads.len() as u64;
    for payload in payloads {
        assert!(
            bench
                .message_bytes("cloud", SERVICES, payload)
                .unwrap()
                .is_empty()
        );
    }
    assert_eq!(bench.read_state().unwrap().dropped, count);
    for topic in [crate::cloud::EVENTS_REPLY, crate::cloud::STATUS_REPLY] {
        assert!(
            bench
                .message_bytes("cloud", topic, b"null".to_vec())
                .unwrap()
                .is_empty()
        );
    }
    assert_eq!(bench.read_state().unwrap().dropped, count + 2);
    accept(&mut bench, "t2", "b2");
}

#[test]
fn d13_an_unknown_method_is_answered_with_314000_and_the_same_ids() {
    let mut bench = bench();
    let effects = send(
        &mut bench,
        &json!({ "tid": "t1", "bid": "b1", "method": "cover_open", "timestamp": "1", "data": null }),
    );
    let reply = only(REPLIES, &effects);
    assert_eq!(reply["data"]["result"], 314_000);
    assert_eq!(
        (&reply["tid"], &reply["bid"], &reply["method"]),
        (&json!("t1"), &json!("b1"), &json!("cover_open"))
    );
    assert_eq!(effects.len(), 1);
}

#[test]
fn d16_a_gateway_sn_that_would_change_the_topics_is_refused_before_anything_is_subscribed() {
    for sn in ["a/b", "+", "#", ""] {
        let config = json!({ "gateway_sn": sn }).to_string();
        let faults = Bench::<dji::Dji>::new(&config).unwrap_err();
        assert!(faults[0].contains("gateway_sn"), "{faults:?}");
    }
}

#[test]
fn what_the_host_would_refuse_is_rejected_in_the_reply() {
    for (code, stage, number) in [
        ("policy", "admit", 312_015),
        ("not-ready", "admit", 312_015),
        ("not-granted", "admit", 312_012),
        ("unknown-target", "admit", 312_012),
        ("offline", "admit", 312_022),
        ("no-space", "admit", 312_013),
        ("known-bad", "admit", 312_003),
        ("compatible", "admit", 312_003),
        ("rollback-index", "admit", 312_003),
        ("authority", "admit", 312_015),
        ("too-many-activations", "admit", 312_015),
        ("too-many-jobs", "admit", 312_015),
        ("downgrade", "admit", 312_017),
        ("unsupported", "admit", 312_010),
        ("invented-later", "admit", 312_013),
    ] {
        let mut bench = bench();
        bench.world.verdict = Verdict::Refuse(Reason::new(code, stage, "why"));
        refused(&send(&mut bench, &command("t1", "b1")), number);
    }
}

#[test]
fn a_job_that_would_wait_is_accepted() {
    let mut bench = bench();
    bench.world.verdict = Verdict::Defer(bench.world.now + 3_600_000);
    let effects = send(&mut bench, &command("t1", "b1"));
    assert_eq!(only(REPLIES, &effects)["data"]["output"]["status"], "sent");
    assert_eq!(started(&effects).len(), 1);
}

#[test]
fn a_device_that_another_job_holds_is_rejected_with_312014() {
    let mut bench = bench();
    let mut held = at(&accept(&mut bench, "t1", "b1"), Phase::Installing, 0);
    bench.world.jobs.clear();
    held.key = "operator/1".into();
    held.foreign = true;
    bench.world.jobs.push(held);
    refused(&send(&mut bench, &command("t2", "b2")), 312_014);
}

#[test]
fn a_device_that_is_offline_is_rejected_with_312022() {
    let mut bench = bench();
    bench.world.targets[0].health = Health::Offline;
    refused(&send(&mut bench, &command("t1", "b1")), 312_022);
}

#[test]
fn two_devices_become_one_plan_and_the_host_decides_on_it() {
    let mut bench = bench();
    let mut drone = otahost_adapter::bench::target("drone", "1");
    drone.parent = Some("dock".into());
    drone.attributes.push(otahost_adapter::Field {
        name: "sn".into(),
        value: "DRONE".into(),
    });
    bench.world.targets.push(drone);
    let mut both = command("t1", "b1");
    let mut device = both["data"]["devices"][0].clone();
    device["sn"] = json!("DRONE");
    both["data"]["devices"].as_array_mut().unwrap().push(device);
    bench.world.verdict =
        Verdict::Refuse(Reason::new("unsupported", "admit", "one target at a time"));
    refused(&send(&mut bench, &both), 312_010);
    bench.world.verdict = Verdict::Allow;
    let effects = send(&mut bench, &both);
    let order: Vec<_> = started(&effects)[0]
        .installs
        .iter()
        .map(|i| i.target.as_str())
        .collect();
    assert_eq!(order, ["drone", "dock"]);
}

#[test]
fn a_retained_command_is_dropped_because_it_would_start_again_at_every_connect() {
    let mut bench = bench();
    let effects = bench
        .send(otahost_adapter::Event::Message(Message {
            link: "cloud".into(),
            topic: SERVICES.into(),
            payload: crate::cloud::PAGE.into(),
            duplicate: false,
            retained: true,
        }))
        .unwrap();
    assert!(effects.is_empty());
    assert_eq!(bench.read_state().unwrap().dropped, 1);
}

#[test]
fn a_message_of_another_link_or_topic_is_none_of_its_business() {
    let mut bench = bench_with(&json!({ "gateway_sn": crate::cloud::SN, "link": "north" }));
    for (link, topic) in [
        ("cloud", SERVICES),
        ("north", "thing/product/OTHER/services"),
    ] {
        let effects = bench
            .send(otahost_adapter::Event::Message(Message {
                link: link.into(),
                topic: topic.into(),
                payload: crate::cloud::PAGE.into(),
                duplicate: false,
                retained: false,
            }))
            .unwrap();
        assert!(effects.is_empty(), "{link} {topic}");
    }
    assert_eq!(
        started(
            &bench
                .message("north", SERVICES, &command("t1", "b1"))
                .unwrap()
        )
        .len(),
        1
    );
}

#[test]
fn the_longest_ids_and_names_still_make_a_step_within_the_limits() {
    let mut bench = bench();
    let id = "\u{1}".repeat(256);
    let mut long = command(&id, &id);
    long["data"]["devices"][0]["product_version"] = json!("v".repeat(200));
    long["data"]["devices"][0]["file_url"] = json!(format!("http://h/{}", "x".repeat(10_000)));
    let effects = send(&mut bench, &long);
    assert_eq!(started(&effects).len(), 1);
    let plan: JobPlan = started(&effects)[0].clone();
    bench.report(at(&plan, Phase::Succeeded, 1)).unwrap();
}
