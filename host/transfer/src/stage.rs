//! Where bytes go.

use std::fmt::Debug;

/// Why the stage did not do what it was told. The text names what failed and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// The medium is full.
    #[error("{0}")]
    NoSpace(String),
    /// Reading, writing or syncing failed.
    #[error("{0}")]
    Failed(String),
}

/// A seekable area that takes the payload of an artifact. Offsets count payload bytes.
///
/// The calls block and come from several threads: a sync may run beside a write.
pub trait Stage: Debug + Send + Sync {
    /// Most payload bytes it can take; `None` where nobody can say.
    fn capacity(&self) -> Option<u64>;
    /// Writes payload bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StageError>;
    /// Reads payload bytes back. May fail where nothing was written.
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> Result<(), StageError>;
    /// Makes all writes that returned before this call durable.
    fn sync(&self) -> Result<(), StageError>;
}
