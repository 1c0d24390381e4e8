//! What comes of a file: where its bytes begin, that they are all there, and what is said when they are not.

use otahost_lab::ftps::{Answer, Fault, Ftps, FtpsOptions as LabOptions};
use otahost_lab::tls::{Certificate, STRANGER_CA_PEM};
use otahost_links::ftps::{FtpsError, FtpsLink, FtpsOptions};
use otahost_links::tls::ServerTrust;

use super::{LIMIT, PASSWORD, USER, content, lab, link, open, options, read, whole};

const SIZE: usize = 300_000;

/// A server with `/fw/app.bin`, its content and a link.
fn serving() -> (Ftps, Vec<u8>, FtpsLink) {
    let server = lab();
    let bytes = content(SIZE);
    server.put("fw/app.bin", bytes.clone());
    let link = link(server.port());
    (server, bytes, link)
}

/// K07
#[tokio::test(flavor = "multi_thread")]
async fn k07_commands_go_out_in_the_order_strict_servers_want() {
    let (server, bytes, link) = serving();
    let first = open(&link, "fw/app.bin", 0, None).await.unwrap();
    let validator = first.validator.clone().unwrap();
    assert_eq!((first.offset, first.total), (0, Some(SIZE as u64)));
    assert_eq!(whole(first).await, bytes);
    let second = open(&link, "/fw/app.bin", 1_000, Some(&validator))
        .await
        .unwrap();
    assert_eq!(second.offset, 1_000);
    assert_eq!(whole(second).await, bytes[1_000..]);
    // The farewell comes in the background.
    assert!(server.wait_for(LIMIT, |all| all.iter().all(|c| c.closed)));
    let connections = server.connections();
    assert_eq!(connections.len(), 2);
    assert_eq!(
        connections[1].sequence(),
        [
            "AUTH TLS",
            "(TLS)",
            "PBSZ 0",
            "PROT P",
            &format!("USER {USER}"),
            "PASS ***",
            "TYPE I",
            "SIZE /fw/app.bin",
            "MDTM /fw/app.bin",
            "PASV",
            "REST 1000",
            "RETR /fw/app.bin",
            "QUIT",
        ]
    );
    assert!(!connections.iter().any(|c| c.user_before_tls));
    assert!(!connections[0].verbs().contains(&"REST"));
}

/// K08
#[tokio::test(flavor = "multi_thread")]
async fn k08_a_server_without_tls_hears_no_user_name() {
    for (refusal, is_final) in [
        ("500 Unknown command.", true),
        ("502 Not here.", true),
        ("534 Policy.", true),
        ("421 Too many.", false),
    ] {
        let (server, _, link) = serving();
        server.answer_always("AUTH", Answer::Refuse(refusal.into()));
        let error = open(&link, "fw/app.bin", 0, None).await.unwrap_err();
        assert_eq!(matches!(error, FtpsError::Trust(_)), is_final, "{error}");
        assert_eq!(error.is_final(), is_final, "{error}");
        assert!(link.list("fw").await.is_err());
        for connection in server.connections() {
            assert_eq!(connection.verbs(), ["AUTH"], "{refusal}");
        }
    }
}

/// K08
#[tokio::test(flavor = "multi_thread")]
async fn k08_a_server_that_leaves_data_in_the_clear_hears_no_user_name() {
    for verb in ["PBSZ", "PROT"] {
        let (server, _, link) = serving();
        server.answer_always(verb, Answer::Refuse("536 No.".into()));
        let error = open(&link, "fw/app.bin", 0, None).await.unwrap_err();
        assert!(matches!(error, FtpsError::Trust(_)), "{verb}: {error}");
        assert!(!server.connections()[0].verbs().contains(&"USER"), "{verb}");
    }
}

