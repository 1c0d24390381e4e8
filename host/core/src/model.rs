//! The host's own words for what crosses the sandbox border.
//!
//! These are the newest shapes. Each published contract version converts to and from them at the edge, in
//! `host/sandbox/src/worlds/`; the journal stores them as JSON. The meaning, unit and limit of every field is
//! documented in `wit/update-adapter.wit`; only what differs is said here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bytes_as_base64;

/// Milliseconds since the Unix epoch.
pub type Instant = u64;
/// A span in milliseconds.
pub type Millis = u64;

/// Largest adapter state.
pub const MAX_STATE: usize = 60_000;
/// Largest job context.
pub const MAX_CONTEXT: usize = 4 * 1024;
/// Largest MQTT payload or HTTP body.
pub const MAX_PAYLOAD: usize = 256 * 1024;
/// Most effects in one step.
pub const MAX_EFFECTS: usize = 256;
/// Largest sum of a step's effects.
pub const MAX_STEP_BYTES: usize = 1024 * 1024;
/// Longest identifier, key, tag or token.
pub const MAX_ID: usize = 200;

/// Severity of a log line or alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each word")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// How far the wall clock can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each word")]
pub enum ClockQuality {
    Unset,
    Floor,
    Synced,
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Field {
    pub name: String,
    pub value: String,
}

/// What an adapter says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Description {
    pub protocol: String,
    pub version: String,
    pub config_schema: String,
    pub state_version: u32,
}

/// MQTT topics an adapter wants on one link.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct TopicNeeds {
    pub link: String,
    pub subscribe: Vec<String>,
    pub publish: Vec<String>,
}

/// An HTTP route an adapter wants to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct RouteNeed {
    pub link: String,
    pub method: String,
    pub path: String,
    pub max_body: u32,
}

/// A request an adapter will send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct CallNeed {
    pub link: String,
    pub method: String,
    pub path: String,
    pub secrets: Vec<String>,
}

/// All an adapter will ever ask for with one configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Requirements {
    pub topics: Vec<TopicNeeds>,
    pub routes: Vec<RouteNeed>,
    pub calls: Vec<CallNeed>,
    pub sources: Vec<String>,
    pub downloads: Vec<String>,
    pub targets: Vec<String>,
}

/// Why an adapter is told that it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each case")]
pub enum StartReason {
    Booted,
    Restarted,
    Installed,
    Upgraded(String),
    RolledBack(String),
    Reconfigured,
}

/// A link came up or went down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct LinkState {
    pub link: String,
    pub up: bool,
    pub session_present: bool,
    pub reason: String,
}

/// An MQTT message that arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Message {
    pub link: String,
    pub topic: String,
    #[serde(with = "bytes_as_base64")]
    pub payload: Vec<u8>,
    pub duplicate: bool,
    pub retained: bool,
}

/// An HTTP request that arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct InboundRequest {
    pub id: String,
    pub link: String,
    pub method: String,
    pub path: String,
    pub query: Vec<Field>,
    pub headers: Vec<Field>,
    #[serde(with = "bytes_as_base64")]
    pub body: Vec<u8>,
    pub principal: String,
    pub deadline: Instant,
}

/// A complete HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct HttpResponse {
    pub status: u16,
    pub headers: Vec<Field>,
    #[serde(with = "bytes_as_base64")]
    pub body: Vec<u8>,
}

/// How a fetch ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each case")]
pub enum FetchResult {
    Answered(HttpResponse),
    Failed(String),
    Interrupted,
}

/// Answer to a fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct FetchOutcome {
    pub tag: String,
    pub outcome: FetchResult,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct DirectoryEntry {
    pub name: String,
    pub directory: bool,
    pub size: Option<u64>,
    pub modified: Option<Instant>,
}

/// Answer to a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct ListingOutcome {
    pub tag: String,
    pub entries: Result<Vec<DirectoryEntry>, String>,
}

/// One attempt to transfer an artifact failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct FailedAttempt {
    pub job: String,
    pub install: u32,
    pub attempt: u32,
    pub status: u16,
    pub headers: Vec<Field>,
    #[serde(with = "bytes_as_base64")]
    pub body: Vec<u8>,
    pub reason: String,
}

/// Something the contract does not know yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Extension {
    pub name: String,
    pub data: String,
}

/// What an adapter can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each case")]
pub enum Event {
    Started(StartReason),
    Link(LinkState),
    Message(Message),
    Request(InboundRequest),
    Response(FetchOutcome),
    Listing(ListingOutcome),
    Attempt(FailedAttempt),
    Job(JobReport),
    Target(String),
    Timer(String),
    Extension(Extension),
}

