//! A client that others wrote (suppaftp), to judge the lab's FTPS servers with.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::sync::Arc;
use std::time::Duration;

use otahost_lab::tls;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use suppaftp::tokio::{AsyncRustlsConnector, AsyncRustlsFtpStream};
use suppaftp::types::{FileType, FtpError, FtpResult};
use suppaftp::{Mode, Status};
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsConnector;

/// How long anything may take before a test gives up.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Made up.
pub(crate) const USER: &str = "kit-4711";

/// Made up.
pub(crate) const PASSWORD: &str = "made-up pass wörd";

/// A client's TLS set-up that trusts one authority.
pub(crate) fn trust_in(
    authority: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    Arc::new(config(authority, versions))
}

/// It trusts the lab's authority and speaks both versions.
pub(crate) fn trust() -> Arc<ClientConfig> {
    trust_in(tls::CA_PEM, &[&TLS13, &TLS12])
}

/// It forgets every session at once.
pub(crate) fn forgetful() -> Arc<ClientConfig> {
    let mut config = config(tls::CA_PEM, &[&TLS13, &TLS12]);
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn config(authority: &str, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(authority.as_bytes()).unwrap();
    roots.add(authority).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// A control connection that is secret, and nothing more.
pub(crate) async fn secured(
    port: u16,
    config: Arc<ClientConfig>,
) -> FtpResult<AsyncRustlsFtpStream> {
    let connector = AsyncRustlsConnector::from(TlsConnector::from(config));
    let mut client = AsyncRustlsFtpStream::connect(("127.0.0.1", port))
        .await?
        .into_secure(connector, "localhost")
        .await?;
    client.set_mode(Mode::ExtendedPassive);
    Ok(client)
}

/// Logged in, in binary mode.
pub(crate) async fn login_as(
    port: u16,
    config: Arc<ClientConfig>,
    user: &str,
    password: &str,
) -> FtpResult<AsyncRustlsFtpStream> {
    let mut client = secured(port, config).await?;
    client.login(user, password).await?;
    client.transfer_type(FileType::Binary).await?;
    Ok(client)
}

/// Logged in with the made-up credentials, in binary mode, trusting the lab's authority.
pub(crate) async fn login(port: u16) -> AsyncRustlsFtpStream {
    login_as(port, trust(), USER, PASSWORD).await.unwrap()
}

/// What came of one transfer.
#[derive(Debug)]
pub(crate) struct Got {
    /// The bytes that arrived.
    pub(crate) bytes: Vec<u8>,
    /// The data connection ended with close_notify.
    pub(crate) ended_well: bool,
    /// What the server said at the end, if that was not 226 or 250.
    pub(crate) complaint: Option<String>,
}

/// Fetches a file from an offset on.
pub(crate) async fn fetch(
    client: &mut AsyncRustlsFtpStream,
    path: &str,
    offset: usize,
) -> FtpResult<Got> {
    if offset > 0 {
        client.resume_transfer(offset).await?;
    }
    let stream = client.retr_as_stream(path).await?;
    Ok(read(stream).await)
}

/// The bytes of a listing.
pub(crate) async fn list(client: &mut AsyncRustlsFtpStream, command: &str) -> FtpResult<Got> {
    let (_, stream) = client
        .custom_data_command(command, &[Status::AboutToSend, Status::AlreadyOpen])
        .await?;
    Ok(read(stream).await)
}

async fn read(
    mut stream: suppaftp::tokio::TransferStream<suppaftp::tokio::AsyncRustlsStream>,
) -> Got {
    let mut bytes = Vec::new();
    let ended_well = stream.read_to_end(&mut bytes).await.is_ok();
    let complaint = stream.finish().await.err().map(|error| said(&error));
    Got {
        bytes,
        ended_well,
        complaint,
    }
}

/// What the server said, of an error.
pub(crate) fn said(error: &FtpError) -> String {
    match error {
        FtpError::UnexpectedResponse(response) => response.as_string().unwrap(),
        other => other.to_string(),
    }
}

/// Says a command and hears its reply, whatever it is. Not for transfers.
pub(crate) async fn say(client: &mut AsyncRustlsFtpStream, command: &str) -> String {
    match client.custom_command(command, &[]).await {
        Ok(response) => response.as_string().unwrap(),
        Err(error) => said(&error),
    }
}

/// Bytes that differ at every offset nearby.
pub(crate) fn sample(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}
