//! The local API: how a person at the device, a script or a neighbour process asks the agent.
//!
//! A Unix socket that only the agent's user can open. The client sends one JSON object on one line; the server answers one or
//! more lines, each a JSON object, and closes. An empty line means that it is still there. Nothing of it leaves the device.

pub mod client;
pub mod server;

use otahost_core::job::{Activation, GateAt};
use otahost_core::model::{ClockQuality, Instant, Millis, Phase, Reason};
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
    /// Stop a job for now: answered with [`Reply::Done`], also when it is paused already, or an error ([`ErrorCode::TooLate`] past the
    /// point of no return). Its time goes on.
    Pause {
        /// The job's key.
        key: String,
    },
    /// Let a paused job go on: answered with [`Reply::Done`], also when it is not paused, or an error.
    Resume {
        /// The job's key.
        key: String,
    },
    /// Forget images that were rolled back on a target, so that they are allowed again: answered with [`Reply::Cleared`] once that is
    /// durable, or an error ([`ErrorCode::UnknownTarget`]).
    Clear {
        /// The target's name.
        target: String,
        /// SHA-256 of the payload, a digest as the platform gave it (`md5:<hex>`), or a version; without it all of them.
        #[serde(default)]
        image: Option<String>,
    },
    /// Have an adapter run another version, a component in a file on this device: answered with [`Reply::Done`] once it runs, durably, or
    /// an error; then the version before goes on.
    AdapterInstall {
        /// The adapter's name.
        adapter: String,
        /// Absolute path of the component.
        path: String,
    },
    /// Have an adapter return to the version before: answered with [`Reply::Done`], or an error.
    AdapterRollback {
        /// The adapter's name.
        adapter: String,
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
        /// What the job's key is to be called behind `operator/`: 1 to 150 letters, digits, `.`, `_` and `-`. Without it a number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
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
    /// So many images are allowed again.
    Cleared {
        /// How many were forgotten.
        images: u64,
    },
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
    /// No adapter with this name runs.
    UnknownAdapter,
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
    /// The agent crashed too often: no adapter runs and no link connects.
    #[serde(default)]
    pub safe_mode: bool,
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
    /// `mqtt`, `http_server`, `http_client` or `ftps`.
    pub kind: String,
    /// Connected and subscribed, or listening. A link that connects only when there is something to do counts as up.
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
    /// Why its version cannot be read.
    #[serde(default)]
    pub version_fault: Option<String>,
    /// What is remembered of it.
    #[serde(default)]
    pub memory: MemoryView,
}

/// What is remembered of a target over jobs, reboots and years.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryView {
    /// The update that went wrong last, if none has succeeded since: one that was rolled back, else one that failed.
    pub last_failed: Option<FailureView>,
    /// Images that were rolled back, that of the last rollback at the end.
    pub bad: Vec<BadImageView>,
    /// Activations within the last 24 hours.
    pub activations: u32,
    /// So many are allowed.
    pub activations_allowed: u32,
    /// When the next is allowed, if it is not now.
    pub activations_until: Option<Instant>,
    /// Images with a lower rollback index are refused.
    pub rollback_index: u64,
}

/// An update of a target that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// Key of the job.
    pub job: String,
    /// When the job ended.
    pub at: Instant,
    /// `failed`, `rolled-back` or `rollback-failed`.
    pub phase: Phase,
    /// The version that was to run.
    pub version: String,
    /// SHA-256 of the payload, lower-case hex, if it was seen.
    pub sha256: Option<String>,
    /// Why.
    pub reason: Option<Reason>,
}

/// An image that was rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadImageView {
    /// SHA-256 of the payload, lower-case hex.
    pub sha256: String,
    /// The version it was announced as last; may be empty.
    pub version: String,
    /// How often it was rolled back.
    pub rollbacks: u32,
    /// It is refused to every adapter; otherwise only to those that find it by themselves, and not when a platform orders it.
    pub refused_always: bool,
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
    /// It is not the configured component, but one that was installed in its place.
    #[serde(default)]
    pub installed: bool,
    /// It is on probation: so many of its calls failed so far.
    #[serde(default)]
    pub strikes: Option<u32>,
    /// The version it can return to.
    #[serde(default)]
    pub previous: Option<String>,
    /// Digests of versions that were left.
    #[serde(default)]
    pub rejected: Vec<String>,
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
    /// What it waits at, in phase `waiting`.
    #[serde(default)]
    pub gate: Option<GateAt>,
    /// Index of the install that is worked on.
    #[serde(default)]
    pub current: usize,
    /// It goes on only when its owner says so: with another source, with the installation, or with the new version.
    #[serde(default)]
    pub awaits_owner: bool,
    /// Its owner says when what is verified gets installed.
    #[serde(default)]
    pub when_told: bool,
    /// Failed transfer attempts in a row without progress.
    #[serde(default)]
    pub failed_attempts: u32,
    /// So many are allowed.
    #[serde(default)]
    pub allowed_attempts: u32,
    /// How far the activation has come, from `activating` on.
    #[serde(default)]
    pub activation: Option<Activation>,
    /// The new version did not prove itself, and the old one is being brought back.
    #[serde(default)]
    pub rolling_back: bool,
    /// Milliseconds until it is given up in this phase, or goes back to the old version.
    #[serde(default)]
    pub time_left: Option<Millis>,
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
