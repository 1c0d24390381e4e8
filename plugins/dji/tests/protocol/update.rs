//! The straight way through and what goes wrong on it: reply, progress, result. D02, D03, D05, D06, D14 and D15 as far as they are
//! the adapter's.

use crate::cloud::{
    EVENTS, SERVICES, STATE, accept, at, bench, command, ended, is_durable, on, online, only, send,
};
use otahost_adapter::bench::{published, started, timers};
use otahost_adapter::{
    ArtifactSource, Effect, Event, FailedAttempt, JobPlan, Persistence, Phase, Reason,
    RetryDecision, StartReason,
};
use serde_json::{Value, json};

const SIZE: u64 = 603_696_942;

#[test]
fn d02_the_happy_path_ends_in_one_ok_with_100_and_one_bid_throughout() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    let mut events = Vec::new();
    let way = [
        (Phase::Queued, 0),
        (Phase::Downloading, 0),
        (Phase::Downloading, SIZE / 4),
        (Phase::Downloading, SIZE),
        (Phase::Verifying, SIZE),
        (Phase::Prepared, SIZE),
        (Phase::Installing, SIZE),
        (Phase::Activating, SIZE),
        (Phase::Confirming, SIZE),
        (Phase::Succeeded, SIZE),
    ];
    for (phase, received) in way {
        bench.advance(2_000);
        events.extend(on(
            EVENTS,
            &bench.report(at(&plan, phase, received)).unwrap(),
        ));
    }
    let statuses = [
        "sent",
        "in_progress",
        "ok",
        "paused",
        "rejected",
        "failed",
        "canceled",
        "timeout",
    ];
    let mut percent = 0;
    let mut tids = std::collections::BTreeSet::new();
    for event in &events {
        assert_eq!(event["bid"], "b1");
        assert_eq!(event["method"], "ota_progress");
        assert_eq!(event["gateway"], crate::cloud::SN);
        assert!(event["timestamp"].is_u64());
        assert_eq!(event["data"]["result"], 0);
        assert!(statuses.contains(&event["data"]["output"]["status"].as_str().unwrap()));
        let now = event["data"]["output"]["progress"]["percent"]
            .as_u64()
            .unwrap();
        assert!(now >= percent, "{percent} -> {now}");
        percent = now;
        assert!(tids.insert(event["tid"].to_string()), "a tid came twice");
    }
    let words: Vec<_> = events
        .iter()
        .map(|e| e["data"]["output"]["sub_status"].as_str().unwrap())
        .collect();
    assert_eq!(
        words,
        [
            "",
            "DOWNLOADING",
            "DOWNLOADING",
            "DOWNLOAD_SUCCESS",
            "VERIFY",
            "VERIFY_SUCCESS",
            "UPGRADING",
            "UPGRADING",
            "UPGRADING",
            "UPGRADE_SUCCESS"
        ]
    );
    let (last, before) = events.split_last().unwrap();
    assert_eq!(last["data"]["output"]["status"], "ok");
    assert_eq!(
        last["data"]["output"]["progress"],
        json!({ "percent": 100, "step": 2, "step_key": "upgrade_firmware" })
    );
    assert_eq!(last["need_reply"], 1);
    assert!(
        before
            .iter()
            .all(|e| e["need_reply"] == 0 && e["data"]["output"]["status"] != "ok")
    );
}

#[test]
fn d02_a_result_that_is_delivered_twice_is_the_same_event_with_the_same_tid() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    bench
        .report(at(&plan, Phase::Downloading, SIZE / 2))
        .unwrap();
    let first = bench
        .report(ended(&plan, Phase::Failed, "source-lost", "download"))
        .unwrap();
    assert!(is_durable(EVENTS, &first));
    bench.advance(60_000);
    let again = bench
        .report(ended(&plan, Phase::Failed, "source-lost", "download"))
        .unwrap();
    assert_eq!(only(EVENTS, &first), only(EVENTS, &again));
    let late = bench.report(at(&plan, Phase::Downloading, SIZE)).unwrap();
    assert_eq!(
        on(EVENTS, &late),
        Vec::<Value>::new(),
        "nothing follows a result"
    );
}

