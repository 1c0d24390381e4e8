//! The manual path: a signed file on a medium that somebody plugs in installs by itself.
//!
//! A station without network updates a vehicle from a USB stick, and nobody there types commands. So a directory is looked at every
//! few seconds; a file in it whose signer and `compatible` fit a target is installed on it like an operator's. It shows its progress
//! by a program (a light, a beeper) and leaves a result beside the file.
//!
//! - **Only signed files.** What no key of a target has signed, or what names no `compatible`, or another one, is no update for this
//!   device and is passed over. A target that takes unsigned images is never updated this way.
//! - **Once.** A stick stays where it is, through the reboot too. A file is not taken again when its version runs, when its result
//!   for this device lies beside it, or when it was rolled back here. Taking the result away, or plugging the stick in anew after a
//!   failure, tries again.
//! - **One stick, many devices.** The result's name holds the device's id.
//!
//! It is a client of the local API like any other: what it may not do, it cannot.

mod candidate;
mod result;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use otahost_core::job::OPERATOR;
use otahost_core::model::Phase;
use otahost_disk::Seam;
use otahost_flash::program::{self, Limits};
use otahost_transfer::TrustKeys;
use tokio::sync::mpsc;

use crate::api::{ApiCall, ErrorCode, JobView, Reply, Request, StatusView};
use candidate::Candidate;

/// What the keys of these jobs begin with, behind the operator's name.
const KEY: &str = "offline-";
/// Least change of the percentage that the program is told of.
const STEP: u8 = 5;
/// Time the program has.
const HOOK_TIME: Duration = Duration::from_secs(10);

/// A target that may be updated from a medium.
#[derive(Debug, Clone)]
pub struct OfflineTarget {
    /// Its id.
    pub id: String,
    /// What a file must name as `compatible`.
    pub compatible: String,
    /// Whose files it takes.
    pub keys: TrustKeys,
}

/// Where to look, and for whom.
#[derive(Debug, Clone)]
pub struct Offline {
    /// Id of this device.
    pub device: String,
    /// The directory a medium is mounted at.
    pub path: PathBuf,
    /// Pause between two looks.
    pub every: Duration,
    /// Program that is told how it goes: phase, percentage and target follow as arguments.
    pub progress: Option<Vec<String>>,
    /// The targets in the order of the configuration.
    pub targets: Vec<OfflineTarget>,
    /// Where the medium is read and written.
    pub seam: Seam,
}

/// Looks for files until the other end of `calls` is gone.
pub async fn watch(offline: Offline, calls: mpsc::Sender<ApiCall>) {
    let mut watch = Watch {
        offline,
        calls,
        last: BTreeMap::new(),
        done: BTreeSet::new(),
    };
    loop {
        if watch.calls.is_closed() {
            return;
        }
        watch.look().await;
        tokio::time::sleep(watch.offline.every).await;
    }
}

struct Watch {
    offline: Offline,
    calls: mpsc::Sender<ApiCall>,
    /// What each file looked like the last time: one that is still being copied changes.
    last: BTreeMap<PathBuf, candidate::Look>,
    /// Files that are done with, until the medium is taken away.
    done: BTreeSet<String>,
}

impl Watch {
    async fn look(&mut self) {
        let (path, keys) = (self.offline.path.clone(), self.offline.targets.clone());
        let device = self.offline.device.clone();
        let last = std::mem::take(&mut self.last);
        let found = self
            .offline
            .seam
            .run(move || candidate::find(&path, &device, &keys, &last))
            .await;
        self.last = found.looks;
        self.done.retain(|key| found.keys.contains(key));
        let Some(status) = self.status().await else {
            return;
        };
        if let Some(job) = self.running().await {
            // Begun before a restart, or before the medium was taken away and came back.
            return self.follow(&job, None).await;
        }
        for candidate in found.candidates {
            if !self.done.contains(&candidate.key) {
                self.consider(candidate, &status).await;
            }
        }
    }

