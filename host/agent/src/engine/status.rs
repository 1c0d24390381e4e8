//! What a person or a script at the device asks, through the local API.

use std::path::Path;

use otahost_core::job::{self, Applied, Job, OPERATOR};
use otahost_core::model::{
    Apply, Artifact, ArtifactSource, Dedupe, Health, Install, JobPlan, Phase, Reason, Verdict,
};
use otahost_core::policy::memory::MAX_ACTIVATIONS;
use otahost_journal::{Change, Key, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::details::Asked;
use super::swap::Client;
use super::{Done, Engine, Release};
use crate::api::{
    AdapterOrigin, ApiCall, BadImageView, ErrorCode, FailureView, HistoryView, InstallView,
    JobView, LinkView, MemoryView, Reply, Request, SlotView, StatusView, TargetView,
};
use crate::assemble::read_component;
use crate::platform::TargetSetup;

/// A client that follows a job.
#[derive(Debug)]
pub(super) struct Watcher {
    job: u64,
    reply: mpsc::Sender<Reply>,
}

fn health_word(health: Option<Health>) -> &'static str {
    match health {
        None | Some(Health::Unknown) => "unknown",
        Some(Health::Healthy) => "healthy",
        Some(Health::Unwell) => "unwell",
        Some(Health::Offline) => "offline",
    }
}

fn error(code: ErrorCode, message: impl Into<String>) -> Reply {
    Reply::Error {
        code,
        message: message.into(),
    }
}

impl Engine {
    pub(super) fn on_api(&mut self, call: ApiCall) {
        let ApiCall { request, reply } = call;
        if let Some(why) = self.cannot_keep(&request) {
            drop(reply.try_send(error(ErrorCode::Unavailable, why)));
            return;
        }
        let answer = match request {
            Request::Status => return self.answer_status(reply),
            Request::Jobs { key } => {
                let wanted = |job: &&Job| key.as_ref().is_none_or(|k| named(job, k));
                let jobs: Vec<JobView> = self
                    .jobs
                    .values()
                    .rev()
                    .filter(wanted)
                    .map(|job| self.job_view(job))
                    .collect();
                match key {
                    Some(key) if jobs.is_empty() => unknown_job(&key),
                    _ => Reply::Jobs(jobs),
                }
            }
            Request::Job { key, follow } => match self.job_named(&key) {
                None => unknown_job(&key),
                Some(job) => {
                    if follow && !job.phase.is_final() {
                        let watcher = Watcher {
                            job: job.id,
                            reply: reply.clone(),
                        };
                        let view = self.job_view(job);
                        self.watchers.push(watcher);
                        Reply::Job(Box::new(view))
                    } else {
                        Reply::Job(Box::new(self.job_view(job)))
                    }
                }
            },
            Request::Cancel { key } => {
                let reason = Reason::new("cancelled", "install", "cancelled by the operator");
                self.steer(&key, job::Input::Cancel(reason))
            }
            Request::Pause { key } => self.steer(&key, job::Input::Pause),
            Request::Resume { key } => self.steer(&key, job::Input::Resume),
            Request::Clear { target, image } => self.clear(&target, image.as_deref()),
            Request::AdapterInstall { adapter, path } => {
                let read = move || read_component(Path::new(&path));
                return self.install_adapter(adapter, AdapterOrigin::Operator, read, reply);
            }
            Request::AdapterOffer {
                adapter,
                origin,
                component,
            } => {
                let read = move || Ok(component.0.to_vec());
                return self.install_adapter(adapter, origin, read, reply);
            }
            // The configuration is beyond an engine: it is made for one.
            Request::Reload => error(
                ErrorCode::Unavailable,
                "nobody here reads the configuration",
            ),
            Request::AdapterInspect { adapter } => self.inspect(&adapter),
            Request::AdapterLogs {
                adapter,
                last,
                follow,
            } => return self.give_logs(adapter, last, follow, reply),
            Request::AdapterReplay {
                adapter,
                path,
                step,
                dead,
            } => {
                let asked = Asked {
                    adapter,
                    path,
                    step,
                    dead,
                };
                return self.replay(asked, reply);
            }
            Request::AdapterRollback { adapter } => {
                let in_the_middle =
                    |a: &super::steps::AdapterState| !a.is_between_events() || a.swap.is_some();
                let why = "the operator wants it so";
                if self.adapters.get(&adapter).is_some_and(in_the_middle) {
                    error(
                        ErrorCode::Unavailable,
                        format!("adapter `{adapter}` is handling an event; ask again"),
                    )
                } else if self.return_to_former(&adapter, why) || self.return_aside(&adapter, why) {
                    Reply::Done
                } else {
                    error(
                        ErrorCode::Refused,
                        format!("adapter `{adapter}` has no version to return to"),
                    )
                }
            }
            Request::Install {
                path,
                target,
                version,
                key,
            } => self.install(&path, &target, version, key),
        };
        // After everything that was decided for it is durable.
        self.commit(Vec::new(), vec![Release::Reply(reply, answer)]);
    }

