//! Failed attempts to fetch the file: what the API and the object store say, and what is answered.

use otahost_adapter::bench::{Bench, retries};
use otahost_adapter::{Effect, Phase, RetryDecision, StartReason};
use serde_json::json;
use withnox::Withnox;

use crate::cloud::{
    REFRESH, SIGN_IN, asked, at, bench, codes, error, offered, only, polled, status, tokens,
};

const JOB: &str = "withnox/7";
const TWO_AUTHS: &str = include_str!("../../fixtures/s3_error_two_auth_mechanisms.xml");
const EXPIRED_URL: &str = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
const EXPIRED_ROLE: &str = "<Error><Code>ExpiredToken</Code></Error>";

fn fail(bench: &mut Bench<Withnox>, attempt: u32, http: u16, body: &str) -> Vec<Effect> {
    bench
        .attempt_failed(JOB, attempt, http, body, "why")
        .unwrap()
}

fn downloading() -> Bench<Withnox> {
    let mut bench = bench();
    offered(&mut bench, 7, "1.0.0");
    bench
}

fn decision(effects: &[Effect]) -> Option<RetryDecision> {
    let answers = retries(effects);
    assert!(answers.len() <= 1, "{effects:?}");
    answers.first().map(|r| {
        assert_eq!((r.job.as_str(), r.install), (JOB, 0));
        r.decision.clone()
    })
}

fn waits(effects: &[Effect]) -> u64 {
    match decision(effects) {
        Some(RetryDecision::After(wait)) => wait,
        other => panic!("{other:?}"),
    }
}

