//! Jobs: what happened goes through [`Job::apply`], is committed, and only then acted on.
//!
//! [`Job::apply`]: otahost_core::job::Job::apply

use std::time::Duration;

use otahost_core::job::{self, Action, Applied, Fit, GateAt, Job, Standing};
use otahost_core::model::{Event, Health, Install, Phase, Reason};
use otahost_journal::{Change, Key, json};
use tokio::time::Instant;

use super::flashing::{flash_reason, from_flash};
use super::steps::{Origin, Queued};
use super::turns::Turn;
use super::{Done, Engine, Exit, FLUSH_BEFORE_REBOOT, Release};

/// Pause between two looks at a new version that has not proved itself yet.
const EXAMINE_AGAIN: Duration = Duration::from_secs(2);
/// The same for a target that takes its time: longest and shortest.
const EXAMINE_RARELY: Duration = Duration::from_secs(30);
const EXAMINE_SOON: Duration = Duration::from_millis(100);
/// Pause before a reboot request that failed is made again.
const REBOOT_AGAIN: Duration = Duration::from_secs(10);
/// Milliseconds of a phase after which what it has cost so far is kept, although nothing else changed: a job on a device that loses power
/// again and again must run out of time too.
const KEEP_SPENT: u64 = 600_000;
/// What failed there failed for the sake of the target; the bytes were right, and serve the next attempt.
const STAGE_DELIVER: &str = "deliver";
/// Reasons after which the bytes that are here serve the next attempt. After any other they were used or found wrong.
const KEEPS_PARTIAL: [&str; 6] = [
    "source-lost",
    "source-refused",
    "too-short",
    "cancelled",
    "authority",
    "deadline",
];