    /// Looks at another version beside the engine.
    fn install_adapter(
        &mut self,
        adapter: String,
        origin: AdapterOrigin,
        read: impl FnOnce() -> Result<Vec<u8>, String> + Send + 'static,
        reply: mpsc::Sender<Reply>,
    ) {
        if !self.adapters.contains_key(&adapter) {
            let known: Vec<&str> = self.adapters.keys().map(String::as_str).collect();
            let message = format!(
                "no adapter `{adapter}` runs; there are: {}",
                known.join(", ")
            );
            let answer = error(ErrorCode::UnknownAdapter, message);
            return self.commit(Vec::new(), vec![Release::Reply(reply, answer)]);
        }
        if self.vitals.safe_mode {
            let message = "no adapter runs in safe mode, so none can be tried out. `otahost adapter rollback` works, and after a minute                            without a crash a restart of the agent, or a reboot, ends safe mode";
            let answer = error(ErrorCode::Unavailable, message);
            return self.commit(Vec::new(), vec![Release::Reply(reply, answer)]);
        }
        let (workshop, seam, tell) = (
            self.platform.workshop.clone(),
            self.platform.seam,
            self.tell.clone(),
        );
        tokio::spawn(async move {
            let name = adapter.clone();
            let prepared = seam
                .run(move || {
                    let component = read()?;
                    workshop.take(&name, &component).map(Box::new)
                })
                .await;
            let client = Client { origin, reply };
            let _ = tell.send(Done::Prepared(adapter, prepared, client));
        });
    }

    fn job_named(&self, key: &str) -> Option<&Job> {
        let all = || self.jobs.values().rev().filter(|job| named(job, key));
        all()
            .find(|job| !job.phase.is_final())
            .or_else(|| all().next())
    }

    /// Cancels, pauses or resumes a job.
    fn steer(&mut self, key: &str, input: job::Input) -> Reply {
        let Some(job) = self.job_named(key) else {
            return unknown_job(key);
        };
        if job.phase.is_final() {
            return error(ErrorCode::Refused, format!("job `{key}` has already ended"));
        }
        let id = job.id;
        let (mut changes, mut releases) = (Vec::new(), Vec::new());
        let applied = self.move_job(id, input, &mut changes, &mut releases);
        self.commit(changes, releases);
        match applied {
            // Stale: it is paused already, or it is not.
            Applied::Changed(_) | Applied::Progressed | Applied::Unchanged(_) | Applied::Stale => {
                Reply::Done
            }
            Applied::TooLate => error(
                ErrorCode::TooLate,
                format!(
                    "job `{key}` is past the point of no return: it ends in the new version, or rolls back by itself"
                ),
            ),
        }
    }