#[test]
fn d02_progress_carries_the_bid_of_the_command_accepted_last() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    bench
        .report(at(&plan, Phase::Downloading, SIZE / 2))
        .unwrap();
    let again = started(&send(&mut bench, &command("t2", "b2")))[0].clone();
    assert_eq!(again.key, plan.key);
    let event = only(
        EVENTS,
        &bench.report(at(&again, Phase::Verifying, SIZE)).unwrap(),
    );
    assert_eq!(event["bid"], "b2");
    let last = only(
        EVENTS,
        &bench.report(at(&again, Phase::Succeeded, SIZE)).unwrap(),
    );
    assert_eq!(last["bid"], "b2");
}

#[test]
fn progress_is_kept_only_as_the_newest_and_a_result_over_a_reboot() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    let effects = bench.report(at(&plan, Phase::Downloading, 1)).unwrap();
    assert_eq!(
        published(&effects)[0].persistence,
        Persistence::Latest("progress".into())
    );
    assert!(is_durable(
        EVENTS,
        &bench.report(at(&plan, Phase::Succeeded, SIZE)).unwrap()
    ));
}

#[test]
fn progress_is_told_at_most_once_a_second_and_at_least_every_ten() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    let first = bench.report(at(&plan, Phase::Downloading, 0)).unwrap();
    assert_eq!(timers(&first)[0].name, "progress");
    assert_eq!(
        (timers(&first)[0].after, timers(&first)[0].period),
        (10_000, Some(10_000))
    );
    bench.advance(999);
    let state = bench.state().to_vec();
    assert!(
        bench
            .report(at(&plan, Phase::Downloading, SIZE / 2))
            .unwrap()
            .is_empty()
    );
    assert_eq!(bench.state(), state, "what is not told costs no write");
    bench.advance(1);
    assert_eq!(
        on(
            EVENTS,
            &bench
                .report(at(&plan, Phase::Downloading, SIZE / 2))
                .unwrap()
        )
        .len(),
        1
    );
    bench.advance(5_000);
    assert!(
        bench
            .report(at(&plan, Phase::Downloading, SIZE / 2))
            .unwrap()
            .is_empty(),
        "nothing new"
    );
    bench.advance(5_000);
    let state = bench.state().to_vec();
    let beat = bench.timer("progress").unwrap();
    assert_eq!(
        only(EVENTS, &beat)["data"]["output"]["progress"]["percent"],
        25
    );
    assert_eq!(beat.len(), 1);
    assert_eq!(bench.state(), state, "a heartbeat costs no write");
}

#[test]
fn the_heartbeat_ends_with_the_update() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    bench.report(at(&plan, Phase::Downloading, 1)).unwrap();
    let last = bench.report(at(&plan, Phase::Succeeded, SIZE)).unwrap();
    assert!(
        last.contains(&Effect::CancelTimer("progress".into())),
        "{last:?}"
    );
    assert_eq!(
        bench.timer("progress").unwrap(),
        [Effect::CancelTimer("progress".into())]
    );
}

#[test]
fn a_download_that_begins_again_does_not_let_the_percentage_fall() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    bench.report(at(&plan, Phase::Verifying, SIZE)).unwrap();
    bench.advance(2_000);
    let again = only(
        EVENTS,
        &bench
            .report(at(&plan, Phase::Downloading, SIZE / 10))
            .unwrap(),
    );
    assert_eq!(again["data"]["output"]["sub_status"], "DOWNLOADING");
    assert_eq!(again["data"]["output"]["progress"]["percent"], 50);
}

#[test]
fn d03_a_wrong_md5_ends_in_failed_verify_failed_and_the_old_version_stays_in_state() {
    let mut bench = bench();
    let announced = online(&mut bench);
    assert_eq!(
        only(STATE, &announced)["data"]["firmware_version"],
        "1.2.0.68"
    );
    let plan = accept(&mut bench, "t1", "b1");
    let begun = bench.report(at(&plan, Phase::Downloading, 1)).unwrap();
    assert_eq!(only(STATE, &begun)["data"]["firmware_upgrade_status"], 1);
    let effects = bench
        .report(ended(&plan, Phase::Failed, "digest", "verify"))
        .unwrap();
    let event = only(EVENTS, &effects);
    assert_eq!(event["data"]["output"]["status"], "failed");
    assert_eq!(event["data"]["output"]["sub_status"], "VERIFY_FAILED");
    assert_ne!(event["data"]["result"], 0);
    let state = only(STATE, &effects);
    assert_eq!(state["data"]["firmware_version"], "1.2.0.68");
    assert_eq!(state["data"]["firmware_upgrade_status"], 0);
}