impl Event {
    /// The event's kind in one word, for logs and counters.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Started(_) => "started",
            Event::Link(_) => "link",
            Event::Message(_) => "message",
            Event::Request(_) => "request",
            Event::Response(_) => "response",
            Event::Listing(_) => "listing",
            Event::Attempt(_) => "attempt",
            Event::Job(_) => "job",
            Event::Target(_) => "target",
            Event::Timer(_) => "timer",
            Event::Extension(_) => "extension",
        }
    }
}

/// What is known of a target's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each word")]
pub enum Health {
    Unknown,
    Healthy,
    Unwell,
    Offline,
}

/// Something that can be updated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Target {
    pub id: String,
    pub parent: Option<String>,
    pub version: Option<String>,
    pub health: Health,
    pub observed: Option<Instant>,
    pub attributes: Vec<Field>,
    pub busy: Option<String>,
}

/// A path on a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct LinkPath {
    pub link: String,
    pub path: String,
}

/// Where an artifact comes from.
///
/// `Debug` and `Display` leave out the query of a URL: it may be a signature.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArtifactSource {
    /// An absolute `http` or `https` URL, fetched without credentials.
    Url(String),
    /// A path on a link, fetched with that link's credentials.
    OnLink(LinkPath),
    /// A file of the operator's, by `otahost install`. Adapters cannot name it.
    File(String),
}

impl ArtifactSource {
    /// Forgets what may have been a signature or a token: the query, and what stands before the host. What remains can be shown, and
    /// fetched no more.
    pub fn forget_query(&mut self) {
        let shown = self.to_string();
        match self {
            ArtifactSource::Url(url) => *url = shown,
            ArtifactSource::OnLink(place) => {
                place.path = crate::paths::without_query(&place.path).to_owned();
            }
            ArtifactSource::File(_) => {}
        }
    }
}

impl Artifact {
    /// What a platform calls the content, by which it is known again before it is fetched: its digests, and its identity.
    pub fn marks(&self) -> Vec<String> {
        let identity = self.identity.iter().map(|id| format!("identity:{id}"));
        self.digests.iter().cloned().chain(identity).collect()
    }
}

impl fmt::Display for ArtifactSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArtifactSource::Url(url) => {
                let shown = url.split(['?', '#']).next().unwrap_or_default();
                // A user and password before the host are no part of what may be shown either.
                match shown.split_once("://").and_then(|(s, rest)| {
                    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                    authority
                        .rsplit_once('@')
                        .map(|(_, host)| format!("{s}://{host}{path}"))
                }) {
                    Some(clean) => f.write_str(&clean),
                    None => f.write_str(shown),
                }
            }
            ArtifactSource::OnLink(p) => {
                write!(f, "{}:{}", p.link, crate::paths::without_query(&p.path))
            }
            ArtifactSource::File(path) => f.write_str(path),
        }
    }
}

impl fmt::Debug for ArtifactSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArtifactSource({self})")
    }
}

/// The bytes to install.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Artifact {
    pub source: ArtifactSource,
    pub size: Option<u64>,
    pub digests: Vec<String>,
    pub identity: Option<String>,
}

/// One target and what shall run on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Install {
    pub target: String,
    pub artifact: Artifact,
    pub version: String,
}

/// When a prepared job goes on to flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each word")]
pub enum Apply {
    Immediately,
    WhenTold,
}

/// How long a key stands for the same request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each case")]
pub enum Dedupe {
    WhileActive,
    Lasting(Millis),
}

/// A request for an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct JobPlan {
    pub key: String,
    pub dedupe: Dedupe,
    #[serde(with = "bytes_as_base64")]
    pub context: Vec<u8>,
    pub installs: Vec<Install>,
    pub apply: Apply,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each word")]
pub enum Phase {
    Queued,
    Waiting,
    Downloading,
    Verifying,
    Prepared,
    Delivering,
    Delivered,
    Installing,
    Activating,
    Confirming,
    Succeeded,
    Rejected,
    Failed,
    RolledBack,
    RollbackFailed,
    Cancelled,
    Partial,
}

impl Phase {
    /// True when nothing follows.
    pub fn is_final(self) -> bool {
        self >= Phase::Succeeded
    }

    /// True from the commit of `activating` on, until the end: nobody can cancel any more.
    pub fn is_past_return(self) -> bool {
        matches!(self, Phase::Activating | Phase::Confirming)
    }

