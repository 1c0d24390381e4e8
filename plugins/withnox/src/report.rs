//! `update-result`: the cloud is told which firmware runs, once that is settled and until it says that it knows.
//!
//! Settled means: the target itself says this version, and no job works on it, so that an image which still has to prove itself is
//! not told of. Who installed it does not matter.

use otahost_adapter::effects::{alert, cancel_timer, timer};
use otahost_adapter::{Effect, FetchResult, Level, View};

use crate::auth::raise;
use crate::choice;
use crate::config::Config;
use crate::errand::{self, Answer, Which};
use crate::job;
use crate::pace;
use crate::state::{Errand, Owed, State};
use crate::verdict::Meaning;
use crate::wire;

/// The timer of the next try, and what its tags begin with.
pub(crate) const TIMER: &str = "report";
/// A request without any outcome is asked again after so long, in milliseconds.
pub(crate) const WATCH: u64 = 600_000;

/// This firmware was installed: the cloud is to be told.
pub fn owe(state: &mut State, firmware: u64, version: &str) {
    if state.reported == Some(firmware) {
        return;
    }
    state.unwanted.retain(|id| *id != firmware);
    if state.owed.as_ref().is_none_or(|o| o.firmware != firmware) {
        state.report = Errand::Idle;
        state.owed = Some(Owed {
            firmware,
            version: version.to_owned(),
            failures: 0,
            put_off: false,
        });
    }
}

/// Looks whether the cloud is to be told something, and whether now. `ended` is the job that this very event is the end of.
pub fn consider(
    state: &mut State,
    ended: Option<&str>,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    if job::is_at_work(ended, config, view) {
        return Vec::new();
    }
    if let Some(running) = job::running(config, view) {
        let mut same = state
            .listed
            .iter()
            .filter(|l| choice::is_same(&l.version, &running));
        // One version under two ids: nobody can say which of them runs.
        if let (Some(listed), None) = (same.next(), same.next())
            && !state.unwanted.contains(&listed.firmware)
            && state
                .owed
                .as_ref()
                .is_none_or(|o| !choice::is_same(&o.version, &running))
        {
            let listed = listed.clone();
            owe(state, listed.firmware, &listed.version);
        }
    }
    let idle = state.report == Errand::Idle && state.owed.as_ref().is_some_and(|o| !o.put_off);
    if idle && may_tell(state, ended, config, view) {
        errand::start(state, Which::Report, config, view)
    } else {
        Vec::new()
    }
}

/// True where what is owed is the truth now.
pub(crate) fn may_tell(
    state: &State,
    ended: Option<&str>,
    config: &Config,
    view: &dyn View,
) -> bool {
    !job::is_at_work(ended, config, view)
        && matches!((&state.owed, job::running(config, view)),
            (Some(owed), Some(running)) if choice::is_same(&owed.version, &running))
}

/// The next try is due, or the last one never ended.
pub fn on_timer(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    if let Some(owed) = &mut state.owed {
        owed.put_off = false;
    }
    if matches!(state.report, Errand::Sent { .. }) {
        state.report = Errand::Idle;
    }
    consider(state, None, config, view)
}

/// An answer came.
pub fn on_answer(
    state: &mut State,
    number: u64,
    outcome: &FetchResult,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let answer = match errand::read(state, Which::Report, number, outcome, config, view) {
        Ok(answer) => answer,
        Err(effects) => return effects,
    };
    let Some(owed) = state.owed.clone() else {
        return Vec::new();
    };
    let firmware = owed.firmware;
    let mut effects = Vec::new();
    let (meaning, words, asked) = match answer {
        Answer::Fine(answer) => {
            let now = wire::now_firmware_id(&answer.body);
            if now == Some(firmware) {
                return accepted(state, firmware, view);
            }
            let words = match now {
                Some(now) => format!("HTTP {}, but now_firmware_id is {now}", answer.status),
                None => format!("HTTP {}, without now_firmware_id", answer.status),
            };
            let text =
                format!("the cloud takes the report of firmware {firmware} otherwise: {words}");
            effects.extend(raise(state, Level::Warn, "report", &text));
            (Meaning::Later, words, wire::retry_after(answer))
        }
        Answer::Other(meaning, words, asked) => (meaning, words, asked),
    };
    view.log(
        Level::Warn,
        &format!("the report of firmware {firmware}: {words}"),
    );
    let failures = owed.failures.saturating_add(1);
    let wait = match meaning {
        Meaning::Mismatch => {
            state.owed = None;
            state.give_up(firmware);
            let text = format!(
                "the cloud says that the running firmware {firmware} (version {}) does not belong to this device; it is told no more",
                owed.version
            );
            effects.push(alert(Level::Error, "report-refused", &text));
            effects.push(cancel_timer(TIMER));
            return effects;
        }
        Meaning::Token => {
            effects.extend(errand::unauthorized(state, &words));
            pace::slow(view)
        }
        Meaning::Configuration | Meaning::Stop | Meaning::Nothing => {
            let text =
                format!("the cloud does not take the report of firmware {firmware}: {words}");
            effects.extend(raise(state, Level::Error, "report", &text));
            pace::slow(view)
        }
        Meaning::Later | Meaning::Fine => pace::after_failures(failures, asked, view),
    };
    state.owed = Some(Owed {
        failures,
        put_off: true,
        ..owed
    });
    effects.push(timer(TIMER, wait));
    effects
}

fn accepted(state: &mut State, firmware: u64, view: &dyn View) -> Vec<Effect> {
    view.log(
        Level::Info,
        &format!("the cloud knows that firmware {firmware} runs"),
    );
    state.owed = None;
    state.reported = Some(firmware);
    state.raised.remove("report");
    vec![cancel_timer(TIMER)]
}
