//! Trust in a server: one place makes every TLS client configuration, so that no link can be laxer than another.
//!
//! There is no way to trust everybody. A server is trusted because a public authority signed its certificate, because an authority
//! the operator named did, or because it shows exactly the certificate the operator pinned.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs::default_provider, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_platform_verifier::BuilderVerifierExt;

/// Why a server is trusted.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum ServerTrust {
    /// An authority the system trusts signed its certificate, and the name is right.
    #[default]
    System,
    /// One of these authorities (PEM) signed its certificate, and the name is right.
    Ca(Vec<u8>),
    /// Its certificate (DER) has this SHA-256; name, issuer and dates do not matter. The server must still prove that it has the
    /// certificate's key.
    Pin([u8; 32]),
}

impl fmt::Debug for ServerTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerTrust::System => f.write_str("System"),
            ServerTrust::Ca(pem) => write!(f, "Ca({} bytes)", pem.len()),
            ServerTrust::Pin(sha256) => write!(f, "Pin({})", hex(sha256)),
        }
    }
}

/// Versions of TLS to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versions {
    /// 1.3, or 1.2 where the server knows no better.
    #[default]
    Both,
    /// 1.2 only.
    Tls12,
}

/// A client configuration. Connections made from one `Arc` share their sessions, so that later ones can resume.
///
/// # Errors
/// What is wrong with the certificates, and what to do.
pub fn client_config(trust: &ServerTrust, versions: Versions) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(default_provider());
    let versions: &[_] = match versions {
        Versions::Both => &[&rustls::version::TLS13, &rustls::version::TLS12],
        Versions::Tls12 => &[&rustls::version::TLS12],
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .expect("the provider speaks TLS 1.2 and 1.3");
    let builder = match trust {
        ServerTrust::System => builder.with_platform_verifier().map_err(|error| {
            format!(
                "the system's certificates cannot be loaded: {error}; install ca-certificates or name a CA"
            )
        })?,
        ServerTrust::Ca(pem) => builder.with_root_certificates(roots(pem)?),
        ServerTrust::Pin(sha256) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned::new(*sha256, &provider))),
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// The authorities of a CA file.
///
/// # Errors
/// When it is no PEM, holds no certificate, or one that cannot be used.
fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| format!("the CA file is not PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("a certificate of the CA file cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("the CA file holds no certificate; it must be PEM with at least one".into());
    }
    Ok(roots)
}

/// Why the server's certificate was refused, where an error's text says that it was. For layers that keep of an error its text only.
#[must_use]
pub fn certificate_problem(error: &str) -> Option<&str> {
    let (_, problem) = error.split_once("invalid peer certificate: ")?;
    let inner = problem.strip_prefix("Other(OtherError(");
    Some(
        inner
            .and_then(|inner| inner.strip_suffix("))"))
            .unwrap_or(problem),
    )
}

/// Takes one certificate and no other.
#[derive(Debug)]
struct Pinned {
    sha256: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn new(sha256: [u8; 32], provider: &CryptoProvider) -> Self {
        Self {
            sha256,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = digest(&SHA256, end_entity);
        if shown.as_ref() == self.sha256 {
            Ok(ServerCertVerified::assertion())
        } else {
            let other = OtherError(Arc::new(NotPinned(hex(shown.as_ref()))));
            Err(CertificateError::Other(other).into())
        }
    }

    // The pin says whose key it is; these say that the server has it.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Another certificate than the pinned one. Its digest is shown: a certificate is public, and an operator whose server got a new one
/// needs it.
struct NotPinned(String);

// The library shows causes by their `Debug`.
impl fmt::Debug for NotPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NotPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it is not the pinned one; the server shows one with SHA-256 {}",
            self.0
        )
    }
}

impl std::error::Error for NotPinned {}

#[cfg(test)]
mod tests;
