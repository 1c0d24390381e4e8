//! Where bytes come from.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A future of a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What tells one content from another under the same name: an ETag, or Last-Modified, or size and time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validator(pub String);

/// Why a source gave no (more) bytes. The text names host and path, never a query or credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The server answered with an error status.
    #[error("{text}")]
    Status {
        /// HTTP status.
        status: u16,
        /// Lower-case names; at most 64, 16 KiB.
        headers: Vec<(String, String)>,
        /// The first 4 KiB of the body.
        body: Vec<u8>,
        /// A sentence.
        text: String,
    },
    /// No connection, a connection that broke, or a body that ended early.
    #[error("{0}")]
    Broken(String),
    /// Nothing came for the idle time-out.
    #[error("{0}")]
    Stalled(String),
    /// The operator's grant or the agent's own rules forbid this address. Trying again is of no use.
    #[error("{0}")]
    Forbidden(String),
}

/// One artifact at one place.
pub trait Source: Debug + Send + Sync {
    /// Opens it at `from` bytes. A source that cannot resume, or whose content is another than `validator` says, may start at 0:
    /// look at [`Opened::offset`].
    fn open<'a>(
        &'a self,
        from: u64,
        validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>>;

    /// The minisign signature of the whole file that lies beside it under its name with `.minisig` behind; `None` where there is
    /// none. Asked for at most once in an attempt, when the target trusts only signed files and this one has no header. Not more
    /// than one byte above [`crate::SIDECAR_MAX`] has to be read: so much is refused.
    fn sidecar(&self) -> BoxFuture<'_, Result<Option<String>, SourceError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// An opened source.
#[derive(Debug)]
pub struct Opened {
    /// Offset of the first byte that will come.
    pub offset: u64,
    /// Whole size of the artifact, where the source says it.
    pub total: Option<u64>,
    /// What tells this content from another.
    pub validator: Option<Validator>,
    /// Digests of the whole file that the server publishes with it. Each is checked beside those of the plan; they find damage and
    /// prove nothing about who made the file.
    pub published: Vec<Digest>,
    /// The server does not say that they are digests; they look like it (an ETag of 32 hexadecimal digits). They count where there is
    /// neither a signature nor a digest in the plan.
    pub guessed: bool,
    /// The bytes.
    pub body: Box<dyn Body>,
}

/// Bytes in order.
pub trait Body: Debug + Send {
    /// The next piece, at most 256 KiB; `None` at the end. An end before the announced length is `Broken`.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>>;
}
