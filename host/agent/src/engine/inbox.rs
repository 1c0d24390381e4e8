//! Messages that wait for an adapter that is busy.
//!
//! For a short time and as long as they are few they stay where they are: with the broker, which is told nothing before the step that
//! consumes them is durable. Then a message costs no more than its step. But a broker only waits for so many acknowledgements, in the order of
//! delivery, and then everybody on that link waits: when an adapter does not come to them soon, or they are more, they become rows of
//! the journal, and the broker is told.

use std::time::Duration;

use otahost_core::model::{Event, Message};
use otahost_journal::{Change, Key, json};

use super::rows::InboxRow;
use super::steps::{AdapterState, Origin, Queued};
use super::{Engine, Release};

/// Most messages in one adapter's inbox.
const MAX_INBOX: usize = 1_000;
/// Most bytes in one adapter's inbox.
const MAX_INBOX_BYTES: usize = 1024 * 1024;
/// Most messages that stay with the broker behind a busy adapter that has the link to itself.
const MAX_LEFT: usize = 32;
/// The same for one that shares it. Brokers wait for 20 acknowledgements (mosquitto's `max_inflight_messages`) and more.
const MAX_LEFT_OF_SHARED: usize = 10;
/// Most bytes of them.
const MAX_LEFT_BYTES: usize = 256 * 1024;
/// How long they stay there. Most steps take a five-hundredth of it.
const SOON: Duration = Duration::from_millis(50);

/// What is in the journal for an adapter.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    next: u64,
    count: usize,
    bytes: usize,
}

fn size(event: &Event) -> usize {
    match event {
        Event::Message(message) => size_of_message(message),
        _ => 0,
    }
}

fn size_of_message(message: &Message) -> usize {
    message.payload.len() + message.topic.len()
}

fn is_with_broker(queued: &&Queued) -> bool {
    matches!(queued.origin, Origin::Broker { .. })
}

impl AdapterState {
    pub(super) fn restore_inbox(&mut self, n: u64, row: InboxRow) {
        let bytes = size(&row.event);
        self.inbox.next = n + 1;
        self.inbox.count += 1;
        self.inbox.bytes += bytes;
        let at = row.at;
        self.queue
            .push_back(Queued::new(row.event, Origin::Inbox { n, bytes, at }));
    }

    /// The inbox has room for this one too.
    pub(super) fn has_room(&self, row: &InboxRow) -> bool {
        self.inbox.count < MAX_INBOX && self.inbox.bytes + size(&row.event) <= MAX_INBOX_BYTES
    }

    /// A message has left the inbox.
    pub(super) fn left_inbox(&mut self, bytes: usize) {
        self.inbox.count = self.inbox.count.saturating_sub(1);
        self.inbox.bytes = self.inbox.bytes.saturating_sub(bytes);
    }

    /// Takes the oldest message out of the inbox; its number.
    pub(super) fn drop_oldest(&mut self) -> Option<u64> {
        let oldest = |queued: &Queued| matches!(queued.origin, Origin::Inbox { .. });
        let index = self.queue.iter().position(oldest)?;
        let Origin::Inbox { n, bytes, .. } = self.queue.remove(index)?.origin else {
            return None;
        };
        self.left_inbox(bytes);
        Some(n)
    }

    /// Messages that wait in the inbox.
    pub(super) fn waiting(&self) -> u64 {
        self.inbox.count as u64
    }

    /// Bytes of the messages in the inbox.
    pub(super) fn inbox_bytes(&self) -> usize {
        self.inbox.bytes
    }

    /// A message of the broker's may wait there until this adapter comes to it.
    pub(super) fn comes_to_it_soon(&self, message: &Message, shares_link: bool) -> bool {
        let lasts = !self.is_between_events() && self.began.elapsed() >= SOON;
        if self.runs().is_none() || self.is_held() || lasts {
            return false;
        }
        let most = match shares_link {
            true => MAX_LEFT_OF_SHARED,
            false => MAX_LEFT,
        };
        let (mut count, mut bytes) = (0, size_of_message(message));
        for queued in &self.queue {
            match queued.origin {
                // Nothing stays behind a row.
                Origin::Inbox { .. } => return false,
                Origin::Broker { .. } => {
                    count += 1;
                    bytes += size(&queued.event);
                }
                _ => {}
            }
        }
        count < most && bytes <= MAX_LEFT_BYTES
    }

