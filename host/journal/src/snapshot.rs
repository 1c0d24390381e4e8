//! A journal's file as it was at one moment, in memory: read, repaired and written to without a change of the file.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

/// Where redb says whether it was closed in good order (its format, "god byte").
pub(crate) const STATE_BYTE: u64 = 9;
/// Its bit for a store that was not closed.
pub(crate) const LEFT_OPEN: u8 = 2;

/// The bytes of a store.
#[derive(Debug)]
pub(crate) struct Snapshot {
    bytes: Mutex<Vec<u8>>,
    /// Reads that are still allowed, so that a walk in circles ends.
    reads: AtomicU64,
}

impl Snapshot {
    /// Of these bytes; none make an empty store.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Snapshot {
            bytes: Mutex::new(bytes),
            reads: AtomicU64::new(u64::MAX),
        }
    }

    /// Of a store that may be damaged, for reading only: as if it had been closed in good order.
    pub(crate) fn of_damaged(bytes: &Arc<Vec<u8>>, reads: u64) -> Self {
        let mut bytes = bytes.to_vec();
        if let Some(state) = bytes.get_mut(STATE_BYTE as usize) {
            *state &= !LEFT_OPEN;
        }
        Snapshot {
            bytes: Mutex::new(bytes),
            reads: AtomicU64::new(reads),
        }
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn range(offset: u64, len: usize, end: usize) -> io::Result<std::ops::Range<usize>> {
    let outside = || {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{len} bytes at {offset} lie behind the end of the store"),
        )
    };
    let start = usize::try_from(offset).map_err(|_| outside())?;
    let range = start..start.checked_add(len).ok_or_else(outside)?;
    if range.end > end {
        return Err(outside());
    }
    Ok(range)
}

impl StorageBackend for Snapshot {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let left = self
            .reads
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        if left.is_err() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its pages lead in circles",
            ));
        }
        let bytes = self.bytes();
        let range = range(offset, out.len(), bytes.len())?;
        out.copy_from_slice(&bytes[range]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.bytes().resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes();
        let range = range(offset, data.len(), bytes.len())?;
        bytes[range].copy_from_slice(data);
        Ok(())
    }

    // Nobody else has it: a reader that wants to share it with a writer gets every lock.
    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}
