//! Transfers: joins a source, the transfer engine and a flasher's staging area, as a task beside the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use otahost_core::grants::Grants;
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

use super::attempts::Attempt;
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
#[derive(Debug, Clone)]
pub(super) struct Fetched {
    job: u64,
    target: String,
    received: u64,
    total: Option<u64>,
    bytes: u64,
}

/// Everything a transfer task needs.
struct Task {
    job: u64,
    platform: Platform,
    install: Install,
    grants: Grants,
    request: Request,
    resume: Checkpoint,
    tell: mpsc::UnboundedSender<Done>,
}

impl Engine {
    /// Starts or resumes the transfer of a job's current artifact. What another artifact left in the staging area is forgotten first,
    /// durably.
    pub(super) fn start_transfer(&mut self, id: u64, afresh: bool) {
        self.stop_transfer(id);
        let Some(install) = self.current_install(id) else {
            return;
        };
        let key = partial_key(id, &install);
        let (setup, state) = (
            self.target_setup(&install.target).cloned(),
            self.targets.get_mut(&install.target),
        );
        let (Some(setup), Some(target)) = (setup, state) else {
            let text = format!("target `{}` is not configured any more", install.target);
            let attempt = Attempt::local(Reason::new("unknown-target", "download", text), true);
            let _ = self.tell.send(Done::Attempt(id, attempt));
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
        let min_rollback_index = target.memory.rollback_index;
        let digests = match digests(&install) {
            Ok(digests) => digests,
            Err(reason) => {
                let _ = self
                    .tell
                    .send(Done::Attempt(id, Attempt::local(reason, true)));
                return;
            }
        };
        let request = Request {
            expected_size: install.artifact.size,
            digests,
            trust: setup.trust,
            compatible: setup.compatible,
            min_rollback_index,
            max_size: self.setup.transfer.max_size,
            version: Some(install.version.clone()).filter(|v| !v.is_empty()),
            tuning: self.setup.transfer.tuning,
        };
        let owner = self
            .jobs
            .get(&id)
            .map(|job| job.owner.clone())
            .unwrap_or_default();
        let grants = self
            .adapters
            .get(&owner)
            .map(|a| a.grants.clone())
            .unwrap_or_default();
        let tell = self.tell.clone();
        let task = Task {
            job: id,
            platform: self.platform.clone(),
            install,
            grants,
            request,
            resume,
            tell: tell.clone(),
        };
        let handle = tokio::spawn(async move {
            let done = match run(task).await {
                Ok(input) => Done::Job(id, input),
                Err(attempt) => Done::Attempt(id, attempt),
            };
            let _ = tell.send(done);
        });
        let transfer = Transfer {
            task: handle,
            since: Instant::now(),
            first: None,
            rate: 0,
        };
        self.transfers.insert(id, transfer);
    }

    /// Aborts a transfer. Its writer, if one is in the middle of a write, holds the target's lock until it is done.
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
        let Some(job) = self.jobs.get_mut(&fetched.job) else {
            return;
        };
        // The last word of an install whose successor is being fetched already.
        if job.current_target() != fetched.target {
            return;
        }
        let current = job.current;
        if let Some(state) = job.installs.get_mut(current) {
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

    /// The payload is verified and staged, unless it is an image that is not wanted here.
    pub(super) fn on_staged(&mut self, id: u64, input: job::Input) {
        if let job::Input::Staged {
            image_sha256,
            version,
            ..
        } = &input
            && let Some(reason) = self.image_fault(id, image_sha256, version.as_deref())
        {
            return self.on_attempt(id, Attempt::local(reason, true));
        }
        self.on_job(id, input);
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
        let Some(install) = job.plan.installs.iter().find(|i| i.target == row.target) else {
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

async fn run(task: Task) -> Result<job::Input, Attempt> {
    let Task {
        job,
        platform,
        install,
        grants,
        request,
        resume,
        tell,
    } = task;
    let target = install.target.clone();
    let guard = Arc::new(platform.lock_of(&target).lock_owned().await);
    let flasher = platform.flashers.get(&target).cloned().ok_or_else(|| {
        let text = format!("target `{target}` has no flasher");
        Attempt::local(Reason::new("unknown-target", "install", text), true)
    })?;
    let flash_failed = |error: FlashError| {
        let is_final = matches!(error, FlashError::NoSpace(_));
        Attempt::local(super::flashing::flash_reason(&error, "install"), is_final)
    };
    // The lock belongs to the blocking work and not to this task: an aborted task is gone before its work is.
    let (beginner, resuming, held) = (flasher.clone(), !resume.is_empty(), guard.clone());
    let begin = move || {
        let _held = held;
        beginner.begin(resuming)
    };
    let stage = platform.seam.run(begin).await.map_err(flash_failed)?;
    let stage = Arc::new(Staging {
        inner: stage,
        _lock: guard.clone(),
    });
    let source = platform
        .sources
        .source(&install, &grants)
        .map_err(|error| Attempt::new(&Failure::Source(error)))?;
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
    let verified: Verified = result.map_err(|failure| Attempt::new(&failure))?;
    let (len, sha256) = (verified.payload_len, verified.payload_sha256.clone());
    let delivers = flasher.delivers();
    let finish = move || {
        let _held = guard;
        flasher.finish(len, &sha256)
    };
    let staged = platform.seam.run(finish).await.map_err(flash_failed)?;
    let (version, rollback_index) = verified
        .claims
        .map(|c| (c.version, c.rollback_index))
        .unwrap_or_default();
    Ok(job::Input::Staged {
        staged: job::Staged {
            place: staged.place,
            len: staged.len,
            sha256: staged.sha256,
        },
        image_sha256: verified.payload_sha256,
        size: verified.size,
        version,
        rollback_index,
        delivers,
    })
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
                target: self.target.clone(),
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