/// K09
#[tokio::test(flavor = "multi_thread")]
async fn k09_a_certificate_that_is_not_configured_is_refused() {
    let self_signed = Ftps::start_with(LabOptions {
        certificate: Certificate::SelfSigned,
        ..LabOptions::new(USER, PASSWORD)
    });
    let known = lab();
    let stranger = ServerTrust::Ca(STRANGER_CA_PEM.as_bytes().to_vec());
    let other = ServerTrust::Pin([3; 32]);
    let by_default = options(0).trust;
    for (server, trust) in [
        (&self_signed, by_default),
        (&self_signed, other.clone()),
        (&known, stranger),
        (&known, other),
    ] {
        server.put("a", content(10));
        let options = FtpsOptions {
            trust,
            ..options(server.port())
        };
        let link = FtpsLink::new(options).unwrap();
        let error = open(&link, "a", 0, None).await.unwrap_err();
        assert!(matches!(error, FtpsError::Trust(_)), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
        let connection = server.connections().pop().unwrap();
        assert_eq!(connection.verbs(), ["AUTH"]);
    }
}

/// K09
#[tokio::test(flavor = "multi_thread")]
async fn k09_a_pinned_certificate_needs_no_authority() {
    let server = Ftps::start_with(LabOptions {
        certificate: Certificate::SelfSigned,
        ..LabOptions::new(USER, PASSWORD)
    });
    server.put("a", content(10));
    let wrong = FtpsLink::new(FtpsOptions {
        trust: ServerTrust::Pin([3; 32]),
        ..options(server.port())
    });
    // The refusal says what the server shows, so that it can be compared and configured.
    let error = open(&wrong.unwrap(), "a", 0, None)
        .await
        .unwrap_err()
        .to_string();
    let (_, shown) = error.split_once("SHA-256 ").unwrap();
    let pin: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&shown[at * 2..at * 2 + 2], 16).unwrap())
        .collect();
    let right = FtpsLink::new(FtpsOptions {
        trust: ServerTrust::Pin(pin.try_into().unwrap()),
        ..options(server.port())
    })
    .unwrap();
    let opened = open(&right, "a", 0, None).await.unwrap();
    assert_eq!(whole(opened).await, content(10));
}

/// K10
#[tokio::test(flavor = "multi_thread")]
async fn k10_a_cut_download_goes_on_at_exactly_that_byte() {
    let cut = (SIZE * 37 / 100) as u64;
    for fault in [Fault::CutAfter(cut), Fault::DropAfter(cut)] {
        let (server, bytes, link) = serving();
        server.fault("fw/app.bin", 1, fault.clone());
        let mut first = open(&link, "fw/app.bin", 0, None).await.unwrap();
        let (mut got, end) = read(&mut first.body).await;
        assert!(
            matches!(end, Err(FtpsError::Broken(_))),
            "{fault:?}: {end:?}"
        );
        assert_eq!(got.len() as u64, cut);
        // After an error there is nothing more.
        assert_eq!(first.body.next().await, Ok(None));
        let rest = open(&link, "fw/app.bin", cut, first.validator.as_deref())
            .await
            .unwrap();
        assert_eq!((rest.offset, rest.total), (cut, Some(SIZE as u64)));
        assert_eq!(rest.validator, first.validator);
        got.extend(whole(rest).await);
        assert!(got == bytes, "{fault:?}");
        let offsets: Vec<u64> = server.retrievals().iter().map(|r| r.offset).collect();
        assert_eq!(offsets, [0, cut]);
    }
}

/// K11
#[tokio::test(flavor = "multi_thread")]
async fn k11_another_file_of_that_name_starts_at_byte_0() {
    let mut same_size = content(SIZE);
    same_size.reverse();
    for other in [same_size, content(SIZE + 1)] {
        let (server, _, link) = serving();
        let first = open(&link, "fw/app.bin", 0, None).await.unwrap();
        let validator = first.validator.clone();
        drop(first);
        server.put("fw/app.bin", other.clone());
        let second = open(&link, "fw/app.bin", 1_000, validator.as_deref())
            .await
            .unwrap();
        assert_eq!(second.offset, 0);
        assert_ne!(second.validator, validator);
        assert!(whole(second).await == other);
        let connection = server.connections().pop().unwrap();
        assert!(!connection.verbs().contains(&"REST"));
    }
}

