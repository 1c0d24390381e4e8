//! Tokens: one refresh at a time, one repetition, one sign-in an hour. R08, R09.

use otahost_adapter::bench::{Bench, fetched};
use otahost_adapter::{Effect, Fetch, FetchResult, Field, HttpResponse, Repeat, StartReason};
use serde_json::{Value, json};
use withnox::Withnox;

use crate::cloud::{
    HOUR, LATEST, MINUTE, REFRESH, SIGN_IN, asked, bench, codes, device, error, offered, only,
    poll, polled, state, status, succeed, tokens, wait,
};

const EXPIRED: &str = "Token is expired";

/// A poll is refused for its token; the refresh that follows.
fn refresh(bench: &mut Bench<Withnox>) -> Fetch {
    let effects = polled(bench, 401, &error(EXPIRED));
    let request = only(&effects);
    assert_eq!(request.path, REFRESH);
    request
}

/// A refresh is refused; the sign-in that follows.
fn sign_in(bench: &mut Bench<Withnox>) -> Fetch {
    let request = refresh(bench);
    let effects = bench
        .answered(&request.tag, 401, &error("Refresh token is not valid"))
        .unwrap();
    let request = only(&effects);
    assert_eq!(request.path, SIGN_IN);
    request
}

fn captures(request: &Fetch) -> Vec<(&str, &str)> {
    request
        .captures
        .iter()
        .map(|c| (c.pointer.as_str(), c.secret.as_str()))
        .collect()
}

const BOTH: [(&str, &str); 2] = [
    ("/access_token", "access_token"),
    ("/refresh_token", "refresh_token"),
];

#[test]
fn r08_an_expired_token_is_refreshed_once_and_the_question_repeated_once() {
    let mut bench = bench();
    let request = refresh(&mut bench);
    assert_eq!(
        (request.method.as_str(), request.repeat),
        ("POST", Repeat::Once)
    );
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body, json!({ "refresh_token": "{secret:refresh_token}" }));
    assert!(request.headers.contains(&Field {
        name: "content-type".into(),
        value: "application/json".into()
    }));
    assert_eq!(captures(&request), BOTH, "the new refresh token is stored");

    let effects = bench.answered(&request.tag, 200, &tokens()).unwrap();
    let again = only(&effects);
    assert_eq!(again.path, LATEST);
    let effects = bench.answered(&again.tag, 200, &json!([])).unwrap();
    assert!(asked(&effects).is_empty());
    assert_eq!(status(&bench), "up-to-date");
    assert!(!String::from_utf8_lossy(bench.state()).contains("new_refresh_token"));
}

#[test]
fn new_tokens_that_are_refused_too_are_an_auth_failure_and_no_loop() {
    for detail in [EXPIRED, "Could not validate credentials"] {
        let mut bench = bench();
        let request = refresh(&mut bench);
        let effects = bench.answered(&request.tag, 200, &tokens()).unwrap();
        let again = only(&effects);
        let effects = bench.answered(&again.tag, 401, &error(detail)).unwrap();
        assert!(asked(&effects).is_empty());
        assert_eq!(codes(&effects), ["unauthorized"]);
        assert_eq!(status(&bench), "unauthorized");
        assert!(wait(&effects, "poll").unwrap() > 19 * HOUR);
    }
}

#[test]
fn r09_a_refused_refresh_signs_in_once_and_a_refused_account_stops() {
    for (n, detail) in [
        EXPIRED,
        "Could not validate credentials",
        "Refresh token is not valid",
    ]
    .into_iter()
    .enumerate()
    {
        let mut bench = bench();
        let request = refresh(&mut bench);
        let effects = bench.answered(&request.tag, 401, &error(detail)).unwrap();
        let request = only(&effects);
        assert_eq!(
            (request.path.as_str(), request.repeat),
            (SIGN_IN, Repeat::Once)
        );
        assert_eq!(
            String::from_utf8_lossy(&request.body),
            "username={secret:account_user}&password={secret:account_password}"
        );
        assert!(request.headers.contains(&Field {
            name: "content-type".into(),
            value: "application/x-www-form-urlencoded".into()
        }));
        assert_eq!(captures(&request), BOTH);
        assert_eq!(wait(&effects, "sign-in"), Some(HOUR));

        let http = [400, 403, 423][n];
        let effects = bench.answered(&request.tag, http, &error("no")).unwrap();
        assert!(asked(&effects).is_empty());
        assert_eq!(codes(&effects), ["sign-in-refused"]);
        assert!(wait(&effects, "poll").unwrap() > 19 * HOUR);
        assert_eq!(status(&bench), "sign-in-refused");

        // Whatever happens: no refresh, no sign-in, no second alert.
        for _ in 0..3 {
            for name in ["sign-in", "auth"] {
                assert!(bench.timer(name).unwrap().is_empty(), "{name}");
            }
            let effects = polled(&mut bench, 401, &error(EXPIRED));
            assert!(asked(&effects).is_empty() && codes(&effects).is_empty());
            assert!(wait(&effects, "poll").unwrap() > 19 * HOUR);
            assert_eq!(status(&bench), "sign-in-refused");
        }
    }
}

