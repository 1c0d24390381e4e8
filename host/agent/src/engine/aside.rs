//! What happens around an adapter that is set aside: what waits for it, and what it is told once it runs.
//!
//! Messages and one-shot timers wait. What is told again by itself does not: where jobs, targets and links stand is told when the
//! adapter runs, as it is by then. So what waits is bounded however long it takes, and a final report is never dropped, because
//! the job's row says who has not heard it.

use otahost_core::model::{ClockQuality, Event, LinkState as LinkReport};
use otahost_journal::{Change, Key};

use super::Engine;
use super::rows::InboxRow;
use super::steps::{AdapterState, Origin, Queued};

/// Oldest message that is still handled, in milliseconds: a day.
const INBOX_AGE: u64 = 24 * 3_600 * 1_000;

impl AdapterState {
    /// An event is worth keeping although nobody handles it now.
    pub(super) fn keeps(&self, queued: &Queued) -> bool {
        self.runs().is_some()
            || matches!(
                queued.origin(),
                Origin::Inbox { .. } | Origin::Timer(_) | Origin::Start
            )
    }
}

impl Engine {
    /// A message that came then is too old to be handled. By a clock that was not set nobody can tell.
    pub(super) fn is_too_old(&self, came: u64) -> bool {
        let synced = self.platform.outside.clock() == ClockQuality::Synced;
        synced && self.now().saturating_sub(came) > INBOX_AGE
    }

    /// Makes room for a message in the inbox of an adapter that is set aside: the oldest go. Those behind it on the link must not wait
    /// for an adapter that may never run again.
    pub(super) fn make_room(&mut self, adapter: &str, row: &InboxRow, changes: &mut Vec<Change>) {
        let Some(state) = self.adapters.get_mut(adapter) else {
            return;
        };
        let mut dropped = 0_u64;
        while !state.has_room(row)
            && let Some(n) = state.drop_oldest()
        {
            dropped += 1;
            changes.push(Change::Delete(Key::Inbox {
                adapter: adapter.to_owned(),
                n,
            }));
        }
        if dropped > 0 {
            state.dropped += dropped;
            let all = state.dropped;
            tracing::error!(
                adapter,
                all,
                "the inbox of an adapter that is set aside is full; the oldest message is dropped"
            );
        }
    }

    /// The next event of an adapter that it can handle.
    pub(super) fn next_event(&mut self, adapter: &str) -> Option<Queued> {
        loop {
            let queued = self.adapters.get_mut(adapter)?.take_first()?;
            if let Origin::Inbox { n, bytes, at } = *queued.origin()
                && self.is_too_old(at)
            {
                tracing::warn!(
                    adapter,
                    "a message that waited for more than a day is dropped"
                );
                if let Some(state) = self.adapters.get_mut(adapter) {
                    state.left_inbox(bytes);
                }
                let adapter = adapter.to_owned();
                self.discard(Key::Inbox { adapter, n });
                continue;
            }
            // The job's row says that it is owed.
            if !self.is_unreadable(adapter, &queued) {
                return Some(queued);
            }
        }
    }

    /// Tells an adapter that was set aside, and runs now, how everything stands.
    pub(super) fn catch_up(&mut self, adapter: &str) {
        let Some(state) = self.adapters.get(adapter) else {
            return;
        };
        let targets = state.grants.targets.clone();
        let up: Vec<String> = self
            .links
            .iter()
            .filter(|(name, link)| link.up && state.uses(name))
            .map(|(name, _)| name.clone())
            .collect();
        for link in up {
            let event = Event::Link(LinkReport {
                link,
                up: true,
                session_present: true,
                reason: String::new(),
            });
            self.queue(adapter, Queued::new(event, Origin::Memory));
        }
        for target in targets {
            self.queue(adapter, Queued::new(Event::Target(target), Origin::Memory));
        }
        let jobs: Vec<u64> = self.jobs.keys().copied().collect();
        for id in jobs {
            self.tell_job_to(id, adapter);
        }
        self.resume_calls_of(adapter);
    }
}
