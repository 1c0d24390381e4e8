//! `ota/emu_version` and `ota/emu_upgrade_result`: what is known of the EMUs. W10 and W13.

use crate::platform::{
    EMU_RESULT, EMU_UPGRADE, EMU_VERSION, TRACE, accept, at, bench, bench_with, emu_upgrade, ends,
    goes, only, sample, sample_json, send, with,
};
use otahost_adapter::bench::{Bench, published};
use otahost_adapter::{Health, JobPlan, Level, Phase};
use serde_json::{Value, json};
use wudun::Wudun;

fn ask(bench: &mut Bench<Wudun>, device_id: i64) -> Value {
    let mut command = sample_json("wudun_2024_11_emu_upgrade_result_command.json");
    command["sub_device_id"] = json!(device_id);
    only(EMU_RESULT, &send(bench, EMU_RESULT, &command))
}

fn list(bench: &mut Bench<Wudun>) -> Value {
    let command = sample_json("wudun_2024_11_emu_version_command.json");
    only(EMU_VERSION, &send(bench, EMU_VERSION, &command))["data"].clone()
}

/// An update of this EMU that goes well.
fn update(bench: &mut Bench<Wudun>, device_id: i64) {
    let plan = accept(
        bench,
        EMU_UPGRADE,
        &emu_upgrade(&format!("well-{device_id}"), device_id),
    );
    goes(bench, &plan, Phase::Succeeded);
}

#[test]
fn w10_the_list_is_the_vendors_sample_with_nulls_for_the_emu_that_is_offline() {
    let mut bench = bench();
    update(&mut bench, 2);
    update(&mut bench, 3);
    let command = sample_json("wudun_2024_11_emu_version_command.json");
    let result = only(EMU_VERSION, &send(&mut bench, EMU_VERSION, &command));
    let sample = sample_json("wudun_2024_11_emu_version_result.json");
    assert_eq!(result["data"], sample["data"]);
    assert_eq!(result["type"], "emu_version");
    assert_eq!(result["trace_id"], TRACE);
    assert_eq!(result["device_uid"], "test");
    assert!(result.get("sub_device_id").is_none());
}

#[test]
fn an_emu_that_never_had_an_update_has_nulls_for_it_and_its_own_values_else() {
    let mut bench = bench();
    bench.world.targets[2].health = Health::Unwell;
    assert_eq!(
        list(&mut bench)[1],
        json!({
            "device_id": 3, "status": 3, "emu_upgrade_success": null, "emu_upgrade_device": 3,
            "emu_upgrade_status": null, "emu_upgrade_content": null, "emu_product_sn": "emu-v1.0.0"
        })
    );
}

#[test]
fn w13_a_question_during_the_transfer_gets_3_and_the_percentage() {
    let mut bench = bench();
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
    let mut last = 0;
    for percent in [0, 40, 100, 250] {
        bench.report(at(&plan, Phase::Delivering, percent)).unwrap();
        let result = ask(&mut bench, 2);
        assert_eq!(result["sub_device_id"], 2);
        assert_eq!(result["type"], "emu_upgrade_result");
        assert_eq!(result["data"]["device_id"], 2);
        assert_eq!(result["data"]["emu_upgrade_status"], 3);
        assert_eq!(
            result["data"]["emu_upgrade_success"],
            Value::Null,
            "nothing is decided yet"
        );
        let content = result["data"]["emu_upgrade_content"].as_u64().unwrap();
        assert!(content >= last && content <= 100, "{content}");
        last = content;
    }
    assert_eq!(last, 100);
    assert_eq!(list(&mut bench)[0]["emu_upgrade_status"], 3);
    assert_eq!(list(&mut bench)[1]["emu_upgrade_status"], Value::Null);
}