#[test]
fn every_refusal_of_the_account_stops_and_the_next_start_tries_once_more() {
    for http in [400, 401, 403, 404, 410, 422, 423] {
        let mut bench = bench();
        let request = sign_in(&mut bench);
        let effects = bench.answered(&request.tag, http, &error("no")).unwrap();
        assert_eq!(codes(&effects), ["sign-in-refused"], "{http}");
        bench.timer("sign-in").unwrap();
        bench.start(StartReason::Restarted).unwrap();
        let request = sign_in(&mut bench);
        let effects = bench.answered(&request.tag, http, &error("no")).unwrap();
        assert!(codes(&effects).is_empty(), "said already: {http}");
        // Tokens that work again end it.
        bench.timer("sign-in").unwrap();
        polled(&mut bench, 200, &json!([]));
        assert_eq!(status(&bench), "up-to-date");
    }
}

#[test]
fn a_lost_refresh_is_never_sent_twice_but_signed_in_for() {
    for outcome in [
        FetchResult::Failed("time-out".into()),
        FetchResult::Interrupted,
        FetchResult::Failed("no-secret: refresh_token".into()),
        FetchResult::Answered(HttpResponse::status(200)),
        FetchResult::Answered(HttpResponse::status(500)),
        FetchResult::Answered(HttpResponse::status(302)),
        FetchResult::Answered(HttpResponse {
            body: b"<html>".to_vec(),
            ..HttpResponse::status(502)
        }),
    ] {
        let mut bench = bench();
        let request = refresh(&mut bench);
        let effects = bench.outcome(&request.tag, outcome).unwrap();
        assert_eq!(asked(&effects), [format!("POST {SIGN_IN}")]);
        let request = only(&effects);
        let effects = bench.answered(&request.tag, 200, &tokens()).unwrap();
        assert_eq!(asked(&effects), [format!("GET {LATEST}")]);
    }
}

