//! The local API: how a person at the device, a script or a neighbour process asks the agent.
//!
//! A Unix socket that only the agent's user can open. The client sends one JSON object on one line; the server answers one or
//! more lines, each a JSON object, and closes. An empty line means that it is still there. Nothing of it leaves the device.

mod adapters;
pub mod client;
pub mod server;

use std::fmt;
use std::sync::Arc;

use otahost_core::job::{Activation, GateAt};
use otahost_core::model::{ClockQuality, Instant, Millis, Phase, Reason};
use otahost_sandbox::Brief;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use adapters::{
    AdapterDetails, AdapterLogs, DeadView, RecordView, ReplayReport, TakenView, TimerView,
    VersionsView, WishView,
};
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
    /// Have an adapter run another version, a component in a file on this device: answered with [`Reply::Taken`] once it runs, durably, or
    /// an error; then the version before goes on.
    AdapterInstall {
        /// The adapter's name.
        adapter: String,
        /// Absolute path of the component.
        path: String,
    },
    /// A version of an adapter that a source of the agent's own has, to be run when nothing stands against it: answered as
    /// [`Request::AdapterInstall`], or with [`Reply::Waiting`]. It has no form on the wire: a client's word is the operator's.
    #[serde(skip)]
    AdapterOffer {
        /// The adapter's name.
        adapter: String,
        /// Who offers it.
        origin: AdapterOrigin,
        /// The component.
        component: Component,
    },
    /// All there is to say of one adapter: answered with [`Reply::Adapter`], or an error ([`ErrorCode::UnknownAdapter`]).
    AdapterInspect {
        /// The adapter's name.
        adapter: String,
    },
    /// What an adapter did, step by step: answered with [`Reply::Logs`], and with one [`Reply::Logged`] for each step to come when
    /// `follow` is set, or an error.
    AdapterLogs {
        /// The adapter's name.
        adapter: String,
        /// At most so many steps, the newest; without it all that are on record.
        #[serde(default)]
        last: Option<u64>,
        /// Stay and read along.
        #[serde(default)]
        follow: bool,
    },
    /// Run recorded steps of an adapter again, which changes nothing: answered with [`Reply::Replayed`], or an error
    /// ([`ErrorCode::UnknownStep`]; [`ErrorCode::Unavailable`] while another replay runs).
    AdapterReplay {
        /// The adapter's name.
        adapter: String,
        /// Absolute path of the component to run them on; without it the one that runs.
        #[serde(default)]
        path: Option<String>,
        /// Only the step with this number.
        #[serde(default)]
        step: Option<u64>,
        /// Only the dead letter with this number.
        #[serde(default)]
        dead: Option<u64>,
    },
    /// Have an adapter return to the version before: answered with [`Reply::Done`], or an error.
    AdapterRollback {
        /// The adapter's name.
        adapter: String,
    },
    /// Take in what was changed of the configuration and of the components: answered with [`Reply::Reloaded`], or an error
    /// ([`ErrorCode::Configuration`]); then the configuration before goes on.
    Reload,
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

/// Who has an adapter run a version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdapterOrigin {
    /// A person or script, by the local API.
    #[default]
    Operator,
    /// The repository with this name.
    Repository(String),
    /// The adapter's file, which was replaced while the agent runs.
    DropIn,
}

impl fmt::Display for AdapterOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdapterOrigin::Operator => f.write_str("an operator's file"),
            AdapterOrigin::Repository(name) => write!(f, "repository {name}"),
            AdapterOrigin::DropIn => f.write_str("its file"),
        }
    }
}

/// The bytes of a component. Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Component(pub Arc<[u8]>);

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Component({} bytes)", self.0.len())
    }
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
    /// The adapter runs another version now.
    Taken(Box<TakenView>),
    /// All there is to say of one adapter.
    Adapter(Box<AdapterDetails>),
    /// What an adapter did.
    Logs(Box<AdapterLogs>),
    /// What an adapter did just now.
    Logged(Box<Brief>),
    /// What recorded steps gave.
    Replayed(Box<ReplayReport>),
    /// The version asks for more than is granted and waits for the operator; the one before goes on.
    Waiting {
        /// Its own version.
        version: String,
        /// `sha256:` and the digest of its component.
        digest: String,
        /// What it asks for beyond its grants, and the line that each needs.
        missing: Vec<String>,
    },
    /// What was changed on the device is taken in, as far as it can be.
    Reloaded {
        /// What is new, in words; empty when nothing was changed.
        changed: Vec<String>,
        /// What is not taken in, and why.
        wrong: Vec<String>,
    },
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
    /// No step or dead letter with this number is on record.
    UnknownStep,
    /// Something else holds the target.
    Busy,
    /// Policy, trust or the artifact itself forbid it.
    Refused,
    /// The configuration has faults, or cannot be changed so while the agent runs.
    Configuration,
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
    /// What is wrong with the agent's own memory; nothing as a rule.
    #[serde(default)]
    pub journal: JournalView,
    /// Links by name.
    pub links: Vec<LinkView>,
    /// Targets in the order of the configuration.
    pub targets: Vec<TargetView>,
    /// Adapters by name.
    pub adapters: Vec<AdapterView>,
    /// Where new versions of adapters are looked for, by name.
    #[serde(default)]
    pub repositories: Vec<RepositoryView>,
    /// Components in the adapters directory that do not run.
    #[serde(default)]
    pub drop_ins: Vec<DropInView>,
    /// Why what was changed of the configuration last is not taken in; what was there before goes on.
    #[serde(default)]
    pub problem: Option<String>,
    /// Jobs that have not ended.
    pub jobs: Vec<JobView>,
}

