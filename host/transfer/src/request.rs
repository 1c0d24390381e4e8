//! What an attempt is to achieve, and what it achieved.

use std::time::Duration;

use crate::claims::Claims;
use crate::digest::Digest;
use crate::keys::TrustKeys;

/// Whose artifacts are taken.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Anybody's. A signed header is still recognised and stripped, but nothing in it is proved.
    Unsigned,
    /// Only ones signed with one of these keys, in their header or beside them.
    Minisign(TrustKeys),
}

impl Trust {
    /// True for the word `"unsigned"`.
    pub fn is_unsigned(&self) -> bool {
        matches!(self, Trust::Unsigned)
    }
}

/// What an attempt is to achieve.
#[derive(Debug, Clone)]
pub struct Request {
    /// Size of the whole file in bytes, header included, where the plan says it.
    pub expected_size: Option<u64>,
    /// Digests of the whole file, header included. All of them have to match.
    pub digests: Vec<Digest>,
    /// Whose artifacts are taken.
    pub trust: Trust,
    /// Most bytes the file may have.
    pub max_size: u64,
    /// The version the plan asks for; a signature that names another is refused.
    pub version: Option<String>,
    /// What kind of device the target is; a signature has to name exactly this. `None`: any may come. Not looked at with
    /// [`Trust::Unsigned`], where nothing a file says of itself is proved.
    pub compatible: Option<String>,
    /// A signature has to name at least this rollback index; one that names none has 0. Not looked at with [`Trust::Unsigned`].
    pub min_rollback_index: u64,
    /// Sizes and times; the default is for production.
    pub tuning: Tuning,
}

/// Sizes and times of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes that are written and digested at once. Six blocks are in memory at most.
    pub block: usize,
    /// Bytes between two marks of a checkpoint. The distance doubles when there would be more than 128 of them.
    pub chunk: u64,
    /// Bytes between two syncs. Twice as much may be dirty.
    pub sync_every: u64,
    /// Least time between two checkpoints, the one at the end of an attempt aside.
    pub checkpoint_every: Duration,
    /// Bytes that make the next checkpoint worth its write to the journal...
    pub checkpoint_bytes: u64,
    /// ...and the time after which fewer do.
    pub checkpoint_at_last: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Tuning {
            block: MIB,
            chunk: 4 * MIB as u64,
            sync_every: 4 * MIB as u64,
            checkpoint_every: Duration::from_secs(1),
            checkpoint_bytes: MIB as u64,
            checkpoint_at_last: Duration::from_secs(10),
        }
    }
}

/// An artifact whose every byte was seen, checked and made durable in one pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The image's identity: SHA-256 of the payload, in hex. The same image signed anew is the same image.
    pub payload_sha256: String,
    /// SHA-256 of the whole file in hex; known where the plan named one, and where there is no header.
    pub sha256: Option<String>,
    /// Bytes of the whole file.
    pub size: u64,
    /// Bytes of the payload.
    pub payload_len: u64,
    /// What the signer says of it, in its header or beside it; proved when trust is [`Trust::Minisign`].
    pub claims: Option<Claims>,
    /// Bytes that earlier attempts had brought and this one kept.
    pub resumed_from: u64,
    /// Bytes this attempt fetched.
    pub fetched: u64,
}
