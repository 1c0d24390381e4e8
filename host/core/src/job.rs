//! Jobs: one durable update, from the request to the final report.
//!
//! A job moves only by [`Job::apply`]: what happened goes in, what to do comes out. The caller commits the job first and acts
//! afterwards, so every action can be met again after a power cut, and every action is safe to repeat. What the outside world
//! says (which slot runs, what the version is) is always asked again and never taken from memory.
//!
//! A job may have several installs. All of them are transferred, verified and read back before any is activated; then they are
//! activated one after the other, the device's own last, and the first that does not prove itself ends the row.
//!
//! How every phase answers to what can happen is printed by [`table`](crate::job::table()) into `host/core/JOBS.md`.

mod table;

use serde::{Deserialize, Serialize};

use crate::model::{
    Apply, ArtifactSource, Dedupe, InstallReport, Instant, JobPlan, JobReport, Millis, Phase,
    Reason,
};
use crate::policy::Gate;

pub use table::table;

/// Owner of the jobs that `otahost install` starts.
pub const OPERATOR: &str = "operator";
/// Most lines of a job's history; the oldest go first, but the first of all stays.
pub const MAX_HISTORY: usize = 64;
/// How often one activation or reboot is tried before the job gives up on it.
pub const MAX_TRIES: u32 = 3;
/// How often confirming, or the way back, is tried: a boot selector may be held by another program for a while. With the
/// growing waits between two tries of the way back this is some four minutes.
pub const MAX_SELECTOR_TRIES: u32 = 8;
/// How often a new version that came up may have its boot tries given back after a power cut. Beyond that an image that dies
/// after the agent's start would never fall back.
pub const MAX_REARMS: u32 = 10;

/// A verified payload in a target's staging area.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Where it is, in the flasher's word.
    pub place: String,
    /// Payload bytes.
    pub len: u64,
    /// SHA-256 of the payload, lower-case hex.
    pub sha256: String,
}

/// How far an activation is known to have come. Outside state follows intent → act → read back → done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// It was decided; whether it was done has to be looked up.
    Intent,
    /// It was done and read back.
    Done,
}

/// Where policy and readiness are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateAt {
    /// Before the first byte is fetched.
    Begin,
    /// Before what is staged is installed.
    Install,
    /// Just before the point of no return.
    Activation,
}

/// One line of a job's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryLine {
    /// When, by the wall clock of that time.
    pub at: Instant,
    /// The phase it entered or stayed in.
    pub phase: Phase,
    /// What happened, in words.
    pub text: String,
}

/// How one install ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// A final phase.
    pub phase: Phase,
    /// Why, when it did not succeed.
    pub reason: Option<Reason>,
}

/// How one install of a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InstallState {
    /// Bytes of the artifact that are here.
    pub received: u64,
    /// Most bytes that ever were here: only what goes beyond it is progress.
    pub furthest: u64,
    /// Size of the artifact, once known.
    pub total: Option<u64>,
    /// Bytes fetched over the network by all attempts.
    pub fetched: u64,
    /// Version before.
    pub old_version: Option<String>,
    /// Set once the payload is verified and staged.
    pub staged: Option<Staged>,
    /// SHA-256 of the payload: the image's identity, however it was signed.
    pub image_sha256: Option<String>,
    /// The rollback index its signature names.
    pub rollback_index: Option<u64>,
    /// Set when it has ended.
    pub outcome: Option<Outcome>,
}

