//! `ota/upgrade`: one phase or two, and which version is told when. W01 to W04 and W06 to W09 as far as they are the adapter's.

use crate::platform::{
    BASE, MID, TRACE, UPGRADE, accept, at, bench, ends, goes, only, results, sample_json, send,
    statuses, upgrade, with,
};
use otahost_adapter::bench::started;
use otahost_adapter::{Apply, ArtifactSource, Dedupe, Phase, Reason, StartReason, Verdict};
use serde_json::{Value, json};

#[test]
fn w01_the_vendors_command_gives_2_when_the_package_is_here_and_4_when_the_new_version_runs() {
    let mut bench = bench();
    let plan = accept(
        &mut bench,
        UPGRADE,
        &sample_json("wudun_ota_upgrade_command.json"),
    );
    let mut all = Vec::new();
    for phase in [
        Phase::Waiting,
        Phase::Downloading,
        Phase::Verifying,
        Phase::Prepared,
        Phase::Installing,
        Phase::Activating,
        Phase::Confirming,
    ] {
        bench.advance(2_000);
        let told = results(UPGRADE, &goes(&mut bench, &plan, phase));
        assert_eq!(told.len(), usize::from(phase == Phase::Prepared), "{phase}");
        all.extend(told);
    }
    bench.world.targets[0].version = Some("0.9.1".into());
    all.extend(results(UPGRADE, &goes(&mut bench, &plan, Phase::Succeeded)));
    assert_eq!(all.len(), 2);
    let common = |result: &Value| {
        assert_eq!(result["type"], "ota_upgrade");
        assert_eq!(result["trace_id"], TRACE);
        assert_eq!(result["reply"], MID);
        assert_eq!(result["device_uid"], "test");
        assert!(result["timestamp"].as_u64().unwrap() > 1_767_225_600_000);
        for absent in ["code", "msg", "sub_device_id", "sub_device_uid"] {
            assert!(result.get(absent).is_none(), "{result}");
        }
        result["mid"].as_str().unwrap().to_owned()
    };
    let (first, last) = (common(&all[0]), common(&all[1]));
    assert!(first != last && first != MID && last != MID && first.len() == 36);
    assert_eq!(
        all[0]["data"],
        json!({ "source": "ems_II", "version": "0.9.0", "target_version": "0.9.1", "status": 2 })
    );
    assert_eq!(
        all[1]["data"],
        json!({ "source": "ems_II", "target_version": "0.9.1", "final_version": "0.9.1", "status": 4 })
    );
}

#[test]
fn the_result_has_the_fields_of_the_vendors_sample_but_for_the_commits_nobody_knows() {
    let mut bench = bench();
    let plan = accept(&mut bench, UPGRADE, &upgrade("m"));
    bench.world.targets[0].version = Some("0.9.1".into());
    let ours = results(UPGRADE, &goes(&mut bench, &plan, Phase::Succeeded))[1].clone();
    let sample = sample_json("wudun_ota_upgrade_result_status4.json");
    for (name, value) in sample.as_object().unwrap() {
        assert!(ours[name].is_null() == value.is_null(), "{name}");
    }
    for (name, value) in sample["data"].as_object().unwrap() {
        match ours["data"].get(name) {
            Some(ours) => assert_eq!(ours, value, "{name}"),
            None => assert!(name.ends_with("_commit_sha"), "{name}"),
        }
    }
}

#[test]
fn the_job_is_the_package_of_the_command_on_the_target_of_its_source() {
    let mut bench = bench();
    let mut command = upgrade(MID);
    command["data"]["md5_code"] = json!("50A2811E047DD49ACE3801685EEDB732");
    let plan = accept(&mut bench, UPGRADE, &command);
    assert_eq!(plan.key, format!("ota_upgrade/{MID}"));
    assert_eq!(plan.dedupe, Dedupe::WhileActive);
    assert_eq!(plan.apply, Apply::Immediately);
    assert_eq!(plan.installs.len(), 1);
    let install = &plan.installs[0];
    assert_eq!(install.target, "ems");
    assert_eq!(install.version, "", "the command names none");
    assert_eq!(
        install.artifact.source,
        ArtifactSource::Url("http://example.com/ems_II".into())
    );
    assert_eq!(
        install.artifact.digests,
        ["md5:50a2811e047dd49ace3801685eedb732"]
    );
}

#[test]
fn w02_w03_w04_a_package_that_cannot_be_had_or_is_wrong_is_3_alone() {
    for (code, stage) in [
        ("digest", "verify"),
        ("source-refused", "download"),
        ("source-lost", "download"),
        ("too-short", "download"),
        ("signature", "verify"),
        ("flash", "unpack"),
        ("other", "download"),
    ] {
        let mut bench = bench();
        let plan = accept(&mut bench, UPGRADE, &upgrade("m"));
        goes(&mut bench, &plan, Phase::Downloading);
        let failed = ends(&mut bench, &plan, Phase::Failed, code, stage);
        assert_eq!(statuses(&failed), [3], "{code}");
        assert!(
            only(UPGRADE, &failed).get("code").is_none(),
            "the parameters were fine"
        );
        assert!(
            only(UPGRADE, &failed)["data"]
                .get("final_version")
                .is_none()
        );
        assert!(statuses(&ends(&mut bench, &plan, Phase::Failed, code, stage)).is_empty());
    }
}