/// A component in the adapters directory that no table of the configuration names, and that does not run without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropInView {
    /// What the adapter would be called.
    pub name: String,
    /// The file.
    pub path: String,
    /// Why it does not run.
    pub why: String,
    /// What the configuration needs for it, as TOML; empty where nothing would help.
    pub lines: String,
}

/// What is wrong with the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JournalView {
    /// It cannot be used: why, and what is needed. Nothing new is begun as long as that is so.
    pub missing: Option<String>,
    /// It was damaged and replaced. Told until the damaged file is taken away.
    pub damaged: Option<DamageView>,
}

/// What became of a damaged journal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DamageView {
    /// What was wrong with it.
    pub why: String,
    /// Name of the file it is kept in, in the data directory.
    pub kept: String,
    /// Rows that could be read of it and go on.
    pub rows: u64,
}

/// How a repository of adapters was found when it was looked at last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryView {
    /// Its name.
    pub name: String,
    /// The URL or directory.
    pub place: String,
    /// When it was looked at last; `None`: not since the agent has started.
    pub looked: Option<Instant>,
    /// What came of it.
    pub outcome: RepositoryOutcome,
    /// That in words.
    pub text: String,
    /// When what it says expires, unless it is signed again; RFC 3339.
    #[serde(default)]
    pub expires: Option<String>,
}

/// What came of a look at a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepositoryOutcome {
    /// It was not looked at yet, or cannot be before something else happens: the clock is not set, the medium is not there.
    Pending,
    /// What it offers was read, and there is nothing to take.
    Current,
    /// A version was taken.
    Taken,
    /// It offers a version that is not taken: see `waiting` of the adapter, or the text.
    NotTaken,
    /// It was refused or could not be read. Nothing was changed.
    Failed,
}

/// A version of an adapter that is there and does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingView {
    /// Its own version.
    pub version: String,
    /// `sha256:` and the digest of its component.
    pub digest: String,
    /// Who offers it.
    pub source: String,
    /// What it asks for beyond its grants, and the line that each needs; it is taken once they are there.
    pub missing: Vec<String>,
    /// Why it cannot run at all; empty when only grants are missing.
    pub why: String,
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
    /// Where its native code came from: `cached`, or `compiled: ` and why.
    #[serde(default)]
    pub loaded: String,
    /// It is not the configured component, but one that was installed in its place.
    #[serde(default)]
    pub installed: bool,
    /// Who had it installed; `None` for the configured component.
    #[serde(default)]
    pub origin: Option<AdapterOrigin>,
    /// Versions that are there and do not run.
    #[serde(default)]
    pub waiting: Vec<WaitingView>,
    /// It is on probation: so many of its calls failed so far.
    #[serde(default)]
    pub strikes: Option<u32>,
    /// The version it can return to.
    #[serde(default)]
    pub previous: Option<String>,
    /// Digests of versions that were left.
    #[serde(default)]
    pub rejected: Vec<String>,
    /// How its last steps went, or why it does not run.
    pub health: AdapterHealth,
    /// Why what should run does not, where something else runs in its place.
    #[serde(default)]
    pub fault: Option<String>,
    /// Messages that wait for it.
    #[serde(default)]
    pub inbox: u64,
    /// Events that failed for good and were set aside.
    pub dead_letters: u64,
}

/// How an adapter's last steps went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdapterHealth {
    /// Well.
    Running,
    /// The last step failed.
    Failing {
        /// Why.
        last_failure: String,
    },
    /// No version of it can run. Nothing of it is lost, and what comes in waits.
    SetAside {
        /// Why.
        why: String,
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
