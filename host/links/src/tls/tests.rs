#![allow(clippy::unwrap_used, reason = "tests")]
use otahost_lab::tls::{CA_PEM, Certificate, STRANGER_CA_PEM, Versions as Spoken, server_config};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConnection, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};

use super::*;

/// A whole handshake in memory, and a little more, so that tickets arrive. Gives what the client says about it.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &'static str,
) -> Result<(HandshakeKind, ProtocolVersion), Error> {
    let mut client = ClientConnection::new(Arc::clone(client), name.try_into().unwrap())?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
        }
        // What the server thinks of a client that left is not asked here.
        let _ = server.process_new_packets();
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking());
    Ok((
        client.handshake_kind().unwrap(),
        client.protocol_version().unwrap(),
    ))
}

fn server(certificate: Certificate, versions: Spoken) -> Arc<ServerConfig> {
    Arc::new(server_config(certificate, versions))
}

fn der(certificate: Certificate) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()
}

fn pin(certificate: Certificate) -> ServerTrust {
    ServerTrust::Pin(
        digest(&SHA256, &der(certificate))
            .as_ref()
            .try_into()
            .unwrap(),
    )
}

fn ca(pem: &str) -> ServerTrust {
    ServerTrust::Ca(pem.as_bytes().to_vec())
}

#[test]
fn a_server_is_trusted_for_its_authority_or_its_pin_and_for_nothing_else() {
    let good = [
        (ca(CA_PEM), Certificate::Lab, "localhost"),
        (ca(CA_PEM), Certificate::Lab, "127.0.0.1"),
        (
            ca(&format!("{STRANGER_CA_PEM}{CA_PEM}")),
            Certificate::Lab,
            "localhost",
        ),
        (pin(Certificate::Lab), Certificate::Lab, "localhost"),
        // The name does not matter, nor who signed it.
        (pin(Certificate::Lab), Certificate::Lab, "files.invalid"),
        (
            pin(Certificate::SelfSigned),
            Certificate::SelfSigned,
            "files.invalid",
        ),
    ];
    let bad = [
        (ca(CA_PEM), Certificate::Lab, "files.invalid"),
        (ca(CA_PEM), Certificate::SelfSigned, "localhost"),
        (ca(STRANGER_CA_PEM), Certificate::Lab, "localhost"),
        (pin(Certificate::SelfSigned), Certificate::Lab, "localhost"),
        (pin(Certificate::Lab), Certificate::SelfSigned, "localhost"),
        (ServerTrust::Pin([0; 32]), Certificate::Lab, "localhost"),
    ];
    for spoken in [Spoken::Both, Spoken::Only12, Spoken::Only13] {
        for (trust, certificate, name) in &good {
            let client = client_config(trust, Versions::Both).unwrap();
            let result = handshake(&client, &server(*certificate, spoken), name);
            assert!(
                result.is_ok(),
                "{trust:?} {certificate:?} {name}: {result:?}"
            );
        }
        for (trust, certificate, name) in &bad {
            let client = client_config(trust, Versions::Both).unwrap();
            let result = handshake(&client, &server(*certificate, spoken), name);
            assert!(
                matches!(result, Err(Error::InvalidCertificate(_))),
                "{trust:?} {certificate:?} {name}: {result:?}"
            );
        }
    }
}

#[test]
fn the_system_does_not_trust_the_labs_certificates() {
    // A machine without any certificates says so; one that has some trusts none of ours.
    match client_config(&ServerTrust::System, Versions::Both) {
        Ok(client) => {
            let server = server(Certificate::Lab, Spoken::Both);
            assert!(handshake(&client, &server, "localhost").is_err());
        }
        Err(text) => assert!(text.contains("ca-certificates"), "{text}"),
    }
}

/// Shows one certificate and signs with the key of another.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesServerCert for Impostor {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[test]
fn a_pinned_certificate_is_worth_nothing_without_its_key() {
    let key = PrivateKeyDer::from_pem_slice(Certificate::SelfSigned.key_pem().as_bytes()).unwrap();
    let mixed = CertifiedKey::new(
        vec![der(Certificate::Lab)],
        any_supported_type(&key).unwrap(),
    );
    for versions in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[versions])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Impostor(Arc::new(mixed.clone()))));
        let client = client_config(&pin(Certificate::Lab), Versions::Both).unwrap();
        let result = handshake(&client, &Arc::new(server), "localhost");
        assert!(result.is_err(), "{versions:?} {result:?}");
    }
}

#[test]
fn connections_of_one_configuration_resume_and_those_of_two_do_not() {
    for (versions, spoken) in [
        (Versions::Both, ProtocolVersion::TLSv1_3),
        (Versions::Tls12, ProtocolVersion::TLSv1_2),
    ] {
        let server = server(Certificate::Lab, Spoken::Both);
        for trust in [ca(CA_PEM), pin(Certificate::Lab)] {
            let client = client_config(&trust, versions).unwrap();
            let first = handshake(&client, &server, "localhost").unwrap();
            let second = handshake(&client, &server, "localhost").unwrap();
            let other = client_config(&trust, versions).unwrap();
            let third = handshake(&other, &server, "localhost").unwrap();
            assert_eq!(first, (HandshakeKind::Full, spoken));
            assert_eq!(second, (HandshakeKind::Resumed, spoken));
            assert_eq!(third, (HandshakeKind::Full, spoken));
        }
    }
}

#[test]
fn a_ca_file_that_cannot_be_used_is_refused_with_a_reason() {
    for (pem, expected) in [
        ("", "no certificate"),
        ("junk", "no certificate"),
        (
            "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
            "PEM",
        ),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot be used",
        ),
    ] {
        let error = client_config(&ca(pem), Versions::Both).unwrap_err();
        assert!(error.contains(expected), "{pem:?}: {error}");
    }
}

#[test]
fn a_refused_certificate_is_told_from_other_errors_by_the_text() {
    let server = server(Certificate::Lab, Spoken::Both);
    let refused = |trust: &ServerTrust, name| {
        let client = client_config(trust, Versions::Both).unwrap();
        handshake(&client, &server, name).unwrap_err().to_string()
    };
    let text = refused(&ServerTrust::Pin([0; 32]), "localhost");
    let ServerTrust::Pin(shown) = pin(Certificate::Lab) else {
        unreachable!("a pin")
    };
    assert_eq!(
        certificate_problem(&text),
        Some(&*format!(
            "it is not the pinned one; the server shows one with SHA-256 {}",
            hex(&shown)
        )),
    );
    let text = refused(&ca(STRANGER_CA_PEM), "localhost");
    assert!(certificate_problem(&text).is_some(), "{text}");
    let text = refused(&ca(CA_PEM), "files.invalid");
    assert!(
        certificate_problem(&text)
            .unwrap()
            .contains("files.invalid"),
        "{text}"
    );
    assert_eq!(
        certificate_problem("received fatal alert: HandshakeFailure"),
        None
    );
}

#[test]
fn trust_shows_what_it_is_and_not_all_of_it() {
    assert_eq!(
        format!("{:?}", ca(CA_PEM)),
        format!("Ca({} bytes)", CA_PEM.len())
    );
    assert_eq!(
        format!("{:?}", ServerTrust::Pin([7; 32])),
        format!("Pin({})", "07".repeat(32))
    );
}
