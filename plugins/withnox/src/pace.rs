//! Waits: spread, so that a fleet that lost its power together does not come back together, and ever longer after failures.

use otahost_adapter::View;

use crate::config::POLL_MIN;

/// After a start, or when something has changed: at least so long, at most twice that, in milliseconds.
const SOON: u64 = 60_000;
/// The first wait after a failure, in milliseconds. Each one after it is twice as long.
const FIRST: u64 = 60_000;
/// The longest wait after failures that may end by themselves, in milliseconds.
const LONGEST: u64 = 6 * 3_600_000;
/// The wait where a person has to do something first, in milliseconds.
const SLOW: u64 = 24 * 3_600_000;
/// The longest wait that a server may ask for, in milliseconds.
const ASKED_MAX: u64 = 24 * 3_600_000;

/// A number from 0 to `below` (exclusive), from the step's seed.
fn random(below: u64, view: &dyn View) -> u64 {
    let number = view
        .random(8)
        .iter()
        .fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    number % below.max(1)
}

/// This wait, a fifth more or less, and never below a minute.
pub fn spread(wait: u64, view: &dyn View) -> u64 {
    let fifth = wait / 5;
    (wait - fifth)
        .saturating_add(random(2 * fifth + 1, view))
        .max(POLL_MIN)
}

/// One to two minutes.
pub fn soon(view: &dyn View) -> u64 {
    SOON + random(SOON, view)
}

/// A day, a fifth more or less.
pub fn slow(view: &dyn View) -> u64 {
    spread(SLOW, view)
}

/// The wait after so many failures in a row; what the server asked for counts where it is longer, up to a day.
pub fn after_failures(failures: u8, asked: Option<u64>, view: &dyn View) -> u64 {
    let wait = spread(doubled(FIRST, failures.saturating_sub(1), LONGEST), view);
    match asked.map(|asked| asked.min(ASKED_MAX)) {
        // Never earlier than asked for, and not all at the same moment either.
        Some(asked) if asked > wait => asked + random(asked / 5 + 1, view),
        _ => wait,
    }
}

/// `first`, doubled so often, at most `longest`.
pub fn doubled(first: u64, times: u8, longest: u64) -> u64 {
    first
        .checked_shl(u32::from(times.min(30)))
        .unwrap_or(longest)
        .min(longest)
}

/// This wait or up to a fifth more.
pub fn at_least(wait: u64, view: &dyn View) -> u64 {
    wait.saturating_add(random(wait / 5 + 1, view))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<_> = (0..12)
            .map(|n| doubled(FIRST, n, LONGEST) / 60_000)
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]);
        assert_eq!(doubled(FIRST, u8::MAX, LONGEST), LONGEST);
    }
}