    async fn consider(&mut self, candidate: Candidate, status: &StatusView) {
        let key = format!("{OPERATOR}/{}", candidate.key);
        if let Some(before) = self.job(&key).await
            && matches!(
                before.phase,
                Phase::Succeeded | Phase::RolledBack | Phase::RollbackFailed
            )
        {
            // It ended while nobody followed it: in the boot that it asked for, as a rule.
            self.done.insert(candidate.key.clone());
            self.show(&before).await;
            return self.leave_of(&candidate, &before).await;
        }
        let target = status.targets.iter().find(|t| t.id == candidate.target);
        let runs = target.and_then(|t| t.version.as_deref());
        if candidate.version.is_some() && runs == candidate.version.as_deref() {
            self.done.insert(candidate.key.clone());
            return self.leave(&candidate, "up-to-date", None, runs).await;
        }
        let request = Request::Install {
            path: candidate.path.display().to_string(),
            target: candidate.target.clone(),
            version: candidate.version.clone(),
            key: Some(candidate.key.clone()),
        };
        match self.ask(request).await {
            Some(Reply::Accepted { key }) => {
                let file = candidate.path.display();
                tracing::info!(%file, target = candidate.target, "a file on the medium is installed");
                self.done.insert(candidate.key.clone());
                self.follow(&key, Some(&candidate)).await;
            }
            // It may be free the next time.
            Some(Reply::Error {
                code: ErrorCode::Busy | ErrorCode::Unavailable,
                ..
            })
            | None => {}
            Some(Reply::Error { message, .. }) => {
                let file = candidate.path.display();
                tracing::warn!(%file, message, "a file on the medium is refused");
                self.done.insert(candidate.key.clone());
                self.leave(&candidate, "refused", Some(&message), runs)
                    .await;
            }
            Some(_) => {}
        }
    }

    /// Shows how a job goes to its end, and leaves its result when the file it came from is known.
    async fn follow(&self, key: &str, candidate: Option<&Candidate>) {
        let (reply, mut replies) = mpsc::channel(16);
        let request = Request::Job {
            key: key.to_owned(),
            follow: true,
        };
        if self.calls.send(ApiCall { request, reply }).await.is_err() {
            return;
        }
        let mut shown: Option<(Phase, u8)> = None;
        while let Some(reply) = replies.recv().await {
            let Reply::Job(job) = reply else {
                return;
            };
            let percent = percent(&job);
            let news = shown.is_none_or(|(phase, before)| {
                phase != job.phase || percent.abs_diff(before) >= STEP
            });
            if news {
                shown = Some((job.phase, percent));
                self.show(&job).await;
            }
            if job.phase.is_final() {
                if let Some(candidate) = candidate {
                    self.leave_of(candidate, &job).await;
                }
                return;
            }
        }
    }

    async fn show(&self, job: &JobView) {
        let Some(mut command) = self.offline.progress.clone() else {
            return;
        };
        let target = job.installs.first().map(|i| i.target.clone());
        command.extend([
            job.phase.word().to_owned(),
            percent(job).to_string(),
            target.unwrap_or_default(),
        ]);
        let limits = Limits {
            time: HOOK_TIME,
            ..Limits::default()
        };
        let run = move || program::run(&command, limits);
        if let Err(error) = self.offline.seam.run(run).await {
            tracing::warn!(%error, "the progress of an offline update cannot be shown");
        }
    }

    async fn leave_of(&self, candidate: &Candidate, job: &JobView) {
        let reason = job.reason.as_ref().map(|r| r.text.as_str());
        let old = job.installs.first().and_then(|i| i.old_version.as_deref());
        self.leave(candidate, job.phase.word(), reason, old).await;
    }

    async fn leave(
        &self,
        candidate: &Candidate,
        outcome: &str,
        reason: Option<&str>,
        old: Option<&str>,
    ) {
        let written = result::Result {
            device: self.offline.device.clone(),
            target: candidate.target.clone(),
            version: candidate.version.clone(),
            old_version: old.map(str::to_owned),
            outcome: outcome.to_owned(),
            reason: reason.map(str::to_owned),
            signature: candidate.signature.clone(),
        };
        let path = candidate.result.clone();
        let shown = path.display().to_string();
        let wrote = self
            .offline
            .seam
            .run(move || result::write(&path, &written))
            .await;
        if let Err(error) = wrote {
            tracing::warn!(%error, file = shown, "the result cannot be left on the medium");
        }
    }

    /// The key of an offline job that has not ended.
    async fn running(&self) -> Option<String> {
        let prefix = format!("{OPERATOR}/{KEY}");
        match self.ask(Request::Jobs { key: None }).await? {
            Reply::Jobs(jobs) => jobs
                .into_iter()
                .find(|job| !job.phase.is_final() && job.key.starts_with(&prefix))
                .map(|job| job.key),
            _ => None,
        }
    }

    async fn job(&self, key: &str) -> Option<JobView> {
        let request = Request::Job {
            key: key.to_owned(),
            follow: false,
        };
        match self.ask(request).await? {
            Reply::Job(job) => Some(*job),
            _ => None,
        }
    }

    async fn status(&self) -> Option<StatusView> {
        match self.ask(Request::Status).await? {
            Reply::Status(status) => Some(*status),
            _ => None,
        }
    }

    async fn ask(&self, request: Request) -> Option<Reply> {
        let (reply, mut replies) = mpsc::channel(1);
        self.calls.send(ApiCall { request, reply }).await.ok()?;
        replies.recv().await
    }
}

fn percent(job: &JobView) -> u8 {
    job.installs.first().map_or(0, |i| i.percent)
}

#[cfg(test)]
mod tests;