    fn unknown_target(&self, target: &str) -> Reply {
        let known: Vec<&str> = self.setup.targets.iter().map(|t| t.id.as_str()).collect();
        error(
            ErrorCode::UnknownTarget,
            format!(
                "there is no target `{target}`; there are: {}",
                known.join(", ")
            ),
        )
    }

    /// Forgets images that were rolled back.
    fn clear(&mut self, target: &str, image: Option<&str>) -> Reply {
        let Some(state) = self.targets.get_mut(target) else {
            return self.unknown_target(target);
        };
        let images = state.memory.clear(image);
        if images > 0 {
            tracing::info!(
                target,
                images,
                "the operator allows images again that were rolled back"
            );
            let row = json(&state.memory);
            let change = Change::Put(Key::Target(target.to_owned()), row);
            self.commit(vec![change], Vec::new());
        }
        Reply::Cleared {
            images: u64::try_from(images).unwrap_or(u64::MAX),
        }
    }

    fn install(
        &mut self,
        path: &str,
        target: &str,
        version: Option<String>,
        key: Option<String>,
    ) -> Reply {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if key
            .as_ref()
            .is_some_and(|k| k.is_empty() || k.len() > 150 || !k.chars().all(fits))
        {
            let message = "a key has 1 to 150 letters, digits, `.`, `_` and `-`";
            return error(ErrorCode::Invalid, message);
        }
        if !self.targets.contains_key(target) {
            return self.unknown_target(target);
        }
        if !Path::new(path).is_absolute() {
            return error(
                ErrorCode::Invalid,
                format!("`{path}` is not an absolute path"),
            );
        }
        let plan = JobPlan {
            key: format!(
                "{OPERATOR}/{}",
                key.unwrap_or_else(|| self.next_job.to_string())
            ),
            dedupe: Dedupe::WhileActive,
            context: Vec::new(),
            installs: vec![Install {
                target: target.to_owned(),
                artifact: Artifact {
                    source: ArtifactSource::File(path.to_owned()),
                    size: None,
                    digests: Vec::new(),
                    identity: None,
                },
                version: version.unwrap_or_default(),
            }],
            apply: Apply::Immediately,
        };
        match self.judge(OPERATOR, true).check(&plan) {
            Verdict::Allow | Verdict::Defer(_) => {
                let key = plan.key.clone();
                let mut changes = Vec::new();
                let mut releases = Vec::new();
                self.admit_job(OPERATOR, plan, true, &mut changes, &mut releases);
                self.commit(changes, releases);
                Reply::Accepted { key }
            }
            Verdict::Busy(_) => error(
                ErrorCode::Busy,
                format!(
                    "target `{target}` is being updated already; `otahost jobs` shows by whom, `otahost cancel KEY` ends it"
                ),
            ),
            Verdict::Refuse(reason) => error(ErrorCode::Refused, reason.text),
        }
    }

    /// Tells the clients that follow a job; the last message is the one of its end.
    pub(super) fn tell_watchers(&mut self, id: u64) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        if self.watchers.is_empty() {
            return;
        }
        let view = Reply::Job(Box::new(self.job_view(job)));
        let ended = job.phase.is_final();
        self.watchers.retain(|watcher| {
            if watcher.job != id {
                return true;
            }
            let delivered = match watcher.reply.try_send(view.clone()) {
                Ok(()) => true,
                // A slow client misses progress, but not the end.
                Err(mpsc::error::TrySendError::Full(last)) => {
                    if ended {
                        let reply = watcher.reply.clone();
                        tokio::spawn(async move { reply.send(last).await });
                    }
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            };
            delivered && !ended
        });
    }

