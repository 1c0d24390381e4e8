//! The only way the agent writes anything that has to survive: the [`Disk`] trait.
//!
//! Production uses [`RealDisk`]; tests use `SimDisk`, which records every operation with its bytes, so that the disk after a
//! power cut at any moment can be made from the record. Durability is explicit: bytes last after [`DiskFile::sync`], names
//! (create, rename, remove) after [`Disk::sync_dir`]. Nothing else is promised, and the simulated disk takes that at its word.

mod place;
mod real;
mod seam;
pub mod sim;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use place::Place;
pub use real::RealDisk;
pub use seam::Seam;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; made empty when it does not exist.
    Create,
    /// For reading and writing; made, and nothing may have the name yet, not even a link.
    New,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An ordinary file, or a block device.
    File,
    /// A directory.
    Dir,
    /// A symbolic link, wherever it leads.
    Link,
    /// Anything else: a pipe, a socket.
    Other,
}

/// A place to keep files: directories and block devices.
///
/// Every call blocks; run it through a [`Seam`]. Errors name the place.
pub trait Disk: Debug + Send + Sync {
    /// Opens a file or block device.
    fn open(&self, place: &Place, how: Open) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, replacing what had it. Lasts after `sync_dir` of the directory.
    fn rename(&self, from: &Place, to: &Place) -> io::Result<()>;
    /// Removes a file. Lasts after `sync_dir`. A file that is not there is no error.
    fn remove(&self, place: &Place) -> io::Result<()>;
    /// Makes a directory and those above it. One that is there is no error.
    fn create_dir(&self, place: &Place) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, place: &Place) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn list(&self, place: &Place) -> io::Result<Vec<String>>;
    /// Bytes free for us at this place; `None` where nobody can say.
    fn free_space(&self, place: &Place) -> io::Result<Option<u64>>;

    /// The same storage with this directory as its data directory: no path on it, and no link in it, leads out. What is made there is
    /// readable for everybody, unlike the agent's own files, as far as the process's umask allows. The data directory as a whole and
    /// `/` are refused.
    fn confined(&self, directory: &Place) -> io::Result<Arc<dyn Disk>> {
        Err(unsupported("be confined to", directory))
    }
    /// What a name stands for; `None` where there is none. A link is not followed.
    fn kind(&self, place: &Place) -> io::Result<Option<Kind>> {
        Err(unsupported("tell what is at", place))
    }
    /// Makes a symbolic link with this content, which is relative. Nothing may have the name yet. Lasts after `sync_dir`.
    fn make_link(&self, place: &Place, content: &Path) -> io::Result<()> {
        let _ = content;
        Err(unsupported("make the link", place))
    }
    /// The content of a symbolic link.
    fn read_link(&self, place: &Place) -> io::Result<PathBuf> {
        Err(unsupported("read the link", place))
    }
    /// Removes an empty directory. Lasts after `sync_dir` of the one above. One that is not there is no error.
    fn remove_dir(&self, place: &Place) -> io::Result<()> {
        Err(unsupported("remove the directory", place))
    }

    /// Removes a directory with all that is in it, or whatever else has the name. Links are removed and not followed. Lasts after
    /// `sync_dir` of the directory above. What is not there is no error; after an error a part of it may be gone.
    fn remove_tree(&self, place: &Place) -> io::Result<()> {
        place.check_has_name()?;
        // The directories still to be emptied, innermost last.
        let mut open = vec![place.clone()];
        match self.kind(place)? {
            Some(Kind::Dir) => {}
            Some(_) => return self.remove(place),
            None => return Ok(()),
        }
        while let Some(at) = open.last().cloned() {
            let before = open.len();
            for name in self.list(&at)? {
                let inner = at.join(&name);
                match self.kind(&inner)? {
                    Some(Kind::Dir) => open.push(inner),
                    Some(_) => self.remove(&inner)?,
                    None => {}
                }
            }
            if open.len() == before {
                self.remove_dir(&at)?;
                open.pop();
            }
        }
        Ok(())
    }

    /// Reads a whole file, refusing one that is larger than `limit` bytes.
    fn read(&self, place: &Place, limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open(place, Open::Read)?;
        let len = file.len()?;
        if len > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{place} has {len} bytes, more than the {limit} allowed"),
            ));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Replaces a file's content as a whole: after a power cut it is the old or the new one, never a mixture.
    /// Durable on return.
    fn replace(&self, place: &Place, bytes: &[u8]) -> io::Result<()> {
        let temporary = place.with_suffix(".new");
        let file = self.open(&temporary, Open::Create)?;
        file.set_len(0)?;
        file.write_at(bytes, 0)?;
        file.sync()?;
        self.rename(&temporary, place)?;
        self.sync_dir(&place.parent())
    }
}

/// An open file or block device. Offsets are bytes from its start.
pub trait DiskFile: Debug + Send + Sync {
    /// Current length; for a block device its capacity.
    fn len(&self) -> io::Result<u64>;
    /// True when it holds nothing.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads exactly this many bytes, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all bytes; grows a file where needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or grows (with zeros) a file. A block device refuses anything but a length within its capacity, and does nothing then.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes the content and length durable.
    fn sync(&self) -> io::Result<()>;
    /// Lets everybody who may read the file run it as a program. The simulated disk keeps no permissions.
    fn set_executable(&self) -> io::Result<()> {
        Ok(())
    }
    /// Makes what is read from now on come from the medium and not from the system's memory of it, as far as the system lets us:
    /// for whoever checks that the medium kept what was written. Syncs where it has to. Where there is no such memory it does
    /// nothing.
    fn forget_cached(&self) -> io::Result<()> {
        Ok(())
    }
    /// True for a block device, whose length never changes.
    fn is_device(&self) -> bool;
}

fn unsupported(what: &str, place: &Place) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("this storage cannot {what} {place}"),
    )
}

/// Refuses the content of a link that nobody could follow from another place.
fn check_link(place: &Place, content: &Path) -> io::Result<()> {
    if content.as_os_str().is_empty() || content.has_root() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("cannot make the link {place}: its content must be a relative path"),
        ));
    }
    Ok(())
}

/// Answers a `set_len` on a block device, where nothing is to be done and only the capacity can be missed.
fn fits_device(place: &Place, len: u64, capacity: u64) -> io::Result<()> {
    if len <= capacity {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{place} is a block device of {capacity} bytes and cannot have {len}"),
    ))
}
