//! Every request gets one answer: the adapter's, or the host's when there is none.

use std::collections::BTreeSet;
use std::time::Duration;

use otahost_links::{LinkCommand, LinkEvent};

use crate::support::{Listener, RIGHT, response, update};

#[tokio::test]
async fn a_connection_carries_one_request_after_another() {
    let mut listener = Listener::start(|_| {}).await;
    let mut caller = listener.call().await;
    for n in 0..5 {
        caller.send(update(RIGHT, &format!("request {n}"))).await;
        let (id, request) = listener.request().await;
        assert_eq!(request.body, format!("request {n}").as_bytes());
        listener
            .respond(id, 200 + n, &[("X-Answer", "yes")], &format!("answer {n}"))
            .await;
        let answer = caller.answer().await;
        assert_eq!(answer.status, 200 + n);
        assert_eq!(answer.header("x-answer"), Some("yes"));
        assert_eq!(answer.header("server"), None);
        if n != 4 {
            assert_eq!(answer.body, format!("answer {n}"));
        }
    }
}

#[tokio::test]
async fn an_answer_may_come_late_and_out_of_order() {
    let mut listener = Listener::start(|_| {}).await;
    let (mut first, mut second) = (listener.call().await, listener.call().await);
    first.send(update(RIGHT, "first")).await;
    let (one, _) = listener.request().await;
    second.send(update(RIGHT, "second")).await;
    let (two, request) = listener.request().await;
    assert_eq!(request.body, b"second");
    assert_ne!(one, two);
    listener.respond(two, 200, &[], "for the second").await;
    assert_eq!(second.answer().await.body, "for the second");
    listener.respond(one, 200, &[], "for the first").await;
    assert_eq!(first.answer().await.body, "for the first");
    listener.nothing_said();
}

#[tokio::test]
async fn without_an_answer_the_caller_gets_504_and_the_agent_learns_it() {
    let answer_within = Duration::from_millis(50);
    let mut listener = Listener::start(|options| options.answer_within = answer_within).await;
    let mut caller = listener.call().await;
    caller.send(update(RIGHT, "{}")).await;
    let (id, request) = listener.request().await;
    assert_eq!(request.answer_within, answer_within);
    caller.answer().await.is_own(504);
    assert_eq!(listener.event().await, LinkEvent::Withdrawn(id));
    // Too late; and the connection lives.
    listener.respond(id, 200, &[], "too late").await;
    caller.ask("GET / HTTP/1.1\r\n\r\n").await.is_own(401);
    listener.nothing_said();
}

#[tokio::test]
async fn a_caller_who_goes_away_is_reported() {
    let mut listener = Listener::start(|_| {}).await;
    let mut caller = listener.call().await;
    caller.send(update(RIGHT, "{}")).await;
    let (id, _) = listener.request().await;
    drop(caller);
    assert_eq!(listener.event().await, LinkEvent::Withdrawn(id));
    listener.respond(id, 200, &[], "to nobody").await;
    listener.nothing_said();
}

#[tokio::test]
async fn only_the_first_answer_counts_and_unknown_numbers_count_for_nothing() {
    let mut listener = Listener::start(|_| {}).await;
    let mut caller = listener.call().await;
    caller.send(update(RIGHT, "{}")).await;
    let (id, _) = listener.request().await;
    for unknown in [0, id + 1, u64::MAX] {
        listener.respond(unknown, 200, &[], "unknown").await;
    }
    // Both at once, so that the second meets the first before it is sent.
    for body in ["first", "second"] {
        let response = response(200, &[], body);
        listener
            .commands
            .send(LinkCommand::Respond { id, response })
            .await
            .unwrap();
    }
    assert_eq!(caller.answer().await.body, "first");
    caller.send(update(RIGHT, "{}")).await;
    let (next, _) = listener.request().await;
    listener.respond(next, 200, &[], "third").await;
    assert_eq!(caller.answer().await.body, "third");
}

#[tokio::test]
async fn an_answer_that_http_does_not_allow_becomes_a_500() {
    let mut listener = Listener::start(|_| {}).await;
    let mut caller = listener.call().await;
    let large = "x".repeat(256 * 1024 + 1);
    for (status, headers, body) in [
        (100, &[][..], ""),
        (999, &[], ""),
        (200, &[("bad name", "x")], ""),
        (200, &[("x", "a\r\nSet-Cookie: b")], ""),
        (200, &[], large.as_str()),
    ] {
        caller.send(update(RIGHT, "{}")).await;
        let (id, _) = listener.request().await;
        listener.respond(id, status, headers, body).await;
        caller.answer().await.is_own(500);
    }
}

#[tokio::test]
async fn length_and_connection_are_the_hosts_to_say() {
    let mut listener = Listener::start(|_| {}).await;
    let mut caller = listener.call().await;
    caller.send(update(RIGHT, "{}")).await;
    let (id, _) = listener.request().await;
    let lies = [
        ("Content-Length", "99999"),
        ("Transfer-Encoding", "chunked"),
        ("Connection", "close"),
        ("Content-Type", "application/json"),
    ];
    listener.respond(id, 201, &lies, "four").await;
    let answer = caller.answer().await;
    assert_eq!(answer.header("content-length"), Some("4"));
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.header("connection"), None);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    // The connection lives, and nothing is left over in it.
    caller.ask("GET / HTTP/1.1\r\n\r\n").await.is_own(401);
}

#[tokio::test]
async fn numbers_are_unique_over_listeners() {
    let (mut one, mut two) = (Listener::start(|_| {}).await, Listener::start(|_| {}).await);
    let mut ids = BTreeSet::new();
    let mut callers = Vec::new();
    for _ in 0..3 {
        for listener in [&mut one, &mut two] {
            let mut caller = listener.call().await;
            caller.send(update(RIGHT, "{}")).await;
            ids.insert(listener.request().await.0);
            callers.push(caller);
        }
    }
    assert_eq!(ids.len(), 6);
}
