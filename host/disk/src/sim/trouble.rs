//! A disk that is in trouble for a while: full, read-only, or failing.

use std::io;

use crate::Place;

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// No file can be made or grow. What is there can be written over.
    Full,
    /// Nothing can be changed, as after the system found an error of the file system.
    ReadOnly,
    /// Every write and sync fails.
    Failing,
    /// Reads fail too.
    Unreadable,
}

/// Which part of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// The data directory.
    Data,
    /// What the operator named: slots, boot selector, staging directories.
    Operator,
    /// All of it.
    Everywhere,
}

impl Where {
    pub(super) fn covers(self, place: &Place) -> bool {
        match (self, place) {
            (Where::Everywhere, _)
            | (Where::Data, Place::Data(_))
            | (Where::Operator, Place::Operator(_)) => true,
            (Where::Data, Place::Operator(_)) | (Where::Operator, Place::Data(_)) => false,
        }
    }
}

/// What somebody is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Read,
    /// Opens for writing.
    Open,
    /// Writes over what is there, renames or removes.
    Change,
    /// Takes more space.
    Grow,
    Sync,
}

impl Trouble {
    pub(super) fn check(self, does: Does) -> io::Result<()> {
        let kind = match (self, does) {
            (Trouble::Full, Does::Grow) => io::ErrorKind::StorageFull,
            (Trouble::ReadOnly, Does::Open | Does::Change | Does::Grow) => {
                io::ErrorKind::ReadOnlyFilesystem
            }
            (Trouble::Failing, Does::Change | Does::Grow | Does::Sync)
            | (Trouble::Unreadable, _) => return Err(io::Error::other("input/output error")),
            _ => return Ok(()),
        };
        Err(kind.into())
    }
}
