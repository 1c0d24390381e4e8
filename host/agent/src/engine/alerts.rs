//! Alerts on their way to the sinks: durable, merged by code, and few.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use otahost_core::model::{Alert, Instant, Level};
use otahost_journal::{Change, Key, json};
use serde::{Deserialize, Serialize};

use super::{Done, Engine, Release};
use crate::alerts::{Notice, level_word};

/// The name the host raises alerts under.
const HOST: &str = "otahost";
/// So long after an alert the same one is merged with it and not sent again.
const QUIET: u64 = 3_600 * 1_000;
/// Most alerts of one source in that time, whatever they say.
const MAX_RECENT: usize = 30;
/// Most alerts of one source that are kept, delivered or not.
const MAX_ALERTS: usize = 100;
/// After so many failures in a row an alert that a sink does not take is given up: with the waits below that is a week. Counted, and
/// not by the wall clock, because the network that an alert waits for is what sets the clock.
const GIVE_UP: u32 = 7 + 7 * 24;
/// Wait after the first failure of a sink; doubles.
const RETRY_FIRST: Duration = Duration::from_secs(30);
/// The longest wait.
const RETRY_MAX: Duration = Duration::from_secs(3_600);
/// Longest text, in characters: it may have to fit into short messages.
const MAX_TEXT: usize = 1_000;

/// An alert as the journal keeps it; delivered ones stay a while, so that what happens again is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AlertRow {
    pub source: String,
    pub alert: Alert,
    pub at: Instant,
    pub times: u32,
    /// The sinks that have not taken it.
    pub waiting: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Alerts {
    rows: BTreeMap<u64, AlertRow>,
    next: u64,
}

impl Engine {
    /// The host's own alert.
    pub(super) fn alert(
        &mut self,
        code: &str,
        text: String,
        changes: &mut Vec<Change>,
    ) -> Option<Release> {
        let alert = Alert {
            code: code.to_owned(),
            level: Level::Error,
            text,
        };
        self.raise(HOST, alert, changes)
    }

    /// Takes an alert in, or merges it with the one before.
    pub(super) fn raise(
        &mut self,
        source: &str,
        mut alert: Alert,
        changes: &mut Vec<Change>,
    ) -> Option<Release> {
        match alert.level {
            Level::Error => tracing::error!(source, code = alert.code, "alert: {}", alert.text),
            _ => tracing::warn!(source, code = alert.code, "alert: {}", alert.text),
        }
        let waiting = self.platform.alarm.sinks(alert.level);
        if waiting.is_empty() {
            return None;
        }
        if let Some((cut, _)) = alert.text.char_indices().nth(MAX_TEXT) {
            alert.text.truncate(cut);
        }
        let now = self.now();
        let recent = |row: &AlertRow| now.abs_diff(row.at) < QUIET;
        // What has become worse may be for sinks that were not told before.
        let merges = |row: &AlertRow| {
            row.source == source && row.alert.code == alert.code && alert.level <= row.alert.level
        };
        let same = self
            .alerts
            .rows
            .iter_mut()
            .filter(|(_, row)| merges(row))
            .find(|(_, row)| !row.waiting.is_empty() || recent(row));
        if let Some((seq, row)) = same {
            row.times = row.times.saturating_add(1);
            if !row.waiting.is_empty() && row.alert != alert {
                row.alert = alert;
                changes.push(Change::Put(Key::Alert { seq: *seq }, json(row)));
            }
            return None;
        }
        let mine = self.alerts.rows.values().filter(|r| r.source == source);
        if mine.filter(|row| recent(row)).count() >= MAX_RECENT {
            tracing::warn!(
                source,
                "too many alerts in an hour; this one is only logged"
            );
            return None;
        }
        let row = AlertRow {
            source: source.to_owned(),
            alert,
            at: now,
            times: 1,
            waiting,
        };
        let seq = self.alerts.next;
        self.alerts.next += 1;
        changes.push(Change::Put(Key::Alert { seq }, json(&row)));
        self.alerts.rows.insert(seq, row);
        self.forget_alerts(source, now, changes);
        Some(Release::Alert(seq))
    }

    /// Delivered ones whose quiet time is over go, and the oldest of too many of one source.
    fn forget_alerts(&mut self, source: &str, now: Instant, changes: &mut Vec<Change>) {
        let old = |row: &AlertRow| row.waiting.is_empty() && now.abs_diff(row.at) >= QUIET;
        let rows = &self.alerts.rows;
        let mine = rows.iter().filter(|(_, row)| row.source == source);
        let too_many = mine.clone().count().saturating_sub(MAX_ALERTS);
        let oldest = mine.take(too_many).map(|(seq, _)| *seq);
        let delivered = rows.iter().filter(|(_, row)| old(row)).map(|(seq, _)| *seq);
        let gone: BTreeSet<u64> = oldest.chain(delivered).collect();
        for seq in gone {
            self.alerts.rows.remove(&seq);
            changes.push(Change::Delete(Key::Alert { seq }));
        }
    }

    /// An alert of an earlier process. Sinks that are not configured any more are not waited for.
    pub(super) fn restore_alert(&mut self, seq: u64, mut row: AlertRow) {
        self.alerts.next = self.alerts.next.max(seq + 1);
        let sinks = self.platform.alarm.sinks(Level::Error);
        row.waiting.retain(|sink| sinks.contains(sink));
        self.alerts.rows.insert(seq, row);
    }

    /// Goes on with what the sinks have not taken before the start.
    pub(super) fn resume_alerts(&mut self) {
        let waiting: Vec<u64> = self.alerts.rows.keys().copied().collect();
        for seq in waiting {
            self.send_alert(seq);
        }
    }

    /// Gives a committed alert to every sink that waits for it.
    pub(super) fn send_alert(&self, seq: u64) {
        let Some(row) = self.alerts.rows.get(&seq) else {
            return;
        };
        for sink in &row.waiting {
            self.give_alert(seq, sink.clone(), 0);
        }
    }

    fn give_alert(&self, seq: u64, sink: String, failures: u32) {
        let Some(row) = self.alerts.rows.get(&seq) else {
            return;
        };
        let wait = match failures {
            0 => Duration::ZERO,
            n => RETRY_FIRST
                .saturating_mul(1 << (n - 1).min(10))
                .min(RETRY_MAX),
        };
        let notice = Notice {
            device: self.setup.device.clone(),
            source: row.source.clone(),
            code: row.alert.code.clone(),
            level: level_word(row.alert.level).to_owned(),
            text: row.alert.text.clone(),
            at: row.at,
            times: row.times,
        };
        let (alarm, tell) = (self.platform.alarm.clone(), self.tell.clone());
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let result = alarm.send(&sink, notice).await;
            let _ = tell.send(Done::Alerted(seq, sink, failures, result));
        });
    }

    pub(super) fn on_alerted(
        &mut self,
        seq: u64,
        sink: String,
        failures: u32,
        result: Result<(), String>,
    ) {
        let Some(row) = self.alerts.rows.get_mut(&seq) else {
            return;
        };
        if let Err(error) = result {
            if failures < GIVE_UP {
                tracing::warn!(
                    sink,
                    error,
                    "a sink did not take an alert; it is tried again"
                );
                return self.give_alert(seq, sink, failures + 1);
            }
            tracing::error!(
                sink,
                error,
                "a sink did not take an alert for a week; given up"
            );
        } else {
            tracing::info!(sink, code = row.alert.code, "an alert was taken");
        }
        row.waiting.retain(|name| *name != sink);
        let change = Change::Put(Key::Alert { seq }, json(row));
        self.commit(vec![change], Vec::new());
    }
}
