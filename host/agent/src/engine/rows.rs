//! What the engine keeps in the journal, row by row, as JSON. A field that comes later has a default, and one that is not known is passed over, so that an older
//! and a newer agent can read each other's rows.

use std::collections::BTreeMap;

use otahost_core::model::{Event, Instant, Publication, Requirements, StartReason};
use otahost_sandbox::StepRecord;
use otahost_transfer::Checkpoint;
use serde::{Deserialize, Serialize};

use super::swap::Versions;
use crate::api::ReplayReport;

/// What is remembered of an adapter beside its state.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct AdapterRow {
    /// SHA-256 of the component that ran last.
    pub digest: String,
    /// The protocol it speaks.
    pub protocol: String,
    /// Its own version.
    pub version: String,
    /// Its state version.
    pub state_version: u32,
    /// What it asked for.
    pub requirements: Option<Requirements>,
    /// The boot it ran in.
    pub boot_id: String,
    /// SHA-256 of configuration and grants.
    pub settings: String,
    /// Why it starts, as long as no step of it has taken that.
    pub owed: Option<StartReason>,
    /// Which versions there are.
    pub versions: Versions,
}

/// What an adapter's former version had.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct KeptRow {
    pub state_version: u32,
    #[serde(with = "otahost_core::bytes_as_base64")]
    pub state: Vec<u8>,
    /// By the number of the job.
    pub contexts: BTreeMap<u64, Vec<u8>>,
    /// What the version after it made of its record.
    pub trial: Option<ReplayReport>,
}

/// A publication that waits for the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OutboxRow {
    pub adapter: String,
    pub publication: Publication,
}

/// A message that was committed before its adapter could take it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InboxRow {
    pub event: Event,
    /// When it came, by the wall clock of that time.
    #[serde(default)]
    pub at: Instant,
}

/// A message whose acknowledgement may not have reached the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SeenRow {
    /// SHA-256 of topic and payload.
    pub hash: String,
}

/// An event that failed twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DeadRow {
    pub at: Instant,
    pub event: Event,
    /// SHA-256 of the state it met.
    pub state: String,
    pub error: String,
    /// The step that failed, when it was small enough to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<StepRecord>>,
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TimerRow {
    pub boot_id: String,
    /// Uptime at which it is due, in the boot of `boot_id`.
    pub due: u64,
    /// Its span, counted anew after a reboot.
    pub after: u64,
    pub period: Option<u64>,
}

/// How far a transfer came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PartialRow {
    /// The target whose staging area holds the bytes.
    pub target: String,
    pub checkpoint: Checkpoint,
}

/// How often the agent was started in one boot without having run well in between.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StartsRow {
    pub boot_id: String,
    /// The process that counted last.
    pub process: String,
    pub starts: u32,
}

/// A value of a link's vault.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SecretRow {
    /// Where the link led when the value was captured. It goes nowhere else.
    pub place: String,
    pub value: String,
}

/// The last wall-clock time that could be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct TimeRow {
    pub at: Instant,
}
