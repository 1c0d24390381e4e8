//! What can happen to a disk.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::Place;

/// A file, whatever its name is or was. Numbered in order of appearance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(super) usize);

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// One logged operation: what changed the disk, or made a change last.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// An empty file appeared under this name.
    Create {
        /// Its name.
        place: Place,
        /// Its number from here on.
        file: FileId,
    },
    /// Bytes were written into an open file.
    Write {
        /// The file.
        file: FileId,
        /// From its start.
        offset: u64,
        /// What was written.
        bytes: Arc<[u8]>,
    },
    /// A file was cut or grown.
    SetLen {
        /// The file.
        file: FileId,
        /// Its new length.
        len: u64,
    },
    /// A file's content was asked to last.
    SyncFile {
        /// The file.
        file: FileId,
        /// False where [`super::Controls`] made this a lie.
        durable: bool,
    },
    /// A sync of a file failed: what was not durable is lost, and is read all the same until the power goes.
    SyncLost {
        /// The file.
        file: FileId,
    },
    /// A file or directory got another name.
    Rename {
        /// The old one.
        from: Place,
        /// The new one.
        to: Place,
    },
    /// A name went away.
    Remove {
        /// The name.
        place: Place,
    },
    /// A directory, and those missing above it, appeared.
    CreateDir {
        /// Its name.
        place: Place,
    },
    /// A symbolic link appeared under this name.
    MakeLink {
        /// Its name.
        place: Place,
        /// Where it leads.
        content: PathBuf,
    },
    /// An empty directory went away.
    RemoveDir {
        /// Its name.
        place: Place,
    },
    /// The names in a directory were asked to last.
    SyncDir {
        /// The directory.
        place: Place,
        /// False where [`super::Controls`] made this a lie.
        durable: bool,
    },
    /// Somebody outside the agent, the boot loader for one, put a file there: at once and for good.
    Outside {
        /// Its name.
        place: Place,
        /// Its whole content; for a device what it begins with.
        bytes: Arc<[u8]>,
    },
}

impl fmt::Debug for Op {
    /// In one line and without the bytes, for messages of failed tests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lie = |durable: &bool| if *durable { "" } else { " (ignored)" };
        match self {
            Op::Create { place, file } => write!(f, "create {place} as {file:?}"),
            Op::Write {
                file,
                offset,
                bytes,
            } => write!(f, "write {} bytes at {offset} of {file:?}", bytes.len()),
            Op::SetLen { file, len } => write!(f, "set length of {file:?} to {len}"),
            Op::SyncFile { file, durable } => write!(f, "sync {file:?}{}", lie(durable)),
            Op::SyncLost { file } => write!(f, "sync of {file:?} fails"),
            Op::Rename { from, to } => write!(f, "rename {from} to {to}"),
            Op::Remove { place } => write!(f, "remove {place}"),
            Op::CreateDir { place } => write!(f, "create directory {place}"),
            Op::MakeLink { place, content } => {
                write!(f, "link {place} to {}", content.display())
            }
            Op::RemoveDir { place } => write!(f, "remove directory {place}"),
            Op::SyncDir { place, durable } => write!(f, "sync directory {place}{}", lie(durable)),
            Op::Outside { place, bytes } => {
                write!(f, "outside edit of {place}, {} bytes", bytes.len())
            }
        }
    }
}
