//! What a journal holds, looked at from outside of an engine.

use std::collections::{BTreeMap, BTreeSet};

use otahost_core::job::Job;
use otahost_core::policy::memory::TargetMemory;
use otahost_journal::{Damage, JournalError, Key, from_json};
use otahost_transfer::Checkpoint;

use super::Engine;
use super::alerts::AlertRow;
use super::calls::CallRow;
use super::rows::{
    AdapterRow, DeadRow, InboxRow, KeptRow, OutboxRow, PartialRow, SecretRow, SeenRow, StartsRow,
    TimeRow, TimerRow,
};

/// The rows of a journal.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// How many there are of each kind.
    pub(crate) kinds: BTreeMap<&'static str, usize>,
    /// Rows that this version of the agent cannot understand.
    pub(crate) faults: Vec<String>,
    /// Jobs, oldest first.
    pub(crate) jobs: Vec<Job>,
    /// What is known of the bytes in staging areas, by target.
    pub(crate) partials: BTreeMap<String, Checkpoint>,
    /// Digests of components that adapters run or can return to, and that are not the configured ones.
    pub(crate) components: BTreeSet<String>,
}

/// Looks at every row.
pub(crate) fn inspect(rows: &[(Key, Vec<u8>)]) -> Contents {
    let mut contents = Contents::default();
    for (key, value) in rows {
        *contents.kinds.entry(kind(key)).or_default() += 1;
        if let Err(error) = contents.take(key, value) {
            contents.faults.push(error.to_string());
        }
    }
    contents
}

fn kind(key: &Key) -> &'static str {
    match key {
        Key::Meta(_) => "facts",
        Key::Adapter(_) | Key::Kept(_) => "adapters",
        Key::State(_) => "states",
        Key::Outbox { .. } => "messages out",
        Key::Inbox { .. } => "messages in",
        Key::Job(_) => "jobs",
        Key::Checkpoint { .. } | Key::Partial(_) => "checkpoints",
        Key::Timer { .. } => "timers",
        Key::Seen { .. } => "acknowledgements",
        Key::Dead { .. } => "dead letters",
        Key::Trace { .. } => "pieces of record",
        Key::Target(_) => "targets",
        Key::Call { .. } => "calls",
        Key::Secret { .. } => "secrets",
        Key::Alert { .. } => "alerts",
    }
}

impl Contents {
    fn take(&mut self, key: &Key, value: &[u8]) -> Result<(), JournalError> {
        match key {
            Key::Meta(_) if *key == Damage::key() => drop(from_json::<Damage>(key, value)?),
            Key::Meta(_) if *key == Engine::starts_key() => {
                drop(from_json::<StartsRow>(key, value)?);
            }
            Key::Meta(name) if Engine::is_time(name) => {
                from_json::<TimeRow>(key, value)?;
            }
            Key::Adapter(_) => {
                let row: AdapterRow = from_json(key, value)?;
                let kept = [row.versions.installed, row.versions.previous];
                let digests = kept.into_iter().flatten().filter(|d| !d.is_empty());
                self.components.extend(digests);
            }
            Key::Job(_) => self.jobs.push(from_json(key, value)?),
            Key::Partial(_) => {
                let row: PartialRow = from_json(key, value)?;
                self.partials.insert(row.target, row.checkpoint);
            }
            Key::Outbox { .. } => drop(from_json::<OutboxRow>(key, value)?),
            Key::Inbox { .. } => drop(from_json::<InboxRow>(key, value)?),
            Key::Timer { .. } => drop(from_json::<TimerRow>(key, value)?),
            Key::Seen { .. } => drop(from_json::<SeenRow>(key, value)?),
            Key::Dead { .. } => drop(from_json::<DeadRow>(key, value)?),
            Key::Target(_) => drop(from_json::<TargetMemory>(key, value)?),
            Key::Call { .. } => drop(from_json::<CallRow>(key, value)?),
            Key::Secret { .. } => drop(from_json::<SecretRow>(key, value)?),
            Key::Alert { .. } => drop(from_json::<AlertRow>(key, value)?),
            Key::Kept(_) => drop(from_json::<KeptRow>(key, value)?),
            // An adapter's own bytes, the record's, or facts of another version of the agent.
            Key::State(_) | Key::Trace { .. } | Key::Checkpoint { .. } | Key::Meta(_) => {}
        }
        Ok(())
    }
}
