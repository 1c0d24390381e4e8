//! One artifact over HTTP or HTTPS, without trusting the server's word.
//!
//! A server may answer a resume with the whole file, with other bytes than those asked for, with another file, with a redirect to
//! the router's admin page, or with nothing at all after half of it. Each of these is noticed here and has a name: where the bytes
//! that come begin is checked, an early end is an error, silence ends by a time-out, every hop of a redirect is checked with the
//! operator's grant, its name is resolved once and the connection goes to that checked address. No credentials, no cookies, no
//! proxy from the environment, no compression. Errors show host and path and never the query, which is where signed URLs keep
//! their signature.

mod answer;
mod body;
mod client;
mod document;
pub(crate) mod hop;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use rustls::ClientConfig;
use url::Url;

pub use body::HttpBody;
pub use client::HttpSource;
pub(crate) use client::{USER_AGENT, describe, kept_headers};

/// Largest piece of a body, in bytes.
const MAX_PIECE: usize = 256 * 1024;

/// Largest part of an error's body that is kept, in bytes.
pub(crate) const MAX_ERROR_BODY: usize = 4 * 1024;

/// How far a grant goes for one URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The operator named this host and port: its address may be any, the device itself and its own network included.
    Named,
    /// The URL may be fetched, but only from a public address ([`crate::address::is_public`]).
    PublicOnly,
}

/// Judges the first URL and every hop of a redirect. `Err` is the reason, for the operator; it must not show the query.
pub type Allow = Arc<dyn Fn(&Url) -> Result<Reach, String> + Send + Sync>;

/// How to read one artifact. `Debug` shows no query.
#[derive(Clone)]
pub struct HttpOptions {
    /// Absolute, `http` or `https`, without user name and password.
    pub url: Url,
    /// The operator's grant.
    pub allow: Allow,
    /// Limit for a name look-up, and for TCP and TLS together. Default 10 s.
    pub connect_timeout: Duration,
    /// Longest silence while the answer or its body is awaited. Default 30 s.
    pub idle_timeout: Duration,
    /// Redirects followed. Default 5.
    pub max_redirects: usize,
    /// PEM certificates to trust for `https`; without them the platform's.
    pub ca_pem: Option<Vec<u8>>,
    /// What a link adds to the source of a plain URL.
    pub(crate) on_link: Option<OnLink>,
}

/// An artifact that lies on a link: asked for with its credentials, and with its trust.
#[derive(Clone)]
pub(crate) struct OnLink {
    /// `Authorization` for the hops from the first on, until one leads away from the first URL's origin.
    pub(crate) authorization: Option<HeaderValue>,
    /// Trust in the server of a hop; none for `http`.
    pub(crate) tls: TlsFor,
    /// How much of an error's body is kept, in bytes: the link scrubs before it cuts.
    pub(crate) max_error_body: usize,
}

/// The TLS configuration for a URL; `Err` is the reason why there is none.
pub(crate) type TlsFor = Arc<dyn Fn(&Url) -> Result<Arc<ClientConfig>, String> + Send + Sync>;

impl HttpOptions {
    /// Options with the defaults.
    #[must_use]
    pub fn new(url: Url, allow: Allow) -> Self {
        Self {
            url,
            allow,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            max_redirects: 5,
            ca_pem: None,
            on_link: None,
        }
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("url", &place(&self.url))
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}

/// What of a URL may be shown: scheme, host, port and path.
pub(crate) fn place(url: &Url) -> String {
    if url.cannot_be_a_base() {
        // In a `data:` URL the "path" is the content.
        return format!("{}:", url.scheme());
    }
    let host = url.host_str().unwrap_or("?");
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

/// Why there are no (more) bytes. The text names host and path, never a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The server answered with an error status, or with 200 and an error document (XML with the root `Error`, as object stores
    /// write it) in place of the artifact.
    #[error("{text}")]
    Status {
        /// HTTP status.
        status: u16,
        /// Lower-case names; at most 64, 16 KiB. `Set-Cookie` is left out.
        headers: Vec<(String, String)>,
        /// The first 4 KiB of the body.
        body: Vec<u8>,
        /// A sentence.
        text: String,
    },
    /// No connection, a connection that broke, a body that ended early, or an answer that contradicts itself.
    #[error("{0}")]
    Broken(String),
    /// Nothing came for the idle time-out.
    #[error("{0}")]
    Stalled(String),
    /// The grant or the agent's own rules forbid this address. Trying again is of no use.
    #[error("{0}")]
    Forbidden(String),
}

/// An opened artifact.
#[derive(Debug)]
pub struct HttpOpened {
    /// Offset of the first byte that will come: what was asked for, or 0 when the server starts over.
    pub offset: u64,
    /// Whole size of the artifact in bytes, where the server says it.
    pub total: Option<u64>,
    /// Tells this content from another under the same URL: a strong ETag, else Last-Modified, else a weak ETag.
    pub validator: Option<String>,
    /// MD5 of the whole artifact, where the ETag is one: 32 hex digits, strong, neither of a multipart upload (`-N`) nor encrypted
    /// with a key of KMS or the client's (Amazon S3 API reference, "Object": ETag). Stores that are not S3 may write other things
    /// in the same shape.
    pub md5: Option<[u8; 16]>,
    /// The bytes.
    pub body: HttpBody,
}
