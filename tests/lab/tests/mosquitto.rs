//! The real mosquitto starts, ends and comes back on its port.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::TcpStream;

use otahost_lab::mosquitto::{Mosquitto, MosquittoOptions};

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn it_ends_by_a_kill_a_stop_or_with_its_value_and_comes_back_on_its_port() {
    let mut broker = Mosquitto::start_with(MosquittoOptions {
        persistence: true,
        tls: true,
        ..MosquittoOptions::default()
    })
    .unwrap();
    let port = broker.port();
    assert!(listens(port));
    broker.kill();
    assert!(!listens(port));
    broker.restart().unwrap();
    assert!(listens(port));
    broker.stop();
    assert!(!listens(port));
    assert!(broker.log().contains("terminating"));
    broker.restart().unwrap();
    assert_eq!(broker.port(), port);
    assert!(listens(port));
    drop(broker);
    assert!(!listens(port));
}
