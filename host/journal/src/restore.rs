//! Opening for a device that has to go on: after a power cut, after a medium that failed, with a damaged file, and where nothing can be
//! written at all.

use std::io;
use std::sync::Arc;

use otahost_disk::{Disk, Open, Place};
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, PREALLOCATED, Unusable};
use crate::journal::{Row, open_store, unseal_rows};
use crate::salvage::{RawRows, salvage};
use crate::snapshot::Snapshot;
use crate::{Journal, JournalError, Key, from_json, json};

/// Ending of the file a damaged journal is kept in. There is one at most.
const DAMAGED: &str = ".damaged";
/// Ending of a journal that is whole and about to take the place of a damaged one.
const SALVAGED: &str = ".salvaged";

/// A journal that is ready, with what it holds.
#[derive(Debug)]
pub struct Restored {
    /// It takes commits.
    pub journal: Journal,
    /// Every row of a kind this version knows, in the order of the keys.
    pub rows: Vec<(Key, Vec<u8>)>,
}

/// What became of a damaged journal. It is a row of the new one from its first moment on ([`Damage::key`]).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Damage {
    /// What is wrong with it.
    pub why: String,
    /// Name of the file it is kept in, beside the journal.
    pub kept: String,
    /// Rows that could be read of it and go on in the new one.
    pub rows: usize,
    /// Whoever uses the journal has raised the alarm.
    pub alerted: bool,
}

impl Damage {
    /// Its row.
    pub fn key() -> Key {
        Key::Meta("damage".into())
    }

    /// The damage these rows tell of.
    pub fn of(rows: &[(Key, Vec<u8>)]) -> Option<Damage> {
        let key = Damage::key();
        let (_, value) = rows.iter().find(|(found, _)| *found == key)?;
        from_json(&key, value).ok()
    }
}

impl Journal {
    /// Opens the journal for a device that goes on, whatever became of the file:
    ///
    /// - Where it was not closed and `same_boot` says of its rows that this boot wrote them, it is written anew, into another file. After
    ///   a sync that failed the system shows what is not on the medium, and only what is written again gets there.
    /// - A damaged one is put aside as `<name>.damaged`, in place of an older one; a new one holds the rows that could be read of it, and
    ///   a [`Damage`].
    ///
    /// A power cut on the way leaves the old file or the new one.
    ///
    /// # Errors
    /// [`JournalError::Open`] and [`JournalError::Read`] when the disk fails or has no space; [`JournalError::needs`] says what it needs.
    pub fn restore(
        disk: &Arc<dyn Disk>,
        place: &Place,
        same_boot: impl Fn(&[(Key, Vec<u8>)]) -> bool,
    ) -> Result<Restored, JournalError> {
        finish_replacing(disk, place)?;
        match take_up(disk, place, same_boot) {
            Err(JournalError::Corrupt { why, .. }) => replace_damaged(disk, place, why),
            taken => taken,
        }
    }

    /// What the file holds now, in memory: it takes commits, and none of them reaches the disk. The file is not changed, also where it was
    /// not closed.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] for a damaged file, [`JournalError::Open`] when there is none or it cannot be read.
    pub fn copy_of(disk: &dyn Disk, place: &Place) -> Result<Journal, JournalError> {
        let store = load_store(disk, place)?.bytes.map_err(corrupt(place))?;
        Self::of_store(Snapshot::new(store), place)
    }

    /// An empty one in memory.
    ///
    /// # Errors
    /// None is known.
    pub fn in_memory(place: &Place) -> Result<Journal, JournalError> {
        Self::of_store(Snapshot::new(Vec::new()), place)
    }

    fn of_store(store: Snapshot, place: &Place) -> Result<Journal, JournalError> {
        Ok(Journal::from_parts(
            place.clone(),
            open_store(store, place)?,
        ))
    }

    /// How many rows can be read of a damaged file. Nothing is changed.
    ///
    /// # Errors
    /// [`JournalError::Open`] when the disk fails.
    pub fn readable_rows(disk: &dyn Disk, place: &Place) -> Result<usize, JournalError> {
        Ok(salvage(load_store(disk, place)?.anyhow).len())
    }
}

impl JournalError {
    /// What has to happen before the journal can be used, for people. `free` is the free space where it lies, as far as it is known.
    pub fn needs(&self, free: Option<u64>) -> String {
        const MIB: u64 = 1 << 20;
        let JournalError::Open { source, .. } = self else {
            return "look at the medium; `otahost doctor` says what is whole".into();
        };
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let missing = PREALLOCATED.saturating_sub(free.unwrap_or(0)).div_ceil(MIB).max(1);
                format!("free {missing} MiB more on the file system of the data directory")
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                "make the file system of the data directory writable again; the system's log says why it is not".into()
            }
            io::ErrorKind::PermissionDenied => {
                "let the agent's user read and write its data directory".into()
            }
            _ => "the medium may be failing: look at the system's log, and replace it".into(),
        }
    }
}

fn failed(place: &Place) -> impl Fn(io::Error) -> JournalError {
    |e| JournalError::Open {
        place: place.clone(),
        source: Arc::new(e),
    }
}

fn corrupt(place: &Place) -> impl Fn(&'static str) -> JournalError {
    |why| JournalError::Corrupt {
        place: place.clone(),
        why: why.into(),
    }
}

