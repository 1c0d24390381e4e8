//! The loop of DESIGN §1: events in, steps and verdicts, one commit, effects out.
//!
//! One task owns all state. Everything that takes time (a guest call, a commit, a transfer, a flash operation) runs elsewhere
//! and comes back as an [`Input`]. What leaves the engine leaves by a release, and a release waits until every commit before it is
//! durable. When a commit fails its outcome is unknown: the engine ends with [`Exit::Reload`], and its owner builds
//! another one from the journal, which is the same path as after a crash.

mod acks;
mod alerts;
mod aside;
mod attempts;
mod calls;
mod choose;
mod commits;
mod details;
mod early;
mod facts;
mod flashing;
mod gates;
mod inbox;
mod inspect;
mod jobs;
mod keeping;
mod links;
mod load;
mod migration;
mod orphans;
mod outbox;
mod plans;
mod replays;
mod requests;
mod rounds;
mod rows;
mod standing;
mod status;
mod steps;
mod swap;
mod timers;
mod trace;
mod transfers;
mod turns;
mod vitals;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use otahost_core::job::{self, Job};
use otahost_core::model::{Health, Instant};
use otahost_core::policy::memory::TargetMemory;
use otahost_journal::{Committer, JournalError, Key};
use otahost_links::LinkEvent;
use otahost_sandbox::{Failure, Handled, Recording};
use tokio::sync::mpsc;

use crate::api::ApiCall;
use crate::platform::{Platform, Setup, TargetSetup};

use self::commits::Pending;
pub use self::early::Early;
use self::facts::Targets;
use self::flashing::Working;
pub(crate) use self::inspect::{Contents, inspect};
use self::links::LinkState;
use self::rows::PartialRow;
use self::steps::AdapterState;
use self::timers::Timers;
use self::transfers::Transfer;
use self::turns::Turns;
use self::vitals::Vitals;

/// Commands of the outside to a running engine that may wait.
pub(crate) const INPUTS: usize = 256;
/// Time a reboot waits for publications to reach the broker. What does not is sent after the boot, if it is durable.
const FLUSH_BEFORE_REBOOT: Duration = Duration::from_secs(2);

/// Why the engine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It was told to stop.
    Stopped,
    /// The device was asked to reboot and took the request.
    Rebooting,
    /// A commit failed, or the journal can be used again: open it and start again.
    Reload(String),
}

/// What the outside can tell the engine.
#[derive(Debug)]
pub enum Input {
    /// A link says something.
    Link(String, LinkEvent),
    /// The local API asks something.
    Api(ApiCall),
    /// End.
    Stop,
}

/// What the work beside the engine tells it.
#[derive(Debug)]
enum Done {
    /// A guest call ended, and this is on record of it.
    Stepped(String, Box<(Result<Handled, Failure>, Recording)>),
    /// A commit ended.
    Committed(u64, Result<(), JournalError>),
    /// Something happened to a job.
    Job(u64, job::Input),
    /// A transfer attempt failed.
    Attempt(u64, attempts::Attempt),
    /// A transfer has got so far.
    Fetched(transfers::Fetched),
    /// A transfer wants its checkpoint kept.
    Checkpoint(u64, Box<PartialRow>),
    /// A target was asked for its version and health.
    Observed(String, Result<String, String>, Health),
    /// A round came by a target.
    Seen(String, Result<String, String>, Health),
    /// Another version of an adapter was looked at, for this client.
    Prepared(
        String,
        Result<Box<crate::platform::AdapterSetup>, String>,
        swap::Client,
    ),
    /// Another version of an adapter was tried on what there is of the one that runs.
    Tried(String, Result<Box<crate::api::ReplayReport>, String>),
    /// State and contexts of an adapter were copied into the form of another version.
    Migrated(String, Result<Box<migration::Migrated>, String>),
    /// The former version of an adapter was given an event that the new one fails at.
    Compared(String, Result<(), String>),
    /// A sink was given an alert, after so many failures.
    Alerted(u64, String, u32, Result<(), String>),
    /// What became of a version on trial that no job speaks of.
    Orphan(String, orphans::Ended),
    /// The journal can be used again.
    JournalFound,
    /// The reboot was asked for.
    RebootAsked(u64, Result<(), String>),
}

