//! Which kind of archive a file is, and reading it piece by piece.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use otahost_disk::DiskFile;

use super::limits::ArchiveLimits;
use super::tree::Tree;
use super::zstd::Zstd;
use super::{tar, zip};
use crate::{FlashError, Progress};

/// Bytes that are looked at to tell the kind.
const HEAD: usize = 512;
/// Bytes read from the medium at once.
const BLOCK: usize = 128 * 1024;

/// Reads a staged file from its start.
#[derive(Debug, Clone)]
pub(super) struct FileReader<'a> {
    file: Arc<dyn DiskFile>,
    len: u64,
    at: u64,
    /// How far reading has got, for whoever shows progress.
    read: &'a Cell<u64>,
}

impl<'a> FileReader<'a> {
    pub(super) fn new(file: Arc<dyn DiskFile>, read: &'a Cell<u64>) -> io::Result<Self> {
        Ok(FileReader {
            len: file.len()?,
            file,
            at: 0,
            read,
        })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The same file, read from another offset.
    pub(super) fn from(&self, at: u64) -> BufReader<FileReader<'a>> {
        BufReader::with_capacity(BLOCK, FileReader { at, ..self.clone() })
    }

    /// So many bytes at an offset.
    pub(super) fn bytes_at(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

impl Read for FileReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.at);
        let take = usize::try_from(left).map_or(into.len(), |left| left.min(into.len()));
        self.file.read_exact_at(&mut into[..take], self.at)?;
        self.at += take as u64;
        self.read.set(self.at);
        Ok(take)
    }
}

/// Unpacked bytes, counted: what nobody keeps, such as the padding of a tar, must not be endless either.
pub(super) struct Metered<'a, R> {
    inner: R,
    limits: ArchiveLimits,
    packed: u64,
    unpacked: u64,
    progress: &'a dyn Progress,
}

/// What a tar may have beside its files.
const BESIDE: u64 = 64 * 1024 * 1024;

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.progress.is_stopped() {
            return Err(io::Error::other("stopped"));
        }
        let read = self.inner.read(into)?;
        self.unpacked += read as u64;
        match self
            .limits
            .size_fault(self.packed, self.unpacked.saturating_sub(BESIDE))
        {
            None => Ok(read),
            Some(fault) => Err(io::Error::other(fault)),
        }
    }
}

/// Unpacks an archive of whatever kind.
pub(super) fn unpack(reader: FileReader<'_>, tree: &mut Tree<'_>) -> Result<(), FlashError> {
    let head = usize::try_from(reader.len()).map_or(HEAD, |len| len.min(HEAD));
    let head = reader
        .bytes_at(0, head)
        .map_err(|error| tree.unreadable(&error))?;
    let bytes = reader.from(0);
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        zip::unpack(&reader, tree)
    } else if head.starts_with(&[0x1f, 0x8b]) {
        tar::unpack(&mut metered(MultiGzDecoder::new(bytes), tree), tree)
    } else if is_zstd(&head) {
        tar::unpack(&mut metered(Zstd::new(bytes), tree), tree)
    } else if head.get(257..262) == Some(b"ustar") {
        tar::unpack(&mut metered(bytes, tree), tree)
    } else {
        Err(tree.refused("it is neither zip nor tar, tar.gz or tar.zst"))
    }
}

fn metered<'a, R: Read>(inner: R, tree: &Tree<'a>) -> Metered<'a, R> {
    Metered {
        inner,
        limits: *tree.limits(),
        packed: tree.packed(),
        unpacked: 0,
        progress: tree.work().progress,
    }
}

/// A frame of Zstandard, or one that decoders skip (RFC 8878, 3.1).
fn is_zstd(head: &[u8]) -> bool {
    match head.first_chunk() {
        Some(magic) => {
            let magic = u32::from_le_bytes(*magic);
            magic == 0xfd2f_b528 || magic & 0xffff_fff0 == 0x184d_2a50
        }
        None => false,
    }
}

/// Reads up to so many bytes; fewer only at the end.
pub(super) fn read_up_to(from: &mut dyn Read, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// True at the end of the input.
pub(super) fn is_empty(from: &mut impl BufRead) -> io::Result<bool> {
    loop {
        match from.fill_buf() {
            Ok(bytes) => return Ok(bytes.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