#[test]
fn w06_another_command_while_the_target_is_busy_is_1_and_the_first_goes_on() {
    let mut bench = bench();
    let plan = accept(&mut bench, UPGRADE, &upgrade("first"));
    goes(&mut bench, &plan, Phase::Downloading);
    let second = send(&mut bench, UPGRADE, &upgrade("second"));
    let refused = only(UPGRADE, &second);
    assert!(started(&second).is_empty());
    assert_eq!(
        refused["data"],
        json!({ "source": "ems_II", "version": "0.9.0", "status": 1 })
    );
    assert_eq!(refused["reply"], "second");
    assert_eq!(statuses(&goes(&mut bench, &plan, Phase::Prepared)), [2]);
    assert_eq!(statuses(&goes(&mut bench, &plan, Phase::Succeeded)), [4]);
}

#[test]
fn a_policy_that_refuses_is_1_and_one_that_defers_is_accepted() {
    for code in [
        "policy",
        "downgrade",
        "authority",
        "not-granted",
        "known-bad",
        "too-many-jobs",
    ] {
        let mut bench = bench();
        bench.world.verdict = Verdict::Refuse(Reason::new(code, "admit", "why"));
        let effects = send(&mut bench, UPGRADE, &upgrade("m"));
        assert_eq!(statuses(&effects), [1], "{code}");
        assert!(started(&effects).is_empty());
    }
    let mut bench = bench();
    bench.world.verdict = Verdict::Defer(1);
    let plan = accept(&mut bench, UPGRADE, &upgrade("m"));
    // The commit may still say no, where something else came in between.
    assert_eq!(
        statuses(&ends(&mut bench, &plan, Phase::Rejected, "busy", "admit")),
        [1]
    );
}

#[test]
fn a_source_that_no_target_has_is_1() {
    let mut bench = bench();
    for (source, fault) in [
        (json!("ems_III"), false),
        (Value::Null, true),
        (json!(7), true),
    ] {
        let mut command = upgrade(&format!("m{source}"));
        command["data"]["source"] = source.clone();
        let effects = send(&mut bench, UPGRADE, &command);
        assert_eq!(statuses(&effects), [1], "{source}");
        assert!(started(&effects).is_empty());
        let result = only(UPGRADE, &effects);
        assert_eq!(result.get("code").is_some(), fault, "{result}");
        assert_eq!(result["data"].get("source").is_some(), !fault);
    }
}

#[test]
fn a_wrong_parameter_is_3_with_code_400_and_a_sentence_unless_the_operator_leaves_it_out() {
    for (name, value) in [
        ("md5_code", json!("50a2")),
        ("md5_code", Value::Null),
        ("download_url", json!("")),
        ("download_url", json!("ftp://example.com/f")),
    ] {
        for error_code in [true, false] {
            let config = json!({ "device_uid": "test", "tenant": "T", "error_code": error_code });
            let mut bench = crate::platform::bench_with(&config);
            let mut command = upgrade("m");
            command["data"][name] = value.clone();
            let effects = send(&mut bench, UPGRADE, &command);
            assert!(started(&effects).is_empty());
            assert_eq!(statuses(&effects), [3], "{name} {value}");
            let result = only(UPGRADE, &effects);
            if error_code {
                assert_eq!(result["code"], 400);
                assert!(result["msg"].as_str().unwrap().contains(name), "{result}");
            } else {
                assert!(result.get("code").is_none() && result.get("msg").is_none());
            }
        }
    }
}

#[test]
fn w07_a_version_that_does_not_boot_is_2_then_5_and_the_old_version_runs() {
    let mut bench = bench();
    let plan = accept(&mut bench, UPGRADE, &upgrade("m"));
    assert_eq!(statuses(&goes(&mut bench, &plan, Phase::Prepared)), [2]);
    goes(&mut bench, &plan, Phase::Activating);
    let back = ends(
        &mut bench,
        &plan,
        Phase::RolledBack,
        "boot-failed",
        "confirm",
    );
    assert_eq!(
        only(UPGRADE, &back)["data"],
        json!({ "source": "ems_II", "target_version": "0.9.1", "final_version": "0.9.0", "status": 5 })
    );
}

#[test]
fn w08_a_rollback_that_fails_is_2_then_6_without_a_version_nobody_knows() {
    let mut bench = bench();
    let plan = accept(&mut bench, UPGRADE, &upgrade("m"));
    goes(&mut bench, &plan, Phase::Prepared);
    bench.world.targets[0].version = None;
    let lost = ends(
        &mut bench,
        &plan,
        Phase::RollbackFailed,
        "activate",
        "activate",
    );
    assert_eq!(
        only(UPGRADE, &lost)["data"],
        json!({ "source": "ems_II", "target_version": "0.9.1", "status": 6 })
    );
}

