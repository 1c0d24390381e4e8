//! Transfers: joins a source, the transfer engine and a flasher's staging area, as a task beside the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use otahost_core::job;
use otahost_core::model::{Install, Reason};
use otahost_flash::FlashError;
use otahost_journal::{Change, Key, json};
use otahost_transfer::{
    BoxFuture, Checkpoint, Checkpoints, Digest, Failure, Request, StageError, Verified,
};
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::links::sha256_hex;
use super::rows::PartialRow;
use super::{Done, Engine, Release};
use crate::platform::Platform;

/// Least time between two reports of progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// A transfer that runs.
#[derive(Debug)]
pub(super) struct Transfer {
    task: JoinHandle<()>,
    since: Instant,
    first: Option<u64>,
    rate: u64,
}

/// How far a transfer has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fetched {
    job: u64,
    received: u64,
    total: Option<u64>,
    bytes: u64,
}

/// Everything a transfer task needs.
struct Task {
    job: u64,
    platform: Platform,
    install: Install,
    downloads: Vec<String>,
    request: Request,
    resume: Checkpoint,
    lock: Arc<tokio::sync::Mutex<()>>,
    tell: mpsc::UnboundedSender<Done>,
}

impl Engine {
    /// Starts or resumes the transfer of a job. What another artifact left in the staging area is forgotten first, durably.
    pub(super) fn start_transfer(&mut self, id: u64, afresh: bool) {
        self.stop_transfer(id);
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let Some(install) = job.plan.installs.first().cloned() else {
            return;
        };
        let owner = job.owner.clone();
        let key = partial_key(id, &install);
        let Some(target) = self.targets.get_mut(&install.target) else {
            return;
        };
        let resume = match target.partial.take() {
            Some((held, row)) if held == key && !afresh => {
                let checkpoint = row.checkpoint.clone();
                target.partial = Some((held, row));
                checkpoint
            }
            Some((held, _)) => {
                self.commit(
                    vec![Change::Delete(Key::Partial(held))],
                    vec![Release::Act(id, job::Action::Transfer)],
                );
                return;
            }
            None => Checkpoint::default(),
        };
        let lock = target.lock.clone();
        let Some(setup) = self.setup.targets.iter().find(|t| t.id == install.target) else {
            return;
        };
        let request = match digests(&install) {
            Ok(digests) => Request {
                expected_size: install.artifact.size,
                digests,
                trust: setup.trust.clone(),
                max_size: self.setup.transfer.max_size,
                version: Some(install.version.clone()).filter(|v| !v.is_empty()),
                tuning: self.setup.transfer.tuning,
            },
            Err(reason) => {
                let _ = self
                    .tell
                    .send(Done::Job(id, self.attempt_failed(id, reason, true, false)));
                return;
            }
        };
        let downloads = self
            .adapters
            .get(&owner)
            .map(|a| a.setup.grants.download.clone())
            .unwrap_or_default();
        let task = Task {
            job: id,
            platform: self.platform.clone(),
            install,
            downloads,
            request,
            resume,
            lock,
            tell: self.tell.clone(),
        };
        let (attempts, backoff) = (self.setup.transfer.attempts, self.setup.transfer.backoff);
        let failed = self.jobs.get(&id).map_or(0, |job| job.attempts) + 1;
        let seed = self.platform.outside.seed();
        let random = u64::from_be_bytes([
            seed[0], seed[1], seed[2], seed[3], seed[4], seed[5], seed[6], seed[7],
        ]);
        let tell = self.tell.clone();
        let handle = tokio::spawn(async move {
            let input = match run(task).await {
                Ok(input) => input,
                Err((reason, is_final, clean_retry)) => job::Input::AttemptFailed {
                    reason,
                    is_final,
                    clean_retry,
                    wait: backoff.wait(failed, random),
                    budget: attempts,
                },
            };
            let _ = tell.send(Done::Job(id, input));
        });
        self.transfers.insert(
            id,
            Transfer {
                task: handle,
                since: Instant::now(),
                first: None,
                rate: 0,
            },
        );
    }

