//! What comes in: trailing commas, other devices, retained commands, both forms of the topics. W14, W15 and W16.

use crate::platform::{
    BASE, EMU_RESULT, EMU_UPGRADE, EMU_VERSION, UPGRADE, bench, bench_with, goes, sample, send,
    upgrade,
};
use otahost_adapter::bench::{Bench, published, report, started};
use otahost_adapter::{ClockQuality, Effect, Event, Level, Message, Phase};
use serde_json::{Value, json};
use wudun::Wudun;

fn bytes(bench: &mut Bench<Wudun>, path: &str, payload: Vec<u8>) -> Vec<Effect> {
    let topic = format!("{BASE}/{path}/command");
    bench.message_bytes("cloud", &topic, payload).unwrap()
}

fn dropped(bench: &Bench<Wudun>) -> u64 {
    bench.read_state().unwrap().dropped
}

fn warnings(bench: &Bench<Wudun>) -> usize {
    let warnings = bench
        .log()
        .iter()
        .filter(|(level, _)| *level == Level::Warn);
    warnings.count()
}

#[test]
fn w14_the_vendors_commands_are_read_as_published_with_a_warning_for_trailing_commas() {
    for (path, file) in [
        (UPGRADE, "wudun_ota_upgrade_command.lenient"),
        (EMU_UPGRADE, "wudun_2025_07_emu_upgrade_command.lenient"),
        (
            EMU_RESULT,
            "wudun_2025_07_emu_upgrade_result_command.lenient",
        ),
        (UPGRADE, "wudun_ota_upgrade_command.json"),
        (EMU_UPGRADE, "wudun_2024_11_emu_upgrade_command.json"),
        (EMU_UPGRADE, "wudun_2025_07_emu_upgrade_command.json"),
        (EMU_VERSION, "wudun_2024_11_emu_version_command.json"),
        (EMU_VERSION, "wudun_2025_07_emu_version_command.json"),
        (EMU_RESULT, "wudun_2024_11_emu_upgrade_result_command.json"),
        (EMU_RESULT, "wudun_2025_07_emu_upgrade_result_command.json"),
    ] {
        let mut bench = bench();
        let effects = bytes(&mut bench, path, sample(file));
        let answered = started(&effects).len() + published(&effects).len();
        assert_eq!(answered, 1, "{file}");
        let lenient = usize::from(file.ends_with(".lenient"));
        assert_eq!(warnings(&bench), lenient, "{file}");
        let state = bench.read_state().unwrap();
        assert_eq!(
            (state.lenient, state.dropped),
            (lenient as u64, 0),
            "{file}"
        );
    }
}

#[test]
fn w14_every_truncation_of_a_command_is_dropped_and_counted_and_the_next_good_one_works() {
    for file in [
        "wudun_ota_upgrade_command.json",
        "wudun_ota_upgrade_command.lenient",
    ] {
        let mut bench = bench();
        let whole = sample(file);
        let end = whole.iter().rposition(|b| *b == b'}').unwrap();
        for length in 0..end {
            assert!(
                bytes(&mut bench, UPGRADE, whole[..length].to_vec()).is_empty(),
                "{length}"
            );
            assert_eq!(dropped(&bench), length as u64 + 1);
        }
        assert_eq!(started(&bytes(&mut bench, UPGRADE, whole)).len(), 1);
    }
}

#[test]
fn trailing_commas_can_be_forbidden() {
    let config = json!({ "device_uid": "test", "tenant": "T", "lenient_json": false });
    let mut bench = bench_with(&config);
    assert!(
        bytes(
            &mut bench,
            UPGRADE,
            sample("wudun_ota_upgrade_command.lenient")
        )
        .is_empty()
    );
    assert_eq!(dropped(&bench), 1);
}

#[test]
fn w15_a_command_for_another_device_is_dropped() {
    let mut bench = bench();
    for path in [UPGRADE, EMU_VERSION, EMU_UPGRADE, EMU_RESULT] {
        let mut command = upgrade("m");
        command["device_uid"] = json!("other");
        assert!(send(&mut bench, path, &command).is_empty(), "{path}");
    }
    assert_eq!(dropped(&bench), 4);
    assert_eq!(
        started(&send(&mut bench, UPGRADE, &upgrade("m"))).len(),
        1,
        "nothing of it was kept"
    );
}

#[test]
fn the_type_of_a_command_does_not_matter_for_the_topic_says_which_it_is() {
    let mut bench = bench();
    let mut command = upgrade("m");
    command["type"] = json!("ota_upgrad");
    assert_eq!(started(&send(&mut bench, UPGRADE, &command)).len(), 1);
}

#[test]
fn the_rest_of_the_vendors_family_does_no_harm() {
    let mut bench = bench();
    for file in [
        "wudun_family_pcs_set_command.json",
        "wudun_family_pcs_set_command.lenient",
    ] {
        assert!(
            bytes(&mut bench, UPGRADE, sample(file)).is_empty(),
            "another device's uid"
        );
    }
}

