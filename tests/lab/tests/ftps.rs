//! The lab's FTPS server is as strict as it says: order of commands, TLS, session reuse, files and listings.

#![allow(clippy::unwrap_used, reason = "tests")]

mod ftp_client;

use std::net::Ipv4Addr;

use ftp_client::{
    PASSWORD, SOON, USER, fetch, forgetful, list, login, login_as, said, sample, say, secured,
    trust, trust_in,
};
use otahost_lab::ftps::{Answer, Ftps, FtpsOptions, REFUSAL_425, REFUSAL_450, REFUSAL_522, Reuse};
use otahost_lab::tls::{self, Certificate, Versions};
use rustls::version::{TLS12, TLS13};
use suppaftp::Mode;
use suppaftp::tokio::AsyncFtpStream;
use suppaftp::types::FileType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn with(change: impl FnOnce(&mut FtpsOptions)) -> Ftps {
    let mut options = FtpsOptions::new(USER, PASSWORD);
    change(&mut options);
    Ftps::start_with(options)
}

/// K07, seen from the server.
#[tokio::test]
async fn every_command_of_a_download_is_recorded_in_order() {
    let server = Ftps::start(USER, PASSWORD);
    let file = sample(100_000);
    server.put("kit/a.bin", file.clone());
    let mut client = login(server.port()).await;
    assert_eq!(client.size("kit/a.bin").await.unwrap(), file.len());
    let got = fetch(&mut client, "kit/a.bin", 70_001).await.unwrap();
    assert_eq!(got.bytes, file[70_001..]);
    assert!(got.ended_well);
    assert_eq!(got.complaint, None);
    client.quit().await.unwrap();
    assert!(server.wait_for(SOON, |all| all[0].closed));
    let connection = server.connections().remove(0);
    assert_eq!(
        connection.sequence(),
        [
            "AUTH TLS",
            "(TLS)",
            "PBSZ 0",
            "PROT P",
            &format!("USER {USER}"),
            "PASS ***",
            "TYPE I",
            "SIZE kit/a.bin",
            "EPSV",
            "REST 70001",
            "RETR kit/a.bin",
            "QUIT"
        ]
    );
    assert!(connection.logged_in && !connection.user_before_tls);
    assert_eq!(connection.commands[9].replies, [150, 226]);
    let retrieval = &connection.retrievals[0];
    assert_eq!((retrieval.offset, retrieval.sent), (70_001, 29_999));
    assert_eq!(
        (retrieval.path.as_str(), retrieval.reply),
        ("/kit/a.bin", 226)
    );
    assert_eq!(server.bytes_sent(), 29_999);
}

/// K07: what must never happen is seen when it does.
#[tokio::test]
async fn a_user_name_in_the_clear_is_refused_and_recorded() {
    let server = Ftps::start(USER, PASSWORD);
    let mut client = AsyncFtpStream::connect(("127.0.0.1", server.port()))
        .await
        .unwrap();
    let error = client.login(USER, PASSWORD).await.unwrap_err();
    assert!(said(&error).starts_with("530"));
    let connection = &server.connections()[0];
    assert!(connection.user_before_tls && !connection.logged_in);
    assert_eq!(connection.sequence(), [format!("USER {USER}")]);
}

/// K08, seen from the server.
#[tokio::test]
async fn a_server_without_tls_hears_no_user_name() {
    let server = Ftps::start(USER, PASSWORD);
    server.answer_always("AUTH", Answer::Refuse("500 Unknown command.".into()));
    let error = login_as(server.port(), trust(), USER, PASSWORD)
        .await
        .err()
        .unwrap();
    assert!(said(&error).starts_with("500"));
    assert_eq!(server.connections()[0].sequence(), ["AUTH TLS"]);
}

#[tokio::test]
async fn words_said_in_the_clear_behind_auth_are_not_taken_for_secret_ones() {
    let server = Ftps::start(USER, PASSWORD);
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", server.port()))
        .await
        .unwrap();
    stream
        .write_all(b"AUTH TLS\r\nUSER someone\r\n")
        .await
        .unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert!(!String::from_utf8(heard).unwrap().contains("234"));
    assert!(server.wait_for(SOON, |all| all[0].closed));
    assert_eq!(server.connections()[0].verbs(), ["AUTH"]);
}

