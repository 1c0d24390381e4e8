//! Acknowledgements of MQTT messages: after the commit, in order of receipt, and never for a message that was not committed.
//!
//! The commit remembers (packet id, hash) until the acknowledgement was written, so that what the broker delivers again because
//! the acknowledgement got lost is acknowledged and not handled a second time. A repetition only counts as one when it comes
//! over another connection: within one, a packet id that comes again is another message.

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

    /// A message came in.
    pub(super) fn received(&mut self, token: Token, hash: &str) -> Received {
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
        lost
    }

    /// The acknowledgement was written. True when the remembered row can go.
    pub(super) fn written(&mut self, token: Token) -> bool {
        let mine = self
            .seen
            .get(&token.packet)
            .is_some_and(|s| s.generation == token.generation && !self.open.contains(&s.number));
        if mine {
            self.seen.remove(&token.packet);
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
        assert_eq!(acks.received(token(1, 1), "a"), Received::New(0));
        assert_eq!(acks.received(token(1, 2), "b"), Received::New(1));
        acks.settled(1);
        assert!(acks.ready().is_empty());
        acks.settled(0);
        assert_eq!(acks.ready(), [token(1, 1), token(1, 2)]);
    }

    #[test]
    fn a_message_delivered_again_over_another_connection_is_acknowledged_and_not_handled() {
        let mut acks = Acks::default();
        acks.received(token(1, 7), "a");
        acks.disconnected();
        assert_eq!(acks.received(token(2, 7), "a"), Received::Again);
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
        assert_eq!(acks.received(token(1, 7), "a"), Received::Again);
        assert_eq!(acks.ready(), [token(1, 7)]);
        assert!(acks.written(token(1, 7)));
    }

    #[test]
    fn the_same_bytes_under_a_used_packet_id_are_another_message_in_the_same_connection() {
        let mut acks = Acks::default();
        acks.received(token(1, 7), "a");
        assert_eq!(acks.received(token(1, 7), "a"), Received::New(1));
        assert_eq!(acks.received(token(2, 7), "b"), Received::New(2));
    }

    #[test]
    fn a_broker_that_forgot_the_session_means_another_message() {
        let mut acks = Acks::default();
        acks.received(token(1, 7), "a");
        acks.settled(0);
        acks.disconnected();
        assert_eq!(acks.session_lost(2), [7]);
        assert_eq!(acks.received(token(2, 7), "a"), Received::New(1));
    }

    #[test]
    fn a_written_acknowledgement_ends_the_memory() {
        let mut acks = Acks::default();
        acks.received(token(1, 7), "a");
        assert!(!acks.written(token(1, 7)), "it is not settled");
        acks.settled(0);
        assert!(acks.written(token(1, 7)));
        assert_eq!(acks.received(token(2, 7), "a"), Received::New(1));
    }

    #[test]
    fn quality_of_service_zero_needs_no_acknowledgement() {
        let mut acks = Acks::default();
        assert_eq!(acks.received(token(1, 0), "a"), Received::New(0));
        assert!(acks.ready().is_empty() && acks.row(0).is_none());
    }
}
