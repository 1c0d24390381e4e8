//! How a job moves past its point of no return: switching, reboot, proof, and the way back.

use super::moves::{changed, stage_word};
use super::{
    Action, Activation, Applied, Fit, Input, Job, MAX_REARMS, MAX_SELECTOR_TRIES, MAX_TRIES,
    Standing,
};
use crate::model::{Instant, Millis, Phase, Reason};

impl Job {
    pub(super) fn past_return(&mut self, input: Input, boot_id: &str, now: Instant) -> Applied {
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
            Input::Working(percent) if !self.rolling_back && self.phase == Phase::Activating => {
                self.working(percent)
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
            // The boot selector may be held by another program for a while. What was changed of it is changed once more, which is nothing.
            Input::FlashFailed(reason)
                if reason.code == "activate" && self.may_try_again(MAX_SELECTOR_TRIES) =>
            {
                self.note(now, format!("switching failed: {reason}"));
                changed(&[Action::ActivateIn(self.selector_wait())])
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
            Standing::Unclear if !self.rolling_back => self.examined_unclear(boot_id, now),
            Standing::Unclear => changed(&[Action::RollBack]),
            // The slot that failed must not be what boots next, whatever gives it tries again.
            Standing::FellBack if !self.rolling_back => {
                let text = "the new version did not come up and the old one runs again";
                self.roll_back(Reason::new("boot-failed", "activate", text), now)
            }
            Standing::NotActivated | Standing::FellBack => self.ended_on_old(boot_id, now),
        }
    }

    /// Cut in the middle of the switch: it is done once more, unless that was tried often enough.
    fn examined_unclear(&mut self, boot_id: &str, now: Instant) -> Applied {
        if self.phase == Phase::Activating && self.may_try_again(MAX_TRIES) {
            self.boot_id = Some(boot_id.to_owned());
            return changed(&[Action::ReadBack]);
        }
        let text = "nobody knows how the switch to the new version ended";
        self.roll_back(Reason::new("activate", "activate", text), now)
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

    /// Milliseconds until a boot selector is tried again.
    fn selector_wait(&self) -> Millis {
        (1_000 << self.tries.min(6)).min(60_000)
    }

    /// The way back failed: again after a growing wait, or for good.
    fn roll_back_failed(&mut self, reason: Reason, boot_id: &str, now: Instant) -> Applied {
        if self.may_try_again(MAX_SELECTOR_TRIES) {
            self.note(now, format!("rolling back failed: {reason}"));
            changed(&[Action::RollBackIn(self.selector_wait())])
        } else {
            self.end_current(Phase::RollbackFailed, Some(reason), boot_id, now)
        }
    }
}
