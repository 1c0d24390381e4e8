//! Timers of adapters. They run on tokio's clock and are kept by the boot-time clock; a reboot counts the span anew, because
//! how long the device was off nobody knows.

use std::collections::BTreeMap;
use std::time::Duration;

use otahost_core::model::{Event, Timer};
use otahost_journal::{Change, Key, json};
use tokio::time::Instant;

use super::Engine;
use super::rows::TimerRow;
use super::steps::{Origin, Queued};

/// Most timers of one adapter.
pub(super) const MAX_TIMERS: usize = 100;
/// Longest span: 400 days.
const MAX_SPAN: u64 = 400 * 24 * 3_600 * 1_000;

#[derive(Debug)]
struct Running {
    due: Instant,
    period: Option<u64>,
}

/// The timers of all adapters.
#[derive(Debug, Default)]
pub(super) struct Timers {
    running: BTreeMap<(String, String), Running>,
}

impl Timers {
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.running.values().map(|r| r.due).min()
    }

    pub(super) fn count(&self, adapter: &str) -> usize {
        self.running.keys().filter(|(a, _)| a == adapter).count()
    }

    /// Those of one adapter: name, milliseconds until it is due, and period.
    pub(super) fn of<'a>(
        &'a self,
        adapter: &'a str,
    ) -> impl Iterator<Item = (&'a str, u64, Option<u64>)> {
        let now = Instant::now();
        let mine = self.running.iter().filter(move |((a, _), _)| a == adapter);
        mine.map(move |((_, name), running)| {
            let due_in = running.due.saturating_duration_since(now).as_millis();
            let due_in = u64::try_from(due_in).unwrap_or(u64::MAX);
            (name.as_str(), due_in, running.period)
        })
    }

    pub(super) fn contains(&self, adapter: &str, name: &str) -> bool {
        self.running
            .contains_key(&(adapter.to_owned(), name.to_owned()))
    }
}

impl Engine {
    /// Sets a timer; the row to keep it by.
    pub(super) fn set_timer(&mut self, adapter: &str, timer: &Timer) -> Change {
        let after = timer.after.clamp(100, MAX_SPAN);
        let period = timer.period.map(|p| p.clamp(1_000, MAX_SPAN));
        let due = Instant::now() + Duration::from_millis(after);
        self.timers.running.insert(
            (adapter.to_owned(), timer.name.clone()),
            Running { due, period },
        );
        let due = self.platform.outside.uptime().saturating_add(after);
        let row = TimerRow {
            boot_id: self.boot_id.clone(),
            due,
            after,
            period,
        };
        Change::Put(
            Key::Timer {
                adapter: adapter.to_owned(),
                name: timer.name.clone(),
            },
            json(&row),
        )
    }

    /// Forgets a timer, also one that is due and waits for its adapter; the row to delete, if there was one.
    pub(super) fn cancel_timer(&mut self, adapter: &str, name: &str) -> Option<Change> {
        let ran = self
            .timers
            .running
            .remove(&(adapter.to_owned(), name.to_owned()))
            .is_some();
        let waited = self.forget_timer_event(adapter, name);
        (ran || waited).then(|| {
            Change::Delete(Key::Timer {
                adapter: adapter.to_owned(),
                name: name.to_owned(),
            })
        })
    }

    pub(super) fn restore_timer(&mut self, adapter: String, name: String, row: &TimerRow) {
        let span = if row.boot_id == self.boot_id {
            row.due
                .saturating_sub(self.platform.outside.uptime())
                .min(row.after.max(row.period.unwrap_or(0)))
        } else {
            row.period.unwrap_or(row.after)
        };
        let due = Instant::now() + Duration::from_millis(span.min(MAX_SPAN));
        self.timers.running.insert(
            (adapter, name),
            Running {
                due,
                period: row.period,
            },
        );
    }

    pub(super) fn fire_timers(&mut self, now: Instant) {
        let due: Vec<(String, String)> = self
            .timers
            .running
            .iter()
            .filter(|(_, r)| r.due <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for (adapter, name) in due {
            let key = (adapter.clone(), name.clone());
            let period = self.timers.running.get(&key).and_then(|r| r.period);
            let origin = match period {
                Some(period) => {
                    if let Some(running) = self.timers.running.get_mut(&key) {
                        // Missed periods are not made up for.
                        running.due = now + Duration::from_millis(period);
                    }
                    Origin::Memory
                }
                None => {
                    self.timers.running.remove(&key);
                    Origin::Timer(name.clone())
                }
            };
            self.queue(&adapter, Queued::new(Event::Timer(name), origin));
        }
    }
}
