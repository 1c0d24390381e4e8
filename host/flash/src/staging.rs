//! One file as staging area, and reading back what is staged.

use std::sync::Arc;

use aws_lc_rs::digest;
use otahost_disk::{Disk, DiskFile, Open, Place};

use crate::{FlashError, Stage, Staged};

/// Bytes that are read back at once.
const BLOCK: u64 = 1024 * 1024;

/// So much of a file system is never staged into: the journal, the adapters and the boot selector may lie on the same one.
const RESERVE: u64 = 4 << 20;

/// Most bytes a file can take: what it has already is there to be written over, whether or not it is resumed.
pub(crate) fn room(free: u64, length: u64) -> u64 {
    free.saturating_sub(RESERVE).saturating_add(length)
}

/// A file or device that takes a payload.
#[derive(Debug)]
pub(crate) struct FileStage {
    /// For messages: `slot b`.
    name: String,
    file: Arc<dyn DiskFile>,
    capacity: Option<u64>,
}

impl FileStage {
    pub(crate) fn new(name: String, file: Arc<dyn DiskFile>, capacity: Option<u64>) -> Self {
        FileStage {
            name,
            file,
            capacity,
        }
    }
}

impl Stage for FileStage {
    fn capacity(&self) -> Option<u64> {
        self.capacity
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), FlashError> {
        self.file
            .write_at(bytes, offset)
            .map_err(|error| FlashError::medium(&format!("cannot write {}", self.name), &error))
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> Result<(), FlashError> {
        self.file
            .read_exact_at(into, offset)
            .map_err(|error| FlashError::medium(&format!("cannot read {} back", self.name), &error))
    }

    fn sync(&self) -> Result<(), FlashError> {
        self.file
            .sync()
            .map_err(|error| FlashError::medium(&format!("cannot sync {}", self.name), &error))
    }
}

/// Reads a staged payload back from the medium and compares it with what was verified.
pub(crate) fn read_back(
    name: &str,
    file: &dyn DiskFile,
    staged: &Staged,
) -> Result<(), FlashError> {
    let found = file
        .len()
        .map_err(|error| FlashError::medium(&format!("cannot measure {name}"), &error))?;
    if found < staged.len || (!file.is_device() && found != staged.len) {
        return Err(FlashError::Corrupt(format!(
            "{name} holds {found} bytes, but {} were staged",
            staged.len
        )));
    }
    // What was just written is still in memory, and memory always agrees with itself.
    file.forget_cached().map_err(|error| {
        FlashError::medium(&format!("cannot have {name} read from its medium"), &error)
    })?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut block = vec![0; staged.len.min(BLOCK) as usize];
    let mut at = 0;
    while at < staged.len {
        let part = &mut block[..(staged.len - at).min(BLOCK) as usize];
        file.read_exact_at(part, at)
            .map_err(|error| FlashError::medium(&format!("cannot read {name} back"), &error))?;
        context.update(part);
        at += part.len() as u64;
    }
    let found: String = context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found.eq_ignore_ascii_case(&staged.sha256) {
        return Ok(());
    }
    Err(FlashError::Corrupt(format!(
        "{name} read back is not what was verified: its SHA-256 is {found}, but was {}; the medium may be failing",
        staged.sha256
    )))
}

/// The staging directory of a flasher without slots: one file for the payload, and whatever the flasher keeps beside it.
#[derive(Debug)]
pub(crate) struct StagingDir {
    disk: Arc<dyn Disk>,
    place: Place,
}

/// Name of the payload's file; also what [`Staged::place`] says.
const PAYLOAD: &str = "artifact";

impl StagingDir {
    pub(crate) fn new(disk: Arc<dyn Disk>, place: Place) -> Self {
        StagingDir { disk, place }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The payload's file, as an operator's program finds it.
    pub(crate) fn payload(&self) -> Place {
        self.place.join(PAYLOAD)
    }

    /// The directory as a disk of its own, made where it is missing.
    pub(crate) fn open(&self) -> Result<Arc<dyn Disk>, FlashError> {
        let open = || {
            if self.disk.kind(&self.place)?.is_none() {
                self.disk.create_dir(&self.place)?;
                self.disk.sync_dir(&self.place.parent())?;
            }
            self.disk.confined(&self.place)
        };
        open().map_err(|error| FlashError::medium("cannot use the staging directory", &error))
    }

    /// The payload's file, ready for writing.
    pub(crate) fn begin(&self) -> Result<FileStage, FlashError> {
        let disk = self.open()?;
        let place = Place::data(PAYLOAD);
        let begin = || {
            let file = disk.open(&place, Open::Create)?;
            disk.sync_dir(&Place::data(""))?;
            let free = disk.free_space(&place)?;
            let length = file.len()?;
            Ok((file, free.map(|free| room(free, length))))
        };
        let (file, capacity) = begin().map_err(|error| {
            FlashError::medium(&format!("cannot stage in {}", self.place), &error)
        })?;
        Ok(FileStage::new(self.payload().to_string(), file, capacity))
    }

    /// Ends staging.
    pub(crate) fn finish(&self, len: u64, sha256: &str) -> Result<Staged, FlashError> {
        let file = self.file(Open::Write)?;
        let name = self.payload();
        let failed =
            |error| FlashError::medium(&format!("cannot finish staging in {name}"), &error);
        let found = file.len().map_err(failed)?;
        if found < len {
            return Err(FlashError::Corrupt(format!(
                "{name} holds {found} bytes, but {len} were written"
            )));
        }
        file.set_len(len).map_err(failed)?;
        file.sync().map_err(failed)?;
        Ok(Staged {
            place: PAYLOAD.to_owned(),
            len,
            sha256: sha256.to_owned(),
        })
    }

    pub(crate) fn verify(&self, staged: &Staged) -> Result<(), FlashError> {
        let file = self.file(Open::Read)?;
        read_back(&self.payload().to_string(), file.as_ref(), staged)
    }

    pub(crate) fn file(&self, how: Open) -> Result<Arc<dyn DiskFile>, FlashError> {
        self.open()?
            .open(&Place::data(PAYLOAD), how)
            .map_err(|error| FlashError::medium("cannot use what is staged", &error))
    }

    /// Gives the payload's space back once it is of no use any more.
    pub(crate) fn discard(&self) -> Result<(), FlashError> {
        let disk = self.open()?;
        disk.remove(&Place::data(PAYLOAD))
            .and_then(|()| disk.sync_dir(&Place::data("")))
            .map_err(|error| FlashError::medium("cannot remove what was staged", &error))
    }
}

/// What a flasher without slots remembers of its target: one small file that is replaced as a whole.
#[derive(Debug)]
pub(crate) struct Memory<'a> {
    dir: &'a StagingDir,
    name: &'static str,
}

/// Most bytes of such a file.
const MAX_MEMORY: u64 = 4096;

impl<'a> Memory<'a> {
    pub(crate) fn new(dir: &'a StagingDir, name: &'static str) -> Self {
        Memory { dir, name }
    }

    /// What it holds; nothing when there is nothing, or nothing that can be read.
    pub(crate) fn read<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>, FlashError> {
        let disk = self.dir.open()?;
        let place = Place::data(self.name);
        let read = || match disk.kind(&place)? {
            None => Ok(None),
            Some(_) => disk.read(&place, MAX_MEMORY).map(Some),
        };
        let bytes: Option<Vec<u8>> = read().map_err(|error: std::io::Error| {
            FlashError::medium("cannot read what became of the target", &error)
        })?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Durable on return.
    pub(crate) fn write<T: serde::Serialize>(&self, value: &T) -> Result<(), FlashError> {
        let bytes =
            serde_json::to_vec(value).expect("what is remembered of a target is plain data");
        self.dir
            .open()?
            .replace(&Place::data(self.name), &bytes)
            .map_err(|error| FlashError::medium("cannot note what became of the target", &error))
    }

    /// Durable on return.
    pub(crate) fn forget(&self) -> Result<(), FlashError> {
        let disk = self.dir.open()?;
        disk.remove(&Place::data(self.name))
            .and_then(|()| disk.sync_dir(&Place::data("")))
            .map_err(|error| FlashError::medium("cannot forget what became of the target", &error))
    }
}