/// K09, seen from the server.
#[tokio::test]
async fn a_certificate_that_the_client_does_not_trust_gets_no_user_name() {
    let server = with(|options| options.certificate = Certificate::SelfSigned);
    assert!(secured(server.port(), trust()).await.is_err());
    assert!(server.wait_for(SOON, |all| all[0].closed));
    let connection = server.connections().remove(0);
    assert_eq!(connection.verbs(), ["AUTH"]);
    assert!(connection.tls_error.is_some());
    let own = trust_in(tls::SELF_SIGNED_PEM, &[&TLS13, &TLS12]);
    secured(server.port(), own).await.unwrap();
}

#[tokio::test]
async fn only_the_versions_it_was_started_with_are_spoken() {
    for (versions, spoken, other, name) in [
        (Versions::Only12, &TLS12, &TLS13, "TLSv1_2"),
        (Versions::Only13, &TLS13, &TLS12, "TLSv1_3"),
    ] {
        let server = with(|options| options.versions = versions);
        assert!(
            secured(server.port(), trust_in(tls::CA_PEM, &[other]))
                .await
                .is_err()
        );
        secured(server.port(), trust_in(tls::CA_PEM, &[spoken]))
            .await
            .unwrap();
        assert_eq!(server.connections()[1].tls.as_ref().unwrap().version, name);
    }
}

#[tokio::test]
async fn a_data_connection_with_a_new_session_hears_the_refusal_and_a_resumed_one_passes() {
    for line in [REFUSAL_522, REFUSAL_425, REFUSAL_450] {
        let server = with(|options| options.reuse = Reuse::Required(line));
        server.put("a.bin", sample(1000));
        let mut client = login_as(server.port(), forgetful(), USER, PASSWORD)
            .await
            .unwrap();
        let got = fetch(&mut client, "a.bin", 0).await.unwrap();
        assert_eq!(got.complaint.as_deref(), Some(line));
        assert!(got.bytes.is_empty());
        assert!(list(&mut client, "MLSD").await.unwrap().complaint.is_some());
        assert!(server.connections()[0].data.iter().all(|data| data.refused));
        for version in [&TLS12, &TLS13] {
            let config = trust_in(tls::CA_PEM, &[version]);
            let mut client = login_as(server.port(), config, USER, PASSWORD)
                .await
                .unwrap();
            // More transfers than a login has tickets.
            for _ in 0..5 {
                let got = fetch(&mut client, "a.bin", 0).await.unwrap();
                assert_eq!((got.bytes.len(), got.complaint), (1000, None));
            }
        }
        let data = &server.connections()[2].data;
        assert_eq!(data.len(), 5);
        assert!(
            data.iter()
                .all(|data| data.tls.as_ref().unwrap().resumed && !data.refused)
        );
    }
}

#[tokio::test]
async fn a_server_that_accepts_no_tls_1_3_session_is_satisfied_by_a_login_on_1_2() {
    let server = with(|options| options.reuse = Reuse::RequiredAndNeverOnTls13(REFUSAL_522));
    server.put("a.bin", sample(10));
    let mut client = login(server.port()).await;
    let got = fetch(&mut client, "a.bin", 0).await.unwrap();
    assert_eq!(got.complaint.as_deref(), Some(REFUSAL_522));
    let config = trust_in(tls::CA_PEM, &[&TLS12]);
    let mut client = login_as(server.port(), config, USER, PASSWORD)
        .await
        .unwrap();
    assert_eq!(
        fetch(&mut client, "a.bin", 0).await.unwrap().complaint,
        None
    );
}

#[tokio::test]
async fn a_client_that_spent_its_tls_1_3_tickets_is_refused() {
    let server = with(|options| {
        options.reuse = Reuse::Required(REFUSAL_522);
        options.login_tickets = Some(2);
    });
    server.put("a.bin", sample(10));
    let mut client = login(server.port()).await;
    for complaint in [None, None, Some(REFUSAL_522)] {
        let got = fetch(&mut client, "a.bin", 0).await.unwrap();
        assert_eq!(got.complaint.as_deref(), complaint);
    }
    let config = trust_in(tls::CA_PEM, &[&TLS12]);
    let mut client = login_as(server.port(), config, USER, PASSWORD)
        .await
        .unwrap();
    for _ in 0..4 {
        assert_eq!(
            fetch(&mut client, "a.bin", 0).await.unwrap().complaint,
            None
        );
    }
}

