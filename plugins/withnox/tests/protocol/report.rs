//! `update-result`: only what runs and is settled, until the cloud has it. R14, R15.

use otahost_adapter::bench::{Bench, alerts};
use otahost_adapter::{
    Effect, Event, Fetch, FetchResult, Field, HttpResponse, Phase, Repeat, StartReason,
};
use serde_json::json;
use withnox::Withnox;

use crate::cloud::{
    HOUR, MINUTE, asked, at, bench, codes, device, ended, entry, error, offered, only, poll,
    polled, runs, state, status, succeed, wait,
};

const PATCH_7: &str = "PATCH /api/v1/addnox/firmware/update-result/4/7/9";

/// Firmware 7 was installed and confirmed; the report that follows.
fn reported(bench: &mut Bench<Withnox>) -> Fetch {
    let plan = offered(bench, 7, "1.0.0");
    let effects = succeed(bench, &plan);
    assert_eq!(asked(&effects), [PATCH_7]);
    only(&effects)
}

/// The next try of the report, from its timer.
fn again(bench: &mut Bench<Withnox>) -> Fetch {
    let effects = bench.timer("report").unwrap();
    assert_eq!(asked(&effects), [PATCH_7]);
    only(&effects)
}

#[test]
fn r14_an_accepted_report_is_done() {
    let mut bench = bench();
    let request = reported(&mut bench);
    assert_eq!(request.repeat, Repeat::Safe);
    assert!(request.body.is_empty());
    let effects = bench.answered(&request.tag, 200, &device(7)).unwrap();
    assert_eq!(effects, [Effect::CancelTimer("report".into())]);
    assert_eq!(state(&bench).reported, Some(7));
    for effects in [
        bench.timer("report").unwrap(),
        bench.send(Event::Target("cam".into())).unwrap(),
        bench.start(StartReason::Booted).unwrap(),
        polled(&mut bench, 200, &json!([entry(7, "1.0.0")])),
    ] {
        assert!(asked(&effects).is_empty(), "told once: {effects:?}");
    }
}

#[test]
fn r14_a_report_that_fails_twice_is_told_until_it_is_accepted_and_counts_once() {
    let mut bench = bench();
    let mut request = reported(&mut bench);
    for n in 1..=2 {
        let effects = bench
            .answered(&request.tag, 500, &error("Internal server error"))
            .unwrap();
        let next = wait(&effects, "report").unwrap();
        assert!((MINUTE..=n * 72_000).contains(&next), "{next}");
        // Nothing but its timer brings the next try.
        for effects in [
            bench.send(Event::Target("cam".into())).unwrap(),
            bench.start(StartReason::Booted).unwrap(),
            polled(&mut bench, 200, &json!([])),
        ] {
            assert!(asked(&effects).is_empty(), "{effects:?}");
        }
        bench.reboot(&format!("boot-{n}-more"), 100);
        request = again(&mut bench);
    }
    bench.answered(&request.tag, 200, &device(7)).unwrap();
    assert_eq!(state(&bench).owed, None);
    assert!(asked(&bench.timer("report").unwrap()).is_empty());
}

#[test]
fn waits_grow_to_hours_and_a_retry_after_is_kept() {
    let mut bench = bench();
    let mut request = reported(&mut bench);
    let mut last = 0;
    for _ in 0..300 {
        let effects = bench.unanswered(&request.tag, "no route").unwrap();
        last = wait(&effects, "report").unwrap();
        request = again(&mut bench);
    }
    assert!((4 * HOUR..=8 * HOUR).contains(&last), "{last}");
    let mut answer = HttpResponse::status(429);
    answer.headers.push(Field {
        name: "retry-after".into(),
        value: "43200".into(),
    });
    let effects = bench
        .outcome(&request.tag, FetchResult::Answered(answer))
        .unwrap();
    assert!(wait(&effects, "report").unwrap() >= 12 * HOUR);
}

#[test]
fn a_report_without_any_outcome_is_told_again() {
    let mut bench = bench();
    let lost = reported(&mut bench);
    let request = again(&mut bench);
    assert_ne!(lost.tag, request.tag);
    assert!(
        bench
            .answered(&lost.tag, 500, &error("x"))
            .unwrap()
            .is_empty()
    );
    bench.answered(&request.tag, 200, &device(7)).unwrap();
    assert_eq!(state(&bench).reported, Some(7));
}

