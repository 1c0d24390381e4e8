//! The same under TLS, with clients of both versions.

use std::sync::Arc;
use std::time::Duration;

use otahost_core::secret::Secret;
use otahost_lab::tls::{CA_PEM, SERVER_KEY_PEM, SERVER_PEM, STRANGER_CA_PEM};
use otahost_links::http_server::{HttpServerOptions, Identity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Caller, Listener, RIGHT, update, within};

fn with_identity(options: &mut HttpServerOptions) {
    options.tls = Some(Identity {
        certificate: SERVER_PEM.into(),
        key: Secret::new(SERVER_KEY_PEM),
    });
}

async fn connect(
    listener: &Listener,
    ca: &str,
    version: &'static SupportedProtocolVersion,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(listener.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    within(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_no_other_certificate_is_shown() {
    let mut listener = Listener::start(with_identity).await;
    for (version, number) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let stream = connect(&listener, CA_PEM, version).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(number));
        let mut caller = Caller(stream);
        caller.ask(update("", "{}")).await.is_own(401);
        caller.send(update(RIGHT, "sealed")).await;
        let (id, request) = listener.request().await;
        assert_eq!(request.body, b"sealed");
        let body = "x".repeat(256 * 1024);
        listener.respond(id, 200, &[], &body).await;
        assert_eq!(caller.answer().await.body, body);
        assert!(connect(&listener, STRANGER_CA_PEM, version).await.is_err());
    }
}

#[tokio::test]
async fn an_ordinary_client_calls_over_tls() {
    let mut listener = Listener::start(with_identity).await;
    let client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(CA_PEM.as_bytes()).unwrap()])
        .no_proxy()
        .build()
        .unwrap();
    let url = format!(
        "https://localhost:{}/api/updateDevice",
        listener.address.port()
    );
    let call = tokio::spawn(
        client
            .post(&url)
            .basic_auth("centre", Some("open sesame"))
            .body("{}")
            .send(),
    );
    let (id, request) = listener.request().await;
    assert_eq!(request.principal, "centre");
    listener.respond(id, 200, &[], "done").await;
    let answer = within(call).await.unwrap().unwrap();
    assert_eq!(within(answer.text()).await.unwrap(), "done");
}

#[tokio::test]
async fn a_caller_that_speaks_no_tls_is_dropped_and_the_next_served() {
    let listener = Listener::start(with_identity).await;
    let mut plain = listener.call().await;
    plain.send(update(RIGHT, "{}")).await;
    plain.closed().await;
    let stream = connect(&listener, CA_PEM, &rustls::version::TLS13)
        .await
        .unwrap();
    Caller(stream).ask(update("", "{}")).await.is_own(401);
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_ended() {
    let mut listener = Listener::start(|options| {
        with_identity(options);
        options.limits.handshake_within = Duration::from_millis(100);
    })
    .await;
    listener.call().await.closed().await;
    listener.nothing_said();
}