#[test]
fn d05_a_source_that_stays_short_is_a_failed_download() {
    for code in ["too-short", "source-lost", "source-refused"] {
        let mut bench = bench();
        let plan = accept(&mut bench, "t1", "b1");
        bench
            .report(at(&plan, Phase::Downloading, SIZE / 2))
            .unwrap();
        let event = only(
            EVENTS,
            &bench
                .report(ended(&plan, Phase::Failed, code, "download"))
                .unwrap(),
        );
        assert_eq!(event["data"]["output"]["status"], "failed", "{code}");
        assert_eq!(
            event["data"]["output"]["sub_status"], "DOWNLOAD_FAILED",
            "{code}"
        );
        assert_eq!(event["data"]["result"], 312_013, "{code}");
        assert_eq!(
            event["data"]["output"]["progress"],
            json!({ "percent": 25, "step": 1, "step_key": "download_firmware" }),
            "{code}"
        );
    }
}

/// An attempt at the only file of the plan failed with this HTTP status.
fn attempt(plan: &JobPlan, status: u16) -> Event {
    Event::Attempt(FailedAttempt {
        job: plan.key.clone(),
        install: 0,
        attempt: 1,
        status,
        headers: Vec::new(),
        body: b"<Error><Code>AccessDenied</Code></Error>".to_vec(),
        reason: "why".into(),
    })
}

#[test]
fn d05_an_attempt_that_broke_off_is_left_to_the_host_which_resumes_it() {
    for status in [0, 200, 206, 400, 401, 408, 416, 429, 500, 503] {
        let mut bench = bench();
        let plan = accept(&mut bench, "t1", "b1");
        bench
            .report(at(&plan, Phase::Downloading, SIZE / 2))
            .unwrap();
        let state = bench.state().to_vec();
        assert_eq!(bench.send(attempt(&plan, status)).unwrap(), [], "{status}");
        assert_eq!(bench.state(), state, "{status}");
    }
}

#[test]
fn an_address_that_is_dead_ends_the_job_at_once_and_the_next_command_goes_on() {
    for status in [403, 404, 410] {
        let mut bench = bench();
        let plan = accept(&mut bench, "t1", "b1");
        bench
            .report(at(&plan, Phase::Downloading, SIZE / 2))
            .unwrap();
        let effects = bench.send(attempt(&plan, status)).unwrap();
        let [Effect::RetryAttempt(retry)] = effects.as_slice() else {
            panic!("{effects:?}")
        };
        assert_eq!((retry.job.as_str(), retry.install), (plan.key.as_str(), 0));
        let RetryDecision::Stop(why) = &retry.decision else {
            panic!("{retry:?}")
        };
        assert!(why.contains(&format!("HTTP {status}")), "{why}");
        let event = only(
            EVENTS,
            &bench
                .report(ended(&plan, Phase::Failed, "source-refused", "download"))
                .unwrap(),
        );
        assert_eq!(event["data"]["output"]["sub_status"], "DOWNLOAD_FAILED");
        // The cloud signs the address anew; the same key lets the host find what is there.
        let mut fresh = command("t2", "b2");
        fresh["data"]["devices"][0]["file_url"] = json!("http://192.168.1.1:9000/public/f?sig=2");
        let again = send(&mut bench, &fresh);
        assert_eq!(started(&again)[0].key, plan.key);
    }
}

#[test]
fn d17_the_address_goes_to_the_host_as_it_came_and_nothing_secret_goes_with_it() {
    let mut bench = bench();
    let url = "http://192.168.1.1:9000/public/f?X-Signature=1%2F2&a=b";
    let mut command = command("t1", "b1");
    command["data"]["devices"][0]["file_url"] = json!(url);
    let effects = send(&mut bench, &command);
    // An address and not a path on a link: the host fetches it, and whatever it redirects to, without credentials.
    assert_eq!(
        started(&effects)[0].installs[0].artifact.source,
        ArtifactSource::Url(url.into())
    );
    assert!(bench.requirements.calls.is_empty() && bench.requirements.sources.is_empty());
}

