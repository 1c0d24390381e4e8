//! What can go wrong with the journal.

use std::io;
use std::sync::Arc;

use otahost_disk::Place;

/// Why the journal could not be used. Copies are cheap: one failed transaction fails many submissions.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk refused to open, make or read the journal's file.
    #[error("cannot open the journal {place}: {source}")]
    Open {
        /// The journal's file.
        place: Place,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// The file is there and is no sound journal. Nothing was changed.
    #[error("the journal {place} is damaged: {why}")]
    Corrupt {
        /// The journal's file.
        place: Place,
        /// What is wrong with it.
        why: String,
    },
    /// A transaction failed. Whether it is in the journal is unknown until the journal was opened again and loaded.
    #[error(
        "cannot commit to the journal {place}, and whether the change is in it is unknown: {why}"
    )]
    Commit {
        /// The journal's file.
        place: Place,
        /// What the disk or the store said.
        why: String,
    },
    /// A read failed.
    #[error("cannot read the journal {place}: {why}")]
    Read {
        /// The journal's file.
        place: Place,
        /// What the disk or the store said.
        why: String,
    },
    /// An earlier failure closed the journal to further work; it has to be opened again. Nothing of this call happened.
    #[error("the journal {place} takes no more changes until it is opened again, since: {first}")]
    Refused {
        /// The journal's file.
        place: Place,
        /// The first failure.
        first: String,
    },
    /// The committer was closed, or its runtime is going down. Nothing is known about a commit under way.
    #[error("the journal's committer has stopped")]
    Stopped,
    /// A row's key is none that this version writes.
    #[error("the journal has a row whose key {key} means nothing to this version: {why}")]
    Key {
        /// The key's bytes in hexadecimal.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A row's value is not what its key says.
    #[error("the journal's row {key} cannot be understood: {why}")]
    Value {
        /// The row.
        key: String,
        /// What the parser said; never the value itself, which may hold a secret.
        why: String,
    },
}