#[test]
fn a_refresh_without_any_outcome_is_lost_after_a_while() {
    let mut bench = bench();
    let request = refresh(&mut bench);
    let effects = bench.timer("auth").unwrap();
    assert_eq!(asked(&effects), [format!("POST {SIGN_IN}")]);
    assert!(
        bench
            .answered(&request.tag, 200, &tokens())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_server_that_says_it_did_not_refresh_is_asked_again_later() {
    let mut bench = bench();
    let request = refresh(&mut bench);
    let mut answer = HttpResponse::status(503);
    answer.headers.push(Field {
        name: "retry-after".into(),
        value: "600".into(),
    });
    let effects = bench
        .outcome(&request.tag, FetchResult::Answered(answer))
        .unwrap();
    assert!(asked(&effects).is_empty());
    let next = wait(&effects, "auth").unwrap();
    assert!((10 * MINUTE..=12 * MINUTE).contains(&next), "{next}");
    assert!(
        asked(&bench.timer("poll").unwrap()).is_empty(),
        "it waits too"
    );
    let effects = bench.timer("auth").unwrap();
    assert_eq!(asked(&effects), [format!("POST {REFRESH}")]);
    let request = only(&effects);
    let effects = bench.answered(&request.tag, 200, &tokens()).unwrap();
    assert_eq!(asked(&effects), [format!("GET {LATEST}")]);
}

#[test]
fn a_second_sign_in_waits_for_its_hour_and_the_question_with_it() {
    let mut bench = bench();
    let request = sign_in(&mut bench);
    let effects = bench.answered(&request.tag, 200, &tokens()).unwrap();
    let request = only(&effects);
    bench.answered(&request.tag, 200, &json!([])).unwrap();
    assert_eq!(status(&bench), "up-to-date");

    // Somebody else signed in with the same account: the refresh token is gone already.
    let request = refresh(&mut bench);
    let effects = bench
        .answered(&request.tag, 401, &error("Refresh token is not valid"))
        .unwrap();
    assert!(asked(&effects).is_empty());
    assert_eq!(codes(&effects), ["logged-out"]);
    assert_eq!(status(&bench), "logged-out");
    for _ in 0..3 {
        let effects = bench.timer("poll").unwrap();
        assert!(asked(&effects).is_empty());
        assert!(wait(&effects, "poll").is_some());
        bench.start(StartReason::Booted).unwrap();
        assert!(bench.timer("auth").unwrap().is_empty());
    }
    let effects = bench.timer("sign-in").unwrap();
    let request = only(&effects);
    assert_eq!(request.path, SIGN_IN);
    let effects = bench.answered(&request.tag, 200, &tokens()).unwrap();
    assert_eq!(asked(&effects), [format!("GET {LATEST}")]);
}

#[test]
fn a_sign_in_that_fails_by_itself_is_tried_again_after_an_hour_at_the_earliest() {
    let mut bench = bench();
    let request = sign_in(&mut bench);
    let effects = bench.unanswered(&request.tag, "time-out").unwrap();
    assert!(asked(&effects).is_empty());
    assert_eq!(codes(&effects), ["logged-out"]);
    let request = only(&bench.timer("sign-in").unwrap());
    let effects = bench.answered(&request.tag, 503, &error("x")).unwrap();
    assert!(codes(&effects).is_empty(), "said already");
    let request = only(&bench.timer("sign-in").unwrap());
    // Asked to stay away for longer than that.
    let mut answer = HttpResponse::status(429);
    answer.headers.push(Field {
        name: "retry-after".into(),
        value: "36000".into(),
    });
    let effects = bench
        .outcome(&request.tag, FetchResult::Answered(answer))
        .unwrap();
    assert!(wait(&effects, "sign-in").unwrap() >= 10 * HOUR);
}

#[test]
fn without_any_token_it_signs_in_and_without_an_account_it_stops() {
    let mut bench = bench();
    let request = poll(&mut bench);
    let effects = bench
        .unanswered(&request.tag, "no-secret: access_token is not in the vault")
        .unwrap();
    assert_eq!(asked(&effects), [format!("POST {SIGN_IN}")]);
    let request = only(&effects);
    let effects = bench
        .unanswered(&request.tag, "no-secret: account_user is not in the vault")
        .unwrap();
    assert!(asked(&effects).is_empty());
    assert_eq!(codes(&effects), ["sign-in-refused"]);
    assert!(
        state(&bench).why.contains("account_user"),
        "{}",
        state(&bench).why
    );
}

#[test]
fn an_answer_to_a_sign_in_that_left_no_token_in_the_vault_is_no_loop() {
    let mut bench = bench();
    let request = poll(&mut bench);
    let effects = bench
        .unanswered(&request.tag, "no-secret: access_token")
        .unwrap();
    let effects = bench
        .answered(&only(&effects).tag, 200, &json!({}))
        .unwrap();
    let effects = bench
        .unanswered(&only(&effects).tag, "no-secret: access_token")
        .unwrap();
    assert!(asked(&effects).is_empty());
    assert_eq!(codes(&effects), ["unauthorized"]);
}

#[test]
fn two_questions_that_are_refused_share_one_refresh_and_are_both_repeated() {
    let mut bench = bench();
    let plan = offered(&mut bench, 7, "1.0.0");
    let effects = succeed(&mut bench, &plan);
    let report = only(&effects);
    let question = poll(&mut bench);
    let effects = bench.answered(&report.tag, 401, &error(EXPIRED)).unwrap();
    let refresh = only(&effects);
    let effects = bench.answered(&question.tag, 401, &error(EXPIRED)).unwrap();
    assert!(asked(&effects).is_empty(), "one refresh for both");
    let effects = bench.answered(&refresh.tag, 200, &tokens()).unwrap();
    assert_eq!(
        asked(&effects),
        [
            "PATCH /api/v1/addnox/firmware/update-result/4/7/9".to_owned(),
            format!("GET {LATEST}")
        ]
    );
    let effects = bench
        .answered(&fetched(&effects)[0].tag, 200, &device(7))
        .unwrap();
    assert_eq!(effects, [Effect::CancelTimer("report".into())]);
}

#[test]
fn a_refusal_of_tokens_that_were_replaced_meanwhile_needs_no_second_refresh() {
    let mut bench = bench();
    let plan = offered(&mut bench, 7, "1.0.0");
    let report = only(&succeed(&mut bench, &plan));
    let question = poll(&mut bench);
    let refresh = only(&bench.answered(&question.tag, 401, &error(EXPIRED)).unwrap());
    bench.answered(&refresh.tag, 200, &tokens()).unwrap();
    let effects = bench.answered(&report.tag, 401, &error(EXPIRED)).unwrap();
    assert_eq!(
        asked(&effects),
        ["PATCH /api/v1/addnox/firmware/update-result/4/7/9"]
    );
}

#[test]
fn a_refresh_under_way_survives_a_restart_and_is_not_doubled() {
    let mut bench = bench();
    let request = refresh(&mut bench);
    for reason in [
        StartReason::Restarted,
        StartReason::Booted,
        StartReason::Reconfigured,
    ] {
        assert!(asked(&bench.start(reason).unwrap()).is_empty());
    }
    assert!(asked(&bench.timer("poll").unwrap()).is_empty());
    let effects = bench
        .outcome(&request.tag, FetchResult::Interrupted)
        .unwrap();
    assert_eq!(asked(&effects), [format!("POST {SIGN_IN}")]);
}
