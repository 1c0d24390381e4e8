//! The real vsftpd with `require_ssl_reuse=YES`, its default.

use otahost_core::secret::Secret;
use otahost_lab::tls::{Certificate, Versions};
use otahost_lab::vsftpd::{Vsftpd, VsftpdOptions};
use otahost_links::ftps::{FtpsError, FtpsLink, FtpsOptions};

use super::{PASSWORD, content, open, options, whole};

const SIZE: usize = 3_000_000;

fn serving(options: VsftpdOptions) -> (Vsftpd, Vec<u8>) {
    let server = Vsftpd::start_with(options).unwrap();
    let bytes = content(SIZE);
    server
        .put("kits/7/B359_1029_B242_D25080802", &bytes)
        .unwrap();
    server
        .put("kits/7/B359_1029_B242_D25080802.minisig", b"signature")
        .unwrap();
    (server, bytes)
}

fn link(server: &Vsftpd) -> FtpsLink {
    FtpsLink::new(FtpsOptions {
        username: Secret::new(Vsftpd::USER),
        directory: "/kits/7".into(),
        ..options(server.port())
    })
    .unwrap()
}

/// Gives up after some bytes, and goes on there in a new login.
async fn in_two_parts(link: &FtpsLink, bytes: &[u8]) {
    let mut first = open(link, "B359_1029_B242_D25080802", 0, None)
        .await
        .unwrap();
    assert_eq!((first.offset, first.total), (0, Some(SIZE as u64)));
    let mut got = Vec::new();
    while got.len() < SIZE * 37 / 100 {
        let piece = first.body.next().await.unwrap().unwrap();
        got.extend_from_slice(&piece);
    }
    let validator = first.validator.clone();
    drop(first);
    let from = got.len() as u64;
    let rest = open(link, "B359_1029_B242_D25080802", from, validator.as_deref())
        .await
        .unwrap();
    assert_eq!((rest.offset, &rest.validator), (from, &validator));
    got.extend(whole(rest).await);
    assert!(got == bytes);
    let done = open(
        link,
        "B359_1029_B242_D25080802",
        SIZE as u64,
        validator.as_deref(),
    )
    .await
    .unwrap();
    assert_eq!(done.offset, SIZE as u64);
    assert!(whole(done).await.is_empty());
}

/// K07, K10, K14: every byte, listing and resume over resumed sessions, on each version of TLS.
#[tokio::test(flavor = "multi_thread")]
async fn k10_vsftpd_gives_listings_and_files_and_resumes() {
    for versions in [Versions::Both, Versions::Only12, Versions::Only13] {
        let (server, bytes) = serving(VsftpdOptions {
            versions,
            ..VsftpdOptions::new(PASSWORD)
        });
        let link = link(&server);
        for _ in 0..2 {
            let mut entries = link.list("").await.unwrap();
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            let entries: Vec<_> = entries.into_iter().map(|e| (e.name, e.size)).collect();
            assert_eq!(
                entries,
                [
                    ("B359_1029_B242_D25080802".into(), Some(SIZE as u64)),
                    ("B359_1029_B242_D25080802.minisig".into(), Some(9))
                ],
                "{versions:?}"
            );
        }
        in_two_parts(&link, &bytes).await;
        let log = server.log();
        // As the log shows replies.
        assert!(log.contains("\"226 "), "{log}");
        assert!(
            !log.contains("\"522 "),
            "{versions:?}: no session was refused: {log}"
        );
    }
}

/// K11
#[tokio::test(flavor = "multi_thread")]
async fn k11_vsftpd_with_another_file_of_that_name_starts_at_byte_0() {
    let (server, mut bytes) = serving(VsftpdOptions::new(PASSWORD));
    let link = link(&server);
    let first = open(&link, "B359_1029_B242_D25080802", 0, None)
        .await
        .unwrap();
    let validator = first.validator.clone();
    drop(first);
    bytes.reverse();
    server
        .put("kits/7/B359_1029_B242_D25080802", &bytes)
        .unwrap();
    let again = open(
        &link,
        "B359_1029_B242_D25080802",
        1_000,
        validator.as_deref(),
    )
    .await
    .unwrap();
    assert_eq!(again.offset, 0);
    assert!(whole(again).await == bytes);
}

/// K15
#[tokio::test(flavor = "multi_thread")]
async fn k15_vsftpd_behind_a_nat_sends_its_data_from_its_own_address() {
    let (server, bytes) = serving(VsftpdOptions {
        pasv_address: Some([10, 0, 0, 5].into()),
        ..VsftpdOptions::new(PASSWORD)
    });
    in_two_parts(&link(&server), &bytes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_of_vsftpd_are_there_or_not() {
    let (server, _) = serving(VsftpdOptions::new(PASSWORD));
    let link = link(&server);
    let name = |ending| format!("B359_1029_B242_D25080802.{ending}");
    let signature = link.small_file(&name("minisig"), 4_096).await.unwrap();
    assert_eq!(signature.as_deref(), Some(&b"signature"[..]));
    assert_eq!(link.small_file(&name("sha256"), 4_096).await, Ok(None));
    let error = link.list("nowhere").await.unwrap_err();
    assert!(matches!(error, FtpsError::Missing(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn vsftpd_refuses_a_wrong_password_once() {
    let (server, _) = serving(VsftpdOptions::new("another-made-up-password"));
    let link = link(&server);
    for _ in 0..2 {
        let error = link.list("").await.unwrap_err();
        assert!(matches!(error, FtpsError::Login(_)), "{error}");
        assert!(!error.to_string().contains(PASSWORD), "{error}");
    }
    assert_eq!(server.log().matches("PASS").count(), 1, "{}", server.log());
}

/// K09
#[tokio::test(flavor = "multi_thread")]
async fn k09_vsftpd_with_a_certificate_that_is_not_configured_hears_no_user_name() {
    let (server, _) = serving(VsftpdOptions {
        certificate: Certificate::SelfSigned,
        ..VsftpdOptions::new(PASSWORD)
    });
    let error = link(&server).list("").await.unwrap_err();
    assert!(matches!(error, FtpsError::Trust(_)), "{error}");
    assert!(!server.log().contains("USER"), "{}", server.log());
}