#[test]
fn a_200_that_names_another_firmware_or_none_is_not_accepted_and_flagged_once() {
    let mut bench = bench();
    let mut request = reported(&mut bench);
    let answers = [
        json!(null),
        device(6),
        json!({ "now_firmware_id": [7] }),
        json!("<html>"),
    ];
    for (n, body) in answers.iter().enumerate() {
        let effects = bench.answered(&request.tag, 200, body).unwrap();
        assert_eq!(codes(&effects).len(), usize::from(n == 0), "{body}");
        assert!(wait(&effects, "report").is_some());
        request = again(&mut bench);
    }
    bench.answered(&request.tag, 200, &device(7)).unwrap();
    assert_eq!(state(&bench).owed, None);
}

#[test]
fn firmware_that_the_cloud_says_is_not_this_devices_is_given_up_with_an_alert() {
    let mut bench = bench();
    let request = reported(&mut bench);
    let effects = bench
        .answered(
            &request.tag,
            400,
            &error("Firmware not matched with device"),
        )
        .unwrap();
    assert_eq!(codes(&effects), ["report-refused"]);
    assert!(alerts(&effects)[0].text.contains("1.0.0"));
    for effects in [
        bench.timer("report").unwrap(),
        bench.send(Event::Target("cam".into())).unwrap(),
        polled(&mut bench, 200, &json!([entry(7, "1.0.0")])),
    ] {
        assert!(
            asked(&effects).is_empty() && codes(&effects).is_empty(),
            "{effects:?}"
        );
    }
}

#[test]
fn any_other_refusal_is_told_again_once_a_day_and_alerted_once() {
    for (http, detail) in [
        (400, "something else"),
        (401, "Not authorized user"),
        (403, "Permission denied"),
        (404, "Resource not found"),
        (409, "x"),
        (422, "x"),
    ] {
        let mut bench = bench();
        let mut request = reported(&mut bench);
        for n in 0..3 {
            let effects = bench.answered(&request.tag, http, &error(detail)).unwrap();
            assert_eq!(codes(&effects).len(), usize::from(n == 0), "{http}");
            assert!(wait(&effects, "report").unwrap() > 19 * HOUR);
            request = again(&mut bench);
        }
        bench.answered(&request.tag, 200, &device(7)).unwrap();
        assert_eq!(state(&bench).owed, None, "until it is accepted");
    }
}

#[test]
fn r15_nothing_is_told_before_the_new_version_is_confirmed() {
    let mut bench = bench();
    let plan = offered(&mut bench, 7, "1.0.0");
    for phase in [Phase::Downloading, Phase::Installing, Phase::Activating] {
        assert!(bench.report(at(&plan, phase)).unwrap().is_empty());
    }
    // The new version runs on trial, and the cloud lists the very same.
    bench.reboot("boot-2", 3_000);
    runs(&mut bench, "1.0.0");
    bench.report(at(&plan, Phase::Confirming)).unwrap();
    for effects in [
        bench.start(StartReason::Booted).unwrap(),
        bench.send(Event::Target("cam".into())).unwrap(),
        polled(&mut bench, 200, &json!([entry(7, "1.0.0")])),
        bench.timer("report").unwrap(),
    ] {
        assert!(asked(&effects).is_empty(), "{effects:?}");
    }
    let effects = bench.report(at(&plan, Phase::Succeeded)).unwrap();
    assert_eq!(asked(&effects), [PATCH_7]);
}

#[test]
fn r15_after_a_roll_back_nothing_is_told() {
    for phase in [
        Phase::RolledBack,
        Phase::RollbackFailed,
        Phase::Failed,
        Phase::Cancelled,
    ] {
        let mut bench = bench();
        let plan = offered(&mut bench, 7, "1.0.0");
        bench.report(at(&plan, Phase::Activating)).unwrap();
        let mut effects = bench
            .report(ended(&plan, phase, "boot-failed", "confirm"))
            .unwrap();
        effects.extend(bench.send(Event::Target("cam".into())).unwrap());
        effects.extend(bench.timer("report").unwrap());
        effects.extend(bench.start(StartReason::Booted).unwrap());
        let request = poll(&mut bench);
        effects.extend(bench.answered(&request.tag, 200, &json!([])).unwrap());
        assert!(asked(&effects).is_empty(), "{phase}: {effects:?}");
    }
}

