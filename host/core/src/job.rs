//! Jobs: one durable update from the request to the final report.
//!
//! A job moves only by [`Job::apply`]: what happened goes in, what to do comes out. The caller commits the job first and acts
//! afterwards, so every action can be met again after a power cut, and every action is safe to repeat. What the outside world
//! says (which slot runs, what the version is) is always asked again and never taken from memory.

use serde::{Deserialize, Serialize};

use crate::model::{
    Apply, Dedupe, InstallReport, Instant, JobPlan, JobReport, Millis, Phase, Reason,
};

/// Owner of the jobs that `otahost install` starts.
pub const OPERATOR: &str = "operator";
/// Most lines of a job's history; the oldest go first, but the first of all stays.
pub const MAX_HISTORY: usize = 64;
/// How often one activation, reboot, confirmation or rollback is tried before the job gives up on it.
pub const MAX_TRIES: u32 = 3;

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

/// How one install of a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// Where it stands.
    pub phase: Phase,
    /// A pause stops it.
    pub paused: bool,
    /// Why it waits, was refused or failed.
    pub reason: Option<Reason>,
    /// When a waiting job goes on, by the wall clock.
    pub until: Option<Instant>,
    /// When it was accepted.
    pub created: Instant,
    /// When it ended.
    pub ended: Option<Instant>,
    /// One for each install of the plan.
    pub installs: Vec<InstallState>,
    /// Failed transfer attempts in a row without progress.
    pub attempts: u32,
    /// The one clean retry after a digest mismatch of a resumed transfer was used.
    pub clean_retry_used: bool,
    /// Set from the commit of `activating` on.
    pub activation: Option<Activation>,
    /// The boot in which `activating` was committed.
    pub boot_id: Option<String>,
    /// Tries of the step that is under way after the point of no return.
    pub tries: u32,
    /// The new version did not prove itself; the old one is being brought back.
    pub rolling_back: bool,
    /// Adapters that have not consumed the final report yet.
    pub unreported: Vec<String>,
    /// What happened.
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
        /// Version the signed header names.
        header_version: Option<String>,
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
    /// The wait is over.
    Retry,
    /// The staged payload was read back and is what was verified.
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
    ExamineFailed(Reason),
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
    Cancel,
}

/// What to do once the job is committed. Every action may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Transfer the artifact, resuming what is there.
    Transfer,
    /// Transfer the artifact from the first byte.
    TransferAfresh,
    /// Give [`Input::Retry`] after this long.
    RetryIn(Millis),
    /// Stop the transfer.
    StopTransfer,
    /// Read the staged payload back.
    ReadBack,
    /// Make it the next to run.
    Activate,
    /// Reboot the device.
    Reboot,
    /// Ask boot selector, version and probe.
    Examine,
    /// The same, a little later.
    ExamineLater,
    /// Make the new payload permanent.
    Confirm,
    /// Bring the old payload back.
    RollBack,
}

/// What [`Job::apply`] says of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The job changed; commit it, then do this.
    Changed(Vec<Action>),
    /// Only progress numbers changed: worth a report, not a commit.
    Progressed,
    /// The input does not belong to the phase (it came late); nothing changed.
    Stale,
    /// Past the point of no return: too late to cancel or pause.
    TooLate,
}

impl Job {
    /// A new job in phase `queued`.
    pub fn new(
        id: u64,
        owner: &str,
        plan: JobPlan,
        old_versions: Vec<Option<String>>,
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
        let mut job = Job {
            id,
            owner: owner.to_owned(),
            plan,
            phase: Phase::Queued,
            paused: false,
            reason: None,
            until: None,
            created: now,
            ended: None,
            installs,
            attempts: 0,
            clean_retry_used: false,
            activation: None,
            boot_id: None,
            tries: 0,
            rolling_back: false,
            unreported: Vec::new(),
            history: Vec::new(),
        };
        job.note(now, "accepted");
        job
    }

    /// A job that was refused before it began.
    pub fn rejected(id: u64, owner: &str, plan: JobPlan, reason: Reason, now: Instant) -> Self {
        let none = plan.installs.iter().map(|_| None).collect();
        let mut job = Job::new(id, owner, plan, none, now);
        job.end(Phase::Rejected, Some(reason), now);
        job
    }

