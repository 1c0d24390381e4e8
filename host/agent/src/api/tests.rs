#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use otahost_core::model::Phase;
use tokio::sync::mpsc;

use super::server::{Limits, serve_within};
use super::*;

fn job(phase: Phase) -> JobView {
    JobView {
        id: "1".into(),
        key: "k".into(),
        owner: "operator".into(),
        phase,
        paused: false,
        gate: None,
        current: 0,
        awaits_owner: false,
        when_told: false,
        failed_attempts: 0,
        allowed_attempts: 0,
        activation: None,
        rolling_back: false,
        time_left: None,
        created: 1,
        updated: 2,
        reason: None,
        until: None,
        rate: 0,
        installs: vec![],
        history: vec![],
    }
}

/// An engine that knows one job, and plays its end to whoever follows.
async fn engine(mut calls: mpsc::Receiver<ApiCall>) {
    while let Some(ApiCall { request, reply }) = calls.recv().await {
        let answers = match request {
            Request::Job { key, follow: true } if key == "k" => {
                [Phase::Downloading, Phase::Installing, Phase::Succeeded]
                    .map(|p| Reply::Job(Box::new(job(p))))
                    .to_vec()
            }
            Request::Job { .. }
            | Request::Cancel { .. }
            | Request::Pause { .. }
            | Request::Resume { .. } => {
                vec![Reply::Error {
                    code: ErrorCode::UnknownJob,
                    message: "there is no such job".into(),
                }]
            }
            Request::Jobs { .. } => vec![Reply::Jobs(vec![job(Phase::Failed)])],
            Request::Install { path, target, .. } => vec![Reply::Accepted {
                key: format!("{target}:{path}"),
            }],
            Request::Clear { .. } => vec![Reply::Cleared { images: 1 }],
            Request::Status
            | Request::AdapterInstall { .. }
            | Request::AdapterOffer { .. }
            | Request::Reload
            | Request::AdapterInspect { .. }
            | Request::AdapterLogs { .. }
            | Request::AdapterReplay { .. }
            | Request::AdapterRollback { .. } => vec![Reply::Done],
        };
        for answer in answers {
            let _ = reply.send(answer).await;
        }
    }
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("otahost.sock");
    (dir, path)
}