    /// Everything that it has to handle, what it is at included, in the order in which it came.
    fn unhandled(&self) -> impl Iterator<Item = &Queued> {
        let judged = self.judged.iter().map(|(queued, _)| queued);
        judged.chain(&self.running).chain(&self.queue)
    }

    fn unhandled_mut(&mut self) -> impl Iterator<Item = &mut Queued> {
        let judged = self.judged.iter_mut().map(|(queued, _)| queued);
        judged.chain(&mut self.running).chain(&mut self.queue)
    }
}

impl Engine {
    /// A place in the inbox for a message, and how it is consumed; `None` when it is full.
    pub(super) fn take_into_inbox(
        &mut self,
        adapter: &str,
        row: &InboxRow,
    ) -> Option<(u64, Origin)> {
        let state = self.adapters.get_mut(adapter)?;
        if !state.has_room(row) {
            return None;
        }
        let (bytes, at) = (size(&row.event), row.at);
        state.inbox.count += 1;
        state.inbox.bytes += bytes;
        let n = state.inbox.next;
        state.inbox.next += 1;
        Some((n, Origin::Inbox { n, bytes, at }))
    }

    /// Takes the messages that only the broker holds into the inbox, those of the running step and of the queue: a message that came
    /// later and has a row already would overtake them over a power cut. False when they do not all find room.
    pub(super) fn keep_order(
        &mut self,
        adapter: &str,
        changes: &mut Vec<Change>,
        releases: &mut Vec<Release>,
    ) -> bool {
        let at = self.now();
        loop {
            let Some(state) = self.adapters.get(adapter) else {
                return false;
            };
            let first = state.unhandled().find_map(|queued| match &queued.origin {
                Origin::Broker { link, number } => Some((link.clone(), *number, queued)),
                _ => None,
            });
            let Some((link, number, queued)) = first else {
                return true;
            };
            let row = InboxRow {
                event: queued.event.clone(),
                at,
            };
            let Some((n, origin)) = self.take_into_inbox(adapter, &row) else {
                return false;
            };
            let adapter = adapter.to_owned();
            let held = Origin::Broker {
                link: link.clone(),
                number,
            };
            if let Some(state) = self.adapters.get_mut(&adapter)
                && let Some(queued) = state.unhandled_mut().find(|queued| queued.origin == held)
            {
                queued.origin = origin;
            }
            changes.push(Change::Put(Key::Inbox { adapter, n }, json(&row)));
            changes.extend(self.remember(&link, number));
            releases.push(Release::Settle { link, number });
        }
    }

    /// A message waits with the broker behind a step.
    pub(super) fn left_with_broker(&mut self) {
        let due = || tokio::time::Instant::now() + SOON;
        self.relief_due.get_or_insert_with(due);
    }

    /// Takes what has waited with a broker for too long into the inbox.
    pub(super) fn relieve_brokers(&mut self, now: tokio::time::Instant) {
        if self.relief_due.is_none_or(|due| due > now) {
            return;
        }
        self.relief_due = None;
        let mut late = Vec::new();
        for (name, state) in &self.adapters {
            // The first has waited longest.
            match state.queue.iter().find(is_with_broker) {
                Some(first) if first.came + SOON <= now => late.push(name.clone()),
                Some(_) => self.relief_due = Some(now + SOON),
                None => {}
            }
        }
        self.take_from_brokers(late);
    }

    /// A broker has forgotten the session: what only it held of a link, these adapters alone have now.
    pub(super) fn keep_what_was_left(&mut self, link: &str) {
        let is_of = |queued: &Queued| matches!(&queued.origin, Origin::Broker { link: of, .. } if of == link);
        let holding = self.adapters.iter();
        let holding = holding.filter(|(_, state)| state.unhandled().any(is_of));
        self.take_from_brokers(holding.map(|(name, _)| name.clone()).collect());
    }

    fn take_from_brokers(&mut self, adapters: Vec<String>) {
        for adapter in adapters {
            let (mut changes, mut releases) = (Vec::new(), Vec::new());
            self.keep_order(&adapter, &mut changes, &mut releases);
            self.commit(changes, releases);
        }
    }
}
