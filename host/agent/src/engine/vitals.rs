//! What keeps an agent that is in trouble useful: the count of quick crashes that leads to safe mode, and a wall clock that does not go
//! back to 1970.
//!
//! A process that ends soon after its start may have been brought down by a version of an adapter, in a way that no limit of the sandbox
//! catches: so that is a strike against every version on probation, and the second one brings the former version back before the third
//! leads to safe mode. A power cut is no crash.
//!
//! In safe mode no adapter runs and no link connects; what was begun is confirmed or rolled back, and the command line works. It ends
//! with a boot, or with a restart after the agent has run for a while.

use std::time::Duration;

use otahost_core::model::{ClockQuality, Instant};
use otahost_journal::{Change, Key, from_json, json};

use super::Engine;
use super::rows::{AdapterRow, StartsRow, TimeRow};

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
    /// Starts in this boot, as kept.
    starts: u32,
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

    /// Counts this start and decides on safe mode. `before` is what the last start left. What it gives has to be durable before anything
    /// runs that might end the process again.
    pub(super) fn count_start(
        &mut self,
        before: &StartsRow,
        rows: &mut [(Key, Vec<u8>)],
    ) -> Vec<Change> {
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
        let mut changes = Vec::new();
        // Where the process before was in safe mode, no adapter ran in it.
        if (2..=QUICK_CRASHES + 1).contains(&starts) && before.process != process {
            changes = blame(rows);
        }
        let row = self.starts_row(starts);
        if *before != row {
            changes.push(Change::Put(Self::starts_key(), json(&row)));
        }
        changes
    }

    fn starts_row(&mut self, starts: u32) -> StartsRow {
        self.vitals.starts = starts;
        StartsRow {
            boot_id: self.boot_id.clone(),
            process: self.platform.process.clone(),
            starts,
        }
    }

    /// Something new runs in this process from now on: what it has run well until now says nothing of that.
    pub(super) fn watch_anew(&mut self) -> Option<Change> {
        self.vitals.stable_at = Some(tokio::time::Instant::now() + STABLE_AFTER);
        if self.vitals.starts > 0 {
            return None;
        }
        let row = self.starts_row(1);
        Some(Change::Put(Self::starts_key(), json(&row)))
    }

    pub(super) fn next_vital(&self) -> Option<tokio::time::Instant> {
        self.vitals.stable_at
    }

    /// The agent has run for a while, or ends in good order: what was before is no crash.
    pub(super) fn is_well(&mut self) {
        if self.vitals.stable_at.take().is_some() {
            let row = json(&self.starts_row(0));
            self.commit(vec![Change::Put(Self::starts_key(), row)], Vec::new());
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

/// A strike against each version that was on probation when the process ended; the rows are changed too.
fn blame(rows: &mut [(Key, Vec<u8>)]) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, value) in rows {
        let Key::Adapter(adapter) = &*key else {
            continue;
        };
        let Ok(mut row) = from_json::<AdapterRow>(key, value) else {
            continue;
        };
        let Some(strikes) = &mut row.versions.strikes else {
            continue;
        };
        *strikes += 1;
        tracing::error!(
            adapter,
            version = row.version,
            strikes,
            "the agent ended soon after its start while this version was on probation: a strike"
        );
        *value = json(&row);
        changes.push(Change::Put(key.clone(), value.clone()));
    }
    changes
}
