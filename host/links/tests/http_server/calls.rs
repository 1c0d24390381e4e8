//! Who may call, what is served, and what of a request an adapter sees.

use otahost_core::model::Field;
use otahost_links::LinkCommand;
use otahost_links::http_server::Callers;

use crate::support::{Listener, RIGHT, route, update};

fn pairs(fields: &[Field]) -> Vec<(&str, &str)> {
    fields
        .iter()
        .map(|field| (field.name.as_str(), field.value.as_str()))
        .collect()
}

/// K02. Base64: `centre:wrong`, `stranger:open sesame`, `centre`, and the right pair in places where it does not count.
#[tokio::test]
async fn k02_without_the_right_pair_a_caller_gets_401_and_a_challenge_and_the_adapter_hears_nothing()
 {
    let mut listener = Listener::start(|_| {}).await;
    let mut caller = listener.call().await;
    for wrong in [
        "",
        "Authorization: Basic Y2VudHJlOndyb25n\r\n",
        "Authorization: Basic c3RyYW5nZXI6b3BlbiBzZXNhbWU=\r\n",
        "Authorization: Basic Y2VudHJl\r\n",
        "Authorization: Basic Y2VudHJlOm9wZW4gc2V!!\r\n",
        "Authorization: Basic\r\n",
        "Authorization:\r\n",
        "Authorization: Bearer Y2VudHJlOm9wZW4gc2VzYW1l\r\n",
        "Proxy-Authorization: Basic Y2VudHJlOm9wZW4gc2VzYW1l\r\n",
    ] {
        let answer = caller.ask(update(wrong, "{\"kitId\":\"k\"}")).await;
        answer.is_own(401);
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Basic realm=\"kit\", charset=\"UTF-8\""),
            "{wrong}"
        );
    }
    let twice = format!("{RIGHT}{RIGHT}");
    caller.ask(update(&twice, "{}")).await.is_own(401);
    listener.nothing_said();

    caller.send(update(RIGHT, "{\"kitId\":\"k\"}")).await;
    let (id, request) = listener.request().await;
    assert_eq!(request.principal, "centre");
    listener.respond(id, 200, &[], "done").await;
    assert_eq!(caller.answer().await.status, 200);
}

/// Whether a path is served is no stranger's business either.
#[tokio::test]
async fn who_is_not_known_learns_nothing_of_the_routes() {
    let listener = Listener::start(|_| {}).await;
    let mut caller = listener.call().await;
    for target in ["GET /", "GET /api/updateDevice", "POST /%zz", "OPTIONS *"] {
        let answer = caller
            .ask(format!("{target} HTTP/1.1\r\nHost: kit\r\n\r\n"))
            .await;
        answer.is_own(401);
    }
}

#[tokio::test]
async fn the_adapter_sees_the_request_without_credentials() {
    let mut listener = Listener::start(|_| {}).await;
    let mut caller = listener.call().await;
    caller
        .send(format!(
            "POST /api/update%44evice?a=1&b=x+%C3%A9&a=2 HTTP/1.1\r\nHost: kit\r\n{RIGHT}\
             Cookie: session=1\r\nProxy-Authorization: Basic eDp5\r\nContent-Type: application/json\r\n\
             X-Forwarded-For: 192.0.2.7\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
             Content-Length: 3\r\n\r\nabc"
        ))
        .await;
    let (id, request) = listener.request().await;
    assert_eq!(
        (request.method.as_str(), request.path.as_str()),
        ("POST", "/api/updateDevice")
    );
    assert_eq!(
        pairs(&request.query),
        [("a", "1"), ("b", "x é"), ("a", "2")]
    );
    assert_eq!(
        pairs(&request.headers),
        [
            ("host", "kit"),
            ("content-type", "application/json"),
            ("x-forwarded-for", "192.0.2.7"),
            ("content-length", "3"),
        ]
    );
    assert_eq!(request.body, b"abc");
    assert_eq!(request.principal, "centre");
    listener.respond(id, 200, &[], "").await;
    assert_eq!(caller.answer().await.status, 200);
}

