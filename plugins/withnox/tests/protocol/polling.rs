//! Polls: when, what is taken, and what follows from every kind of answer. R01, R02, R03, R10, R16.

use otahost_adapter::bench::{started, target};
use otahost_adapter::{
    ArtifactSource, FetchResult, Field, HttpResponse, Reason, Repeat, StartReason, Verdict,
};
use serde_json::{Value, json};

use crate::cloud::{
    HOUR, LATEST, MINUTE, PAGE, asked, at, bench, bench_with, codes, config, entry, error, offered,
    only, poll, polled, runs, state, status, wait,
};

#[test]
fn r01_an_empty_list_is_up_to_date() {
    let mut bench = bench();
    let effects = polled(&mut bench, 200, &json!([]));
    assert_eq!(status(&bench), "up-to-date");
    assert_eq!(
        effects.len(),
        1,
        "the next poll and nothing else: {effects:?}"
    );
    let next = wait(&effects, "poll").unwrap();
    assert!((288 * MINUTE..=432 * MINUTE).contains(&next), "{next}");
}

#[test]
fn r02_the_file_is_asked_for_by_firmware_id_and_by_no_other() {
    let mut bench = bench();
    let page: Value = serde_json::from_str(PAGE).unwrap();
    let effects = polled(&mut bench, 200, &page);
    let plans = started(&effects);
    assert_eq!(plans.len(), 1);
    let install = &plans[0].installs[0];
    assert_eq!(
        install.artifact.source,
        ArtifactSource::on_link("withnox", "/api/v1/addnox/firmware/file/4/7/9")
    );
    assert_eq!(
        (install.target.as_str(), install.version.as_str()),
        ("cam", "1.0.0")
    );
    // The cloud says neither size nor digest; the eight digits in the file's name are nobody's digest.
    assert_eq!(install.artifact.size, None);
    assert!(install.artifact.digests.is_empty());
    assert_eq!(install.artifact.identity.as_deref(), Some("withnox/7"));
    assert_eq!(plans[0].key, "withnox/7");
    assert_eq!(status(&bench), "updating");
}

#[test]
fn r03_the_highest_active_version_is_taken_wherever_it_stands() {
    let mut retired = entry(4, "2.0.0");
    retired["firmware"]["is_active"] = json!(false);
    let mut list = vec![
        entry(2, "1.2.0"),
        retired,
        entry(3, "1.10.0"),
        entry(1, "1.0.0"),
    ];
    for _ in 0..list.len() {
        list.rotate_left(1);
        let mut bench = bench();
        let effects = polled(&mut bench, 200, &json!(list));
        assert_eq!(started(&effects)[0].key, "withnox/3");
    }
}

#[test]
fn stepwise_takes_the_lowest_version_above_the_running_one() {
    let mut config = config();
    config["stepwise"] = json!(true);
    let mut bench = bench_with(&config);
    runs(&mut bench, "1.0.0");
    let list = json!([entry(3, "1.10.0"), entry(1, "1.0.0"), entry(2, "1.2.0")]);
    let effects = polled(&mut bench, 200, &list);
    assert_eq!(started(&effects)[0].key, "withnox/2");
}

#[test]
fn firmware_for_other_hardware_is_left_alone_where_the_hardware_is_known() {
    for (hardware, jobs) in [(3, 1), (5, 0)] {
        let mut config = config();
        config["hardware_id"] = json!(hardware);
        let mut bench = bench_with(&config);
        let effects = polled(&mut bench, 200, &json!([entry(7, "1.0.0")]));
        assert_eq!(started(&effects).len(), jobs, "hardware {hardware}");
    }
}

#[test]
fn what_runs_already_is_not_taken_and_a_version_nobody_can_compare_is_an_alert_once() {
    let mut bench = bench();
    runs(&mut bench, "v1.0.0");
    let list = json!([entry(7, "1.0.0"), entry(6, "0.9.9")]);
    assert!(started(&polled(&mut bench, 200, &list)).is_empty());
    assert_eq!(status(&bench), "up-to-date");

    runs(&mut bench, "factory");
    assert_eq!(codes(&polled(&mut bench, 200, &list)), ["version"]);
    assert!(codes(&polled(&mut bench, 200, &list)).is_empty());
    assert_eq!(status(&bench), "version-unknown");
}

#[test]
fn nothing_is_taken_before_the_running_version_is_known_and_then_it_is_soon() {
    let mut bench = bench();
    bench.world.targets[0].version = None;
    let list = json!([entry(7, "1.0.0")]);
    assert!(started(&polled(&mut bench, 200, &list)).is_empty());
    runs(&mut bench, "0.9.0");
    let changed = bench
        .send(otahost_adapter::Event::Target("cam".into()))
        .unwrap();
    let next = wait(&changed, "poll").unwrap();
    assert!((MINUTE..=2 * MINUTE).contains(&next), "{next}");
    assert_eq!(started(&polled(&mut bench, 200, &list)).len(), 1);
}