#[test]
fn w16_a_result_goes_out_on_the_form_that_the_command_came_in_by_and_on_no_other() {
    for (config, base) in [
        (json!({ "product_key": "PK" }), "v1/wudun/PK/test"),
        (json!({ "tenant": "T" }), "v1/user/T/test"),
        (json!({ "prefix": "site/4" }), "site/4/test"),
        (json!({ "prefix": "site/4", "device": "X" }), "site/4/X"),
        (
            json!({ "product_key": "PK", "tenant": "T" }),
            "v1/wudun/PK/test",
        ),
        (
            json!({ "product_key": "PK", "tenant": "T" }),
            "v1/user/T/test",
        ),
    ] {
        let mut config = config;
        config["device_uid"] = json!("test");
        let mut bench = bench_with(&config);
        let topic = format!("{base}/ota/upgrade/command");
        let effects = bench.message("cloud", &topic, &upgrade("m")).unwrap();
        let plan = started(&effects)[0].clone();
        bench.set_job(report(&plan, Phase::Queued));
        let told = goes(&mut bench, &plan, Phase::Succeeded);
        assert_eq!(published(&told).len(), 2);
        for publication in published(&told) {
            assert_eq!(publication.topic, format!("{base}/ota/upgrade/result"));
        }
    }
}

fn retained(bench: &mut Bench<Wudun>, path: &str, command: &Value) -> Vec<Effect> {
    bench
        .send(Event::Message(Message {
            link: "cloud".into(),
            topic: format!("{BASE}/{path}/command"),
            payload: serde_json::to_vec(command).unwrap(),
            duplicate: false,
            retained: true,
        }))
        .unwrap()
}

#[test]
fn a_retained_command_is_carried_out_only_when_it_is_new_and_the_clock_can_tell() {
    const MINUTE: u64 = 60_000;
    let mut bench = bench();
    let now = bench.world.now;
    let sent = |mid: &str, at: u64| {
        let mut command = upgrade(mid);
        command["timestamp"] = json!(at);
        command
    };
    for at in [now - 11 * MINUTE, now + 11 * MINUTE, 0] {
        assert!(
            retained(&mut bench, UPGRADE, &sent("a", at)).is_empty(),
            "{at}"
        );
    }
    let mut undated = upgrade("b");
    undated["timestamp"] = Value::Null;
    assert!(retained(&mut bench, UPGRADE, &undated).is_empty());
    bench.world.clock = ClockQuality::Floor;
    assert!(retained(&mut bench, UPGRADE, &sent("c", now)).is_empty());
    bench.world.clock = ClockQuality::Synced;
    assert_eq!(dropped(&bench), 5);

    let effects = retained(&mut bench, UPGRADE, &sent("d", now - 9 * MINUTE));
    let plan = started(&effects)[0].clone();
    bench.set_job(report(&plan, Phase::Queued));
    goes(&mut bench, &plan, Phase::Succeeded);
    assert!(
        retained(&mut bench, UPGRADE, &sent("d", now - 9 * MINUTE)).is_empty(),
        "it comes again at every connect"
    );
    assert_eq!(dropped(&bench), 6);
}

#[test]
fn a_retained_question_is_answered_once() {
    let mut bench = bench();
    let mut question = upgrade("q");
    question["timestamp"] = json!(bench.world.now);
    assert_eq!(
        published(&retained(&mut bench, EMU_VERSION, &question)).len(),
        1
    );
    assert!(retained(&mut bench, EMU_VERSION, &question).is_empty());
}

#[test]
fn retained_commands_can_be_forbidden() {
    let config = json!({ "device_uid": "test", "tenant": "T", "retained_max_age": 0 });
    let mut bench = bench_with(&config);
    let mut command = upgrade("m");
    command["timestamp"] = json!(bench.world.now);
    assert!(retained(&mut bench, UPGRADE, &command).is_empty());
}

#[test]
fn results_can_do_without_reply() {
    let config = json!({ "device_uid": "test", "tenant": "T", "reply": false });
    let mut bench = bench_with(&config);
    let effects = send(&mut bench, EMU_VERSION, &upgrade("m"));
    let result: Value = published(&effects)[0].payload_json().unwrap();
    assert!(result.get("reply").is_none());
}

#[test]
fn another_link_and_another_topic_are_passed_over() {
    let mut bench = bench();
    let message = |link: &str, topic: &str| {
        Event::Message(Message {
            link: link.into(),
            topic: topic.into(),
            payload: serde_json::to_vec(&upgrade("m")).unwrap(),
            duplicate: false,
            retained: false,
        })
    };
    let other = format!("{BASE}/ota/upgrade/command");
    assert!(bench.send(message("lan", &other)).unwrap().is_empty());
    let result = format!("{BASE}/ota/upgrade/result");
    assert!(bench.send(message("cloud", &result)).unwrap().is_empty());
    assert_eq!(dropped(&bench), 0);
}
