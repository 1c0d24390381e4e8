//! How a job moves: for every phase up to the point of no return what each input leads to.

use super::{Action, Activation, Applied, GateAt, Input, InstallState, Job, Outcome};
use crate::model::{Apply, Instant, Phase, Reason};
use crate::policy::Gate;

pub(super) fn changed(actions: &[Action]) -> Applied {
    Applied::Changed(actions.to_vec())
}

impl Job {
    pub(super) fn go(&mut self, phase: Phase, now: Instant, text: impl Into<String>) {
        if self.phase != phase {
            self.spent = 0;
            self.installs.iter_mut().for_each(|state| state.percent = 0);
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
    pub(super) fn end_current(
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
        self.gate = None;
        self.go(Phase::Installing, now, "reading what is staged back");
        self.read_back_from(0, now)
    }

    /// What a target has already is not read back: whatever became of the staged bytes since, it has them.
    fn read_back_from(&mut self, first: usize, now: Instant) -> Applied {
        let left = self.installs.iter().skip(first);
        match left.take_while(|state| state.delivered).count() + first {
            next if next < self.installs.len() => {
                self.current = next;
                changed(&[Action::ReadBack])
            }
            _ => {
                self.note(now, "read back");
                self.deliver_next(now)
            }
        }
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
            (Phase::Delivering, input) => self.delivering(input, now),
            (Phase::Delivered, Input::Gate(gate)) if !self.paused => {
                self.gate(GateAt::Activation, gate, boot_id, now)
            }
            _ => Applied::Stale,
        }
    }

    /// What is to be done in a phase before the point of no return, when nothing is under way: after a start or a pause.
    fn go_on(&mut self, now: Instant) -> Applied {
        match self.phase {
            Phase::Queued => changed(&[Action::CheckGate(GateAt::Begin)]),
            // What the targets have already is not ours to read back, and it is not pushed to them twice.
            Phase::Delivered if self.all_delivered() => {
                changed(&[Action::CheckGate(GateAt::Activation)])
            }
            Phase::Waiting if self.gate == Some(GateAt::Activation) && self.all_delivered() => {
                changed(&[Action::CheckGate(GateAt::Activation)])
            }
            // What was read back in an earlier life has to be read back again.
            Phase::Waiting if self.gate == Some(GateAt::Activation) => self.read_back(now),
            Phase::Waiting => changed(&[Action::CheckGate(self.gate.unwrap_or(GateAt::Begin))]),
            Phase::Downloading | Phase::Verifying => {
                self.begin_transfer("the transfer goes on", now)
            }
            Phase::Prepared => self.when_prepared(),
            Phase::Installing | Phase::Delivering | Phase::Delivered => self.read_back(now),
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
                delivers,
            } => {
                state.staged = Some(staged);
                state.delivers = delivers;
                state.delivered = false;
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
            Input::ReadBack if !self.paused => self.read_back_from(self.current + 1, now),
            Input::Working(percent) => self.working(percent),
            Input::Gate(gate) if !self.paused && self.gate == Some(GateAt::Activation) => {
                self.gate(GateAt::Activation, gate, boot_id, now)
            }
            Input::FlashFailed(reason) => self.fail(reason, now),
            _ => Applied::Stale,
        }
    }

    fn all_delivered(&self) -> bool {
        self.installs.iter().all(|state| state.delivered)
    }

    /// Everything is staged and read back: what has to be handed over is, one after the other; then the switch may be asked for.
    fn deliver_next(&mut self, now: Instant) -> Applied {
        let wants = |state: &InstallState| state.delivers && !state.delivered;
        let next = self
            .order
            .iter()
            .copied()
            .find(|index| self.installs.get(*index).is_some_and(wants));
        if let Some(next) = next {
            // Each has the whole time for itself.
            self.spent = 0;
            self.current = next;
            self.go(
                Phase::Delivering,
                now,
                format!("handing over to `{}`", self.current_target()),
            );
            return changed(&[Action::Deliver]);
        }
        if self.installs.iter().any(|state| state.delivered) {
            self.go(Phase::Delivered, now, "handed over");
        }
        // Only an answer to this question counts.
        self.gate = Some(GateAt::Activation);
        changed(&[Action::CheckGate(GateAt::Activation)])
    }

    fn delivering(&mut self, input: Input, now: Instant) -> Applied {
        match input {
            Input::Delivered if !self.paused => {
                if let Some(state) = self.installs.get_mut(self.current) {
                    state.delivered = true;
                }
                self.deliver_next(now)
            }
            Input::Working(percent) if !self.paused => self.working(percent),
            Input::FlashFailed(reason) => self.fail(reason, now),
            _ => Applied::Stale,
        }
    }

    pub(super) fn working(&mut self, percent: u8) -> Applied {
        match self.installs.get_mut(self.current) {
            Some(state) => {
                state.percent = percent;
                Applied::Progressed
            }
            None => Applied::Stale,
        }
    }
}

/// The stage a reason names for something that happens in a phase.
pub(super) fn stage_word(phase: Phase) -> &'static str {
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