#[test]
fn what_a_job_waits_for_is_said_as_the_stage_it_is_in() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    let mut waits = |received, code, stage| {
        let mut report = at(&plan, Phase::Waiting, received);
        report.reason = Some(Reason::new(code, stage, "why"));
        report.until = Some(1);
        let event = only(EVENTS, &bench.report(report).unwrap());
        let output = &event["data"]["output"];
        assert_eq!(event["data"]["result"], 0);
        [
            &output["status"],
            &output["sub_status"],
            &output["progress"]["step_key"],
        ]
        .map(|v| v.as_str().unwrap().to_owned())
    };
    assert_eq!(waits(0, "policy", "admit"), ["sent", "", ""]);
    assert_eq!(
        waits(SIZE / 2, "policy", "download"),
        ["in_progress", "DOWNLOADING", "download_firmware"]
    );
    assert_eq!(
        waits(SIZE, "not-ready", "install"),
        ["in_progress", "UPGRADING", "upgrade_firmware"]
    );
}

#[test]
fn what_the_operator_cancels_is_canceled_and_what_takes_too_long_is_a_timeout() {
    for (phase, code, status) in [
        (Phase::Cancelled, "cancelled", "canceled"),
        (Phase::Failed, "cancelled", "canceled"),
        (Phase::Failed, "deadline", "timeout"),
        (Phase::Failed, "not-ready", "rejected"),
        (Phase::Rejected, "policy", "rejected"),
    ] {
        let mut bench = bench();
        let plan = accept(&mut bench, "t1", "b1");
        let event = only(
            EVENTS,
            &bench.report(ended(&plan, phase, code, "install")).unwrap(),
        );
        assert_eq!(event["data"]["output"]["status"], status, "{code}");
        assert_ne!(event["data"]["result"], 0, "{code}");
        assert_eq!(event["need_reply"], 1, "{code}");
    }
}

#[test]
fn d06_a_source_that_is_too_long_is_a_failed_download() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    let event = only(
        EVENTS,
        &bench
            .report(ended(&plan, Phase::Failed, "too-long", "download"))
            .unwrap(),
    );
    assert_eq!(event["data"]["output"]["status"], "failed");
    assert_eq!(event["data"]["output"]["sub_status"], "DOWNLOAD_FAILED");
    assert_eq!(event["data"]["result"], 312_003);
}

#[test]
fn d14_after_a_reconnect_the_gateway_announces_itself_and_the_newest_progress_follows() {
    let mut bench = bench();
    online(&mut bench);
    let plan = accept(&mut bench, "t1", "b1");
    bench
        .report(at(&plan, Phase::Downloading, SIZE / 10))
        .unwrap();
    bench.link("cloud", false, false).unwrap();
    bench.advance(120_000);
    bench
        .report(at(&plan, Phase::Downloading, SIZE / 2))
        .unwrap();
    bench.advance(60_000);
    bench.set_job(at(&plan, Phase::Verifying, SIZE));
    let accepted = online(&mut bench);
    let topics: Vec<_> = published(&accepted)
        .iter()
        .map(|p| p.topic.clone())
        .collect();
    assert_eq!(topics, [STATE, crate::cloud::OSD, EVENTS]);
    assert_eq!(
        only(EVENTS, &accepted)["data"]["output"]["sub_status"],
        "VERIFY"
    );
}