/// What leaves the engine once everything before it is durable.
#[derive(Debug)]
enum Release {
    /// This message of this link needs no redelivery any more.
    Settle {
        link: String,
        number: acks::MessageNumber,
    },
    /// A publication may be sent.
    Publish {
        id: u64,
        adapter: String,
        publication: otahost_core::model::Publication,
    },
    /// An alert may be given to the sinks.
    Alert(u64),
    /// A request or listing may be sent.
    Call(u64),
    /// What this request brought for the vault is durable.
    Kept { link: String, id: u64 },
    /// The answer to a request that came in.
    Respond {
        link: String,
        id: u64,
        response: otahost_core::model::HttpResponse,
    },
    /// Work on a job.
    Act(u64, job::Action),
    /// Who follows a job is told how it stands.
    Watched(u64),
    /// An answer to a client of the local API.
    Reply(mpsc::Sender<crate::api::Reply>, crate::api::Reply),
}

#[derive(Debug, Default)]
struct TargetState {
    version: Option<String>,
    /// Why the version cannot be read.
    version_fault: Option<String>,
    health: Option<Health>,
    observed: Option<Instant>,
    /// Adapters were told of it since the start. What changed while nobody looked is told at the first occasion.
    told: bool,
    memory: TargetMemory,
    /// The bytes in its staging area.
    partial: Option<(String, PartialRow)>,
}

/// The agent's engine.
#[derive(Debug)]
pub struct Engine {
    platform: Platform,
    setup: Arc<Setup>,
    boot_id: String,
    started: tokio::time::Instant,
    committer: Committer,
    outside: mpsc::Receiver<Input>,
    /// Kept so that the channel stays open when nobody outside holds it.
    outside_sender: mpsc::Sender<Input>,
    inside: mpsc::UnboundedReceiver<Done>,
    tell: mpsc::UnboundedSender<Done>,
    adapters: BTreeMap<String, AdapterState>,
    targets: Targets,
    /// Where each target stands in the set-up.
    setup_index: BTreeMap<String, usize>,
    links: BTreeMap<String, LinkState>,
    jobs: BTreeMap<u64, Job>,
    transfers: BTreeMap<u64, Transfer>,
    /// The newest operation of a flasher for each job, as long as it is wanted.
    working: BTreeMap<u64, Working>,
    turns: Turns,
    /// Since when each active job's `spent` has not been added up.
    phase_since: BTreeMap<u64, tokio::time::Instant>,
    /// Final failures that wait for an adapter's answer.
    asked: BTreeMap<u64, attempts::Asked>,
    /// Ended jobs that nobody is told of yet, and the targets that have to be looked at before.
    looks: BTreeMap<u64, BTreeSet<String>>,
    /// When the examination of a new version began, by job.
    examining: BTreeMap<u64, tokio::time::Instant>,
    alerts: alerts::Alerts,
    calls: calls::Calls,
    requests: requests::Requests,
    timers: Timers,
    vitals: Vitals,
    keeping: keeping::Keeping,
    next_job: u64,
    next_publication: u64,
    pending: VecDeque<Pending>,
    next_commit: u64,
    early: Option<Early>,
    /// Rows that are of no use any more; deleted with the next commit, or after a while by one of their own.
    garbage: Vec<Key>,
    garbage_due: Option<tokio::time::Instant>,
    /// When it is looked whether messages have waited with a broker for too long.
    relief_due: Option<tokio::time::Instant>,
    /// When a commit may take recorded steps along again.
    steps_due: Option<tokio::time::Instant>,
    /// One replay at a time.
    replays: Arc<tokio::sync::Semaphore>,
    /// The job that waits for its reboot, and until when publications may hold it up.
    rebooting: Option<(u64, tokio::time::Instant)>,
    reboot_asked: bool,
    /// Observed transfer rate, bytes a second.
    rate: u64,
    watchers: Vec<status::Watcher>,
    exit: Option<Exit>,
}

