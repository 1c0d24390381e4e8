//! What can still be read of a damaged journal, row by row.
//!
//! The store refuses a file in which a page is not what its sum says, and that is right for going on with it. But one bad page is no
//! reason to forget every job and every token. Here the tree is walked without the store's checks, in memory; each row proves itself
//! by its own sum, and rows that lie behind what cannot be read are looked for from the other end. It is done on a thread of its own:
//! on damaged pages the store may panic or run in circles.

mod child;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{Builder, ConcurrencyMode, ReadableDatabase};

use crate::journal::ROWS;
use crate::key::KINDS;
use crate::seal::unseal;
use crate::snapshot::Snapshot;

/// Reads of the store for one walk; a whole journal takes a few thousand.
const READS: u64 = 1 << 16;
/// A walk in circles goes down as many levels as it has reads.
const STACK: usize = 256 << 20;
/// Most rows, and most bytes of them, that are taken.
const MAX_ROWS: usize = 1 << 20;
const MAX_BYTES: usize = 256 << 20;

thread_local! {
    static SALVAGING: Cell<bool> = const { Cell::new(false) };
}

/// True while this thread reads a damaged journal: a panic there is caught and costs the rows it met. A panic hook that ends the
/// process must let it pass, or a damaged journal ends it again after every start.
pub fn is_salvaging() -> bool {
    SALVAGING.with(Cell::get)
}

pub use child::{salvage_child, salvage_in_children};

pub(crate) type RawRows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a walk gives what it finds: key and unsealed value. True while there is room for more.
pub(crate) type Take<'a> = dyn FnMut(&[u8], &[u8]) -> bool + 'a;

/// How many walks there are: every kind, and kind 0 for what is behind all known kinds, from both ends.
pub(crate) const WALKS: usize = 2 * (KINDS as usize + 1);

/// The rows that prove themselves, by their encoded keys, with unsealed values.
pub(crate) fn salvage(store: Vec<u8>) -> RawRows {
    let mut rows = Rows::default();
    match child::program() {
        Some(program) => child::walks(program, store, &mut rows),
        None => {
            let store = Arc::new(store);
            rows = on_a_thread(move || {
                let mut rows = Rows::default();
                for number in 0..WALKS {
                    // A panic leaves the store unusable, so every walk has its own.
                    let walk =
                        AssertUnwindSafe(|| walk(&store, number, &mut |k, v| rows.take(k, v)));
                    let _ = catch_unwind(walk);
                }
                rows
            })
            // Without a thread nothing is read; the file is kept.
            .unwrap_or_default();
        }
    }
    rows.found
}

/// What was found so far.
#[derive(Default)]
pub(crate) struct Rows {
    found: RawRows,
    bytes: usize,
}

impl Rows {
    pub(crate) fn take(&mut self, key: &[u8], value: &[u8]) -> bool {
        if self.found.insert(key.to_vec(), value.to_vec()).is_none() {
            self.bytes += key.len() + value.len();
        }
        self.has_room()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.found.len() < MAX_ROWS && self.bytes < MAX_BYTES
    }
}

/// On a thread with room for walks that go deep.
pub(crate) fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let thread = std::thread::Builder::new()
        .name("salvage".into())
        .stack_size(STACK)
        .spawn(move || {
            SALVAGING.with(|salvaging| salvaging.set(true));
            work()
        });
    thread.ok().and_then(|thread| thread.join().ok())
}

/// Takes the rows of a kind from one end on, as far as it gets.
pub(crate) fn walk(
    store: &Arc<Vec<u8>>,
    number: usize,
    take: &mut Take<'_>,
) -> Result<(), redb::Error> {
    let (kind, backwards) = ((number / 2) as u8, number % 2 == 1);
    let database = Builder::new()
        .set_cache_size(0)
        .set_concurrency_mode(ConcurrencyMode::SingleWriter)
        .open_read_only_with_backend(Snapshot::of_damaged(store, READS))?;
    let table = database.begin_read()?.open_table(ROWS)?;
    let (from, to) = match kind {
        0 => ([KINDS + 1], [u8::MAX]),
        kind => ([kind], [kind + 1]),
    };
    let mut rows = table.range(from.as_slice()..to.as_slice())?;
    let mut last: Option<Vec<u8>> = None;
    loop {
        let next = if backwards {
            rows.next_back()
        } else {
            rows.next()
        };
        let Some(row) = next else { break };
        let (key, value) = row?;
        let (key, value) = (key.value(), value.value());
        // Keys that are not in order come from pages that do not belong here.
        let in_order = last
            .as_deref()
            .is_none_or(|last| (key < last) == backwards && key != last);
        if !in_order || !(from.as_slice()..to.as_slice()).contains(&key) {
            break;
        }
        last = Some(key.to_vec());
        if let Some(value) = unseal(key, value)
            && !take(key, value)
        {
            break;
        }
    }
    Ok(())
}