fn stops(effects: &[Effect]) -> String {
    match decision(effects) {
        Some(RetryDecision::Stop(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_expired_token_is_refreshed_and_the_attempt_goes_on_at_once() {
    let mut bench = downloading();
    let effects = fail(&mut bench, 1, 401, &error("Token is expired").to_string());
    assert_eq!(asked(&effects), [format!("POST {REFRESH}")]);
    assert_eq!(decision(&effects), None, "first the token");
    let effects = bench.answered(&only(&effects).tag, 200, &tokens()).unwrap();
    assert_eq!(decision(&effects), Some(RetryDecision::After(0)));
    // The very next attempt is refused as well: that is no matter of time.
    let effects = fail(&mut bench, 2, 401, &error("Token is expired").to_string());
    assert!(asked(&effects).is_empty());
    assert!(stops(&effects).contains("new tokens too"));
    assert_eq!(codes(&effects), ["unauthorized"]);
}

#[test]
fn a_long_download_may_need_new_tokens_more_than_once() {
    let mut bench = downloading();
    for attempt in [1, 4, 9] {
        let effects = fail(
            &mut bench,
            attempt,
            401,
            &error("Token is expired").to_string(),
        );
        let effects = bench.answered(&only(&effects).tag, 200, &tokens()).unwrap();
        assert_eq!(decision(&effects), Some(RetryDecision::After(0)));
    }
    // Another job begins to count anew.
    let body = error("Token is expired").to_string();
    let effects = bench
        .attempt_failed("withnox/8", 1, 401, body, "why")
        .unwrap();
    assert_eq!(asked(&effects).len(), 1);
}

#[test]
fn new_tokens_that_brought_bytes_were_not_in_vain_though_the_host_counts_anew() {
    let mut bench = bench();
    let plan = offered(&mut bench, 7, "1.0.0");
    for received in [10, 20, 30] {
        let mut report = at(&plan, Phase::Downloading);
        report.installs[0].received = received;
        bench.set_job(report);
        // The connection broke, and the token had expired meanwhile.
        let effects = fail(&mut bench, 2, 401, &error("Token is expired").to_string());
        let effects = bench.answered(&only(&effects).tag, 200, &tokens()).unwrap();
        assert_eq!(decision(&effects), Some(RetryDecision::After(0)));
    }
    let effects = fail(&mut bench, 3, 401, &error("Token is expired").to_string());
    assert!(stops(&effects).contains("new tokens too"));
}

#[test]
fn tokens_that_grew_old_while_the_device_was_off_were_not_in_vain() {
    let mut bench = downloading();
    for _ in 0..2 {
        let effects = fail(&mut bench, 1, 401, &error("Token is expired").to_string());
        let effects = bench.answered(&only(&effects).tag, 200, &tokens()).unwrap();
        assert_eq!(decision(&effects), Some(RetryDecision::After(0)));
        bench.start(StartReason::Booted).unwrap();
    }
}

#[test]
fn while_somebody_else_refreshes_the_attempt_comes_back_later() {
    let mut bench = downloading();
    let effects = polled(&mut bench, 401, &error("Token is expired"));
    let refresh = only(&effects);
    let effects = fail(&mut bench, 1, 401, &error("Token is expired").to_string());
    assert!(asked(&effects).is_empty());
    assert_eq!(waits(&effects), 15_000);
    let effects = bench.answered(&refresh.tag, 401, &error("x")).unwrap();
    assert_eq!(asked(&effects), [format!("POST {SIGN_IN}")]);
    let effects = fail(&mut bench, 2, 401, &error("Token is expired").to_string());
    assert_eq!(waits(&effects), 20_000);
}

#[test]
fn a_refused_refresh_lets_the_attempt_come_back_after_the_sign_in_and_a_refused_account_ends_it() {
    let mut bench = downloading();
    let effects = fail(&mut bench, 1, 401, &error("Token is expired").to_string());
    let effects = bench
        .answered(&only(&effects).tag, 401, &error("x"))
        .unwrap();
    assert_eq!(asked(&effects), [format!("POST {SIGN_IN}")]);
    assert_eq!(waits(&effects), 20_000);
    let effects = bench
        .answered(&only(&effects).tag, 423, &error("blocked"))
        .unwrap();
    assert_eq!(decision(&effects), None, "answered already");
    let effects = fail(&mut bench, 2, 401, &error("Token is expired").to_string());
    assert!(asked(&effects).is_empty());
    assert!(stops(&effects).contains("blocked"));
}

#[test]
fn without_a_token_in_the_vault_it_signs_in() {
    let mut bench = downloading();
    let effects = bench
        .attempt_failed(JOB, 1, 0, "", "no-secret: access_token")
        .unwrap();
    assert_eq!(asked(&effects), [format!("POST {SIGN_IN}")]);
    let effects = bench.answered(&only(&effects).tag, 200, &tokens()).unwrap();
    assert_eq!(decision(&effects), Some(RetryDecision::After(0)));
}

#[test]
fn the_servers_own_credentials_are_waited_for_without_a_refresh() {
    let mut bench = downloading();
    let mut last = 0;
    for attempt in 1..=20 {
        let effects = fail(
            &mut bench,
            attempt,
            401,
            &error("No credentials").to_string(),
        );
        assert!(asked(&effects).is_empty());
        let wait = waits(&effects);
        if attempt == 1 {
            assert!((60_000..=72_000).contains(&wait), "{wait}");
        }
        last = wait;
    }
    assert!((3_600_000..=4_320_000).contains(&last), "{last}");
}

#[test]
fn an_address_that_has_expired_is_replaced_by_the_next_attempt() {
    let mut bench = downloading();
    for (http, body) in [(403, EXPIRED_URL), (400, EXPIRED_ROLE)] {
        assert!(waits(&fail(&mut bench, 1, http, body)) <= 1_200);
        assert!(waits(&fail(&mut bench, 30, http, body)) >= 900_000);
    }
    // Known by its status alone where a gateway says it in HTML.
    assert!(waits(&fail(&mut bench, 1, 403, "<html>Forbidden</html>")) >= 60_000);
}

#[test]
fn what_no_further_attempt_can_help_ends_the_job_with_the_clouds_own_words() {
    for (http, body, words) in [
        (400, error("Invalid firmware").to_string(), "not newer"),
        (
            404,
            error("Firmware file not found").to_string(),
            "Firmware file not found",
        ),
        (
            404,
            "<Error><Code>NoSuchKey</Code></Error>".to_owned(),
            "HTTP 404",
        ),
        (400, TWO_AUTHS.to_owned(), "HTTP 400"),
        (
            422,
            json!({ "detail": [{ "msg": "x" }] }).to_string(),
            "HTTP 422",
        ),
        (410, String::new(), "HTTP 410"),
    ] {
        let mut bench = downloading();
        let effects = fail(&mut bench, 1, http, &body);
        assert_eq!(effects.len(), 1, "no alert, no request: {effects:?}");
        assert!(stops(&effects).contains(words), "{effects:?}");
    }
}

#[test]
fn r10_a_device_the_cloud_does_not_know_ends_the_job_and_alerts_once() {
    let mut bench = downloading();
    for n in 0..3 {
        let effects = fail(&mut bench, 1, 403, &error("Permission denied").to_string());
        assert!(stops(&effects).contains("Permission denied"));
        assert_eq!(codes(&effects).len(), usize::from(n == 0));
    }
    assert_eq!(status(&bench), "updating", "the job's end will say more");
}

#[test]
fn the_network_and_the_servers_own_trouble_are_the_hosts_to_repeat() {
    let mut bench = downloading();
    for http in [0, 200, 206, 302, 408, 416, 425, 429, 500, 502, 503] {
        assert!(fail(&mut bench, 1, http, "<html>").is_empty(), "{http}");
    }
}
