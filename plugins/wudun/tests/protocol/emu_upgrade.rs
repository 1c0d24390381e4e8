//! `ota/emu_upgrade`: one result, at the push or at the stage that failed. W11 and W12 as far as they are the adapter's.

use crate::platform::{
    EMU_UPGRADE, TRACE, accept, at, bench, bench_with, download_statuses, emu_upgrade, ends, goes,
    only, sample_json, send, with,
};
use otahost_adapter::bench::started;
use otahost_adapter::{Phase, Reason, Verdict};
use serde_json::{Value, json};

#[test]
fn w11_the_vendors_command_to_emu_2_is_answered_with_1_when_the_package_is_delivered() {
    let mut bench = bench();
    let plan = accept(
        &mut bench,
        EMU_UPGRADE,
        &sample_json("wudun_2024_11_emu_upgrade_command.json"),
    );
    assert_eq!(plan.installs[0].target, "emu-2");
    for phase in [
        Phase::Downloading,
        Phase::Verifying,
        Phase::Prepared,
        Phase::Installing,
        Phase::Delivering,
    ] {
        assert!(goes(&mut bench, &plan, phase).is_empty(), "{phase}");
    }
    let result = only(EMU_UPGRADE, &goes(&mut bench, &plan, Phase::Delivered));
    assert_eq!(
        result["data"],
        json!({ "device_id": 2, "download_status": 1 })
    );
    assert_eq!(result["sub_device_id"], json!(2));
    assert_eq!(result["type"], "emu_upgrade");
    assert_eq!(result["trace_id"], TRACE);
    let sample = sample_json("wudun_2024_11_emu_upgrade_result.json");
    assert_eq!(result["data"], sample["data"]);
    for name in sample.as_object().unwrap().keys() {
        assert!(!result[name].is_null(), "{name}");
    }
    for phase in [
        Phase::Installing,
        Phase::Activating,
        Phase::Confirming,
        Phase::Succeeded,
    ] {
        assert!(
            goes(&mut bench, &plan, phase).is_empty(),
            "it is told once; {phase}"
        );
    }
}

#[test]
fn a_flasher_without_a_delivery_has_pushed_when_it_has_activated() {
    for phase in [Phase::Confirming, Phase::Succeeded] {
        let mut bench = bench();
        let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 3));
        assert!(goes(&mut bench, &plan, Phase::Installing).is_empty());
        assert!(goes(&mut bench, &plan, Phase::Activating).is_empty());
        assert_eq!(
            download_statuses(&goes(&mut bench, &plan, phase)),
            [1],
            "{phase}"
        );
    }
}

#[test]
fn a_restart_before_the_delivery_ends_is_no_push() {
    let mut bench = bench();
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 3));
    for phase in [Phase::Delivering, Phase::Installing, Phase::Delivering] {
        assert!(goes(&mut bench, &plan, phase).is_empty());
    }
    assert_eq!(
        download_statuses(&goes(&mut bench, &plan, Phase::Delivered)),
        [1]
    );
}

#[test]
fn w12_each_failure_has_the_status_of_its_stage_and_is_told_once() {
    for (code, stage, status) in [
        ("source-lost", "download", 2),
        ("digest", "verify", 3),
        ("flash", "clear", 4),
        ("flash", "unpack", 5),
        ("flash", "deliver", 6),
    ] {
        let mut bench = bench();
        let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
        let failed = ends(&mut bench, &plan, Phase::Failed, code, stage);
        assert_eq!(
            only(EMU_UPGRADE, &failed)["data"],
            json!({ "device_id": 2, "download_status": status }),
            "{code} at {stage}"
        );
        assert!(ends(&mut bench, &plan, Phase::Failed, code, stage).is_empty());
    }
}

#[test]
fn the_reason_of_the_install_goes_before_that_of_the_job() {
    let mut bench = bench();
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
    let mut report = at(&plan, Phase::Failed, 0);
    report.reason = Some(Reason::new("other", "install", "why"));
    report.installs[0].reason = Some(Reason::new("flash", "unpack", "why"));
    assert_eq!(download_statuses(&bench.report(report).unwrap()), [5]);
}

