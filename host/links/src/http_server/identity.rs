//! Who the listener is to its callers: certificate and key, checked at the start and not at the first call.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};

use super::{Identity, LinkError};

/// TLS 1.2 and 1.3, HTTP/1.1, no client certificates.
pub(super) fn config(identity: &Identity) -> Result<Arc<ServerConfig>, LinkError> {
    let wrong = |text: String| LinkError::Identity(text);
    let chain = CertificateDer::pem_slice_iter(&identity.certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(format!("certificate: not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(wrong(
            "certificate: there is none in it; give the chain in PEM, the server's own first"
                .into(),
        ));
    }
    let key = PrivateKeyDer::from_pem_slice(identity.key.reveal().as_bytes()).map_err(|_| {
        wrong("key: there is no private key in it; give it in PEM, not encrypted".into())
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the provider knows both versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => wrong(
                "key: it is not the key of the first certificate; the server's own must come first"
                    .into(),
            ),
            rustls::Error::InvalidCertificate(problem) => wrong(format!(
                "certificate: the first one cannot be read: {problem:?}"
            )),
            other => wrong(format!("certificate or key: {other}")),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_core::secret::Secret;
    use otahost_lab::tls::{CA_PEM, SERVER_KEY_PEM, SERVER_PEM};

    use super::*;

    fn error(certificate: &str, key: &str) -> String {
        config(&Identity {
            certificate: certificate.into(),
            key: Secret::new(key),
        })
        .unwrap_err()
        .to_string()
    }

    #[test]
    fn the_error_names_what_is_wrong_and_shows_nothing_of_the_key() {
        let garbled = SERVER_KEY_PEM.replace("PRIVATE", "PUBLIC");
        let no_certificate =
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
        for (certificate, key, named) in [
            ("", SERVER_KEY_PEM, "certificate: there is none"),
            (no_certificate.as_str(), SERVER_KEY_PEM, "certificate"),
            (SERVER_PEM, "", "key: there is no private key"),
            (SERVER_PEM, garbled.as_str(), "key: there is no private key"),
            (
                CA_PEM,
                SERVER_KEY_PEM,
                "key: it is not the key of the first",
            ),
        ] {
            let text = error(certificate, key);
            assert!(text.contains(named), "{text}");
            let secret = SERVER_KEY_PEM.lines().nth(1).unwrap();
            assert!(!text.contains(secret), "{text}");
        }
    }
}