    fn answer_status(&self, reply: mpsc::Sender<Reply>) {
        let mut view = self.status_view();
        let flashers = self.platform.flashers.clone();
        let seam = self.platform.seam;
        tokio::spawn(async move {
            let view = seam
                .run(move || {
                    for target in &mut view.targets {
                        let slots = flashers
                            .get(&target.id)
                            .map(|f| f.slots())
                            .unwrap_or_default();
                        target.slots = slots
                            .into_iter()
                            .map(|s| SlotView {
                                name: s.name,
                                state: s.state,
                                running: s.running,
                            })
                            .collect();
                    }
                    view
                })
                .await;
            let _ = reply.send(Reply::Status(Box::new(view))).await;
        });
    }

    fn status_view(&self) -> StatusView {
        let targets = self.setup.targets.iter().map(|setup| {
            let state = self.targets.get(&setup.id);
            let busy = self
                .jobs
                .values()
                .find(|job| !job.phase.is_final() && job.targets().any(|t| t == setup.id))
                .map(|job| job.plan.key.clone());
            TargetView {
                id: setup.id.clone(),
                version: state.and_then(|s| s.version.clone()),
                health: health_word(state.and_then(|s| s.health)).to_owned(),
                observed: state.and_then(|s| s.observed),
                slots: Vec::new(),
                busy,
                version_fault: state.and_then(|s| s.version_fault.clone()),
                memory: self.memory_view(setup),
            }
        });
        StatusView {
            device: self.setup.device.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            boot_id: self.boot_id.clone(),
            now: self.now(),
            clock: self.platform.outside.clock(),
            safe_mode: self.vitals.safe_mode,
            journal: self.journal_view(),
            links: self
                .links
                .iter()
                .map(|(name, link)| LinkView {
                    name: name.clone(),
                    kind: link.kind.word().to_owned(),
                    up: link.up || !link.kind.stands(),
                    since: Some(link.since),
                    reason: link.reason.clone(),
                    waiting: link.outbox.len() as u64,
                })
                .collect(),
            targets: targets.collect(),
            adapters: self
                .adapters
                .iter()
                .map(|(name, adapter)| adapter.view(name))
                .collect(),
            repositories: Vec::new(),
            drop_ins: Vec::new(),
            problem: None,
            jobs: self
                .jobs
                .values()
                .rev()
                .filter(|job| !job.phase.is_final())
                .map(|job| self.job_view(job))
                .collect(),
        }
    }

    fn memory_view(&self, setup: &TargetSetup) -> MemoryView {
        let (now, most) = (self.now(), setup.policy.max_activations_per_day);
        let Some(memory) = self.targets.get(&setup.id).map(|state| &state.memory) else {
            return MemoryView::default();
        };
        let bad = memory.bad.iter().map(|bad| BadImageView {
            sha256: bad.sha256.clone(),
            version: bad.version.clone(),
            rollbacks: bad.rollbacks,
            refused_always: memory.known_bad(Some(&bad.sha256), &[], true).is_some(),
        });
        MemoryView {
            last_failed: self.last_failed(&setup.id),
            bad: bad.collect(),
            activations: memory.activations_within_a_day(now),
            activations_allowed: most.clamp(1, MAX_ACTIVATIONS),
            activations_until: memory.activations_exhausted(most, now),
            rollback_index: memory.rollback_index,
        }
    }

    /// What went wrong on a target since an update of it succeeded: the last rollback, else the last failure.
    fn last_failed(&self, target: &str) -> Option<FailureView> {
        let mut failed = None;
        for job in self.jobs.values().rev() {
            let installs = job.plan.installs.iter().zip(&job.installs);
            for (asked, state) in installs.filter(|(asked, _)| asked.target == target) {
                let Some(outcome) = &state.outcome else {
                    continue;
                };
                let view = || FailureView {
                    job: job.plan.key.clone(),
                    at: job.ended.unwrap_or(job.created),
                    phase: outcome.phase,
                    version: asked.version.clone(),
                    sha256: state.image_sha256.clone(),
                    reason: outcome.reason.clone(),
                };
                match outcome.phase {
                    Phase::Succeeded => return failed,
                    Phase::RolledBack | Phase::RollbackFailed => return Some(view()),
                    Phase::Failed => failed = failed.or_else(|| Some(view())),
                    _ => {}
                }
            }
        }
        failed
    }

