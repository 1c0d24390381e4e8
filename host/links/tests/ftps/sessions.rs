//! Log-ins and TLS sessions: what strict servers ask for, and what a refusal costs.

use otahost_core::secret::Secret;
use otahost_lab::ftps::{
    Answer, Fault, Ftps, FtpsOptions as LabOptions, REFUSAL_425, REFUSAL_450, REFUSAL_522, Reuse,
};
use otahost_lab::tls::Versions;
use otahost_links::ftps::{FtpsError, FtpsLink, FtpsOptions};

use super::{PASSWORD, USER, content, lab, link, open, options, whole};

fn strict(reuse: Reuse) -> LabOptions {
    LabOptions {
        reuse,
        ..LabOptions::new(USER, PASSWORD)
    }
}

/// Version and log-in of each control connection so far.
fn logins(server: &Ftps) -> Vec<String> {
    let connections = server.connections();
    let sessions = connections.iter().filter_map(|c| c.tls.as_ref());
    sessions.map(|session| session.version.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_connections_resume_the_session_of_their_login() {
    for versions in [Versions::Both, Versions::Only12, Versions::Only13] {
        let server = Ftps::start_with(LabOptions {
            versions,
            ..strict(Reuse::Required(REFUSAL_522))
        });
        server.put("a", content(100_000));
        let link = link(server.port());
        for _ in 0..4 {
            assert_eq!(link.list("").await.unwrap().len(), 1);
            let opened = open(&link, "a", 5, None).await.unwrap();
            assert!(whole(opened).await == content(100_000)[5..]);
        }
        let connections = server.connections();
        assert_eq!(connections.len(), 8, "{versions:?}: one login for each");
        for connection in connections {
            // What an earlier login left is no session of this one.
            assert!(!connection.tls.unwrap().resumed, "{versions:?}");
            assert!(
                connection.data.iter().all(|data| {
                    !data.refused && data.tls.as_ref().is_some_and(|tls| tls.resumed)
                })
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_ticket_of_a_login_is_enough() {
    let server = Ftps::start_with(LabOptions {
        login_tickets: Some(1),
        ..strict(Reuse::Required(REFUSAL_425))
    });
    server.put("a", content(1_000));
    let link = link(server.port());
    for _ in 0..3 {
        assert_eq!(link.list("").await.unwrap().len(), 1);
        assert_eq!(
            whole(open(&link, "a", 0, None).await.unwrap()).await,
            content(1_000)
        );
    }
    assert_eq!(logins(&server), ["TLSv1_3"; 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_session_costs_one_login_and_tls_1_2_is_remembered() {
    for reuse in [
        Reuse::RequiredAndNeverOnTls13(REFUSAL_522),
        Reuse::RequiredAndNeverOnTls13(REFUSAL_425),
        Reuse::RequiredAndNeverOnTls13(REFUSAL_450),
    ] {
        for listing in [false, true] {
            let server = Ftps::start_with(strict(reuse));
            server.put("a", content(100_000));
            let link = link(server.port());
            for _ in 0..2 {
                if listing {
                    assert_eq!(link.list("").await.unwrap().len(), 1);
                } else {
                    let opened = open(&link, "a", 1, None).await.unwrap();
                    assert_eq!(opened.offset, 1);
                    assert!(whole(opened).await == content(100_000)[1..]);
                }
            }
            assert_eq!(
                logins(&server),
                ["TLSv1_3", "TLSv1_2", "TLSv1_2"],
                "{reuse:?}"
            );
        }
    }
}

/// ProFTPD's words name no session; that the session was not resumed is known here.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_names_no_session_is_recognised_by_the_session() {
    let server = Ftps::start_with(LabOptions {
        login_tickets: Some(0),
        ..strict(Reuse::Required(
            "425 Unable to build data connection: Operation not permitted",
        ))
    });
    server.put("a", content(1_000));
    let link = link(server.port());
    assert_eq!(
        whole(open(&link, "a", 0, None).await.unwrap()).await,
        content(1_000)
    );
    assert_eq!(logins(&server), ["TLSv1_3", "TLSv1_2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_always_refused_costs_two_logins_and_is_not_remembered() {
    let server = lab();
    server.put("a", content(1_000));
    let link = link(server.port());
    server.fault("a", 2, Fault::Refuse(REFUSAL_522.into()));
    let error = open(&link, "a", 0, None).await.unwrap_err();
    assert!(matches!(error, FtpsError::Broken(_)), "{error}");
    assert!(error.to_string().contains("session reuse"), "{error}");
    assert_eq!(
        whole(open(&link, "a", 0, None).await.unwrap()).await,
        content(1_000)
    );
    assert_eq!(logins(&server), ["TLSv1_3", "TLSv1_2", "TLSv1_3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_a_server_without_tls_1_2_is_told_in_its_words() {
    let server = Ftps::start_with(LabOptions {
        versions: Versions::Only13,
        ..strict(Reuse::RequiredAndNeverOnTls13(REFUSAL_425))
    });
    server.put("a", content(1_000));
    let error = open(&link(server.port()), "a", 0, None).await.unwrap_err();
    assert!(error.to_string().contains("not resumed"), "{error}");
    assert!(!error.is_final());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_failure_of_a_data_connection_is_no_reason_for_older_tls() {
    for line in [
        "425 Can't open data connection.",
        "426 Aborted.",
        "450 Busy.",
    ] {
        let server = lab();
        server.put("a", content(1_000));
        let link = link(server.port());
        server.fault("a", 1, Fault::Refuse(line.into()));
        let error = open(&link, "a", 0, None).await.unwrap_err();
        assert!(matches!(error, FtpsError::Broken(_)), "{error}");
        assert_eq!(logins(&server), ["TLSv1_3"], "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_final_and_not_repeated() {
    let server = lab();
    let link = FtpsLink::new(FtpsOptions {
        password: Secret::new("another-made-up-password"),
        ..options(server.port())
    })
    .unwrap();
    for _ in 0..3 {
        let error = open(&link, "a", 0, None).await.unwrap_err();
        assert!(matches!(error, FtpsError::Login(_)), "{error}");
        assert!(error.is_final());
        assert!(error.to_string().contains("530"), "{error}");
        let listing = link.list("").await.unwrap_err();
        assert_eq!(listing, error);
    }
    assert_eq!(server.connections().len(), 1);
    assert!(!server.connections()[0].logged_in);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_shows_no_credentials() {
    for (verb, line) in [
        ("USER", format!("530 {USER} is not welcome")),
        (
            "PASS",
            format!("530-{USER}\r\n530 with {PASSWORD} is not welcome"),
        ),
        ("PASS", format!("421 {USER} is here too often")),
        ("TYPE", format!("451 {USER} has no quota")),
        ("RETR", format!("550 /home/{USER}/a")),
        ("CWD", format!("550 /home/{USER}")),
        ("PASV", format!("425 {PASSWORD}")),
    ] {
        let server = lab();
        server.put("a", content(10));
        let link = link(server.port());
        server.answer_always(verb, Answer::Refuse(line.clone()));
        let errors = [
            open(&link, "a", 0, None).await.err(),
            link.list("").await.err(),
        ];
        assert!(errors.iter().any(Option::is_some), "{verb}");
        for error in errors.into_iter().flatten() {
            let shown = format!("{error} {error:?}");
            assert!(
                !shown.contains(USER) && !shown.contains(PASSWORD),
                "{shown}"
            );
            assert!(shown.contains(&line[..3]), "{shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_busy_may_be_asked_again() {
    for verb in ["CONNECT", "USER", "PASS"] {
        let server = lab();
        server.put("a", content(10));
        let link = link(server.port());
        server.answer(verb, 1, Answer::Close("421 Too many users.".into()));
        let error = open(&link, "a", 0, None).await.unwrap_err();
        assert!(
            matches!(error, FtpsError::Unreachable(_)),
            "{verb}: {error}"
        );
        assert_eq!(
            whole(open(&link, "a", 0, None).await.unwrap()).await,
            content(10)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_unreachable() {
    let port = lab().port();
    let error = open(&link(port), "a", 0, None).await.unwrap_err();
    assert!(matches!(error, FtpsError::Unreachable(_)), "{error}");
    assert!(!error.is_final());
    assert!(
        error
            .to_string()
            .starts_with(&format!("ftps://127.0.0.1:{port}: ")),
        "{error}"
    );
}
