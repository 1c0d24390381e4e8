//! What can be asked about one adapter: how it stands, what it did step by step, and what its record gives on another build of it.

use otahost_core::model::{Instant, Millis};
use otahost_sandbox::{Brief, Finding, Replay};
use serde::{Deserialize, Serialize};

use super::AdapterView;

/// All there is to say of one adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterDetails {
    /// As in the status.
    pub adapter: AdapterView,
    /// The layout of its state; `None`: it never ran.
    pub state_version: Option<u32>,
    /// Bytes of its state.
    pub state_bytes: u64,
    /// Which components there are of it.
    pub versions: VersionsView,
    /// What it asks for, beside what it is granted.
    pub wishes: Vec<WishView>,
    /// Its timers by name.
    pub timers: Vec<TimerView>,
    /// Events that wait for it, the messages in its inbox among them.
    pub waiting_events: u64,
    /// Bytes of the messages in its inbox.
    pub inbox_bytes: u64,
    /// Steps since the agent's start, those that failed too.
    pub steps: u64,
    /// Those that failed.
    pub failures: u64,
    /// Steps in a row without a failure, while it is on probation.
    pub proven: u32,
    /// So many of these end the probation.
    pub probation: u32,
    /// The steps that are on record.
    pub record: RecordView,
    /// Events that failed for good, oldest first.
    pub dead: Vec<DeadView>,
    /// What the version that was taken last made of the record of the one before; what was the same is left out. It is kept as long as
    /// the version is on probation, or the agent runs.
    pub trial: Option<ReplayReport>,
}

/// Which components there are of an adapter, by their digests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VersionsView {
    /// The one that runs.
    pub running: Option<String>,
    /// The one it can return to.
    pub previous: Option<String>,
    /// The configured one.
    pub factory: Option<String>,
}

/// One kind of thing that an adapter asks for, or is granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WishView {
    /// `subscribe`, `publish`, `serve`, `call`, `files`, `download` or `targets`.
    pub what: String,
    /// The link it is about.
    pub link: Option<String>,
    /// What it asks for with its configuration.
    pub asked: Vec<String>,
    /// What it is granted.
    pub granted: Vec<String>,
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerView {
    /// Its name.
    pub name: String,
    /// Milliseconds until it fires.
    pub due_in: Millis,
    /// Its period, if it has one.
    pub period: Option<Millis>,
}

/// The steps of an adapter that are on record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecordView {
    /// How many.
    pub steps: u64,
    /// Bytes they take.
    pub bytes: u64,
    /// The number of the oldest.
    pub oldest: Option<u64>,
    /// The number of the newest.
    pub newest: Option<u64>,
}

/// An event that failed for good and was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadView {
    /// Its number.
    pub n: u64,
    /// When it was set aside.
    pub at: Instant,
    /// The event in words.
    pub event: String,
    /// Why.
    pub error: String,
    /// All it takes to run it again was kept.
    pub replayable: bool,
}

/// What an adapter did, as far as it is on record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterLogs {
    /// The adapter's name.
    pub adapter: String,
    /// Its steps, oldest first.
    pub steps: Vec<Brief>,
    /// Older ones that are on record too.
    pub earlier: u64,
    /// Events that failed for good, oldest first.
    pub dead: Vec<DeadView>,
}

/// What recorded steps give when they are run on a component.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReplayReport {
    /// The version that ran.
    pub version: String,
    /// `sha256:` and the digest of its component.
    pub digest: String,
    /// Steps that gave the same.
    pub same: u64,
    /// Steps that gave something else.
    pub differing: u64,
    /// Steps of which it cannot be said.
    pub failed: u64,
    /// Steps on record that were not run: they were too large to be kept whole, or others had used up what a replay may take.
    pub not_run: u64,
    /// Each step that was run, oldest first.
    pub steps: Vec<Replay>,
}

impl ReplayReport {
    /// Counts and keeps a step that was run.
    pub(crate) fn add(&mut self, replay: Replay) {
        match &replay.finding {
            Finding::Same => self.same += 1,
            Finding::Differs { .. } => self.differing += 1,
            Finding::Failed(_) => self.failed += 1,
        }
        self.steps.push(replay);
    }

    /// The same without the steps that gave the same, and of the others as many as have room in so many bytes of JSON.
    pub(crate) fn in_short(&self, most: usize) -> ReplayReport {
        let mut room = most;
        let telling = self.steps.iter().filter(|s| s.finding != Finding::Same);
        let steps = telling
            .take_while(|step| {
                let size = serde_json::to_vec(step).map_or(usize::MAX, |json| json.len());
                let fits = size <= room;
                room = room.saturating_sub(size);
                fits
            })
            .cloned()
            .collect();
        ReplayReport {
            steps,
            ..self.clone()
        }
    }
}

/// A version that runs now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenView {
    /// The adapter's name.
    pub adapter: String,
    /// The version that runs.
    pub version: String,
    /// `sha256:` and the digest of its component.
    pub digest: String,
    /// The version that ran before; `None`: the adapter was set aside.
    pub before: Option<String>,
    /// What it made of the record of the version before. A difference is no fault: a new version is there to do something else.
    pub trial: ReplayReport,
}