    /// Targets of the plan.
    pub fn targets(&self) -> impl Iterator<Item = &str> {
        self.plan.installs.iter().map(|i| i.target.as_str())
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
            .map(|(asked, state)| InstallReport {
                target: asked.target.clone(),
                phase: self.phase,
                received: state.received,
                total: state.total,
                percent: self.percent(state),
                old_version: state.old_version.clone(),
                new_version: asked.version.clone(),
                reason: self.reason.clone(),
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

    fn percent(&self, state: &InstallState) -> u8 {
        match (self.phase, state.total) {
            (Phase::Downloading | Phase::Waiting, Some(total)) if total > 0 => {
                u8::try_from(u128::from(state.received.min(total)) * 100 / u128::from(total))
                    .unwrap_or(100)
            }
            (Phase::Succeeded, _) => 100,
            _ => 0,
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

    fn go(&mut self, phase: Phase, now: Instant, text: impl Into<String>) {
        self.phase = phase;
        self.until = None;
        self.note(now, text);
    }

    fn end(&mut self, phase: Phase, reason: Option<Reason>, now: Instant) -> Applied {
        let text = match &reason {
            Some(reason) => reason.to_string(),
            None => phase.word().to_owned(),
        };
        self.reason = reason;
        self.paused = false;
        self.ended = Some(now);
        self.go(phase, now, text);
        Applied::Changed(Vec::new())
    }

    fn roll_back(&mut self, reason: Reason, now: Instant) -> Applied {
        self.note(now, format!("rolling back: {reason}"));
        self.reason = Some(reason);
        self.rolling_back = true;
        self.tries = 0;
        Applied::Changed(vec![Action::RollBack])
    }

    /// Counts a try of the step under way; false when there were enough.
    fn may_try_again(&mut self) -> bool {
        self.tries += 1;
        self.tries < MAX_TRIES
    }

    /// Moves the job. `boot_id` is that of the running system.
    pub fn apply(&mut self, input: Input, boot_id: &str, now: Instant) -> Applied {
        use Action as Do;
        use Phase as P;
        let changed = |actions: &[Action]| Applied::Changed(actions.to_vec());
        match (self.phase, input) {
            (phase, _) if phase.is_final() => Applied::Stale,

            // ---- before the point of no return ----
            (P::Queued, Input::Begin) => {
                self.go(P::Downloading, now, "transfer begins");
                changed(&[Do::Transfer])
            }
            (P::Queued | P::Waiting, Input::Restarted { .. }) => {
                self.go(P::Downloading, now, "transfer begins");
                changed(if self.paused { &[] } else { &[Do::Transfer] })
            }
            (P::Downloading, Input::Progress { received, total }) => {
                let state = &mut self.installs[0];
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
            (P::Downloading, Input::AllReceived) => {
                self.go(P::Verifying, now, "all bytes are here");
                Applied::Progressed
            }
            (
                P::Downloading | P::Verifying,
                Input::Staged {
                    staged,
                    image_sha256,
                    size,
                    header_version,
                },
            ) => {
                let state = &mut self.installs[0];
                state.staged = Some(staged);
                state.image_sha256 = Some(image_sha256);
                state.received = size;
                state.total = Some(size);
                if let (Some(version), Some(install)) =
                    (header_version, self.plan.installs.first_mut())
                    && install.version.is_empty()
                {
                    install.version = version;
                }
                self.reason = None;
                self.attempts = 0;
                self.go(P::Prepared, now, "verified and staged");
                self.when_prepared(now)
            }
            (
                P::Downloading | P::Verifying,
                Input::AttemptFailed {
                    reason,
                    is_final,
                    clean_retry,
                    wait,
                    budget,
                },
            ) => {
                if clean_retry && !self.clean_retry_used {
                    self.clean_retry_used = true;
                    self.installs[0].received = 0;
                    self.go(
                        P::Downloading,
                        now,
                        format!("{reason}; once more from the first byte"),
                    );
                    return changed(&[Do::TransferAfresh]);
                }
                self.attempts += 1;
                if is_final || self.attempts >= budget {
                    return self.end(P::Failed, Some(reason), now);
                }
                let text = format!(
                    "{reason}; attempt {} of {budget} in {} s",
                    self.attempts + 1,
                    wait.div_ceil(1_000)
                );
                self.go(P::Downloading, now, text);
                self.reason = Some(reason);
                self.until = Some(now.saturating_add(wait));
                changed(&[Do::RetryIn(wait)])
            }
            (P::Downloading, Input::Retry) if !self.paused => {
                self.until = None;
                changed(&[Do::Transfer])
            }
            (P::Downloading | P::Verifying, Input::Restarted { .. }) => {
                self.go(P::Downloading, now, "the agent restarted; transfer goes on");
                changed(if self.paused { &[] } else { &[Do::Transfer] })
            }
            (P::Downloading | P::Verifying, Input::FlashFailed(reason)) => {
                self.end(P::Failed, Some(reason), now)
            }
            (P::Prepared, Input::Restarted { .. }) => self.when_prepared(now),
            (P::Prepared, Input::Apply) => {
                self.plan.apply = Apply::Immediately;
                self.when_prepared(now)
            }
            (P::Installing, Input::Restarted { .. }) => {
                changed(if self.paused { &[] } else { &[Do::ReadBack] })
            }
            (P::Installing, Input::ReadBack) if !self.paused => {
                self.boot_id = Some(boot_id.to_owned());
                self.activation = Some(Activation::Intent);
                self.tries = 0;
                self.go(
                    P::Activating,
                    now,
                    "read back; switching to the new version",
                );
                changed(&[Do::Activate])
            }
            (P::Installing, Input::FlashFailed(reason)) => self.end(P::Failed, Some(reason), now),

            // ---- pause and cancel ----
            (phase, Input::Cancel | Input::Pause | Input::Resume | Input::Apply)
                if phase.is_past_return() =>
            {
                Applied::TooLate
            }
            (_, Input::Cancel) => {
                self.end(
                    P::Cancelled,
                    Some(Reason::new("cancelled", "install", "cancelled on request")),
                    now,
                );
                changed(&[Do::StopTransfer])
            }
            (phase, Input::Pause) if !self.paused => {
                self.paused = true;
                self.note(now, "paused");
                changed(if matches!(phase, P::Downloading | P::Verifying) {
                    &[Do::StopTransfer]
                } else {
                    &[]
                })
            }
            (phase, Input::Resume) if self.paused => {
                self.paused = false;
                self.note(now, "resumed");
                match phase {
                    P::Downloading | P::Verifying => {
                        self.phase = P::Downloading;
                        changed(&[Do::Transfer])
                    }
                    P::Prepared => self.when_prepared(now),
                    P::Installing => changed(&[Do::ReadBack]),
                    _ => changed(&[]),
                }
            }

            // ---- past the point of no return ----
            (P::Activating, Input::Activated { reboot }) if !self.rolling_back => {
                self.activation = Some(Activation::Done);
                self.tries = 0;
                if reboot {
                    self.note(now, "the new version is next; rebooting");
                    changed(&[Do::Reboot])
                } else {
                    self.go(P::Confirming, now, "the new version runs");
                    changed(&[Do::Examine])
                }
            }
            (P::Activating, Input::FlashFailed(reason)) if !self.rolling_back => {
                self.roll_back(reason, now)
            }
            (P::Activating | P::Confirming, Input::Restarted { same_boot: true })
                if self.rolling_back =>
            {
                changed(&[Do::RollBack])
            }
            (P::Activating, Input::Restarted { same_boot: true }) => match self.activation {
                Some(Activation::Done) => changed(&[Do::Reboot]),
                _ => changed(&[Do::Activate]),
            },
            (P::Activating | P::Confirming, Input::Restarted { .. }) => changed(&[Do::Examine]),
            (P::Activating | P::Confirming, Input::Examined(standing, fit)) => {
                self.examined(standing, fit, boot_id, now)
            }
            (P::Activating | P::Confirming, Input::ExamineFailed(reason)) => {
                // Not knowing is no reason to leave a version that may be well: look again first.
                if self.may_try_again() {
                    self.note(now, format!("cannot see where the switch stands: {reason}"));
                    changed(&[Do::ExamineLater])
                } else if self.rolling_back {
                    self.end(P::RollbackFailed, Some(reason), now)
                } else {
                    self.roll_back(reason, now)
                }
            }
            (P::Confirming, Input::Confirmed) if !self.rolling_back => {
                self.end(P::Succeeded, None, now)
            }
            (P::Confirming, Input::FlashFailed(reason)) if !self.rolling_back => {
                // Whether the mark was kept is unknown: look, and only then decide.
                if self.may_try_again() {
                    self.note(now, format!("confirming failed: {reason}"));
                    changed(&[Do::ExamineLater])
                } else {
                    self.roll_back(reason, now)
                }
            }
            (P::Activating | P::Confirming, Input::RolledBack { reboot: true })
                if self.rolling_back =>
            {
                self.note(now, "the old version is next; rebooting");
                self.boot_id = Some(boot_id.to_owned());
                changed(&[Do::Reboot])
            }
            (P::Activating | P::Confirming, Input::RolledBack { reboot: false })
                if self.rolling_back =>
            {
                self.ended_on_old(now)
            }
            (P::Activating | P::Confirming, Input::FlashFailed(reason)) => {
                if self.may_try_again() {
                    self.note(now, format!("rolling back failed: {reason}"));
                    changed(&[Do::RollBack])
                } else {
                    self.end(P::RollbackFailed, Some(reason), now)
                }
            }
            _ => Applied::Stale,
        }
    }

    fn when_prepared(&mut self, now: Instant) -> Applied {
        if self.plan.apply == Apply::WhenTold || self.paused {
            return Applied::Changed(Vec::new());
        }
        self.go(Phase::Installing, now, "reading the staged image back");
        Applied::Changed(vec![Action::ReadBack])
    }

    /// The old version runs again.
    fn ended_on_old(&mut self, now: Instant) -> Applied {
        let reason = self.reason.take().unwrap_or_else(|| {
            Reason::new(
                "boot-failed",
                "activate",
                "the new version did not come up and the old one runs again",
            )
        });
        // Nothing was activated when the switch itself failed.
        let ran = self.phase == Phase::Confirming || reason.code == "boot-failed";
        self.end(
            if ran {
                Phase::RolledBack
            } else {
                Phase::Failed
            },
            Some(reason),
            now,
        )
    }

    fn examined(&mut self, standing: Standing, fit: Fit, boot_id: &str, now: Instant) -> Applied {
        let changed = |actions: &[Action]| Applied::Changed(actions.to_vec());
        match standing {
            Standing::New { .. } if self.rolling_back => {
                if self.may_try_again() {
                    changed(&[Action::RollBack])
                } else {
                    let reason = self.reason.take().map_or_else(String::new, |r| r.text);
                    let text = format!(
                        "the new version still runs after {MAX_TRIES} tries to bring the old one back: {reason}"
                    );
                    self.end(
                        Phase::RollbackFailed,
                        Some(Reason::new("boot-failed", "confirm", text)),
                        now,
                    )
                }
            }
            Standing::New { confirmed } => {
                if self.phase == Phase::Activating {
                    self.tries = 0;
                    self.go(
                        Phase::Confirming,
                        now,
                        "the new version runs; it has to prove itself",
                    );
                }
                match fit {
                    Fit::Fits if confirmed => self.end(Phase::Succeeded, None, now),
                    Fit::Fits => changed(&[Action::Confirm]),
                    Fit::NotYet(_) => changed(&[Action::ExamineLater]),
                    Fit::WrongVersion(text) => {
                        self.roll_back(Reason::new("version-mismatch", "confirm", text), now)
                    }
                    Fit::Expired(text) => {
                        self.roll_back(Reason::new("probe-failed", "confirm", text), now)
                    }
                }
            }
            // Cut between intent and act: the slot was never made bootable, so doing it now is the first time.
            Standing::NotActivated
                if self.phase == Phase::Activating
                    && self.activation == Some(Activation::Intent)
                    && !self.rolling_back =>
            {
                if self.may_try_again() {
                    self.boot_id = Some(boot_id.to_owned());
                    changed(&[Action::Activate])
                } else {
                    let text = format!("power was lost {MAX_TRIES} times while switching");
                    self.end(
                        Phase::Failed,
                        Some(Reason::new("activate", "activate", text)),
                        now,
                    )
                }
            }
            Standing::Pending if !self.rolling_back => {
                if self.may_try_again() {
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
            Standing::NotActivated | Standing::FellBack => self.ended_on_old(now),
        }
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