/// A store's bytes, read from its file.
pub(crate) struct Loaded {
    /// As far as our header tells them.
    bytes: Result<Vec<u8>, &'static str>,
    /// The best that can be made of it.
    pub(crate) anyhow: Vec<u8>,
}

pub(crate) fn load_store(disk: &dyn Disk, place: &Place) -> Result<Loaded, JournalError> {
    let load = || -> io::Result<Loaded> {
        let file = disk.open(place, Open::Read)?;
        match Backend::open(Arc::clone(&file)) {
            Ok(backend) => {
                let bytes = backend.content()?;
                Ok(Loaded {
                    anyhow: bytes.clone(),
                    bytes: Ok(bytes),
                })
            }
            Err(Unusable::Corrupt(why)) => Ok(Loaded {
                bytes: Err(why),
                anyhow: Backend::content_without_header(file.as_ref())?,
            }),
            Err(Unusable::Io(e)) => Err(e),
        }
    };
    load().map_err(failed(place))
}

fn exists(disk: &Arc<dyn Disk>, place: &Place) -> Result<bool, JournalError> {
    match disk.open(place, Open::Read) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed(place)(e)),
    }
}

/// A power cut between the two renames of [`replace_damaged`].
fn finish_replacing(disk: &Arc<dyn Disk>, place: &Place) -> Result<(), JournalError> {
    let salvaged = place.with_suffix(SALVAGED);
    if exists(disk, place)? || !exists(disk, &salvaged)? {
        return Ok(());
    }
    disk.rename(&salvaged, place)
        .and_then(|()| disk.sync_dir(&place.parent()))
        .map_err(failed(place))
}

fn take_up(
    disk: &Arc<dyn Disk>,
    place: &Place,
    same_boot: impl Fn(&[(Key, Vec<u8>)]) -> bool,
) -> Result<Restored, JournalError> {
    if was_left_open(disk, place)? {
        // The file itself is not written to before it is known that what it shows is on the medium.
        let rows = Journal::copy_of(disk.as_ref(), place)?.raw_rows()?;
        if same_boot(&unseal_rows(place, rows.iter().cloned())?) {
            match write_anew(disk, place, rows) {
                // A full disk is no failing one; a journal that has its space can go on in it.
                Err(JournalError::Open { source, .. })
                    if source.kind() == io::ErrorKind::StorageFull => {}
                Err(e) => return Err(e),
                Ok(journal) => {
                    disk.rename(journal.place(), place)
                        .and_then(|()| disk.sync_dir(&place.parent()))
                        .map_err(failed(place))?;
                    return ready(journal.at(place));
                }
            }
        }
    }
    ready(Journal::open(Arc::clone(disk), place.clone())?)
}

fn ready(journal: Journal) -> Result<Restored, JournalError> {
    Ok(Restored {
        rows: journal.load()?,
        journal,
    })
}

fn was_left_open(disk: &Arc<dyn Disk>, place: &Place) -> Result<bool, JournalError> {
    match disk.open(place, Open::Read) {
        Ok(file) => match Backend::open(file).and_then(|backend| Ok(backend.was_left_open()?)) {
            Ok(left_open) => Ok(left_open),
            Err(Unusable::Corrupt(why)) => Err(corrupt(place)(why)),
            Err(Unusable::Io(e)) => Err(failed(place)(e)),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed(place)(e)),
    }
}

/// A journal with these sealed rows beside the one at this place, durable but for its name.
fn write_anew(
    disk: &Arc<dyn Disk>,
    place: &Place,
    rows: Vec<Row>,
) -> Result<Journal, JournalError> {
    let young = place.with_suffix(".new");
    let backend = disk
        .open(&young, Open::Create)
        .and_then(Backend::create)
        .map_err(failed(place));
    let make = |backend| -> Result<Journal, JournalError> {
        let journal = Journal::from_parts(young.clone(), open_store(backend, &young)?);
        journal.put_raw(rows).map_err(|e| match e {
            redb::Error::Io(e) => failed(place)(e),
            e => failed(place)(io::Error::other(e.to_string())),
        })?;
        Ok(journal)
    };
    backend.and_then(make).inspect_err(|_| {
        // What cannot be used must not hold the space that is missing.
        let _ = disk.remove(&young);
    })
}

fn replace_damaged(
    disk: &Arc<dyn Disk>,
    place: &Place,
    why: String,
) -> Result<Restored, JournalError> {
    let (kept, salvaged) = (place.with_suffix(DAMAGED), place.with_suffix(SALVAGED));
    let name = |place: &Place| {
        let name = place.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let mut found: RawRows = salvage(load_store(disk.as_ref(), place)?.anyhow);
    let key = Damage::key().encode();
    found.remove(&key);
    let damage = Damage {
        why,
        kept: name(&kept),
        rows: found.len(),
        alerted: false,
    };
    found.insert(key, json(&damage));
    let rows: Vec<Row> = found
        .into_iter()
        .map(|(key, value)| {
            let sealed = crate::seal::seal(&key, &value);
            (key, sealed)
        })
        .collect();
    let journal = write_anew(disk, place, rows)?;
    let parent = place.parent();
    // At every moment one of the names leads to a whole journal that the next start takes.
    disk.rename(journal.place(), &salvaged)
        .and_then(|()| disk.sync_dir(&parent))
        .and_then(|()| disk.rename(place, &kept))
        .and_then(|()| disk.rename(&salvaged, place))
        .and_then(|()| disk.sync_dir(&parent))
        .map_err(failed(place))?;
    ready(journal.at(place))
}
