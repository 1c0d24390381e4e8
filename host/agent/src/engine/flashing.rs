//! Work of the flashers: one operation at a time for each target, followed while it runs, and stopped when nobody wants it any more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use otahost_core::job::{self, Staged, Standing};
use otahost_core::model::{Phase, Reason};
use otahost_flash::{Activation, FlashError, Flasher, Progress, Work};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Done, Engine};
use crate::platform::Outside;

/// Least time between two reports of progress, unless there was much of it.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// So many points are worth a report at once.
const MUCH: u8 = 10;

/// An operation that was begun, and when it is still wanted.
#[derive(Debug)]
pub(super) struct Working {
    stop: Arc<AtomicBool>,
    phase: Phase,
    current: usize,
    rolling_back: bool,
}

impl Engine {
    pub(super) fn deliver(&mut self, id: u64) {
        self.flash(id, 0, |flasher, staged, work| {
            flasher.deliver(&staged, work)?;
            Ok(Some(job::Input::Delivered))
        });
    }

    pub(super) fn activate(&mut self, id: u64, wait: u64) {
        self.flash(id, wait, |flasher, staged, work| {
            let reboot = flasher.activate(&staged, work)? == Activation::NeedsReboot;
            Ok(Some(job::Input::Activated { reboot }))
        });
    }

    pub(super) fn roll_back(&mut self, id: u64, wait: u64) {
        let outside = self.platform.outside.clone();
        self.flash(id, wait, move |flasher, staged, work| {
            let reboot = match flasher.roll_back(&staged, work) {
                // The target may have gone back by itself: its version is the only word on it.
                Err(error)
                    if matches!(error.cause(), FlashError::NoWayBack(_))
                        && old_runs(outside.as_ref(), work) =>
                {
                    false
                }
                result => result? == Activation::NeedsReboot,
            };
            Ok(Some(job::Input::RolledBack { reboot }))
        });
    }

