//! Signatures beside artifacts, wherever they lie.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex;

use otahost_core::model::Artifact;
use otahost_transfer::SIDECAR_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Reads a request; gives the path and query it names.
async fn target_of(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    let head = String::from_utf8_lossy(&head);
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Answers every request with `answer` of its target, and remembers the targets.
async fn server(
    answer: impl Fn(&str) -> Vec<u8> + Send + 'static,
) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let target = target_of(&mut stream).await;
            let answer = answer(&target);
            noted.lock().unwrap().push(target);
            let _ = stream.write_all(&answer).await;
        }
    });
    (port, asked)
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A source as the engine asks for it.
fn open(source: ArtifactSource, downloads: &[String], idle: Duration) -> Arc<dyn Source> {
    let grants = Grants {
        download: downloads.to_vec(),
        ..Grants::default()
    };
    let install = Install {
        target: "dock".into(),
        artifact: Artifact {
            source,
            size: None,
            digests: Vec::new(),
            identity: None,
        },
        version: "2.0".into(),
    };
    let sources = RealSources {
        idle_timeout: idle,
        connect_timeout: LONG,
        links: BTreeMap::new(),
    };
    sources.source(&install, &grants).unwrap()
}

/// Longer than anything takes here.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_signature_beside_a_url_is_under_its_path_with_its_query() {
    let (port, asked) = server(|_| answer("200 OK", b"untrusted comment: x\n")).await;
    let granted = [format!("http://127.0.0.1:{port}/fw")];
    for (url, wanted) in [
        ("/fw/app.bin", "/fw/app.bin.minisig"),
        ("/fw/app.bin?sig=a%2Fb&x", "/fw/app.bin.minisig?sig=a%2Fb&x"),
        ("/fw/a%20b.bin#part", "/fw/a%20b.bin.minisig"),
    ] {
        let url = ArtifactSource::Url(format!("http://127.0.0.1:{port}{url}"));
        let text = open(url, &granted, LONG).sidecar().await.unwrap();
        assert_eq!(text.as_deref(), Some("untrusted comment: x\n"));
        assert_eq!(asked.lock().unwrap().pop().as_deref(), Some(wanted));
    }
}

#[tokio::test]
async fn a_server_without_a_signature_is_told_from_one_that_fails() {
    for (status, there) in [
        ("404 Not Found", true),
        ("403 Forbidden", true),
        ("401 Unauthorized", false),
        ("500 Internal Server Error", false),
        ("503 Service Unavailable", false),
    ] {
        let (port, _) = server(move |_| answer(status, b"why")).await;
        let url = format!("http://127.0.0.1:{port}/fw/app.bin?secret=1");
        let source = open(
            ArtifactSource::Url(url),
            &[format!("http://127.0.0.1:{port}/")],
            LONG,
        );
        match source.sidecar().await {
            Ok(None) => assert!(there, "{status}"),
            Err(SourceError::Status { text, .. }) => {
                assert!(!there, "{status}");
                assert!(
                    text.contains("/fw/app.bin.minisig") && !text.contains("secret"),
                    "{text}"
                );
            }
            other => panic!("{status}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_signature_outside_the_grant_is_not_asked_for() {
    let (port, asked) = server(|_| answer("200 OK", b"")).await;
    let file = format!("http://127.0.0.1:{port}/fw/app.bin");
    let source = open(
        ArtifactSource::Url(format!("{file}?secret=1")),
        std::slice::from_ref(&file),
        LONG,
    );
    let Err(SourceError::Forbidden(text)) = source.sidecar().await else {
        panic!("it was asked for")
    };
    assert!(
        text.contains("grants.download") && !text.contains("secret"),
        "{text}"
    );
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_signature_is_not_followed_into_somebodys_own_network() {
    let (inner, asked) = server(|_| answer("200 OK", b"")).await;
    let (port, _) = server(move |_| {
        format!(
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{inner}/\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    })
    .await;
    let source = open(
        ArtifactSource::Url(format!("http://127.0.0.1:{port}/app.bin")),
        &[format!("http://127.0.0.1:{port}/")],
        LONG,
    );
    let outcome = source.sidecar().await;
    assert!(
        matches!(outcome, Err(SourceError::Forbidden(_))),
        "{outcome:?}"
    );
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn of_a_large_signature_no_more_is_kept_than_shows_that_it_is_too_large() {
    let (port, _) = server(|_| answer("200 OK", &[b'x'; 300_000])).await;
    let granted = [format!("http://127.0.0.1:{port}/")];
    let url = ArtifactSource::Url(format!("http://127.0.0.1:{port}/app.bin"));
    let text = open(url, &granted, LONG).sidecar().await.unwrap();
    assert_eq!(text.map(|text| text.len()), Some(SIDECAR_MAX + 1));

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("app.bin.minisig"), [b'x'; 300_000]).unwrap();
    let file = ArtifactSource::File(dir.path().join("app.bin").display().to_string());
    let text = open(file, &[], LONG).sidecar().await.unwrap();
    assert_eq!(text.map(|text| text.len()), Some(SIDECAR_MAX + 1));
}

#[tokio::test]
async fn a_signature_that_drips_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        target_of(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
            .await;
        // Never silent for as long as the idle time-out, and far from its end when it goes away.
        for _ in 0..100 {
            if stream.write_all(b"x").await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let source = open(
        ArtifactSource::Url(format!("http://127.0.0.1:{port}/app.bin")),
        &[format!("http://127.0.0.1:{port}/")],
        Duration::from_millis(200),
    );
    let outcome = source.sidecar().await;
    assert!(
        matches!(outcome, Err(SourceError::Stalled(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn the_signature_beside_a_file_bears_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let sidecar = async |name: &str| {
        let file = ArtifactSource::File(path(name).display().to_string());
        open(file, &[], LONG).sidecar().await
    };
    std::fs::write(path("app.bin"), "payload").unwrap();
    assert_eq!(sidecar("app.bin").await, Ok(None));
    std::fs::write(path("app.bin.minisig"), b"sig\xff").unwrap();
    assert_eq!(sidecar("app.bin").await, Ok(Some("sig\u{fffd}".into())));
    std::fs::create_dir(path("other.minisig")).unwrap();
    let outcome = sidecar("other").await;
    assert!(
        matches!(&outcome, Err(SourceError::Forbidden(text)) if text.contains("is not a file")),
        "{outcome:?}"
    );
}
