//! The gateway's presence: announcement, properties, and their order.

use crate::cloud::{
    DRONE_SN, OSD, STATE, STATUS, STATUS_REPLY, accept, accepted, at, bench, bench_with,
    dock_and_drone, on, online, only,
};
use otahost_adapter::bench::{published, timers};
use otahost_adapter::{Effect, Event, Field, Health, Persistence, Phase, StartReason};
use serde_json::{Value, json};

#[test]
fn the_gateway_announces_itself_every_five_seconds_until_the_cloud_accepts_it() {
    let mut bench = bench();
    let up = bench.link("cloud", true, false).unwrap();
    let first = only(STATUS, &up);
    assert_eq!(first["method"], "update_topo");
    assert_eq!(first["gateway"], crate::cloud::SN);
    assert_eq!(
        first["data"],
        json!({
            "domain": 3, "type": 1, "sub_type": 0, "device_secret": "", "nonce": "", "version": "1", "sub_devices": []
        })
    );
    assert_eq!(
        (timers(&up)[0].after, timers(&up)[0].period),
        (5_000, Some(5_000))
    );
    let state = bench.state().to_vec();
    let second = only(STATUS, &bench.timer("topo").unwrap());
    assert_eq!(second["bid"], first["bid"]);
    assert_ne!(second["tid"], first["tid"]);
    assert_eq!(bench.state(), state, "a repetition costs no write");
    let stranger =
        json!({ "tid": "t", "bid": "another", "method": "update_topo", "data": { "result": 0 } });
    assert!(
        bench
            .message("cloud", STATUS_REPLY, &stranger)
            .unwrap()
            .is_empty()
    );
    let refused = json!({ "tid": "t", "bid": first["bid"], "method": "update_topo", "data": { "result": 5 } });
    assert!(
        bench
            .message("cloud", STATUS_REPLY, &refused)
            .unwrap()
            .is_empty()
    );

    let effects = accepted(&mut bench, &first);
    assert_eq!(effects[0], Effect::CancelTimer("topo".into()));
    let topics: Vec<_> = published(&effects)
        .iter()
        .map(|p| p.topic.clone())
        .collect();
    assert_eq!(topics, [STATE, OSD]);
    assert!(
        published(&effects)
            .iter()
            .all(|p| p.persistence != Persistence::Durable)
    );
    assert_eq!(
        only(STATE, &effects)["data"],
        json!({ "firmware_version": "1.2.0.68", "compatible_status": 0, "firmware_upgrade_status": 0 })
    );
    assert_eq!(
        only(OSD, &effects)["data"],
        json!({ "mode_code": 0, "emergency_stop_state": 0 })
    );
    assert_eq!(
        (timers(&effects)[0].after, timers(&effects)[0].period),
        (2_000, Some(2_000))
    );
    assert!(
        accepted(&mut bench, &first).is_empty(),
        "a second acceptance changes nothing"
    );
}

#[test]
fn osd_says_upgrading_during_an_update_and_costs_no_write() {
    let mut bench = bench();
    online(&mut bench);
    let plan = accept(&mut bench, "t1", "b1");
    let mode = |effects: &[Effect]| only(OSD, effects)["data"]["mode_code"].clone();
    assert_eq!(
        mode(&bench.timer("osd").unwrap()),
        0,
        "a job that has not begun is no upgrade"
    );
    bench.report(at(&plan, Phase::Downloading, 1)).unwrap();
    let state = bench.state().to_vec();
    let tick = bench.timer("osd").unwrap();
    assert_eq!(mode(&tick), 3);
    assert_eq!(bench.state(), state);
    assert_eq!(published(&tick)[0].qos, 0);
    bench.report(at(&plan, Phase::Succeeded, 1)).unwrap();
    assert_eq!(mode(&bench.timer("osd").unwrap()), 0);
}

#[test]
fn state_is_sent_when_it_changes_and_only_then() {
    let mut bench = bench();
    online(&mut bench);
    assert!(bench.send(Event::Target("dock".into())).unwrap().is_empty());
    bench.world.targets[0].version = Some("1.2.0.69".into());
    let effects = bench.send(Event::Target("dock".into())).unwrap();
    assert_eq!(
        only(STATE, &effects)["data"]["firmware_version"],
        "1.2.0.69"
    );
    assert!(bench.send(Event::Target("dock".into())).unwrap().is_empty());
    bench.world.targets[0].version = Some("v".repeat(100));
    let long = bench.send(Event::Target("dock".into())).unwrap();
    assert_eq!(
        only(STATE, &long)["data"]["firmware_version"],
        "v".repeat(64)
    );
    bench.world.targets[0].version = None;
    let unknown = bench.send(Event::Target("dock".into())).unwrap();
    assert_eq!(
        only(STATE, &unknown)["data"],
        json!({ "compatible_status": 0, "firmware_upgrade_status": 0 })
    );
}

