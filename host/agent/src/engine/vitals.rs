//! What keeps an agent that is in trouble useful: the count of quick crashes that leads to safe mode, and a wall clock that does not go
//! back to 1970.
//!
//! In safe mode no adapter runs and no link connects; what was begun is confirmed or rolled back, and the command line works. It ends
//! with a boot, or with a restart after the agent has run for a while.

use std::time::Duration;

use otahost_core::model::{ClockQuality, Instant};
use otahost_journal::{Change, Key, json};

use super::Engine;
use super::rows::{StartsRow, TimeRow};

/// Starts in one boot, each soon after the one before, that make the next one a start in safe mode.
const QUICK_CRASHES: u32 = 3;
/// An agent that has run for so long does not crash quickly.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Least time between two notes of the wall clock. They ride on commits that are needed anyway.
const TIME_EVERY: u64 = 10 * 60 * 1_000;

const STARTS: &str = "starts";
const TIME: &str = "time";

/// The agent's own state of health.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    /// Too many quick crashes: no adapter runs.
    pub(super) safe_mode: bool,
    /// When the count of starts is set back.
    stable_at: Option<tokio::time::Instant>,
    /// A wall clock that nobody has set is never shown below this.
    floor: Instant,
}

impl Engine {
    pub(super) fn restore_time(&mut self, row: TimeRow) {
        self.vitals.floor = row.at;
    }

    /// Wall-clock time: as the clock says once it was set, and before that not below the last one that was trusted. A clock that was
    /// set wrongly and then right must not be held back by what it said before.
    pub(super) fn now(&self) -> Instant {
        let now = self.platform.outside.now();
        match self.platform.outside.clock() {
            ClockQuality::Synced => now,
            ClockQuality::Floor | ClockQuality::Unset => now.max(self.vitals.floor),
        }
    }

    /// A note of the time, when there has been none for a while and the clock can be trusted: a clock that is fifty years wrong must not
    /// become the floor.
    pub(super) fn note_time(&mut self) -> Option<Change> {
        let now = self.platform.outside.now();
        let due = now.abs_diff(self.vitals.floor) >= TIME_EVERY;
        if !due || self.platform.outside.clock() != ClockQuality::Synced {
            return None;
        }
        self.vitals.floor = now;
        Some(Change::Put(
            Key::Meta(TIME.into()),
            json(&TimeRow { at: now }),
        ))
    }

    pub(super) fn is_time(key: &str) -> bool {
        key == TIME
    }

    /// Counts this start and decides on safe mode. `before` is what the last start left.
    pub(super) fn count_start(&mut self, before: &StartsRow) {
        let process = self.platform.process.clone();
        let starts = match before {
            row if row.boot_id != self.boot_id => 1,
            row if row.process == process => row.starts,
            row => row.starts + 1,
        };
        self.vitals.safe_mode = starts > QUICK_CRASHES;
        if self.vitals.safe_mode {
            tracing::error!(
                starts,
                "safe mode: the agent ended {QUICK_CRASHES} times soon after its start; no adapter runs and no link connects. \
                 Confirming, rolling back and the command line work. Look at the log of the starts before; a restart after a minute, or a \
                 reboot, ends safe mode"
            );
        }
        self.vitals.stable_at = Some(tokio::time::Instant::now() + STABLE_AFTER);
        if *before
            != (StartsRow {
                boot_id: self.boot_id.clone(),
                process: process.clone(),
                starts,
            })
        {
            self.put_starts(process, starts);
        }
    }

    fn put_starts(&mut self, process: String, starts: u32) {
        let row = StartsRow {
            boot_id: self.boot_id.clone(),
            process,
            starts,
        };
        self.commit(
            vec![Change::Put(Key::Meta(STARTS.into()), json(&row))],
            Vec::new(),
        );
    }

    pub(super) fn next_vital(&self) -> Option<tokio::time::Instant> {
        self.vitals.stable_at
    }

    /// The agent has run for a while, or ends in good order: what was before is no crash.
    pub(super) fn is_well(&mut self) {
        if self.vitals.stable_at.take().is_some() {
            self.put_starts(self.platform.process.clone(), 0);
        }
    }

    pub(super) fn check_vitals(&mut self, now: tokio::time::Instant) {
        if self.vitals.stable_at.is_some_and(|at| at <= now) {
            self.is_well();
        }
    }

    pub(super) fn starts_key() -> Key {
        Key::Meta(STARTS.into())
    }
}