/// A durable update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Number of the job on this device.
    pub id: u64,
    /// Name of the adapter that asked, or [`OPERATOR`].
    pub owner: String,
    /// What was asked.
    pub plan: JobPlan,
    /// True when a person or platform asked for it just then; false when an adapter found it by itself (polling).
    #[serde(default)]
    pub commanded: bool,
    /// Where it stands.
    pub phase: Phase,
    /// A pause stops it.
    #[serde(default)]
    pub paused: bool,
    /// Why it waits, was refused or failed.
    #[serde(default)]
    pub reason: Option<Reason>,
    /// When a waiting job goes on, by the wall clock.
    #[serde(default)]
    pub until: Option<Instant>,
    /// When it was accepted.
    pub created: Instant,
    /// When it ended.
    #[serde(default)]
    pub ended: Option<Instant>,
    /// One for each install of the plan.
    pub installs: Vec<InstallState>,
    /// The order of activation: indices into the plan's installs.
    #[serde(default)]
    pub order: Vec<usize>,
    /// The install that is being worked on.
    #[serde(default)]
    pub current: usize,
    /// What a waiting job waits at.
    #[serde(default)]
    pub gate: Option<GateAt>,
    /// Failed transfer attempts in a row without progress.
    #[serde(default)]
    pub attempts: u32,
    /// The one clean retry after a digest mismatch of a resumed transfer was used.
    #[serde(default)]
    pub clean_retry_used: bool,
    /// Set from the commit of `activating` on.
    #[serde(default)]
    pub activation: Option<Activation>,
    /// The boot in which `activating` was committed, or in which the new version was seen last.
    #[serde(default)]
    pub boot_id: Option<String>,
    /// Tries of the step that is under way after the point of no return.
    #[serde(default)]
    pub tries: u32,
    /// Boot tries given back so far.
    #[serde(default)]
    pub rearms: u32,
    /// The platform has accepted the new version.
    #[serde(default)]
    pub confirm_given: bool,
    /// The new version did not prove itself; the old one is being brought back.
    #[serde(default)]
    pub rolling_back: bool,
    /// Milliseconds spent in this phase before `phase_since` of the running process; for deadlines.
    #[serde(default)]
    pub spent: Millis,
    /// Adapters that have not consumed the final report yet.
    #[serde(default)]
    pub unreported: Vec<String>,
    /// What happened.
    #[serde(default)]
    pub history: Vec<HistoryLine>,
}

/// Whether the version that runs is the one that was installed, and well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// Version as asked, probe passed.
    Fits,
    /// Another version.
    WrongVersion(String),
    /// Not known or not well yet; look again.
    NotYet(String),
    /// Not well within the time the target has.
    Expired(String),
}

/// Where an activation stands, read from the boot selector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The new payload runs.
    New {
        /// Already marked good.
        confirmed: bool,
    },
    /// The old one runs, the new one was never made bootable.
    NotActivated,
    /// The old one runs, the new one is next.
    Pending,
    /// The old one runs, the new one used up its tries.
    FellBack,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The job may begin.
    Begin,
    /// Policy and readiness were asked.
    Gate(Gate),
    /// The wait is over: ask them again.
    GateAgain,
    /// Bytes arrived.
    Progress {
        /// Bytes that are here.
        received: u64,
        /// Size of the artifact, once known.
        total: Option<u64>,
    },
    /// All bytes are here; digests and signature are being settled.
    AllReceived,
    /// Digests and signature are right and the payload is in the staging area, synced.
    Staged {
        /// Where.
        staged: Staged,
        /// SHA-256 of the payload.
        image_sha256: String,
        /// Size of the artifact.
        size: u64,
        /// Version the signature names.
        version: Option<String>,
        /// Rollback index the signature names.
        rollback_index: Option<u64>,
    },
    /// A transfer attempt failed.
    AttemptFailed {
        /// Why.
        reason: Reason,
        /// No other attempt can help.
        is_final: bool,
        /// A digest was wrong after a resume: one attempt from the first byte may help.
        clean_retry: bool,
        /// Wait before the next attempt.
        wait: Millis,
        /// Attempts allowed in a row without progress.
        budget: u32,
    },
    /// The wait is over, or the adapter names another source.
    Retry(Option<ArtifactSource>),
    /// The current install's staged payload was read back and is what was verified.
    ReadBack,
    /// The flasher failed at what it was told last.
    FlashFailed(Reason),
    /// The staged payload is the next to run, read back.
    Activated {
        /// It runs after a reboot only.
        reboot: bool,
    },
    /// The agent started.
    Restarted {
        /// In the boot whose id the job holds.
        same_boot: bool,
    },
    /// The boot selector, version and probe were asked.
    Examined(Standing, Fit),
    /// They could not be asked.
    ExamineFailed {
        /// Why.
        reason: Reason,
        /// The time the target has to prove itself is over.
        expired: bool,
    },
    /// The platform accepts the new version.
    ConfirmGiven,
    /// The new payload is permanent, read back.
    Confirmed,
    /// The old payload is the next to run, read back.
    RolledBack {
        /// It runs after a reboot only.
        reboot: bool,
    },
    /// The plan said `when-told`, and now it is told.
    Apply,
    /// Stop for now.
    Pause,
    /// Go on.
    Resume,
    /// Give up.
    Cancel(Reason),
    /// The phase took longer than it may.
    Deadline,
}