#[tokio::test]
async fn protection_comes_before_a_transfer_and_pbsz_before_prot() {
    let server = Ftps::start(USER, PASSWORD);
    server.put("a.bin", sample(10));
    // suppaftp says PBSZ and PROT by itself: here both are answered without being done.
    server.answer("PBSZ", 1, Answer::Refuse("200 Said, not done.".into()));
    server.answer("PROT", 1, Answer::Refuse("200 Said, not done.".into()));
    let mut client = login(server.port()).await;
    let error = fetch(&mut client, "a.bin", 0).await.unwrap_err();
    assert!(said(&error).starts_with("521"));
    assert!(say(&mut client, "PROT P").await.starts_with("503"));
    assert!(say(&mut client, "PBSZ 0").await.starts_with("200"));
    assert!(say(&mut client, "PROT C").await.starts_with("534"));
    assert!(say(&mut client, "PROT P").await.starts_with("200"));
    assert_eq!(
        fetch(&mut client, "a.bin", 0).await.unwrap().bytes.len(),
        10
    );
}

#[tokio::test]
async fn only_the_right_user_with_the_right_password_gets_in() {
    let server = Ftps::start(USER, PASSWORD);
    for (user, password) in [(USER, "wrong"), ("someone", PASSWORD), (USER, "")] {
        let error = login_as(server.port(), trust(), user, password)
            .await
            .err()
            .unwrap();
        assert!(said(&error).starts_with("530"));
    }
    let mut client = secured(server.port(), trust()).await.unwrap();
    assert!(say(&mut client, "PWD").await.starts_with("530"));
    assert!(
        server
            .connections()
            .iter()
            .all(|connection| !connection.logged_in)
    );
}

#[tokio::test]
async fn ascii_mode_knows_no_size_no_rest_and_changes_line_ends() {
    let server = Ftps::start(USER, PASSWORD);
    server.put("a.bin", *b"one\ntwo\r\nthree");
    let mut client = login(server.port()).await;
    client
        .transfer_type(FileType::Ascii(suppaftp::types::FormatControl::Default))
        .await
        .unwrap();
    assert!(say(&mut client, "SIZE a.bin").await.starts_with("550"));
    assert!(say(&mut client, "REST 5").await.starts_with("501"));
    let got = fetch(&mut client, "a.bin", 0).await.unwrap();
    assert_eq!(got.bytes, b"one\r\ntwo\r\nthree");
}

#[tokio::test]
async fn a_command_between_rest_and_retr_costs_the_offset() {
    let server = Ftps::start(USER, PASSWORD);
    let file = sample(100);
    server.put("a.bin", file.clone());
    let mut client = login(server.port()).await;
    assert!(say(&mut client, "REST 60").await.starts_with("350"));
    // The client's own EPSV comes between.
    assert_eq!(fetch(&mut client, "a.bin", 0).await.unwrap().bytes, file);
    assert_eq!(fetch(&mut client, "a.bin", 100).await.unwrap().bytes, b"");
    let error = fetch(&mut client, "a.bin", 101).await.unwrap_err();
    assert!(said(&error).starts_with("554"));
    let offsets: Vec<u64> = server.retrievals().iter().map(|one| one.offset).collect();
    assert_eq!(offsets, [0, 100]);
}

#[tokio::test]
async fn directories_sizes_and_dates_are_as_put_there() {
    let server = Ftps::start(USER, PASSWORD);
    server.put("kit/old/a.bin", sample(3));
    server.put("kit/b.bin", sample(12));
    server.date("kit/b.bin", Some("20250102030405"));
    server.make_directory("kit/empty");
    let mut client = login(server.port()).await;
    client.cwd("kit").await.unwrap();
    assert_eq!(client.pwd().await.unwrap(), "/kit");
    let text = |got: ftp_client::Got| String::from_utf8(got.bytes).unwrap();
    let mlsd = text(list(&mut client, "MLSD").await.unwrap());
    assert!(mlsd.contains("type=file;size=12;modify=20250102030405; b.bin\r\n"));
    assert!(mlsd.contains("type=dir;modify=20240101000000; old\r\n"));
    assert!(mlsd.contains("; empty\r\n") && !mlsd.contains("a.bin"));
    let long = text(list(&mut client, "LIST -a").await.unwrap());
    assert!(long.contains("-rw-r--r--    1 0        0              12 Jan 02  2025 b.bin\r\n"));
    assert!(long.contains("drwxr-xr-x"));
    assert_eq!(
        text(list(&mut client, "NLST /kit/old").await.unwrap()),
        "a.bin\r\n"
    );
    assert!(
        say(&mut client, "MDTM b.bin")
            .await
            .starts_with("213 20250102030405")
    );
    assert!(client.cwd("../elsewhere").await.is_err());
    client.cdup().await.unwrap();
    assert_eq!(client.pwd().await.unwrap(), "/");
}