    /// Milliseconds until a job is given up in its phase, or the old version comes back.
    fn time_left(&self, job: &Job) -> Option<u64> {
        let deadline = self.deadline(job)?;
        let proof = self
            .examining
            .get(&job.id)
            .filter(|_| job.phase == Phase::Confirming && !job.rolling_back)
            .zip(self.target_setup(job.current_target()))
            .and_then(|(began, target)| began.checked_add(target.confirm_within));
        let end = proof.map_or(deadline, |proof| proof.min(deadline));
        u64::try_from(end.saturating_duration_since(Instant::now()).as_millis()).ok()
    }

    /// Only the owner's word brings a job on.
    fn awaits_owner(&self, job: &Job) -> bool {
        match job.phase {
            Phase::Downloading => self.asked.contains_key(&job.id),
            Phase::Prepared => job.plan.apply == Apply::WhenTold,
            Phase::Confirming => {
                !job.confirm_given
                    && self
                        .target_setup(job.current_target())
                        .is_some_and(|t| t.confirm_by_adapter)
            }
            _ => false,
        }
    }

    fn job_view(&self, job: &Job) -> JobView {
        let report = job.report(false, self.rate_of(job.id));
        let asked = self.asked.get(&job.id).map(|asked| asked.reason.clone());
        JobView {
            id: job.id.to_string(),
            key: job.plan.key.clone(),
            owner: job.owner.clone(),
            phase: job.phase,
            paused: job.paused,
            gate: job.gate,
            current: job.current,
            awaits_owner: self.awaits_owner(job),
            when_told: job.plan.apply == Apply::WhenTold,
            failed_attempts: job.attempts,
            allowed_attempts: self.setup.transfer.attempts,
            activation: job.activation,
            rolling_back: job.rolling_back,
            time_left: self.time_left(job),
            created: job.created,
            updated: job.history.last().map_or(job.created, |line| line.at),
            reason: asked
                .or_else(|| job.reason.clone())
                .or_else(|| self.turn_reason(job)),
            until: job.until,
            rate: report.rate,
            installs: report
                .installs
                .into_iter()
                .map(|install| InstallView {
                    target: install.target,
                    phase: install.phase,
                    received: install.received,
                    total: install.total,
                    percent: whole_percent(install.phase, install.percent),
                    old_version: install.old_version,
                    new_version: install.new_version,
                    reason: install.reason,
                })
                .collect(),
            history: job
                .history
                .iter()
                .map(|line| HistoryView {
                    at: line.at,
                    phase: line.phase,
                    text: line.text.clone(),
                })
                .collect(),
        }
    }
}

/// A job by its number, or by its key; a key that is a number stands back.
fn named(job: &Job, key: &str) -> bool {
    match key.parse::<u64>() {
        Ok(number) => job.id == number,
        Err(_) => job.plan.key == key,
    }
}

fn unknown_job(key: &str) -> Reply {
    error(
        ErrorCode::UnknownJob,
        format!("there is no job `{key}`; `otahost jobs` lists them"),
    )
}

/// Progress of the whole install: the download is its first half.
fn whole_percent(phase: Phase, of_phase: u8) -> u8 {
    match phase {
        Phase::Queued | Phase::Waiting | Phase::Rejected => 0,
        Phase::Downloading => of_phase / 2,
        Phase::Verifying => 50,
        Phase::Prepared => 60,
        Phase::Installing => 65,
        Phase::Delivering => 65 + of_phase / 10,
        Phase::Delivered => 75,
        Phase::Activating => 80 + of_phase / 10,
        Phase::Confirming => 90,
        Phase::Succeeded => 100,
        Phase::Failed
        | Phase::RolledBack
        | Phase::RollbackFailed
        | Phase::Cancelled
        | Phase::Partial => of_phase / 2,
    }
}
