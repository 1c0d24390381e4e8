//! Servers and networks that say nothing more. A limit that is missing shows as a test that runs into its own.

use std::time::Duration;

use otahost_lab::ftps::{Answer, Fault, Ftps};
use otahost_links::ftps::{FtpsError, FtpsLink, FtpsOptions};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{LIMIT, content, lab, open, options, read};

/// Where nothing has to come through.
const SHORT: Duration = Duration::from_millis(300);

/// Where something has to come through, also on a busy machine.
const AMPLE: Duration = Duration::from_secs(3);

/// A server with a file, and a link that waits for so long at most.
fn impatient(limit: Duration) -> (Ftps, FtpsLink) {
    let server = lab();
    server.put("a", content(100_000));
    let link = FtpsLink::new(FtpsOptions {
        connect_timeout: limit,
        idle_timeout: limit,
        ..options(server.port())
    })
    .unwrap();
    (server, link)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reply_is_waited_for_for_ever() {
    let mut cases = JoinSet::new();
    for verb in [
        "CONNECT", "AUTH", "PBSZ", "PROT", "USER", "PASS", "TYPE", "SIZE", "MDTM", "PASV", "REST",
        "RETR",
    ] {
        for answer in [Answer::Silence, Answer::HalfThenSilence] {
            cases.spawn(async move {
                let (server, link) = impatient(SHORT);
                server.answer_always(verb, answer.clone());
                match open(&link, "a", 10, None).await {
                    Err(FtpsError::Stalled(_) | FtpsError::Unreachable(_)) => {}
                    other => panic!("{verb} {answer:?}: {other:?}"),
                }
            });
        }
    }
    cases.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_listing_is_waited_for_for_ever() {
    let mut cases = JoinSet::new();
    for verb in ["CWD", "PASV", "MLSD", ""] {
        cases.spawn(async move {
            let (server, link) = impatient(AMPLE);
            if verb.is_empty() {
                server.fault_always("/", Fault::StallAfter(3));
            } else {
                server.answer_always(verb, Answer::Silence);
            }
            let result = timeout(LIMIT, link.list("")).await.unwrap();
            assert!(
                matches!(result, Err(FtpsError::Stalled(_))),
                "{verb}: {result:?}"
            );
        });
    }
    cases.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_handshake_is_waited_for_for_ever() {
    let (server, link) = impatient(AMPLE);
    server.answer("AUTH", 1, Answer::SilenceAfter);
    let error = open(&link, "a", 0, None).await.unwrap_err();
    assert!(matches!(error, FtpsError::Unreachable(_)), "{error}");
    server.fault("a", 1, Fault::NoHandshake);
    let error = open(&link, "a", 0, None).await.unwrap_err();
    assert!(matches!(error, FtpsError::Stalled(_)), "{error}");
    assert!(!error.is_final());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_stops_coming_is_stalled_where_it_stopped() {
    let (server, link) = impatient(AMPLE);
    server.fault("a", 1, Fault::StallAfter(40_000));
    let mut opened = open(&link, "a", 0, None).await.unwrap();
    let (got, end) = read(&mut opened.body).await;
    assert_eq!(got.len(), 40_000);
    let Err(FtpsError::Stalled(text)) = end else {
        panic!("{end:?}")
    };
    assert!(text.contains("40000"), "{text}");
}

/// K14: nobody confirmed the end, so it is none; the next login finds all bytes there.
#[tokio::test(flavor = "multi_thread")]
async fn k14_an_end_that_is_never_confirmed_is_stalled() {
    let (server, link) = impatient(AMPLE);
    server.fault("a", 1, Fault::NoFinalReply);
    let mut opened = open(&link, "a", 0, None).await.unwrap();
    let (got, end) = read(&mut opened.body).await;
    assert_eq!(got.len(), 100_000);
    assert!(matches!(end, Err(FtpsError::Stalled(_))), "{end:?}");
    let next = open(&link, "a", 100_000, opened.validator.as_deref())
        .await
        .unwrap();
    assert_eq!(next.offset, 100_000);
    assert_eq!(server.retrievals().len(), 1);
}