#[test]
fn the_first_step_ever_asks_at_once_and_every_other_start_within_two_minutes() {
    let mut bench = bench();
    let effects = bench.start(StartReason::Installed).unwrap();
    let request = only(&effects);
    assert_eq!(
        (request.path.as_str(), request.repeat),
        (LATEST, Repeat::Safe)
    );
    assert_eq!(request.redirects, 0);
    assert!(request.captures.is_empty() && request.body.is_empty());
    for reason in [
        StartReason::Booted,
        StartReason::Restarted,
        StartReason::Reconfigured,
        StartReason::Upgraded("0".into()),
        StartReason::RolledBack("0".into()),
    ] {
        let effects = bench.start(reason).unwrap();
        assert!(asked(&effects).is_empty());
        let next = wait(&effects, "poll").unwrap();
        assert!((MINUTE..2 * MINUTE).contains(&next), "{next}");
    }
}

#[test]
fn polls_are_spread_by_a_fifth_and_never_closer_than_a_minute() {
    let mut seconds = config();
    seconds["poll_seconds"] = json!(60);
    for (config, low, high) in [
        (config(), 288 * MINUTE, 432 * MINUTE),
        (seconds, MINUTE, 72_000),
    ] {
        let mut bench = bench_with(&config);
        let waits: Vec<_> = (0..64)
            .map(|_| wait(&polled(&mut bench, 200, &json!([])), "poll").unwrap())
            .collect();
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*least >= low && *most <= high, "{least} {most}");
        assert!(most - least > (high - low) / 2, "{least} {most}");
    }
}

#[test]
fn a_poll_that_never_ends_is_asked_again_and_its_late_answer_is_nobodys() {
    let mut bench = bench();
    let lost = poll(&mut bench);
    let again = poll(&mut bench);
    assert_ne!(lost.tag, again.tag);
    let before = bench.state().to_vec();
    let late = bench
        .answered(&lost.tag, 200, &json!([entry(7, "1.0.0")]))
        .unwrap();
    assert!(late.is_empty());
    assert_eq!(bench.state(), before);
}

#[test]
fn r10_a_device_or_account_the_cloud_does_not_know_is_asked_about_once_a_day_and_alerted_once() {
    for (http, detail) in [
        (401, "Not authorized user"),
        (403, "Permission denied"),
        (404, "Device not found"),
        (404, "Resource not found"),
        (422, "whatever"),
        (410, "whatever"),
    ] {
        let mut bench = bench();
        let effects = polled(&mut bench, http, &error(detail));
        assert!(
            asked(&effects).is_empty(),
            "no refresh, no repeat: {detail}"
        );
        assert_eq!(codes(&effects), ["configuration"], "{detail}");
        let next = wait(&effects, "poll").unwrap();
        assert!((19 * HOUR..=29 * HOUR).contains(&next), "{next}");
        assert_eq!(status(&bench), "configuration");
        assert!(state(&bench).why.contains(detail), "{}", state(&bench).why);

        let effects = polled(&mut bench, http, &error(detail));
        assert!(codes(&effects).is_empty(), "once: {detail}");
        // Put right, it is over; and may be alerted again.
        polled(&mut bench, 200, &json!([]));
        assert_eq!(status(&bench), "up-to-date");
        assert_eq!(
            codes(&polled(&mut bench, http, &error(detail))),
            ["configuration"]
        );
    }
}

#[test]
fn no_firmware_at_all_is_nothing_to_do_and_a_warning() {
    let mut bench = bench();
    let effects = polled(&mut bench, 404, &error("Firmware not found"));
    assert_eq!(effects.len(), 1, "{effects:?}");
    assert!(wait(&effects, "poll").unwrap() <= 432 * MINUTE);
    assert_eq!(status(&bench), "up-to-date");
    assert!(
        bench
            .log()
            .iter()
            .any(|(_, line)| line.contains("no firmware at all"))
    );
}

#[test]
fn r16_what_is_no_answer_is_asked_again_after_ever_longer_waits() {
    let answers = [
        FetchResult::Failed("connection refused".into()),
        FetchResult::Interrupted,
        html(502),
        html(200),
        FetchResult::Answered(HttpResponse::with_json(200, &json!({ "detail": "?" }))),
        FetchResult::Answered(HttpResponse {
            body: include_bytes!("../../fixtures/s3_error_two_auth_mechanisms.xml").to_vec(),
            ..HttpResponse::status(200)
        }),
        FetchResult::Answered(HttpResponse {
            body: br#"[{"firmware_id": 7, "firmw"#.to_vec(),
            ..HttpResponse::status(200)
        }),
        FetchResult::Answered(HttpResponse::status(302)),
    ];
    for outcome in answers {
        let mut bench = bench();
        let mut waits = Vec::new();
        for _ in 0..12 {
            let request = poll(&mut bench);
            let effects = bench.outcome(&request.tag, outcome.clone()).unwrap();
            assert!(
                asked(&effects).is_empty() && codes(&effects).is_empty(),
                "{effects:?}"
            );
            waits.push(wait(&effects, "poll").unwrap());
            assert_eq!(status(&bench), "unreachable");
        }
        assert!((MINUTE..=72_000).contains(&waits[0]), "{waits:?}");
        assert!((12 * MINUTE..=20 * MINUTE).contains(&waits[4]), "{waits:?}");
        assert!(waits[11] <= 432 * MINUTE, "{waits:?}");
        // One good answer, and the waits begin anew.
        polled(&mut bench, 200, &json!([]));
        let request = poll(&mut bench);
        let effects = bench.outcome(&request.tag, outcome).unwrap();
        assert!(wait(&effects, "poll").unwrap() <= 72_000);
    }
}

