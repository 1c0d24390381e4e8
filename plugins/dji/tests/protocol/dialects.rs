//! The same update in the words of each page. What differs is here; everything else is tested in one dialect for all.

use crate::cloud::{
    EVENTS, REPLIES, SN, STATE, STATUS, accept, accepted, at, bench_with, command, dock_and_drone,
    ended, on, only, send,
};
use dji::Dji;
use otahost_adapter::Phase;
use otahost_adapter::bench::Bench;
use serde_json::{Value, json};

const DJI: [&str; 2] = ["dji-v1", "dji-2026"];

fn speaking(dialect: &str) -> Bench<Dji> {
    bench_with(&json!({ "gateway_sn": SN, "dialect": dialect }))
}

fn page(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[test]
fn d01_each_dialect_answers_as_its_page_does() {
    for (dialect, reply) in [
        (
            "autel",
            include_str!("../../fixtures/autel_page_ota_create_reply_sent.json"),
        ),
        (
            "dji-v1",
            include_str!("../../fixtures/dji_1_11_3_ota_create_reply.json"),
        ),
        (
            "dji-2026",
            include_str!("../../fixtures/dji_2026_ota_create_reply.json"),
        ),
    ] {
        let mut bench = speaking(dialect);
        let effects = send(&mut bench, &command("t1", "b1"));
        let ours = only(REPLIES, &effects);
        assert_eq!(ours["data"], page(reply)["data"], "{dialect}");
        assert_eq!((&ours["tid"], &ours["bid"]), (&json!("t1"), &json!("b1")));
    }
}

#[test]
fn d02_the_happy_path_names_the_steps_as_each_dialect_does() {
    for (dialect, key) in [
        ("autel", "step_key"),
        ("dji-v1", "step_key"),
        ("dji-2026", "current_step"),
    ] {
        let mut bench = speaking(dialect);
        let plan = accept(&mut bench, "t1", "b1");
        let mut said = Vec::new();
        for phase in [
            Phase::Downloading,
            Phase::Verifying,
            Phase::Installing,
            Phase::Confirming,
            Phase::Succeeded,
        ] {
            bench.advance(2_000);
            let event = only(
                EVENTS,
                &bench.report(at(&plan, phase, 603_696_942)).unwrap(),
            );
            let output = event["data"]["output"].clone();
            assert_eq!(
                output.get("sub_status").is_some(),
                dialect == "autel",
                "{dialect}"
            );
            assert_eq!(
                output["progress"].get("step").is_some(),
                dialect == "autel",
                "{dialect}"
            );
            said.push((
                output["status"].as_str().unwrap().to_owned(),
                output["progress"][key].as_str().unwrap().to_owned(),
            ));
        }
        let expected = [
            ("in_progress", "download_firmware"),
            ("in_progress", "download_firmware"),
            ("in_progress", "upgrade_firmware"),
            ("in_progress", "upgrade_firmware"),
            ("ok", "upgrade_firmware"),
        ];
        assert_eq!(
            said,
            expected.map(|(a, b)| (a.to_owned(), b.to_owned())),
            "{dialect}"
        );
    }
}

#[test]
fn in_the_dji_dialects_nothing_falls_back_behind_the_reply() {
    for dialect in DJI {
        let mut bench = speaking(dialect);
        let plan = accept(&mut bench, "t1", "b1");
        let queued = only(EVENTS, &bench.report(at(&plan, Phase::Queued, 0)).unwrap());
        assert_eq!(queued["data"]["output"]["status"], "in_progress");
        let again = only(REPLIES, &send(&mut bench, &command("t2", "b2")));
        assert_eq!(
            again["data"],
            json!({ "result": 0, "output": { "status": "in_progress" } })
        );
    }
}

#[test]
fn d03_and_d08_a_failure_and_a_refusal_have_their_numbers_in_every_dialect() {
    for dialect in ["autel", "dji-v1", "dji-2026"] {
        let mut bench = speaking(dialect);
        let plan = accept(&mut bench, "t1", "b1");
        bench.report(at(&plan, Phase::Installing, 1)).unwrap();
        let mut other = command("t2", "b2");
        other["data"]["devices"][0]["product_version"] = json!("1.2.0.70");
        let refused = only(REPLIES, &send(&mut bench, &other));
        assert_eq!(refused["data"]["result"], 312_014, "{dialect}");
        assert_eq!(refused["data"]["output"]["status"], "rejected", "{dialect}");
        let failed = only(
            EVENTS,
            &bench
                .report(ended(&plan, Phase::Failed, "digest", "verify"))
                .unwrap(),
        );
        assert_eq!(failed["data"]["result"], 312_003, "{dialect}");
        assert_eq!(failed["data"]["output"]["status"], "failed", "{dialect}");
        assert_eq!(failed["need_reply"], 1, "{dialect}");
    }
}

#[test]
fn the_envelopes_have_every_field_of_the_pages() {
    for dialect in DJI {
        let mut bench = speaking(dialect);
        let up = bench.link("cloud", true, false).unwrap();
        let announcement = only(STATUS, &up);
        let state = only(STATE, &accepted(&mut bench, &announcement));
        let effects = send(&mut bench, &command("t1", "b1"));
        let reply = only(REPLIES, &effects);
        let plan = otahost_adapter::bench::started(&effects)[0].clone();
        let event = only(
            EVENTS,
            &bench.report(at(&plan, Phase::Downloading, 1)).unwrap(),
        );
        for (ours, theirs) in [
            (
                reply,
                include_str!("../../fixtures/dji_1_11_3_services_reply_envelope.json"),
            ),
            (
                event,
                include_str!("../../fixtures/dji_1_11_3_events_envelope.json"),
            ),
            (
                state,
                include_str!("../../fixtures/dji_1_11_3_state_envelope.json"),
            ),
        ] {
            assert_eq!(keys(&ours), keys(&page(theirs)));
            assert_eq!(ours["gateway"], SN);
        }
    }
}

#[test]
fn the_topology_has_every_field_of_the_dialects_page() {
    for (dialect, online, offline) in [
        (
            "dji-v1",
            include_str!("../../fixtures/dji_1_11_3_status_update_topo_online.json"),
            include_str!("../../fixtures/dji_1_11_3_status_update_topo_offline.json"),
        ),
        // The page of the device, which 1.11.3 has as well.
        (
            "dji-v1",
            include_str!("../../fixtures/dji_2026_dock3_update_topo_online.json"),
            include_str!("../../fixtures/dji_2026_dock3_update_topo_offline.json"),
        ),
        (
            "dji-2026",
            include_str!("../../fixtures/dji_2026_dock3_update_topo_online.json"),
            include_str!("../../fixtures/dji_2026_dock3_update_topo_offline.json"),
        ),
    ] {
        let mut bench = dock_and_drone(
            &json!({ "gateway_sn": SN, "dialect": dialect, "topo": { "type": 119 } }),
        );
        let ours = only(STATUS, &bench.link("cloud", true, false).unwrap());
        let theirs = page(online);
        let devices = |topo: &Value| topo["data"]["sub_devices"][0].clone();
        for (ours, theirs) in [
            (&ours, &theirs),
            (&ours["data"], &theirs["data"]),
            (&devices(&ours), &devices(&theirs)),
        ] {
            for key in keys(theirs) {
                assert!(
                    ours.get(key).is_some(),
                    "{dialect}: {key} is missing in {ours}"
                );
            }
        }
        if dialect == "dji-2026" {
            // Nothing more than the page has either, and the same values where they are not the operator's.
            assert_eq!(keys(&ours["data"]), keys(&theirs["data"]));
            for key in ["domain", "type", "sub_type", "thing_version"] {
                assert_eq!(ours["data"][key], theirs["data"][key], "{key}");
                assert_eq!(devices(&ours)[key], devices(&theirs)[key], "{key}");
            }
        }
        accepted(&mut bench, &ours);
        bench.world.targets[1].health = otahost_adapter::Health::Offline;
        let gone = bench
            .send(otahost_adapter::Event::Target("drone".into()))
            .unwrap();
        assert_eq!(
            only(STATUS, &gone)["data"]["sub_devices"],
            page(offline)["data"]["sub_devices"]
        );
    }
}

#[test]
fn the_operator_may_name_the_version_of_the_thing_model() {
    let mut bench = dock_and_drone(
        &json!({ "gateway_sn": SN, "dialect": "dji-2026", "topo": { "version": "1.3.0" } }),
    );
    bench.world.targets[1]
        .attributes
        .push(otahost_adapter::Field {
            name: "thing_version".into(),
            value: "1.2.0".into(),
        });
    let up = bench.link("cloud", true, false).unwrap();
    let data = &on(STATUS, &up)[0]["data"];
    assert_eq!(data["thing_version"], "1.3.0");
    assert_eq!(data["sub_devices"][0]["thing_version"], "1.2.0");
}
