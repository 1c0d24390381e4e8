//! The record of what the adapters did: which steps are kept in memory, and when they go into the journal.
//!
//! A record that wore the flash out would be worse than none. So a step never causes a commit: it goes along with one that is needed
//! anyway, and since every page a commit touches costs as much as the commit's own, with one of those in ten seconds, and never with one
//! that only says how much time has passed.

use std::collections::BTreeMap;
use std::time::Duration;

use otahost_journal::{Change, Key};
use otahost_sandbox::{Brief, Recorder, Recording, StepRecord, TraceRing};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Engine;

/// Least time between two commits that take steps along.
const EVERY: Duration = Duration::from_secs(10);
/// Most bytes of steps that one commit takes along, those of all adapters together; but at least one row of each.
const ALONG: usize = 32 * 1024;

/// What is on record of one adapter.
#[derive(Debug)]
pub(super) struct Trace {
    pub(super) ring: TraceRing,
    pub(super) recorder: Recorder,
    /// Who reads along.
    pub(super) readers: Vec<mpsc::Sender<Brief>>,
}

impl Trace {
    pub(super) fn new() -> Self {
        Trace {
            ring: TraceRing::new(TraceRing::CAPACITY),
            recorder: Recorder::default(),
            readers: Vec::new(),
        }
    }

    /// Keeps a step; its number.
    pub(super) fn keep(&mut self, recording: Recording) -> u64 {
        let n = self.ring.push(recording);
        if !self.readers.is_empty()
            && let Some(step) = self.ring.step(n)
        {
            let brief = step.brief();
            // One who is too slow misses a step, which its number shows.
            self.readers.retain(|reader| {
                !matches!(
                    reader.try_send(brief.clone()),
                    Err(mpsc::error::TrySendError::Closed(_))
                )
            });
        }
        n
    }

    /// A step that is still on record, whole.
    pub(super) fn record(&self, n: u64) -> Option<StepRecord> {
        self.ring.step(n)?.record().ok()
    }
}

/// The rows of all adapters' traces, on their way from the journal into memory.
pub(super) type Rows = BTreeMap<String, Vec<(u64, Vec<u8>)>>;

impl Engine {
    /// Takes up what the journal holds of the adapters' steps. What belongs to no adapter is of no use any more.
    pub(super) fn restore_traces(&mut self, rows: Rows) {
        for (adapter, rows) in rows {
            match self.adapters.get_mut(&adapter) {
                Some(state) => state.trace.ring = TraceRing::restore(TraceRing::CAPACITY, rows),
                None => {
                    for (n, _) in rows {
                        let adapter = adapter.clone();
                        self.discard(Key::Trace { adapter, n });
                    }
                }
            }
        }
        for state in self.adapters.values_mut() {
            let former = state.former.as_ref();
            state.trial = former.and_then(|former| former.kept.trial.clone());
        }
    }

    /// Steps that go along with a commit that is made now.
    pub(super) fn steps_along(&mut self) -> Vec<Change> {
        let now = Instant::now();
        if self.steps_due.is_some_and(|due| now < due) {
            return Vec::new();
        }
        let share = ALONG / self.adapters.len().max(1);
        let mut changes = Vec::new();
        for (name, state) in &mut self.adapters {
            for change in state.trace.ring.take_changes(share) {
                let key = Key::Trace {
                    adapter: name.clone(),
                    n: change.n,
                };
                changes.push(match change.row {
                    Some(row) => Change::Put(key, row),
                    None => Change::Delete(key),
                });
            }
        }
        if !changes.is_empty() {
            self.steps_due = Some(now + EVERY);
        }
        changes
    }
}
