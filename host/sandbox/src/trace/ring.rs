//! The last steps of one adapter, in bounded memory, and how they are kept over a restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use super::part::Digest;
use super::record::{Brief, StepRecord};
use super::recording::{Recording, Store, Stored};

/// What a row costs besides its bytes, in memory and in the journal.
const ROW: usize = 64;
/// First byte of a row that is a part; that of a step is the brace of its JSON.
const PART: u8 = 0;

/// The last steps of one adapter. The oldest go first.
///
/// Steps and parts are rows with one counter, so that in the journal they are the rows of one kind of key. What was pushed and has left
/// again between two commits is never written.
#[derive(Debug, Clone)]
pub struct TraceRing {
    capacity: usize,
    rows: BTreeMap<u64, Row>,
    parts: HashMap<Digest, u64>,
    next: u64,
    bytes: usize,
    /// Rows that the journal does not have yet.
    unwritten: BTreeSet<u64>,
    /// Rows that it has and that are gone here.
    gone: BTreeSet<u64>,
}

#[derive(Debug, Clone)]
enum Row {
    Step {
        json: Vec<u8>,
        parts: Vec<Digest>,
    },
    Part {
        digest: Digest,
        bytes: Arc<[u8]>,
        /// Steps that have it.
        users: usize,
    },
}

impl Row {
    fn bytes(&self) -> usize {
        ROW + match self {
            Row::Step { json, parts } => json.len() + size_of_val(&parts[..]),
            Row::Part { bytes, .. } => bytes.len(),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Row::Step { json, .. } => json.clone(),
            Row::Part { bytes, .. } => {
                let mut row = Vec::with_capacity(1 + bytes.len());
                row.push(PART);
                row.extend(&bytes[..]);
                row
            }
        }
    }
}

/// A change of one row of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The row's number within the adapter.
    pub n: u64,
    /// Its new content; `None` removes it.
    pub row: Option<Vec<u8>>,
}

/// Why a record cannot be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {n} cannot be replayed: it was too large to be kept whole, or its record is damaged; missing: {}", .missing.join(", "))]
pub struct Incomplete {
    /// The step.
    pub n: u64,
    /// What is missing of it.
    pub missing: Vec<String>,
}

impl TraceRing {
    /// What one adapter's trace takes at most, in memory and in the journal.
    pub const CAPACITY: usize = 256 * 1024;

    /// An empty ring that holds at most so many bytes.
    pub fn new(capacity: usize) -> Self {
        TraceRing {
            capacity,
            rows: BTreeMap::new(),
            parts: HashMap::new(),
            next: 0,
            bytes: 0,
            unwritten: BTreeSet::new(),
            gone: BTreeSet::new(),
        }
    }

    /// The ring as the rows of the journal have it, in any order. What cannot be read is dropped, and removed with the next
    /// [`take_changes`](Self::take_changes).
    pub fn restore(capacity: usize, rows: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Self {
        let mut ring = TraceRing::new(capacity);
        for (n, bytes) in rows {
            ring.next = ring.next.max(n.saturating_add(1));
            let row = match bytes.split_first() {
                Some((&PART, part)) => Some(Row::Part {
                    digest: Digest::of(part),
                    bytes: part.into(),
                    users: 0,
                }),
                _ => serde_json::from_slice::<Stored>(&bytes)
                    .ok()
                    .map(|stored| Row::Step {
                        parts: stored.parts(),
                        json: bytes,
                    }),
            };
            let twice = |ring: &TraceRing, row: &Row| matches!(row, Row::Part { digest, .. } if ring.parts.contains_key(digest));
            match row {
                Some(row) if !twice(&ring, &row) => {
                    if let Row::Part { digest, .. } = &row {
                        ring.parts.insert(*digest, n);
                    }
                    ring.bytes += row.bytes();
                    ring.rows.insert(n, row);
                }
                _ => {
                    ring.gone.insert(n);
                }
            }
        }
        ring.count_users();
        ring.make_room();
        ring
    }

    /// Adds a step and gives its number. Of a step that is too large its parts are kept in the order event, state, view, effects, state
    /// after, log, as far as half of the ring has room for them; of the others only the digest remains.
    pub fn push(&mut self, recording: Recording) -> u64 {
        let Recording {
            json, uses, parts, ..
        } = recording;
        let mut room = self.capacity / 2;
        for (digest, bytes) in parts {
            let size = ROW + bytes.len();
            if size > room {
                continue;
            }
            room -= size;
            if !self.parts.contains_key(&digest) {
                let n = self.add(Row::Part {
                    digest,
                    bytes,
                    users: 0,
                });
                self.parts.insert(digest, n);
            }
        }
        for digest in &uses {
            self.count(*digest, 1);
        }
        let n = self.add(Row::Step { json, parts: uses });
        self.make_room();
        n
    }

    /// The steps, oldest first.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> {
        self.rows.iter().filter_map(|(n, row)| self.entry(*n, row))
    }

