//! Maintenance windows: the times of the week in which a target may be updated.
//!
//! All times are UTC. A device has no time zone that can be relied on, and in local time a window of an hour would be missing on
//! one night of the year and come twice on another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{Instant, Millis};

/// Most windows of a target.
pub const MAX_WINDOWS: usize = 32;

const MINUTE: Millis = 60_000;
const DAY: Millis = 24 * 60 * MINUTE;
const DAY_MINUTES: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A span of time that comes again every week, written as `mon-fri 02:00-04:00`.
///
/// Days are single or from-to, with commas between; without any it is every day. A window whose end is before its
/// beginning ends on the following day: `sat 22:00-06:00` is open until Sunday, six o'clock. `24:00` is the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    /// Days on which it opens; bit 0 is Monday. At least one.
    days: u8,
    /// Minute of the day at which it opens.
    start: u16,
    /// Minutes it is open, 1 to 1440.
    length: u16,
}

/// Why a text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Not days, a space, and two times.
    #[error("it is not days and two times, as `mon-fri 02:00-04:00` is")]
    Form,
    /// Something else where a day should be.
    #[error("`{0}` is no day; the days are mon, tue, wed, thu, fri, sat and sun")]
    Day(String),
    /// Something else where a time should be.
    #[error(
        "`{0}` is no time of day; write it from `00:00` to `23:59`, or `24:00` for the end of the day"
    )]
    Time(String),
    /// Begins and ends at the same minute.
    #[error("it ends when it begins; a whole day is `00:00-24:00`")]
    Empty,
}

/// Whether it is the time, and when that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It is.
    Open {
        /// The first moment at which it no longer is.
        until: Instant,
    },
    /// It is not.
    Closed {
        /// The first moment at which it will be.
        opens: Instant,
    },
}

impl Window {
    /// Whether this window is open, and when it closes or opens next.
    pub fn next_open(&self, now: Instant) -> Opening {
        opening(std::slice::from_ref(self), now).expect("there is a window")
    }

    fn opens_on(&self, day: u64) -> bool {
        // Day 0 of the epoch, 1 January 1970, was a Thursday.
        self.days >> ((day % 7 + 3) % 7) & 1 == 1
    }

    fn start_on(&self, day: u64) -> Instant {
        day.saturating_mul(DAY)
            .saturating_add(u64::from(self.start) * MINUTE)
    }

    fn open_until(&self, now: Instant) -> Option<Instant> {
        let today = now / DAY;
        // It may have opened yesterday and run over midnight.
        [today.checked_sub(1), Some(today)]
            .into_iter()
            .flatten()
            .filter(|day| self.opens_on(*day))
            .find_map(|day| {
                let start = self.start_on(day);
                let end = start.saturating_add(u64::from(self.length) * MINUTE);
                (start <= now && now < end).then_some(end)
            })
    }

    fn opens_after(&self, now: Instant) -> Instant {
        let today = now / DAY;
        (today..=today.saturating_add(7))
            .filter(|day| self.opens_on(*day))
            .map(|day| self.start_on(day))
            .find(|start| *start > now)
            // Only at the very end of time.
            .unwrap_or(Instant::MAX)
    }
}

/// Whether one of these windows is open, and when the last of them closes or the first opens; `None` without any window. Windows
/// that touch are one. Windows that leave no gap at all are open for at least a week, again and again.
pub fn opening(windows: &[Window], now: Instant) -> Option<Opening> {
    let open_until = |at| windows.iter().filter_map(|w| w.open_until(at)).max();
    let Some(mut until) = open_until(now) else {
        let opens = windows.iter().map(|w| w.opens_after(now)).min()?;
        return Some(Opening::Closed { opens });
    };
    while until < now.saturating_add(7 * DAY)
        && let Some(later) = open_until(until)
    {
        until = later;
    }
    Some(Opening::Open { until })
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let text = text.trim();
        // No day has a digit, and every time begins with one.
        let at = text
            .find(|c: char| c.is_ascii_digit())
            .ok_or(WindowError::Form)?;
        let (days, times) = text.split_at(at);
        let (start, end) = times.split_once('-').ok_or(WindowError::Form)?;
        let days = match days.trim_end() {
            "" => 0b111_1111,
            trimmed if trimmed.len() < days.len() => parse_days(trimmed)?,
            _ => return Err(WindowError::Form),
        };
        let (start, end) = (start.trim(), end.trim());
        let (from, to) = (minute(start)?, minute(end)?);
        if from == DAY_MINUTES {
            return Err(WindowError::Time(quoted(start)));
        }
        let length = match from.cmp(&to) {
            std::cmp::Ordering::Less => to - from,
            std::cmp::Ordering::Equal => return Err(WindowError::Empty),
            std::cmp::Ordering::Greater => DAY_MINUTES - from + to,
        };
        Ok(Window {
            days,
            start: from,
            length,
        })
    }
}