impl Engine {
    /// Where the outside sends inputs.
    pub fn sender(&self) -> mpsc::Sender<Input> {
        self.outside_sender.clone()
    }

    /// Runs until it ends.
    pub async fn run(mut self) -> Exit {
        loop {
            self.pump();
            if let Some(exit) = self.exit.take() {
                self.stop_transfers();
                self.stop_all_work();
                if !matches!(exit, Exit::Reload(_)) {
                    self.is_well();
                    if !self.garbage.is_empty() {
                        // What reached the broker is not sent again after the start.
                        self.garbage_due = Some(tokio::time::Instant::now());
                        self.steps_due = None;
                        self.commit(Vec::new(), Vec::new());
                    }
                }
                // The journal must be closed before anybody opens it again.
                self.committer.close().await;
                return exit;
            }
            let due = self.next_due();
            let sleep = async move {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(done) = self.inside.recv() => self.on_done(done),
                Some(input) = self.outside.recv() => self.handle(input),
                () = sleep => self.on_time(),
            }
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Link(link, event) => self.on_link(&link, event),
            Input::Api(call) => self.on_api(call),
            Input::Stop => self.exit = Some(Exit::Stopped),
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Stepped(adapter, done) => {
                let (outcome, recording) = *done;
                self.on_stepped(&adapter, outcome, recording);
            }
            Done::Committed(number, result) => self.on_committed(number, result),
            Done::Job(id, input @ job::Input::Staged { .. }) => self.on_staged(id, input),
            Done::Job(id, input) => self.on_job(id, input),
            Done::Attempt(id, attempt) => self.on_attempt(id, attempt),
            Done::Fetched(fetched) => self.on_fetched(fetched),
            Done::Checkpoint(id, row) => self.on_checkpoint(id, *row),
            Done::Observed(target, version, health) => {
                self.on_observed(&target, version, health);
                self.on_looked_at(&target);
            }
            Done::Seen(target, version, health) => self.on_seen(&target, version, health),
            Done::Prepared(adapter, prepared, client) => {
                self.on_prepared(&adapter, prepared, client);
            }
            Done::Tried(adapter, tried) => self.on_tried(&adapter, tried),
            Done::Migrated(adapter, made) => self.on_migrated(&adapter, made),
            Done::Compared(adapter, former) => self.on_compared(&adapter, former),
            Done::Alerted(seq, sink, failures, result) => {
                self.on_alerted(seq, sink, failures, result);
            }
            Done::Orphan(target, ended) => self.on_orphan(&target, ended),
            Done::JournalFound => self.on_journal_found(),
            Done::RebootAsked(id, result) => self.on_reboot_asked(id, result),
        }
    }

    /// Does everything that can be done without waiting.
    fn pump(&mut self) {
        self.next_turns();
        self.start_swaps();
        self.start_steps();
        self.pump_links();
        self.try_reboot();
    }

    fn on_time(&mut self) {
        let now = tokio::time::Instant::now();
        self.fire_timers(now);
        self.fire_deadlines(now);
        self.check_vitals(now);
        self.keep_spending(now);
        self.relieve_brokers(now);
        if self.garbage_due.is_some_and(|due| due <= now) {
            self.commit(Vec::new(), Vec::new());
        }
    }

    fn next_due(&self) -> Option<tokio::time::Instant> {
        let reboot = self
            .rebooting
            .filter(|_| !self.reboot_asked)
            .map(|(_, until)| until);
        [
            self.timers.next_due(),
            self.garbage_due,
            self.relief_due,
            self.next_deadline(),
            self.next_vital(),
            self.next_spending(),
            reboot,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What the configuration says of a target; none when it is not configured any more.
    fn target_setup(&self, target: &str) -> Option<&TargetSetup> {
        self.setup.targets.get(*self.setup_index.get(target)?)
    }
}