/// What to do once the job is committed. Every action may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask policy and readiness.
    CheckGate(GateAt),
    /// Give [`Input::GateAgain`] after this long.
    CheckGateIn(Millis),
    /// Transfer the current artifact, resuming what is there.
    Transfer,
    /// Transfer the current artifact from the first byte.
    TransferAfresh,
    /// Give [`Input::Retry`] after this long.
    RetryIn(Millis),
    /// Stop the transfer.
    StopTransfer,
    /// Read the current staged payload back.
    ReadBack,
    /// Make it the next to run.
    Activate,
    /// Reboot the device.
    Reboot,
    /// Ask boot selector, version and probe.
    Examine,
    /// The same, a little later.
    ExamineLater,
    /// Give the new payload its boot tries back: it came up, and only power was lost since.
    Rearm,
    /// Make the new payload permanent.
    Confirm,
    /// Bring the old payload back.
    RollBack,
    /// The same, after this long.
    RollBackIn(Millis),
}

/// What [`Job::apply`] says of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The job changed; commit it, then do this.
    Changed(Vec<Action>),
    /// Only progress numbers changed: worth a report, not a commit.
    Progressed,
    /// Nothing changed; do this.
    Unchanged(Vec<Action>),
    /// The input does not belong to the phase (it came late); nothing changed.
    Stale,
    /// Past the point of no return: too late to cancel or pause.
    TooLate,
}

fn changed(actions: &[Action]) -> Applied {
    Applied::Changed(actions.to_vec())
}

impl Job {
    /// A new job in phase `queued`. `own` says of each install whether it is the device's own, which activates last.
    pub fn new(
        id: u64,
        owner: &str,
        plan: JobPlan,
        old_versions: Vec<Option<String>>,
        own: &[bool],
        now: Instant,
    ) -> Self {
        let installs = plan
            .installs
            .iter()
            .zip(old_versions)
            .map(|(install, old_version)| InstallState {
                old_version,
                total: install.artifact.size,
                ..InstallState::default()
            })
            .collect();
        let mut order: Vec<usize> = (0..plan.installs.len()).collect();
        order.sort_by_key(|index| own.get(*index).copied().unwrap_or(false));
        let mut job = Job {
            id,
            owner: owner.to_owned(),
            plan,
            commanded: true,
            phase: Phase::Queued,
            paused: false,
            reason: None,
            until: None,
            created: now,
            ended: None,
            installs,
            order,
            current: 0,
            gate: None,
            attempts: 0,
            clean_retry_used: false,
            activation: None,
            boot_id: None,
            tries: 0,
            rearms: 0,
            confirm_given: false,
            rolling_back: false,
            spent: 0,
            unreported: Vec::new(),
            history: Vec::new(),
        };
        job.note(now, "accepted");
        job
    }

    /// A job that was refused before it began.
    pub fn rejected(id: u64, owner: &str, plan: JobPlan, reason: Reason, now: Instant) -> Self {
        let none = plan.installs.iter().map(|_| None).collect();
        let mut job = Job::new(id, owner, plan, none, &[], now);
        job.end(Phase::Rejected, Some(reason), now);
        job
    }