/// Runs the blocking client beside the server.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn send(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let _ = stream.write_all(bytes);
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_the_engines_answers_in_order_and_then_the_end() {
    let (_dir, path) = place();
    let (to_engine, calls) = mpsc::channel(4);
    let _server = serve(&path, to_engine).unwrap();
    tokio::spawn(engine(calls));
    let client = Client::new(&path);
    beside(move || {
        let phases: Vec<_> = client
            .call(&Request::Job {
                key: "k".into(),
                follow: true,
            })
            .unwrap()
            .map(|reply| match reply.unwrap() {
                Reply::Job(job) => job.phase,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            phases,
            [Phase::Downloading, Phase::Installing, Phase::Succeeded]
        );
        let accepted = client
            .ask(&Request::Install {
                path: "/f".into(),
                target: "t".into(),
                version: None,
                key: None,
            })
            .unwrap();
        assert_eq!(accepted, Reply::Accepted { key: "t:/f".into() });
        assert_eq!(
            client.ask(&Request::Jobs { key: None }).unwrap(),
            Reply::Jobs(vec![job(Phase::Failed)])
        );
        let unknown = client
            .ask(&Request::Cancel {
                key: "other".into(),
            })
            .unwrap();
        assert!(matches!(
            unknown,
            Reply::Error {
                code: ErrorCode::UnknownJob,
                ..
            }
        ));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_answered_with_an_error_and_never_reaches_the_engine() {
    let (_dir, path) = place();
    let (to_engine, mut calls) = mpsc::channel(4);
    let _server = serve(&path, to_engine).unwrap();
    let long = [
        &b"{\"request\":\"cancel\",\"key\":\""[..],
        &vec![b'x'; 70_000],
        b"\"}\n",
    ]
    .concat();
    let other = path.clone();
    beside(move || {
        for bytes in [
            &b"hello\n"[..],
            b"{}\n",
            b"{\"request\":\"reboot\"}\n",
            b"\xff\xfe\n",
            b"{\"request\":\"cancel\"}\n",
        ] {
            let answer = send(&other, bytes);
            assert!(
                answer.contains("\"code\":\"invalid\"") && answer.contains("cannot be understood"),
                "{answer}"
            );
        }
        // The server closes before it has read all; that may reset the connection before its answer is read.
        let answer = send(&other, &long);
        assert!(
            answer.is_empty() || answer.contains("more than 65536 bytes"),
            "{answer}"
        );
    })
    .await;
    assert!(calls.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_too_many_is_told_so_and_a_place_becomes_free_again() {
    let (_dir, path) = place();
    let (to_engine, calls) = mpsc::channel(4);
    let limits = Limits {
        clients: 1,
        request: Duration::from_secs(60),
        ..Limits::default()
    };
    let _server = serve_within(&path, to_engine, limits).unwrap();
    tokio::spawn(engine(calls));
    beside(move || {
        let first = UnixStream::connect(&path).unwrap();
        // Connections are taken in order, so the first one holds the only place when the second is looked at.
        let answer = send(&path, b"");
        assert!(answer.contains("\"code\":\"unavailable\""), "{answer}");
        drop(first);
        let client = Client::new(&path);
        let served = (0..10_000).any(|_| matches!(client.ask(&Request::Status), Ok(Reply::Done)));
        assert!(served, "the place became free");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_client_is_let_go() {
    let (_dir, path) = place();
    let (to_engine, _calls) = mpsc::channel(4);
    let limits = Limits {
        request: Duration::from_millis(20),
        ..Limits::default()
    };
    let _server = serve_within(&path, to_engine, limits).unwrap();
    let answer = beside(move || {
        let mut stream = UnixStream::connect(&path).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
    .await;
    assert!(answer.contains("no request came in time"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_conversation_says_that_it_lives_and_the_engine_hears_when_the_client_goes() {
    let (_dir, path) = place();
    let (to_engine, mut calls) = mpsc::channel(4);
    let limits = Limits {
        alive: Duration::from_millis(5),
        ..Limits::default()
    };
    let _server = serve_within(&path, to_engine, limits).unwrap();
    let client = beside(move || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream
            .write_all(b"{\"request\":\"job\",\"key\":\"k\",\"follow\":true}\n")
            .unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "\n");
        reader
    })
    .await;
    let call = calls.recv().await.unwrap();
    assert!(!call.reply.is_closed());
    drop(client);
    call.reply.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_stops_answers_that_it_does() {
    let (_dir, path) = place();
    let (to_engine, calls) = mpsc::channel(4);
    drop(calls);
    let _server = serve(&path, to_engine).unwrap();
    let answer = beside(move || Client::new(&path).ask(&Request::Status).unwrap()).await;
    assert!(
        matches!(
            answer,
            Reply::Error {
                code: ErrorCode::Unavailable,
                ..
            }
        ),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_socket_is_ours_alone_and_goes_with_the_server() {
    let (_dir, path) = place();
    let server = serve(&path, mpsc::channel(1).0).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    drop(server);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_is_replaced_only_when_nobody_answers_on_it() {
    let (_dir, path) = place();
    // Left behind by a process that died: bound, and nobody listens.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let first = serve(&path, mpsc::channel(1).0).unwrap();
    let refused = serve(&path, mpsc::channel(1).0).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AddrInUse);
    assert!(path.exists());
    drop(first);
    std::fs::write(&path, "a file").unwrap();
    let refused = serve(&path, mpsc::channel(1).0).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a file");
}

#[test]
fn nobody_at_the_socket_is_said_with_its_path() {
    let (_dir, path) = place();
    let error = Client::new(&path).ask(&Request::Status).unwrap_err();
    assert!(matches!(error, CallError::Unreachable { .. }));
    assert!(error.to_string().contains("otahost.sock"), "{error}");
}

#[test]
fn the_wire_format_is_what_the_readme_shows() {
    let readme = include_str!("../../README.md");
    for (request, text) in [
        (Request::Status, "{\"request\":\"status\"}"),
        (
            Request::Jobs { key: None },
            "{\"request\":\"jobs\",\"key\":null}",
        ),
        (
            Request::Job {
                key: "K".into(),
                follow: true,
            },
            "{\"request\":\"job\",\"key\":\"K\",\"follow\":true}",
        ),
        (
            Request::Cancel { key: "K".into() },
            "{\"request\":\"cancel\",\"key\":\"K\"}",
        ),
        (
            Request::Pause { key: "K".into() },
            "{\"request\":\"pause\",\"key\":\"K\"}",
        ),
        (
            Request::Resume { key: "K".into() },
            "{\"request\":\"resume\",\"key\":\"K\"}",
        ),
        (
            Request::Clear {
                target: "T".into(),
                image: None,
            },
            "{\"request\":\"clear\",\"target\":\"T\",\"image\":null}",
        ),
        (
            Request::AdapterInstall {
                adapter: "A".into(),
                path: "/F".into(),
            },
            "{\"request\":\"adapter-install\",\"adapter\":\"A\",\"path\":\"/F\"}",
        ),
        (
            Request::AdapterRollback {
                adapter: "A".into(),
            },
            "{\"request\":\"adapter-rollback\",\"adapter\":\"A\"}",
        ),
        (Request::Reload, "{\"request\":\"reload\"}"),
        (
            Request::Install {
                path: "/F".into(),
                target: "T".into(),
                version: None,
                key: None,
            },
            "{\"request\":\"install\",\"path\":\"/F\",\"target\":\"T\",\"version\":null}",
        ),
    ] {
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        assert!(readme.contains(text), "the README lacks {text}");
    }
    for (reply, text) in [
        (
            Reply::Accepted { key: "K".into() },
            "{\"reply\":\"accepted\",\"value\":{\"key\":\"K\"}}",
        ),
        (Reply::Done, "{\"reply\":\"done\"}"),
        (
            Reply::Reloaded {
                changed: vec!["C".into()],
                wrong: vec![],
            },
            "{\"reply\":\"reloaded\",\"value\":{\"changed\":[\"C\"],\"wrong\":[]}}",
        ),
        (
            Reply::Cleared { images: 2 },
            "{\"reply\":\"cleared\",\"value\":{\"images\":2}}",
        ),
        (
            Reply::Error {
                code: ErrorCode::TooLate,
                message: "…".into(),
            },
            "{\"reply\":\"error\",\"value\":{\"code\":\"too-late\",\"message\":\"…\"}}",
        ),
    ] {
        assert_eq!(serde_json::to_string(&reply).unwrap(), text);
        assert_eq!(serde_json::from_str::<Reply>(text).unwrap(), reply);
        assert!(readme.contains(text), "the README lacks {text}");
    }
}

/// Each object of a document without its fields of these names.
fn without(value: &mut serde_json::Value, names: &[&str]) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|name, _| !names.contains(&name.as_str()));
            fields.values_mut().for_each(|v| without(v, names));
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(|v| without(v, names)),
        _ => {}
    }
}

#[test]
fn the_status_of_an_agent_that_knows_less_is_understood() {
    let status = StatusView {
        device: "gw-7".into(),
        version: "0.1.0".into(),
        uptime_ms: 1,
        boot_id: "b".into(),
        now: 0,
        clock: ClockQuality::Synced,
        safe_mode: false,
        journal: Default::default(),
        links: vec![],
        targets: vec![TargetView {
            id: "dock".into(),
            version: None,
            health: "unknown".into(),
            observed: None,
            slots: vec![],
            busy: None,
            version_fault: None,
            memory: MemoryView::default(),
        }],
        adapters: vec![],
        repositories: vec![],
        drop_ins: vec![],
        problem: None,
        jobs: vec![job(Phase::Downloading)],
    };
    let mut older = serde_json::to_value(&status).unwrap();
    without(
        &mut older,
        &[
            "safe_mode",
            "journal",
            "repositories",
            "drop_ins",
            "problem",
            "version_fault",
            "memory",
            "gate",
            "current",
            "awaits_owner",
            "when_told",
            "failed_attempts",
            "allowed_attempts",
            "activation",
            "rolling_back",
            "time_left",
        ],
    );
    assert_eq!(older["jobs"][0].as_object().unwrap().len(), 12);
    assert_eq!(serde_json::from_value::<StatusView>(older).unwrap(), status);
}

#[test]
fn an_error_code_of_a_newer_agent_is_a_failure() {
    let text = "{\"reply\":\"error\",\"value\":{\"code\":\"from-the-future\",\"message\":\"m\"}}";
    let reply: Reply = serde_json::from_str(text).unwrap();
    assert_eq!(
        reply,
        Reply::Error {
            code: ErrorCode::Failed,
            message: "m".into()
        }
    );
}