fn parse_days(text: &str) -> Result<u8, WindowError> {
    let day = |text: &str| {
        let text = text.trim();
        DAYS.iter()
            .position(|day| day.eq_ignore_ascii_case(text))
            .ok_or_else(|| WindowError::Day(quoted(text)))
    };
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        let mut at = first;
        days |= 1 << at;
        // `sat-mon` goes over the end of the week.
        while at != last {
            at = (at + 1) % 7;
            days |= 1 << at;
        }
    }
    Ok(days)
}

fn minute(text: &str) -> Result<u16, WindowError> {
    let read = || {
        let (hours, minutes) = text.split_once(':')?;
        let two_digits = |n: &str| {
            (n.len() == 2 && n.bytes().all(|b| b.is_ascii_digit())).then(|| n.parse::<u16>().ok())
        };
        let (hours, minutes) = (two_digits(hours)??, two_digits(minutes)??);
        let minute = hours * 60 + minutes;
        (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
    };
    read().ok_or_else(|| WindowError::Time(quoted(text)))
}

fn quoted(text: &str) -> String {
    text.chars()
        .take(20)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != 0b111_1111 {
            let mut runs: Vec<(usize, usize)> = Vec::new();
            for day in (0..DAYS.len()).filter(|day| self.days >> day & 1 == 1) {
                match runs.last_mut() {
                    Some((_, last)) if *last + 1 == day => *last = day,
                    _ => runs.push((day, day)),
                }
            }
            for (i, (first, last)) in runs.into_iter().enumerate() {
                let comma = if i == 0 { "" } else { "," };
                match last - first {
                    0 => write!(f, "{comma}{}", DAYS[first])?,
                    _ => write!(f, "{comma}{}-{}", DAYS[first], DAYS[last])?,
                }
            }
            f.write_str(" ")?;
        }
        let end = match self.start + self.length {
            end if end > DAY_MINUTES => end - DAY_MINUTES,
            end => end,
        };
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            self.start / 60,
            self.start % 60,
            end / 60,
            end % 60
        )
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}

impl TryFrom<String> for Window {
    type Error = WindowError;

    fn try_from(text: String) -> Result<Self, WindowError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    /// Monday, 3 August 2026, 00:00 UTC.
    const MONDAY: Instant = 1_785_715_200_000;

    fn at(day: u64, hour: u64, minute: u64) -> Instant {
        MONDAY + day * DAY + (hour * 60 + minute) * MINUTE
    }

