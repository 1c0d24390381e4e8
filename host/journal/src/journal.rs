//! The store itself: opened, read, and changed by whole commits.

use std::io;
use std::sync::{Arc, OnceLock};

use otahost_disk::{Disk, Open, Place};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
};

use crate::backend::{Backend, Unusable};
use crate::seal::{seal, unseal};
use crate::{JournalError, Key};

/// A device keeps its working set of rows in memory anyway.
const CACHE_BYTES: usize = 1 << 20;

pub(crate) const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> =
    TableDefinition::new("rows");

/// An encoded key and its sealed value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a row, replacing what it was. The store rounds a large value up to a power of two: 60,000 bytes cost 64 KiB,
    /// 70,000 cost 128.
    Put(Key, Vec<u8>),
    /// Takes a row away; one that is not there is no error.
    Delete(Key),
}

impl Change {
    /// About how many bytes it adds to a transaction.
    pub(crate) fn size(&self) -> usize {
        match self {
            Change::Put(_, value) => 64 + value.len(),
            Change::Delete(_) => 64,
        }
    }
}

/// The open journal. Every call blocks.
///
/// Nothing keeps the same file from being opened twice at once but the lock on the data directory, so drop a journal before it is opened again.
pub struct Journal {
    place: Place,
    database: Database,
    failed: OnceLock<JournalError>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal, making an empty one where there is no file; the directory must exist. After a power cut it finds the last commit
    /// that had returned, or the one that was under way. Every page in use is checked. A page that only the last commit holds, damaged
    /// meanwhile, cannot be told from a commit that was under way: then it finds the one before.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] when the file is no sound journal: it is left as it is. [`Journal::restore`] puts it aside.
    /// [`JournalError::Open`] when the disk fails.
    pub fn open(disk: Arc<dyn Disk>, place: Place) -> Result<Journal, JournalError> {
        let failed = |e: io::Error| JournalError::Open {
            place: place.clone(),
            source: Arc::new(e),
        };
        let database = match disk.open(&place, Open::Write) {
            Ok(file) => {
                let backend = Backend::open(file).map_err(|e| match e {
                    Unusable::Io(e) => failed(e),
                    Unusable::Corrupt(why) => JournalError::Corrupt {
                        place: place.clone(),
                        why: why.into(),
                    },
                })?;
                open_store(backend, &place)?
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // Made under another name: a cut on the way must not leave half a journal that the next start takes for a damaged one.
                let young = place.with_suffix(".new");
                let backend = disk
                    .open(&young, Open::Create)
                    .and_then(Backend::create)
                    .map_err(failed)?;
                let database = open_store(backend, &young)?;
                disk.rename(&young, &place)
                    .and_then(|()| disk.sync_dir(&place.parent()))
                    .map_err(failed)?;
                database
            }
            Err(e) => return Err(failed(e)),
        };
        Ok(Journal::from_parts(place, database))
    }

    pub(crate) fn from_parts(place: Place, database: Database) -> Journal {
        Journal {
            place,
            database,
            failed: OnceLock::new(),
        }
    }

    /// The same journal under its new name.
    pub(crate) fn at(self, place: &Place) -> Journal {
        Journal {
            place: place.clone(),
            ..self
        }
    }

