//! What the link writes and how it takes answers that real brokers rarely give: against a few lines of server that speak bytes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use otahost_links::LinkEvent;
use otahost_links::mqtt::MqttOptions;
use support::{LIMIT, Running, options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// CONNACK: no session, success.
const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(LIMIT, listener.accept())
        .await
        .expect("a connection in time")
        .unwrap()
        .0
}

/// First byte and body of one short packet.
async fn packet(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    timeout(LIMIT, async {
        let kind = stream.read_u8().await.unwrap();
        let length = stream.read_u8().await.unwrap();
        assert!(length < 128, "a short packet");
        let mut body = vec![0; usize::from(length)];
        stream.read_exact(&mut body).await.unwrap();
        (kind, body)
    })
    .await
    .expect("a packet in time")
}

#[tokio::test]
async fn connect_asks_for_the_kept_session_without_a_will_and_a_refusal_shows_no_credentials() {
    let (listener, port) = listen().await;
    let mut link = Running::start(MqttOptions {
        username: Some("joe".into()),
        password: Some(vec![0xff, b'p', b'w']),
        keep_alive: Duration::from_secs(30),
        ..options(port)
    });
    let mut stream = accept(&listener).await;
    let (kind, body) = packet(&mut stream).await;
    assert_eq!(kind, 0x10);
    // Protocol MQTT 4; flags: user name and password, no will, no clean session; keep alive 30 s.
    let mut expected = b"\x00\x04MQTT\x04\xc0\x00\x1e\x00\x04gw-7\x00\x03joe\x00\x03".to_vec();
    expected.extend([0xff, b'p', b'w']);
    assert_eq!(body, expected);
    stream.write_all(&[0x20, 2, 0, 4]).await.unwrap();
    let reason = link.wait_down().await;
    assert!(
        reason.contains("refused user name or password") && reason.contains(&port.to_string()),
        "{reason}"
    );
    assert!(!reason.contains("joe"), "{reason}");
}

#[tokio::test]
async fn a_refused_filter_does_not_keep_the_link_down() {
    let (listener, port) = listen().await;
    let mut link = Running::start(options(port));
    link.subscribe(&["allowed", "forbidden"]).await;
    let mut stream = accept(&listener).await;
    packet(&mut stream).await;
    stream.write_all(&ACCEPTED).await.unwrap();
    let (kind, body) = packet(&mut stream).await;
    assert_eq!(
        (kind, &body[2..]),
        (0x82, b"\x00\x07allowed\x01\x00\x09forbidden\x01".as_slice()),
        "both at QoS 1"
    );
    assert!(
        link.events.try_recv().is_err(),
        "Up may not come before the SUBACK"
    );
    stream
        .write_all(&[0x90, 4, body[0], body[1], 1, 0x80])
        .await
        .unwrap();
    assert_eq!(
        link.next().await,
        LinkEvent::Up {
            generation: 1,
            session_present: false
        }
    );
}

#[tokio::test]
async fn a_broker_that_never_answers_subscribe_is_given_up() {
    let (listener, port) = listen().await;
    let mut link = Running::start(MqttOptions {
        connect_timeout: Duration::from_secs(1),
        ..options(port)
    });
    link.subscribe(&["in"]).await;
    let mut stream = accept(&listener).await;
    packet(&mut stream).await;
    stream.write_all(&ACCEPTED).await.unwrap();
    packet(&mut stream).await;
    let reason = link.wait_down().await;
    assert!(reason.contains("did not answer SUBSCRIBE"), "{reason}");
    accept(&listener).await;
}

#[tokio::test]
async fn the_same_failure_is_said_once_and_another_one_again() {
    let (listener, port) = listen().await;
    let mut link = Running::start(options(port));
    for code in [3, 3, 3, 5] {
        let mut stream = accept(&listener).await;
        packet(&mut stream).await;
        stream.write_all(&[0x20, 2, 0, code]).await.unwrap();
    }
    assert!(link.wait_down().await.contains("not available"));
    assert!(link.wait_down().await.contains("not authorised"));
}

#[tokio::test]
async fn publications_before_up_and_of_the_last_connection_are_forgotten_and_eight_fly_at_once() {
    let (listener, port) = listen().await;
    let mut link = Running::start(options(port));
    link.publish(1, "early", vec![], 1).await;
    let mut stream = accept(&listener).await;
    packet(&mut stream).await;
    stream.write_all(&ACCEPTED).await.unwrap();
    link.wait_up().await;
    for id in 10..20 {
        link.publish(id, "out", vec![], 1).await;
    }
    let mut ids = Vec::new();
    for _ in 0..8 {
        let (kind, body) = packet(&mut stream).await;
        assert_eq!((kind, &body[..5]), (0x32, b"\x00\x03out".as_slice()));
        ids.push([body[5], body[6]]);
    }
    assert!(
        timeout(Duration::from_millis(100), stream.read_u8())
            .await
            .is_err(),
        "a ninth is in flight"
    );
    stream
        .write_all(&[0x40, 2, ids[0][0], ids[0][1]])
        .await
        .unwrap();
    packet(&mut stream).await;
    drop(stream);
    let mut delivered = Vec::new();
    link.until(|event| match event {
        LinkEvent::Delivered(id) => {
            delivered.push(id);
            None
        }
        LinkEvent::Down { .. } => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(delivered, [10]);
    let mut stream = accept(&listener).await;
    packet(&mut stream).await;
    stream.write_all(&[0x20, 2, 1, 0]).await.unwrap();
    link.wait_up().await;
    link.publish(99, "new", vec![], 1).await;
    let (_, body) = packet(&mut stream).await;
    assert_eq!(&body[..5], b"\x00\x03new");
}