    fn attempt_failed(
        &self,
        id: u64,
        reason: Reason,
        is_final: bool,
        clean_retry: bool,
    ) -> job::Input {
        let failed = self.jobs.get(&id).map_or(0, |job| job.attempts) + 1;
        job::Input::AttemptFailed {
            reason,
            is_final,
            clean_retry,
            wait: self.setup.transfer.backoff.wait(failed, 0),
            budget: self.setup.transfer.attempts,
        }
    }

    pub(super) fn stop_transfer(&mut self, id: u64) {
        if let Some(transfer) = self.transfers.remove(&id) {
            transfer.task.abort();
        }
    }

    pub(super) fn stop_transfers(&mut self) {
        for (_, transfer) in std::mem::take(&mut self.transfers) {
            transfer.task.abort();
        }
    }

    pub(super) fn on_fetched(&mut self, fetched: Fetched) {
        if let Some(job) = self.jobs.get_mut(&fetched.job)
            && let Some(state) = job.installs.first_mut()
        {
            state.fetched = state.fetched.saturating_add(fetched.bytes);
        }
        if let Some(transfer) = self.transfers.get_mut(&fetched.job) {
            let first = *transfer.first.get_or_insert(fetched.received);
            let millis = u64::try_from(transfer.since.elapsed().as_millis())
                .unwrap_or(u64::MAX)
                .max(1);
            transfer.rate = fetched.received.saturating_sub(first).saturating_mul(1_000) / millis;
            if transfer.rate > 0 {
                self.rate = transfer.rate;
            }
        }
        self.on_job(
            fetched.job,
            job::Input::Progress {
                received: fetched.received,
                total: fetched.total,
            },
        );
        if fetched.total == Some(fetched.received) {
            self.on_job(fetched.job, job::Input::AllReceived);
        }
    }

    /// Bytes a second of a job's transfer.
    pub(super) fn rate_of(&self, id: u64) -> u64 {
        self.transfers.get(&id).map_or(0, |t| t.rate)
    }

    pub(super) fn on_checkpoint(&mut self, id: u64, row: PartialRow) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        // A checkpoint that was on its way when its job ended speaks of a staging area that may be another's by now.
        if job.phase.is_final() {
            return;
        }
        let Some(install) = job.plan.installs.first() else {
            return;
        };
        let key = partial_key(id, install);
        let mut changes = vec![Change::Put(Key::Job(id), json(job))];
        let Some(target) = self.targets.get_mut(&row.target) else {
            return;
        };
        if row.checkpoint.is_empty() {
            target.partial = None;
            changes.push(Change::Delete(Key::Partial(key)));
        } else {
            changes.push(Change::Put(Key::Partial(key.clone()), json(&row)));
            target.partial = Some((key, row));
        }
        self.commit(changes, Vec::new());
    }
}

/// What names the bytes of an artifact in a staging area: digests and size, else the adapter's identity, else only this job. Never
/// a URL, which may be signed and different each time.
fn partial_key(id: u64, install: &Install) -> String {
    let artifact = &install.artifact;
    let size = artifact.size.map(|s| s.to_string()).unwrap_or_default();
    let name = if !artifact.digests.is_empty() {
        let mut digests = artifact.digests.clone();
        digests.sort();
        format!("digest {}", digests.join(" "))
    } else if let Some(identity) = &artifact.identity {
        format!("identity {identity}")
    } else {
        format!("job {id}")
    };
    sha256_hex(&[install.target.as_bytes(), name.as_bytes(), size.as_bytes()])
}

fn digests(install: &Install) -> Result<Vec<Digest>, Reason> {
    install
        .artifact
        .digests
        .iter()
        .map(|text| {
            Digest::parse(text).map_err(|e| Reason::new("invalid-plan", "admit", e.to_string()))
        })
        .collect()
}

type Failed = (Reason, bool, bool);

