//! What the host reports of jobs and of the target: what is to be told to the cloud, and what is not to be tried again.

use otahost_adapter::effects::{alert, timer};
use otahost_adapter::{Effect, JobReport, Level, Phase, Reason, View};

use crate::attempt;
use crate::config::Config;
use crate::pace;
use crate::poll;
use crate::report;
use crate::state::{Auth, Context, Shelved, State, Status};

/// Faults of the file itself: it will have them at the next poll too. The download is spared for so many polls (a week at the
/// usual pace), because the operator's trust may change as well.
const FILE_FAULTS: [&str; 6] = [
    "unsigned",
    "signature",
    "compatible",
    "rollback-index",
    "downgrade",
    "known-bad",
];
/// Polls until a file with a fault is tried again.
const FAULT_POLLS: u16 = 28;

/// Key of the job that installs this firmware, and the identity of its file.
pub fn key(firmware: u64) -> String {
    format!("withnox/{firmware}")
}

/// The version that runs on the target, as the target itself says it.
pub fn running(config: &Config, view: &dyn View) -> Option<String> {
    let target = view.targets().into_iter().find(|t| t.id == config.target)?;
    target.version
}

/// True while a job works on the target, whoever asked for it, but for the one that has just ended.
pub fn is_at_work(ended: Option<&str>, config: &Config, view: &dyn View) -> bool {
    view.active_jobs()
        .iter()
        .any(|job| ended.is_none_or(|key| key != job.key) && job.targets.contains(&config.target))
}

/// A job made progress or ended.
pub fn on_report(
    state: &mut State,
    report: &JobReport,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    if !report.phase.is_final() || report.install(&config.target).is_none() {
        return Vec::new();
    }
    let mut effects = Vec::new();
    let again = if report.foreign {
        true
    } else {
        effects.extend(on_end(state, report, config, view));
        // With `stepwise` the next step follows; otherwise this is what shows that nothing is left.
        report.phase == Phase::Succeeded
    };
    effects.extend(report::consider(state, Some(&report.key), config, view));
    if again && is_well(state) {
        effects.push(timer(poll::TIMER, pace::soon(view)));
    }
    effects
}

/// True where the cloud answers: nothing may bring a poll forward that waits for a person or for a server.
fn is_well(state: &State) -> bool {
    state.auth == Auth::Ready
        && state.polls_failed == 0
        && !matches!(
            state.status,
            Status::Configuration | Status::Unauthorized | Status::SignInRefused
        )
}

fn on_end(
    state: &mut State,
    ended: &JobReport,
    config: &Config,
    view: &dyn View,
) -> Option<Effect> {
    let Ok(context) = ended.context_json::<Context>() else {
        view.log(
            Level::Warn,
            &format!("job {} is none of this version's", ended.key),
        );
        return None;
    };
    let install = ended.install(&config.target)?;
    let version = install.new_version.as_str();
    let reason = ended.reason.as_ref().or(install.reason.as_ref());
    let text = reason.map_or_else(|| ended.phase.to_string(), ToString::to_string);
    let note = |host_knows, polls| Shelved {
        firmware: context.firmware,
        stamp: context.stamp,
        host_knows,
        polls,
    };
    match ended.phase {
        Phase::Succeeded => {
            state.stands(Status::UpToDate, "");
            state.raised.remove(attempt::REFUSED);
            report::owe(state, context.firmware, version);
            None
        }
        Phase::RolledBack | Phase::RollbackFailed => {
            state.stands(Status::KnownBad, text.clone());
            shelve(state, note(false, None), version, &text)
        }
        _ => {
            state.stands(Status::Refused, format!("version {version}: {text}"));
            let reason = reason.filter(|r| FILE_FAULTS.contains(&r.code.as_str()))?;
            let known = reason.code == "known-bad";
            let polls = (!known).then_some(FAULT_POLLS);
            shelve(
                state,
                note(known && is_early(reason), polls),
                version,
                &text,
            )
        }
    }
}

/// Said before the download: then the host says so whenever it is asked.
fn is_early(reason: &Reason) -> bool {
    reason.stage == "admit"
}

/// Notes that this firmware is not to be tried again, and says so once.
pub(crate) fn shelve(state: &mut State, note: Shelved, version: &str, why: &str) -> Option<Effect> {
    let firmware = note.firmware;
    if !state.shelve(note) {
        return None;
    }
    let text = format!("version {version} (firmware {firmware}) is not tried again: {why}");
    // The note itself is what remembers that this was said.
    Some(alert(Level::Error, &format!("not-again-{firmware}"), &text))
}

/// The target changed.
pub fn on_target(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    let mut effects = report::consider(state, None, config, view);
    if state.status == Status::VersionUnknown && running(config, view).is_some() && is_well(state) {
        // Once: the status says what is waited for.
        state.stands(Status::Starting, "");
        effects.push(timer(poll::TIMER, pace::soon(view)));
    }
    effects
}