#[test]
fn a_job_that_succeeded_is_told_only_while_the_target_says_the_same() {
    let mut bench = bench();
    let plan = offered(&mut bench, 7, "1.0.0");
    // The version is asked for now and then; here it is not known yet.
    let effects = bench.report(at(&plan, Phase::Succeeded)).unwrap();
    assert!(asked(&effects).is_empty());
    runs(&mut bench, "1.0.0");
    let effects = bench.send(Event::Target("cam".into())).unwrap();
    assert_eq!(asked(&effects), [PATCH_7]);
    // It fails, and meanwhile something else was installed.
    bench
        .answered(&only(&effects).tag, 502, &json!(null))
        .unwrap();
    runs(&mut bench, "1.0.5");
    assert!(asked(&bench.timer("report").unwrap()).is_empty());
    runs(&mut bench, "v1.0.0");
    let effects = bench.send(Event::Target("cam".into())).unwrap();
    assert_eq!(asked(&effects), [PATCH_7]);
}

#[test]
fn what_the_operator_installed_from_a_file_is_told_too() {
    let mut bench = bench();
    let plan = offered(&mut bench, 9, "2.0.0");
    bench
        .report(ended(&plan, Phase::Failed, "source-lost", "download"))
        .unwrap();
    let list = json!([entry(9, "2.0.0"), entry(7, "1.0.0")]);
    bench.world.verdict = otahost_adapter::Verdict::Defer(u64::MAX >> 12);
    polled(&mut bench, 200, &list);
    let mut other = at(&plan, Phase::Installing);
    other.key = "operator/1".into();
    other.foreign = true;
    other.context = Vec::new();
    bench.report(other.clone()).unwrap();
    runs(&mut bench, "1.0.0");
    assert!(asked(&bench.send(Event::Target("cam".into())).unwrap()).is_empty());
    other.phase = Phase::Succeeded;
    let effects = bench.report(other).unwrap();
    assert_eq!(asked(&effects), [PATCH_7]);
    bench
        .answered(&only(&effects).tag, 200, &device(7))
        .unwrap();
    assert!(asked(&bench.send(Event::Target("cam".into())).unwrap()).is_empty());
}

#[test]
fn what_runs_and_is_listed_only_later_is_told_at_that_poll() {
    let mut bench = bench();
    runs(&mut bench, "1.0.0");
    let effects = polled(&mut bench, 200, &json!([entry(7, "1.0.0")]));
    assert_eq!(asked(&effects), [PATCH_7]);
    assert_eq!(status(&bench), "up-to-date");
}

#[test]
fn one_version_under_two_ids_is_told_only_where_a_job_says_which() {
    let mut bench = bench();
    runs(&mut bench, "1.0.0");
    let list = json!([entry(7, "1.0.0"), entry(8, "1.0.0")]);
    assert!(asked(&polled(&mut bench, 200, &list)).is_empty());
}

#[test]
fn the_report_of_an_older_firmware_makes_way_for_that_of_the_newer() {
    let mut bench = bench();
    let first = reported(&mut bench);
    let plan = offered(&mut bench, 8, "1.0.1");
    let effects = bench.answered(&first.tag, 500, &error("x")).unwrap();
    assert!(wait(&effects, "report").is_some());
    bench.timer("report").unwrap();
    let effects = succeed(&mut bench, &plan);
    assert_eq!(
        asked(&effects),
        ["PATCH /api/v1/addnox/firmware/update-result/4/8/9"]
    );
    bench
        .answered(&only(&effects).tag, 200, &device(8))
        .unwrap();
    assert!(asked(&bench.timer("report").unwrap()).is_empty());
    assert_eq!(state(&bench).reported, Some(8));
}
