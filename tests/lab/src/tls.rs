//! Certificates for servers of the lab. Their keys are in the repository and known to everybody: they prove nothing to anybody and
//! are trusted only where a test says so. Valid for `localhost` and 127.0.0.1 until the year 2125.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

/// The certificate authority to trust, PEM.
pub const CA_PEM: &str = include_str!("../data/tls/ca.pem");

/// Another authority, which signed nothing here, PEM.
pub const STRANGER_CA_PEM: &str = include_str!("../data/tls/stranger-ca.pem");

/// The servers' certificate, PEM.
pub const SERVER_PEM: &str = include_str!("../data/tls/server.pem");

/// Its key, PEM (PKCS #8).
pub const SERVER_KEY_PEM: &str = include_str!("../data/tls/server.key");

/// A certificate that no authority signed: what many devices serve. PEM.
pub const SELF_SIGNED_PEM: &str = include_str!("../data/tls/self-signed.pem");

/// Its key, PEM (PKCS #8).
pub const SELF_SIGNED_KEY_PEM: &str = include_str!("../data/tls/self-signed.key");

/// Certificate and key of a server of the lab.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Certificate {
    /// Signed by the authority of [`CA_PEM`].
    #[default]
    Lab,
    /// [`SELF_SIGNED_PEM`].
    SelfSigned,
}

impl Certificate {
    /// The certificate, PEM.
    #[must_use]
    pub fn pem(self) -> &'static str {
        match self {
            Self::Lab => SERVER_PEM,
            Self::SelfSigned => SELF_SIGNED_PEM,
        }
    }

    /// Its key, PEM (PKCS #8).
    #[must_use]
    pub fn key_pem(self) -> &'static str {
        match self {
            Self::Lab => SERVER_KEY_PEM,
            Self::SelfSigned => SELF_SIGNED_KEY_PEM,
        }
    }
}

/// TLS versions a server of the lab speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// Only 1.2.
    Only12,
    /// Only 1.3.
    Only13,
}

/// The set-up of a server of the lab that asks no certificate of its clients.
///
/// # Panics
/// Never: certificates and keys are in the repository.
#[must_use]
pub fn server_config(certificate: Certificate, versions: Versions) -> ServerConfig {
    let chain = CertificateDer::pem_slice_iter(certificate.pem().as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .expect("the lab's certificate");
    let key =
        PrivateKeyDer::from_pem_slice(certificate.key_pem().as_bytes()).expect("the lab's key");
    let versions: &[&SupportedProtocolVersion] = match versions {
        Versions::Both => &[&TLS13, &TLS12],
        Versions::Only12 => &[&TLS12],
        Versions::Only13 => &[&TLS13],
    };
    ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .expect("the lab's certificate and key fit")
}
