//! The broker: keeps its session over everything, delivers with QoS 1 and takes every publication at once.

use otahost_links::{Kind, Link, LinkCommand, LinkEvent, Token};
use tokio::sync::mpsc;

use super::Delivery;
use super::outer::{Shared, VirtualTime};

/// By so much, where it has one.
const RENUMBERED: u16 = 1_000;

#[derive(Debug)]
pub(super) struct SimLink {
    pub world: Shared,
    pub time: VirtualTime,
    /// What it delivers again has another number.
    pub renumbers: bool,
}

impl Link for SimLink {
    fn start(&self, events: mpsc::Sender<LinkEvent>) -> mpsc::Sender<LinkCommand> {
        let (commands, mut queue) = mpsc::channel(64);
        let (world, time, renumbers) = (self.world.clone(), self.time, self.renumbers);
        tokio::spawn(async move {
            let Some(LinkCommand::Subscribe(_)) = queue.recv().await else {
                return;
            };
            let from = world.lock().unwrap().cloud_from;
            if from > time.now() {
                time.sleep_until(Some(from)).await;
            }
            let (mut generation, mut waiting) = {
                let mut world = world.lock().unwrap();
                world.connections += 1;
                if renumbers {
                    for delivery in &mut world.inbox {
                        delivery.packet += RENUMBERED;
                    }
                }
                (world.connections, world.inbox.clone())
            };
            let up = LinkEvent::Up {
                generation,
                session_present: true,
            };
            if events.send(up).await.is_err() {
                return;
            }
            loop {
                waiting.extend(world.lock().unwrap().take_due(time.now()));
                for delivery in waiting.drain(..) {
                    if events.send(message(generation, delivery)).await.is_err() {
                        return;
                    }
                }
                if let Some(next) = forgets(&world, time.now()) {
                    generation = next;
                    let reason = "the broker starts anew".to_owned();
                    let up = LinkEvent::Up {
                        generation,
                        session_present: false,
                    };
                    for event in [LinkEvent::Down { reason }, up] {
                        if events.send(event).await.is_err() {
                            return;
                        }
                    }
                }
                let due = world.lock().unwrap().next_due();
                let command = tokio::select! {
                    biased;
                    command = queue.recv() => command,
                    () = time.sleep_until(due) => continue,
                };
                let Some(command) = command else {
                    return;
                };
                if let Some(event) = obey(&world, command)
                    && events.send(event).await.is_err()
                {
                    return;
                }
            }
        });
        commands
    }

    fn kind(&self) -> Kind {
        Kind::Mqtt
    }
}

/// The broker forgets the session, where that is due; the next connection.
fn forgets(world: &Shared, now: u64) -> Option<u64> {
    let mut world = world.lock().unwrap();
    world.forgets.take_if(|at| *at <= now)?;
    world.inbox.clear();
    world.connections += 1;
    Some(world.connections)
}

fn message(generation: u64, delivery: Delivery) -> LinkEvent {
    let token = Token {
        generation,
        packet: delivery.packet,
    };
    LinkEvent::Message {
        token,
        topic: delivery.topic,
        payload: delivery.payload,
        duplicate: generation > 1,
        retained: false,
    }
}

fn obey(world: &Shared, command: LinkCommand) -> Option<LinkEvent> {
    let mut world = world.lock().unwrap();
    match command {
        LinkCommand::Subscribe(_) => None,
        LinkCommand::Publish {
            id,
            topic,
            payload,
            qos,
            ..
        } => {
            if qos > 0 {
                world.receive(topic, payload);
            }
            Some(LinkEvent::Delivered(id))
        }
        LinkCommand::Acknowledge(token) => {
            world.inbox.retain(|d| d.packet != token.packet);
            world.acknowledged += 1;
            Some(LinkEvent::Acknowledged(token))
        }
        // What is not said to a broker.
        _ => None,
    }
}
