//! A part of the simulated disk as a disk of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SimDisk;
use crate::{Disk, DiskFile, Kind, Open, Place};

/// What [`Disk::confined`] gives: its data directory is a directory of the whole disk, and there is nothing else.
#[derive(Debug)]
pub(super) struct Confined {
    disk: SimDisk,
    base: Place,
}

impl Confined {
    pub(super) fn new(disk: SimDisk, base: Place) -> Self {
        Confined { disk, base }
    }

    /// The place on the whole disk.
    fn at(&self, place: &Place) -> io::Result<Place> {
        let names = place.names()?;
        match place {
            Place::Data(_) => Ok(self.base.join(names.iter().collect::<PathBuf>())),
            Place::Operator(_) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{place} is not in the directory {}", self.base),
            )),
        }
    }

    /// The same for what gets another name or goes, which the directory itself does not.
    fn named(&self, place: &Place) -> io::Result<Place> {
        place.check_has_name()?;
        self.at(place)
    }
}

impl Disk for Confined {
    fn open(&self, place: &Place, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.at(place)?, how)
    }
    fn rename(&self, from: &Place, to: &Place) -> io::Result<()> {
        self.disk.rename(&self.named(from)?, &self.named(to)?)
    }
    fn remove(&self, place: &Place) -> io::Result<()> {
        self.disk.remove(&self.named(place)?)
    }
    fn create_dir(&self, place: &Place) -> io::Result<()> {
        self.disk.create_dir(&self.at(place)?)
    }
    fn sync_dir(&self, place: &Place) -> io::Result<()> {
        self.disk.sync_dir(&self.at(place)?)
    }
    fn list(&self, place: &Place) -> io::Result<Vec<String>> {
        self.disk.list(&self.at(place)?)
    }
    fn free_space(&self, place: &Place) -> io::Result<Option<u64>> {
        self.disk.free_space(&self.at(place)?)
    }
    fn confined(&self, directory: &Place) -> io::Result<Arc<dyn Disk>> {
        self.disk.confined(&self.at(directory)?)
    }
    fn kind(&self, place: &Place) -> io::Result<Option<Kind>> {
        self.disk.kind(&self.at(place)?)
    }
    fn make_link(&self, place: &Place, content: &Path) -> io::Result<()> {
        self.disk.make_link(&self.named(place)?, content)
    }
    fn read_link(&self, place: &Place) -> io::Result<PathBuf> {
        self.disk.read_link(&self.at(place)?)
    }
    fn remove_dir(&self, place: &Place) -> io::Result<()> {
        self.disk.remove_dir(&self.named(place)?)
    }
}
