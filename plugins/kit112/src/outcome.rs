//! How updates end: remembered for who asks, and told to people where the device is left unwell.
//!
//! Nothing is ever told to the centre by itself. A download that fails leaves the old version running, and that is all the centre sees.

use otahost_adapter::effects::{alert, cancel_timer, timer};
use otahost_adapter::{Effect, Health, JobReport, Level, View};

use crate::config::{Config, FailedUpdates};
use crate::device;
use crate::state::{Context, Foreign, Last, Outcome, State, Versions};

/// Fires when a confirmed version need not be watched any more.
pub const TIMER: &str = "watch";

/// How a job on the target stands, whoever asked for it.
pub fn on_report(
    state: &mut State,
    report: &JobReport,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let Some(install) = report.install(&config.target) else {
        return Vec::new();
    };
    if !report.phase.is_final() {
        if report.foreign {
            state.foreign = Some(Foreign {
                key: report.key.clone(),
                old: install.old_version.clone(),
            });
        }
        return Vec::new();
    }
    if !is_news(state, report, view) {
        return Vec::new();
    }
    // Of a mixed end only this target's counts.
    let Some(outcome) = Outcome::of(install.phase).or(Outcome::of(report.phase)) else {
        view.log(
            Level::Error,
            &format!("job {} ended without an end of this target", report.key),
        );
        return Vec::new();
    };
    // Somebody else was turned away; no update of this device came of it.
    if report.foreign && outcome == Outcome::Rejected {
        return Vec::new();
    }
    let reason = install.reason.as_ref().or(report.reason.as_ref());
    let versions = Versions {
        old: install.old_version.clone(),
        new: install.new_version.clone(),
    };
    let why = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    view.log(
        if outcome == Outcome::Succeeded {
            Level::Info
        } else {
            Level::Warn
        },
        &format!(
            "the update of {} to {} ended in {}{why}",
            config.target, versions.new, report.phase
        ),
    );
    if outcome.was_activated() || config.failed_updates == FailedUpdates::Shown {
        state.last = Some(Last {
            key: report.key.clone(),
            foreign: report.foreign,
            outcome,
            versions: versions.clone(),
            at: view.now(),
            reason: reason.map(|r| r.code.chars().take(40).collect()),
        });
    }
    ended(state, outcome, versions, config, view)
}

/// True for the first report of a job's end. Reports may come twice, and a key may be used again: our own updates are told apart by
/// their number; another's by what was reported between its two ends.
fn is_news(state: &mut State, report: &JobReport, view: &dyn View) -> bool {
    if report.foreign {
        let was_at_work = state
            .foreign
            .take_if(|foreign| foreign.key == report.key)
            .is_some();
        let ended_before = state
            .last
            .as_ref()
            .is_some_and(|last| last.foreign && last.key == report.key);
        return was_at_work || !ended_before;
    }
    match report.context_json::<Context>() {
        Ok(context) if context.number <= state.ended => false,
        Ok(context) => {
            state.ended = context.number;
            // The job may be older than this state, where the adapter was taken out and put in again.
            state.count = state.count.max(context.number);
            true
        }
        Err(e) => {
            view.log(Level::Error, &e);
            false
        }
    }
}

fn ended(
    state: &mut State,
    outcome: Outcome,
    versions: Versions,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let messages = &config.messages;
    match outcome {
        Outcome::Succeeded => {
            state.watched = Some(versions);
            let mut effects = on_target(state, config, view);
            if state.watched.is_some() {
                effects.extend(match config.watch_hours {
                    0 => on_timer(state),
                    hours => vec![timer(TIMER, hours * 3_600_000)],
                });
            }
            effects
        }
        Outcome::RolledBack => {
            state.watched = None;
            let (code, text) = ("update-rolled-back", &messages.rolled_back);
            vec![tell(Level::Warn, code, text, &versions, config)]
        }
        Outcome::RollbackFailed => {
            state.watched = None;
            let (code, text) = ("update-rollback-failed", &messages.rollback_failed);
            vec![tell(Level::Error, code, text, &versions, config)]
        }
        // The old version goes on as before, and is watched as before.
        Outcome::Rejected | Outcome::Failed | Outcome::Cancelled => on_target(state, config, view),
    }
}

/// The target's version or health changed: after an update it is watched for a while, and told once when it is unwell.
pub fn on_target(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    let unwell = device::target(config, view).is_some_and(|t| t.health == Health::Unwell);
    // While the next update works on it a device may well be unwell.
    if !unwell || device::job_at_work(config, view).is_some() {
        return Vec::new();
    }
    let Some(versions) = state.watched.take() else {
        return Vec::new();
    };
    let (code, text) = ("unwell-after-update", &config.messages.unwell);
    vec![
        cancel_timer(TIMER),
        tell(Level::Error, code, text, &versions, config),
    ]
}

/// The confirmed version has proved itself for long enough.
pub fn on_timer(state: &mut State) -> Vec<Effect> {
    state.watched = None;
    Vec::new()
}

/// An alert to the company and the vehicle's owner. Who they are and how they are reached is the host's configuration.
fn tell(level: Level, code: &str, text: &str, versions: &Versions, config: &Config) -> Effect {
    let mut filled = text.to_owned();
    for (place, value) in [
        ("{old}", versions.old.as_deref().unwrap_or(device::UNKNOWN)),
        ("{new}", &versions.new),
        ("{vehicle}", &config.vehicle),
    ] {
        filled = filled.replace(place, value);
    }
    alert(level, code, &filled)
}
