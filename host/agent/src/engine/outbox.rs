//! Publications on their way to a broker: first in, first out for each link, a small window in flight, kept until the broker has
//! them.
//!
//! Durable ones are journal rows as well and survive everything. `latest` ones live here only: while the link is away or
//! the window is full the newest of each key waits, and a durable one to the same topic takes its place.

use std::collections::{BTreeMap, VecDeque};

use otahost_core::model::{Persistence, Publication};
use otahost_links::LinkCommand;

/// Publications in flight on one link; rumqttc and the brokers all take this many without blocking.
const WINDOW: usize = 8;
/// Connections a publication may be in flight at the end of before it goes behind the others. A broker that ends the connection for
/// one that it does not like must not block those; one that was only unlucky comes again all the same.
const MAX_LOSSES: u32 = 3;

#[derive(Debug)]
struct Waiting {
    id: u64,
    adapter: String,
    publication: Publication,
    /// Connections that ended while it was in flight.
    losses: u32,
}

/// The outbox of one link.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Waiting>,
    in_flight: BTreeMap<u64, Waiting>,
    up: bool,
}

impl Outbox {
    /// Takes a publication whose commit is durable. Ids grow.
    pub(super) fn push(&mut self, id: u64, adapter: &str, publication: Publication) {
        match &publication.persistence {
            Persistence::Durable => self.waiting.retain(|w| {
                matches!(w.publication.persistence, Persistence::Durable)
                    || w.adapter != adapter
                    || w.publication.topic != publication.topic
            }),
            Persistence::Latest(key) => self.waiting.retain(|w| {
                w.adapter != adapter
                    || !matches!(&w.publication.persistence, Persistence::Latest(k) if k == key)
            }),
        }
        self.waiting.push_back(Waiting {
            id,
            adapter: adapter.to_owned(),
            publication,
            losses: 0,
        });
    }

    /// The connection came or went. What was in flight waits again, in front and in order.
    pub(super) fn set_up(&mut self, up: bool) {
        self.up = up;
        for (_, mut waiting) in std::mem::take(&mut self.in_flight).into_iter().rev() {
            waiting.losses += 1;
            let replaced = match &waiting.publication.persistence {
                Persistence::Durable => false,
                Persistence::Latest(key) => self.waiting.iter().any(|w| {
                    w.adapter == waiting.adapter
                        && (matches!(&w.publication.persistence, Persistence::Latest(k) if k == key)
                            || w.publication.topic == waiting.publication.topic)
                }),
            };
            if replaced {
                continue;
            }
            if waiting.losses >= MAX_LOSSES {
                waiting.losses = 0;
                self.waiting.push_back(waiting);
            } else {
                self.waiting.push_front(waiting);
            }
        }
    }

    /// What can be sent now.
    pub(super) fn sendable(&mut self) -> Vec<LinkCommand> {
        let mut commands = Vec::new();
        while self.up
            && self.in_flight.len() < WINDOW
            && let Some(waiting) = self.waiting.pop_front()
        {
            let p = &waiting.publication;
            commands.push(LinkCommand::Publish {
                id: waiting.id,
                topic: p.topic.clone(),
                payload: p.payload.clone(),
                qos: p.qos,
                retain: p.retain,
            });
            self.in_flight.insert(waiting.id, waiting);
        }
        commands
    }

    /// The broker has it, or it can never be sent. True when it has a journal row to delete.
    pub(super) fn done(&mut self, id: u64) -> bool {
        self.in_flight
            .remove(&id)
            .is_some_and(|w| w.publication.persistence == Persistence::Durable)
    }

    /// How many publications of an adapter are here, and their bytes.
    pub(super) fn held_by(&self, adapter: &str) -> (usize, usize) {
        let all = self
            .waiting
            .iter()
            .chain(self.in_flight.values())
            .filter(|w| w.adapter == adapter);
        all.fold((0, 0), |(count, bytes), w| {
            (count + 1, bytes + w.publication.payload.len())
        })
    }

    /// Publications that have not reached the broker.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }

    /// True when nothing is on its way and the link is up, or when the link is down and nothing can move.
    pub(super) fn is_settled(&self) -> bool {
        !self.up || self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(topic: &str, text: &str, persistence: Persistence) -> Publication {
        Publication {
            link: "l".into(),
            topic: topic.into(),
            payload: text.into(),
            qos: 1,
            retain: false,
            persistence,
        }
    }

    fn sent(outbox: &mut Outbox) -> Vec<(u64, String)> {
        outbox
            .sendable()
            .into_iter()
            .map(|c| match c {
                LinkCommand::Publish { id, payload, .. } => {
                    (id, String::from_utf8_lossy(&payload).into_owned())
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn latest(key: &str) -> Persistence {
        Persistence::Latest(key.into())
    }

    #[test]
    fn only_the_newest_of_a_key_waits_and_a_durable_one_to_the_topic_takes_its_place() {
        let mut outbox = Outbox::default();
        outbox.push(1, "a", publication("t", "10%", latest("p")));
        outbox.push(2, "a", publication("t", "20%", latest("p")));
        outbox.push(3, "a", publication("u", "other", latest("q")));
        outbox.push(4, "b", publication("t", "not mine", latest("p")));
        outbox.push(5, "a", publication("t", "done", Persistence::Durable));
        outbox.set_up(true);
        assert_eq!(
            sent(&mut outbox),
            [
                (3, "other".into()),
                (4, "not mine".into()),
                (5, "done".into())
            ]
        );
    }

    #[test]
    fn what_was_in_flight_when_the_connection_broke_goes_first_and_in_order() {
        let mut outbox = Outbox::default();
        outbox.set_up(true);
        for id in 1..=10 {
            outbox.push(
                id,
                "a",
                publication("t", &id.to_string(), Persistence::Durable),
            );
        }
        assert_eq!(sent(&mut outbox).len(), WINDOW);
        assert!(outbox.done(1));
        outbox.set_up(false);
        assert!(sent(&mut outbox).is_empty());
        outbox.set_up(true);
        let ids: Vec<u64> = sent(&mut outbox).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, (2..2 + WINDOW as u64).collect::<Vec<_>>());
    }

    #[test]
    fn one_that_the_broker_ends_the_connection_for_does_not_block_the_others_for_ever() {
        let mut outbox = Outbox::default();
        outbox.push(
            1,
            "a",
            publication("forbidden", "poison", Persistence::Durable),
        );
        outbox.push(2, "a", publication("t", "result", Persistence::Durable));
        let mut delivered = false;
        for _ in 0..10 {
            outbox.set_up(true);
            // The broker reads in order and ends the connection at the forbidden one.
            for (id, _) in sent(&mut outbox) {
                if id == 1 {
                    break;
                }
                delivered |= outbox.done(id);
            }
            outbox.set_up(false);
        }
        assert!(delivered);
        assert_eq!(outbox.len(), 1, "and the poison itself is not forgotten");
    }

    #[test]
    fn an_old_latest_is_not_sent_again_after_a_newer_one() {
        let mut outbox = Outbox::default();
        outbox.set_up(true);
        outbox.push(1, "a", publication("t", "10%", latest("p")));
        sent(&mut outbox);
        outbox.push(2, "a", publication("t", "20%", latest("p")));
        outbox.set_up(false);
        outbox.set_up(true);
        assert_eq!(sent(&mut outbox), [(2, "20%".into())]);
    }
}