#[test]
fn a_sub_device_is_announced_and_its_going_away_too() {
    let mut bench = bench();
    let mut drone = otahost_adapter::bench::target("drone", "1");
    for (name, value) in [("sn", "DRONE"), ("type", "60"), ("domain", "0")] {
        drone.attributes.push(Field {
            name: name.into(),
            value: value.into(),
        });
    }
    bench.world.targets.push(drone);
    let up = bench.link("cloud", true, false).unwrap();
    let announcement = only(STATUS, &up);
    assert_eq!(
        announcement["data"]["sub_devices"],
        json!([{
            "sn": "DRONE", "domain": 0, "type": 60, "sub_type": 0, "index": "A", "device_secret": "", "nonce": "",
            "version": "1"
        }])
    );
    accepted(&mut bench, &announcement);
    bench.world.targets[1].health = Health::Offline;
    let gone = bench.send(Event::Target("drone".into())).unwrap();
    assert_eq!(only(STATUS, &gone)["data"]["sub_devices"], json!([]));
    assert!(gone.contains(&Effect::CancelTimer("osd".into())));
}

#[test]
fn a_sub_device_has_a_state_of_its_own_where_the_operator_names_it() {
    const DRONE_STATE: &str = "thing/product/DRONE/state";
    let mut bench =
        dock_and_drone(&json!({ "gateway_sn": crate::cloud::SN, "sub_devices": [DRONE_SN] }));
    let announced = online(&mut bench);
    assert_eq!(
        only(DRONE_STATE, &announced)["data"],
        json!({ "firmware_version": "7.0", "compatible_status": 0, "firmware_upgrade_status": 0 })
    );
    assert_eq!(
        only(STATE, &announced)["data"]["firmware_version"],
        "1.2.0.68"
    );
    // Each is sent when it changes and not when the other does.
    let plan = accept(&mut bench, "t1", "b1");
    let begun = bench.report(at(&plan, Phase::Downloading, 1)).unwrap();
    assert_eq!(only(STATE, &begun)["data"]["firmware_upgrade_status"], 1);
    assert_eq!(
        on(DRONE_STATE, &begun),
        Vec::<Value>::new(),
        "the drone is not updated"
    );
    bench.world.targets[1].version = Some("7.1".into());
    let effects = bench.send(Event::Target("drone".into())).unwrap();
    assert_eq!(
        only(DRONE_STATE, &effects)["data"]["firmware_version"],
        "7.1"
    );
    assert_eq!(on(STATE, &effects), Vec::<Value>::new());
    assert!(
        bench
            .send(Event::Target("drone".into()))
            .unwrap()
            .is_empty()
    );
    // One that is away is not spoken for.
    bench.world.targets[1].health = Health::Offline;
    let gone = bench.send(Event::Target("drone".into())).unwrap();
    let announcement = only(STATUS, &gone);
    let accepted = accepted(&mut bench, &announcement);
    assert_eq!(on(DRONE_STATE, &accepted), Vec::<Value>::new());
}

#[test]
fn nothing_is_sent_while_the_link_is_down() {
    let mut bench = bench();
    online(&mut bench);
    assert_eq!(
        bench.link("cloud", false, false).unwrap(),
        [Effect::CancelTimer("osd".into())]
    );
    assert_eq!(
        bench.timer("osd").unwrap(),
        [Effect::CancelTimer("osd".into())]
    );
    assert_eq!(
        bench.timer("topo").unwrap(),
        [Effect::CancelTimer("topo".into())]
    );
    bench.world.targets[0].version = Some("2".into());
    assert!(bench.send(Event::Target("dock".into())).unwrap().is_empty());
    let again = online(&mut bench);
    assert_eq!(only(STATE, &again)["data"]["firmware_version"], "2");
}

#[test]
fn a_start_without_a_new_connection_announces_and_a_start_before_one_waits() {
    for reason in [StartReason::Booted, StartReason::Restarted] {
        let mut bench = bench();
        online(&mut bench);
        assert_eq!(
            bench.start(reason).unwrap(),
            [Effect::CancelTimer("osd".into())]
        );
    }
    for reason in [
        StartReason::Reconfigured,
        StartReason::Upgraded("0.0.1".into()),
        StartReason::Installed,
    ] {
        let mut bench = bench();
        online(&mut bench);
        assert_eq!(
            only(STATUS, &bench.start(reason).unwrap())["method"],
            "update_topo"
        );
    }
}

#[test]
fn without_presence_of_its_own_it_replies_and_reports_and_nothing_else() {
    let mut bench = bench_with(&json!({ "gateway_sn": crate::cloud::SN, "presence": "none" }));
    assert!(bench.start(StartReason::Installed).unwrap().is_empty());
    assert!(bench.link("cloud", true, false).unwrap().is_empty());
    let plan = accept(&mut bench, "t1", "b1");
    let effects = bench.report(at(&plan, Phase::Downloading, 1)).unwrap();
    assert_eq!(
        published(&effects)
            .iter()
            .map(|p| p.topic.as_str())
            .collect::<Vec<_>>(),
        [crate::cloud::EVENTS]
    );
}

#[test]
fn an_answer_to_an_event_is_read_and_a_bad_one_is_logged() {
    let mut bench = bench();
    let page: Value = serde_json::from_str(include_str!(
        "../../fixtures/dji_1_11_3_events_reply_envelope.json"
    ))
    .unwrap();
    assert!(
        bench
            .message("cloud", crate::cloud::EVENTS_REPLY, &page)
            .unwrap()
            .is_empty()
    );
    assert_eq!(bench.read_state().unwrap().dropped, 0);
    let mut bad = page;
    bad["data"]["result"] = json!(7);
    bench
        .message("cloud", crate::cloud::EVENTS_REPLY, &bad)
        .unwrap();
    assert!(
        bench
            .log()
            .iter()
            .any(|(_, line)| line.contains("result 7"))
    );
}