async fn run(task: Task) -> Result<job::Input, Failed> {
    let Task {
        job,
        platform,
        install,
        downloads,
        request,
        resume,
        lock,
        tell,
    } = task;
    let guard = Arc::new(lock.lock_owned().await);
    let target = install.target.clone();
    let flasher = platform.flashers.get(&target).cloned().ok_or_else(|| {
        (
            Reason::new(
                "unknown-target",
                "install",
                format!("target `{target}` has no flasher"),
            ),
            true,
            false,
        )
    })?;
    let flash_failed = |error: FlashError| {
        let reason = super::jobs::flash_reason(&error, "install");
        (reason, matches!(error, FlashError::NoSpace(_)), false)
    };
    let (beginner, resuming) = (flasher.clone(), !resume.is_empty());
    let stage = platform
        .seam
        .run(move || beginner.begin(resuming))
        .await
        .map_err(flash_failed)?;
    let stage = Arc::new(Staging {
        inner: stage,
        _lock: guard.clone(),
    });
    let source = platform
        .sources
        .source(&install, &downloads)
        .map_err(|error| attempt_reason(&Failure::Source(error)))?;
    let sink = Sink {
        job,
        target,
        tell,
        received: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        told: std::sync::Mutex::new(None),
    };
    let result = otahost_transfer::attempt(
        source.as_ref(),
        stage,
        &request,
        resume,
        &sink,
        platform.seam,
    )
    .await;
    sink.tell_now(None);
    let verified: Verified = result.map_err(|failure| attempt_reason(&failure))?;
    let (len, sha256) = (verified.payload_len, verified.payload_sha256.clone());
    let staged = platform
        .seam
        .run(move || flasher.finish(len, &sha256))
        .await
        .map_err(flash_failed)?;
    drop(guard);
    Ok(job::Input::Staged {
        staged: job::Staged {
            place: staged.place,
            len: staged.len,
            sha256: staged.sha256,
        },
        image_sha256: verified.payload_sha256,
        size: verified.size,
        header_version: verified
            .header
            .and_then(|header| header.claims().version.clone()),
    })
}

fn attempt_reason(failure: &Failure) -> Failed {
    (
        failure.reason(),
        failure.is_final(),
        failure.wants_clean_retry(),
    )
}

/// A flasher's staging area as the transfer engine wants it. The target's lock lives as long as anybody writes here, also when
/// the transfer was stopped and its writer has not noticed yet.
#[derive(Debug)]
struct Staging {
    inner: Box<dyn otahost_flash::Stage>,
    _lock: Arc<OwnedMutexGuard<()>>,
}

fn stage_error(error: FlashError) -> StageError {
    match error {
        FlashError::NoSpace(text) => StageError::NoSpace(text),
        other => StageError::Failed(other.to_string()),
    }
}

impl otahost_transfer::Stage for Staging {
    fn capacity(&self) -> Option<u64> {
        self.inner.capacity()
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StageError> {
        self.inner.write_at(bytes, offset).map_err(stage_error)
    }
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> Result<(), StageError> {
        self.inner.read_exact_at(into, offset).map_err(stage_error)
    }
    fn sync(&self) -> Result<(), StageError> {
        self.inner.sync().map_err(stage_error)
    }
}

/// Brings progress and checkpoints to the engine.
struct Sink {
    job: u64,
    target: String,
    tell: mpsc::UnboundedSender<Done>,
    received: AtomicU64,
    bytes: AtomicU64,
    told: std::sync::Mutex<Option<(Instant, Option<u64>)>>,
}

impl Sink {
    fn tell_now(&self, total: Option<u64>) {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        let total = total.or_else(|| {
            self.told
                .lock()
                .ok()
                .and_then(|told| told.as_ref().and_then(|(_, total)| *total))
        });
        let received = self.received.load(Ordering::Relaxed);
        if received > 0 {
            let _ = self.tell.send(Done::Fetched(Fetched {
                job: self.job,
                received,
                total,
                bytes,
            }));
        }
    }
}

impl Checkpoints for Sink {
    fn progress(&self, received: u64, total: Option<u64>) {
        self.received.store(received, Ordering::Relaxed);
        let now = Instant::now();
        {
            let Ok(mut told) = self.told.lock() else {
                return;
            };
            let complete = total == Some(received);
            if !complete
                && told
                    .as_ref()
                    .is_some_and(|(at, _)| now.duration_since(*at) < PROGRESS_EVERY)
            {
                return;
            }
            *told = Some((now, total));
        }
        self.tell_now(total);
    }

    fn fetched(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn checkpoint(&self, checkpoint: Checkpoint) -> BoxFuture<'_, ()> {
        let row = PartialRow {
            target: self.target.clone(),
            checkpoint,
        };
        let _ = self.tell.send(Done::Checkpoint(self.job, Box::new(row)));
        Box::pin(std::future::ready(()))
    }
}
