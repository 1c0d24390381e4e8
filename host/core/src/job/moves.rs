//! How a job moves: for every phase what each input leads to.

use super::{
    Action, Activation, Applied, Fit, GateAt, Input, Job, MAX_REARMS, MAX_SELECTOR_TRIES,
    MAX_TRIES, Outcome, Standing,
};
use crate::model::{Apply, Instant, Phase, Reason};
use crate::policy::Gate;

fn changed(actions: &[Action]) -> Applied {
    Applied::Changed(actions.to_vec())
}

impl Job {
    fn go(&mut self, phase: Phase, now: Instant, text: impl Into<String>) {
        if self.phase != phase {
            self.spent = 0;
        }
        self.phase = phase;
        self.until = None;
        self.note(now, text);
    }

    /// Ends the job; installs without an end of their own end as the job does.
    pub(super) fn end(&mut self, phase: Phase, reason: Option<Reason>, now: Instant) -> Applied {
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
