//! The token dance. An access token lives 15 minutes, a refresh token is good for one use, and a refresh with any but the last one logs
//! the device out: the cloud takes it for a second login. So one refresh at a time, however many requests were refused, never sent
//! twice; and where its answer is lost, or it is refused, one sign-in with the stored account, at most once an hour.
//!
//! The tokens themselves are the host's. What is kept here is what is under way.

use otahost_adapter::effects::{alert, cancel_timer, fetch, retry, timer};
use otahost_adapter::{Effect, Fetch, FetchResult, Level, RetryDecision, View};
use serde_json::json;

use crate::config::{self, ACCESS_TOKEN, Config, REFRESH_TOKEN};
use crate::errand;
use crate::pace;
use crate::state::{Auth, State, Status};
use crate::wire;

/// Goes on when a request for tokens has no end, or may be sent again.
pub(crate) const TIMER: &str = "auth";
/// Allows the next sign-in.
pub(crate) const HOUR_TIMER: &str = "sign-in";
/// What the tag of a refresh begins with.
pub(crate) const REFRESH: &str = "refresh";
/// What the tag of a sign-in begins with.
pub(crate) const SIGN_IN: &str = "sign-in";
/// At least so long between two sign-ins, in milliseconds.
pub const HOUR: u64 = 3_600_000;
/// The longest that the server may keep off a sign-in, in milliseconds.
const HOUR_MAX: u64 = 24 * HOUR;
/// The longest wait with a refresh that was put off, in milliseconds.
const PUT_OFF_MAX: u64 = HOUR;
/// A request for tokens without any outcome is lost after so long, in milliseconds.
const WATCH: u64 = 300_000;
/// How long an answer with tokens is waited for, in milliseconds: the host waits 30 s for what we say of a failed attempt.
const TIMEOUT: u64 = 20_000;
/// An attempt goes on after this time, in milliseconds, while a sign-in is under way.
pub(crate) const WHILE_SIGNING_IN: u64 = 20_000;

/// What is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// The cloud refused the access token.
    Refresh,
    /// There is no access token.
    SignIn,
}

/// True for the reason of a request that the host did not send because the vault lacks a secret. The host's own text: no server's is
/// in it.
pub fn is_no_secret(reason: &str) -> bool {
    reason.contains("no-secret:")
}

/// Asks for tokens, where nobody does already.
pub fn renew(state: &mut State, need: Need, config: &Config, view: &dyn View) -> Vec<Effect> {
    match (&state.auth, need) {
        (Auth::Ready, Need::Refresh) => refresh(state, config),
        (Auth::Ready, Need::SignIn) => sign_in(state, "the vault holds no token", config, view),
        _ => Vec::new(),
    }
}

fn refresh(state: &mut State, config: &Config) -> Vec<Effect> {
    let number = state.number();
    state.auth = Auth::Refreshing(number);
    let request = fetch(
        &errand::tag(REFRESH, number),
        &config.link,
        "POST",
        &config::refresh(),
    )
    .json(&json!({ "refresh_token": format!("{{secret:{REFRESH_TOKEN}}}") }));
    vec![for_tokens(request), timer(TIMER, WATCH)]
}

/// Signs in, or waits for the hour to end.
fn sign_in(state: &mut State, why: &str, config: &Config, view: &dyn View) -> Vec<Effect> {
    if state.signed_in_lately {
        return lock(state, why);
    }
    view.log(Level::Info, &format!("signing in: {why}"));
    let number = state.number();
    state.auth = Auth::SigningIn(number);
    state.signed_in_lately = true;
    let mut request = fetch(
        &errand::tag(SIGN_IN, number),
        &config.link,
        "POST",
        &config::sign_in(),
    )
    .header("content-type", "application/x-www-form-urlencoded");
    request.body = config::sign_in_form().into_bytes();
    vec![
        for_tokens(request),
        timer(TIMER, WATCH),
        timer(HOUR_TIMER, HOUR),
    ]
}

fn for_tokens(request: Fetch) -> Effect {
    request
        .capture(&format!("/{ACCESS_TOKEN}"), ACCESS_TOKEN)
        .capture(&format!("/{REFRESH_TOKEN}"), REFRESH_TOKEN)
        .timeout(TIMEOUT)
        .once()
}

/// How a request for tokens ended.
enum Tokens {
    New,
    Refused(String),
    Lost(String),
    Later(Option<u64>, String),
    NoSecret,
}

fn read(outcome: &FetchResult) -> Tokens {
    match outcome {
        FetchResult::Answered(answer) => {
            let words = wire::words(answer.status, &answer.body);
            match answer.status {
                200..=299 if wire::is_object(&answer.body) => Tokens::New,
                // The server says that it did not do it. After any other failure it may have changed the token.
                429 | 503 => Tokens::Later(wire::retry_after(answer), words),
                400..=407 | 409..=499 => Tokens::Refused(words),
                200..=299 => Tokens::Lost(format!("{words}, without tokens")),
                _ => Tokens::Lost(words),
            }
        }
        FetchResult::Failed(why) if is_no_secret(why) => Tokens::NoSecret,
        FetchResult::Failed(why) => Tokens::Lost(wire::shown(why)),
        FetchResult::Interrupted => Tokens::Lost("the agent was interrupted".into()),
    }
}

