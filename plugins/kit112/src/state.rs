//! What is remembered between two events, kept small: the journal writes it at every step that changes it.
//!
//! What was answered about one update does not live here but in the job's context, which the host returns with every report.

use otahost_adapter::Phase;
use serde::{Deserialize, Serialize};

/// The adapter's state.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Directories listed and updates begun so far: names both.
    pub count: u64,
    /// The calls of `updateDevice` that wait for the directory.
    pub pending: Option<Pending>,
    /// The newest update of ours whose end was handled, so that a report that comes twice is handled once.
    pub ended: u64,
    /// Another's update of the target that is under way.
    pub foreign: Option<Foreign>,
    /// The last update, as `healthCheck` tells it.
    pub last: Option<Last>,
    /// The version that was confirmed last, while it is watched.
    pub watched: Option<Versions>,
}

/// Calls that wait for the content of one directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Names the directory's answer.
    pub tag: String,
    /// The requests to answer, the first one first; at most [`WAITING_MAX`](crate::update::WAITING_MAX).
    pub requests: Vec<String>,
    /// The boot they came in: the requests of another are nobody's any more.
    pub boot: String,
    /// Uptime in milliseconds at which they are answered without it.
    pub due: u64,
}

/// Another's update of the target: the operator's, or another adapter's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Key of the job.
    pub key: String,
    /// The version before.
    pub old: Option<String>,
}

/// An update that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Key of the job.
    pub key: String,
    /// It was not asked for by the centre.
    pub foreign: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// From which version to which.
    pub versions: Versions,
    /// When its end was reported, in milliseconds since the epoch.
    pub at: u64,
    /// The contract's word for why it did not succeed.
    pub reason: Option<String>,
}

/// From which version to which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The version before, where it was known.
    pub old: Option<String>,
    /// The version that was to run.
    pub new: String,
}

/// How an update ended, in the words of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new version runs and is confirmed.
    Succeeded,
    /// Never begun.
    Rejected,
    /// Ended before anything was activated.
    Failed,
    /// Ended by somebody, before anything was activated.
    Cancelled,
    /// The old version runs again.
    RolledBack,
    /// Neither version runs well.
    RollbackFailed,
}

impl Outcome {
    /// The end that this phase is; nothing while it is none of one target.
    pub fn of(phase: Phase) -> Option<Self> {
        match phase {
            Phase::Queued
            | Phase::Waiting
            | Phase::Downloading
            | Phase::Verifying
            | Phase::Prepared
            | Phase::Delivering
            | Phase::Delivered
            | Phase::Installing
            | Phase::Activating
            | Phase::Confirming
            | Phase::Partial => None,
            Phase::Succeeded => Some(Outcome::Succeeded),
            Phase::Rejected => Some(Outcome::Rejected),
            Phase::Failed => Some(Outcome::Failed),
            Phase::RolledBack => Some(Outcome::RolledBack),
            Phase::RollbackFailed => Some(Outcome::RollbackFailed),
            Phase::Cancelled => Some(Outcome::Cancelled),
        }
    }

    /// The new version was switched to at some time.
    pub fn was_activated(self) -> bool {
        match self {
            Outcome::Succeeded | Outcome::RolledBack | Outcome::RollbackFailed => true,
            Outcome::Rejected | Outcome::Failed | Outcome::Cancelled => false,
        }
    }
}

/// What the centre was answered: the `data` of `updateDevice`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The version that runs.
    pub old_version: String,
    /// The version that will run.
    pub new_version: String,
    /// Seconds until then, or by configuration the Unix time of then.
    pub estimated_time: u64,
}

/// Correlation data of a job, at most 4 KiB as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Tells an update from the next one of the same file.
    pub number: u64,
    /// What was answered, so that it can be answered again.
    pub answer: Answer,
    /// When it was answered, in milliseconds since the epoch.
    pub timestamp: u64,
}