#[tokio::test]
async fn anonymous_callers_have_no_name_even_when_they_say_one() {
    let mut listener = Listener::start(|options| options.callers = Callers::Anonymous).await;
    let mut caller = listener.call().await;
    caller.send(update(RIGHT, "{}")).await;
    let (id, request) = listener.request().await;
    assert_eq!(request.principal, "");
    assert!(request.headers.iter().all(|h| h.name != "authorization"));
    listener.respond(id, 200, &[], "").await;
    assert_eq!(caller.answer().await.status, 200);
}

#[tokio::test]
async fn only_served_methods_on_served_paths_are_taken() {
    let mut listener = Listener::start(|_| {}).await;
    let mut caller = listener.call().await;
    let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: kit\r\n{RIGHT}\r\n");
    for unknown in [
        "POST /updateDevice",
        "POST /api/updateDevice/",
        "POST //api/updateDevice",
        "POST /api/x/../updateDevice",
        "POST /api/updatedevice",
        "POST /api%252FupdateDevice",
    ] {
        caller.ask(head(unknown)).await.is_own(404);
    }
    for other in ["GET", "DELETE", "OPTIONS", "PATCH", "POSTS"] {
        let answer = caller
            .ask(head(&format!("{other} /api/updateDevice")))
            .await;
        answer.is_own(405);
        assert_eq!(answer.header("allow"), Some("POST, PUT"));
    }
    for broken in ["GET /%", "GET /%0", "GET /%00", "GET /%ff"] {
        caller.ask(head(broken)).await.is_own(400);
    }
    let many = format!("GET /api/getDeviceInfo?{}", "a=1&".repeat(101));
    caller.ask(head(&many)).await.is_own(400);
    listener.nothing_said();

    // HEAD is a method like any other, and its answer has no body. Read as a whole connection, because its length is that of GET.
    let mut caller = listener.call().await;
    caller
        .send(format!(
            "HEAD /api/getDeviceInfo HTTP/1.1\r\nHost: kit\r\nConnection: close\r\n{RIGHT}\r\n"
        ))
        .await;
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut caller.0, &mut text)
        .await
        .unwrap();
    assert!(text.starts_with("HTTP/1.1 405 ") && text.ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn routes_come_and_go_while_a_connection_lives() {
    let mut listener = Listener::start_silent(8, |_| {}).await;
    let mut caller = listener.call().await;
    let one = format!("GET /one HTTP/1.1\r\nHost: kit\r\n{RIGHT}\r\n");
    let not_yet = caller.ask(&one).await;
    not_yet.is_own(503);
    assert!(not_yet.header("retry-after").is_some());

    listener
        .say(LinkCommand::Serve(vec![route("GET", "/one", 0)]))
        .await;
    caller.send(&one).await;
    let (id, _) = listener.request().await;
    // Its route goes while it waits; the request stands.
    listener
        .say(LinkCommand::Serve(vec![route("GET", "/two", 0)]))
        .await;
    listener.respond(id, 200, &[], "one").await;
    assert_eq!(caller.answer().await.body, "one");
    caller.ask(&one).await.is_own(404);

    listener.say(LinkCommand::Serve(vec![])).await;
    caller.ask(&one).await.is_own(404);
}

/// What an intermediary and we could read differently is not guessed at.
#[tokio::test]
async fn a_request_has_one_length() {
    let mut listener = Listener::start(|_| {}).await;
    for lengths in [
        "Content-Length: 3\r\nContent-Length: 5\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 3, 5\r\n",
        "Transfer-Encoding: gzip\r\n",
    ] {
        let mut caller = listener.call().await;
        let answer = caller
            .ask(format!(
                "POST /api/updateDevice HTTP/1.1\r\nHost: kit\r\n{RIGHT}{lengths}\r\nabcde"
            ))
            .await;
        assert_eq!(answer.status, 400, "{lengths}");
        caller.closed().await;
    }
    listener.nothing_said();
}
