//! Requests of adapters over the `http_client` link, against a server that answers as the test says.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/api.rs"]
mod api;
#[path = "support/script.rs"]
mod script;

use std::sync::Arc;
use std::time::Duration;

use api::*;
use otahost_core::model::Fetch;
use otahost_lab::files::Files;
use otahost_lab::tls;
use otahost_links::LinkCommand;
use otahost_links::http_client::{Auth, HttpClientOptions};
use otahost_links::tls::ServerTrust;
use script::{Asked, LIMIT, Reply, Script};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;

#[tokio::test]
async fn a_request_goes_out_as_it_was_described_and_its_answer_comes_back() {
    let server = Script::start(|_| {
        Reply::json(200, &json!({"ok": true}))
            .header("X-Request-Id", "r1")
            .header("set-cookie", "session=1")
    })
    .await;
    let mut link = Running::start(HttpClientOptions {
        url: server.url("/api/v1/").parse().unwrap(),
        secrets: secrets(&[("access", "tok en"), ("pin", "12/34")]),
        auth: Auth::None,
        ..options(&server)
    });
    let fetch = Fetch {
        method: "PATCH".into(),
        ..with_headers(
            post("/a/b?pin={secret:pin}", "application/json", r#"{"x":1}"#),
            &[("x-token", "{secret:access}")],
        )
    };
    let response = answered(link.ask(fetch).await);
    assert_eq!(
        (response.status, body(&response).as_str()),
        (200, r#"{"ok":true}"#)
    );
    let header = |name: &str| response.headers.iter().find(|field| field.name == name);
    assert_eq!(header("x-request-id").unwrap().value, "r1");
    assert!(header("set-cookie").is_none());
    let asked = &server.asked()[0];
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("PATCH", "/api/v1/a/b?pin=12%2F34")
    );
    assert_eq!(asked.text(), r#"{"x":1}"#);
    assert_eq!(asked.header("x-token"), Some("tok en"));
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
    assert!(asked.header("user-agent").unwrap().starts_with("otahost/"));
    for absent in ["authorization", "cookie", "referer"] {
        assert_eq!(asked.header(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn what_an_adapter_may_not_send_is_not_sent() {
    let server = cloud(&Arc::new(Semaphore::new(9))).await;
    let mut link = with_tokens(&server).await;
    for fetch in [
        with_headers(get("/a"), &[("host", "other.example")]),
        with_headers(get("/a"), &[("content-length", "5")]),
        with_headers(get("/a"), &[("transfer-encoding", "chunked")]),
        with_headers(get("/a"), &[("accept-encoding", "gzip")]),
        get("/a/../b"),
        get("//evil.example/"),
        post("/a", "text/plain", "{secret:access}"),
    ] {
        let shown = format!("{} {:?}", fetch.path, fetch.headers);
        let why = failed(link.ask(fetch).await);
        assert!(!why.contains("access-0"), "{shown}: {why}");
    }
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn an_answer_of_more_than_256_kib_or_compressed_is_no_answer() {
    const LIMIT: usize = 256 * 1024;
    let chunked = |length: usize| {
        let mut body = format!("{length:x}\r\n").into_bytes();
        body.extend(vec![b'x'; length]);
        body.extend(b"\r\n0\r\n\r\n");
        Reply::new(200)
            .header("transfer-encoding", "chunked")
            .body(body)
    };
    let server = Script::start(move |asked: &Asked| match asked.path() {
        "/fits" => Reply::new(200).body(vec![b'x'; LIMIT]),
        "/chunked-fits" => chunked(LIMIT),
        "/large" => Reply::new(200).body(vec![b'x'; LIMIT + 1]),
        "/chunked-large" => chunked(LIMIT + 1),
        "/broken" => Reply::new(200).body("0123456789").cut(5),
        _ => Reply::new(200).header("content-encoding", "gzip").body("x"),
    })
    .await;
    let mut link = with_tokens(&server).await;
    for path in ["/fits", "/chunked-fits"] {
        assert_eq!(
            answered(link.ask(get(path)).await).body.len(),
            LIMIT,
            "{path}"
        );
    }
    for (path, expected) in [
        ("/large", "longer than 262144 bytes"),
        ("/chunked-large", "longer than 262144 bytes"),
        ("/broken", "broke off"),
        ("/gzip", "compressed"),
    ] {
        let why = failed(link.ask(get(path)).await);
        assert!(why.contains(expected) && why.contains(path), "{why}");
    }
}

#[tokio::test]
async fn of_many_headers_no_more_than_64_are_shown() {
    let server = Script::start(|_| {
        (0..80).fold(Reply::new(200), |reply, n| {
            reply.header(&format!("x-{n}"), "v")
        })
    })
    .await;
    let mut link = with_tokens(&server).await;
    assert_eq!(answered(link.ask(get("/a")).await).headers.len(), 64);
}

#[tokio::test]
async fn silence_and_a_server_that_is_gone_are_failures_without_the_query() {
    let never = Arc::new(Semaphore::new(0));
    let server = Script::start(move |_| Reply::new(200).after(&never)).await;
    let mut link = with_tokens(&server).await;
    let why = failed(
        link.ask(Fetch {
            timeout: 200,
            ..get("/slow?sig=hush")
        })
        .await,
    );
    assert!(
        why.contains("/slow") && why.contains("0.2 s") && !why.contains("hush"),
        "{why}"
    );
    drop(server);
    let why = failed(link.ask(get("/gone?sig=hush")).await);
    assert!(
        why.contains("/gone") && why.contains("no connection"),
        "{why}"
    );
    assert!(!why.contains("hush") && !why.contains("access-0"), "{why}");
}

#[tokio::test]
async fn redirects_are_followed_within_the_origin_and_only_when_asked() {
    let other = Script::start(|_| Reply::new(200).body("stranger")).await;
    let stranger = other.url("/x?sig=1");
    let server = Script::start(move |asked: &Asked| match asked.path() {
        "/end" => Reply::new(200).body(format!("{} {}", asked.method, asked.text())),
        "/loop" => Reply::redirect(302, "/loop"),
        "/stranger" => Reply::redirect(307, stranger.clone()),
        path => Reply::redirect(path[1..].parse().unwrap(), "/end?x=1"),
    })
    .await;
    let mut link = with_tokens(&server).await;
    let following = |fetch: Fetch| Fetch {
        redirects: 5,
        ..fetch
    };
    assert_eq!(answered(link.ask(get("/302")).await).status, 302);
    for (fetch, expected) in [
        (get("/301"), (200, "GET ")),
        (get("/302"), (200, "GET ")),
        (get("/303"), (200, "GET ")),
        (get("/307"), (200, "GET ")),
        (get("/308"), (200, "GET ")),
        (post("/307", "text/plain", "b"), (200, "POST b")),
        (post("/308", "text/plain", "b"), (200, "POST b")),
        (post("/303", "text/plain", "b"), (200, "GET ")),
        (post("/301", "text/plain", "b"), (301, "")),
        (post("/302", "text/plain", "b"), (302, "")),
        // A secret was granted for one path.
        (get("/307?x={secret:refresh}"), (307, "")),
        (get("/stranger"), (307, "")),
        (get("/loop"), (302, "")),
    ] {
        let shown = format!("{} {}", fetch.method, fetch.path);
        let response = answered(link.ask(following(fetch)).await);
        assert_eq!(
            (response.status, body(&response).as_str()),
            expected,
            "{shown}"
        );
    }
    assert_eq!(server.asked_for("/loop").len(), 6);
    assert!(other.asked().is_empty());
    let ends = server.asked_for("/end");
    assert!(
        ends.iter()
            .all(|asked| asked.header("authorization") == Some("Bearer access-0"))
    );
    let kinds: Vec<_> = ends.iter().filter(|asked| asked.method == "GET").collect();
    assert!(
        kinds
            .iter()
            .all(|asked| asked.header("content-type").is_none())
    );
}

#[tokio::test]
async fn no_more_than_four_requests_run_at_a_time_and_the_rest_in_order() {
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let server = Script::start(move |_| Reply::new(200).after(&gate)).await;
    let mut link = with_tokens(&server).await;
    for id in 0..9 {
        link.fetch(id, get(&format!("/{id}"))).await;
    }
    let mut started = 4;
    for _ in 0..9 {
        server.wait_for(started).await;
        assert_eq!(server.asked().len(), started);
        let mut paths: Vec<_> = server.asked().iter().map(|a| a.target.clone()).collect();
        paths.sort();
        let expected: Vec<_> = (0..started).map(|id| format!("/{id}")).collect();
        assert_eq!(paths, expected);
        permits.add_permits(1);
        link.next().await;
        started = (started + 1).min(9);
    }
}

#[tokio::test]
async fn the_server_is_trusted_as_configured_and_not_otherwise() {
    let files = Files::start_tls();
    files.put("a", "hello");
    let with = |trust: ServerTrust| HttpClientOptions {
        trust,
        connect_timeout: Duration::from_secs(10),
        ..HttpClientOptions::new(files.origin().parse().unwrap())
    };
    let own = ServerTrust::Ca(tls::CA_PEM.into());
    let response = answered(Running::start(with(own)).ask(get("/public/a")).await);
    assert_eq!((response.status, body(&response).as_str()), (200, "hello"));
    let stranger = ServerTrust::Ca(tls::STRANGER_CA_PEM.into());
    for trust in [stranger, ServerTrust::Pin([7; 32])] {
        let why = failed(Running::start(with(trust)).ask(get("/public/a")).await);
        assert!(why.contains("no connection"), "{why}");
    }
    assert!(files.requests().iter().all(|request| request.status == 200));
}

#[tokio::test]
async fn the_link_ends_with_its_commands_and_gives_up_what_runs() {
    let never = Arc::new(Semaphore::new(0));
    let server = Script::start(move |_| Reply::new(200).after(&never)).await;
    let Running {
        commands,
        mut events,
    } = with_tokens(&server).await;
    let fetch = Box::new(get("/slow"));
    commands
        .send(LinkCommand::Fetch { id: 1, fetch })
        .await
        .unwrap();
    server.wait_for(1).await;
    drop(commands);
    assert_eq!(timeout(LIMIT, events.recv()).await.unwrap(), None);
}
