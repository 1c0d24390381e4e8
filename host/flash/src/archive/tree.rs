//! The directory that an archive is unpacked into: every entry is looked at before it is made.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;

use otahost_disk::{Disk, Open, Place};

use super::limits::ArchiveLimits;
use super::{UNPACK, name};
use crate::{FlashError, Work};

/// Bytes written at once.
const PIECE: usize = 64 * 1024;

/// A directory that grows by what an archive holds.
pub(super) struct Tree<'a> {
    disk: &'a dyn Disk,
    root: Place,
    limits: ArchiveLimits,
    /// Bytes of the archive.
    packed: u64,
    /// Bytes of all files so far.
    unpacked: u64,
    /// What is there, by path; true for a directory. The directory itself has the empty path.
    made: BTreeMap<String, bool>,
    work: &'a Work<'a>,
    /// Bytes of the archive that were read, and the share of the work that reading all of them is.
    read: Option<(&'a Cell<u64>, u8)>,
}

fn refused(why: impl Into<String>) -> FlashError {
    FlashError::Refused(format!("the archive is refused: {}", why.into()))
}

impl<'a> Tree<'a> {
    pub(super) fn new(
        disk: &'a dyn Disk,
        root: Place,
        limits: ArchiveLimits,
        packed: u64,
        work: &'a Work<'a>,
    ) -> Self {
        Tree {
            disk,
            root,
            limits,
            packed,
            unpacked: 0,
            made: BTreeMap::from([(String::new(), true)]),
            work,
            read: None,
        }
    }

    pub(super) fn report_to(&mut self, read: &'a Cell<u64>, share: u8) {
        self.read = Some((read, share));
    }

    pub(super) fn limits(&self) -> &ArchiveLimits {
        &self.limits
    }

    pub(super) fn packed(&self) -> u64 {
        self.packed
    }

    pub(super) fn work(&self) -> &'a Work<'a> {
        self.work
    }

    /// A directory; one that is there already stays.
    pub(super) fn directory(&mut self, raw: &[u8]) -> Result<(), FlashError> {
        self.goes_on()?;
        let names = name::path(raw, &self.limits).map_err(refused)?;
        self.directories(&names)
    }

    /// A file with this content, which has to have exactly `size` bytes.
    pub(super) fn file(
        &mut self,
        raw: &[u8],
        size: u64,
        executable: bool,
        content: &mut dyn Read,
    ) -> Result<(), FlashError> {
        self.goes_on()?;
        let unpacked = self.unpacked.saturating_add(size);
        if let Some(fault) = self.limits.size_fault(self.packed, unpacked) {
            return Err(refused(fault));
        }
        let (path, place) = self.new_name(raw)?;
        let failed = |error| FlashError::medium("cannot unpack", &error);
        let file = self.disk.open(&place, Open::New).map_err(failed)?;
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        loop {
            self.goes_on()?;
            let read = match content.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.unreadable(&error)),
            };
            if at + read as u64 > size {
                return Err(refused(format!(
                    "its entry {path:?} is longer than it says"
                )));
            }
            file.write_at(&piece[..read], at).map_err(failed)?;
            at += read as u64;
        }
        if at < size {
            return Err(refused(format!("it ends in the middle of {path:?}")));
        }
        if executable {
            file.set_executable().map_err(failed)?;
        }
        file.sync().map_err(failed)?;
        self.unpacked = unpacked;
        Ok(())
    }

    /// A symbolic link that stays in the directory.
    pub(super) fn link(&mut self, raw: &[u8], content: &[u8]) -> Result<(), FlashError> {
        self.goes_on()?;
        let names = name::path(raw, &self.limits).map_err(refused)?;
        let above = names.len().saturating_sub(1);
        let content = name::link(content, above).map_err(refused)?;
        let (_, place) = self.new_name(raw)?;
        self.disk
            .make_link(&place, content.as_ref())
            .map_err(|error| FlashError::medium("cannot unpack", &error))
    }

    /// Makes the names of all that was unpacked durable.
    pub(super) fn finish(&mut self) -> Result<(), FlashError> {
        if self.made.len() == 1 {
            return Err(refused("it holds nothing"));
        }
        // Innermost first: what a directory names is there before its own name is.
        for path in self
            .made
            .iter()
            .rev()
            .filter_map(|(path, is_dir)| is_dir.then_some(path))
        {
            self.disk
                .sync_dir(&self.root.join(path))
                .map_err(|error| FlashError::medium("cannot unpack", &error))?;
        }
        Ok(())
    }

    /// What is wrong when the archive cannot be read on.
    pub(super) fn unreadable(&self, error: &std::io::Error) -> FlashError {
        if self.work.progress.is_stopped() {
            return FlashError::Stopped;
        }
        refused(format!("it cannot be read: {error}"))
    }

    pub(super) fn refused(&self, why: impl Into<String>) -> FlashError {
        refused(why)
    }

    /// Stops when told to, and says how far it is.
    fn goes_on(&self) -> Result<(), FlashError> {
        if self.work.progress.is_stopped() {
            return Err(FlashError::Stopped);
        }
        if let Some((read, share)) = self.read
            && self.packed > 0
        {
            let part = u128::from(read.get().min(self.packed)) * u128::from(share);
            let percent = u8::try_from(part / u128::from(self.packed)).unwrap_or(share);
            self.work.progress.at(UNPACK, percent, None);
        }
        Ok(())
    }

    /// Makes the directories above an entry and takes its name, which nothing may have yet.
    fn new_name(&mut self, raw: &[u8]) -> Result<(String, Place), FlashError> {
        let names = name::path(raw, &self.limits).map_err(refused)?;
        let Some((_, above)) = names.split_last() else {
            return Err(refused(
                "an entry of it is the directory itself, and no directory",
            ));
        };
        self.directories(above)?;
        let path = names.join("/");
        if self.made.contains_key(&path) {
            return Err(refused(format!("two of its entries are named {path:?}")));
        }
        self.count(&path, false)?;
        let place = self.root.join(&path);
        Ok((path, place))
    }

    fn directories(&mut self, names: &[String]) -> Result<(), FlashError> {
        let mut path = String::new();
        for name in names {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(name);
            match self.made.get(&path) {
                Some(true) => {}
                Some(false) => {
                    return Err(refused(format!(
                        "its entry {path:?} is a directory and something else too"
                    )));
                }
                None => {
                    self.count(&path, true)?;
                    self.disk
                        .create_dir(&self.root.join(&path))
                        .map_err(|error| FlashError::medium("cannot unpack", &error))?;
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, path: &str, is_dir: bool) -> Result<(), FlashError> {
        if self.made.len() > self.limits.entries as usize {
            return Err(refused(format!(
                "it has more than the {} entries allowed",
                self.limits.entries
            )));
        }
        self.made.insert(path.to_owned(), is_dir);
        Ok(())
    }
}
