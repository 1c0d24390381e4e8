//! The real vsftpd runs as the lab says, and agrees with the lab's own server on what it is strict about.

#![allow(clippy::unwrap_used, reason = "tests")]

mod ftp_client;

use std::net::Ipv4Addr;

use ftp_client::{
    PASSWORD, SOON, fetch, forgetful, list, login_as, said, sample, say, secured, trust, trust_in,
};
use otahost_lab::ftps::REFUSAL_522;
use otahost_lab::tls::{self, Certificate, Versions};
use otahost_lab::vsftpd::{Vsftpd, VsftpdOptions};
use rustls::version::{TLS12, TLS13};
use suppaftp::tokio::AsyncFtpStream;

const USER: &str = Vsftpd::USER;

#[tokio::test]
async fn it_lists_and_resumes_on_both_tls_versions_with_session_reuse_required() {
    let server = Vsftpd::start(PASSWORD).unwrap();
    let file = sample(500_000);
    server.put("kit/a.bin", &file).unwrap();
    for version in [&TLS12, &TLS13] {
        let config = trust_in(tls::CA_PEM, &[version]);
        let mut client = login_as(server.port(), config, USER, PASSWORD)
            .await
            .unwrap();
        client.cwd("kit").await.unwrap();
        assert!(client.list(None).await.unwrap()[0].ends_with(" a.bin"));
        assert_eq!(client.size("a.bin").await.unwrap(), file.len());
        for offset in [0, 1, 499_999, 250_000] {
            let got = fetch(&mut client, "a.bin", offset).await.unwrap();
            assert_eq!(got.bytes, file[offset..]);
            assert_eq!(got.complaint, None);
        }
        client.quit().await.unwrap();
    }
    let log = server.log();
    assert!(log.contains("TLSv1.2") && log.contains("TLSv1.3"));
    assert!(log.contains("\"REST 250000\""));
}

#[tokio::test]
async fn it_refuses_a_new_session_on_a_data_connection_in_the_words_of_our_own_server() {
    let server = Vsftpd::start(PASSWORD).unwrap();
    server.put("a.bin", b"bytes").unwrap();
    let mut client = login_as(server.port(), forgetful(), USER, PASSWORD)
        .await
        .unwrap();
    let got = fetch(&mut client, "a.bin", 0).await.unwrap();
    // Later versions put a semicolon after "failed", and a hint at the end.
    let complaint = got.complaint.unwrap().replace(';', ":");
    assert!(complaint.starts_with(REFUSAL_522), "{complaint}");
    assert!(got.bytes.is_empty());

    let mut options = VsftpdOptions::new(PASSWORD);
    options.require_reuse = false;
    let server = Vsftpd::start_with(options).unwrap();
    server.put("a.bin", b"bytes").unwrap();
    let mut client = login_as(server.port(), forgetful(), USER, PASSWORD)
        .await
        .unwrap();
    assert_eq!(
        fetch(&mut client, "a.bin", 0).await.unwrap().bytes,
        b"bytes"
    );
}

#[tokio::test]
async fn it_takes_no_user_name_in_the_clear_and_no_wrong_password() {
    let server = Vsftpd::start(PASSWORD).unwrap();
    let mut client = AsyncFtpStream::connect(("127.0.0.1", server.port()))
        .await
        .unwrap();
    assert!(said(&client.login(USER, PASSWORD).await.unwrap_err()).starts_with("530"));
    let error = login_as(server.port(), trust(), USER, "wrong")
        .await
        .err()
        .unwrap();
    assert!(said(&error).starts_with("530"));
    login_as(server.port(), trust(), USER, PASSWORD)
        .await
        .unwrap();
}

#[tokio::test]
async fn it_has_no_mlsd_and_dates_what_is_replaced() {
    let server = Vsftpd::start(PASSWORD).unwrap();
    server.put("a.bin", b"old").unwrap();
    let mut client = login_as(server.port(), trust(), USER, PASSWORD)
        .await
        .unwrap();
    let error = list(&mut client, "MLSD").await.unwrap_err();
    assert!(said(&error).starts_with("500"));
    let old = say(&mut client, "MDTM a.bin").await;
    server.put("a.bin", b"new").unwrap();
    let new = say(&mut client, "MDTM a.bin").await;
    assert!(old.starts_with("213 2024") && new.starts_with("213 2024"));
    assert_ne!(old, new);
}

#[tokio::test]
async fn its_options_reach_it() {
    let server = Vsftpd::start_with(VsftpdOptions {
        certificate: Certificate::SelfSigned,
        versions: Versions::Only12,
        pasv_address: Some(Ipv4Addr::new(10, 0, 0, 5)),
        passive_ports: Some((20_000, 20_099)),
        ..VsftpdOptions::new(PASSWORD)
    })
    .unwrap();
    assert!(secured(server.port(), trust()).await.is_err());
    let only13 = trust_in(tls::SELF_SIGNED_PEM, &[&TLS13]);
    assert!(secured(server.port(), only13).await.is_err());
    let config = trust_in(tls::SELF_SIGNED_PEM, &[&TLS13, &TLS12]);
    let mut client = login_as(server.port(), config, USER, PASSWORD)
        .await
        .unwrap();
    let reply = say(&mut client, "PASV").await;
    // 20,000 to 20,099 begin with 78.
    assert!(reply.contains("(10,0,0,5,78,"), "{reply}");

    let server = Vsftpd::start_with(VsftpdOptions {
        versions: Versions::Only13,
        ..VsftpdOptions::new(PASSWORD)
    })
    .unwrap();
    assert!(
        secured(server.port(), trust_in(tls::CA_PEM, &[&TLS12]))
            .await
            .is_err()
    );
    secured(server.port(), trust()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_breaks_a_download_and_a_restart_serves_the_rest() {
    let mut server = Vsftpd::start_with(VsftpdOptions {
        rate: Some(200_000),
        ..VsftpdOptions::new(PASSWORD)
    })
    .unwrap();
    let file = sample(1_000_000);
    server.put("a.bin", &file).unwrap();
    let config = trust();
    let mut client = login_as(server.port(), config.clone(), USER, PASSWORD)
        .await
        .unwrap();
    let download = tokio::spawn(async move { fetch(&mut client, "a.bin", 0).await.unwrap() });
    assert!(server.wait_for_log(SOON, |log| log.contains("150 Opening")));
    server.kill();
    let got = download.await.unwrap();
    assert!(got.bytes.len() < file.len() && got.complaint.is_some());
    server.restart().unwrap();
    let mut client = login_as(server.port(), config, USER, PASSWORD)
        .await
        .unwrap();
    let rest = fetch(&mut client, "a.bin", 900_000).await.unwrap();
    assert_eq!(rest.bytes, file[900_000..]);
}
