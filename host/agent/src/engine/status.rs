//! What a person or a script at the device asks, through the local API.

use std::path::Path;

use otahost_core::job::{self, Applied, Job, OPERATOR};
use otahost_core::model::{
    Apply, Artifact, ArtifactSource, Dedupe, Health, Install, JobPlan, Phase, Verdict,
};
use tokio::sync::mpsc;

use super::{Engine, Release};
use crate::api::{
    AdapterHealth, AdapterView, ApiCall, ErrorCode, HistoryView, InstallView, JobView, LinkView,
    Reply, Request, SlotView, StatusView, TargetView,
};

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
            Request::Cancel { key } => self.cancel(&key),
            Request::Install {
                path,
                target,
                version,
            } => self.install(&path, &target, version),
        };
        // A client that has gone needs no answer, and one that takes none must not hold the engine up.
        let _ = reply.try_send(answer);
    }

    fn job_named(&self, key: &str) -> Option<&Job> {
        let all = || self.jobs.values().rev().filter(|job| named(job, key));
        all()
            .find(|job| !job.phase.is_final())
            .or_else(|| all().next())
    }

    fn cancel(&mut self, key: &str) -> Reply {
        let Some(id) = self.job_named(key).map(|job| job.id) else {
            return unknown_job(key);
        };
        let (mut changes, mut releases) = (Vec::new(), Vec::new());
        let applied = self.move_job(id, job::Input::Cancel, &mut changes, &mut releases);
        self.commit(changes, releases);
        match applied {
            Applied::Changed(_) | Applied::Progressed => Reply::Done,
            Applied::TooLate => error(
                ErrorCode::TooLate,
                format!(
                    "job `{key}` is past the point of no return: it ends in the new version, or rolls back by itself"
                ),
            ),
            Applied::Stale => error(ErrorCode::Refused, format!("job `{key}` has already ended")),
        }
    }

    fn install(&mut self, path: &str, target: &str, version: Option<String>) -> Reply {
        if !self.targets.contains_key(target) {
            let known: Vec<&str> = self.setup.targets.iter().map(|t| t.id.as_str()).collect();
            return error(
                ErrorCode::UnknownTarget,
                format!(
                    "there is no target `{target}`; there are: {}",
                    known.join(", ")
                ),
            );
        }
        if !Path::new(path).is_absolute() {
            return error(
                ErrorCode::Invalid,
                format!("`{path}` is not an absolute path"),
            );
        }
        let plan = JobPlan {
            key: format!("{OPERATOR}/{}", self.next_job),
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
        match self.judge(OPERATOR).check(&plan) {
            Verdict::Allow => {
                let key = plan.key.clone();
                let mut changes = Vec::new();
                let id = self.admit_job(OPERATOR, plan, &mut changes);
                self.commit(changes, vec![Release::Act(id, job::Action::RetryIn(0))]);
                Reply::Accepted { key }
            }
            Verdict::Busy(_) => error(
                ErrorCode::Busy,
                format!(
                    "target `{target}` is being updated already; `otahost jobs` shows by whom, `otahost cancel KEY` ends it"
                ),
            ),
            Verdict::Refuse(reason) => error(ErrorCode::Refused, reason.text),
            Verdict::Defer(_) => error(ErrorCode::Refused, "not allowed now"),
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
            }
        });
        StatusView {
            device: self.setup.device.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            boot_id: self.boot_id.clone(),
            now: self.now(),
            clock: self.platform.outside.clock(),
            links: self
                .links
                .iter()
                .map(|(name, link)| LinkView {
                    name: name.clone(),
                    kind: "mqtt".into(),
                    up: link.up,
                    since: Some(link.since),
                    reason: link.reason.clone(),
                    waiting: link.outbox.len() as u64,
                })
                .collect(),
            targets: targets.collect(),
            adapters: self
                .adapters
                .iter()
                .map(|(name, adapter)| AdapterView {
                    name: name.clone(),
                    protocol: adapter.setup.description.protocol.clone(),
                    version: adapter.setup.description.version.clone(),
                    digest: adapter.setup.component.digest().to_owned(),
                    health: match &adapter.last_failure {
                        None => AdapterHealth::Running,
                        Some(failure) => AdapterHealth::Failing {
                            last_failure: failure.clone(),
                        },
                    },
                    dead_letters: adapter.dead_letters(),
                })
                .collect(),
            jobs: self
                .jobs
                .values()
                .rev()
                .filter(|job| !job.phase.is_final())
                .map(|job| self.job_view(job))
                .collect(),
        }
    }

    fn job_view(&self, job: &Job) -> JobView {
        let report = job.report(false, self.rate_of(job.id));
        JobView {
            id: job.id.to_string(),
            key: job.plan.key.clone(),
            owner: job.owner.clone(),
            phase: job.phase,
            paused: job.paused,
            created: job.created,
            updated: job.history.last().map_or(job.created, |line| line.at),
            reason: job.reason.clone(),
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

/// A job by its key, or by its number.
fn named(job: &Job, key: &str) -> bool {
    job.plan.key == key || job.id.to_string() == key
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
        Phase::Delivering | Phase::Delivered | Phase::Installing => 70,
        Phase::Activating => 80,
        Phase::Confirming => 90,
        Phase::Succeeded => 100,
        Phase::Failed
        | Phase::RolledBack
        | Phase::RollbackFailed
        | Phase::Cancelled
        | Phase::Partial => of_phase / 2,
    }
}
