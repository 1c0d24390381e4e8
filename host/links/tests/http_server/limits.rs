//! No caller takes what others need, and none is locked out by another.

use std::time::Duration;

use otahost_links::LinkEvent;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::time::sleep;

use crate::support::{Answer, Listener, RIGHT, update, within};

/// Of what is to run out.
const SHORT: Duration = Duration::from_millis(100);

/// Of what is to run out for one caller and not for the next.
const PATIENCE: Duration = Duration::from_secs(1);

/// `centre:wrong`.
const WRONG: &str = "Authorization: Basic Y2VudHJlOndyb25n\r\n";

/// A whole body of so many bytes.
fn large(bytes: usize) -> String {
    let body = "x".repeat(bytes);
    format!("POST /api/large HTTP/1.1\r\nHost: kit\r\n{RIGHT}Content-Length: {bytes}\r\n\r\n{body}")
}

fn seconds(answer: &Answer) -> u64 {
    answer.header("retry-after").unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_address_has_so_many_requests_a_minute_and_costs_no_other_any() {
    let listener = Listener::start(|options| options.per_minute = 3).await;
    let listener = listener.answer_all("");
    let mut caller = listener.call().await;
    for n in 0..2 {
        assert_eq!(caller.ask(update(RIGHT, "{}")).await.status, 200, "{n}");
    }
    // Refused ones count, too, and a new connection earns nothing.
    caller.ask(update("", "{}")).await.is_own(401);
    let mut again = listener.call().await;
    for caller in [&mut caller, &mut again] {
        let answer = caller.ask(update(RIGHT, "{}")).await;
        answer.is_own(429);
        assert!((1..=20).contains(&seconds(&answer)));
    }
}

#[tokio::test]
async fn failed_authentications_slow_down_only_their_own_address() {
    let mut listener = Listener::start(|options| options.limits.failures_per_minute = 2).await;
    let mut guesser = listener.call().await;
    // To ask first without credentials is how many clients begin: it costs nothing.
    for _ in 0..5 {
        guesser.ask(update("", "{}")).await.is_own(401);
    }
    for _ in 0..2 {
        guesser.ask(update(WRONG, "{}")).await.is_own(401);
    }
    // Now nothing is looked at, so that nothing can be guessed.
    for credentials in [WRONG, RIGHT] {
        let answer = guesser.ask(update(credentials, "{}")).await;
        answer.is_own(429);
        assert!((1..=30).contains(&seconds(&answer)));
    }
    listener.nothing_said();
    let mut platform = listener.call_from([127, 0, 0, 2]).await;
    for _ in 0..5 {
        platform.send(update(RIGHT, "{}")).await;
        let (id, _) = listener.request().await;
        listener.respond(id, 200, &[], "").await;
        assert_eq!(platform.answer().await.status, 200);
    }
}

#[tokio::test]
async fn so_many_requests_wait_at_once_and_no_more() {
    let mut listener = Listener::start(|options| options.parallel = 1).await;
    let (mut first, mut second) = (listener.call().await, listener.call().await);
    first.send(update(RIGHT, "first")).await;
    let (id, _) = listener.request().await;
    let busy = second.ask(update(RIGHT, "second")).await;
    busy.is_own(503);
    assert!(seconds(&busy) > 0);
    listener.nothing_said();
    listener.respond(id, 200, &[], "").await;
    assert_eq!(first.answer().await.status, 200);
    second.send(update(RIGHT, "third")).await;
    assert_eq!(listener.request().await.1.body, b"third");
}

/// A slow sender holds a connection and not one of the places of those who are done.
#[tokio::test]
async fn a_body_on_its_way_takes_no_place_from_others() {
    let mut listener = Listener::start(|options| options.parallel = 1).await;
    let (mut slow, mut quick) = (listener.call().await, listener.call().await);
    slow.send(format!(
        "POST /api/large HTTP/1.1\r\nHost: kit\r\n{RIGHT}Content-Length: 9\r\n\r\nslow"
    ))
    .await;
    quick.send(update(RIGHT, "quick")).await;
    let (id, request) = listener.request().await;
    assert_eq!(request.body, b"quick");
    listener.respond(id, 200, &[], "").await;
    assert_eq!(quick.answer().await.status, 200);
    slow.send(" it is").await;
    assert_eq!(listener.request().await.1.body, b"slow it i");
}

#[tokio::test]
async fn an_address_has_so_many_connections_until_one_ends() {
    let listener = Listener::start(|options| options.limits.connections_per_peer = 2).await;
    let (mut one, mut two) = (listener.call().await, listener.call().await);
    for caller in [&mut one, &mut two] {
        caller.ask(update("", "{}")).await.is_own(401);
    }
    listener.call().await.closed().await;
    let mut other = listener.call_from([127, 0, 0, 2]).await;
    other.ask(update("", "{}")).await.is_own(401);
    // A refused request that asks to be the last one gives its place back.
    one.send("GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await;
    one.closed().await;
    let mut three = listener.call().await;
    three.ask(update("", "{}")).await.is_own(401);
}

#[tokio::test]
async fn with_all_places_taken_the_next_caller_waits_and_connections_end_with_their_answer() {
    let listener = Listener::start(|options| options.limits.connections = 1).await;
    let listener = listener.answer_all("");
    let mut first = listener.call().await;
    let mut second = listener.call().await;
    second.send(update(RIGHT, "second")).await;
    let answer = first.ask(update(RIGHT, "first")).await;
    assert_eq!(answer.body, "first");
    assert_eq!(answer.header("connection"), Some("close"));
    first.closed().await;
    assert_eq!(second.answer().await.body, "second");
}

#[tokio::test]
async fn a_head_has_its_limits() {
    let mut listener = Listener::start(|_| {}).await;
    let target = |length: usize| {
        let path = "/api/getDeviceInfo?";
        format!(
            "GET {path}{} HTTP/1.1\r\nHost: kit\r\n{RIGHT}\r\n",
            "a".repeat(length - path.len())
        )
    };
    let fields = |count: usize| update(&format!("{RIGHT}{}", "X-Many: 1\r\n".repeat(count)), "");
    let bytes = |count: usize| update(&format!("{RIGHT}X-Long: {}\r\n", "a".repeat(count)), "");

    for (within, over, status) in [
        (target(2_048), target(2_049), 414),
        (fields(61), fields(62), 431),
        (bytes(15_000), bytes(20_000), 431),
    ] {
        let mut caller = listener.call().await;
        caller.send(within).await;
        let (id, _) = listener.request().await;
        listener.respond(id, 200, &[], "").await;
        assert_eq!(caller.answer().await.status, 200);
        assert_eq!(caller.ask(over).await.status, status);
    }
    listener.nothing_said();
}

/// Slowloris: it is not enough to send something.
#[tokio::test]
async fn a_caller_who_never_finishes_its_head_is_dropped() {
    /// So many drips stay within the limits of a head in bytes.
    const MOST: usize = 3_000;
    let listener = Listener::start(|options| options.limits.head_within = PATIENCE).await;
    let mut caller = listener.call().await;
    caller
        .send("POST /api/updateDevice HTTP/1.1\r\nX-Drip: ")
        .await;
    let (mut reader, mut writer) = caller.0.into_split();
    let dripping = tokio::spawn(async move {
        let mut sent = 0;
        while sent < MOST && writer.write_all(b"x").await.is_ok() {
            sent += 1;
            sleep(Duration::from_millis(10)).await;
        }
        sent
    });
    let mut said = Vec::new();
    let _ = within(reader.read_to_end(&mut said)).await;
    assert!(said.is_empty(), "dropped, not refused: {said:?}");
    drop(reader);
    assert!(within(dripping).await.unwrap() < MOST);
    let mut next = listener.call().await;
    next.ask(update("", "{}")).await.is_own(401);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let listener = Listener::start(|options| options.limits.head_within = PATIENCE).await;
    let mut silent = listener.call().await;
    let mut caller = listener.call().await;
    caller.ask(update("", "{}")).await.is_own(401);
    caller.closed().await;
    silent.closed().await;
}

#[tokio::test]
async fn a_body_that_takes_too_long_gets_408_and_the_adapter_hears_nothing() {
    let mut listener = Listener::start(|options| options.limits.body_within = SHORT).await;
    let mut caller = listener.call().await;
    caller
        .send(format!(
            "POST /api/updateDevice HTTP/1.1\r\nHost: kit\r\n{RIGHT}Content-Length: 9\r\n\r\nslow"
        ))
        .await;
    let answer = caller.answer().await;
    answer.is_own(408);
    assert_eq!(answer.header("connection"), Some("close"));
    caller.closed().await;
    listener.nothing_said();
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_nobody() {
    let mut listener = Listener::start(|_| {}).await;
    for start in [
        "Content-Length: 9\r\n\r\nbrok",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nbrok\r\n",
        "Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    ] {
        let mut caller = listener.call().await;
        caller
            .send(format!(
                "POST /api/updateDevice HTTP/1.1\r\nHost: kit\r\n{RIGHT}{start}"
            ))
            .await;
        caller.0.shutdown().await.unwrap();
        caller.closed().await;
    }
    listener.nothing_said();
}

/// K06, the host's part: a body over the route's limit never reaches the adapter, and its sender learns why.
#[tokio::test]
async fn k06_a_body_of_1_mb_gets_413_and_the_connection_goes_on() {
    let mut listener = Listener::start(|_| {}).await;
    let mut caller = listener.call().await;
    caller.ask(large(1_000_000)).await.is_own(413);
    caller.ask(large(256 * 1024 + 1)).await.is_own(413);
    let chunked = format!(
        "POST /api/large HTTP/1.1\r\nHost: kit\r\n{RIGHT}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(16)
    );
    caller.ask(chunked).await.is_own(413);
    listener.nothing_said();
    caller.send(large(256 * 1024)).await;
    let (id, request) = listener.request().await;
    assert_eq!(request.body.len(), 256 * 1024);
    listener.respond(id, 200, &[], "").await;
    assert_eq!(caller.answer().await.status, 200);
}

/// A caller that asks first is answered before it sends anything.
#[tokio::test]
async fn a_caller_that_expects_100_continue_gets_413_instead() {
    let mut listener = Listener::start(|_| {}).await;
    let ask = |length: usize| {
        format!(
            "POST /api/updateDevice HTTP/1.1\r\nHost: kit\r\n{RIGHT}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut caller = listener.call().await;
    caller.ask(ask(1_001)).await.is_own(413);
    caller.closed().await;

    let mut caller = listener.call().await;
    assert_eq!(caller.ask(ask(2)).await.status, 100);
    caller.send("{}").await;
    assert_eq!(listener.request().await.1.body, b"{}");
}

#[tokio::test]
async fn a_wrong_caller_is_not_kept_by_a_large_body() {
    let listener = Listener::start(|_| {}).await;
    let mut caller = listener.call().await;
    let body = "x".repeat(1_000_000);
    caller.ask(update(WRONG, &body)).await.is_own(401);
    caller.ask(update("", "{}")).await.is_own(401);
}

/// 300 answers of 256 KiB are more than the kernel keeps for a caller who takes none.
#[tokio::test]
async fn a_caller_who_does_not_take_its_answers_is_dropped() {
    let listener = Listener::start(|options| options.limits.write_within = PATIENCE).await;
    let answer: &'static str = "x".repeat(256 * 1024).leak();
    let listener = listener.answer_all(answer);
    let mut greedy = listener.call().await;
    greedy.send(update(RIGHT, "{}").repeat(300)).await;
    // Nothing is read: what comes is the end of the connection alone.
    let ready = within(greedy.0.ready(Interest::ERROR)).await.unwrap();
    assert!(ready.is_error());
    let mut next = listener.call().await;
    assert_eq!(next.ask(update(RIGHT, "{}")).await.body.len(), 256 * 1024);
}

#[tokio::test]
async fn an_agent_that_takes_no_events_costs_a_503_and_no_memory() {
    let mut listener = Listener::start_with_room(1, |options| {
        options.limits.hand_over_within = SHORT;
    })
    .await;
    let mut first = listener.call().await;
    first.send(update(RIGHT, "first")).await;
    within(async {
        while listener.events.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut second = listener.call().await;
    second.ask(update(RIGHT, "second")).await.is_own(503);
    // The first one goes away; the agent learns both in order once it listens.
    drop(first);
    let (id, request) = listener.request().await;
    assert_eq!(request.body, b"first");
    assert_eq!(listener.event().await, LinkEvent::Withdrawn(id));
    second.send(update(RIGHT, "third")).await;
    assert_eq!(listener.request().await.1.body, b"third");
}
