//! redb's storage on our disk, inside a file that is preallocated.
//!
//! A full disk must not stop the journal, so its file has [`PREALLOCATED`] bytes from the start. redb resizes its file as it likes and
//! wants exactly the length it set, so the length redb believes in is kept in a header page of ours in front of its own bytes.
//! Where its file is larger than the preallocation, ours follows.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use otahost_disk::DiskFile;
use redb::StorageBackend;

use crate::snapshot::{LEFT_OPEN, STATE_BYTE};

/// Bytes the journal's file has at least.
pub(crate) const PREALLOCATED: u64 = 8 << 20;

/// Most bytes of a store that are taken into memory. Every store of rows has a bound, and all together stay far below this.
const MAX_IN_MEMORY: u64 = 512 << 20;

/// Our page in front of redb's bytes, as large as redb's pages so that theirs stay aligned.
const HEADER: u64 = 4096;
const MAGIC: [u8; 8] = *b"otajrnl2";
/// Magic, then length, high-water mark, and both again with all bits turned.
const USED: usize = 40;

/// What redb has set, as far as the header says. Written in one sector, so never torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    /// The length redb believes in.
    len: u64,
    /// Behind this nothing was ever written since the file was grown: zeros, as redb wants what it grows into.
    high_water: u64,
}

impl Header {
    fn encode(self) -> [u8; USED] {
        let mut bytes = [0; USED];
        bytes[..8].copy_from_slice(&MAGIC);
        for (index, number) in [self.len, self.high_water, !self.len, !self.high_water]
            .into_iter()
            .enumerate()
        {
            bytes[8 + index * 8..][..8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; USED], file_len: u64) -> Result<Header, &'static str> {
        if bytes[..8] != MAGIC {
            return Err("it does not begin as a journal does");
        }
        let number = |index: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[8 + index * 8..][..8]);
            u64::from_le_bytes(number)
        };
        let header = Header {
            len: number(0),
            high_water: number(1),
        };
        if header.encode() != *bytes {
            return Err("its header is torn");
        }
        // An empty one would be taken for new and filled with nothing.
        if header.len == 0
            || header.len > header.high_water
            || header
                .high_water
                .checked_add(HEADER)
                .is_none_or(|end| end > file_len)
        {
            return Err("its length is not what its header says");
        }
        Ok(header)
    }
}

/// The journal's file as redb sees it.
#[derive(Debug)]
pub(crate) struct Backend {
    file: Arc<dyn DiskFile>,
    header: Mutex<Header>,
}

/// Why a file is no backend.
#[derive(Debug)]
pub(crate) enum Unusable {
    Io(io::Error),
    Corrupt(&'static str),
}

impl From<io::Error> for Unusable {
    fn from(e: io::Error) -> Self {
        Unusable::Io(e)
    }
}

impl Backend {
    /// In a file whose content is thrown away.
    pub(crate) fn create(file: Arc<dyn DiskFile>) -> io::Result<Backend> {
        let header = Header {
            len: 0,
            high_water: 0,
        };
        file.set_len(0)?;
        file.set_len(PREALLOCATED)?;
        file.write_at(&header.encode(), 0)?;
        Ok(Backend {
            file,
            header: Mutex::new(header),
        })
    }

    /// In a file that was made before.
    pub(crate) fn open(file: Arc<dyn DiskFile>) -> Result<Backend, Unusable> {
        let file_len = file.len()?;
        if file_len < HEADER {
            return Err(Unusable::Corrupt("it is too short"));
        }
        let mut bytes = [0; USED];
        file.read_exact_at(&mut bytes, 0)?;
        let header = Header::decode(&bytes, file_len).map_err(Unusable::Corrupt)?;
        Ok(Backend {
            file,
            header: Mutex::new(header),
        })
    }

    /// True when the store in it was not closed: its process died, or its medium failed.
    pub(crate) fn was_left_open(&self) -> io::Result<bool> {
        if self.header().len <= STATE_BYTE {
            return Ok(false);
        }
        let mut state = [0];
        self.file.read_exact_at(&mut state, HEADER + STATE_BYTE)?;
        Ok(state[0] & LEFT_OPEN != 0)
    }

    /// The store's bytes.
    pub(crate) fn content(&self) -> io::Result<Vec<u8>> {
        read_store(self.file.as_ref(), self.header().len)
    }

    /// The bytes of a store whose header is lost: everything behind it.
    pub(crate) fn content_without_header(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
        read_store(file, file.len()?.saturating_sub(HEADER))
    }

    fn header(&self) -> MutexGuard<'_, Header> {
        self.header.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, offset: u64, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > self.header().len) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{len} bytes at {offset} lie behind the end of the store"),
            ));
        }
        Ok(())
    }

    fn store(&self, header: &mut MutexGuard<'_, Header>, new: Header) -> io::Result<()> {
        self.file.write_at(&new.encode(), 0)?;
        **header = new;
        Ok(())
    }
}

