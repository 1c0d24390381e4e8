//! Jobs: what happened goes through [`Job::apply`], is committed, and only then acted on.
//!
//! [`Job::apply`]: otahost_core::job::Job::apply

use std::time::Duration;

use otahost_core::job::{self, Action, Applied, Fit, Job, Staged, Standing};
use otahost_core::model::{Event, Health, Phase, Reason};
use otahost_flash::{Activation, FlashError, Flasher};
use otahost_journal::{Change, Key, json};

use super::steps::{Origin, Queued};
use super::{Done, Engine, Exit, FLUSH_BEFORE_REBOOT, Release};

/// Pause between two looks at a new version that has not proved itself yet.
const EXAMINE_AGAIN: Duration = Duration::from_secs(2);
/// Pause before a reboot request that failed is made again.
const REBOOT_AGAIN: Duration = Duration::from_secs(10);

impl Engine {
    pub(super) fn on_job(&mut self, id: u64, input: job::Input) {
        let (mut changes, mut releases) = (Vec::new(), Vec::new());
        let first = matches!(input, job::Input::Retry)
            && self
                .jobs
                .get(&id)
                .is_some_and(|job| job.phase == Phase::Queued);
        let input = if first { job::Input::Begin } else { input };
        if self.move_job(id, input, &mut changes, &mut releases) == Applied::Progressed {
            self.tell_job(id);
        }
        if !changes.is_empty() {
            self.commit(changes, releases);
        }
    }

    /// Applies an input; what has to be committed and done afterwards is added to the lists.
    pub(super) fn move_job(
        &mut self,
        id: u64,
        input: job::Input,
        changes: &mut Vec<Change>,
        releases: &mut Vec<Release>,
    ) -> Applied {
        let now = self.now();
        let Some(job) = self.jobs.get_mut(&id) else {
            return Applied::Stale;
        };
        let before = job.phase;
        let applied = job.apply(input, &self.boot_id, now);
        let Applied::Changed(actions) = &applied else {
            return applied;
        };
        let phase = job.phase;
        if phase != before {
            let reason = job
                .reason
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            tracing::info!(id, key = job.plan.key, %phase, reason, "job");
        }
        if !matches!(phase, Phase::Downloading | Phase::Verifying)
            && !actions.contains(&Action::StopTransfer)
        {
            self.transfers.remove(&id);
        }
        if phase.is_final() {
            self.end_job(id, changes);
        } else {
            self.tell_job(id);
        }
        if let Some(job) = self.jobs.get(&id) {
            changes.push(Change::Put(Key::Job(id), json(job)));
        }
        releases.extend(
            actions
                .iter()
                .cloned()
                .map(|action| Release::Act(id, action)),
        );
        applied
    }

    /// The job has ended: everybody concerned will be told, and what is staged may be of no use any more.
    fn end_job(&mut self, id: u64, changes: &mut Vec<Change>) {
        self.examining.remove(&id);
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let targets: Vec<String> = job.targets().map(str::to_owned).collect();
        // The bytes of a transfer that broke off serve the next attempt; those of an image that was used or found wrong do not.
        let keep = matches!(job.phase, Phase::Failed | Phase::Cancelled)
            && job.reason.as_ref().is_some_and(|r| {
                matches!(
                    r.code.as_str(),
                    "source-lost" | "source-refused" | "too-short" | "cancelled" | "deadline"
                )
            });
        let concerned: Vec<String> = self
            .adapters
            .iter()
            .filter(|(name, state)| {
                **name == job.owner
                    || targets
                        .iter()
                        .any(|t| state.setup.grants.targets.contains(t))
            })
            .map(|(name, _)| name.clone())
            .collect();
        if let Some(job) = self.jobs.get_mut(&id) {
            job.unreported = concerned;
        }
        self.tell_job(id);
        for target in targets {
            if !keep
                && let Some((key, _)) = self.targets.get_mut(&target).and_then(|t| t.partial.take())
            {
                changes.push(Change::Delete(Key::Partial(key)));
            }
            self.observe(&target);
        }
    }