/// K11, seen from the server.
#[tokio::test]
async fn a_replaced_file_has_another_date_and_undated_ones_have_none() {
    let server = Ftps::start(USER, PASSWORD);
    server.put("a.bin", sample(3));
    let mut client = login(server.port()).await;
    let first = say(&mut client, "MDTM a.bin").await;
    server.put("a.bin", sample(3));
    let second = say(&mut client, "MDTM a.bin").await;
    assert!(first.starts_with("213 2024") && second.starts_with("213 2024"));
    assert_ne!(first, second);
    server.date("a.bin", None);
    assert!(say(&mut client, "MDTM a.bin").await.starts_with("550"));
    let listing = list(&mut client, "MLSD").await.unwrap().bytes;
    assert!(
        String::from_utf8(listing)
            .unwrap()
            .contains("type=file;size=3; a.bin")
    );
    server.remove("a.bin");
    assert!(client.size("a.bin").await.is_err());
}

#[tokio::test]
async fn features_leave_out_what_is_refused_and_a_lister_falls_back() {
    let server = Ftps::start(USER, PASSWORD);
    server.put("a.bin", sample(3));
    let mut client = login(server.port()).await;
    assert!(client.feat().await.unwrap().contains_key("MLST"));
    server.answer_always("MLSD", Answer::Refuse("500 Unknown command.".into()));
    server.answer_always("MDTM", Answer::Refuse("502 Not here.".into()));
    let features = client.feat().await.unwrap();
    assert!(!features.contains_key("MLST") && !features.contains_key("MDTM"));
    assert!(features.contains_key("SIZE"));
    let error = list(&mut client, "MLSD").await.unwrap_err();
    assert!(said(&error).starts_with("500"));
    assert_eq!(client.list(None).await.unwrap().len(), 1);
    server.heal("MLSD");
    assert!(list(&mut client, "MLSD").await.is_ok());
}

#[tokio::test]
async fn hostile_names_reach_the_client_byte_for_byte() {
    let server = Ftps::start(USER, PASSWORD);
    let long = "n".repeat(5000);
    let names: [&[u8]; 7] = [
        b"../x",
        b"a/b",
        b"nul\0",
        b"cr\rlf\nend",
        b"esc\x1b[2J",
        b"\xff\xfe",
        long.as_bytes(),
    ];
    for name in names {
        server.list_name("kit", name, 7);
    }
    server.list_raw("kit", *b"no line at all");
    let mut client = login(server.port()).await;
    for command in ["MLSD kit", "LIST kit", "NLST kit"] {
        let listing = list(&mut client, command).await.unwrap().bytes;
        for name in names {
            let line = [name, b"\r\n"].concat();
            assert!(listing.windows(line.len()).any(|part| part == line));
        }
        assert!(listing.ends_with(b"no line at all"));
    }
}

#[tokio::test]
async fn a_listing_may_be_very_long() {
    let server = Ftps::start(USER, PASSWORD);
    for index in 0..100_000 {
        server.list_name("/", format!("B359_{index}"), index);
    }
    let mut client = login(server.port()).await;
    let listing = list(&mut client, "NLST").await.unwrap().bytes;
    assert_eq!(
        listing.iter().filter(|byte| **byte == b'\n').count(),
        100_000
    );
}

/// K15, seen from the server.
#[tokio::test]
async fn pasv_names_the_address_it_was_told() {
    let server = with(|options| options.pasv_address = Some(Ipv4Addr::new(10, 0, 0, 5)));
    server.put("a.bin", sample(10));
    let mut client = login(server.port()).await;
    assert!(say(&mut client, "PASV").await.contains("(10,0,0,5,"));
    client.set_mode(Mode::Passive);
    client.set_passive_nat_workaround(true);
    assert_eq!(
        fetch(&mut client, "a.bin", 0).await.unwrap().bytes.len(),
        10
    );
    client.set_mode(Mode::ExtendedPassive);
    assert_eq!(
        fetch(&mut client, "a.bin", 0).await.unwrap().bytes.len(),
        10
    );
}

#[tokio::test]
async fn the_end_of_the_server_ends_its_connections_and_frees_its_port() {
    let server = Ftps::start(USER, PASSWORD);
    let port = server.port();
    let mut client = login(port).await;
    drop(server);
    assert!(client.noop().await.is_err());
    assert!(
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
    );
}
