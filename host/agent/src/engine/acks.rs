//! Acknowledgements of MQTT messages: after the commit, in order of receipt, and never for a message that was not committed.
//!
//! The commit remembers (packet id, hash) until the acknowledgement was written, so that what the broker delivers again because
//! the acknowledgement got lost is acknowledged and not handled a second time. A repetition only counts as one when it comes
//! over another connection: within one, a packet id that comes again is another message.
//!
//! An acknowledgement that was written may still be lost with its connection. What was acknowledged last is therefore remembered a
//! little longer, in memory, for a broker that says itself that it delivers again.

use std::collections::{BTreeMap, VecDeque};

use otahost_links::Token;

/// Number of a message on one link, counted by the engine.
pub(super) type MessageNumber = u64;

#[derive(Debug)]
struct Pending {
    token: Token,
    number: MessageNumber,
}

#[derive(Debug)]
struct Seen {
    hash: String,
    /// Generation of the connection it came over; 0 for one of an earlier process.
    generation: u64,
    number: MessageNumber,
}

/// Messages remembered after their acknowledgement was written: as many as brokers have in flight on one connection.
const MAX_WRITTEN: usize = 256;

#[derive(Debug)]
struct Written {
    token: Token,
    hash: String,
}

/// What to do with a message that came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Handle it; call [`Acks::settled`] with the number when that is durable.
    New(MessageNumber),
    /// It was handled, or is being handled; its acknowledgement goes out by itself.
    Again,
}

/// The acknowledgements of one link.
#[derive(Debug, Default)]
pub(super) struct Acks {
    next: MessageNumber,
    pending: VecDeque<Pending>,
    /// Numbers that are not durable yet.
    open: std::collections::BTreeSet<MessageNumber>,
    seen: BTreeMap<u16, Seen>,
    /// Durable, and acknowledged over the connection of the token.
    written: VecDeque<Written>,
}

impl Acks {
    /// What an earlier process committed.
    pub(super) fn restore(&mut self, packet: u16, hash: String) {
        let number = self.next;
        self.next += 1;
        self.seen.insert(
            packet,
            Seen {
                hash,
                generation: 0,
                number,
            },
        );
    }

    /// A message came in. `duplicate`: the broker says that it has delivered it before.
    pub(super) fn received(&mut self, token: Token, hash: &str, duplicate: bool) -> Received {
        if let Some(seen) = self.seen.get_mut(&token.packet)
            && token.packet != 0
            && seen.generation != token.generation
            && seen.hash == hash
        {
            seen.generation = token.generation;
            self.pending.push_back(Pending {
                token,
                number: seen.number,
            });
            return Received::Again;
        }
        let number = self.next;
        self.next += 1;
        let before = self
            .written
            .iter_mut()
            .find(|written| written.token.packet == token.packet);
        if let Some(written) = before
            && duplicate
            && written.token.generation != token.generation
            && written.hash == hash
        {
            written.token = token;
            self.pending.push_back(Pending { token, number });
            return Received::Again;
        }
        if token.packet != 0 {
            self.open.insert(number);
            self.seen.insert(
                token.packet,
                Seen {
                    hash: hash.to_owned(),
                    generation: token.generation,
                    number,
                },
            );
            self.pending.push_back(Pending { token, number });
        }
        Received::New(number)
    }

    /// The row to remember a message by, while it is the newest with its packet id.
    pub(super) fn row(&self, number: MessageNumber) -> Option<(u16, &str)> {
        self.seen
            .iter()
            .find(|(_, seen)| seen.number == number)
            .map(|(packet, seen)| (*packet, seen.hash.as_str()))
    }

    /// The message is durably handled.
    pub(super) fn settled(&mut self, number: MessageNumber) {
        self.open.remove(&number);
    }

    /// The acknowledgements that may go out now: the settled ones up to the first that is not.
    pub(super) fn ready(&mut self) -> Vec<Token> {
        let mut tokens = Vec::new();
        while let Some(first) = self.pending.front()
            && !self.open.contains(&first.number)
        {
            tokens.push(first.token);
            self.pending.pop_front();
        }
        tokens
    }

    /// The connection ended: its tokens are worth nothing any more.
    pub(super) fn disconnected(&mut self) {
        self.pending.clear();
    }

    /// The broker has forgotten the session: it will deliver nothing of it again, and uses packet ids anew. Gives the packet ids whose rows
    /// can go; what came over this connection already is no part of it.
    pub(super) fn session_lost(&mut self, generation: u64) -> Vec<u16> {
        let lost: Vec<u16> = self
            .seen
            .iter()
            .filter(|(_, s)| s.generation != generation)
            .map(|(packet, _)| *packet)
            .collect();
        for packet in &lost {
            self.seen.remove(packet);
        }
        self.written
            .retain(|written| written.token.generation == generation);
        lost
    }