#[test]
fn w13_each_phase_has_its_status_and_the_end_is_the_vendors_sample() {
    let mut bench = bench();
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
    for (phase, status, content) in [
        (Phase::Queued, 1, 0),
        (Phase::Waiting, 1, 0),
        (Phase::Downloading, 1, 0),
        (Phase::Verifying, 1, 0),
        (Phase::Prepared, 2, 0),
        (Phase::Installing, 2, 0),
        (Phase::Delivering, 3, 55),
        (Phase::Delivered, 4, 100),
        (Phase::Waiting, 4, 100),
        (Phase::Activating, 4, 100),
        (Phase::Confirming, 4, 100),
    ] {
        bench.report(at(&plan, phase, 55)).unwrap();
        let data = &ask(&mut bench, 2)["data"];
        assert_eq!(data["emu_upgrade_status"], status, "{phase}");
        assert_eq!(data["emu_upgrade_content"], content, "{phase}");
    }
    goes(&mut bench, &plan, Phase::Succeeded);
    let sample = sample_json("wudun_2024_11_emu_upgrade_result_result.json");
    assert_eq!(ask(&mut bench, 2)["data"], sample["data"]);
    bench.world.jobs.clear();
    assert_eq!(
        ask(&mut bench, 2)["data"],
        sample["data"],
        "long after the host has forgotten the job"
    );
}

#[test]
fn w13_a_flasher_without_a_delivery_transfers_while_it_activates() {
    let mut bench = bench();
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
    bench.report(at(&plan, Phase::Activating, 30)).unwrap();
    let data = &ask(&mut bench, 2)["data"];
    assert_eq!(data["emu_upgrade_status"], 3);
    assert_eq!(data["emu_upgrade_content"], 30);
}

#[test]
fn an_update_that_failed_is_5_with_0_and_what_was_reached() {
    for (stage, percent, content) in [
        ("download", 70, 0),
        ("deliver", 70, 70),
        ("confirm", 70, 100),
    ] {
        let mut bench = bench();
        let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
        let mut report = at(&plan, Phase::Failed, percent);
        report.reason = Some(otahost_adapter::Reason::new("other", stage, "why"));
        bench.report(report).unwrap();
        let data = ask(&mut bench, 2)["data"].clone();
        assert_eq!(data["emu_upgrade_success"], 0, "{stage}");
        assert_eq!(data["emu_upgrade_status"], 5);
        assert_eq!(data["emu_upgrade_content"], content, "{stage}");
    }
}

#[test]
fn what_was_refused_leaves_the_last_result_as_it_was() {
    let mut bench = bench();
    update(&mut bench, 2);
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
    ends(&mut bench, &plan, Phase::Rejected, "busy", "admit");
    assert_eq!(ask(&mut bench, 2)["data"]["emu_upgrade_success"], 1);
}

#[test]
fn an_operators_update_of_an_emu_is_told_when_it_is_asked_for() {
    let mut bench = bench();
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
    goes(&mut bench, &plan, Phase::Succeeded);
    let mut report = at(&plan, Phase::Delivering, 30);
    report.foreign = true;
    report.key = "operator/1".into();
    report.context.clear();
    bench.report(report.clone()).unwrap();
    assert_eq!(ask(&mut bench, 2)["data"]["emu_upgrade_status"], 3);
    assert_eq!(
        ask(&mut bench, 2)["data"]["emu_upgrade_content"],
        Value::Null,
        "the host shows no more of it"
    );
    report.phase = Phase::RolledBack;
    bench.report(report).unwrap();
    assert_eq!(ask(&mut bench, 2)["data"]["emu_upgrade_success"], 0);
}

#[test]
fn an_emu_that_went_away_still_has_its_last_result_when_it_is_asked_for_alone() {
    let mut bench = bench();
    update(&mut bench, 2);
    bench.world.targets[1].health = Health::Offline;
    assert_eq!(list(&mut bench)[0]["emu_upgrade_success"], Value::Null);
    let data = ask(&mut bench, 2)["data"].clone();
    assert_eq!(
        (&data["status"], &data["emu_upgrade_success"]),
        (&json!(2), &json!(1))
    );
}

#[test]
fn an_emu_that_is_away_because_it_is_being_updated_is_listed_with_its_update() {
    let mut bench = bench();
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
    goes(&mut bench, &plan, Phase::Confirming);
    bench.world.targets[1].health = Health::Offline;
    let entry = list(&mut bench)[0].clone();
    assert_eq!(
        (&entry["status"], &entry["emu_upgrade_status"]),
        (&json!(2), &json!(4))
    );
}