    /// Targets of the plan.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.plan.installs.iter().map(|i| i.target.as_str())
    }

    /// The target that is being worked on.
    pub fn current_target(&self) -> &str {
        self.plan
            .installs
            .get(self.current)
            .map_or("", |i| i.target.as_str())
    }

    /// True while this job's key stands for the same request.
    pub fn holds_key(&self, now: Instant) -> bool {
        match (self.ended, self.plan.dedupe) {
            (None, _) => true,
            (Some(_), Dedupe::WhileActive) => false,
            (Some(ended), Dedupe::Lasting(lasting)) => {
                self.phase != Phase::Rejected && now < ended.saturating_add(lasting)
            }
        }
    }

    /// What an adapter is told.
    pub fn report(&self, foreign: bool, rate: u64) -> JobReport {
        let installs = self
            .plan
            .installs
            .iter()
            .zip(&self.installs)
            .enumerate()
            .map(|(index, (asked, state))| {
                let phase = self.install_phase(index);
                InstallReport {
                    target: asked.target.clone(),
                    phase,
                    received: state.received,
                    total: state.total,
                    percent: percent(phase, state),
                    old_version: state.old_version.clone(),
                    new_version: asked.version.clone(),
                    reason: match &state.outcome {
                        Some(outcome) => outcome.reason.clone(),
                        None => self.reason.clone().filter(|_| index == self.current),
                    },
                }
            });
        JobReport {
            key: self.plan.key.clone(),
            foreign,
            context: if foreign {
                Vec::new()
            } else {
                self.plan.context.clone()
            },
            phase: self.phase,
            paused: self.paused,
            until: self.until,
            reason: self.reason.clone(),
            rate,
            installs: installs.collect(),
        }
    }

    /// The phase of one install: its own end, the job's phase while it is worked on, or how far it was prepared.
    pub fn install_phase(&self, index: usize) -> Phase {
        let Some(state) = self.installs.get(index) else {
            return self.phase;
        };
        match &state.outcome {
            Some(outcome) => outcome.phase,
            None if index == self.current => self.phase,
            None if state.staged.is_some() => Phase::Prepared,
            None => Phase::Queued,
        }
    }

    /// Adds a line to the history.
    pub fn note(&mut self, at: Instant, text: impl Into<String>) {
        if self.history.len() >= MAX_HISTORY {
            self.history.remove(1);
        }
        self.history.push(HistoryLine {
            at,
            phase: self.phase,
            text: text.into(),
        });
    }

    // ---- moves ----

    fn go(&mut self, phase: Phase, now: Instant, text: impl Into<String>) {
        if self.phase != phase {
            self.spent = 0;
        }
        self.phase = phase;
        self.until = None;
        self.note(now, text);
    }

    /// Ends the job; installs without an end of their own end as the job does.
    fn end(&mut self, phase: Phase, reason: Option<Reason>, now: Instant) -> Applied {
        let text = match &reason {
            Some(reason) => reason.to_string(),
            None => phase.word().to_owned(),
        };
        for state in self.installs.iter_mut().filter(|s| s.outcome.is_none()) {
            state.outcome = Some(Outcome {
                phase,
                reason: reason.clone(),
            });
        }
        self.reason = reason;
        self.paused = false;
        self.gate = None;
        self.ended = Some(now);
        self.go(phase, now, text);
        changed(&[])
    }

    fn fail(&mut self, reason: Reason, now: Instant) -> Applied {
        self.end(Phase::Failed, Some(reason), now)
    }

    /// The current install has ended after the point of no return: the next one follows, or the job is concluded.
    fn end_current(
        &mut self,
        phase: Phase,
        reason: Option<Reason>,
        boot_id: &str,
        now: Instant,
    ) -> Applied {
        let target = self.current_target().to_owned();
        if let Some(state) = self.installs.get_mut(self.current) {
            state.outcome = Some(Outcome {
                phase,
                reason: reason.clone(),
            });
        }
        self.rolling_back = false;
        let next = self.order.iter().copied().find(|index| {
            self.installs
                .get(*index)
                .is_some_and(|s| s.outcome.is_none())
        });
        match next {
            Some(next) if phase == Phase::Succeeded => {
                self.note(now, format!("`{target}` runs the new version"));
                self.current = next;
                self.begin_activation(boot_id, now)
            }
            _ => self.conclude(now),
        }
    }

    /// All that will happen has happened: what the outcomes amount to.
    fn conclude(&mut self, now: Instant) -> Applied {
        let failure = self
            .installs
            .iter()
            .zip(&self.plan.installs)
            .find_map(|(state, asked)| {
                let outcome = state
                    .outcome
                    .as_ref()
                    .filter(|o| o.phase != Phase::Succeeded)?;
                Some((asked.target.clone(), outcome.clone()))
            });
        let Some((target, first)) = failure else {
            return self.end(Phase::Succeeded, None, now);
        };
        let some_run = self.installs.iter().any(|s| {
            s.outcome
                .as_ref()
                .is_some_and(|o| o.phase == Phase::Succeeded)
        });
        for state in self.installs.iter_mut().filter(|s| s.outcome.is_none()) {
            let text = format!("not activated, because `{target}` did not succeed");
            state.outcome = Some(Outcome {
                phase: Phase::Failed,
                reason: Some(Reason::new("other", "activate", text)),
            });
        }
        self.end(
            if some_run {
                Phase::Partial
            } else {
                first.phase
            },
            first.reason,
            now,
        )
    }

    fn begin_activation(&mut self, boot_id: &str, now: Instant) -> Applied {
        self.boot_id = Some(boot_id.to_owned());
        self.activation = Some(Activation::Intent);
        self.tries = 0;
        self.rearms = 0;
        self.gate = None;
        self.reason = None;
        self.go(
            Phase::Activating,
            now,
            format!("switching `{}` to the new version", self.current_target()),
        );
        changed(&[Action::Activate])
    }

    fn roll_back(&mut self, reason: Reason, now: Instant) -> Applied {
        self.note(now, format!("rolling back: {reason}"));
        self.reason = Some(reason);
        self.rolling_back = true;
        self.tries = 0;
        changed(&[Action::RollBack])
    }

    /// Counts a try of the step under way; false when there were enough.
    fn may_try_again(&mut self, enough: u32) -> bool {
        self.tries += 1;
        self.tries < enough
    }

    /// The way back failed: again after a growing wait, or for good.
    fn roll_back_failed(&mut self, reason: Reason, boot_id: &str, now: Instant) -> Applied {
        if self.may_try_again(MAX_SELECTOR_TRIES) {
            self.note(now, format!("rolling back failed: {reason}"));
            changed(&[Action::RollBackIn((1_000 << self.tries.min(6)).min(60_000))])
        } else {
            self.end_current(Phase::RollbackFailed, Some(reason), boot_id, now)
        }
    }

    fn begin_transfer(&mut self, text: &str, now: Instant) -> Applied {
        self.gate = None;
        self.reason = None;
        self.go(Phase::Downloading, now, text);
        changed(&[Action::Transfer])
    }

    fn when_prepared(&self) -> Applied {
        if self.plan.apply == Apply::WhenTold || self.paused {
            return changed(&[]);
        }
        changed(&[Action::CheckGate(GateAt::Install)])
    }

    fn read_back(&mut self, now: Instant) -> Applied {
        self.current = 0;
        self.gate = None;
        self.go(Phase::Installing, now, "reading what is staged back");
        changed(&[Action::ReadBack])
    }

    /// Moves the job. `boot_id` is that of the running system.
    pub fn apply(&mut self, input: Input, boot_id: &str, now: Instant) -> Applied {
        match (self.phase, input) {
            (phase, _) if phase.is_final() => Applied::Stale,
            (phase, input) if phase.is_past_return() => self.past_return(input, boot_id, now),
            (_, Input::Cancel(reason)) => {
                self.end(Phase::Cancelled, Some(reason), now);
                changed(&[Action::StopTransfer])
            }
            (_, Input::Deadline) => {
                let text = format!("{} took longer than it may", self.phase);
                self.fail(Reason::new("deadline", stage_word(self.phase), text), now);
                changed(&[Action::StopTransfer])
            }
            (_, Input::Pause) if !self.paused => {
                self.paused = true;
                self.note(now, "paused");
                changed(&[Action::StopTransfer])
            }
            (_, Input::Resume) if self.paused => {
                self.paused = false;
                self.note(now, "resumed");
                self.go_on(now)
            }
            (_, Input::Restarted { .. }) if self.paused => changed(&[]),
            (_, Input::Restarted { .. }) => self.go_on(now),
            (Phase::Queued | Phase::Waiting, input) => self.before_transfer(input, boot_id, now),
            (Phase::Downloading | Phase::Verifying, input) => self.in_transfer(input, now),
            (phase, Input::Apply) => {
                self.plan.apply = Apply::Immediately;
                if phase == Phase::Prepared {
                    self.when_prepared()
                } else {
                    changed(&[])
                }
            }
            (Phase::Prepared, Input::Gate(gate)) if !self.paused => {
                self.gate(GateAt::Install, gate, boot_id, now)
            }
            (Phase::Installing, input) => self.installing(input, boot_id, now),
            _ => Applied::Stale,
        }
    }

    /// What is to be done in a phase before the point of no return, when nothing is under way: after a start or a pause.
    fn go_on(&mut self, now: Instant) -> Applied {
        match self.phase {
            Phase::Queued => changed(&[Action::CheckGate(GateAt::Begin)]),
            // What was read back in an earlier life has to be read back again.
            Phase::Waiting if self.gate == Some(GateAt::Activation) => self.read_back(now),
            Phase::Waiting => changed(&[Action::CheckGate(self.gate.unwrap_or(GateAt::Begin))]),
            Phase::Downloading | Phase::Verifying => {
                self.begin_transfer("the transfer goes on", now)
            }
            Phase::Prepared => self.when_prepared(),
            Phase::Installing => self.read_back(now),
            _ => changed(&[]),
        }
    }

    fn gate(&mut self, at: GateAt, gate: Gate, boot_id: &str, now: Instant) -> Applied {
        match (gate, at) {
            (Gate::Go, GateAt::Begin) => self.begin_transfer("the transfer begins", now),
            (Gate::Go, GateAt::Install) => self.read_back(now),
            (Gate::Go, GateAt::Activation) => {
                self.current = self.order.first().copied().unwrap_or(0);
                self.begin_activation(boot_id, now)
            }
            (
                Gate::Wait {
                    reason,
                    until,
                    ask_again,
                },
                at,
            ) => {
                // The same answer again is not worth a commit.
                if self.phase == Phase::Waiting
                    && self.gate == Some(at)
                    && self.reason.as_ref() == Some(&reason)
                    && self.until == until
                {
                    return Applied::Unchanged(vec![Action::CheckGateIn(ask_again)]);
                }
                self.go(Phase::Waiting, now, format!("waits: {reason}"));
                self.gate = Some(at);
                self.reason = Some(reason);
                self.until = until;
                changed(&[Action::CheckGateIn(ask_again)])
            }
            (Gate::Refuse(reason), GateAt::Begin) => self.end(Phase::Rejected, Some(reason), now),
            (Gate::Refuse(reason), GateAt::Install | GateAt::Activation) => self.fail(reason, now),
        }
    }

    fn before_transfer(&mut self, input: Input, boot_id: &str, now: Instant) -> Applied {
        let at = self.gate.unwrap_or(GateAt::Begin);
        match input {
            Input::Begin if !self.paused => changed(&[Action::CheckGate(at)]),
            // Asking changes nothing; only another answer than before is worth a commit.
            Input::GateAgain if !self.paused => Applied::Unchanged(vec![Action::CheckGate(at)]),
            Input::Gate(gate) if !self.paused => self.gate(at, gate, boot_id, now),
            _ => Applied::Stale,
        }
    }

    fn in_transfer(&mut self, input: Input, now: Instant) -> Applied {
        let Some(state) = self.installs.get_mut(self.current) else {
            return Applied::Stale;
        };
        match input {
            Input::Progress { received, total } => {
                if received > state.furthest {
                    // The budget is for attempts without progress: a bad network that moves on is not given up.
                    state.furthest = received;
                    self.attempts = 0;
                }
                state.received = received;
                state.total = total.or(state.total);
                self.reason = None;
                self.until = None;
                Applied::Progressed
            }
            Input::AllReceived if self.phase == Phase::Downloading => {
                self.go(Phase::Verifying, now, "all bytes are here");
                Applied::Progressed
            }
            Input::Staged {
                staged,
                image_sha256,
                size,
                version,
                rollback_index,
            } => {
                state.staged = Some(staged);
                state.image_sha256 = Some(image_sha256);
                state.rollback_index = rollback_index;
                state.received = size;
                state.total = Some(size);
                if let (Some(version), Some(install)) =
                    (version, self.plan.installs.get_mut(self.current))
                    && install.version.is_empty()
                {
                    install.version = version;
                }
                self.reason = None;
                self.attempts = 0;
                self.clean_retry_used = false;
                self.staged(now)
            }
            Input::AttemptFailed {
                reason,
                is_final,
                clean_retry,
                wait,
                budget,
            } => {
                if clean_retry && !self.clean_retry_used {
                    self.clean_retry_used = true;
                    self.attempts = 0;
                    (state.received, state.furthest) = (0, 0);
                    self.go(
                        Phase::Downloading,
                        now,
                        format!("{reason}; once more from the first byte"),
                    );
                    return changed(&[Action::TransferAfresh]);
                }
                self.attempts += 1;
                if is_final || self.attempts >= budget {
                    return self.fail(reason, now);
                }
                let text = format!(
                    "{reason}; attempt {} of {budget} in {} s",
                    self.attempts + 1,
                    wait.div_ceil(1_000)
                );
                self.go(Phase::Downloading, now, text);
                self.reason = Some(reason);
                self.until = Some(now.saturating_add(wait));
                changed(&[Action::RetryIn(wait)])
            }
            // Without a wait under way it comes from one that a pause has ended.
            Input::Retry(source) if !self.paused && self.until.is_some() => {
                if let (Some(source), Some(install)) =
                    (source, self.plan.installs.get_mut(self.current))
                {
                    install.artifact.source = source;
                }
                self.until = None;
                changed(&[Action::Transfer])
            }
            Input::FlashFailed(reason) => self.fail(reason, now),
            _ => Applied::Stale,
        }
    }

    /// One install is staged: the next one's transfer follows, or all are prepared.
    fn staged(&mut self, now: Instant) -> Applied {
        let next = self.installs.iter().position(|s| s.staged.is_none());
        match next {
            Some(next) => {
                self.current = next;
                self.go(
                    Phase::Downloading,
                    now,
                    format!("verified and staged; `{}` is next", self.current_target()),
                );
                changed(&[Action::Transfer])
            }
            None => {
                self.go(Phase::Prepared, now, "verified and staged");
                self.when_prepared()
            }
        }
    }

    fn installing(&mut self, input: Input, boot_id: &str, now: Instant) -> Applied {
        match input {
            Input::ReadBack if !self.paused => {
                if self.current + 1 < self.installs.len() {
                    self.current += 1;
                    changed(&[Action::ReadBack])
                } else {
                    self.note(now, "read back");
                    changed(&[Action::CheckGate(GateAt::Activation)])
                }
            }
            Input::Gate(gate) if !self.paused => self.gate(GateAt::Activation, gate, boot_id, now),
            Input::FlashFailed(reason) => self.fail(reason, now),
            _ => Applied::Stale,
        }
    }

    fn past_return(&mut self, input: Input, boot_id: &str, now: Instant) -> Applied {
        match input {
            Input::Cancel(_) | Input::Pause | Input::Resume | Input::Apply => Applied::TooLate,
            Input::Activated { reboot }
                if !self.rolling_back && self.phase == Phase::Activating =>
            {
                self.activation = Some(Activation::Done);
                self.tries = 0;
                if reboot {
                    self.note(now, "the new version is next; rebooting");
                    changed(&[Action::Reboot])
                } else {
                    self.go(
                        Phase::Confirming,
                        now,
                        "the new version runs; it has to prove itself",
                    );
                    changed(&[Action::Examine])
                }
            }
            Input::Restarted { same_boot: true } if self.rolling_back => {
                changed(&[Action::RollBack])
            }
            Input::Restarted { same_boot: true } if self.phase == Phase::Activating => {
                if self.activation != Some(Activation::Done) {
                    changed(&[Action::Activate])
                } else if self.may_try_again(MAX_TRIES) {
                    changed(&[Action::Reboot])
                } else {
                    let text = format!("the device did not reboot when asked {MAX_TRIES} times");
                    self.roll_back(Reason::new("activate", "activate", text), now)
                }
            }
            Input::Restarted { .. } => changed(&[Action::Examine]),
            Input::Examined(standing, fit) => self.examined(standing, fit, boot_id, now),
            // Not knowing is no reason to leave a version that may be well: look again as long as it has time.
            Input::ExamineFailed { expired: false, .. } => {
                Applied::Unchanged(vec![Action::ExamineLater])
            }
            Input::ExamineFailed { reason, .. } if self.rolling_back => {
                self.roll_back_failed(reason, boot_id, now)
            }
            Input::ExamineFailed { reason, .. } => self.roll_back(reason, now),
            // The power went between intent and act: what was read back before has to be read back in this boot too.
            Input::ReadBack if self.phase == Phase::Activating && !self.rolling_back => {
                changed(&[Action::Activate])
            }
            Input::ConfirmGiven
                if !self.rolling_back && self.phase == Phase::Confirming && !self.confirm_given =>
            {
                self.confirm_given = true;
                self.note(now, "the platform accepts the new version");
                changed(&[Action::Examine])
            }
            Input::Confirmed if !self.rolling_back && self.phase == Phase::Confirming => {
                self.end_current(Phase::Succeeded, None, boot_id, now)
            }
            Input::RolledBack { reboot: true } if self.rolling_back => {
                self.note(now, "the old version is next; rebooting");
                self.boot_id = Some(boot_id.to_owned());
                changed(&[Action::Reboot])
            }
            Input::RolledBack { reboot: false } if self.rolling_back => {
                self.ended_on_old(boot_id, now)
            }
            Input::FlashFailed(reason) if self.rolling_back => {
                self.roll_back_failed(reason, boot_id, now)
            }
            Input::FlashFailed(reason) if self.phase == Phase::Confirming => {
                // Whether the mark was kept is unknown: look, and only then decide.
                if self.may_try_again(MAX_SELECTOR_TRIES) {
                    self.note(now, format!("confirming failed: {reason}"));
                    changed(&[Action::ExamineLater])
                } else {
                    self.roll_back(reason, now)
                }
            }
            Input::FlashFailed(reason) => self.roll_back(reason, now),
            Input::Deadline if self.rolling_back => {
                let reason = Reason::new(
                    "deadline",
                    "confirm",
                    "the way back to the old version took longer than it may",
                );
                self.end_current(Phase::RollbackFailed, Some(reason), boot_id, now)
            }
            Input::Deadline => {
                let text = format!("{} took longer than it may", self.phase);
                self.spent = 0;
                self.roll_back(Reason::new("deadline", stage_word(self.phase), text), now)
            }
            _ => Applied::Stale,
        }
    }

    /// The old version runs again.
    fn ended_on_old(&mut self, boot_id: &str, now: Instant) -> Applied {
        let reason = self.reason.take().unwrap_or_else(|| {
            Reason::new(
                "boot-failed",
                "activate",
                "the new version did not come up and the old one runs again",
            )
        });
        // Nothing was activated when the switch itself failed.
        let ran = self.phase == Phase::Confirming || reason.code == "boot-failed";
        self.end_current(
            if ran {
                Phase::RolledBack
            } else {
                Phase::Failed
            },
            Some(reason),
            boot_id,
            now,
        )
    }

    fn examined(&mut self, standing: Standing, fit: Fit, boot_id: &str, now: Instant) -> Applied {
        match standing {
            Standing::New { .. } if self.rolling_back => {
                if self.may_try_again(MAX_TRIES) {
                    return changed(&[Action::RollBack]);
                }
                let reason = self.reason.take().map_or_else(String::new, |r| r.text);
                let text = format!(
                    "the new version still runs after {MAX_TRIES} tries to bring the old one back: {reason}"
                );
                self.end_current(
                    Phase::RollbackFailed,
                    Some(Reason::new("boot-failed", "confirm", text)),
                    boot_id,
                    now,
                )
            }
            Standing::New { confirmed } => self.examined_new(confirmed, fit, boot_id, now),
            // Cut between intent and act: the slot was never made bootable, so doing it now is the first time.
            Standing::NotActivated
                if self.phase == Phase::Activating
                    && self.activation == Some(Activation::Intent)
                    && !self.rolling_back =>
            {
                if self.may_try_again(MAX_TRIES) {
                    self.boot_id = Some(boot_id.to_owned());
                    changed(&[Action::ReadBack])
                } else {
                    let text = format!("power was lost {MAX_TRIES} times while switching");
                    self.end_current(
                        Phase::Failed,
                        Some(Reason::new("activate", "activate", text)),
                        boot_id,
                        now,
                    )
                }
            }
            Standing::Pending if !self.rolling_back => {
                if self.may_try_again(MAX_TRIES) {
                    self.boot_id = Some(boot_id.to_owned());
                    changed(&[Action::Reboot])
                } else {
                    let text = format!(
                        "the boot loader did not try the new version in {MAX_TRIES} reboots"
                    );
                    self.roll_back(Reason::new("boot-failed", "activate", text), now)
                }
            }
            Standing::Pending => changed(&[Action::RollBack]),
            // The slot that failed must not be what boots next, whatever gives it tries again.
            Standing::FellBack if !self.rolling_back => {
                let text = "the new version did not come up and the old one runs again";
                self.roll_back(Reason::new("boot-failed", "activate", text), now)
            }
            Standing::NotActivated | Standing::FellBack => self.ended_on_old(boot_id, now),
        }
    }

    fn examined_new(&mut self, confirmed: bool, fit: Fit, boot_id: &str, now: Instant) -> Applied {
        let mut actions = Vec::new();
        let mut moved = self.tries > 0 && matches!(fit, Fit::NotYet(_));
        if moved {
            self.tries = 0;
        }
        if self.phase == Phase::Activating {
            moved = true;
            self.tries = 0;
            self.go(
                Phase::Confirming,
                now,
                "the new version runs; it has to prove itself",
            );
        }
        if !confirmed && self.boot_id.as_deref() != Some(boot_id) && self.rearms < MAX_REARMS {
            // It came up. That power goes now and again is no fault of the new version, and must not use up its tries.
            self.boot_id = Some(boot_id.to_owned());
            self.rearms += 1;
            moved = true;
            actions.push(Action::Rearm);
        }
        match fit {
            Fit::Fits if confirmed => {
                return self.end_current(Phase::Succeeded, None, boot_id, now);
            }
            Fit::Fits => actions.push(Action::Confirm),
            Fit::NotYet(_) => {
                actions.push(Action::ExamineLater);
                if !moved {
                    return Applied::Unchanged(actions);
                }
            }
            Fit::WrongVersion(text) => {
                return self.roll_back(Reason::new("version-mismatch", "confirm", text), now);
            }
            Fit::Expired(text) => {
                return self.roll_back(Reason::new("probe-failed", "confirm", text), now);
            }
        }
        Applied::Changed(actions)
    }
}

fn percent(phase: Phase, state: &InstallState) -> u8 {
    match (phase, state.total) {
        (Phase::Downloading | Phase::Waiting, Some(total)) if total > 0 => {
            u8::try_from(u128::from(state.received.min(total)) * 100 / u128::from(total))
                .unwrap_or(100)
        }
        (Phase::Succeeded, _) => 100,
        _ => 0,
    }
}

/// The stage a reason names for something that happens in a phase.
fn stage_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Queued | Phase::Waiting | Phase::Rejected => "admit",
        Phase::Downloading => "download",
        Phase::Verifying => "verify",
        Phase::Delivering | Phase::Delivered => "deliver",
        Phase::Prepared | Phase::Installing => "install",
        Phase::Activating => "activate",
        Phase::Confirming
        | Phase::Succeeded
        | Phase::Failed
        | Phase::RolledBack
        | Phase::RollbackFailed
        | Phase::Cancelled
        | Phase::Partial => "confirm",
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
