//! The lab's FTPS server does wrong exactly what it is told to do wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

mod ftp_client;

use std::future::Future;

use ftp_client::{PASSWORD, SOON, USER, fetch, list, login, login_as, said, sample, say, trust};
use otahost_lab::ftps::{Answer, Fault, Ftps};
use suppaftp::tokio::AsyncRustlsFtpStream;
use tokio::task::JoinHandle;

const LENGTH: usize = 300_000;

fn serving() -> (Ftps, Vec<u8>) {
    let server = Ftps::start(USER, PASSWORD);
    let file = sample(LENGTH);
    server.put("a.bin", file.clone());
    (server, file)
}

/// K10, seen from the server.
#[tokio::test]
async fn a_cut_download_ends_at_the_byte_it_was_told_and_goes_on_from_there() {
    let (server, file) = serving();
    let cut = LENGTH * 37 / 100;
    server.fault("a.bin", 1, Fault::CutAfter(cut as u64));
    let mut client = login(server.port()).await;
    let got = fetch(&mut client, "a.bin", 0).await.unwrap();
    assert_eq!(got.bytes, file[..cut]);
    assert!(!got.ended_well);
    assert!(got.complaint.unwrap().starts_with("426"));
    let rest = fetch(&mut client, "a.bin", cut).await.unwrap();
    assert_eq!([got.bytes, rest.bytes].concat(), file);
    let all: Vec<(u64, u64, u16)> = server
        .retrievals()
        .iter()
        .map(|one| (one.offset, one.sent, one.reply))
        .collect();
    let cut = cut as u64;
    assert_eq!(all, [(0, cut, 426), (cut, LENGTH as u64 - cut, 226)]);
    assert_eq!(server.bytes_sent(), LENGTH as u64);
}

#[tokio::test]
async fn a_network_that_is_gone_ends_both_connections_without_a_word() {
    let (server, file) = serving();
    server.fault("a.bin", 1, Fault::DropAfter(5));
    let mut client = login(server.port()).await;
    let got = fetch(&mut client, "a.bin", 0).await.unwrap();
    assert_eq!(got.bytes, file[..5]);
    assert!(!got.ended_well);
    assert!(
        !got.complaint
            .unwrap()
            .starts_with(|first: char| first.is_ascii_digit())
    );
    assert!(server.wait_for(SOON, |all| all[0].closed));
    assert_eq!(server.retrievals()[0].reply, 0);
}

/// K13, seen from the server.
#[tokio::test]
async fn a_short_download_may_end_in_good_order_with_226() {
    let (server, file) = serving();
    server.fault("a.bin", 1, Fault::ShortAfter(1000));
    let mut client = login(server.port()).await;
    let got = fetch(&mut client, "a.bin", 0).await.unwrap();
    assert_eq!(got.bytes, file[..1000]);
    assert_eq!((got.ended_well, got.complaint), (true, None));
}

/// K14, seen from the server.
#[tokio::test]
async fn a_whole_download_may_end_without_close_notify_or_with_426() {
    let (server, file) = serving();
    server.fault("a.bin", 1, Fault::NoCloseNotify);
    server.fault("a.bin", 1, Fault::Final("426 Transfer aborted.".into()));
    let mut client = login(server.port()).await;
    let got = fetch(&mut client, "a.bin", 0).await.unwrap();
    assert_eq!(got.bytes, file);
    assert_eq!((got.ended_well, got.complaint), (false, None));
    let got = fetch(&mut client, "a.bin", 0).await.unwrap();
    assert_eq!(got.bytes, file);
    assert!(got.ended_well);
    assert_eq!(got.complaint.as_deref(), Some("426 Transfer aborted."));
    let got = fetch(&mut client, "a.bin", 0).await.unwrap();
    assert_eq!((got.ended_well, got.complaint), (true, None));
}