    /// Runs one operation of a flasher under the target's lock and brings the result back to the job.
    pub(super) fn flash(
        &mut self,
        id: u64,
        wait: u64,
        operation: impl FnOnce(
            &dyn Flasher,
            otahost_flash::Staged,
            &Work<'_>,
        ) -> Result<Option<job::Input>, FlashError>
        + Send
        + 'static,
    ) {
        let found = self.staged(id).zip(self.jobs.get(&id));
        let Some(((flasher, staged, target), job)) = found else {
            let text =
                "the target of this job is not configured any more, or nothing is staged for it";
            let reason = Reason::new("unknown-target", "install", text);
            let _ = self
                .tell
                .send(Done::Job(id, job::Input::FlashFailed(reason)));
            return;
        };
        let stop = Arc::new(AtomicBool::new(false));
        let working = Working {
            stop: stop.clone(),
            phase: job.phase,
            current: job.current,
            rolling_back: job.rolling_back,
        };
        let version = job
            .plan
            .installs
            .get(job.current)
            .map(|install| install.version.clone())
            .unwrap_or_default();
        let old_version = job
            .installs
            .get(job.current)
            .and_then(|state| state.old_version.clone());
        self.working.insert(id, working);
        let reporter = Reporter {
            job: id,
            target: target.clone(),
            tell: self.tell.clone(),
            stop: stop.clone(),
            told: Mutex::default(),
        };
        let lock = self.platform.lock_of(&target);
        let (seam, tell, stage) = (self.platform.seam, self.tell.clone(), self.stage_of(id));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let guard = lock.lock_owned().await;
            let result = seam
                .run(move || {
                    // Held by the work and not by the task, which may be gone before the work is.
                    let _guard = guard;
                    if reporter.is_stopped() {
                        return Err(FlashError::Stopped);
                    }
                    let work = Work {
                        target: &target,
                        version: &version,
                        old_version: old_version.as_deref(),
                        progress: &reporter,
                    };
                    let result = operation(flasher.as_ref(), staged, &work);
                    reporter.flush(true);
                    result
                })
                .await;
            if stop.load(Ordering::Relaxed) {
                // The job has gone on without it.
                return;
            }
            let input = result
                .unwrap_or_else(|error| Some(job::Input::FlashFailed(flash_reason(&error, stage))));
            if let Some(input) = input {
                let _ = tell.send(Done::Job(id, input));
            }
        });
    }

    /// Stops the work that was begun for a job when the job has left the place where it was wanted.
    pub(super) fn stop_unwanted_work(&mut self, id: u64) {
        let Some(working) = self.working.get(&id) else {
            return;
        };
        let is_wanted = self.jobs.get(&id).is_some_and(|job| {
            !job.paused
                && job.phase == working.phase
                && job.current == working.current
                && job.rolling_back == working.rolling_back
        });
        if !is_wanted && let Some(working) = self.working.remove(&id) {
            working.stop.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn stop_all_work(&mut self) {
        for working in std::mem::take(&mut self.working).into_values() {
            working.stop.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn staged(
        &self,
        id: u64,
    ) -> Option<(Arc<dyn Flasher>, otahost_flash::Staged, String)> {
        let job = self.jobs.get(&id)?;
        let target = job.current_target().to_owned();
        let flasher = self.platform.flashers.get(&target)?.clone();
        let staged = job.installs.get(job.current)?.staged.as_ref()?;
        Some((flasher, to_flash(staged), target))
    }

    pub(super) fn stage_of(&self, id: u64) -> &'static str {
        match self.jobs.get(&id).map(|job| job.phase) {
            Some(Phase::Delivering | Phase::Delivered) => "deliver",
            Some(Phase::Activating) => "activate",
            Some(Phase::Confirming) => "confirm",
            _ => "install",
        }
    }
}

/// The target reports the version it had before.
fn old_runs(outside: &dyn Outside, work: &Work<'_>) -> bool {
    work.old_version.is_some_and(|old| {
        old != work.version
            && outside
                .version(work.target)
                .is_ok_and(|version| version == old)
    })
}

/// Brings the progress of one operation to the engine.
struct Reporter {
    job: u64,
    target: String,
    tell: mpsc::UnboundedSender<Done>,
    stop: Arc<AtomicBool>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    at: Option<Instant>,
    percent: u8,
    /// Not told yet.
    newest: Option<u8>,
    /// Stage and device of the last line in the log.
    doing: (String, String),
}

impl Reporter {
    /// Tells the newest percentage, if it is not the one that was told last and its time has come.
    fn flush(&self, at_once: bool) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(percent) = told.newest else {
            return;
        };
        let now = Instant::now();
        let is_early = told.at.is_some_and(|at| {
            now.duration_since(at) < PROGRESS_EVERY && percent.abs_diff(told.percent) < MUCH
        });
        if is_early && !at_once {
            return;
        }
        told.newest = None;
        if told.at.is_some() && told.percent == percent {
            return;
        }
        (told.at, told.percent) = (Some(now), percent);
        let _ = self
            .tell
            .send(Done::Job(self.job, job::Input::Working(percent)));
    }
}

impl Progress for Reporter {
    fn at(&self, stage: &str, percent: u8, device: Option<&str>) {
        {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.newest = Some(percent.min(100));
            let doing = (stage.to_owned(), device.unwrap_or_default().to_owned());
            if told.doing != doing {
                tracing::info!(
                    id = self.job,
                    target = self.target,
                    stage,
                    device,
                    percent,
                    "delivery"
                );
                told.doing = doing;
            }
        }
        self.flush(false);
    }

    fn log(&self, line: &str) {
        tracing::info!(id = self.job, target = self.target, line, "delivery says");
    }

    fn is_stopped(&self) -> bool {
        self.flush(false);
        self.stop.load(Ordering::Relaxed)
    }
}

pub(super) fn flash_reason(error: &FlashError, stage: &str) -> Reason {
    let code = match error.cause() {
        FlashError::NoSpace(_) => "no-space",
        FlashError::Corrupt(_)
        | FlashError::Io(_)
        | FlashError::Refused(_)
        | FlashError::Program(_)
        | FlashError::NoWayBack(_)
        | FlashError::At { .. } => "flash",
        FlashError::Selector(_) => "activate",
        FlashError::Stopped => "cancelled",
    };
    Reason::new(code, error.stage().unwrap_or(stage), error.to_string())
}

fn to_flash(staged: &Staged) -> otahost_flash::Staged {
    otahost_flash::Staged {
        place: staged.place.clone(),
        len: staged.len,
        sha256: staged.sha256.clone(),
    }
}

pub(super) fn from_flash(standing: &otahost_flash::Standing) -> Standing {
    match standing {
        otahost_flash::Standing::New { confirmed } => Standing::New {
            confirmed: *confirmed,
        },
        otahost_flash::Standing::NotActivated => Standing::NotActivated,
        otahost_flash::Standing::Pending { .. } => Standing::Pending,
        otahost_flash::Standing::FellBack => Standing::FellBack,
        otahost_flash::Standing::Unclear => Standing::Unclear,
    }
}
