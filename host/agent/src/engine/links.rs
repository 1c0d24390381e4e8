//! Links: messages in, publications and acknowledgements out.

use std::collections::BTreeSet;

use aws_lc_rs::digest;
use otahost_core::model::{
    Event, LinkState as LinkReport, ListingOutcome, MAX_PAYLOAD, Message, Publication, RouteNeed,
};
use otahost_core::topics;
use otahost_journal::{Change, Key, json};
use otahost_links::{Kind, LinkCommand, LinkEvent, Token};
use tokio::sync::mpsc;

use super::acks::{Acks, Received};
use super::outbox::Outbox;
use super::rows::{InboxRow, SeenRow};
use super::steps::{Origin, Queued};
use super::{Engine, Input, Release};

/// Events of one link that may wait for the engine. A link that finds no room stops reading.
const LINK_EVENTS: usize = 64;

/// What the engine knows of a link.
#[derive(Debug)]
pub(super) struct LinkState {
    commands: mpsc::UnboundedSender<LinkCommand>,
    pub(super) kind: Kind,
    pub(super) acks: Acks,
    pub(super) outbox: Outbox,
    pub(super) up: bool,
    pub(super) reason: String,
    /// By the wall clock.
    pub(super) since: u64,
    pub(super) dropped: u64,
}

