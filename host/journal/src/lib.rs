//! The agent's memory: one file, one table, one way to change it.
//!
//! Everything that has to survive a power cut besides the bytes of artifacts is a row here, and rows change only by
//! [`Journal::commit`], all of a commit or nothing of it. [`Committer`] joins the commits of many steps into few
//! transactions, because a transaction costs a sync and tens of kilobytes of flash wear however small it is.

mod backend;
mod committer;
mod error;
mod journal;
mod json;
mod key;
mod restore;
mod salvage;
mod seal;
mod snapshot;

pub use committer::Committer;
pub use error::JournalError;
pub use journal::{Change, Journal};
pub use json::{from_json, json};
pub use key::Key;
pub use restore::{Damage, Restored};
pub use salvage::{is_salvaging, salvage_child, salvage_in_children};
