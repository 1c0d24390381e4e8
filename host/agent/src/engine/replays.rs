//! Recorded steps, run again: on the component that runs, on another build of it, and on a version that is to take over.
//!
//! Runs in the seam and never on the engine's loop: even a sound component takes a tenth of a millisecond for each step, and one that is
//! tried out may take all it is given.

use std::time::{Duration, Instant};

use otahost_journal::{Key, from_json};
use otahost_sandbox::{Adapter, Entry, Replayer, StepRecord, TraceRing};

use super::rows::DeadRow;
use crate::api::ReplayReport;
use crate::platform::AdapterSetup;

/// What a replay may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Most steps, the newest of them.
    steps: usize,
    /// Fuel after which no further step is begun.
    fuel: u64,
    /// Time after which none is begun.
    time: Duration,
}

impl Bounds {
    /// For a version that is to take over. Fuel bounds it, so that every run finds the same; the time is for what fuel does not see.
    pub(super) const TRIAL: Bounds = Bounds {
        steps: 64,
        fuel: 500_000_000,
        time: Duration::from_secs(30),
    };
    /// For a person who asks and waits.
    pub(super) const ASKED: Bounds = Bounds {
        steps: usize::MAX,
        fuel: u64::MAX,
        time: Duration::from_secs(60),
    };
}

/// Which of the recorded steps.
#[derive(Debug, Clone)]
pub(super) enum Which {
    /// All, as far as the bounds go.
    All,
    /// The one with this number.
    Step(u64),
    /// That of a dead letter.
    Dead(Box<StepRecord>),
}

/// Runs recorded steps on a version. Blocks.
///
/// # Errors
/// There is nothing to run, or the component fails before it comes to that.
pub(super) fn run_again(
    setup: &AdapterSetup,
    ring: &TraceRing,
    which: &Which,
    bounds: Bounds,
) -> Result<ReplayReport, String> {
    let mut report = ReplayReport {
        version: setup.description.version.clone(),
        digest: setup.component.digest().to_owned(),
        ..ReplayReport::default()
    };
    let replayer = replayer(&setup.component)?;
    match which {
        Which::Dead(record) => report.add(replayer.replay(record)),
        Which::Step(n) => {
            let step = ring.step(*n).ok_or_else(|| gone(*n, ring))?;
            report.add(replayer.replay(&step.record().map_err(|e| e.to_string())?));
        }
        Which::All => run_all(&replayer, ring, bounds, &mut report),
    }
    Ok(report)
}

fn replayer(component: &Adapter) -> Result<Replayer, String> {
    Replayer::new(component)
        .map_err(|failure| format!("the component does not describe itself: {failure}"))
}

/// The newest first, in case the bounds do not let all of them run.
fn run_all(replayer: &Replayer, ring: &TraceRing, bounds: Bounds, report: &mut ReplayReport) {
    let began = Instant::now();
    let mut fuel = 0u64;
    for (index, step) in ring.steps().rev().enumerate() {
        let spent = index >= bounds.steps || fuel >= bounds.fuel || began.elapsed() >= bounds.time;
        match step.record() {
            Ok(record) if !spent => {
                let replay = replayer.replay(&record);
                fuel = fuel.saturating_add(replay.fuel_now.unwrap_or_default());
                report.add(replay);
            }
            _ => report.not_run += 1,
        }
    }
    report.steps.reverse();
}

/// Why there is no step with this number.
pub(super) fn gone(n: u64, ring: &TraceRing) -> String {
    let numbers = |step: Option<Entry<'_>>| step.map(|step| step.n());
    let (oldest, newest) = (
        numbers(ring.steps().next()),
        numbers(ring.steps().next_back()),
    );
    match (oldest, newest) {
        (Some(oldest), _) if n < oldest => {
            format!("step {n} is not on record any more; the oldest that is has number {oldest}")
        }
        (Some(oldest), Some(newest)) => format!(
            "there is no step {n}; those on record have numbers from {oldest} to {newest}, and some numbers are left out"
        ),
        _ => format!("there is no step {n}: none is on record yet"),
    }
}

/// A dead letter's record.
///
/// # Errors
/// It was too large to be kept, or another version of the agent wrote it.
pub(super) fn record_of(key: &Key, row: &[u8]) -> Result<Box<StepRecord>, String> {
    let row: DeadRow = from_json(key, row).map_err(|e| e.to_string())?;
    row.record.ok_or_else(|| {
        "the dead letter cannot be replayed: what the adapter was shown was too large to be kept, or an older agent set it aside".into()
    })
}
