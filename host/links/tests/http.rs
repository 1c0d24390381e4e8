//! The HTTP source against the lab's file server, which cuts, stalls, lies and redirects on command.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::process::Command;
use std::sync::Arc;

use otahost_lab::files::{Fault, Files};
use otahost_lab::tls;
use otahost_links::http::{Allow, HttpError, HttpOpened, HttpOptions, HttpSource, Reach};
use url::Url;

const SIZE: usize = 3_000_000;

fn content() -> Vec<u8> {
    (0..SIZE).map(|n| (n * 7 % 253) as u8).collect()
}

fn server() -> Files {
    let files = Files::start();
    files.put("image.bin", content());
    files
}

/// A grant of URL prefixes, as the agent makes one.
fn prefixes(prefixes: &[String]) -> Allow {
    let prefixes = prefixes.to_vec();
    Arc::new(move |url: &Url| {
        if prefixes
            .iter()
            .any(|prefix| url.as_str().starts_with(prefix))
        {
            Ok(Reach::Named)
        } else {
            Err("no grant names this address".into())
        }
    })
}

fn source_with(files: &Files, name: &str, change: impl FnOnce(&mut HttpOptions)) -> HttpSource {
    let mut options = HttpOptions::new(
        files.url(name).parse().unwrap(),
        prefixes(&[format!("{}/public/", files.origin())]),
    );
    change(&mut options);
    HttpSource::new(options).unwrap()
}

fn source(files: &Files) -> HttpSource {
    source_with(files, "image.bin", |_| {})
}

async fn rest(opened: &mut HttpOpened) -> (Vec<u8>, Option<HttpError>) {
    let mut bytes = Vec::new();
    loop {
        match opened.body.next().await {
            Ok(Some(piece)) => {
                assert!((1..=256 * 1024).contains(&piece.len()));
                bytes.extend_from_slice(&piece);
            }
            Ok(None) => return (bytes, None),
            Err(error) => {
                assert_eq!(
                    opened.body.next().await,
                    Ok(None),
                    "an error is the last word"
                );
                return (bytes, Some(error));
            }
        }
    }
}

