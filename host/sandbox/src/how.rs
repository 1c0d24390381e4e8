//! An adapter that is ready to run, and where its native code came from.

use std::fmt;

use crate::precompiled::Target;
use crate::sandbox::Adapter;

/// An adapter that is ready to run, and where its native code came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The adapter.
    pub adapter: Adapter,
    /// Where its code came from.
    pub how: How,
    /// Why its code could not be kept for the next start, if so: the adapter runs all the same.
    pub not_kept: Option<String>,
}

/// Where native code came from. `Display` gives the words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// From the cache.
    Cached,
    /// It was compiled just now.
    Compiled {
        /// Why the cache did not serve.
        why: Why,
    },
    /// It was compiled elsewhere and signed.
    Signed {
        /// For what.
        target: Target,
        /// The signer's key, as minisign shows it.
        key: String,
    },
}

/// Why the cache did not serve. `Display` gives the words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// There is no cache.
    NoCache,
    /// This component was never compiled here, or its code had to make room.
    Absent,
    /// There is code of it, made by another release of the engine (named), or with other settings or for another processor.
    OtherEngine(String),
    /// The file is not as it was written. It was replaced.
    Damaged(String),
    /// The file could not be read.
    Unreadable(String),
    /// The engine refused the code. It was replaced.
    Refused(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NoCache => f.write_str("no cache is in use"),
            Why::Absent => f.write_str("the cache has no native code of it"),
            Why::OtherEngine(version) => write!(
                f,
                "its native code in the cache was made by wasmtime {version} with other settings, for another processor, or by another release than this"
            ),
            Why::Damaged(what) => {
                write!(
                    f,
                    "its native code in the cache is damaged ({what}) and is replaced"
                )
            }
            Why::Unreadable(what) => {
                write!(f, "its native code in the cache cannot be read ({what})")
            }
            Why::Refused(what) => {
                write!(
                    f,
                    "the engine refuses its native code in the cache ({what}), which is replaced"
                )
            }
        }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            How::Cached => f.write_str("cached"),
            How::Compiled { why } => write!(f, "compiled: {why}"),
            How::Signed { target, key } => {
                write!(f, "compiled elsewhere for {target}, signed by key {key}")
            }
        }
    }
}
