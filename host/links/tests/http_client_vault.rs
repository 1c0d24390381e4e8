//! The vault of the `http_client` link: tokens that rotate, and what must never be seen of them.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/api.rs"]
mod api;
#[path = "support/script.rs"]
mod script;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::*;
use otahost_core::secret::Secret;
use otahost_links::LinkCommand;
use otahost_links::http_client::{Auth, HttpClientOptions};
use script::{Asked, Reply, Script};
use serde_json::json;
use tokio::sync::Semaphore;

/// R08, the link's part: the adapter decides that a 401 means a refresh, and to ask again.
#[tokio::test]
async fn r08_a_refresh_is_captured_cut_and_used_by_the_repeat_once_it_is_kept() {
    let server = cloud(&Arc::new(Semaphore::new(9))).await;
    let mut link = with_tokens(&server).await;
    let refused = answered(link.ask(get("/latest")).await);
    assert_eq!(
        (refused.status, body(&refused).as_str()),
        (401, r#"{"detail":"Token is expired"}"#)
    );
    link.fetch(1, refresh()).await;
    let (id, result, captured) = link.next().await;
    let response = answered(result);
    assert_eq!((id, response.status), (1, 200));
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&response.body).unwrap(),
        json!({"access_token": null, "refresh_token": null, "expires_in": 900})
    );
    let expected = [("access", "access-1"), ("refresh", "refresh-1")];
    assert_eq!(captured, expected.map(|(n, v)| (n.into(), v.into())).into());
    link.tell(LinkCommand::Kept(1)).await;
    assert_eq!(answered(link.ask(get("/latest")).await).status, 200);
    assert_eq!(server.asked_for("/auth/refresh-token").len(), 1);
}

#[tokio::test]
async fn r08_of_two_refreshes_at_once_the_second_waits_and_presents_the_new_token() {
    let permits = Arc::new(Semaphore::new(0));
    let server = cloud(&permits).await;
    let mut link = with_tokens(&server).await;
    link.fetch(1, get("/latest")).await;
    link.fetch(2, get("/devices")).await;
    for _ in 0..2 {
        assert_eq!(answered(link.next().await.1).status, 401);
    }
    // Both who met the 401 ask for a refresh, and for their request again.
    for id in [3, 4] {
        link.fetch(id, refresh()).await;
        link.fetch(id + 10, get("/latest")).await;
    }
    server.wait_for(3).await;
    assert_eq!(answered(link.ask(free()).await).status, 204);
    assert_eq!(server.asked_for("/auth/refresh-token").len(), 1);
    permits.add_permits(2);
    assert_eq!(link.next().await.0, 3);
    // Answered, but not durable yet: the next may not begin.
    assert_eq!(answered(link.ask(free()).await).status, 204);
    assert_eq!(server.asked_for("/auth/refresh-token").len(), 1);
    assert_eq!(server.asked_for("/latest").len(), 1);
    link.tell(LinkCommand::Kept(3)).await;
    let mut statuses = BTreeMap::new();
    for _ in 0..3 {
        let (id, result, captured) = link.next().await;
        statuses.insert(id, answered(result).status);
        if id == 4 {
            assert_eq!(captured["refresh"], "refresh-2");
            link.tell(LinkCommand::Kept(4)).await;
        }
    }
    assert_eq!(statuses, [(4, 200), (13, 200), (14, 200)].into());
    let presented: Vec<_> = server
        .asked_for("/auth/refresh-token")
        .iter()
        .map(Asked::text)
        .collect();
    assert_eq!(
        presented,
        [
            r#"{"refresh_token":"refresh-0"}"#,
            r#"{"refresh_token":"refresh-1"}"#
        ]
    );
}

#[tokio::test]
async fn a_refused_refresh_holds_nobody_back() {
    let server = cloud(&Arc::new(Semaphore::new(9))).await;
    let mut link = Running::start(options(&server));
    let stale = secrets(&[("access", "access-0"), ("refresh", "stale")]);
    link.tell(LinkCommand::Secrets(stale)).await;
    link.fetch(1, refresh()).await;
    link.fetch(2, get("/latest")).await;
    for _ in 0..2 {
        let (_, result, captured) = link.next().await;
        assert_eq!((answered(result).status, captured), (401, BTreeMap::new()));
    }
}

#[tokio::test]
async fn a_vault_that_is_given_anew_forgets_what_never_became_durable() {
    let server = cloud(&Arc::new(Semaphore::new(9))).await;
    let mut link = with_tokens(&server).await;
    link.fetch(1, refresh()).await;
    assert_eq!(link.next().await.0, 1);
    link.fetch(2, get("/latest")).await;
    let kept = secrets(&[("access", "access-1")]);
    link.tell(LinkCommand::Secrets(kept)).await;
    link.tell(LinkCommand::Kept(1)).await;
    assert_eq!(answered(link.next().await.1).status, 200);
    let why = failed(link.ask(refresh()).await);
    assert_eq!(why, "no-secret: refresh is not known on this link");
}

