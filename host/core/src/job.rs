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

mod after;
mod moves;
mod table;
mod words;

use serde::{Deserialize, Serialize};

use crate::model::{Dedupe, InstallReport, Instant, JobPlan, JobReport, Millis, Phase, Reason};
use crate::policy::memory::Pace;

pub use table::table;
pub use words::{Action, Applied, Fit, Input, Standing};

/// Owner of the jobs that `otahost install` starts.
pub const OPERATOR: &str = "operator";
/// Most lines of a job's history; the oldest go first, but the first of all stays.
pub const MAX_HISTORY: usize = 64;
/// How often one activation or reboot is tried before the job gives up on it.
pub const MAX_TRIES: u32 = 3;
/// How often the boot selector is tried at switching, at confirming and on the way back: it may be held by another program for a
/// while. With the growing waits between two tries of switching and of the way back this is some four minutes.
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
    /// What is staged has to be handed over before it can be activated.
    pub delivers: bool,
    /// It was handed over.
    pub delivered: bool,
    /// Progress of the phase as whoever works on it says it, 0 to 100; not committed.
    pub percent: u8,
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
    /// State version of the release of the adapter that wrote the plan's context; none for the operator's jobs, and for those of an
    /// agent that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_version: Option<u32>,
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
            context_version: None,
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
            None if state.delivered => Phase::Delivered,
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
}

impl Job {
    /// How long this job took behind its download, when it has one install and all of its way is remembered.
    pub fn pace(&self, now: Instant) -> Option<Pace> {
        let entered = |phase| self.history.iter().find(|l| l.phase == phase).map(|l| l.at);
        let (installing, activating) = (entered(Phase::Installing)?, entered(Phase::Activating)?);
        let [state] = self.installs.as_slice() else {
            return None;
        };
        let flash = activating.checked_sub(installing)?.max(1);
        let bytes = state.staged.as_ref()?.len;
        Some(Pace {
            flash_rate: bytes.saturating_mul(1_000) / flash,
            switch: now.checked_sub(activating)?,
        })
    }
}

fn percent(phase: Phase, state: &InstallState) -> u8 {
    match (phase, state.total) {
        (Phase::Downloading | Phase::Waiting, Some(total)) if total > 0 => {
            u8::try_from(u128::from(state.received.min(total)) * 100 / u128::from(total))
                .unwrap_or(100)
        }
        (Phase::Delivering | Phase::Installing | Phase::Activating, _) => state.percent.min(100),
        (Phase::Delivered | Phase::Succeeded, _) => 100,
        _ => 0,
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
