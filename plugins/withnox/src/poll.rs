//! The question for newer firmware, and what is done about the answer.

use otahost_adapter::effects::{start_job, timer};
use otahost_adapter::{
    ArtifactSource, Effect, FetchResult, Install, JobPlan, Level, StartReason, Verdict, View,
};

use crate::auth::{self, raise};
use crate::choice;
use crate::config::{Config, POLL_MIN};
use crate::errand::{self, Answer, Which};
use crate::job;
use crate::pace;
use crate::report;
use crate::state::{Auth, Context, Errand, Shelved, State, Status};
use crate::verdict::Meaning;
use crate::wire::{self, Firmware};

/// The timer of the next poll, and what its tags begin with.
pub(crate) const TIMER: &str = "poll";

/// The adapter starts.
pub fn on_start(
    state: &mut State,
    reason: &StartReason,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    auth::on_start(state);
    match reason {
        StartReason::Installed => return errand::start(state, Which::Poll, config, view),
        StartReason::Reconfigured => {
            // Somebody was here: what was held against a firmware is looked at anew, by the host as well.
            state.shelf.clear();
            state.unwanted.clear();
        }
        StartReason::Booted
        | StartReason::Restarted
        | StartReason::Upgraded(_)
        | StartReason::RolledBack(_) => {}
    }
    let mut effects = vec![timer(TIMER, pace::soon(view))];
    effects.extend(report::consider(state, None, config, view));
    effects
}

/// The next poll is due, or the last one never ended.
pub fn on_timer(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    let mut effects = match state.poll {
        Errand::Waiting { .. } if state.auth != Auth::Ready => Vec::new(),
        _ => errand::start(state, Which::Poll, config, view),
    };
    if effects.is_empty() {
        effects.push(timer(TIMER, pace::spread(config.poll_interval(), view)));
    }
    effects
}

/// An answer came.
pub fn on_answer(
    state: &mut State,
    number: u64,
    outcome: &FetchResult,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let answer = match errand::read(state, Which::Poll, number, outcome, config, view) {
        Ok(answer) => answer,
        Err(effects) => return effects,
    };
    let (meaning, words, asked) = match answer {
        Answer::Fine(answer) => match wire::firmware_list(&answer.body) {
            Some((list, odd)) => return on_list(state, list, odd, config, view),
            None => (
                Meaning::Later,
                format!("HTTP {}, and no list", answer.status),
                wire::retry_after(answer),
            ),
        },
        Answer::Other(meaning, words, asked) => (meaning, words, asked),
    };
    if meaning != Meaning::Nothing {
        view.log(
            Level::Warn,
            &format!("the question for newer firmware: {words}"),
        );
    }
    let mut effects = Vec::new();
    let wait = match meaning {
        Meaning::Nothing => {
            heard(state);
            view.log(
                Level::Warn,
                "the cloud has no firmware at all for this device",
            );
            state.stands(Status::UpToDate, words);
            pace::spread(config.poll_interval(), view)
        }
        Meaning::Token => {
            effects.extend(errand::unauthorized(state, &words));
            pace::slow(view)
        }
        Meaning::Configuration | Meaning::Mismatch | Meaning::Stop => {
            effects.extend(errand::misconfigured(state, &words));
            pace::slow(view)
        }
        Meaning::Later | Meaning::Fine => {
            state.polls_failed = state.polls_failed.saturating_add(1);
            state.stands(Status::Unreachable, words);
            pace::after_failures(state.polls_failed, asked, view)
        }
    };
    effects.push(timer(TIMER, wait));
    effects
}

/// The cloud answered as it should: what was wrong with it is over.
fn heard(state: &mut State) {
    state.polls_failed = 0;
    for code in ["unauthorized", "configuration"] {
        state.raised.remove(code);
    }
    if state.auth == Auth::Stopped {
        // The tokens are good after all.
        state.auth = Auth::Ready;
        state.raised.remove("sign-in-refused");
    }
}

fn on_list(
    state: &mut State,
    mut list: Vec<Firmware>,
    odd: usize,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    heard(state);
    if odd > 0 {
        view.log(
            Level::Warn,
            &format!("{odd} entries of the cloud's list cannot be used"),
        );
    }
    list.sort_by(choice::newest_first);
    state.remember_list(list.iter().filter(|f| choice::fits(f, config)));
    for note in &mut state.shelf {
        note.polls = note.polls.map(|polls| polls.saturating_sub(1));
    }
    state.shelf.retain(|note| note.polls != Some(0));
    let mut effects = report::consider(state, None, config, view);
    let (chosen, wait) = choose(state, &list, config, view);
    effects.extend(chosen);
    effects.push(timer(TIMER, wait));
    effects
}