#[test]
fn w12_an_emu_that_is_being_updated_is_6_and_its_update_goes_on() {
    let mut bench = bench();
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m1", 2));
    let second = send(&mut bench, EMU_UPGRADE, &emu_upgrade("m2", 2));
    assert_eq!(download_statuses(&second), [6]);
    assert!(started(&second).is_empty());
    accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m3", 3));
    assert_eq!(
        download_statuses(&goes(&mut bench, &plan, Phase::Delivered)),
        [1]
    );
}

#[test]
fn what_the_host_refuses_has_the_right_code() {
    for (code, status) in [
        ("policy", 6),
        ("downgrade", 6),
        ("offline", 6),
        ("authority", 6),
        ("too-many-jobs", 6),
        ("not-granted", 2),
    ] {
        let mut bench = bench();
        bench.world.verdict = Verdict::Refuse(Reason::new(code, "admit", "why"));
        let effects = send(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
        assert_eq!(download_statuses(&effects), [status], "{code}");
        assert!(only(EMU_UPGRADE, &effects).get("code").is_none());
    }
}

#[test]
fn a_wrong_parameter_has_the_code_of_what_it_makes_impossible_and_400() {
    for (pointer, value, status) in [
        ("/sub_device_id", json!(9), 6),
        ("/sub_device_id", json!("two"), 6),
        ("/sub_device_id", Value::Null, 6),
        ("/data/download_url", json!("nowhere"), 2),
        ("/data/md5_code", json!("50a2"), 3),
        ("/data", Value::Null, 2),
    ] {
        let mut bench = bench();
        let mut command = emu_upgrade("m", 2);
        *command.pointer_mut(pointer).unwrap() = value.clone();
        let effects = send(&mut bench, EMU_UPGRADE, &command);
        assert_eq!(download_statuses(&effects), [status], "{pointer} {value}");
        assert!(started(&effects).is_empty());
        let result = only(EMU_UPGRADE, &effects);
        assert_eq!(result["code"], 400);
        assert_eq!(result["data"]["device_id"], command["sub_device_id"]);
    }
}

#[test]
fn a_sub_device_id_that_is_text_is_understood_and_sent_back_as_it_came() {
    let mut bench = bench();
    let mut command = emu_upgrade("m", 2);
    command["sub_device_id"] = json!("2");
    command["sub_device_uid"] = json!("jHODSda39");
    let plan = accept(&mut bench, EMU_UPGRADE, &command);
    let result = only(EMU_UPGRADE, &goes(&mut bench, &plan, Phase::Delivered));
    assert_eq!(result["sub_device_id"], "2");
    assert_eq!(result["sub_device_uid"], "jHODSda39");
    assert_eq!(result["data"]["device_id"], 2);
}

#[test]
fn the_operator_names_the_attributes() {
    let config = json!({
        "device_uid": "test", "tenant": "T", "attributes": { "device_id": "emu_no" }
    });
    let mut bench = bench_with(&config);
    let unknown = send(&mut bench, EMU_UPGRADE, &emu_upgrade("m1", 2));
    assert_eq!(download_statuses(&unknown), [6]);
    bench.world.targets.push(with("e", "1", &[("emu_no", "2")]));
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m2", 2));
    assert_eq!(plan.installs[0].target, "e");
}

#[test]
fn an_update_that_is_taken_back_after_the_push_was_still_pushed() {
    for phase in [Phase::RolledBack, Phase::RollbackFailed] {
        for (stage, status) in [("confirm", 1), ("activate", 6)] {
            let mut bench = bench();
            let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
            let back = ends(&mut bench, &plan, phase, "other", stage);
            assert_eq!(download_statuses(&back), [status], "{stage}");
        }
    }
}

#[test]
fn a_foreign_job_is_not_answered() {
    let mut bench = bench();
    let plan = accept(&mut bench, EMU_UPGRADE, &emu_upgrade("m", 2));
    let mut report = at(&plan, Phase::Succeeded, 100);
    report.foreign = true;
    report.key = "operator/1".into();
    report.context = Vec::new();
    assert!(bench.report(report).unwrap().is_empty());
}