    fn window(text: &str) -> Window {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn open(until: Instant) -> Opening {
        Opening::Open { until }
    }

    fn closed(opens: Instant) -> Opening {
        Opening::Closed { opens }
    }

    #[test]
    fn a_window_is_open_from_its_first_minute_until_just_before_its_last() {
        let (nightly, working) = ("02:00-04:00", "mon-fri 02:00-04:00");
        let weekend = "sat,sun 22:00-06:00";
        for (text, now, expected) in [
            (nightly, at(0, 2, 0) - 1, closed(at(0, 2, 0))),
            (nightly, at(0, 2, 0), open(at(0, 4, 0))),
            (nightly, at(0, 4, 0) - 1, open(at(0, 4, 0))),
            (nightly, at(0, 4, 0), closed(at(1, 2, 0))),
            (working, at(4, 3, 0), open(at(4, 4, 0))),
            (working, at(4, 5, 0), closed(at(7, 2, 0))),
            (working, at(5, 3, 0), closed(at(7, 2, 0))),
            // Over midnight, and over the end of the week; the day is that on which it opens.
            (weekend, at(5, 3, 0), closed(at(5, 22, 0))),
            (weekend, at(5, 23, 0), open(at(6, 6, 0))),
            (weekend, at(6, 5, 59), open(at(6, 6, 0))),
            (weekend, at(6, 6, 0), closed(at(6, 22, 0))),
            (weekend, at(7, 5, 0), open(at(7, 6, 0))),
            (weekend, at(7, 22, 0), closed(at(12, 22, 0))),
            // Once a week: the next one is a week away.
            ("mon 00:00-00:01", at(0, 0, 1), closed(at(7, 0, 0))),
            ("sun 00:00-24:00", at(6, 23, 59), open(at(7, 0, 0))),
            ("thu 10:00-11:00", 0, closed(10 * 60 * MINUTE)),
            ("wed 22:00-02:00", 0, closed(6 * DAY + 22 * 60 * MINUTE)),
        ] {
            assert_eq!(window(text).next_open(now), expected, "{text} at {now}");
        }
    }

    #[test]
    fn days_and_times_can_be_written_in_several_ways() {
        for (text, same) in [
            ("  Mon-FRI   02:00 - 04:00 ", "mon-fri 02:00-04:00"),
            ("mon, tue,wed 01:00-02:00", "mon-wed 01:00-02:00"),
            ("sat-mon 01:00-02:00", "mon,sat-sun 01:00-02:00"),
            ("mon-sun 01:00-02:00", "01:00-02:00"),
            ("tue-mon 01:00-02:00", "01:00-02:00"),
            ("fri-fri 01:00-02:00", "fri 01:00-02:00"),
            ("22:00-00:00", "22:00-24:00"),
        ] {
            assert_eq!(window(text).to_string(), same, "{text}");
            assert_eq!(window(text), window(same), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_window_is_said_in_words() {
        for (text, words) in [
            ("", "days and two times"),
            ("mon-fri", "days and two times"),
            ("02:00", "days and two times"),
            ("mon02:00-04:00", "days and two times"),
            ("mo 02:00-04:00", "`mo` is no day"),
            ("mon-fry 02:00-04:00", "`fry` is no day"),
            ("mon tue 02:00-04:00", "`mon tue` is no day"),
            ("mon, 02:00-04:00", "`` is no day"),
            ("2:00-04:00", "`2:00` is no time"),
            ("02:60-04:00", "`02:60` is no time"),
            ("02:00-24:01", "`24:01` is no time"),
            ("24:00-02:00", "`24:00` is no time"),
            ("02:00-4pm", "`4pm` is no time"),
            ("02:00-04:00 mon", "`04:00 mon` is no time"),
            ("02:00-04:00-06:00", "`04:00-06:00` is no time"),
            ("+2:00-04:00", "days and two times"),
            ("03:00-03:00", "ends when it begins"),
        ] {
            let error = text.parse::<Window>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn windows_that_touch_or_overlap_are_one() {
        let all = |texts: &[&str]| texts.iter().map(|t| window(t)).collect::<Vec<_>>();
        assert_eq!(opening(&[], MONDAY), None);
        let night = all(&["mon 22:00-24:00", "tue 00:00-04:00", "tue 03:00-05:00"]);
        assert_eq!(opening(&night, at(0, 23, 0)), Some(open(at(1, 5, 0))));
        assert_eq!(opening(&night, at(1, 5, 0)), Some(closed(at(7, 22, 0))));
        let apart = all(&["wed 01:00-02:00", "tue 01:00-02:00"]);
        assert_eq!(opening(&apart, MONDAY), Some(closed(at(1, 1, 0))));
        let always = all(&["00:00-24:00"]);
        let Some(Opening::Open { until }) = opening(&always, at(0, 1, 0)) else {
            panic!("never closed");
        };
        assert!(until >= at(7, 1, 0));
    }

    #[test]
    fn a_window_is_kept_as_the_text_it_was_written_as() {
        let json = serde_json::to_string(&window("sat,sun 22:00-06:00")).unwrap();
        assert_eq!(json, "\"sat-sun 22:00-06:00\"");
        assert_eq!(
            serde_json::from_str::<Window>(&json).unwrap(),
            window("sat,sun 22:00-06:00")
        );
        assert!(serde_json::from_str::<Window>("\"sat\"").is_err());
    }

    fn any_window() -> impl Strategy<Value = Window> {
        (1u8..128, 0u16..DAY_MINUTES, 1u16..=DAY_MINUTES).prop_map(|(days, start, length)| {
            // A whole day is only written from midnight on.
            let length = if start == 0 {
                length
            } else {
                length.min(DAY_MINUTES - 1)
            };
            Window {
                days,
                start,
                length,
            }
        })
    }

    /// The definition, minute by minute: open in so many minutes after a Monday's midnight.
    fn is_open(window: &Window, minute: u64) -> bool {
        (minute.saturating_sub(u64::from(DAY_MINUTES))..=minute).any(|start| {
            let day = start / 1440 % 7;
            start % 1440 == u64::from(window.start)
                && window.days & (1 << day) != 0
                && minute - start < u64::from(window.length)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn windows_open_and_close_when_the_definition_says(windows in prop::collection::vec(any_window(), 1..4), minute in 1440u64..1440 * 8) {
            let now = MONDAY + minute * MINUTE;
            let any_open = |minute| windows.iter().any(|w| is_open(w, minute));
            match opening(&windows, now) {
                Some(Opening::Open { until }) => {
                    let end = (until - MONDAY) / MINUTE;
                    prop_assert!(any_open(minute) && any_open(end - 1));
                    prop_assert!(!any_open(end) || until >= now + 7 * DAY);
                }
                Some(Opening::Closed { opens }) => {
                    let first = (opens - MONDAY) / MINUTE;
                    prop_assert!(opens > now && any_open(first));
                    for closed in [minute, first - 1, u64::midpoint(minute, first - 1)] {
                        prop_assert!(!any_open(closed));
                    }
                }
                None => prop_assert!(false, "there are windows"),
            }
        }
    }

    proptest! {
        #[test]
        fn a_window_reads_back_as_it_is_shown(window in any_window()) {
            prop_assert_eq!(window.to_string().parse(), Ok(window));
        }

        #[test]
        fn no_text_and_no_time_makes_a_window_panic(text in "[a-z,: 0-9é-]{0,24}|\\PC{0,24}", now: u64, windows in prop::collection::vec(any_window(), 0..4)) {
            let _ = text.parse::<Window>();
            for now in [now, 0, u64::MAX, u64::MAX - 1] {
                let _ = opening(&windows, now);
                windows.iter().for_each(|w| { w.next_open(now); });
            }
        }
    }
}