fn read_store(file: &dyn DiskFile, len: u64) -> io::Result<Vec<u8>> {
    if len > MAX_IN_MEMORY {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has {len} bytes, too many to be looked at in memory"),
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, HEADER)?;
    Ok(bytes)
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.header().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check(offset, out.len())?;
        self.file.read_exact_at(out, HEADER + offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut header = self.header();
        let old = *header;
        let file_len = self.file.len()?;
        let wanted = len
            .checked_add(HEADER)
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "the store cannot be that large",
                )
            })?
            .max(PREALLOCATED);
        // The header must never say more than the file has, whatever a power cut leaves of the two changes: the sync between them.
        if wanted > file_len {
            self.file.set_len(wanted)?;
            self.file.sync()?;
        }
        // What redb gave back and takes again has old bytes in it.
        let zeros = vec![0; 64 << 10];
        let mut at = old.len;
        while at < len.min(old.high_water) {
            let piece = (len.min(old.high_water) - at).min(zeros.len() as u64);
            self.file.write_at(&zeros[..piece as usize], HEADER + at)?;
            at += piece;
        }
        let high_water = old.high_water.max(len).min(wanted - HEADER);
        self.store(&mut header, Header { len, high_water })?;
        if wanted < file_len {
            self.file.sync()?;
            self.file.set_len(wanted)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(offset, data.len())?;
        self.file.write_at(data, HEADER + offset)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_disk::sim::{Image, Loss, Replay, SimDisk};
    use otahost_disk::{Disk, Open, Place};

    use super::*;

    fn place() -> Place {
        Place::data("journal")
    }

    fn create(disk: &SimDisk) -> Backend {
        Backend::create(disk.open(&place(), Open::Create).unwrap()).unwrap()
    }

    fn reopen(image: &Image) -> Result<Backend, Unusable> {
        Backend::open(
            SimDisk::from_image(image.clone())
                .open(&place(), Open::Write)
                .unwrap(),
        )
    }

    #[test]
    fn what_is_grown_into_is_zeros_also_where_old_bytes_were() {
        let backend = create(&SimDisk::new());
        backend.set_len(200_000).unwrap();
        backend.write(0, &[7; 200_000]).unwrap();
        backend.set_len(1_000).unwrap();
        backend.set_len(200_000).unwrap();
        let mut bytes = vec![1; 200_000];
        backend.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes[..1_000], &[7; 1_000]);
        assert!(bytes[1_000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_file_keeps_its_preallocation_and_gives_back_what_is_above() {
        let disk = SimDisk::new();
        let backend = create(&disk);
        let len = || disk.open(&place(), Open::Read).unwrap().len().unwrap();
        assert_eq!(len(), PREALLOCATED);
        backend.set_len(20 << 20).unwrap();
        assert_eq!(len(), (20 << 20) + HEADER);
        backend.write((20 << 20) - 1, &[9]).unwrap();
        backend.set_len(4096).unwrap();
        assert_eq!(len(), PREALLOCATED);
        backend.set_len(20 << 20).unwrap();
        let mut last = [1];
        backend.read((20 << 20) - 1, &mut last).unwrap();
        assert_eq!(last, [0]);
    }

    #[test]
    fn nothing_lies_behind_the_length_that_was_set() {
        let backend = create(&SimDisk::new());
        backend.set_len(100).unwrap();
        backend.read(0, &mut [0; 101]).unwrap_err();
        backend.write(100, &[1]).unwrap_err();
        backend.write(u64::MAX, &[1]).unwrap_err();
    }

    #[test]
    fn the_header_never_says_more_than_the_file_has_at_any_cut_of_a_resize() {
        let disk = SimDisk::new();
        let backend = create(&disk);
        backend.set_len(4096).unwrap();
        backend.sync_data().unwrap();
        disk.sync_dir(&Place::data("")).unwrap();
        let from = disk.operations();
        for len in [20 << 20, 4096, 30 << 20, 9 << 20, 8192] {
            backend.set_len(len).unwrap();
        }
        let record = disk.record();
        assert!(record.ops.len() > from + 5);
        let mut walk = Replay::new(&record.start);
        record.ops[..from].iter().for_each(|op| walk.apply(op));
        for cut in from..=record.ops.len() {
            let losses = [Loss::AllDropped, Loss::AllKept]
                .into_iter()
                .chain((0..10).map(Loss::Seeded));
            for loss in losses {
                let reopened = reopen(&walk.image(loss));
                assert!(reopened.is_ok(), "cut {cut}, {loss:?}: {reopened:?}");
            }
            if let Some(op) = record.ops.get(cut) {
                walk.apply(op);
            }
        }
    }

    #[test]
    fn a_header_with_any_byte_changed_is_refused() {
        let disk = SimDisk::new();
        create(&disk).set_len(4096).unwrap();
        let image = disk.image(Loss::AllKept);
        reopen(&image).unwrap();
        let sound = image.read(&place()).unwrap();
        for byte in 0..USED {
            let mut bytes = sound.clone();
            bytes[byte] ^= 0x10;
            let mut broken = Image::new();
            broken.write(&place(), &bytes);
            assert!(
                matches!(reopen(&broken), Err(Unusable::Corrupt(_))),
                "byte {byte}"
            );
        }
    }
}
