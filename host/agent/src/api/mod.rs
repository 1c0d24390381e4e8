//! The local API: how a person at the device, a script or a neighbour process asks the agent.
//!
//! A Unix socket that only the agent's user can open. The client sends one JSON object on one line; the server answers one or
//! more lines, each a JSON object, and closes. An empty line means that it is still there. Nothing of it leaves the device.

pub mod client;
pub mod server;

use otahost_core::model::{ClockQuality, Instant, Phase, Reason};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use client::{CallError, Client};
pub use server::{Server, serve};

/// What a client asks for: `{"request": "jobs", "key": null}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// How the agent is: answered with one [`Reply::Status`].
    Status,
    /// The jobs with this key, or all that are remembered, newest first: answered with one [`Reply::Jobs`].
    Jobs {
        /// A job's key, or nothing for all.
        #[serde(default)]
        key: Option<String>,
    },
    /// One job: answered with one [`Reply::Job`], and with another for each change until its end when `follow` is set.
    Job {
        /// The job's key.
        key: String,
        /// Stay until the job's end.
        #[serde(default)]
        follow: bool,
    },
    /// Cancel a job: answered with [`Reply::Done`], or an error ([`ErrorCode::TooLate`] past the point of no return).
    Cancel {
        /// The job's key.
        key: String,
    },
    /// Install a file that is on this device: answered with [`Reply::Accepted`], or an error.
    Install {
        /// Absolute path of the artifact. It must stay until the job's end.
        path: String,
        /// The target's name.
        target: String,
        /// The version it shall report afterwards; without it the one its signed header names.
        #[serde(default)]
        version: Option<String>,
    },
}

/// What the agent answers: `{"reply": "accepted", "value": {"key": "…"}}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "kebab-case")]
pub enum Reply {
    /// How the agent is.
    Status(Box<StatusView>),
    /// Jobs, newest first.
    Jobs(Vec<JobView>),
    /// One job as it is now.
    Job(Box<JobView>),
    /// The request became the job with this key.
    Accepted {
        /// The job's key.
        key: String,
    },
    /// Done.
    Done,
    /// Not done.
    Error {
        /// What kind of error.
        code: ErrorCode,
        /// What failed and why, and what to do.
        message: String,
    },
}

/// What kind of error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request cannot be understood.
    Invalid,
    /// There is no job with this key.
    UnknownJob,
    /// There is no target with this name.
    UnknownTarget,
    /// Something else holds the target.
    Busy,
    /// Policy, trust or the artifact itself forbid it.
    Refused,
    /// Past the point of no return.
    TooLate,
    /// The agent cannot answer now: it is starting or stopping, or has too many clients.
    Unavailable,
    /// The agent failed at it.
    #[serde(other)]
    Failed,
}

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Name of the device.
    pub device: String,
    /// The agent's version.
    pub version: String,
    /// Milliseconds since the agent started.
    pub uptime_ms: u64,
    /// Changes with every boot of the device.
    pub boot_id: String,
    /// The agent's wall-clock time.
    pub now: Instant,
    /// How far it can be trusted.
    pub clock: ClockQuality,
    /// Links by name.
    pub links: Vec<LinkView>,
    /// Targets in the order of the configuration.
    pub targets: Vec<TargetView>,
    /// Adapters by name.
    pub adapters: Vec<AdapterView>,
    /// Jobs that have not ended.
    pub jobs: Vec<JobView>,
}

/// How a link is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// Its name.
    pub name: String,
    /// `mqtt`.
    pub kind: String,
    /// Connected and subscribed.
    pub up: bool,
    /// Since when; `None` when it was never up.
    pub since: Option<Instant>,
    /// Why it is down; empty when it is up.
    pub reason: String,
    /// Publications that wait for it.
    pub waiting: u64,
}

/// How a target is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetView {
    /// Its name.
    pub id: String,
    /// The version that runs now.
    pub version: Option<String>,
    /// `unknown`, `healthy`, `unwell` or `offline`.
    pub health: String,
    /// When version and health were asked for last.
    pub observed: Option<Instant>,
    /// Its slots; empty for a flasher without.
    pub slots: Vec<SlotView>,
    /// Key of the job that works on it.
    pub busy: Option<String>,
}

/// How a slot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotView {
    /// Its name.
    pub name: String,
    /// `good`, `bad` or `trial`.
    pub state: String,
    /// It is what runs.
    pub running: bool,
}

/// How an adapter is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterView {
    /// Its name.
    pub name: String,
    /// The protocol it speaks.
    pub protocol: String,
    /// Its own version.
    pub version: String,
    /// `sha256:` and the digest of its component.
    pub digest: String,
    /// How its last steps went.
    pub health: AdapterHealth,
    /// Events that failed for good and were set aside.
    pub dead_letters: u64,
}

/// How an adapter's last steps went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdapterHealth {
    /// Well.
    Running,
    /// The last step failed, or it cannot run at all.
    Failing {
        /// Why.
        last_failure: String,
    },
}

/// How a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Unique among all jobs that are remembered.
    pub id: String,
    /// The key its owner gave it.
    pub key: String,
    /// The adapter that asked for it, or `operator`.
    pub owner: String,
    /// Where it stands.
    pub phase: Phase,
    /// It was told to pause.
    pub paused: bool,
    /// When it was asked for.
    pub created: Instant,
    /// Its last change.
    pub updated: Instant,
    /// Why it waits, was refused or failed.
    pub reason: Option<Reason>,
    /// Until when it waits at the longest.
    pub until: Option<Instant>,
    /// Bytes a second, 0 when nothing moves.
    pub rate: u64,
    /// Its installs.
    pub installs: Vec<InstallView>,
    /// What happened, oldest first.
    pub history: Vec<HistoryView>,
}

/// How one install of a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallView {
    /// The target's name.
    pub target: String,
    /// Where it stands.
    pub phase: Phase,
    /// Bytes of the artifact that are here.
    pub received: u64,
    /// Bytes of the artifact, where known.
    pub total: Option<u64>,
    /// Progress of the whole install, 0 to 100.
    pub percent: u8,
    /// The version that ran before.
    pub old_version: Option<String>,
    /// The version that shall run.
    pub new_version: String,
    /// Why it failed.
    pub reason: Option<Reason>,
}

/// One thing that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryView {
    /// When.
    pub at: Instant,
    /// The phase it led to.
    pub phase: Phase,
    /// In words; may be empty.
    pub text: String,
}

/// A request on its way to the engine.
#[derive(Debug)]
pub struct ApiCall {
    /// What is asked for.
    pub request: Request,
    /// Where the answers go; dropping it ends the conversation. It is closed when the client has gone.
    pub reply: mpsc::Sender<Reply>,
}

#[cfg(test)]
mod tests;