    /// The word of the contract.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Queued => "queued",
            Phase::Waiting => "waiting",
            Phase::Downloading => "downloading",
            Phase::Verifying => "verifying",
            Phase::Prepared => "prepared",
            Phase::Delivering => "delivering",
            Phase::Delivered => "delivered",
            Phase::Installing => "installing",
            Phase::Activating => "activating",
            Phase::Confirming => "confirming",
            Phase::Succeeded => "succeeded",
            Phase::Rejected => "rejected",
            Phase::Failed => "failed",
            Phase::RolledBack => "rolled-back",
            Phase::RollbackFailed => "rollback-failed",
            Phase::Cancelled => "cancelled",
            Phase::Partial => "partial",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a job waits, was refused or failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Reason {
    pub code: String,
    pub stage: String,
    pub text: String,
}

impl Reason {
    /// A reason from its three parts.
    pub fn new(code: &str, stage: &str, text: impl Into<String>) -> Self {
        Reason {
            code: code.into(),
            stage: stage.into(),
            text: text.into(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} at {})", self.text, self.code, self.stage)
    }
}

/// How one install of a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct InstallReport {
    pub target: String,
    pub phase: Phase,
    pub received: u64,
    pub total: Option<u64>,
    pub percent: u8,
    pub old_version: Option<String>,
    pub new_version: String,
    pub reason: Option<Reason>,
}

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct JobReport {
    pub key: String,
    pub foreign: bool,
    #[serde(with = "bytes_as_base64")]
    pub context: Vec<u8>,
    pub phase: Phase,
    pub paused: bool,
    pub until: Option<Instant>,
    pub reason: Option<Reason>,
    pub rate: u64,
    pub installs: Vec<InstallReport>,
}

/// A job in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct JobSummary {
    pub key: String,
    pub foreign: bool,
    pub phase: Phase,
    pub targets: Vec<String>,
}

/// What the host answers to a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each case")]
pub enum Verdict {
    Allow,
    Defer(Instant),
    Refuse(Reason),
    Busy(String),
}

/// How long a publication is kept for a broker that is away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each case")]
pub enum Persistence {
    Durable,
    Latest(String),
}

/// An MQTT message to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Publication {
    pub link: String,
    pub topic: String,
    #[serde(with = "bytes_as_base64")]
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub persistence: Persistence,
}

/// The answer to an inbound request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct ResponseTo {
    pub request: String,
    pub response: HttpResponse,
}

/// Whether a request may be sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each word")]
pub enum Repeat {
    Safe,
    Once,
}

/// A value of a JSON answer that becomes a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Capture {
    pub pointer: String,
    pub secret: String,
}

/// A small HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Fetch {
    pub tag: String,
    pub link: String,
    pub method: String,
    pub path: String,
    pub headers: Vec<Field>,
    #[serde(with = "bytes_as_base64")]
    pub body: Vec<u8>,
    pub captures: Vec<Capture>,
    pub repeat: Repeat,
    pub timeout: Millis,
    pub redirects: u8,
}

/// A directory to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct ListingRequest {
    pub tag: String,
    pub source: LinkPath,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each case")]
pub enum RetryDecision {
    After(Millis),
    WithSource(ArtifactSource),
    Stop(String),
}

/// The answer to a failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Retry {
    pub job: String,
    pub install: u32,
    pub decision: RetryDecision,
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Timer {
    pub name: String,
    pub after: Millis,
    pub period: Option<Millis>,
}

/// Something a person has to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Alert {
    pub code: String,
    pub level: Level,
    pub text: String,
}

/// What an adapter can ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the contract documents each case")]
pub enum Effect {
    Publish(Publication),
    Respond(ResponseTo),
    Fetch(Fetch),
    ListDirectory(ListingRequest),
    StartJob(JobPlan),
    RetryAttempt(Retry),
    ApplyJob(String),
    PauseJob(String),
    ResumeJob(String),
    CancelJob(String),
    ConfirmJob(String),
    SetTimer(Timer),
    CancelTimer(String),
    Alert(Alert),
    Extension(Extension),
}

impl Effect {
    /// The effect's kind in one word, for logs and errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Effect::Publish(_) => "publish",
            Effect::Respond(_) => "respond",
            Effect::Fetch(_) => "fetch",
            Effect::ListDirectory(_) => "list-directory",
            Effect::StartJob(_) => "start-job",
            Effect::RetryAttempt(_) => "retry-attempt",
            Effect::ApplyJob(_) => "apply-job",
            Effect::PauseJob(_) => "pause-job",
            Effect::ResumeJob(_) => "resume-job",
            Effect::CancelJob(_) => "cancel-job",
            Effect::ConfirmJob(_) => "confirm-job",
            Effect::SetTimer(_) => "set-timer",
            Effect::CancelTimer(_) => "cancel-timer",
            Effect::Alert(_) => "alert",
            Effect::Extension(_) => "extension",
        }
    }
}

/// The outcome of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the contract documents each field")]
pub struct Step {
    pub state: Vec<u8>,
    pub effects: Vec<Effect>,
}