#[tokio::test]
async fn a_missing_secret_fails_in_the_agreed_words_and_nothing_is_sent() {
    let server = cloud(&Arc::new(Semaphore::new(9))).await;
    let mut link = Running::start(options(&server));
    for (fetch, name) in [
        (get("/latest"), "access"),
        (refresh(), "refresh"),
        (get("/open?x={secret:other}"), "other"),
    ] {
        let why = failed(link.ask(fetch).await);
        assert_eq!(why, format!("no-secret: {name} is not known on this link"));
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_server_that_echoes_everything_shows_no_secret() {
    let server = Script::start(|asked: &Asked| {
        let all = format!("{} {:?} {}", asked.target, asked.headers, asked.text());
        let mut reply = Reply::new(422).body(all.clone() + &json!({ "input": all }).to_string());
        for (name, value) in &asked.headers {
            reply = reply.header(&format!("x-echo-{name}"), value.clone());
        }
        reply
    })
    .await;
    let values = [("access", "acc\"ess+/&=1"), ("refresh", "ré fresh")];
    let basic = Auth::Basic {
        username: Secret::new("joe-user"),
        password: Secret::new("pass word!"),
    };
    for auth in [Auth::None, basic] {
        let mut link = Running::start(HttpClientOptions {
            auth,
            secrets: secrets(&values),
            ..options(&server)
        });
        for fetch in [
            with_headers(
                post(
                    "/a?q={secret:refresh}&r={secret:access}",
                    "application/json",
                    r#"{"r":"{secret:refresh}","a":"{secret:access}"}"#,
                ),
                &[("x-a", "{secret:access}")],
            ),
            post(
                "/a",
                "application/x-www-form-urlencoded",
                "a={secret:access}&r={secret:refresh}",
            ),
        ] {
            let response = answered(link.ask(fetch).await);
            let seen = format!("{:?} {}", response.headers, body(&response));
            assert!(seen.contains("***"), "{seen}");
            for trace in [
                "ess+/",
                "ess%2B",
                "fresh",
                "joe-user",
                "pass word",
                "am9lLXVzZX",
                "ess\\\"",
                "acc\\",
            ] {
                assert!(!seen.contains(trace), "{trace} in {seen}");
            }
        }
        assert!(server.asked()[0].target.contains("r%C3%A9%20fresh"));
    }
}

#[tokio::test]
async fn a_captured_value_is_scrubbed_wherever_else_it_stands() {
    let server = Script::start(|_| {
        let body =
            json!({"access_token": "brand-new", "refresh_token": 7, "again": "Bearer brand-new"});
        Reply::json(200, &body).header("x-token", "brand-new")
    })
    .await;
    let mut link = with_tokens(&server).await;
    link.fetch(1, refresh()).await;
    let (_, result, captured) = link.next().await;
    assert_eq!(
        captured,
        [("access".to_owned(), "brand-new".to_owned())].into()
    );
    let response = answered(result);
    assert!(!format!("{:?}", response.headers).contains("brand"));
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&response.body).unwrap(),
        json!({"access_token": null, "refresh_token": null, "again": "Bearer ***"})
    );
}

/// R16, the link's part.
#[tokio::test]
async fn r16_malformed_json_and_gateway_pages_neither_panic_nor_leak() {
    let server = Script::start(|asked: &Asked| match asked.header("x-case").unwrap() {
        "malformed" => Reply::new(200).body("{\"access_token\": \"brand-new\""),
        "page" => Reply::new(502)
            .header("content-type", "text/html")
            .body("<html>bad gateway refresh-0</html>"),
        "list" => Reply::json(422, &json!({"detail": [{"input": "refresh-0"}]})),
        _ => Reply::new(200).body([0xff, 0x00]),
    })
    .await;
    let mut link = with_tokens(&server).await;
    let case = |case: &str| with_headers(refresh(), &[("x-case", case)]);
    let why = failed(link.ask(case("malformed")).await);
    assert!(why.contains("no JSON") && !why.contains("brand"), "{why}");
    let page = answered(link.ask(case("page")).await);
    assert_eq!(
        (page.status, body(&page).as_str()),
        (502, "<html>bad gateway ***</html>")
    );
    let list = answered(link.ask(case("list")).await);
    assert_eq!(
        (list.status, body(&list).as_str()),
        (422, r#"{"detail":[{"input":"***"}]}"#)
    );
    let plain = with_headers(get("/a"), &[("x-case", "bytes")]);
    assert_eq!(answered(link.ask(plain).await).body, [0xff, 0x00]);
}