#[tokio::test]
async fn the_whole_file_arrives_with_its_size_and_validator() {
    let files = server();
    let mut opened = source(&files).open(0, None).await.unwrap();
    assert_eq!((opened.offset, opened.total), (0, Some(SIZE as u64)));
    assert_eq!(opened.validator.as_deref(), Some("\"v1\""));
    let (bytes, error) = rest(&mut opened).await;
    assert!(error.is_none() && bytes == content());
    let request = &files.requests()[0];
    assert_eq!(
        request.header("user-agent"),
        Some(concat!("otahost/", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(request.header("accept-encoding"), Some("identity"));
    for absent in ["range", "if-range", "authorization", "cookie", "referer"] {
        assert_eq!(request.header(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn a_cut_is_an_error_and_a_resume_fetches_only_the_rest() {
    let files = server();
    files.fault("image.bin", 1, Fault::CutAfter(1_000_000));
    let source = source(&files);
    let mut opened = source.open(0, None).await.unwrap();
    let (mut bytes, error) = rest(&mut opened).await;
    assert!(matches!(error, Some(HttpError::Broken(_))), "{error:?}");
    assert!(!bytes.is_empty() && bytes.len() <= 1_000_000);
    let from = bytes.len() as u64;
    let mut opened = source
        .open(from, opened.validator.as_deref())
        .await
        .unwrap();
    assert_eq!((opened.offset, opened.total), (from, Some(SIZE as u64)));
    let (tail, error) = rest(&mut opened).await;
    assert!(error.is_none());
    bytes.extend(tail);
    assert!(bytes == content());
    let requests = files.requests();
    assert_eq!(requests[1].range(), Some(format!("bytes={from}-").as_str()));
    assert_eq!(requests[1].header("if-range"), Some("\"v1\""));
    assert_eq!(requests[1].status, 206);
}

#[tokio::test]
async fn silence_is_a_stall() {
    let files = server();
    files.fault("image.bin", 1, Fault::StallAfter(500_000));
    let mut opened = source(&files).open(0, None).await.unwrap();
    let mut bytes = 0;
    while bytes < 500_000 {
        bytes += opened.body.next().await.unwrap().unwrap().len();
    }
    assert_eq!(bytes, 500_000);
    // From here on nothing happens but that time passes.
    tokio::time::pause();
    let (more, error) = rest(&mut opened).await;
    assert!(more.is_empty());
    assert!(matches!(error, Some(HttpError::Stalled(_))), "{error:?}");
}

#[tokio::test]
async fn a_server_that_ignores_ranges_starts_over() {
    let files = server();
    files.fault("image.bin", 1, Fault::IgnoreRange);
    let mut opened = source(&files).open(1_000, Some("\"v1\"")).await.unwrap();
    assert_eq!(opened.offset, 0);
    assert!(rest(&mut opened).await.0 == content());
}

#[tokio::test]
async fn a_changed_file_starts_over() {
    let files = server();
    let source = source(&files);
    let validator = source.open(0, None).await.unwrap().validator;
    let other: Vec<u8> = content().into_iter().rev().collect();
    files.put("image.bin", other.clone());
    let mut opened = source.open(1_000, validator.as_deref()).await.unwrap();
    assert_eq!(opened.offset, 0);
    assert_ne!(opened.validator, validator);
    assert!(rest(&mut opened).await.0 == other);
    // A weak validator cannot go into If-Range, so the change is seen in the answer, and the whole is asked for anew.
    let mut opened = source.open(1_000, Some("W/\"old\"")).await.unwrap();
    assert_eq!(opened.offset, 0);
    assert!(rest(&mut opened).await.0 == other);
    let last: Vec<_> = files
        .requests()
        .iter()
        .rev()
        .take(2)
        .map(|request| request.range().map(str::to_owned))
        .collect();
    assert_eq!(last, [None, Some("bytes=1000-".to_owned())]);
}

#[tokio::test]
async fn lies_about_ranges_are_never_taken() {
    let files = server();
    let source = source(&files);
    for lie in [
        Fault::WrongOffset(0),
        Fault::WrongOffset(2_000),
        Fault::ContentRange("bytes 0-2999999/3000000".into()),
        Fault::ContentRange("bytes 1000-2999999/2000".into()),
        Fault::ContentRange("bytes 1000-1999999/3000000".into()),
        Fault::ContentRange("nonsense".into()),
    ] {
        files.fault("image.bin", 1, lie.clone());
        let error = source.open(1_000, Some("\"v1\"")).await.unwrap_err();
        assert!(matches!(error, HttpError::Broken(_)), "{lie:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_complete_file_needs_no_bytes_and_a_shorter_one_starts_over() {
    let files = server();
    let source = source(&files);
    let mut opened = source.open(SIZE as u64, Some("\"v1\"")).await.unwrap();
    assert_eq!(
        (opened.offset, opened.total),
        (SIZE as u64, Some(SIZE as u64))
    );
    assert_eq!(rest(&mut opened).await, (vec![], None));
    files.fault(
        "image.bin",
        1,
        Fault::Status {
            status: 416,
            headers: vec![("Content-Range".into(), "bytes */100".into())],
            body: vec![],
        },
    );
    let mut opened = source.open(SIZE as u64, Some("\"v1\"")).await.unwrap();
    assert_eq!(opened.offset, 0);
    assert!(rest(&mut opened).await.0 == content());
}

#[tokio::test]
async fn bodies_of_unexpected_length_are_errors_or_show_no_total() {
    let files = server();
    let source = source(&files);
    // Chunked: nothing is announced, so length is the caller's matter, from the start; a resume knows its end.
    for (fault, length) in [
        (Fault::Longer(10), SIZE + 10),
        (Fault::Shorter(10), SIZE - 10),
    ] {
        files.fault("image.bin", 2, fault.clone());
        let mut opened = source.open(0, None).await.unwrap();
        assert_eq!(opened.total, None);
        assert_eq!(rest(&mut opened).await.0.len(), length);
        let mut opened = source.open(1_000, None).await.unwrap();
        assert!(
            matches!(rest(&mut opened).await.1, Some(HttpError::Broken(_))),
            "{fault:?}"
        );
    }
    // More than announced is not read at all.
    files.fault("image.bin", 1, Fault::Overrun(10));
    let (bytes, error) = rest(&mut source.open(0, None).await.unwrap()).await;
    assert!(bytes == content() && error.is_none());
}

#[tokio::test]
async fn an_error_status_brings_its_headers_and_the_first_4_kib_of_its_body() {
    let files = server();
    files.fault(
        "image.bin",
        1,
        Fault::Status {
            status: 403,
            headers: vec![
                ("X-Vendor-Code".into(), "expired".into()),
                ("Set-Cookie".into(), "a=b".into()),
            ],
            body: vec![b'x'; 10_000],
        },
    );
    let options = |options: &mut HttpOptions| options.url.set_query(Some("signature=hush"));
    let error = source_with(&files, "image.bin", options)
        .open(0, None)
        .await
        .unwrap_err();
    let HttpError::Status {
        status,
        headers,
        body,
        text,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((*status, body.len()), (403, 4_096));
    assert!(headers.contains(&("x-vendor-code".into(), "expired".into())));
    assert!(!headers.iter().any(|(name, _)| name == "set-cookie"));
    assert!(
        text.contains("403") && text.contains("/public/image.bin") && !text.contains("hush"),
        "{text}"
    );
    assert_eq!(
        files.requests()[0].query.as_deref(),
        Some("signature=hush"),
        "the server must get the query all the same"
    );
}

#[tokio::test]
async fn redirects_are_followed_within_the_grant_with_the_range() {
    let files = server();
    for (status, name) in [(301, "a"), (302, "b"), (303, "c"), (307, "d"), (308, "e")] {
        files.fault_always(
            name,
            Fault::Redirect {
                status,
                location: "image.bin?signature=1".into(),
            },
        );
        let mut opened = source_with(&files, name, |_| {})
            .open(1_000, None)
            .await
            .unwrap();
        assert_eq!(opened.offset, 1_000);
        assert!(rest(&mut opened).await.0 == content()[1_000..]);
        let last = files.requests().pop().unwrap();
        assert_eq!(
            (last.path.as_str(), last.range(), last.header("referer")),
            ("/public/image.bin", Some("bytes=1000-"), None)
        );
    }
}

#[tokio::test]
async fn a_redirect_outside_the_grant_is_forbidden_and_asks_nothing_of_the_other_host() {
    let (files, inside) = (server(), server());
    files.fault_always(
        "image.bin",
        Fault::Redirect {
            status: 302,
            location: format!("{}?signature=hush", inside.url("image.bin")),
        },
    );
    let error = source(&files).open(0, None).await.unwrap_err();
    assert!(matches!(error, HttpError::Forbidden(_)), "{error:?}");
    assert!(!error.to_string().contains("hush"), "{error}");
    // A grant that lets redirects go anywhere public does not let them go inside: by address, by name, by mapped address.
    let (first, inside_port) = (files.origin(), inside.port());
    let public: Allow = Arc::new(move |url| {
        Ok(if url.as_str().starts_with(&first) {
            Reach::Named
        } else {
            Reach::PublicOnly
        })
    });
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "127.1",
        "0.0.0.0",
    ] {
        files.heal("image.bin");
        files.fault_always(
            "image.bin",
            Fault::Redirect {
                status: 302,
                location: format!("http://{host}:{inside_port}/public/image.bin"),
            },
        );
        let error = source_with(&files, "image.bin", |options| {
            options.allow = Arc::clone(&public)
        })
        .open(0, None)
        .await
        .unwrap_err();
        assert!(
            matches!(error, HttpError::Forbidden(_)),
            "{host}: {error:?}"
        );
    }
    assert_eq!(inside.requests(), []);
    // Named by the operator, the same host is reached.
    let both = prefixes(&[
        files.origin(),
        format!("http://localhost:{inside_port}/public/"),
    ]);
    files.heal("image.bin");
    files.fault_always(
        "image.bin",
        Fault::Redirect {
            status: 302,
            location: format!("http://localhost:{inside_port}/public/image.bin"),
        },
    );
    let mut opened = source_with(&files, "image.bin", |options| options.allow = both)
        .open(0, None)
        .await
        .unwrap();
    assert!(rest(&mut opened).await.0 == content());
}

#[tokio::test]
async fn a_redirect_loop_ends_after_five() {
    let files = server();
    files.fault_always(
        "image.bin",
        Fault::Redirect {
            status: 302,
            location: "image.bin".into(),
        },
    );
    let error = source(&files).open(0, None).await.unwrap_err();
    assert!(matches!(error, HttpError::Forbidden(_)), "{error:?}");
    assert_eq!(files.requests().len(), 6);
}

#[tokio::test]
async fn https_trusts_the_named_authority_and_is_never_left_for_http() {
    let (secure, plain) = (Files::start_tls(), server());
    secure.put("image.bin", content());
    secure.fault(
        "down",
        1,
        Fault::Redirect {
            status: 302,
            location: plain.url("image.bin"),
        },
    );
    let everywhere: Allow = Arc::new(|_| Ok(Reach::Named));
    let open = |name: &str, ca: &'static str| {
        let source = source_with(&secure, name, |options| {
            options.ca_pem = Some(ca.as_bytes().to_vec());
            options.allow = Arc::clone(&everywhere);
        });
        async move { source.open(0, None).await }
    };
    let mut opened = open("image.bin", tls::CA_PEM).await.unwrap();
    assert!(rest(&mut opened).await.0 == content());
    let error = open("image.bin", tls::STRANGER_CA_PEM).await.unwrap_err();
    assert!(
        matches!(&error, HttpError::Broken(text) if text.contains("certificate")),
        "{error:?}"
    );
    let error = open("down", tls::CA_PEM).await.unwrap_err();
    assert!(matches!(error, HttpError::Forbidden(_)), "{error:?}");
    assert_eq!(plain.requests(), []);
}

/// A client for an http URL reads no authorities; the one for where it leads has to.
#[test]
fn a_redirect_from_http_to_https_trusts_the_systems_authorities_and_nobody_else() {
    // What the system trusts is read from the environment, which must not change under the other tests: they run in another process.
    for (authority, outcome) in [(tls::CA_PEM, "trusted"), (tls::STRANGER_CA_PEM, "refused")] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(authority.as_bytes()).unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "redirected_to_https", "--ignored", "--nocapture"])
            .env("SSL_CERT_FILE", file.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(&format!("it is {outcome}")), "{said}");
    }
}

#[tokio::test]
#[ignore = "run by the test above, with an environment of its own"]
async fn redirected_to_https() {
    let (secure, plain) = (Files::start_tls(), server());
    secure.put("image.bin", content());
    let redirect = Fault::Redirect {
        status: 302,
        location: secure.url("image.bin"),
    };
    plain.fault("image.bin", 1, redirect);
    let source = source_with(&plain, "image.bin", |options| {
        options.allow = Arc::new(|_| Ok(Reach::Named));
    });
    match source.open(0, None).await {
        Ok(mut opened) => {
            assert!(rest(&mut opened).await.0 == content());
            println!("it is trusted");
        }
        Err(error) => {
            assert!(
                matches!(&error, HttpError::Broken(text) if text.contains("certificate")),
                "{error:?}"
            );
            println!("it is refused");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_broken_and_the_text_hides_the_query() {
    let gone = {
        let files = Files::start();
        format!("{}/image.bin?signature=hush", files.origin())
    };
    let source = HttpSource::new(HttpOptions::new(
        gone.parse().unwrap(),
        Arc::new(|_| Ok(Reach::Named)),
    ))
    .unwrap();
    let error = source.open(0, None).await.unwrap_err();
    assert!(matches!(error, HttpError::Broken(_)), "{error:?}");
    assert!(
        !format!("{error} {source:?}").contains("hush"),
        "{error} {source:?}"
    );
}

#[tokio::test]
async fn urls_that_can_never_be_fetched_are_refused_at_once() {
    for url in [
        "ftp://host/x",
        "file:///etc/passwd",
        "http://joe:hush@host/x",
    ] {
        let error = HttpSource::new(HttpOptions::new(
            url.parse().unwrap(),
            Arc::new(|_| Ok(Reach::Named)),
        ))
        .unwrap_err();
        assert!(
            matches!(error, HttpError::Forbidden(_)) && !error.to_string().contains("hush"),
            "{error:?}"
        );
    }
}