/// Takes what is to be taken. The effects, and the wait until the next poll.
fn choose(
    state: &mut State,
    list: &[Firmware],
    config: &Config,
    view: &dyn View,
) -> (Vec<Effect>, u64) {
    let mut effects = Vec::new();
    let wait = pace::spread(config.poll_interval(), view);
    let running = job::running(config, view);
    let Some(running) = running.as_deref() else {
        state.stands(
            Status::VersionUnknown,
            "the target's version is not known yet",
        );
        return (effects, wait);
    };
    let Some(running) = choice::parse(running) else {
        let text = format!(
            "the running version `{}` is no semantic version; nothing can be newer",
            wire::shown(running)
        );
        state.stands(Status::VersionUnknown, text.clone());
        effects.extend(raise(state, Level::Error, "version", &text));
        return (effects, wait);
    };
    state.raised.remove("version");
    let mut left = None;
    for firmware in choice::candidates(list, config, &running) {
        let plan = plan(firmware, config);
        let verdict = view.check_job(&plan);
        if let Verdict::Refuse(reason) = &verdict
            && reason.code == "known-bad"
        {
            let note = Shelved {
                firmware: firmware.id,
                stamp: firmware.stamp,
                host_knows: true,
                polls: None,
            };
            effects.extend(job::shelve(state, note, &firmware.version, &reason.text));
        }
        let free = matches!(verdict, Verdict::Allow | Verdict::Defer(_));
        if let Some(note) = state.shelved(firmware.id, firmware.stamp) {
            if note.host_knows && free {
                view.log(
                    Level::Info,
                    &format!("firmware {} is allowed again by the operator", firmware.id),
                );
                state.shelf.retain(|note| note.firmware != firmware.id);
            } else {
                left.get_or_insert(firmware);
                if config.stepwise {
                    // No version is left out: what comes after it waits behind it.
                    break;
                }
                continue;
            }
        }
        let (status, why, wait) = verdict_says(&verdict, firmware, wait, view);
        state.stands(status, why);
        if verdict == Verdict::Allow {
            effects.push(plan.start());
        }
        return (effects, wait);
    }
    match left {
        Some(firmware) => state.stands(
            Status::KnownBad,
            format!(
                "version {} (firmware {}) is not tried again",
                firmware.version, firmware.id
            ),
        ),
        None => state.stands(Status::UpToDate, ""),
    }
    (effects, wait)
}

fn verdict_says(
    verdict: &Verdict,
    firmware: &Firmware,
    wait: u64,
    view: &dyn View,
) -> (Status, String, u64) {
    let what = format!("version {} (firmware {})", firmware.version, firmware.id);
    match verdict {
        Verdict::Allow => (Status::Updating, what, wait),
        Verdict::Defer(until) => {
            // Asked again when the time comes: what is newest by then is taken.
            let left = until.saturating_sub(view.now()).max(POLL_MIN);
            let wait = pace::at_least(left, view)
                .min(left.saturating_add(5 * POLL_MIN))
                .min(wait);
            (Status::Deferred, what, wait)
        }
        Verdict::Busy(key) if *key == job::key(firmware.id) => (Status::Updating, what, wait),
        // The end of that job brings the next poll.
        Verdict::Busy(_) => (Status::Busy, what, wait),
        Verdict::Refuse(reason) => {
            let why = format!("{what}: {reason}");
            view.log(Level::Warn, &format!("the host refuses {why}"));
            (Status::Refused, why, wait)
        }
    }
}

/// The plan for this firmware. The cloud says neither size nor digest: the file's own signature decides.
pub fn plan(firmware: &Firmware, config: &Config) -> JobPlan {
    let source = ArtifactSource::on_link(&config.link, &config.file(firmware.id));
    let key = job::key(firmware.id);
    start_job(&key)
        .context(&Context {
            firmware: firmware.id,
            stamp: firmware.stamp,
        })
        .install(Install::new(&config.target, &firmware.version, source).identity(&key))
}