    /// Makes the changes in order, all of them or none, durable when this returns.
    ///
    /// # Errors
    /// After any error the journal refuses further commits, and *whether the changes are in it is unknown*: drop it, open it again and load what it has.
    pub fn commit(&self, changes: &[Change]) -> Result<(), JournalError> {
        if let Some(first) = self.failed.get() {
            return Err(self.refused(first));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.transact(changes).map_err(|e| {
            let error = JournalError::Commit {
                place: self.place.clone(),
                why: e.to_string(),
            };
            self.failed.get_or_init(|| error.clone());
            error
        })
    }

    fn transact(&self, changes: &[Change]) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut rows = transaction.open_table(ROWS)?;
            for change in changes {
                match change {
                    Change::Put(key, value) => {
                        let key = key.encode();
                        rows.insert(key.as_slice(), seal(&key, value).as_slice())?;
                    }
                    Change::Delete(key) => {
                        rows.remove(key.encode().as_slice())?;
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Every row of a kind this version knows, in the order of the keys. Others stay where they are: an older agent, back after a
    /// rollback, leaves alone what a newer one kept.
    ///
    /// # Errors
    /// [`JournalError::Read`] when the disk fails, [`JournalError::Corrupt`] when a value is not what was committed.
    pub fn load(&self) -> Result<Vec<(Key, Vec<u8>)>, JournalError> {
        unseal_rows(&self.place, self.raw_rows()?.into_iter())
    }

    /// Every row, also of kinds this version does not know.
    pub(crate) fn raw_rows(&self) -> Result<Vec<Row>, JournalError> {
        let read = || -> Result<Vec<Row>, redb::Error> {
            let table = self.database.begin_read()?.open_table(ROWS)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                rows.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(rows)
        };
        read().map_err(|e| self.unreadable(&e))
    }

    /// Puts rows as they are, durably.
    pub(crate) fn put_raw(&self, rows: Vec<Row>) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut table = transaction.open_table(ROWS)?;
            for (key, value) in rows {
                table.insert(key.as_slice(), value.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// One row's value.
    ///
    /// # Errors
    /// [`JournalError::Read`] when the disk fails, [`JournalError::Corrupt`] when the value is not what was committed.
    pub fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, JournalError> {
        let encoded = key.encode();
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.database.begin_read()?.open_table(ROWS)?;
            Ok(table
                .get(encoded.as_slice())?
                .map(|value| value.value().to_vec()))
        };
        let sealed = read().map_err(|e| self.unreadable(&e))?;
        sealed
            .map(|sealed| match unseal(&encoded, &sealed) {
                Some(value) => Ok(value.to_vec()),
                None => Err(changed(&self.place, key)),
            })
            .transpose()
    }

    /// The journal's file.
    pub fn place(&self) -> &Place {
        &self.place
    }

    fn unreadable(&self, e: &redb::Error) -> JournalError {
        JournalError::Read {
            place: self.place.clone(),
            why: e.to_string(),
        }
    }

    fn refused(&self, first: &JournalError) -> JournalError {
        JournalError::Refused {
            place: self.place.clone(),
            first: first.to_string(),
        }
    }
}

/// The rows of kinds this version knows.
pub(crate) fn unseal_rows(
    place: &Place,
    rows: impl Iterator<Item = Row>,
) -> Result<Vec<(Key, Vec<u8>)>, JournalError> {
    let mut known = Vec::new();
    for (encoded, sealed) in rows {
        let Ok(key) = Key::decode(&encoded) else {
            continue;
        };
        let value = unseal(&encoded, &sealed).ok_or_else(|| changed(place, &key))?;
        known.push((key, value.to_vec()));
    }
    Ok(known)
}

fn changed(place: &Place, key: &Key) -> JournalError {
    JournalError::Corrupt {
        place: place.clone(),
        why: format!("its row {key} is not what was committed"),
    }
}

/// Opens or starts the store in a backend, checks all of it, and makes sure that the table is there.
pub(crate) fn open_store(
    backend: impl StorageBackend,
    place: &Place,
) -> Result<Database, JournalError> {
    let corrupt = |why: String| JournalError::Corrupt {
        place: place.clone(),
        why,
    };
    let failed = |e: io::Error| JournalError::Open {
        place: place.clone(),
        source: Arc::new(e),
    };
    let open = || -> Result<Database, redb::Error> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)?;
        let has_table = match database.begin_read()?.open_table(ROWS) {
            Ok(_) => true,
            Err(redb::TableError::TableDoesNotExist(_)) => false,
            Err(e) => return Err(e.into()),
        };
        if !has_table {
            let transaction = database.begin_write()?;
            transaction.open_table(ROWS)?;
            transaction.commit()?;
        }
        Ok(database)
    };
    open().map_err(|e| match e {
        // What redb finds behind the end or against its format is the file's fault, everything else the disk's.
        redb::Error::Io(e)
            if !matches!(
                e.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            failed(e)
        }
        redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_) => {
            failed(io::Error::other(e.to_string()))
        }
        e => corrupt(e.to_string()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_disk::sim::SimDisk;

    use super::*;

    #[test]
    fn rows_of_a_newer_version_are_passed_over_and_kept() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let place = Place::data("journal");
        let newer: &[u8] = b"\xfesomething of tomorrow";
        {
            let journal = Journal::open(Arc::clone(&disk), place.clone()).unwrap();
            let transaction = journal.database.begin_write().unwrap();
            transaction
                .open_table(ROWS)
                .unwrap()
                .insert(newer, newer)
                .unwrap();
            transaction.commit().unwrap();
            journal
                .commit(&[Change::Put(Key::Job(1), b"job".to_vec())])
                .unwrap();
        }
        let journal = Journal::open(disk, place).unwrap();
        assert_eq!(journal.load().unwrap(), [(Key::Job(1), b"job".to_vec())]);
        let table = journal
            .database
            .begin_read()
            .unwrap()
            .open_table(ROWS)
            .unwrap();
        assert_eq!(table.get(newer).unwrap().unwrap().value(), newer);
    }
}
