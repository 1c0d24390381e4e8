//! Files of an API that redirects to an object store, over the `http_client` link.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/script.rs"]
mod script;

use std::sync::Arc;

use otahost_core::model::{Capture, Fetch, Repeat};
use otahost_core::secret::Secret;
use otahost_lab::files::{Fault, Files};
use otahost_lab::nginx::Nginx;
use otahost_lab::tls;
use otahost_links::http::{HttpError, HttpOpened};
use otahost_links::http_client::{Auth, HttpClient, HttpClientOptions};
use otahost_links::tls::ServerTrust;
use otahost_links::{Link, LinkCommand, LinkEvent};
use script::{Asked, LIMIT, Reply, Script};
use tokio::sync::mpsc;
use tokio::time::timeout;

const SIZE: usize = 1_000_000;

/// What Amazon S3 answers to a presigned URL with an Authorization header beside it: facts of the page, in our words.
const TWO_MECHANISMS: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InvalidArgument</Code>\
     <Message>Only one auth mechanism allowed</Message></Error>";

fn content() -> Vec<u8> {
    (0..SIZE).map(|n| (n * 7 % 253) as u8).collect()
}

/// An API whose `/file` redirects to what the test names.
async fn api(status: u16, location: impl Fn() -> String + Send + Sync + 'static) -> Script {
    Script::start(move |asked: &Asked| match asked.header("authorization") {
        Some("Bearer tok-en-1") => Reply::redirect(status, location()),
        _ => Reply::new(401).body(r#"{"detail":"Token is expired"}"#),
    })
    .await
}

fn options(base: &str, stores: &[String]) -> HttpClientOptions {
    HttpClientOptions {
        auth: Auth::Bearer("access".into()),
        secrets: vec![("access".into(), Secret::new("tok-en-1"))],
        redirects: stores.to_vec(),
        ..HttpClientOptions::new(base.parse().unwrap())
    }
}

fn client(api: &Script, stores: &[String]) -> HttpClient {
    HttpClient::new(options(&api.url("/"), stores)).unwrap()
}

async fn rest(opened: &mut HttpOpened) -> (Vec<u8>, Option<HttpError>) {
    let mut bytes = Vec::new();
    loop {
        match opened.body.next().await {
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            Ok(None) => return (bytes, None),
            Err(error) => return (bytes, Some(error)),
        }
    }
}

/// A store, an API that redirects to it, and the link.
async fn cloud() -> (Files, Script, HttpClient) {
    let files = Files::start();
    files.put("image.bin", content());
    let url = files.url("image.bin");
    let api = api(307, move || format!("{url}?X-Amz-Signature=hush")).await;
    let link = client(&api, &[format!("{}/public/", files.origin())]);
    (files, api, link)
}

#[tokio::test]
async fn r04_r05_the_store_never_gets_our_authorization() {
    for status in [301, 302, 303, 307, 308] {
        let store = Script::start(|asked: &Asked| match asked.header("authorization") {
            Some(_) => Reply::new(400)
                .header("content-type", "application/xml")
                .body(TWO_MECHANISMS),
            None => Reply::new(200).body("image"),
        })
        .await;
        let location = store.url("/b/image.bin?X-Amz-Signature=s%2F1");
        let api = api(status, move || location.clone()).await;
        let link = client(&api, &[store.url("/")]);
        let mut opened = link.open("/file/7?x=1", 0, None).await.unwrap();
        assert_eq!(rest(&mut opened).await, (b"image".to_vec(), None));
        let (asked, stored) = (api.asked(), store.asked());
        assert_eq!(asked[0].target, "/file/7?x=1");
        assert_eq!(asked[0].header("authorization"), Some("Bearer tok-en-1"));
        assert_eq!(
            (stored[0].method.as_str(), stored[0].target.as_str()),
            ("GET", "/b/image.bin?X-Amz-Signature=s%2F1")
        );
        for absent in ["authorization", "cookie", "referer"] {
            assert_eq!(stored[0].header(absent), None, "{absent}");
        }
    }
}

#[tokio::test]
async fn our_authorization_stays_within_the_origin_and_does_not_come_back_to_it() {
    let api = Script::start(|asked: &Asked| match asked.path() {
        "/file" => Reply::redirect(302, "/inner"),
        "/inner" => Reply::redirect(
            302,
            asked
                .target
                .split_once("to=")
                .map_or("/store", |(_, to)| to),
        ),
        "/store" => Reply::redirect(
            302,
            format!(
                "http://localhost:{}/away",
                asked.header("host").unwrap().rsplit(':').next().unwrap()
            ),
        ),
        // The same server under another name: another origin.
        "/away" => Reply::redirect(
            302,
            format!(
                "http://127.0.0.1:{}/back",
                asked.header("host").unwrap().rsplit(':').next().unwrap()
            ),
        ),
        _ => Reply::new(200).body("image"),
    })
    .await;
    let link = client(&api, &[format!("http://localhost:{}/", api.port())]);
    assert!(link.open("/file", 0, None).await.is_ok());
    let seen: Vec<_> = api
        .asked()
        .iter()
        .map(|asked| {
            (
                asked.target.clone(),
                asked.header("authorization").is_some(),
            )
        })
        .collect();
    let expected = [
        ("/file", true),
        ("/inner", true),
        ("/store", true),
        ("/away", false),
        ("/back", false),
    ];
    assert_eq!(seen, expected.map(|(path, sent)| (path.to_owned(), sent)));
}

#[tokio::test]
async fn r06_a_loop_and_six_hops_are_errors_and_five_are_not() {
    let api = Script::start(|asked: &Asked| match asked.path()[1..].parse::<u32>() {
        Ok(0) => Reply::new(200).body("image"),
        Ok(left) => Reply::redirect(302, format!("/{}", left - 1)),
        Err(_) => Reply::redirect(302, asked.target.clone()),
    })
    .await;
    let link = client(&api, &[]);
    assert!(link.open("/5", 0, None).await.is_ok());
    for path in ["/6", "/loop"] {
        let before = api.asked().len();
        let error = link.open(path, 0, None).await.unwrap_err();
        assert!(matches!(error, HttpError::Forbidden(_)), "{error:?}");
        assert_eq!(api.asked().len() - before, 6, "{path}");
    }
}

#[tokio::test]
async fn r07_https_is_never_left_for_http() {
    let (api, store) = (Files::start_tls(), Files::start());
    store.put("image.bin", content());
    let location = store.url("image.bin");
    api.fault_always(
        "file",
        Fault::Redirect {
            status: 302,
            location,
        },
    );
    let link = HttpClient::new(HttpClientOptions {
        trust: ServerTrust::Ca(tls::CA_PEM.into()),
        ..options(&api.origin(), &[store.origin()])
    })
    .unwrap();
    let error = link.open("/public/file", 0, None).await.unwrap_err();
    assert!(
        matches!(&error, HttpError::Forbidden(text) if text.contains("https to http")),
        "{error:?}"
    );
    assert_eq!(api.requests().len(), 1);
    assert!(store.requests().is_empty());
}

#[tokio::test]
async fn a_named_store_is_trusted_by_the_links_own_authority() {
    let (api, store) = (Files::start_tls(), Files::start_tls());
    store.put("image.bin", content());
    let location = store.url("image.bin");
    api.fault_always(
        "file",
        Fault::Redirect {
            status: 302,
            location,
        },
    );
    let link = HttpClient::new(HttpClientOptions {
        trust: ServerTrust::Ca(tls::CA_PEM.into()),
        ..options(&api.origin(), &[format!("{}/public/", store.origin())])
    })
    .unwrap();
    let mut opened = link.open("/public/file", 0, None).await.unwrap();
    assert!(rest(&mut opened).await.0 == content());
    assert!(api.requests()[0].header("authorization").is_some());
    assert!(store.requests()[0].header("authorization").is_none());
}

#[tokio::test]
async fn r11_after_a_cut_the_api_gives_a_fresh_address_and_the_rest_comes_from_the_cut() {
    let (files, api, link) = cloud().await;
    files.fault("image.bin", 1, Fault::CutAfter(SIZE as u64 / 2));
    let mut opened = link.open("/file/7", 0, None).await.unwrap();
    let (mut bytes, error) = rest(&mut opened).await;
    assert!(matches!(error, Some(HttpError::Broken(_))), "{error:?}");
    let from = bytes.len() as u64;
    assert!(from > 0 && from <= SIZE as u64 / 2);
    let mut opened = link
        .open("/file/7", from, opened.validator.as_deref())
        .await
        .unwrap();
    assert_eq!((opened.offset, opened.total), (from, Some(SIZE as u64)));
    bytes.extend(rest(&mut opened).await.0);
    assert!(bytes == content());
    assert_eq!(api.asked_for("/file/7").len(), 2);
    let last = files.requests().pop().unwrap();
    assert_eq!(last.range(), Some(format!("bytes={from}-").as_str()));
    assert_eq!(
        (last.header("if-range"), last.status),
        (Some("\"v1\""), 206)
    );
}

#[tokio::test]
async fn r12_a_store_that_ignores_ranges_starts_over() {
    let (files, _api, link) = cloud().await;
    files.fault("image.bin", 1, Fault::IgnoreRange);
    let mut opened = link.open("/file/7", 1_000, Some("\"v1\"")).await.unwrap();
    assert_eq!(opened.offset, 0);
    assert!(rest(&mut opened).await.0 == content());
}

#[tokio::test]
async fn r13_another_etag_starts_over() {
    let (files, _api, link) = cloud().await;
    let validator = link.open("/file/7", 0, None).await.unwrap().validator;
    let other: Vec<u8> = content().into_iter().rev().collect();
    files.put("image.bin", other.clone());
    let mut opened = link
        .open("/file/7", 1_000, validator.as_deref())
        .await
        .unwrap();
    assert_eq!(opened.offset, 0);
    assert_ne!(opened.validator, validator);
    assert!(rest(&mut opened).await.0 == other);
}

#[tokio::test]
async fn a_complete_file_needs_no_bytes() {
    let (_files, _api, link) = cloud().await;
    let mut opened = link
        .open("/file/7", SIZE as u64, Some("\"v1\""))
        .await
        .unwrap();
    assert_eq!(
        (opened.offset, opened.total),
        (SIZE as u64, Some(SIZE as u64))
    );
    assert_eq!(rest(&mut opened).await, (vec![], None));
}

#[tokio::test]
async fn a_file_without_a_redirect_is_taken_with_its_md5() {
    let api = Script::start(|asked: &Asked| {
        assert_eq!(asked.header("authorization"), Some("Bearer tok-en-1"));
        Reply::new(200)
            .header("etag", "\"78805A221A988E79EF3F42D7C5BFD418\"")
            .body("image")
    })
    .await;
    let mut opened = client(&api, &[]).open("/file/7", 0, None).await.unwrap();
    let md5 = 0x7880_5a22_1a98_8e79_ef3f_42d7_c5bf_d418_u128.to_be_bytes();
    assert_eq!(opened.md5, Some(md5));
    assert_eq!(rest(&mut opened).await.0, b"image");
}

#[tokio::test]
async fn an_error_document_that_comes_with_200_is_an_error() {
    let api = Script::start(|asked: &Asked| match asked.path() {
        "/error" => Reply::new(200)
            .header("content-type", "application/xml")
            .body(TWO_MECHANISMS),
        "/chunked" => Reply::new(200)
            .header("content-type", "text/xml; charset=utf-8")
            .header("transfer-encoding", "chunked")
            .body("10\r\n<Error><Code>x</\r\nd\r\nCode></Error>\r\n0\r\n\r\n"),
        "/portal" => Reply::new(200)
            .header("content-type", "text/html; charset=utf-8")
            .body("<!DOCTYPE html>\n<html><body>Please sign in. <Error></Error></body></html>"),
        "/xml" => Reply::new(200)
            .header("content-type", "application/xml")
            .body("<firmware><Error/></firmware>"),
        _ => Reply::new(200).body(TWO_MECHANISMS),
    })
    .await;
    let link = client(&api, &[]);
    for path in ["/error", "/chunked"] {
        let error = link.open(path, 0, None).await.unwrap_err();
        let HttpError::Status {
            status: 200,
            body,
            text,
            ..
        } = &error
        else {
            panic!("{error:?}")
        };
        assert!(body.ends_with(b"</Error>"), "{error:?}");
        assert!(text.contains("error document"), "{text}");
    }
    let error = link.open("/portal", 0, None).await.unwrap_err();
    assert!(
        matches!(error, HttpError::Status { status: 200, .. }),
        "a page is no file: {error:?}"
    );
    let mut xml = link.open("/xml", 0, None).await.unwrap();
    assert_eq!(
        rest(&mut xml).await,
        (b"<firmware><Error/></firmware>".to_vec(), None)
    );
    let mut image = link.open("/image", 0, None).await.unwrap();
    assert_eq!(rest(&mut image).await.0, TWO_MECHANISMS.as_bytes());
}

#[tokio::test]
async fn an_error_of_the_store_is_shown_scrubbed_and_without_the_query() {
    let store = Script::start(|_| {
        // The token stands across the end of what is kept.
        let body = format!(
            "<Error><Code>AccessDenied</Code>{}tok-en-1{}",
            "x".repeat(4_060),
            "y".repeat(9_000)
        );
        Reply::new(403)
            .header("content-type", "application/xml")
            .header("x-echo", "tok-en-1")
            .body(body)
    })
    .await;
    let location = store.url("/image.bin?X-Amz-Signature=hush");
    let api = api(307, move || location.clone()).await;
    let error = client(&api, &[store.url("/")])
        .open("/file/7", 0, None)
        .await
        .unwrap_err();
    let HttpError::Status {
        status: 403,
        headers,
        body,
        text,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(body.len(), 4_096);
    let body = String::from_utf8_lossy(body);
    assert!(
        body.contains("AccessDenied") && body.contains("***") && !body.contains("tok"),
        "{body}"
    );
    assert!(headers.contains(&("x-echo".into(), "***".into())));
    assert!(
        text.contains("/image.bin") && !text.contains("hush"),
        "{text}"
    );
}

#[tokio::test]
async fn a_redirect_does_not_lead_from_a_public_api_into_the_device() {
    let inside = Script::start(|_| Reply::new(200).body("admin page")).await;
    let port = inside.port();
    for host in [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0.0.0.0",
    ] {
        let api = api(302, move || format!("http://{host}:{port}/admin?x=hush")).await;
        // Named by its own name, so it may be anywhere itself.
        let base = format!("http://localhost:{}/", api.port());
        let link = HttpClient::new(options(&base, &[])).unwrap();
        let error = link.open("/file/7", 0, None).await.unwrap_err();
        assert!(
            matches!(error, HttpError::Forbidden(_)),
            "{host}: {error:?}"
        );
        assert!(!error.to_string().contains("hush"), "{error}");
        assert_eq!(api.asked().len(), 1);
    }
    assert!(inside.asked().is_empty());
}

#[tokio::test]
async fn a_path_that_could_mean_another_place_is_not_asked_for() {
    let (_files, api, link) = cloud().await;
    for path in [
        "file",
        "//evil.example/x",
        "/a/../b",
        "/a b",
        "/{secret:access}/%2e%2e",
    ] {
        let error = link.open(path, 0, None).await.unwrap_err();
        assert!(
            matches!(error, HttpError::Forbidden(_)),
            "{path}: {error:?}"
        );
    }
    assert!(api.asked().is_empty());
}

#[tokio::test]
async fn a_missing_bearer_token_is_said_in_the_agreed_words() {
    let (_files, api, _) = cloud().await;
    let link = HttpClient::new(HttpClientOptions {
        secrets: Vec::new(),
        ..options(&api.url("/"), &[])
    })
    .unwrap();
    let error = link.open("/file/7", 0, None).await.unwrap_err();
    assert_eq!(
        error,
        HttpError::Broken("no-secret: access is not known on this link".into())
    );
    assert!(api.asked().is_empty());
}

fn capturing(path: &str) -> Fetch {
    Fetch {
        tag: "t".into(),
        link: "api".into(),
        method: "GET".into(),
        path: path.into(),
        headers: Vec::new(),
        body: Vec::new(),
        captures: vec![Capture {
            pointer: "/t".into(),
            secret: "access".into(),
        }],
        repeat: Repeat::Once,
        timeout: 20_000,
        redirects: 0,
    }
}

#[tokio::test]
async fn a_file_waits_for_the_token_that_is_being_replaced() {
    let api = Script::start(|asked: &Asked| match asked.path() {
        "/refresh" => Reply::new(200).body(r#"{"t":"tok-en-2"}"#),
        _ => Reply::new(200).body(asked.header("authorization").unwrap_or("none").to_owned()),
    })
    .await;
    let link = client(&api, &[]);
    let (sender, mut events) = mpsc::channel(8);
    let commands = link.start(sender);
    let fetch = Box::new(capturing("/refresh"));
    commands
        .send(LinkCommand::Fetch { id: 1, fetch })
        .await
        .unwrap();
    let event = timeout(LIMIT, events.recv()).await.unwrap().unwrap();
    assert!(
        matches!(event, LinkEvent::Fetched { id: 1, .. }),
        "{event:?}"
    );
    let opening = link.open("/file/7", 0, None);
    tokio::pin!(opening);
    // Polled, it waits, and nothing leaves.
    tokio::select! {
        biased;
        opened = &mut opening => panic!("{opened:?}"),
        () = tokio::task::yield_now() => {}
    }
    assert!(api.asked_for("/file/7").is_empty());
    commands.send(LinkCommand::Kept(1)).await.unwrap();
    let mut opened = timeout(LIMIT, opening).await.unwrap().unwrap();
    assert_eq!(rest(&mut opened).await.0, b"Bearer tok-en-2");
}

/// The real nginx: its ranges, its validators, its 416.
#[tokio::test]
async fn nginx_resumes_by_its_etag_and_gets_no_authorization() {
    let nginx = Arc::new(Nginx::start().unwrap());
    nginx.put("image.bin", &content()).unwrap();
    let url = nginx.url("image.bin");
    let store = format!("{}/", nginx.origin());
    let api = api(307, move || format!("{url}?X-Amz-Signature=hush")).await;
    let link = client(&api, &[store]);
    let mut opened = link.open("/file/7", 0, None).await.unwrap();
    assert_eq!((opened.total, opened.md5), (Some(SIZE as u64), None));
    let first = opened.body.next().await.unwrap().unwrap();
    let from = first.len() as u64;
    let validator = opened.validator.clone();
    assert!(
        validator.as_deref().is_some_and(|v| v.starts_with('"')),
        "{validator:?}"
    );
    drop(opened);
    let mut opened = link
        .open("/file/7", from, validator.as_deref())
        .await
        .unwrap();
    assert_eq!((opened.offset, opened.total), (from, Some(SIZE as u64)));
    let bytes = [first.to_vec(), rest(&mut opened).await.0].concat();
    assert!(bytes == content());
    let complete = link
        .open("/file/7", SIZE as u64, validator.as_deref())
        .await
        .unwrap();
    assert_eq!(complete.offset, SIZE as u64);
    let mut changed = content();
    changed.push(1);
    nginx.put("image.bin", &changed).unwrap();
    let mut opened = link
        .open("/file/7", from, validator.as_deref())
        .await
        .unwrap();
    assert_eq!(opened.offset, 0);
    assert!(rest(&mut opened).await.0 == changed);
}
