//! A transfer that failed once. The answer may be the API's or that of the object store it sends on to; the host asks the API anew for
//! every attempt, so that each has a fresh address.
//!
//! Where nothing is said here the host's own rule holds: it knows the network, the budgets and what a server said about when to come
//! back. It takes most of 4xx for final, so those that are not are answered.

use otahost_adapter::effects::retry;
use otahost_adapter::{Effect, FailedAttempt, Level, RetryDecision, View};

use crate::auth::{self, Need};
use crate::config::Config;
use crate::errand;
use crate::pace;
use crate::state::{Attempted, Auth, State};
use crate::verdict::{Meaning, Route, meaning};
use crate::wire;

/// The first wait for the server's own credentials, in milliseconds. Each one after it is twice as long.
const FIRST: u64 = 60_000;
/// The longest, in milliseconds.
const LONGEST: u64 = 3_600_000;
/// The first wait for an address that has expired, in milliseconds.
const FIRST_FRESH: u64 = 1_000;
/// The longest, in milliseconds: an address that is born expired is the server's clock.
const LONGEST_FRESH: u64 = 900_000;
/// Code of the alert that the cloud does not give this device its file.
pub(crate) const REFUSED: &str = "file-refused";
/// While somebody else asks for tokens, in milliseconds.
const WHILE_REFRESHING: u64 = 15_000;

/// The answer to a failed attempt; none leaves it to the host.
pub fn on_attempt(
    state: &mut State,
    failed: &FailedAttempt,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let answer = |decision| vec![retry(&failed.job, failed.install, decision)];
    let times = u8::try_from(failed.attempt.saturating_sub(1)).unwrap_or(u8::MAX);
    let detail = wire::detail(&failed.body);
    let words = wire::words(failed.status, &failed.body);
    let store = |word| wire::is_store_error(&failed.body, word);
    if failed.status == 0 {
        return if auth::is_no_secret(&failed.reason) {
            on_token(state, failed, Need::SignIn, config, view)
        } else {
            Vec::new()
        };
    }
    if matches!(failed.status, 400 | 403)
        && (store("ExpiredToken") || store("Request has expired") || store("AccessDenied"))
    {
        let wait = pace::doubled(FIRST_FRESH, times, LONGEST_FRESH);
        return answer(RetryDecision::After(pace::at_least(wait, view)));
    }
    match meaning(Route::File, failed.status, detail.as_deref()) {
        Meaning::Token => on_token(state, failed, Need::Refresh, config, view),
        Meaning::Later if matches!(failed.status, 401 | 403) => {
            let wait = pace::doubled(FIRST, times, LONGEST);
            answer(RetryDecision::After(pace::at_least(wait, view)))
        }
        Meaning::Configuration => {
            let mut effects = answer(RetryDecision::Stop(format!(
                "the cloud does not give this device the file: {words}"
            )));
            let text = format!(
                "the cloud does not give this device the file of {}: {words}",
                failed.job
            );
            effects.extend(auth::raise(state, Level::Error, REFUSED, &text));
            effects
        }
        // How far the file is here is the host's to settle.
        Meaning::Stop if failed.status == 416 => Vec::new(),
        Meaning::Stop if failed.status == 400 && detail.as_deref() == Some("Invalid firmware") => {
            answer(RetryDecision::Stop(
                "the cloud says that this firmware is not newer than what runs".into(),
            ))
        }
        Meaning::Stop | Meaning::Mismatch => answer(RetryDecision::Stop(format!(
            "the cloud does not give the file: {words}"
        ))),
        Meaning::Fine | Meaning::Nothing | Meaning::Later => Vec::new(),
    }
}

/// Bytes of the file that are here.
fn received(failed: &FailedAttempt, view: &dyn View) -> u64 {
    let report = view.job(&failed.job);
    let install = usize::try_from(failed.install).unwrap_or(usize::MAX);
    report
        .and_then(|report| Some(report.installs.get(install)?.received))
        .unwrap_or(0)
}

/// The token was refused, or there is none: new ones, and the next attempt goes with them. Refused again at the next attempt, and no
/// byte came in between: enough.
fn on_token(
    state: &mut State,
    failed: &FailedAttempt,
    need: Need,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let answer = |decision| vec![retry(&failed.job, failed.install, decision)];
    let attempt = Attempted {
        job: failed.job.clone(),
        install: failed.install,
        attempt: failed.attempt,
        received: received(failed, view),
    };
    match state.auth {
        Auth::Ready => {}
        Auth::Refreshing(_) => return answer(RetryDecision::After(WHILE_REFRESHING)),
        Auth::SigningIn(_) => return answer(RetryDecision::After(auth::WHILE_SIGNING_IN)),
        Auth::PutOff => return answer(RetryDecision::After(FIRST)),
        Auth::Locked | Auth::Stopped => return answer(RetryDecision::Stop(state.why.clone())),
    }
    let in_vain = state.renewed_for.as_ref().is_some_and(|last| {
        last.job == attempt.job
            && last.received == attempt.received
            && failed.attempt <= last.attempt.saturating_add(1)
    });
    if in_vain {
        let words = wire::words(failed.status, &failed.body);
        let mut effects = answer(RetryDecision::Stop(format!(
            "the cloud refuses new tokens too: {words}"
        )));
        effects.extend(errand::unauthorized(state, &words));
        return effects;
    }
    state.attempt = Some(attempt);
    auth::renew(state, need, config, view)
}