    /// The step with this number.
    pub fn step(&self, n: u64) -> Option<Entry<'_>> {
        self.entry(n, self.rows.get(&n)?)
    }

    fn entry(&self, n: u64, row: &Row) -> Option<Entry<'_>> {
        let Row::Step { json, .. } = row else {
            return None;
        };
        let stored = serde_json::from_slice(json).expect("it was made here, or read before");
        let ring = self;
        Some(Entry { n, stored, ring })
    }

    /// Bytes it takes now.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the journal has to be told, to be part of the next commit: all rows to remove, and the oldest new rows as far as `most`
    /// bytes go (one row at least, where there is any). The rest comes with the next call; a step's parts never come after it.
    ///
    /// What was taken counts as written. After a commit that failed, [`restore`](Self::restore) the ring from the journal.
    pub fn take_changes(&mut self, most: usize) -> Vec<Change> {
        let gone = std::mem::take(&mut self.gone).into_iter();
        let mut changes: Vec<Change> = gone.map(|n| Change { n, row: None }).collect();
        let mut taken = 0;
        while let Some(n) = self.unwritten.first().copied() {
            let row = self.rows.get(&n).map(Row::to_bytes).unwrap_or_default();
            if taken > 0 && taken + row.len() > most {
                break;
            }
            taken += row.len();
            self.unwritten.remove(&n);
            changes.push(Change { n, row: Some(row) });
        }
        changes
    }

    fn add(&mut self, row: Row) -> u64 {
        let n = self.next;
        self.next += 1;
        self.bytes += row.bytes();
        self.rows.insert(n, row);
        self.unwritten.insert(n);
        n
    }

    fn remove(&mut self, n: u64) -> Option<Row> {
        let row = self.rows.remove(&n)?;
        self.bytes -= row.bytes();
        if !self.unwritten.remove(&n) {
            self.gone.insert(n);
        }
        Some(row)
    }

    /// Counts a step in or out of a part's users. A part nobody uses goes.
    fn count(&mut self, digest: Digest, by: isize) {
        let Some(&n) = self.parts.get(&digest) else {
            return;
        };
        let Some(Row::Part { users, .. }) = self.rows.get_mut(&n) else {
            return;
        };
        *users = users.saturating_add_signed(by);
        if *users == 0 {
            self.parts.remove(&digest);
            self.remove(n);
        }
    }

    /// Counts all users anew, and drops the parts that have none.
    fn count_users(&mut self) {
        let mut users: HashMap<Digest, usize> = HashMap::new();
        for row in self.rows.values() {
            if let Row::Step { parts, .. } = row {
                parts
                    .iter()
                    .for_each(|digest| *users.entry(*digest).or_default() += 1);
            }
        }
        let mut unused = Vec::new();
        for (n, row) in &mut self.rows {
            if let Row::Part {
                digest,
                users: counted,
                ..
            } = row
            {
                *counted = users.get(digest).copied().unwrap_or_default();
                if *counted == 0 {
                    unused.push((*n, *digest));
                }
            }
        }
        for (n, digest) in unused {
            self.parts.remove(&digest);
            self.remove(n);
        }
    }

    /// Drops the oldest steps, with the parts only they have, until the rest fits.
    fn make_room(&mut self) {
        while self.bytes > self.capacity {
            let steps = self.rows.iter();
            let oldest = steps
                .filter(|(_, row)| matches!(row, Row::Step { .. }))
                .map(|(n, _)| *n)
                .next();
            let Some(Row::Step { parts, .. }) = oldest.and_then(|n| self.remove(n)) else {
                break;
            };
            parts.into_iter().for_each(|digest| self.count(digest, -1));
        }
    }
}

impl Store for TraceRing {
    fn part(&self, digest: Digest) -> Option<Arc<[u8]>> {
        match self.rows.get(self.parts.get(&digest)?)? {
            Row::Part { bytes, .. } => Some(bytes.clone()),
            Row::Step { .. } => None,
        }
    }
}

/// One step of a ring.
#[derive(Clone)]
pub struct Entry<'a> {
    n: u64,
    stored: Stored,
    ring: &'a TraceRing,
}

impl Entry<'_> {
    /// Its number.
    pub fn n(&self) -> u64 {
        self.n
    }

    /// It in a few lines.
    pub fn brief(&self) -> Brief {
        self.stored.brief(self.n, self.ring)
    }

    /// It whole, to be run again.
    ///
    /// # Errors
    /// When something it takes to run it again was too large to be kept.
    pub fn record(&self) -> Result<StepRecord, Incomplete> {
        let record = self.stored.record(self.n, self.ring);
        record.map_err(|missing| Incomplete { n: self.n, missing })
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("n", &self.n)
            .finish_non_exhaustive()
    }
}