/// A refresh ended.
pub fn on_refreshed(
    state: &mut State,
    number: u64,
    outcome: &FetchResult,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    if state.auth != Auth::Refreshing(number) {
        return Vec::new();
    }
    match read(outcome) {
        Tokens::New => renewed(state, config, view),
        Tokens::Later(asked, words) => {
            let wait = pace::after_failures(state.put_off.saturating_add(1), asked, view);
            state.put_off = state.put_off.saturating_add(1);
            state.auth = Auth::PutOff;
            state.stands(Status::Unreachable, format!("the refresh: {words}"));
            let wait = wait.min(PUT_OFF_MAX);
            let mut effects = vec![timer(TIMER, wait)];
            effects.extend(answer_attempt(state, RetryDecision::After(wait)));
            effects
        }
        Tokens::Refused(words) => sign_in_instead(
            state,
            &format!("the refresh is refused ({words})"),
            config,
            view,
        ),
        Tokens::Lost(words) => sign_in_instead(
            state,
            &format!("the answer to the refresh is lost ({words})"),
            config,
            view,
        ),
        Tokens::NoSecret => {
            sign_in_instead(state, "the vault holds no refresh token", config, view)
        }
    }
}

fn sign_in_instead(state: &mut State, why: &str, config: &Config, view: &dyn View) -> Vec<Effect> {
    let mut effects = sign_in(state, why, config, view);
    // The host waits only so long for what we say of an attempt: the next one finds the new tokens, or is refused again.
    effects.extend(answer_attempt(
        state,
        RetryDecision::After(WHILE_SIGNING_IN),
    ));
    effects
}

/// A sign-in ended.
pub fn on_signed_in(
    state: &mut State,
    number: u64,
    outcome: &FetchResult,
    config: &Config,
    view: &dyn View,
) -> Vec<Effect> {
    if state.auth != Auth::SigningIn(number) {
        return Vec::new();
    }
    match read(outcome) {
        Tokens::New => renewed(state, config, view),
        Tokens::Refused(words) => stop(
            state,
            &format!("the cloud refuses the stored account ({words})"),
            view,
        ),
        Tokens::NoSecret => stop(
            state,
            "no account is stored; give the link the secrets account_user and account_password",
            view,
        ),
        Tokens::Lost(words) => lock(state, &format!("the sign-in failed ({words})")),
        Tokens::Later(asked, words) => {
            let mut effects = lock(state, &format!("the sign-in is put off ({words})"));
            if let Some(asked) = asked.filter(|asked| *asked > HOUR) {
                effects.push(timer(HOUR_TIMER, pace::at_least(asked.min(HOUR_MAX), view)));
            }
            effects
        }
    }
}

/// Nobody said how a request for tokens ended, or a refresh that was put off is due.
pub fn on_timer(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    let lost = FetchResult::Failed("no outcome".into());
    match state.auth {
        Auth::PutOff => refresh(state, config),
        Auth::Refreshing(number) => on_refreshed(state, number, &lost, config, view),
        Auth::SigningIn(number) => on_signed_in(state, number, &lost, config, view),
        Auth::Ready | Auth::Locked | Auth::Stopped => Vec::new(),
    }
}

/// An hour has passed since the last sign-in.
pub fn on_hour(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    state.signed_in_lately = false;
    if state.auth == Auth::Locked {
        return sign_in(
            state,
            "the hour since the last sign-in is over",
            config,
            view,
        );
    }
    Vec::new()
}

/// The adapter starts: an account that was refused may have been put right meanwhile, and new tokens have grown old.
pub fn on_start(state: &mut State) {
    state.renewed_for = None;
    if state.auth == Auth::Stopped {
        state.auth = Auth::Ready;
    }
}

/// There are new tokens: everybody who waits goes on.
fn renewed(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    state.auth = Auth::Ready;
    state.tokens = state.tokens.wrapping_add(1);
    state.put_off = 0;
    for code in ["logged-out", "sign-in-refused"] {
        state.raised.remove(code);
    }
    let mut effects = vec![cancel_timer(TIMER)];
    if let Some(attempt) = state.attempt.take() {
        effects.push(retry(
            &attempt.job,
            attempt.install,
            RetryDecision::After(0),
        ));
        state.renewed_for = Some(attempt);
    }
    effects.extend(errand::resume(state, config, view));
    effects
}

/// Logged out until the hour is over.
fn lock(state: &mut State, why: &str) -> Vec<Effect> {
    state.auth = Auth::Locked;
    let text = format!("logged out: {why}; the next sign-in is an hour after the last one");
    state.stands(Status::LoggedOut, text.clone());
    let mut effects = vec![cancel_timer(TIMER)];
    effects.extend(raise(state, Level::Warn, "logged-out", &text));
    effects.extend(answer_attempt(state, RetryDecision::Stop(text)));
    effects
}

/// Logged out until somebody has looked.
fn stop(state: &mut State, why: &str, view: &dyn View) -> Vec<Effect> {
    state.auth = Auth::Stopped;
    let text = format!("logged out: {why}; nothing is tried again before the next start");
    state.stands(Status::SignInRefused, text.clone());
    let mut effects = vec![cancel_timer(TIMER)];
    effects.extend(raise(state, Level::Error, "sign-in-refused", &text));
    effects.extend(answer_attempt(state, RetryDecision::Stop(text)));
    effects.extend(errand::give_up_waiting(state, view));
    effects
}

fn answer_attempt(state: &mut State, decision: RetryDecision) -> Option<Effect> {
    let attempt = state.attempt.take()?;
    Some(retry(&attempt.job, attempt.install, decision))
}

/// An alert, unless its cause is known already.
pub(crate) fn raise(state: &mut State, level: Level, code: &str, text: &str) -> Option<Effect> {
    state
        .raised
        .insert(code.to_owned())
        .then(|| alert(level, code, text))
}