#[tokio::test]
async fn a_download_may_be_longer_than_its_size_and_sizes_may_lie() {
    let (server, file) = serving();
    server.fault("a.bin", 1, Fault::Longer(17));
    server.claim_size("a.bin", 5);
    let mut client = login(server.port()).await;
    assert_eq!(client.size("a.bin").await.unwrap(), 5);
    let listing = list(&mut client, "MLSD").await.unwrap().bytes;
    assert!(String::from_utf8(listing).unwrap().contains("size=5;"));
    let got = fetch(&mut client, "a.bin", 0).await.unwrap();
    assert_eq!(got.bytes, [file, vec![0; 17]].concat());
}

/// K12, seen from the server.
#[tokio::test]
async fn rest_may_be_refused_or_taken_and_ignored() {
    let (server, file) = serving();
    server.answer("REST", 1, Answer::Refuse("502 Not here.".into()));
    let mut client = login(server.port()).await;
    let error = fetch(&mut client, "a.bin", 9).await.unwrap_err();
    assert!(said(&error).starts_with("502"));
    assert!(server.retrievals().is_empty());
    server.fault("a.bin", 1, Fault::IgnoreRest);
    assert_eq!(fetch(&mut client, "a.bin", 9).await.unwrap().bytes, file);
    assert_eq!(
        fetch(&mut client, "a.bin", 9).await.unwrap().bytes,
        file[9..]
    );
}

#[tokio::test]
async fn a_transfer_may_be_refused_in_the_words_of_the_test() {
    let (server, _) = serving();
    server.fault_always("a.bin", Fault::Refuse("450 Busy.".into()));
    let mut client = login(server.port()).await;
    for _ in 0..3 {
        let error = fetch(&mut client, "a.bin", 0).await.unwrap_err();
        assert_eq!(said(&error), "450 Busy.");
    }
    server.heal("a.bin");
    assert!(fetch(&mut client, "a.bin", 0).await.is_ok());
}

#[tokio::test]
async fn a_listing_can_fail_like_a_download() {
    let (server, _) = serving();
    server.fault("/", 1, Fault::CutAfter(10));
    let mut client = login(server.port()).await;
    let got = list(&mut client, "MLSD").await.unwrap();
    assert_eq!(got.bytes.len(), 10);
    assert!(got.complaint.unwrap().starts_with("426"));
    assert!(server.retrievals().is_empty());
}

#[tokio::test]
async fn an_idle_client_hears_421_after_its_226_or_between_two_commands() {
    let (server, file) = serving();
    server.fault("a.bin", 1, Fault::ThenIdle);
    let mut client = login(server.port()).await;
    let got = fetch(&mut client, "a.bin", 0).await.unwrap();
    assert_eq!((got.bytes, got.complaint), (file, None));
    assert!(server.wait_for(SOON, |all| all[0].closed));
    assert_eq!(
        server.connections()[0].commands.last().unwrap().replies,
        [150, 226, 421]
    );

    let mut client = login(server.port()).await;
    server.hang_up("421 Timeout.");
    assert!(server.wait_for(SOON, |all| all[1].closed));
    assert!(say(&mut client, "NOOP").await.starts_with("421"));

    server.answer("CONNECT", 1, Answer::Close("421 Too many users.".into()));
    let error = login_as(server.port(), trust(), USER, PASSWORD)
        .await
        .err()
        .unwrap();
    assert!(said(&error).starts_with("421"));
}

#[tokio::test]
async fn a_cut_ends_every_connection() {
    let (server, _) = serving();
    let mut client = login(server.port()).await;
    server.cut();
    assert!(client.noop().await.is_err());
    let mut client = login(server.port()).await;
    client.noop().await.unwrap();
}

#[tokio::test]
async fn a_line_can_be_slipped_in_behind_a_reply() {
    let (server, _) = serving();
    server.answer("NOOP", 1, Answer::Inject("999 Surprise.".into()));
    let mut client = login(server.port()).await;
    assert!(say(&mut client, "NOOP").await.starts_with("200"));
    assert!(say(&mut client, "NOOP").await.starts_with("999"));
}

