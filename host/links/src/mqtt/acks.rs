//! Acknowledgements go out in the order the messages came in (MQTT 3.1.1, 4.6), whatever the order in which the agent commits.

use std::collections::VecDeque;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Handed to the agent.
    Received,
    /// The agent is done with it.
    Ready,
    /// In the client's queue.
    Sent,
}

#[derive(Debug)]
struct Entry {
    packet: u16,
    stage: Stage,
    /// QoS 2, from a subscription this agent did not make: answered with PUBREC.
    exactly_once: bool,
    /// The agent wants to hear when it was written; it does not know of those the link refused by itself.
    tell: bool,
}

/// The unacknowledged messages of one connection.
#[derive(Debug, Default)]
pub(super) struct Acks {
    order: VecDeque<Entry>,
}

impl Acks {
    /// A message that the agent will acknowledge.
    pub(super) fn received(&mut self, packet: u16, exactly_once: bool) {
        self.push(Entry {
            packet,
            stage: Stage::Received,
            exactly_once,
            tell: true,
        });
    }

    /// A message the agent never sees.
    pub(super) fn refused(&mut self, packet: u16, exactly_once: bool) {
        self.push(Entry {
            packet,
            stage: Stage::Ready,
            exactly_once,
            tell: false,
        });
    }

    fn push(&mut self, entry: Entry) {
        // A broker that sends one packet id twice before its PUBACK is wrong; two PUBACKs would be, too.
        if entry.packet != 0 && !self.order.iter().any(|known| known.packet == entry.packet) {
            self.order.push_back(entry);
        }
    }

    /// The agent acknowledged it. One that is unknown or was acknowledged before is ignored.
    pub(super) fn acknowledge(&mut self, packet: u16) {
        if let Some(entry) = self
            .order
            .iter_mut()
            .find(|entry| entry.packet == packet && entry.stage == Stage::Received)
        {
            entry.stage = Stage::Ready;
        }
    }

    /// Sends what may go out now; `send` gets the packet and whether it is QoS 2, and says whether the client took it.
    pub(super) fn release(&mut self, mut send: impl FnMut(u16, bool) -> bool) {
        for entry in &mut self.order {
            match entry.stage {
                Stage::Sent => {}
                Stage::Ready if send(entry.packet, entry.exactly_once) => entry.stage = Stage::Sent,
                Stage::Ready | Stage::Received => break,
            }
        }
    }

    /// It was written to the connection. Says whether the agent is to be told.
    pub(super) fn written(&mut self, packet: u16) -> bool {
        let Some(position) = self
            .order
            .iter()
            .position(|entry| entry.packet == packet && entry.stage == Stage::Sent)
        else {
            return false;
        };
        self.order.remove(position).is_some_and(|entry| entry.tell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(acks: &mut Acks) -> Vec<u16> {
        let mut sent = Vec::new();
        acks.release(|packet, _| {
            sent.push(packet);
            true
        });
        sent
    }

    #[test]
    fn acknowledgements_leave_in_order_of_receipt() {
        let mut acks = Acks::default();
        for packet in [5, 3, 9] {
            acks.received(packet, false);
        }
        acks.acknowledge(9);
        acks.acknowledge(3);
        assert_eq!(released(&mut acks), Vec::<u16>::new());
        acks.acknowledge(5);
        assert_eq!(released(&mut acks), [5, 3, 9]);
        assert_eq!(released(&mut acks), Vec::<u16>::new());
        assert!(acks.written(5));
        assert!(!acks.written(5));
    }

    #[test]
    fn a_full_client_queue_keeps_the_rest_for_later() {
        let mut acks = Acks::default();
        for packet in [1, 2] {
            acks.received(packet, false);
            acks.acknowledge(packet);
        }
        let mut room = 1;
        acks.release(|_, _| {
            room -= 1;
            room >= 0
        });
        assert_eq!(released(&mut acks), [2]);
    }

    #[test]
    fn a_refused_message_is_acknowledged_in_its_turn_and_silently() {
        let mut acks = Acks::default();
        acks.received(1, false);
        acks.refused(2, false);
        assert_eq!(released(&mut acks), Vec::<u16>::new());
        acks.acknowledge(1);
        assert_eq!(released(&mut acks), [1, 2]);
        assert!(acks.written(1));
        assert!(!acks.written(2));
    }

    #[test]
    fn unknown_repeated_and_zero_ids_change_nothing() {
        let mut acks = Acks::default();
        acks.received(0, false);
        acks.received(4, false);
        acks.received(4, false);
        acks.acknowledge(7);
        acks.acknowledge(4);
        acks.acknowledge(4);
        assert_eq!(released(&mut acks), [4]);
    }
}