fn html(status: u16) -> FetchResult {
    FetchResult::Answered(HttpResponse {
        body: b"<html><body>Bad Gateway</body></html>".to_vec(),
        ..HttpResponse::status(status)
    })
}

#[test]
fn a_servers_retry_after_is_kept_and_has_a_limit() {
    for (asked_for, low, high) in [
        ("600", 10 * MINUTE, 12 * MINUTE),
        ("5", MINUTE, 72_000),
        ("99999999999", 24 * HOUR, 29 * HOUR),
        ("tomorrow", MINUTE, 72_000),
    ] {
        let mut bench = bench();
        let request = poll(&mut bench);
        let mut answer = HttpResponse::with_json(429, &error("slow down"));
        answer.headers.push(Field {
            name: "retry-after".into(),
            value: asked_for.into(),
        });
        let effects = bench
            .outcome(&request.tag, FetchResult::Answered(answer))
            .unwrap();
        let next = wait(&effects, "poll").unwrap();
        assert!((low..=high).contains(&next), "{asked_for}: {next}");
    }
}

#[test]
fn what_policy_defers_waits_and_is_asked_for_again_when_the_time_has_come() {
    let mut bench = bench();
    bench.world.verdict = Verdict::Defer(bench.world.now + 2 * HOUR);
    let list = json!([entry(7, "1.0.0")]);
    let effects = polled(&mut bench, 200, &list);
    assert!(started(&effects).is_empty());
    assert_eq!(status(&bench), "deferred");
    let next = wait(&effects, "poll").unwrap();
    assert!((2 * HOUR..=2 * HOUR + 5 * MINUTE).contains(&next), "{next}");
    bench.world.verdict = Verdict::Allow;
    assert_eq!(started(&polled(&mut bench, 200, &list)).len(), 1);

    // Later than the next poll: the next poll will see.
    let mut bench = crate::cloud::bench();
    bench.world.verdict = Verdict::Defer(bench.world.now + 200 * HOUR);
    let effects = polled(&mut bench, 200, &list);
    assert!(wait(&effects, "poll").unwrap() <= 432 * MINUTE);
}

#[test]
fn what_the_host_refuses_is_not_started_and_a_job_under_way_is_not_disturbed() {
    let mut bench = bench();
    bench.world.verdict = Verdict::Refuse(Reason::new("downgrade", "admit", "older"));
    let list = json!([entry(7, "1.0.0")]);
    assert!(started(&polled(&mut bench, 200, &list)).is_empty());
    assert_eq!(status(&bench), "refused");
    assert!(state(&bench).why.contains("older"));

    bench.world.verdict = Verdict::Allow;
    let plan = offered(&mut bench, 7, "1.0.0");
    bench
        .report(at(&plan, otahost_adapter::Phase::Downloading))
        .unwrap();
    assert!(started(&polled(&mut bench, 200, &list)).is_empty());
    assert_eq!(status(&bench), "updating");
}

#[test]
fn the_end_of_a_strangers_job_on_the_target_brings_the_next_poll_forward() {
    let mut bench = bench();
    let mut other = at(&somebody_elses(), otahost_adapter::Phase::Downloading);
    other.key = "operator/1".into();
    other.foreign = true;
    bench.set_job(other.clone());
    let list = json!([entry(7, "1.0.0")]);
    assert!(started(&polled(&mut bench, 200, &list)).is_empty());
    assert_eq!(status(&bench), "busy");
    other.phase = otahost_adapter::Phase::Failed;
    let effects = bench.report(other).unwrap();
    assert!(wait(&effects, "poll").unwrap() < 2 * MINUTE);
    assert_eq!(started(&polled(&mut bench, 200, &list)).len(), 1);
}

fn somebody_elses() -> otahost_adapter::JobPlan {
    otahost_adapter::effects::start_job("x").install(otahost_adapter::Install::new(
        "cam",
        "5",
        ArtifactSource::Url("https://files.example/x".into()),
    ))
}

#[test]
fn another_target_is_none_of_its_business() {
    let mut bench = bench();
    bench.world.targets.push(target("dock", "1.0.0"));
    polled(&mut bench, 200, &json!([entry(7, "1.0.0")]));
    let before = bench.state().to_vec();
    let effects = bench
        .send(otahost_adapter::Event::Target("dock".into()))
        .unwrap();
    assert!(effects.is_empty());
    assert_eq!(bench.state(), before);
}