    /// The acknowledgement was written. True when the remembered row can go.
    pub(super) fn written(&mut self, token: Token) -> bool {
        let mine = self
            .seen
            .get(&token.packet)
            .is_some_and(|s| s.generation == token.generation && !self.open.contains(&s.number));
        if mine && let Some(seen) = self.seen.remove(&token.packet) {
            self.written.retain(|w| w.token.packet != token.packet);
            if self.written.len() == MAX_WRITTEN {
                self.written.pop_front();
            }
            let hash = seen.hash;
            self.written.push_back(Written { token, hash });
        }
        mine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(generation: u64, packet: u16) -> Token {
        Token { generation, packet }
    }

    #[test]
    fn acknowledgements_go_out_in_order_of_receipt() {
        let mut acks = Acks::default();
        assert_eq!(acks.received(token(1, 1), "a", false), Received::New(0));
        assert_eq!(acks.received(token(1, 2), "b", false), Received::New(1));
        acks.settled(1);
        assert!(acks.ready().is_empty());
        acks.settled(0);
        assert_eq!(acks.ready(), [token(1, 1), token(1, 2)]);
    }

    #[test]
    fn a_message_delivered_again_over_another_connection_is_acknowledged_and_not_handled() {
        let mut acks = Acks::default();
        acks.received(token(1, 7), "a", false);
        acks.disconnected();
        assert_eq!(acks.received(token(2, 7), "a", false), Received::Again);
        assert!(
            acks.ready().is_empty(),
            "its first delivery is not committed yet"
        );
        acks.settled(0);
        assert_eq!(acks.ready(), [token(2, 7)]);
    }

    #[test]
    fn what_an_earlier_process_committed_is_known() {
        let mut acks = Acks::default();
        acks.restore(7, "a".into());
        assert_eq!(acks.received(token(1, 7), "a", false), Received::Again);
        assert_eq!(acks.ready(), [token(1, 7)]);
        assert!(acks.written(token(1, 7)));
    }

    #[test]
    fn the_same_bytes_under_a_used_packet_id_are_another_message_in_the_same_connection() {
        let mut acks = Acks::default();
        acks.received(token(1, 7), "a", false);
        assert_eq!(acks.received(token(1, 7), "a", false), Received::New(1));
        assert_eq!(acks.received(token(2, 7), "b", false), Received::New(2));
    }

    #[test]
    fn a_broker_that_forgot_the_session_means_another_message() {
        let mut acks = Acks::default();
        acks.received(token(1, 7), "a", false);
        acks.settled(0);
        acks.disconnected();
        assert_eq!(acks.session_lost(2), [7]);
        assert_eq!(acks.received(token(2, 7), "a", false), Received::New(1));
    }

    #[test]
    fn after_a_written_acknowledgement_the_same_bytes_are_another_message() {
        let mut acks = Acks::default();
        acks.received(token(1, 7), "a", false);
        assert!(!acks.written(token(1, 7)), "it is not settled");
        acks.settled(0);
        assert!(acks.written(token(1, 7)));
        assert_eq!(acks.received(token(2, 7), "a", false), Received::New(1));
    }

    #[test]
    fn what_the_broker_says_it_delivers_again_was_handled_also_when_its_acknowledgement_was_lost() {
        let mut acks = Acks::default();
        acks.received(token(1, 7), "a", false);
        acks.settled(0);
        assert_eq!(acks.ready(), [token(1, 7)]);
        assert!(acks.written(token(1, 7)));
        for generation in 2..5 {
            acks.disconnected();
            let again = acks.received(token(generation, 7), "a", true);
            assert_eq!(again, Received::Again);
            assert_eq!(acks.ready(), [token(generation, 7)]);
            assert!(!acks.written(token(generation, 7)), "its row is gone");
        }
        // Neither other bytes nor another message under the same packet id are taken for it.
        assert_eq!(acks.received(token(5, 7), "b", true), Received::New(4));
    }

    #[test]
    fn a_session_that_is_lost_takes_along_what_was_acknowledged_in_it() {
        let mut acks = Acks::default();
        acks.received(token(1, 7), "a", false);
        acks.settled(0);
        acks.written(token(1, 7));
        acks.session_lost(2);
        assert_eq!(acks.received(token(2, 7), "a", true), Received::New(1));
    }

    #[test]
    fn only_so_many_are_remembered_after_their_acknowledgement() {
        let mut acks = Acks::default();
        for packet in 1..=1_000 {
            let Received::New(number) = acks.received(token(1, packet), "a", false) else {
                panic!("{packet}");
            };
            acks.settled(number);
            acks.written(token(1, packet));
        }
        assert_eq!(acks.written.len(), MAX_WRITTEN);
        assert_eq!(acks.received(token(2, 1_000), "a", true), Received::Again);
    }

    #[test]
    fn quality_of_service_zero_needs_no_acknowledgement() {
        let mut acks = Acks::default();
        assert_eq!(acks.received(token(1, 0), "a", false), Received::New(0));
        assert!(acks.ready().is_empty() && acks.row(0).is_none());
    }
}
