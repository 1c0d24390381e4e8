//! The result: the last `ota_progress` of an update, told until the cloud says that it has it.
//!
//! The broker having it is not enough. A known cloud subscribes to a gateway's events only after that gateway announced itself, so
//! a result from just after the reboot reaches the broker and nobody else. It is told again with the same ids and values until its
//! `events_reply` comes, after ever longer waits, over reboots, and in the end no more. Nothing ever waits for that reply.

use otahost_adapter::effects::{cancel_timer, publish, timer};
use otahost_adapter::{Effect, Level, Publication, View};

use crate::config::Config;
use crate::progress::METHOD;
use crate::state::{Ending, State};
use crate::wire::{Inbound, Outbound, result_of};

/// The timer that tells results again.
pub(crate) const TIMER: &str = "result";
/// The first wait for a reply, in milliseconds. Each one after it is twice as long.
const FIRST: u64 = 5_000;
/// The longest wait, in milliseconds.
const LONGEST: u64 = 300_000;
/// The wait after the link came up, in milliseconds: whoever announces the gateway shall be first.
const SETTLE: u64 = 1_000;
/// How often a result is told in all: a day long while the link is up. Counted and not timed, because the clock of a device
/// without a battery may jump by fifty years.
pub(crate) const SENDS_MAX: u16 = 294;

/// An update ended: tells it for the first time, and remembers it.
pub fn tell(state: &mut State, ending: Ending, config: &Config) -> Vec<Effect> {
    let mut effects = vec![repeat(&ending, config)];
    state.remember(ending);
    effects.extend(wait(state, FIRST));
    effects
}

/// The host reports the same end again: says the same again.
pub fn repeat(ending: &Ending, config: &Config) -> Effect {
    event(ending, config).durable()
}

/// Somebody may listen now who did not before: the link came up, or this adapter starts beside one that is.
pub fn on_link_up(state: &mut State) -> Vec<Effect> {
    state.down = false;
    wait(state, SETTLE)
}

/// The link went down, or the device comes from a boot: what is told again waits for the link, and nothing is counted.
pub fn on_link_down(state: &mut State) -> Vec<Effect> {
    state.down = true;
    if is_owed(state) {
        vec![cancel_timer(TIMER)]
    } else {
        Vec::new()
    }
}

/// Sets the timer where an answer is due, as if this were the first wait.
fn wait(state: &mut State, first: u64) -> Vec<Effect> {
    if state.down || !is_owed(state) {
        return Vec::new();
    }
    state.told_again = u8::from(first == FIRST);
    vec![timer(TIMER, first)]
}

fn is_owed(state: &State) -> bool {
    state.endings.iter().any(|e| e.unanswered.is_some())
}

/// The wait is over, or the cloud has just accepted the gateway: tells every result that has no answer, the oldest first.
///
/// Not while another update is under way: a known cloud takes a result for the end of whatever it shows. The end of that update
/// brings this back.
pub fn tell_again(state: &mut State, config: &Config, view: &dyn View) -> Vec<Effect> {
    if !is_owed(state) || state.down || view.active_jobs().iter().any(|job| !job.foreign) {
        return Vec::new();
    }
    let mut effects = Vec::new();
    for ending in &mut state.endings {
        let Some(sends) = ending.unanswered else {
            continue;
        };
        if sends >= SENDS_MAX {
            ending.unanswered = None;
            view.log(
                Level::Warn,
                &format!("a result was told {sends} times and never answered; it is told no more"),
            );
            continue;
        }
        ending.unanswered = Some(sends + 1);
        // The first one is on its way for good; these are copies, of which one at a time is enough.
        effects.push(event(ending, config).latest(&format!("{TIMER} {}", ending.tid)));
    }
    if is_owed(state) {
        effects.push(timer(TIMER, wait_after(state.told_again)));
        state.told_again = state.told_again.saturating_add(1).min(MOST_DOUBLINGS);
    }
    effects
}

/// From so many doublings on, a wait is the longest.
const MOST_DOUBLINGS: u8 = 6;

fn wait_after(told_again: u8) -> u64 {
    (FIRST << told_again.min(MOST_DOUBLINGS)).min(LONGEST)
}

/// The cloud answers an event. Whatever it thinks of it, it has it.
pub fn on_events_reply(state: &mut State, reply: &Inbound, view: &dyn View) -> Vec<Effect> {
    let result = result_of(&reply.data);
    if result != 0 {
        view.log(
            Level::Warn,
            &format!("the cloud answers an event with result {result}"),
        );
    }
    let answered = state
        .endings
        .iter_mut()
        .find(|e| e.tid == reply.tid && e.unanswered.is_some());
    let Some(ending) = answered else {
        return Vec::new();
    };
    ending.unanswered = None;
    if is_owed(state) {
        Vec::new()
    } else {
        vec![cancel_timer(TIMER)]
    }
}

fn event(ending: &Ending, config: &Config) -> Publication {
    let message = Outbound {
        tid: &ending.tid,
        bid: &ending.bid,
        timestamp: ending.timestamp,
        gateway: &config.gateway_sn,
        method: Some(METHOD),
        need_reply: Some(1),
        data: config.dialect().progress(ending.standing, ending.code),
    };
    publish(&config.link, &config.events()).payload(message.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_double_from_five_seconds_to_five_minutes_and_fill_a_day() {
        let first: Vec<_> = (0..8).map(wait_after).collect();
        assert_eq!(
            first,
            [
                5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000
            ]
        );
        assert_eq!(wait_after(u8::MAX), LONGEST);
        let day: u64 = (0..SENDS_MAX - 1)
            .map(|n| wait_after(u8::try_from(n).unwrap_or(u8::MAX)))
            .sum();
        let hours = 3_600_000;
        assert!((24 * hours..25 * hours).contains(&day), "{day} ms");
    }
}
