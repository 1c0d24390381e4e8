//! Which filters to subscribe and to unsubscribe next. The new ones come first and the old ones go only after the broker has the
//! new ones, so that no message falls between two sets.

use std::collections::BTreeSet;

/// Filters in one SUBSCRIBE; some brokers refuse more (AWS IoT: 8).
const CHUNK: usize = 8;

/// Packets of either kind without an answer at one time.
const PACKETS: usize = 16;

/// What to send to the broker next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
}

/// The subscriptions of one link. They outlive a connection because the broker's session does.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    desired: BTreeSet<String>,
    /// Asked for on this connection, answered or not.
    requested: BTreeSet<String>,
    /// Asked for on an earlier connection; the broker's session may still have them.
    held: BTreeSet<String>,
    /// Their UNSUBSCRIBE has no answer yet.
    leaving: BTreeSet<String>,
    unanswered: usize,
}

impl Subscriptions {
    /// A new connection begins. What the broker's session still has and nobody wants must go, too.
    pub(super) fn connected(&mut self, session_present: bool) {
        self.unanswered = 0;
        let mut held = std::mem::take(&mut self.held);
        held.append(&mut self.requested);
        held.append(&mut self.leaving);
        if session_present {
            self.held = held;
        }
    }

    /// The set the agent wants from now on.
    pub(super) fn desire(&mut self, filters: impl IntoIterator<Item = String>) {
        self.desired = filters.into_iter().collect();
    }

    /// A SUBACK came.
    pub(super) fn subscribed(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// An UNSUBACK came.
    pub(super) fn unsubscribed(&mut self, filters: &[String]) {
        for filter in filters {
            self.leaving.remove(filter);
        }
    }

    /// The broker has answered for every filter that is wanted.
    pub(super) fn settled(&self) -> bool {
        self.unanswered == 0 && self.desired.is_subset(&self.requested)
    }

    /// What to send now; call after every change and every answer.
    pub(super) fn next_requests(&mut self) -> Vec<Request> {
        let room = PACKETS.saturating_sub(self.unanswered) * CHUNK;
        let new: Vec<String> = self
            .desired
            .difference(&self.requested)
            .take(room)
            .cloned()
            .collect();
        let mut requests: Vec<Request> = new
            .chunks(CHUNK)
            .map(|chunk| Request::Subscribe(chunk.to_vec()))
            .collect();
        self.unanswered += requests.len();
        self.requested.extend(new);
        if self.settled() {
            let room = (PACKETS * CHUNK).saturating_sub(self.leaving.len());
            let old: Vec<String> = self
                .requested
                .union(&self.held)
                .filter(|filter| !self.desired.contains(*filter))
                .take(room)
                .cloned()
                .collect();
            requests.extend(
                old.chunks(CHUNK)
                    .map(|chunk| Request::Unsubscribe(chunk.to_vec())),
            );
            for filter in old {
                self.requested.remove(&filter);
                self.held.remove(&filter);
                self.leaving.insert(filter);
            }
        }
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn old_filters_go_only_after_the_broker_has_the_new_ones() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.desire(names(&["a", "b"]));
        assert_eq!(
            subscriptions.next_requests(),
            [Request::Subscribe(names(&["a", "b"]))]
        );
        subscriptions.subscribed();
        assert_eq!(subscriptions.next_requests(), []);
        subscriptions.desire(names(&["b", "c"]));
        assert_eq!(
            subscriptions.next_requests(),
            [Request::Subscribe(names(&["c"]))]
        );
        assert_eq!(subscriptions.next_requests(), []);
        subscriptions.subscribed();
        assert_eq!(
            subscriptions.next_requests(),
            [Request::Unsubscribe(names(&["a"]))]
        );
        assert_eq!(subscriptions.next_requests(), []);
    }

    #[test]
    fn a_filter_that_is_wanted_again_before_the_answer_is_kept() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.desire(names(&["a"]));
        subscriptions.next_requests();
        subscriptions.subscribed();
        subscriptions.desire(names(&["b"]));
        assert_eq!(
            subscriptions.next_requests(),
            [Request::Subscribe(names(&["b"]))]
        );
        subscriptions.desire(names(&["a", "b"]));
        subscriptions.subscribed();
        assert_eq!(subscriptions.next_requests(), []);
    }

    #[test]
    fn many_filters_go_in_packets_of_eight() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.desire((0..20).map(|n| format!("t/{n:02}")));
        assert_eq!(subscriptions.next_requests().len(), 3);
        for _ in 0..2 {
            subscriptions.subscribed();
            assert!(!subscriptions.settled());
        }
        subscriptions.subscribed();
        assert!(subscriptions.settled());
    }

    #[test]
    fn thousands_of_filters_never_overfill_the_clients_queue() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.desire((0..2_000).map(|n| format!("t/{n}")));
        let (mut sent, mut open) = (0, 0);
        while !subscriptions.settled() {
            open += subscriptions.next_requests().len();
            assert!((1..=PACKETS).contains(&open));
            sent += 1;
            open -= 1;
            subscriptions.subscribed();
        }
        assert_eq!(sent, 250);
    }

    #[test]
    fn an_empty_set_needs_no_answer() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.desire([]);
        assert_eq!(subscriptions.next_requests(), []);
        assert!(subscriptions.settled());
    }

    #[test]
    fn a_filter_given_up_while_the_line_was_down_is_unsubscribed_from_the_kept_session() {
        for (session_present, expected) in [
            (true, vec![Request::Unsubscribe(names(&["a"]))]),
            (false, vec![]),
        ] {
            let mut subscriptions = Subscriptions::default();
            subscriptions.desire(names(&["a", "b"]));
            subscriptions.next_requests();
            subscriptions.subscribed();
            subscriptions.desire(names(&["b"]));
            subscriptions.connected(session_present);
            assert_eq!(
                subscriptions.next_requests(),
                [Request::Subscribe(names(&["b"]))]
            );
            subscriptions.subscribed();
            assert_eq!(subscriptions.next_requests(), expected);
            // Unanswered, so it is tried again on the next connection that finds the session.
            subscriptions.connected(true);
            subscriptions.next_requests();
            subscriptions.subscribed();
            assert_eq!(subscriptions.next_requests(), expected);
            subscriptions.unsubscribed(&names(&["a"]));
            subscriptions.connected(true);
            subscriptions.next_requests();
            subscriptions.subscribed();
            assert_eq!(subscriptions.next_requests(), []);
        }
    }
}