#[test]
fn d15_after_a_reboot_the_result_carries_the_bid_from_before() {
    for (phase, code, result, status) in [
        (Phase::Succeeded, "other", 0, "ok"),
        (Phase::RolledBack, "version-mismatch", 312_017, "failed"),
        (Phase::RolledBack, "boot-failed", 312_028, "failed"),
    ] {
        let mut bench = bench();
        let plan = accept(&mut bench, "t1", "b1");
        bench.report(at(&plan, Phase::Activating, SIZE)).unwrap();
        bench.reboot("boot-2", 3_000);
        bench.start(StartReason::Booted).unwrap();
        let confirming = bench.report(at(&plan, Phase::Confirming, SIZE)).unwrap();
        assert_eq!(
            only(EVENTS, &confirming)["data"]["output"]["progress"]["percent"],
            95
        );
        let event = only(
            EVENTS,
            &bench.report(ended(&plan, phase, code, "confirm")).unwrap(),
        );
        assert_eq!(event["bid"], "b1");
        assert_eq!(event["data"]["result"], result);
        assert_eq!(event["data"]["output"]["status"], status);
    }
}

#[test]
fn after_a_failure_the_same_command_with_a_new_bid_is_a_new_attempt_from_0() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    bench
        .report(at(&plan, Phase::Downloading, SIZE / 2))
        .unwrap();
    bench
        .report(ended(&plan, Phase::Failed, "source-refused", "download"))
        .unwrap();
    let again = accept(&mut bench, "t2", "b2");
    assert_eq!(
        again.key, plan.key,
        "so that the host finds the partial file"
    );
    let event = only(EVENTS, &bench.report(at(&again, Phase::Queued, 0)).unwrap());
    assert_eq!(event["data"]["output"]["progress"]["percent"], 0);
    let result = only(
        EVENTS,
        &bench.report(at(&again, Phase::Succeeded, SIZE)).unwrap(),
    );
    assert_eq!(
        (&result["bid"], &result["data"]["output"]["status"]),
        (&json!("b2"), &json!("ok"))
    );
}

#[test]
fn a_command_that_comes_again_after_its_result_gets_that_result_and_starts_nothing() {
    let mut bench = bench();
    let plan = accept(&mut bench, "t1", "b1");
    bench
        .report(ended(&plan, Phase::Failed, "digest", "verify"))
        .unwrap();
    for tid in ["t1", "t2"] {
        let effects = send(&mut bench, &command(tid, "b1"));
        let reply = only(crate::cloud::REPLIES, &effects);
        assert_eq!((&reply["tid"], &reply["bid"]), (&json!(tid), &json!("b1")));
        assert_eq!(reply["data"]["result"], 312_003);
        assert_eq!(reply["data"]["output"]["status"], "failed");
        assert!(started(&effects).is_empty());
    }
}

#[test]
fn a_job_of_the_operator_shows_in_state_but_is_no_progress_of_the_cloud() {
    let mut bench = bench();
    online(&mut bench);
    let mut report = at(
        &otahost_adapter::JobPlan::new("operator/1"),
        Phase::Downloading,
        0,
    );
    report.foreign = true;
    let effects = bench.report(report.clone()).unwrap();
    assert_eq!(on(EVENTS, &effects), Vec::<Value>::new());
    assert_eq!(only(STATE, &effects)["data"]["firmware_upgrade_status"], 1);
    report.phase = Phase::Succeeded;
    assert_eq!(
        only(STATE, &bench.report(report).unwrap())["data"]["firmware_upgrade_status"],
        0
    );
}

#[test]
fn a_job_whose_context_cannot_be_read_is_logged_and_told_to_nobody() {
    let mut bench = bench();
    let mut report = at(&accept(&mut bench, "t1", "b1"), Phase::Failed, 0);
    report.context = b"{}".to_vec();
    assert!(bench.report(report).unwrap().is_empty());
    assert!(
        bench
            .log()
            .iter()
            .any(|(level, _)| *level == otahost_adapter::Level::Error)
    );
}

#[test]
fn no_address_of_a_file_is_ever_logged() {
    let mut bench = bench();
    let mut secret = command("t1", "b1");
    secret["data"]["devices"][0]["file_url"] = json!("https://bucket.example/f?signature=geheim");
    send(&mut bench, &secret);
    secret["data"]["devices"][0]["file_url"] = json!("ftp://user:geheim@bucket.example/f");
    send(&mut bench, &secret);
    bench
        .message_bytes("cloud", SERVICES, secret.to_string().replace("tid", "t"))
        .unwrap();
    assert!(!bench.log().is_empty());
    assert!(
        bench.log().iter().all(|(_, line)| !line.contains("geheim")),
        "{:?}",
        bench.log()
    );
}