/// Lower-case hex of a SHA-256.
pub(super) fn sha256_hex(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Engine {
    /// Starts every link that an adapter uses, with what the adapters subscribe.
    pub(super) fn start_links(&mut self) {
        let now = self.now();
        for (name, link) in &self.platform.links {
            let (events_in, mut events) = mpsc::channel(LINK_EVENTS);
            let bounded = link.start(events_in);
            // The engine must never wait for a link that waits for the engine: commands queue here, bounded by the outbox's
            // window and by the messages that are not acknowledged.
            let (commands, mut queued) = mpsc::unbounded_channel();
            tokio::spawn(async move {
                while let Some(command) = queued.recv().await {
                    if bounded.send(command).await.is_err() {
                        break;
                    }
                }
            });
            let inputs = self.outside_sender.clone();
            let link_name = name.clone();
            tokio::spawn(async move {
                while let Some(event) = events.recv().await {
                    if inputs
                        .send(Input::Link(link_name.clone(), event))
                        .await
                        .is_err()
                    {
                        break;
                    }
                }
            });
            // The receiver lives as long as the relay task.
            if let Some(wanted) = self.wanted_of(name, link.kind()) {
                let _ = commands.send(wanted);
            }
            let state = self
                .links
                .entry(name.clone())
                .or_insert_with(|| LinkState::new(link.kind(), commands.clone()));
            state.commands = commands;
            state.since = now;
        }
    }

    /// What a link has to be told of the adapters' wishes.
    fn wanted_of(&self, link: &str, kind: Kind) -> Option<LinkCommand> {
        match kind {
            Kind::Mqtt => {
                let topics = self.adapters.values();
                let subscriptions: BTreeSet<String> = topics
                    .flat_map(|a| &a.requirements().topics)
                    .filter(|needs| needs.link == link)
                    .flat_map(|needs| needs.subscribe.iter().cloned())
                    .collect();
                Some(LinkCommand::Subscribe(subscriptions.into_iter().collect()))
            }
            Kind::HttpServer => Some(LinkCommand::Serve(self.routes(link))),
            Kind::HttpClient | Kind::Ftps => None,
        }
    }

    /// Tells every link what the adapters want of it now.
    pub(super) fn tell_links_what_is_wanted(&self) {
        for (name, link) in &self.links {
            if let Some(wanted) = self.wanted_of(name, link.kind) {
                link.send(wanted);
            }
        }
    }

    /// What the adapters serve on a link.
    fn routes(&self, link: &str) -> Vec<RouteNeed> {
        let routes = self.adapters.values();
        routes
            .flat_map(|a| &a.requirements().routes)
            .filter(|need| need.link == link)
            .cloned()
            .collect()
    }

    pub(super) fn on_link(&mut self, link: &str, event: LinkEvent) {
        let now = self.now();
        let Some(state) = self.links.get_mut(link) else {
            return;
        };
        match event {
            LinkEvent::Up {
                generation,
                session_present,
            } => {
                tracing::info!(link, session_present, "link is up");
                state.up = true;
                state.reason.clear();
                state.since = now;
                state.outbox.set_up(true);
                let forgotten = if session_present {
                    Vec::new()
                } else {
                    state.acks.session_lost(generation)
                };
                for packet in forgotten {
                    self.discard(Key::Seen {
                        link: link.to_owned(),
                        packet,
                    });
                }
                if !session_present {
                    self.keep_what_was_left(link);
                }
                self.tell_link(link, true, session_present, String::new());
            }
            LinkEvent::Down { reason } => {
                let was_up = state.up;
                state.up = false;
                state.acks.disconnected();
                state.outbox.set_up(false);
                state.reason.clone_from(&reason);
                if was_up {
                    tracing::warn!(link, reason, "link is down; it tries again by itself");
                    state.since = now;
                    self.tell_link(link, false, false, reason);
                } else {
                    tracing::debug!(link, reason, "link is still down");
                }
            }
            LinkEvent::Message {
                token,
                topic,
                payload,
                duplicate,
                retained,
            } => {
                self.on_message(
                    token,
                    Message {
                        link: link.to_owned(),
                        topic,
                        payload,
                        duplicate,
                        retained,
                    },
                );
            }
            LinkEvent::Acknowledged(token) => {
                if state.acks.written(token) {
                    self.discard(Key::Seen {
                        link: link.to_owned(),
                        packet: token.packet,
                    });
                }
            }
            LinkEvent::Delivered(id) => {
                if state.outbox.done(id) {
                    self.discard(Key::Outbox { seq: id });
                }
            }
            LinkEvent::Request { id, request } => self.on_request(link, id, *request),
            LinkEvent::Withdrawn(id) => self.on_withdrawn(link, id),
            LinkEvent::Fetched {
                id,
                result,
                captured,
            } => self.on_answered(link, id, result, captured),
            LinkEvent::Listed { id, entries } => {
                let tag = String::new();
                self.on_listed(id, ListingOutcome { tag, entries });
            }
            LinkEvent::Undeliverable { id, reason } => {
                tracing::error!(
                    link,
                    reason,
                    "a publication can never be sent and is dropped"
                );
                state.dropped += 1;
                if state.outbox.done(id) {
                    self.discard(Key::Outbox { seq: id });
                }
            }
        }
    }

    fn tell_link(&mut self, link: &str, up: bool, session_present: bool, reason: String) {
        let users: Vec<String> = self
            .adapters
            .iter()
            .filter(|(_, a)| a.uses(link))
            .map(|(name, _)| name.clone())
            .collect();
        for adapter in users {
            let event = Event::Link(LinkReport {
                link: link.to_owned(),
                up,
                session_present,
                reason: reason.clone(),
            });
            self.queue(&adapter, Queued::new(event, Origin::Memory));
        }
    }

    fn on_message(&mut self, token: Token, message: Message) {
        let link = message.link.clone();
        let Some(state) = self.links.get_mut(&link) else {
            return;
        };
        let hash = sha256_hex(&[message.topic.as_bytes(), &message.payload]);
        let Received::New(number) = state.acks.received(token, &hash, message.duplicate) else {
            tracing::info!(
                link,
                topic = message.topic,
                "delivered again; it was handled before"
            );
            return;
        };
        let takers: Vec<String> = self
            .adapters
            .iter()
            .filter(|(_, a)| {
                a.requirements().topics.iter().any(|needs| {
                    needs.link == link
                        && needs
                            .subscribe
                            .iter()
                            .any(|filter| topics::matches(filter, &message.topic))
                })
            })
            .map(|(name, _)| name.clone())
            .collect();
        if takers.is_empty() || message.payload.len() > MAX_PAYLOAD {
            state.dropped += 1;
            tracing::warn!(
                link,
                topic = message.topic,
                bytes = message.payload.len(),
                "nobody takes this message; dropped"
            );
            self.commit(Vec::new(), vec![Release::Settle { link, number }]);
            return;
        }
        // It is consumed in the commit of its step: until then the broker is the inbox. What waits longer gets a row of its own, so that
        // it cannot stall what others wait for on the same link.
        if let [only] = takers.as_slice()
            && let Some(state) = self.adapters.get(only)
        {
            let idle = state.is_idle();
            let shares = self.adapters.values().filter(|a| a.uses(&link)).count() > 1;
            if idle || (token.packet != 0 && state.comes_to_it_soon(&message, shares)) {
                let (only, origin) = (only.clone(), Origin::Broker { link, number });
                self.queue(&only, Queued::new(Event::Message(message), origin));
                if !idle {
                    self.left_with_broker();
                }
                return;
            }
        }
        let (mut changes, mut releases) = (Vec::new(), Vec::new());
        for taker in &takers {
            let row = InboxRow {
                event: Event::Message(message.clone()),
                at: self.now(),
            };
            let room = self.keep_order(taker, &mut changes, &mut releases);
            let runs = self.runs(taker);
            if !runs {
                self.make_room(taker, &row, &mut changes);
            }
            let place = room.then(|| self.take_into_inbox(taker, &row)).flatten();
            match place {
                Some((n, origin)) => {
                    changes.push(Change::Put(
                        Key::Inbox {
                            adapter: taker.clone(),
                            n,
                        },
                        json(&row),
                    ));
                    self.queue(taker, Queued::new(row.event, origin));
                }
                // It stays with the broker, whose own window for unacknowledged messages bounds what waits here.
                None if runs && takers.len() == 1 && token.packet != 0 => {
                    self.queue(
                        taker,
                        Queued::new(row.event, Origin::Broker { link, number }),
                    );
                    return self.commit(changes, releases);
                }
                None => {
                    tracing::error!(adapter = taker, "the inbox is full; a message is dropped");
                    if let Some(state) = self.links.get_mut(&link) {
                        state.dropped += 1;
                    }
                }
            }
        }
        if !changes.is_empty() {
            changes.extend(self.remember(&link, number));
        }
        releases.push(Release::Settle { link, number });
        self.commit(changes, releases);
    }

    /// The row that tells a redelivery of this message.
    pub(super) fn remember(&self, link: &str, number: u64) -> Option<Change> {
        let (packet, hash) = self.links.get(link)?.acks.row(number)?;
        let row = SeenRow {
            hash: hash.to_owned(),
        };
        Some(Change::Put(
            Key::Seen {
                link: link.to_owned(),
                packet,
            },
            json(&row),
        ))
    }

    pub(super) fn enqueue(&mut self, id: u64, adapter: &str, publication: Publication) {
        if let Some(link) = self.links.get_mut(&publication.link) {
            link.outbox.push(id, adapter, publication);
        }
    }

    pub(super) fn pump_links(&mut self) {
        for state in self.links.values_mut() {
            for token in state.acks.ready() {
                let _ = state.commands.send(LinkCommand::Acknowledge(token));
            }
            for command in state.outbox.sendable() {
                let _ = state.commands.send(command);
            }
        }
    }
}

impl LinkState {
    /// Tells the link something. A link that has ended is told nothing.
    pub(super) fn send(&self, command: LinkCommand) {
        let _ = self.commands.send(command);
    }

    fn new(kind: Kind, commands: mpsc::UnboundedSender<LinkCommand>) -> Self {
        LinkState {
            commands,
            kind,
            acks: Acks::default(),
            outbox: Outbox::default(),
            up: false,
            reason: "not connected yet".into(),
            since: 0,
            dropped: 0,
        }
    }
}
