//! The two questions this adapter asks the cloud, and what they have in common: one of each at a time, refused for its token it waits
//! for new ones and is asked once more, and an answer that nobody waits for is nobody's.

use otahost_adapter::effects::{fetch, timer};
use otahost_adapter::{Effect, FetchResult, HttpResponse, View};

use crate::auth::{self, Need};
use crate::config::Config;
use crate::pace;
use crate::poll;
use crate::report;
use crate::state::{Auth, Errand, State, Status};
use crate::verdict::{Meaning, Route, meaning};
use crate::wire;

/// Which question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Is there anything newer?
    Poll,
    /// This runs now.
    Report,
}

impl Which {
    /// What its tags begin with.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Which::Poll => poll::TIMER,
            Which::Report => report::TIMER,
        }
    }

    fn route(self) -> Route {
        match self {
            Which::Poll => Route::Latest,
            Which::Report => Route::UpdateResult,
        }
    }

    fn of(self, state: &mut State) -> &mut Errand {
        match self {
            Which::Poll => &mut state.poll,
            Which::Report => &mut state.report,
        }
    }
}

/// The tag of a request: what it is, and its number.
pub(crate) fn tag(word: &str, number: u64) -> String {
    format!("{word}/{number}")
}

/// What an answer comes to.
#[derive(Debug)]
pub enum Answer<'a> {
    /// Done, with this answer.
    Fine(&'a HttpResponse),
    /// Something else, what was said, and the wait that was asked for.
    Other(Meaning, String, Option<u64>),
}

/// Asks. Another request of the kind that may be under way is forgotten.
pub fn send(
    state: &mut State,
    which: Which,
    repeated: bool,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    let number = state.number();
    let tag = tag(which.word(), number);
    // Each timer also watches over a request that never ends.
    let (request, wait) = match which {
        Which::Poll => (
            fetch(&tag, &config.link, "GET", &config.latest()).header("accept", "application/json"),
            pace::spread(config.poll_interval(), view),
        ),
        Which::Report => {
            let Some(owed) = &state.owed else {
                state.report = Errand::Idle;
                return Vec::new();
            };
            let path = config.update_result(&owed.firmware.to_string());
            (
                fetch(&tag, &config.link, "PATCH", &path).header("accept", "application/json"),
                report::WATCH,
            )
        }
    };
    *which.of(state) = Errand::Sent {
        number,
        tokens: state.tokens,
        repeated,
    };
    vec![request.safe(), timer(which.word(), wait)]
}

/// Asks now, or as soon as there are tokens.
pub fn start(state: &mut State, which: Which, config: &Config, view: &dyn View) -> Vec<Effect> {
    match state.auth {
        // Where the account is refused, asking shows whether the cloud has come to its senses.
        Auth::Ready | Auth::Stopped => send(state, which, false, config, view),
        Auth::Refreshing(_) | Auth::PutOff | Auth::SigningIn(_) | Auth::Locked => {
            *which.of(state) = Errand::Waiting { repeated: false };
            Vec::new()
        }
    }
}

/// Whoever waits for tokens asks again.
pub(crate) fn resume(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    let mut effects = Vec::new();
    for which in [Which::Report, Which::Poll] {
        if let Errand::Waiting { repeated } = *which.of(state) {
            if which == Which::Report && !report::may_tell(state, None, config, view) {
                state.report = Errand::Idle;
                continue;
            }
            effects.extend(send(state, which, repeated, config, view));
        }
    }
    effects
}

/// No tokens will come: whoever waits for them asks again in a day.
pub(crate) fn give_up_waiting(state: &mut State, view: &dyn View) -> Vec<Effect> {
    let mut effects = Vec::new();
    for which in [Which::Report, Which::Poll] {
        if matches!(which.of(state), Errand::Waiting { .. }) {
            *which.of(state) = Errand::Idle;
            if let (Which::Report, Some(owed)) = (which, &mut state.owed) {
                owed.put_off = true;
            }
            effects.push(timer(which.word(), pace::slow(view)));
        }
    }
    effects
}

/// An answer came. `Err` where it is nobody's, or the question waits for tokens: then these effects are all.
pub fn read<'a>(
    state: &mut State,
    which: Which,
    number: u64,
    outcome: &'a FetchResult,
    config: &Config,
    view: &dyn View,
) -> Result<Answer<'a>, Vec<Effect>> {
    let (tokens, repeated) = match *which.of(state) {
        Errand::Sent {
            number: sent,
            tokens,
            repeated,
        } if sent == number => (tokens, repeated),
        _ => return Err(Vec::new()),
    };
    *which.of(state) = Errand::Idle;
    let (meaning, words, asked, need) = match outcome {
        FetchResult::Answered(answer) => {
            let detail = wire::detail(&answer.body);
            let meaning = meaning(which.route(), answer.status, detail.as_deref());
            if meaning == Meaning::Fine {
                return Ok(Answer::Fine(answer));
            }
            let words = wire::words(answer.status, &answer.body);
            (meaning, words, wire::retry_after(answer), Need::Refresh)
        }
        FetchResult::Failed(why) if auth::is_no_secret(why) => {
            (Meaning::Token, wire::shown(why), None, Need::SignIn)
        }
        FetchResult::Failed(why) => (Meaning::Later, wire::shown(why), None, Need::Refresh),
        FetchResult::Interrupted => (
            Meaning::Later,
            "the agent was interrupted".into(),
            None,
            Need::Refresh,
        ),
    };
    if meaning == Meaning::Token && !repeated && state.auth != Auth::Stopped {
        if need == Need::Refresh && tokens != state.tokens && state.auth == Auth::Ready {
            // It went with tokens that have been replaced meanwhile.
            return Err(send(state, which, true, config, view));
        }
        *which.of(state) = Errand::Waiting { repeated: true };
        return Err(auth::renew(state, need, config, view));
    }
    Ok(Answer::Other(meaning, words, asked))
}

/// The cloud refuses new tokens too, or there are none: says so once.
pub(crate) fn unauthorized(state: &mut State, words: &str) -> Option<Effect> {
    if state.auth == Auth::Stopped {
        // Known, and said.
        return None;
    }
    let text = format!("the cloud refuses new tokens too: {words}");
    state.stands(Status::Unauthorized, text.clone());
    auth::raise(state, otahost_adapter::Level::Error, "unauthorized", &text)
}

/// The cloud does not know the device, the account or the address as configured, or does not take the question: says so once.
pub(crate) fn misconfigured(state: &mut State, words: &str) -> Option<Effect> {
    let text = format!(
        "the cloud does not answer this device as it is configured: {words}; check device_id, user_id and the link's url"
    );
    state.stands(Status::Configuration, text.clone());
    auth::raise(state, otahost_adapter::Level::Error, "configuration", &text)
}