/// K11
#[tokio::test(flavor = "multi_thread")]
async fn k11_a_file_that_became_shorter_starts_at_byte_0() {
    let (server, bytes, link) = serving();
    for validator in [None, Some("SIZE 999999 MDTM -")] {
        let from = SIZE as u64 + 1;
        let opened = open(&link, "fw/app.bin", from, validator).await.unwrap();
        assert_eq!(opened.offset, 0);
        assert!(whole(opened).await == bytes);
    }
    assert!(server.retrievals().iter().all(|r| r.offset == 0));
}

/// K11: two files may have one size, so without times nothing vouches for the content; the engine knows and decides by signature.
#[tokio::test(flavor = "multi_thread")]
async fn k11_without_times_a_file_is_resumed_and_nothing_vouches_for_it() {
    for refused in [false, true] {
        let (server, bytes, link) = serving();
        if refused {
            server.answer_always("MDTM", Answer::Refuse("500 Unknown command.".into()));
        } else {
            server.date("fw/app.bin", None);
        }
        let first = open(&link, "fw/app.bin", 0, None).await.unwrap();
        assert_eq!(first.validator, None);
        drop(first);
        let second = open(&link, "fw/app.bin", 7, None).await.unwrap();
        assert_eq!(second.offset, 7);
        assert!(whole(second).await == bytes[7..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_no_size_gives_files_from_byte_0_only() {
    let (server, bytes, link) = serving();
    server.answer_always("SIZE", Answer::Refuse("502 Not here.".into()));
    let opened = open(&link, "fw/app.bin", 1_000, None).await.unwrap();
    assert_eq!((opened.offset, opened.total), (0, None));
    assert_eq!(opened.validator, None);
    assert!(whole(opened).await == bytes);
    // Nobody knows then whether an end without close_notify is the end.
    server.fault("fw/app.bin", 1, Fault::NoCloseNotify);
    let mut opened = open(&link, "fw/app.bin", 0, None).await.unwrap();
    let (_, end) = read(&mut opened.body).await;
    assert!(matches!(end, Err(FtpsError::Broken(_))), "{end:?}");
}

/// K12
#[tokio::test(flavor = "multi_thread")]
async fn k12_where_rest_is_refused_the_file_starts_at_byte_0_and_completes() {
    for refusal in ["502 Not here.", "501 No.", "450 Not now."] {
        let (server, bytes, link) = serving();
        server.answer_always("REST", Answer::Refuse(refusal.into()));
        let opened = open(&link, "fw/app.bin", 1_000, None).await.unwrap();
        assert_eq!(opened.offset, 0);
        assert!(whole(opened).await == bytes);
        assert_eq!(server.connections().len(), 1, "{refusal}");
    }
}

/// K13
#[tokio::test(flavor = "multi_thread")]
async fn k13_a_226_after_too_few_bytes_is_an_interruption() {
    let (server, bytes, link) = serving();
    server.fault("fw/app.bin", 1, Fault::ShortAfter(123_456));
    let mut first = open(&link, "fw/app.bin", 0, None).await.unwrap();
    let (mut got, end) = read(&mut first.body).await;
    let Err(FtpsError::Broken(text)) = end else {
        panic!("{end:?}")
    };
    assert!(
        text.contains("123456 of 300000") && text.contains("226"),
        "{text}"
    );
    let rest = open(
        &link,
        "fw/app.bin",
        got.len() as u64,
        first.validator.as_deref(),
    )
    .await
    .unwrap();
    assert_eq!(rest.offset, 123_456);
    got.extend(whole(rest).await);
    assert!(got == bytes);
}

/// K13: also before the first byte.
#[tokio::test(flavor = "multi_thread")]
async fn k13_a_226_without_a_byte_is_an_interruption() {
    let (server, _, link) = serving();
    server.fault("fw/app.bin", 1, Fault::ShortAfter(0));
    let mut opened = open(&link, "fw/app.bin", 0, None).await.unwrap();
    let (got, end) = read(&mut opened.body).await;
    assert!(got.is_empty());
    assert!(matches!(end, Err(FtpsError::Broken(_))), "{end:?}");
}

/// K14
#[tokio::test(flavor = "multi_thread")]
async fn k14_all_bytes_and_226_are_complete_without_close_notify_and_before_a_421() {
    for fault in [
        Fault::NoCloseNotify,
        Fault::ThenIdle,
        Fault::Final("250 Done.".into()),
    ] {
        let (server, bytes, link) = serving();
        server.fault("fw/app.bin", 1, fault.clone());
        let mut opened = open(&link, "fw/app.bin", 0, None).await.unwrap();
        let (got, end) = read(&mut opened.body).await;
        assert_eq!(end, Ok(()), "{fault:?}");
        assert!(got == bytes, "{fault:?}");
    }
}

/// K14
#[tokio::test(flavor = "multi_thread")]
async fn k14_all_bytes_without_a_226_are_an_interruption_and_the_next_login_finds_them_complete() {
    for line in [
        "426 The data connection broke.",
        "421 Timeout.",
        "451 Local error.",
        "550 Gone.",
    ] {
        let (server, bytes, link) = serving();
        server.fault("fw/app.bin", 1, Fault::Final(line.into()));
        let mut first = open(&link, "fw/app.bin", 0, None).await.unwrap();
        let (got, end) = read(&mut first.body).await;
        assert!(got == bytes, "{line}");
        let error = end.unwrap_err();
        assert!(matches!(error, FtpsError::Broken(_)), "{line}: {error}");
        let next = open(&link, "fw/app.bin", SIZE as u64, first.validator.as_deref())
            .await
            .unwrap();
        assert_eq!((next.offset, next.total), (SIZE as u64, Some(SIZE as u64)));
        assert_eq!(next.validator, first.validator);
        assert!(whole(next).await.is_empty());
        assert_eq!(server.retrievals().len(), 1, "{line}");
    }
}

/// K14: the same size is not enough.
#[tokio::test(flavor = "multi_thread")]
async fn k14_all_bytes_of_another_file_are_fetched_again() {
    let (server, _, link) = serving();
    let first = open(&link, "fw/app.bin", 0, None).await.unwrap();
    let validator = first.validator.clone();
    drop(first);
    let mut other = content(SIZE);
    other.reverse();
    server.put("fw/app.bin", other.clone());
    let next = open(&link, "fw/app.bin", SIZE as u64, validator.as_deref())
        .await
        .unwrap();
    assert_eq!(next.offset, 0);
    assert!(whole(next).await == other);
}

/// K15
#[tokio::test(flavor = "multi_thread")]
async fn k15_data_come_from_the_control_connections_address() {
    let server = Ftps::start_with(LabOptions {
        pasv_address: Some([10, 0, 0, 5].into()),
        ..LabOptions::new(USER, PASSWORD)
    });
    server.put("a", content(1_000));
    let link = link(server.port());
    let opened = open(&link, "a", 0, None).await.unwrap();
    assert_eq!(whole(opened).await, content(1_000));
    assert_eq!(link.list("").await.unwrap().len(), 1);
}

/// K15
#[tokio::test(flavor = "multi_thread")]
async fn k15_a_server_without_pasv_is_asked_for_epsv() {
    let (server, bytes, link) = serving();
    server.answer_always("PASV", Answer::Refuse("502 Not here.".into()));
    let opened = open(&link, "fw/app.bin", 9, None).await.unwrap();
    assert_eq!(opened.offset, 9);
    assert!(whole(opened).await == bytes[9..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_goes_on_after_its_size_is_an_error() {
    let (server, _, link) = serving();
    server.fault("fw/app.bin", 1, Fault::Longer(10));
    let mut opened = open(&link, "fw/app.bin", 0, None).await.unwrap();
    let (got, end) = read(&mut opened.body).await;
    assert!(matches!(end, Err(FtpsError::Broken(_))), "{end:?}");
    assert!(got.len() <= SIZE);
    // So does one that starts at 0 although REST was taken.
    server.fault("fw/app.bin", 1, Fault::IgnoreRest);
    let mut opened = open(&link, "fw/app.bin", 1_000, None).await.unwrap();
    let (_, end) = read(&mut opened.body).await;
    assert!(matches!(end, Err(FtpsError::Broken(_))), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_is_complete_without_a_byte() {
    let (server, _, link) = serving();
    server.put("empty", Vec::new());
    // In a task of its own, as the transfer engine does it.
    let read = tokio::spawn(async move {
        let opened = open(&link, "empty", 0, None).await.unwrap();
        assert_eq!((opened.offset, opened.total), (0, Some(0)));
        whole(opened).await
    });
    assert!(read.await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_missing_and_one_that_is_locked_is_not() {
    let (server, _, link) = serving();
    let error = open(&link, "fw/other.bin", 0, None).await.unwrap_err();
    assert!(matches!(error, FtpsError::Missing(_)), "{error}");
    assert!(error.to_string().contains("/fw/other.bin"), "{error}");
    assert!(error.is_final());
    server.fault("fw/app.bin", 1, Fault::Refuse("450 Busy.".into()));
    let error = open(&link, "fw/app.bin", 0, None).await.unwrap_err();
    assert!(matches!(error, FtpsError::Broken(_)), "{error}");
    assert!(!error.is_final());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_is_there_or_not_and_never_larger_than_asked_for() {
    let (server, _, link) = serving();
    server.put("fw/app.bin.minisig", "untrusted comment: x\n");
    let sidecar = link.small_file("fw/app.bin.minisig", 4_096).await.unwrap();
    assert_eq!(sidecar.as_deref(), Some(&b"untrusted comment: x\n"[..]));
    assert_eq!(link.small_file("fw/app.bin.sha256", 4_096).await, Ok(None));
    let large = link.small_file("fw/app.bin", 4_096).await.unwrap().unwrap();
    assert_eq!(large.len(), 4_097);
    let error = link.small_file("../x", 4_096).await.unwrap_err();
    assert!(matches!(error, FtpsError::Forbidden(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_stays_below_its_directory() {
    let (server, bytes, _) = serving();
    server.put("secret", content(5));
    let link = FtpsLink::new(FtpsOptions {
        directory: "/fw/".into(),
        ..options(server.port())
    })
    .unwrap();
    let opened = open(&link, "/app.bin", 0, None).await.unwrap();
    assert!(whole(opened).await == bytes);
    let names: Vec<String> = link
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(names, ["app.bin"]);
    let error = open(&link, "secret", 0, None).await.unwrap_err();
    assert!(matches!(error, FtpsError::Missing(_)), "{error}");
    let before = server.connections().len();
    for path in [
        "../secret",
        "x/../../secret",
        "a\r\nDELE app.bin",
        "..\\secret",
        "",
        "/",
    ] {
        let error = open(&link, path, 0, None).await.unwrap_err();
        assert!(
            matches!(error, FtpsError::Forbidden(_)),
            "{path:?}: {error}"
        );
    }
    for path in ["..", "../", "a/../..", "a\nb"] {
        let error = link.list(path).await.unwrap_err();
        assert!(
            matches!(error, FtpsError::Forbidden(_)),
            "{path:?}: {error}"
        );
    }
    assert_eq!(server.connections().len(), before, "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_farewell_delays_nothing() {
    let (server, bytes, link) = serving();
    server.answer_always("QUIT", Answer::Silence);
    for _ in 0..3 {
        let opened = open(&link, "fw/app.bin", 0, None).await.unwrap();
        assert!(whole(opened).await == bytes);
    }
}
