//! A version that runs on trial and of which no job is remembered: the journal that knew of it is damaged, or cannot be read.
//!
//! It was verified before it was made bootable, and it booted. So it is judged by what can still be asked: it tells its version and its
//! probe is well within the time the target has, or the old one comes back. Left alone it would lose a try with every boot.

use std::sync::Arc;
use std::time::Duration;

use otahost_core::model::Phase;
use otahost_flash::{Activation, FlashError, Flasher, Quiet, Staged, Work};
use tokio::time::Instant;

use super::{Done, Engine};
use crate::platform::Outside;

/// Pause between two looks, and between two tries at a boot selector.
const AGAIN: Duration = Duration::from_secs(2);
/// Tries at the boot selector.
const TRIES: u32 = 8;

/// What became of such a version.
#[derive(Debug)]
pub(super) enum Ended {
    /// It is permanent.
    Confirmed,
    /// The old one is next, and runs after a reboot.
    RolledBack { reboot: bool, why: String },
    /// Neither could be done.
    Failed(String),
}

/// A target to look at.
struct Orphan {
    target: String,
    within: Duration,
    flasher: Arc<dyn Flasher>,
    outside: Arc<dyn Outside>,
    seam: otahost_disk::Seam,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Engine {
    /// Looks at every target for a version on trial that no job speaks of.
    pub(super) fn look_for_orphans(&self) {
        for setup in &self.setup.targets {
            let Some(flasher) = self.platform.flashers.get(&setup.id) else {
                continue;
            };
            if self.speaks_of_trial(&setup.id) {
                continue;
            }
            let orphan = Orphan {
                target: setup.id.clone(),
                within: setup.confirm_within,
                flasher: flasher.clone(),
                outside: self.platform.outside.clone(),
                seam: self.platform.seam,
                lock: self.platform.lock_of(&setup.id),
            };
            let tell = self.tell.clone();
            tokio::spawn(async move {
                let target = orphan.target.clone();
                if let Some(ended) = orphan.settle().await {
                    let _ = tell.send(Done::Orphan(target, ended));
                }
            });
        }
    }

    /// A job is at work on it past its point of no return, or the last one said that the way back failed: then a person has to look.
    fn speaks_of_trial(&self, target: &str) -> bool {
        let of_target = |job: &&otahost_core::job::Job| job.targets().any(|t| t == target);
        let at_work = self
            .jobs
            .values()
            .filter(of_target)
            .any(|job| job.phase.is_past_return() && !job.phase.is_final());
        let last = self.jobs.values().rev().find(of_target);
        let given_up = last.is_some_and(|job| {
            let mut installs = job.plan.installs.iter().zip(&job.installs);
            installs.any(|(asked, state)| {
                let outcome = state.outcome.as_ref().map(|o| o.phase);
                asked.target == target && outcome == Some(Phase::RollbackFailed)
            })
        });
        at_work || given_up
    }

    pub(super) fn on_orphan(&mut self, target: &str, ended: Ended) {
        let (code, text) = match &ended {
            Ended::Confirmed => (
                "trial-confirmed",
                format!(
                    "`{target}` ran a version on trial that no job speaks of; it is well and stays"
                ),
            ),
            Ended::RolledBack { why, .. } => (
                "trial-rolled-back",
                format!(
                    "`{target}` ran a version on trial that no job speaks of; the old one comes back: {why}"
                ),
            ),
            Ended::Failed(why) => (
                "rollback-failed",
                format!(
                    "`{target}` runs a version on trial that no job speaks of, and it stays so: {why}"
                ),
            ),
        };
        let mut changes = Vec::new();
        let release = self.alert(code, text, &mut changes);
        self.commit(changes, release.into_iter().collect());
        self.observe(target);
        if matches!(ended, Ended::RolledBack { reboot: true, .. }) && self.rebooting.is_none() {
            // There is no job to try it again. What boots next is settled, whoever causes it.
            self.rebooting = Some((0, Instant::now() + super::FLUSH_BEFORE_REBOOT));
        }
    }
}

impl Orphan {
    /// `None` when nothing is on trial.
    async fn settle(self) -> Option<Ended> {
        let flasher = self.flasher.clone();
        let staged = match self.seam.run(move || flasher.on_trial()).await {
            Ok(staged) => staged?,
            Err(error) => {
                let target = self.target;
                tracing::warn!(target, %error, "whether a version runs on trial cannot be told");
                return None;
            }
        };
        tracing::warn!(
            target = self.target,
            slot = staged.place,
            "a version runs on trial that no job speaks of; it has to prove itself"
        );
        let began = Instant::now();
        let why = loop {
            let (outside, target) = (self.outside.clone(), self.target.clone());
            let is_well = move || {
                outside
                    .version(&target)
                    .and_then(|_| outside.probe(&target))
            };
            match self.seam.run(is_well).await {
                Ok(()) => break None,
                Err(why) if began.elapsed() >= self.within => break Some(why),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        let mut last = String::new();
        for _ in 0..TRIES {
            match self.end(staged.clone(), why.clone()).await {
                Ok(ended) => return Some(ended),
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(AGAIN).await;
        }
        Some(Ended::Failed(last))
    }

    async fn end(&self, staged: Staged, why: Option<String>) -> Result<Ended, FlashError> {
        let guard = self.lock.clone().lock_owned().await;
        let (flasher, target) = (self.flasher.clone(), self.target.clone());
        self.seam
            .run(move || {
                let _guard = guard;
                let Some(why) = why else {
                    flasher.confirm(&staged)?;
                    return Ok(Ended::Confirmed);
                };
                let work = Work {
                    target: &target,
                    version: "",
                    old_version: None,
                    progress: &Quiet,
                };
                let reboot = flasher.roll_back(&staged, &work)? == Activation::NeedsReboot;
                Ok(Ended::RolledBack { reboot, why })
            })
            .await
    }
}