/// Runs a client until the server is silent, sees that it does not get on, and that it does once the silence ends.
async fn silent_until_released<T: Send + 'static>(
    server: &Ftps,
    client: impl Future<Output = T> + Send + 'static,
) -> T {
    let client: JoinHandle<T> = tokio::spawn(client);
    assert!(server.wait_for(SOON, |all| all.last().is_some_and(|one| one.silent)));
    assert!(!client.is_finished());
    server.release();
    let result = tokio::time::timeout(SOON, client).await.unwrap().unwrap();
    assert!(server.wait_for(SOON, |all| !all.last().unwrap().silent));
    result
}

async fn whole_session(port: u16) -> (AsyncRustlsFtpStream, usize) {
    let mut client = login(port).await;
    let size = client.size("a.bin").await.unwrap();
    (client, size)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_falls_silent_at_any_point_of_the_control_connection_and_comes_back() {
    let points = [
        "CONNECT", "AUTH", "PBSZ", "PROT", "USER", "PASS", "TYPE", "SIZE",
    ];
    for point in points {
        let mut kinds = vec![Answer::Silence, Answer::HalfThenSilence];
        if point != "SIZE" {
            kinds.push(Answer::SilenceAfter);
        }
        for kind in kinds {
            let (server, file) = serving();
            server.answer(point, 1, kind);
            let (_, size) = silent_until_released(&server, whole_session(server.port())).await;
            assert_eq!(size, file.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_falls_silent_around_a_data_connection_and_comes_back() {
    for verb in ["EPSV", "REST", "RETR"] {
        let (server, file) = serving();
        server.answer(verb, 1, Answer::Silence);
        let mut client = login(server.port()).await;
        let got = silent_until_released(&server, async move {
            fetch(&mut client, "a.bin", 1).await.unwrap()
        })
        .await;
        assert_eq!((got.bytes, got.complaint), (file[1..].to_vec(), None));
    }
    for fault in [
        Fault::StallAfter(0),
        Fault::StallAfter(100_000),
        Fault::NoFinalReply,
    ] {
        let (server, file) = serving();
        server.fault("a.bin", 1, fault);
        let mut client = login(server.port()).await;
        let got = silent_until_released(&server, async move {
            fetch(&mut client, "a.bin", 0).await.unwrap()
        })
        .await;
        assert_eq!((got.bytes, got.complaint), (file, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_without_answer_costs_the_data_connection_and_not_the_session() {
    let (server, file) = serving();
    server.fault("a.bin", 1, Fault::NoHandshake);
    let mut client = login(server.port()).await;
    let (mut client, result) = silent_until_released(&server, async move {
        let result = fetch(&mut client, "a.bin", 0).await;
        (client, result)
    })
    .await;
    assert!(result.is_err());
    assert_eq!(server.connections()[0].data[0].tls, None);
    // suppaftp gave up before the reply to the RETR, and from then on reads the reply before the one it waits for.
    assert!(say(&mut client, "NOOP").await.starts_with("425"));
    assert!(say(&mut client, "NOOP").await.starts_with("200"));
    let mut client = login(server.port()).await;
    assert_eq!(fetch(&mut client, "a.bin", 0).await.unwrap().bytes, file);
    assert_eq!(server.bytes_sent(), file.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_up_on_a_silent_server_ends_the_connection() {
    let (server, _) = serving();
    server.answer_always("AUTH", Answer::SilenceAfter);
    let client = tokio::spawn(login_as(server.port(), trust(), USER, PASSWORD));
    assert!(server.wait_for(SOON, |all| all.iter().any(|one| one.silent)));
    client.abort();
    assert!(client.await.is_err());
    assert!(server.wait_for(SOON, |all| all[0].closed && !all[0].silent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_download_can_be_cut_half_way() {
    let (server, file) = serving();
    server.throttle(Some(100_000));
    let mut client = login(server.port()).await;
    let download = tokio::spawn(async move { fetch(&mut client, "a.bin", 0).await.unwrap() });
    assert!(server.wait_for(SOON, |all| all[0].retrievals.iter().any(|one| one.sent > 0)));
    server.cut();
    let got = download.await.unwrap();
    assert!(got.bytes.len() < file.len() && got.complaint.is_some());
}