    /// Queues the job's newest report for the adapters concerned.
    pub(super) fn tell_job(&mut self, id: u64) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let rate = self.rate_of(id);
        let told: Vec<String> = if job.phase.is_final() {
            job.unreported.clone()
        } else {
            let targets: Vec<&str> = job.targets().collect();
            self.adapters
                .iter()
                .filter(|(name, state)| {
                    **name == job.owner
                        || targets
                            .iter()
                            .any(|t| state.setup.grants.targets.iter().any(|g| g == t))
                })
                .map(|(name, _)| name.clone())
                .collect()
        };
        let origin = if job.phase.is_final() {
            Origin::FinalReport(id)
        } else {
            Origin::Memory
        };
        let reports: Vec<_> = told
            .into_iter()
            .map(|name| (job.report(name != job.owner, rate), name))
            .collect();
        for (report, name) in reports {
            self.queue(&name, Queued::new(Event::Job(report), origin.clone()));
        }
        self.tell_watchers(id);
    }

    /// Does what a committed job asks for. Everything here may be done again after a cut.
    pub(super) fn act(&mut self, id: u64, action: Action) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let Some(install) = job.plan.installs.first() else {
            return;
        };
        let target = install.target.clone();
        match action {
            Action::Transfer => self.start_transfer(id, false),
            Action::TransferAfresh => self.start_transfer(id, true),
            Action::StopTransfer => self.stop_transfer(id),
            Action::RetryIn(wait) => {
                let tell = self.tell.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    let _ = tell.send(Done::Job(id, job::Input::Retry));
                });
            }
            Action::Reboot => {
                tracing::info!(id, "rebooting into the other version");
                self.rebooting = Some((id, tokio::time::Instant::now() + FLUSH_BEFORE_REBOOT));
            }
            Action::Examine => self.examine(id, Duration::ZERO),
            Action::ExamineLater => self.examine(id, EXAMINE_AGAIN),
            Action::ReadBack => self.flash(id, &target, |flasher, staged| {
                flasher.verify(&staged)?;
                Ok(job::Input::ReadBack)
            }),
            Action::Activate => self.flash(id, &target, |flasher, staged| {
                Ok(job::Input::Activated {
                    reboot: flasher.activate(&staged)? == Activation::NeedsReboot,
                })
            }),
            Action::Confirm => self.flash(id, &target, |flasher, staged| {
                flasher.confirm(&staged)?;
                Ok(job::Input::Confirmed)
            }),
            Action::RollBack => self.flash(id, &target, |flasher, staged| {
                Ok(job::Input::RolledBack {
                    reboot: flasher.roll_back(&staged)? == Activation::NeedsReboot,
                })
            }),
        }
    }

    /// Runs one operation of a flasher under the target's lock and brings the result back to the job.
    fn flash(
        &self,
        id: u64,
        target: &str,
        operation: impl FnOnce(&dyn Flasher, otahost_flash::Staged) -> Result<job::Input, FlashError>
        + Send
        + 'static,
    ) {
        let Some((flasher, staged)) = self.staged(id, target) else {
            tracing::error!(id, target, "a job has nothing staged to work on");
            let reason = Reason::new("flash", "install", "nothing is staged for this job");
            let _ = self
                .tell
                .send(Done::Job(id, job::Input::FlashFailed(reason)));
            return;
        };
        let lock = self
            .targets
            .get(target)
            .map(|t| t.lock.clone())
            .unwrap_or_default();
        let (seam, tell, stage) = (self.platform.seam, self.tell.clone(), self.stage_of(id));
        tokio::spawn(async move {
            let guard = lock.lock_owned().await;
            let result = seam
                .run(move || {
                    let result = operation(flasher.as_ref(), staged);
                    drop(guard);
                    result
                })
                .await;
            let input =
                result.unwrap_or_else(|error| job::Input::FlashFailed(flash_reason(&error, stage)));
            let _ = tell.send(Done::Job(id, input));
        });
    }

    fn staged(
        &self,
        id: u64,
        target: &str,
    ) -> Option<(std::sync::Arc<dyn Flasher>, otahost_flash::Staged)> {
        let flasher = self.platform.flashers.get(target)?.clone();
        let staged = self.jobs.get(&id)?.installs.first()?.staged.as_ref()?;
        Some((flasher, to_flash(staged)))
    }

    fn stage_of(&self, id: u64) -> &'static str {
        match self.jobs.get(&id).map(|job| job.phase) {
            Some(Phase::Activating) => "activate",
            Some(Phase::Confirming) => "confirm",
            _ => "install",
        }
    }

    /// Asks boot selector, version and probe.
    fn examine(&mut self, id: u64, after: Duration) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let Some(install) = job.plan.installs.first().cloned() else {
            return;
        };
        let Some((flasher, staged)) = self.staged(id, &install.target) else {
            return;
        };
        let within = self
            .setup
            .targets
            .iter()
            .find(|t| t.id == install.target)
            .map_or(Duration::ZERO, |t| t.confirm_within);
        let began = *self
            .examining
            .entry(id)
            .or_insert_with(tokio::time::Instant::now);
        let (outside, seam, tell) = (
            self.platform.outside.clone(),
            self.platform.seam,
            self.tell.clone(),
        );
        let stage = self.stage_of(id);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let expired = began.elapsed() >= within;
            let input = seam
                .run(move || match flasher.standing(&staged) {
                    Err(error) => job::Input::ExamineFailed(flash_reason(&error, stage)),
                    Ok(standing) => {
                        let standing = from_flash(&standing);
                        let fit = match standing {
                            Standing::New { .. } => {
                                fit(outside.as_ref(), &install.target, &install.version, expired)
                            }
                            _ => Fit::NotYet(String::new()),
                        };
                        job::Input::Examined(standing, fit)
                    }
                })
                .await;
            let _ = tell.send(Done::Job(id, input));
        });
    }

    /// Reboots once nothing on its way to a broker is held up by it, or after a short time.
    pub(super) fn try_reboot(&mut self) {
        let Some((id, until)) = self.rebooting else {
            return;
        };
        if self.reboot_asked {
            return;
        }
        let now = tokio::time::Instant::now();
        let busy = self.adapters.values().any(|a| !a.is_idle())
            || !self.pending.is_empty()
            || self.links.values().any(|link| !link.outbox.is_settled());
        if busy && now < until {
            return;
        }
        self.reboot_asked = true;
        let (outside, seam, tell) = (
            self.platform.outside.clone(),
            self.platform.seam,
            self.tell.clone(),
        );
        tokio::spawn(async move {
            let result = seam.run(move || outside.reboot()).await;
            let _ = tell.send(Done::RebootAsked(id, result));
        });
    }

    pub(super) fn on_reboot_asked(&mut self, id: u64, result: Result<(), String>) {
        self.reboot_asked = false;
        self.rebooting = None;
        match result {
            Ok(()) => self.exit = Some(Exit::Rebooting),
            Err(error) => {
                tracing::error!(id, error, "the reboot failed; it is tried again");
                let tell = self.tell.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(REBOOT_AGAIN).await;
                    let _ = tell.send(Done::Job(id, job::Input::Restarted { same_boot: true }));
                });
            }
        }
    }

    /// Asks a target for its version and health.
    pub(super) fn observe(&self, target: &str) {
        let (outside, seam, tell, name) = (
            self.platform.outside.clone(),
            self.platform.seam,
            self.tell.clone(),
            target.to_owned(),
        );
        tokio::spawn(async move {
            let asked = name.clone();
            let (version, health) = seam.run(move || observed(outside.as_ref(), &asked)).await;
            let _ = tell.send(Done::Observed(name, version, health));
        });
    }

    pub(super) fn on_observed(
        &mut self,
        target: &str,
        version: Result<String, String>,
        health: Health,
    ) {
        let now = self.now();
        let Some(state) = self.targets.get_mut(target) else {
            return;
        };
        let (version, error) = match version {
            Ok(version) => (Some(version), None),
            Err(error) => (None, Some(error)),
        };
        let changed = state.version != version || state.health != Some(health);
        state.version = version;
        state.version_error = error;
        state.health = Some(health);
        state.observed = Some(now);
        if changed {
            let concerned: Vec<String> = self
                .adapters
                .iter()
                .filter(|(_, a)| a.setup.grants.targets.iter().any(|t| t == target))
                .map(|(name, _)| name.clone())
                .collect();
            for adapter in concerned {
                self.queue(
                    &adapter,
                    Queued::new(Event::Target(target.to_owned()), Origin::Memory),
                );
            }
        }
    }

    /// Goes on with the jobs of an earlier process.
    pub(super) fn resume_jobs(&mut self) {
        let ids: Vec<u64> = self.jobs.keys().copied().collect();
        for id in ids {
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            // An adapter that is not configured any more will never take its report.
            job.unreported
                .retain(|name| self.adapters.contains_key(name));
            if job.phase.is_final() {
                self.tell_job(id);
            } else {
                let same_boot = job.boot_id.as_ref() == Some(&self.boot_id);
                self.on_job(id, job::Input::Restarted { same_boot });
            }
        }
    }
}