impl Engine {
    pub(super) fn on_job(&mut self, id: u64, input: job::Input) {
        let (mut changes, mut releases) = (Vec::new(), Vec::new());
        let applied = self.move_job(id, input, &mut changes, &mut releases);
        let moved = matches!(applied, Applied::Changed(_));
        match applied {
            Applied::Progressed => self.tell_job(id),
            Applied::Unchanged(actions) => {
                actions.into_iter().for_each(|action| self.act(id, action))
            }
            Applied::Changed(_) | Applied::Stale | Applied::TooLate => {}
        }
        if changes.is_empty() {
            return;
        }
        if moved {
            self.commit(changes, releases);
        } else {
            self.commit_time(changes, releases);
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
        let kept = job.spent / KEEP_SPENT;
        if let Some(since) = self.phase_since.insert(id, Instant::now()) {
            job.spent = job
                .spent
                .saturating_add(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        let before = job.clone();
        let applied = job.apply(input, &self.boot_id, now);
        let Applied::Changed(actions) = &applied else {
            if job.spent / KEEP_SPENT != kept && !job.phase.is_final() {
                changes.push(Change::Put(Key::Job(id), json(job)));
            }
            return applied;
        };
        let (phase, key) = (job.phase, job.plan.key.clone());
        if phase != before.phase {
            let reason = job
                .reason
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            tracing::info!(id, key, %phase, reason, "job");
        }
        if job.current != before.current {
            // The next install has the whole of its own time.
            self.examining.remove(&id);
        }
        if job.paused {
            // What a resume starts is another attempt; nobody waits for an answer to the last.
            self.asked.remove(&id);
        }
        self.remember_targets(id, &before, changes);
        if !matches!(phase, Phase::Downloading | Phase::Verifying) {
            self.stop_transfer(id);
        }
        self.stop_unwanted_work(id);
        if phase.is_final() {
            self.end_job(id, before.phase, changes);
        }
        if phase == Phase::RollbackFailed
            && let Some(job) = self.jobs.get(&id)
        {
            let targets: Vec<&str> = job.targets().collect();
            let why = job
                .reason
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            let text = format!(
                "the update of {} failed, and so did the way back: {why}",
                targets.join(", ")
            );
            releases.extend(self.alert("rollback-failed", text, changes));
        }
        releases.extend(
            actions
                .iter()
                .cloned()
                .map(|action| Release::Act(id, action)),
        );
        releases.push(Release::Watched(id));
        if let Some(job) = self.jobs.get(&id) {
            changes.push(Change::Put(Key::Job(id), json(job)));
        }
        self.tell_job(id);
        applied
    }

    /// What a target's memory takes from a move: activations, images that proved themselves and images that did not.
    fn remember_targets(&mut self, id: u64, before: &Job, changes: &mut Vec<Change>) {
        let now = self.now();
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let activates = job.phase == Phase::Activating
            && (before.phase != Phase::Activating || before.current != job.current);
        let old_and_new = before
            .installs
            .iter()
            .zip(&job.installs)
            .zip(&job.plan.installs)
            .enumerate();
        for (index, ((old, new), asked)) in old_and_new {
            let ended = new
                .outcome
                .as_ref()
                .filter(|_| old.outcome.is_none())
                .map(|o| o.phase);
            let Some(state) = self.targets.get_mut(&asked.target) else {
                continue;
            };
            let known = state.memory.clone();
            if activates && index == job.current {
                state.memory.activated(now);
            }
            match (ended, &new.image_sha256) {
                (Some(Phase::Succeeded), Some(sha256)) => {
                    state.memory.confirmed(sha256, new.rollback_index);
                    if let Some(pace) = job.pace(now) {
                        state.memory.observed(pace);
                    }
                }
                (Some(Phase::RolledBack), Some(sha256)) => {
                    state
                        .memory
                        .rolled_back(sha256, &asked.artifact.marks(), &asked.version);
                }
                _ => {}
            }
            if state.memory != known {
                changes.push(Change::Put(
                    Key::Target(asked.target.clone()),
                    json(&state.memory),
                ));
            }
        }
    }

    /// The job has ended: everybody concerned will be told, and what is staged may be of no use any more. Where its targets may be others
    /// than they were, they are looked at first: who is told that an update is over asks at once what runs now.
    fn end_job(&mut self, id: u64, before: Phase, changes: &mut Vec<Change>) {
        self.examining.remove(&id);
        self.phase_since.remove(&id);
        self.asked.remove(&id);
        let concerned = self.concerned(id);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.unreported = concerned;
        // A signed URL is of no use any more, and need not lie in the journal.
        for install in &mut job.plan.installs {
            install.artifact.source.forget_query();
        }
        let targets: Vec<String> = job.targets().map(str::to_owned).collect();
        let keep = matches!(job.phase, Phase::Failed | Phase::Cancelled)
            && job.reason.as_ref().is_some_and(|r| {
                KEEPS_PARTIAL.contains(&r.code.as_str()) || r.stage == STAGE_DELIVER
            });
        if matches!(before, Phase::Delivering | Phase::Delivered) || before.is_past_return() {
            self.looks.insert(id, targets.iter().cloned().collect());
        }
        for target in targets {
            if !keep
                && let Some((key, _)) = self.targets.get_mut(&target).and_then(|t| t.partial.take())
            {
                changes.push(Change::Delete(Key::Partial(key)));
            }
            self.observe(&target);
        }
        self.forget_old_jobs(changes);
    }

    /// The adapters that are told of a job: its owner, and those that are granted one of its targets.
    fn concerned(&self, id: u64) -> Vec<String> {
        let Some(job) = self.jobs.get(&id) else {
            return Vec::new();
        };
        let targets: Vec<&str> = job.targets().collect();
        // Those that are configured, also while they do not run.
        self.adapters
            .iter()
            .filter(|(name, a)| {
                **name == job.owner
                    || a.grants
                        .targets
                        .iter()
                        .any(|granted| targets.contains(&granted.as_str()))
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Those that are to be told how a job stands.
    fn listeners(&self, id: u64) -> Vec<String> {
        match self.jobs.get(&id) {
            Some(job) if !job.phase.is_final() => self.concerned(id),
            // Those whose look at its targets is not over yet are told then.
            Some(job) if !self.looks.contains_key(&id) => job.unreported.clone(),
            _ => Vec::new(),
        }
    }

    /// Queues the job's newest report for the adapters concerned.
    pub(super) fn tell_job(&mut self, id: u64) {
        for name in self.listeners(id) {
            self.report_to(id, &name);
        }
        if self.jobs.get(&id).is_some_and(|job| !job.phase.is_final()) {
            self.tell_watchers(id);
        }
    }

    /// The same for one adapter, if it is concerned.
    pub(super) fn tell_job_to(&mut self, id: u64, adapter: &str) {
        if self.listeners(id).iter().any(|name| name == adapter) {
            self.report_to(id, adapter);
        }
    }

    fn report_to(&mut self, id: u64, adapter: &str) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let foreign = adapter != job.owner;
        if !foreign && self.is_withheld(job) {
            return;
        }
        let origin = if job.phase.is_final() {
            Origin::FinalReport(id)
        } else {
            Origin::Memory
        };
        let report = job.report(foreign, self.rate_of(id));
        self.queue(adapter, Queued::new(Event::Job(report), origin));
    }

    /// Does what a committed job asks for. Everything here may be done again after a cut.
    pub(super) fn act(&mut self, id: u64, action: Action) {
        if self.must_wait_for_journal(id, &action) {
            tracing::warn!(id, ?action, "not done as long as nothing can be kept");
            return;
        }
        match action {
            Action::CheckGate(GateAt::Begin) => self.take_turn(id, Turn::Begin),
            Action::CheckGate(at) => self.check_gate(id, at),
            Action::CheckGateIn(wait) => self.later(id, wait, job::Input::GateAgain),
            Action::Transfer => self.take_turn(id, Turn::Transfer { afresh: false }),
            Action::TransferAfresh => self.take_turn(id, Turn::Transfer { afresh: true }),
            Action::StopTransfer => {
                self.stop_transfer(id);
                self.stop_unwanted_work(id);
            }
            Action::RetryIn(wait) => self.later(id, wait, job::Input::Retry(None)),
            Action::Reboot => {
                tracing::info!(id, "rebooting into the other version");
                self.rebooting = Some((id, Instant::now() + FLUSH_BEFORE_REBOOT));
            }
            Action::Examine => self.examine(id, Duration::ZERO),
            Action::ExamineLater => self.examine(id, EXAMINE_AGAIN),
            Action::ReadBack => self.flash(id, 0, |flasher, staged, _| {
                flasher.verify(&staged)?;
                Ok(Some(job::Input::ReadBack))
            }),
            Action::Deliver => self.take_turn(id, Turn::Deliver),
            Action::Activate => self.activate(id, 0),
            Action::ActivateIn(wait) => self.activate(id, wait),
            Action::Rearm => self.flash(id, 0, |flasher, staged, _| {
                // It only costs tries when it fails, and the examination goes on beside it.
                if let Err(error) = flasher.rearm(&staged) {
                    tracing::warn!(%error, "the new version's boot tries could not be given back");
                }
                Ok(None)
            }),
            Action::Confirm => self.flash(id, 0, |flasher, staged, _| {
                flasher.confirm(&staged)?;
                Ok(Some(job::Input::Confirmed))
            }),
            Action::RollBack => self.roll_back(id, 0),
            Action::RollBackIn(wait) => self.roll_back(id, wait),
        }
    }

    /// Gives a job an input after a while. What has changed by then makes it stale.
    fn later(&self, id: u64, wait: u64, input: job::Input) {
        let tell = self.tell.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let _ = tell.send(Done::Job(id, input));
        });
    }

    /// The install a job works on.
    pub(super) fn current_install(&self, id: u64) -> Option<Install> {
        let job = self.jobs.get(&id)?;
        job.plan.installs.get(job.current).cloned()
    }

    /// Asks boot selector, version and probe.
    fn examine(&mut self, id: u64, after: Duration) {
        let (Some(install), Some((flasher, staged, target))) =
            (self.current_install(id), self.staged(id))
        else {
            let reason = Reason::new(
                "unknown-target",
                "confirm",
                "the target of this job is not configured any more",
            );
            let _ = self.tell.send(Done::Job(
                id,
                job::Input::ExamineFailed {
                    reason,
                    expired: true,
                },
            ));
            return;
        };
        let setup = self.target_setup(&target);
        let within = setup.map_or(Duration::ZERO, |t| t.confirm_within);
        // Only the adapter that asked can accept it; the operator does so by asking.
        let unconfirmed = setup.is_some_and(|t| t.confirm_by_adapter)
            && self
                .jobs
                .get(&id)
                .is_some_and(|job| !job.confirm_given && job.owner != job::OPERATOR);
        let began = *self.examining.entry(id).or_insert_with(Instant::now);
        let old_version = self
            .jobs
            .get(&id)
            .and_then(|job| job.installs.get(job.current)?.old_version.clone())
            .filter(|_| flasher.takes_its_time());
        let after = if old_version.is_some() && !after.is_zero() {
            // It is asked less and less often; but never long after its time is over.
            let elapsed = began.elapsed();
            let left = within.saturating_sub(elapsed);
            after
                .max((elapsed / 4).min(EXAMINE_RARELY))
                .min(left)
                .max(EXAMINE_SOON)
        } else {
            after
        };
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
                    Err(error) => job::Input::ExamineFailed {
                        reason: flash_reason(&error, stage),
                        expired,
                    },
                    Ok(standing) => {
                        let standing = from_flash(&standing);
                        let fit = match standing {
                            Standing::New { .. } => fit(
                                outside.as_ref(),
                                &target,
                                &install.version,
                                old_version.as_deref(),
                                unconfirmed,
                                expired,
                            ),
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
        let busy = self
            .adapters
            .values()
            .any(|a| a.runs().is_some() && !a.is_idle())
            || !self.pending.is_empty()
            || self.links.values().any(|link| !link.outbox.is_settled());
        if busy && Instant::now() < until {
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
                let wait = u64::try_from(REBOOT_AGAIN.as_millis()).unwrap_or(u64::MAX);
                self.later(id, wait, job::Input::Restarted { same_boot: true });
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

    /// A target was looked at. Jobs whose end waited for that are told.
    pub(super) fn on_looked_at(&mut self, target: &str) {
        let mut seen = Vec::new();
        self.looks.retain(|id, targets| {
            targets.remove(target);
            if targets.is_empty() {
                seen.push(*id);
            }
            !targets.is_empty()
        });
        for id in seen {
            self.tell_job(id);
        }
    }

    pub(super) fn on_observed(
        &mut self,
        target: &str,
        version: Result<String, String>,
        health: Health,
    ) {
        let now = self.now();
        // A device behind this one that does not even tell its version is not there.
        let is_behind = self
            .target_setup(target)
            .is_some_and(|setup| setup.parent.is_some());
        let Some(state) = self.targets.get_mut(target) else {
            return;
        };
        if let Err(error) = &version {
            tracing::warn!(target, error, "the target's version cannot be read");
        }
        let health = match &version {
            Err(_) if is_behind => Health::Offline,
            _ => health,
        };
        state.version_fault = version.as_ref().err().cloned();
        let version = version.ok();
        let changed = !state.told || state.version != version || state.health != Some(health);
        state.version = version;
        state.health = Some(health);
        state.observed = Some(now);
        // At the start there is nobody to tell yet.
        state.told = !self.adapters.is_empty();
        if changed {
            let concerned: Vec<String> = self
                .adapters
                .iter()
                .filter(|(_, a)| a.grants.targets.iter().any(|t| t == target))
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
            } else if !self.vitals.safe_mode || job.phase.is_past_return() {
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

/// `patient_with` is the version that may go on to be reported for a while.
fn fit(
    outside: &dyn crate::platform::Outside,
    target: &str,
    wanted: &str,
    patient_with: Option<&str>,
    unconfirmed: bool,
    expired: bool,
) -> Fit {
    let not_yet = |text: String| {
        if expired {
            Fit::Expired(text)
        } else {
            Fit::NotYet(text)
        }
    };
    match outside.version(target) {
        Err(error) => not_yet(format!("its version cannot be read: {error}")),
        Ok(version) if !wanted.is_empty() && version != wanted => {
            let text = format!("version {version} runs, but {wanted} was installed");
            if !expired && patient_with == Some(version.as_str()) {
                Fit::NotYet(text)
            } else {
                Fit::WrongVersion(text)
            }
        }
        Ok(_) => match outside.probe(target) {
            Err(error) => not_yet(format!("it is not well: {error}")),
            Ok(()) if unconfirmed => not_yet("the platform has not accepted it".into()),
            Ok(()) => Fit::Fits,
        },
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
