//! The real nginx runs as the lab says: files with ranges and validators, a log that says what a test asks, a reverse proxy.

#![allow(clippy::unwrap_used, reason = "tests")]

mod ftp_client;

use std::io::{Read, Write};
use std::net::TcpStream;

use ftp_client::{SOON, sample, trust};
use otahost_lab::files::Files;
use otahost_lab::nginx::{Nginx, NginxOptions};
use otahost_lab::tls::Certificate;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// One request; an answer that breaks off has less body than it says.
fn ask(mut stream: impl Read + Write, target: &str, headers: &str) -> Answer {
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let end = all.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    let headers = String::from_utf8(all[..end].to_vec()).unwrap();
    Answer {
        status: headers.split(' ').nth(1).unwrap().parse().unwrap(),
        body: all[end + 4..].to_vec(),
        headers,
    }
}

fn get(port: u16, target: &str, headers: &str) -> Answer {
    ask(
        TcpStream::connect(("127.0.0.1", port)).unwrap(),
        target,
        headers,
    )
}

#[test]
fn it_serves_ranges_by_validator_and_logs_what_was_asked() {
    let server = Nginx::start().unwrap();
    let file = sample(100_000);
    server.put("firmware/a.bin", &file).unwrap();
    let whole = get(server.port(), "/firmware/a.bin?signature=x", "");
    assert_eq!((whole.status, &whole.body), (200, &file));
    let etag = whole.header("ETag").unwrap().to_owned();
    let range = format!("Range: bytes=40000-\r\nIf-Range: {etag}\r\n");
    let part = get(
        server.port(),
        "/firmware/a.bin",
        &(range.clone() + "Authorization: Bearer t\r\n"),
    );
    assert_eq!((part.status, part.body.as_slice()), (206, &file[40_000..]));
    assert_eq!(
        part.header("Content-Range"),
        Some("bytes 40000-99999/100000")
    );

    server.put("firmware/a.bin", &vec![7; 100_000]).unwrap();
    let changed = get(server.port(), "/firmware/a.bin", &range);
    assert_eq!((changed.status, changed.body.len()), (200, 100_000));
    assert_ne!(changed.header("ETag"), Some(etag.as_str()));

    assert!(server.wait_for(SOON, |all| all.len() == 3));
    let log = server.requests();
    assert_eq!(
        (log[0].path(), log[0].target.as_str()),
        ("/firmware/a.bin", "/firmware/a.bin?signature=x")
    );
    assert_eq!(
        (log[0].status, log[0].sent, log[0].authorization),
        (200, 100_000, false)
    );
    assert_eq!(
        (log[1].range.as_str(), &log[1].if_range),
        ("bytes=40000-", &etag)
    );
    assert_eq!(
        (log[1].status, log[1].sent, log[1].authorization),
        (206, 60_000, true)
    );
    assert_eq!((log[2].method.as_str(), log[2].status), ("GET", 200));
}

#[test]
fn it_can_be_without_ranges_and_over_tls() {
    let server = Nginx::start_with(NginxOptions {
        tls: Some(Certificate::Lab),
        no_ranges: true,
        ..NginxOptions::default()
    })
    .unwrap();
    server.put("a.bin", b"0123456789").unwrap();
    assert!(server.url("a.bin").starts_with("https://localhost:"));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = StreamOwned::new(
        ClientConnection::new(trust(), name).unwrap(),
        TcpStream::connect(("127.0.0.1", server.port())).unwrap(),
    );
    let answer = ask(stream, "/a.bin", "Range: bytes=5-\r\n");
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, b"0123456789".as_slice())
    );
}

#[test]
fn it_stands_before_another_server() {
    let upstream = Files::start();
    upstream.put("a.bin", *b"from behind");
    let server = Nginx::before(upstream.port()).unwrap();
    let answer = get(
        server.port(),
        "/public/a.bin",
        "Authorization: Basic bm90aGluZw==\r\n",
    );
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, b"from behind".as_slice())
    );
    let seen = &upstream.requests()[0];
    assert_eq!(seen.path, "/public/a.bin");
    assert!(seen.header("authorization").is_some());
}

#[test]
fn a_kill_breaks_an_answer_and_a_restart_serves_again() {
    let mut server = Nginx::start_with(NginxOptions {
        rate: Some(100_000),
        ..NginxOptions::default()
    })
    .unwrap();
    let file = sample(5_000_000);
    server.put("a.bin", &file).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream
        .write_all(b"GET /a.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut first = [0; 1000];
    stream.read_exact(&mut first).unwrap();
    server.kill();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.len() < file.len());
    server.restart().unwrap();
    assert_eq!(
        get(server.port(), "/a.bin", "Range: bytes=0-9\r\n").body,
        file[..10]
    );
}