#[test]
fn what_was_prepared_and_failed_before_anything_was_replaced_is_5() {
    for (phase, code) in [
        (Phase::Failed, "flash"),
        (Phase::Cancelled, "cancelled"),
        (Phase::Failed, "policy"),
    ] {
        let mut bench = bench();
        let plan = accept(&mut bench, UPGRADE, &upgrade("m"));
        goes(&mut bench, &plan, Phase::Prepared);
        assert_eq!(
            statuses(&ends(&mut bench, &plan, phase, code, "install")),
            [5]
        );
    }
}

#[test]
fn an_end_that_comes_before_any_report_of_prepared_is_told_with_a_2_before_it() {
    for (phase, status) in [
        (Phase::Succeeded, 4),
        (Phase::RolledBack, 5),
        (Phase::RollbackFailed, 6),
    ] {
        let mut bench = bench();
        let plan = accept(&mut bench, UPGRADE, &upgrade("m"));
        assert_eq!(statuses(&goes(&mut bench, &plan, phase)), [2, status]);
    }
}

#[test]
fn w09_after_a_reboot_the_last_result_carries_what_the_command_was_known_by() {
    let mut bench = bench();
    let mut command = upgrade("m");
    command["sub_device_uid"] = json!("S1");
    command["sub_device_id"] = json!(7);
    let mut below = with(
        "below",
        "0.9.0",
        &[("source", "ems_II"), ("sub_device_uid", "S1")],
    );
    below.parent = Some("ems".into());
    bench.world.targets.push(below);
    let plan = accept(&mut bench, UPGRADE, &command);
    assert_eq!(plan.installs[0].target, "below");
    assert_eq!(statuses(&goes(&mut bench, &plan, Phase::Prepared)), [2]);
    goes(&mut bench, &plan, Phase::Activating);
    bench.reboot("boot-2", 900);
    assert!(bench.start(StartReason::Booted).unwrap().is_empty());
    assert!(bench.link("cloud", true, true).unwrap().is_empty());
    let last = only(
        UPGRADE,
        &bench.report(at(&plan, Phase::Succeeded, 100)).unwrap(),
    );
    assert_eq!(last["data"]["status"], 4);
    assert_eq!(last["trace_id"], TRACE);
    assert_eq!(last["reply"], "m");
    assert_eq!(last["sub_device_uid"], "S1");
    assert_eq!(last["sub_device_id"], 7);
    assert_eq!(last["data"]["source"], "ems_II");
}

#[test]
fn a_command_without_ids_gets_a_result_without_them() {
    let mut bench = bench();
    let mut command = upgrade("m");
    for name in ["mid", "trace_id", "type", "device_uid"] {
        command.as_object_mut().unwrap().remove(name);
    }
    let plan = accept(&mut bench, UPGRADE, &command);
    let result = only(UPGRADE, &goes(&mut bench, &plan, Phase::Prepared));
    assert!(result.get("trace_id").is_none() && result.get("reply").is_none());
    assert_eq!(result["device_uid"], "test");
}

#[test]
fn another_targets_update_does_not_stand_in_the_way() {
    let mut bench = bench();
    let other = with("other", "1", &[("source", "ems_I")]);
    bench.world.targets.push(other);
    accept(&mut bench, UPGRADE, &upgrade("m1"));
    let mut command = upgrade("m2");
    command["data"]["source"] = json!("ems_I");
    let plan = accept(&mut bench, UPGRADE, &command);
    assert_eq!(plan.installs[0].target, "other");
}

#[test]
fn topics_that_changed_under_a_running_job_do_not_stop_its_result() {
    let mut bench = bench();
    let mut plan = accept(&mut bench, UPGRADE, &upgrade("m"));
    let text = String::from_utf8(plan.context.clone()).unwrap();
    assert!(text.contains(BASE));
    plan.context = text.replace(BASE, "v1/wudun/OLD/test").into_bytes();
    assert_eq!(statuses(&goes(&mut bench, &plan, Phase::Prepared)), [2]);
}

#[test]
fn no_address_is_ever_logged() {
    let mut bench = bench();
    bench.world.verdict =
        Verdict::Refuse(Reason::new("policy", "admit", "it is outside the windows"));
    let mut command = upgrade("m");
    command["data"]["download_url"] = json!("http://u:pw@files.example/f?sig=s3cret");
    send(&mut bench, UPGRADE, &command);
    command["mid"] = json!("n");
    command["data"]["md5_code"] = json!("no");
    send(&mut bench, UPGRADE, &command);
    assert_eq!(bench.log().len(), 2);
    for (_, line) in bench.log() {
        assert!(!line.contains("s3cret") && !line.contains("pw@"), "{line}");
    }
}