#[test]
fn an_emu_that_nobody_knows_is_2_with_code_400() {
    let mut bench = bench();
    for id in [json!(9), json!("x"), Value::Null] {
        let mut command = sample_json("wudun_2024_11_emu_upgrade_result_command.json");
        command["sub_device_id"] = id.clone();
        let result = only(EMU_RESULT, &send(&mut bench, EMU_RESULT, &command));
        assert_eq!(result["code"], 400, "{id}");
        assert_eq!(result["data"]["device_id"], id);
        assert_eq!(result["data"]["status"], 2);
    }
}

#[test]
fn as_a_bitmask_success_is_bit_8_and_what_is_not_finished_bit_9() {
    let config = json!({ "device_uid": "test", "tenant": "T", "emu_upgrade_success": "bitmask" });
    let mut bench = bench_with(&config);
    bench.world.targets.push(with(
        "board",
        "1",
        &[("device_id", "5"), ("emu_upgrade_device", "23")],
    ));
    assert_eq!(
        ask(&mut bench, 2)["data"]["emu_upgrade_success"],
        Value::Null
    );
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
    let success = |bench: &mut Bench<Wudun>, phase| {
        goes(bench, &plan, phase);
        ask(bench, 2)["data"]["emu_upgrade_success"].clone()
    };
    assert_eq!(success(&mut bench, Phase::Delivering), 512);
    assert_eq!(success(&mut bench, Phase::Delivered), 512 + 1);
    assert_eq!(success(&mut bench, Phase::Succeeded), 256 + 128 + 1);
    update(&mut bench, 5);
    let board = ask(&mut bench, 5)["data"].clone();
    assert_eq!(board["emu_upgrade_success"], 256 + 8 + 1);
    assert_eq!(board["emu_upgrade_device"], 23);
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("n", 2));
    ends(&mut bench, &plan, Phase::Failed, "flash", "deliver");
    assert_eq!(ask(&mut bench, 2)["data"]["emu_upgrade_success"], 0);
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("o", 2));
    ends(
        &mut bench,
        &plan,
        Phase::RolledBack,
        "probe-failed",
        "confirm",
    );
    assert_eq!(ask(&mut bench, 2)["data"]["emu_upgrade_success"], 1);
}

/// A bench with so many EMUs, each with this serial number, all of them delivering.
fn many(count: usize, sn: &str) -> Bench<Wudun> {
    let mut bench = bench();
    bench.world.targets.clear();
    for n in 0..count {
        let id = n.to_string();
        let attributes = [("device_id", id.as_str()), ("emu_product_sn", sn)];
        bench
            .world
            .targets
            .push(with(&format!("emu-{n}"), "1", &attributes));
    }
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 0));
    bench.world.jobs.clear();
    for n in 0..count.min(1_000) {
        let mut plan: JobPlan = plan.clone();
        plan.key = format!("emu_upgrade/{n}");
        plan.installs[0].target = format!("emu-{n}");
        bench.world.jobs.push(at(&plan, Phase::Delivering, 50));
    }
    bench
}

#[test]
fn a_thousand_emus_fit_into_one_message_with_all_that_is_known_of_them() {
    let mut bench = many(1_000, "SN-20250701-00017");
    let all = list(&mut bench);
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 1_000);
    for (n, entry) in all.iter().enumerate() {
        assert_eq!(entry["device_id"], n);
        assert_eq!(entry["emu_upgrade_content"], 50);
        assert_eq!(entry["emu_product_sn"], "SN-20250701-00017");
    }
}

#[test]
fn more_emus_than_a_message_holds_are_told_with_less_of_each_and_then_fewer_of_them() {
    for (count, sn, told) in [(1_500, "x".repeat(64), 1_500), (8_000, "x".into(), 1_000)] {
        let mut bench = many(count, &sn);
        let effects = bench
            .message_bytes(
                "cloud",
                "v1/user/T/test/ota/emu_version/command",
                sample("wudun_2025_07_emu_version_command.json"),
            )
            .unwrap();
        assert!(published(&effects)[0].payload.len() <= 256 * 1024);
        let all = only(EMU_VERSION, &effects)["data"].clone();
        let all = all.as_array().unwrap();
        assert!(all.len() >= told && all.len() <= count, "{}", all.len());
        assert!(
            all.iter()
                .all(|e| e["device_id"].is_u64() && e["status"] == 1)
        );
        assert!(
            bench
                .log()
                .iter()
                .any(|(level, line)| *level == Level::Warn && line.contains("larger"))
        );
    }
}