/// Version and health of a target, asked now.
pub(super) fn observed(
    outside: &dyn crate::platform::Outside,
    target: &str,
) -> (Result<String, String>, Health) {
    let health = match outside.probe(target) {
        Ok(()) => Health::Healthy,
        Err(_) => Health::Unwell,
    };
    (outside.version(target), health)
}

fn fit(outside: &dyn crate::platform::Outside, target: &str, wanted: &str, expired: bool) -> Fit {
    let not_yet = |text: String| {
        if expired {
            Fit::Expired(text)
        } else {
            Fit::NotYet(text)
        }
    };
    match outside.version(target) {
        Err(error) => not_yet(format!("its version cannot be read: {error}")),
        Ok(version) if !wanted.is_empty() && version != wanted => Fit::WrongVersion(format!(
            "version {version} runs, but {wanted} was installed"
        )),
        Ok(_) => match outside.probe(target) {
            Ok(()) => Fit::Fits,
            Err(error) => not_yet(format!("it is not well: {error}")),
        },
    }
}

pub(super) fn flash_reason(error: &FlashError, stage: &str) -> Reason {
    let code = match error {
        FlashError::NoSpace(_) => "no-space",
        FlashError::Corrupt(_) | FlashError::Io(_) => "flash",
        FlashError::Selector(_) => "activate",
    };
    Reason::new(code, stage, error.to_string())
}

fn to_flash(staged: &Staged) -> otahost_flash::Staged {
    otahost_flash::Staged {
        place: staged.place.clone(),
        len: staged.len,
        sha256: staged.sha256.clone(),
    }
}

fn from_flash(standing: &otahost_flash::Standing) -> Standing {
    match standing {
        otahost_flash::Standing::New { confirmed } => Standing::New {
            confirmed: *confirmed,
        },
        otahost_flash::Standing::NotActivated => Standing::NotActivated,
        otahost_flash::Standing::Pending { .. } => Standing::Pending,
        otahost_flash::Standing::FellBack => Standing::FellBack,
    }
}

/// Rows of jobs the engine cannot read are kept and named: an older agent may meet a newer one's.
pub(super) fn read_job(key: &Key, value: &[u8]) -> Option<Job> {
    match otahost_journal::from_json(key, value) {
        Ok(job) => Some(job),
        Err(error) => {
            tracing::error!(%error, "a job of another version of the agent is left alone");
            None
        }
    }
}
