//! The task behind a link: waits, connects, subscribes, and passes on. It never waits for one channel while it owes something to
//! another, so that an agent that is slow, or that waits for us, cannot make both stand still.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    ManualAck, PubAck, PubRec, PublishOptions, QoS, SubscribeFilterInput, SubscribeReasonCode,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::acks::Acks;
use super::backoff::Backoff;
use super::connection::{Connection, Ended, Wire};
use super::names::{check_filter, check_topic};
use super::silence::Silence;
use super::subscriptions::{Request, Subscriptions};
use super::{MAX_PAYLOAD, MqttOptions, WINDOW, place};
use crate::{LinkCommand, LinkEvent, Token};

/// Events the agent has not taken; at this many the link stops reading from the broker.
const BACKLOG: usize = 16;

/// With this many events not taken, the link takes no commands any more, either.
const MOST_EVENTS: usize = 1_024;

/// Publications waiting for the window; at this many the link stops taking commands.
const WAITING: usize = 32;

/// How long a link that is told to end waits for its last publications.
const FAREWELL: Duration = Duration::from_secs(2);

/// A publication the window has no room for yet.
struct Waiting {
    id: u64,
    topic: String,
    payload: Bytes,
    qos: QoS,
    retain: bool,
}

/// The broker's answer to something sent.
enum Answer {
    Published {
        id: u64,
        delivered: bool,
    },
    Subscribed {
        filters: Vec<String>,
        codes: Option<Vec<SubscribeReasonCode>>,
    },
    Unsubscribed {
        filters: Vec<String>,
        done: bool,
    },
}

/// How a connection, or the wait for one, came to its end.
enum Turn {
    Ended(Ended),
    /// The agent closed a channel.
    Finished,
}

pub(super) struct Driver {
    options: MqttOptions,
    client: rumqttc::MqttOptions,
    place: String,
    backoff: Backoff,
    events: mpsc::Sender<LinkEvent>,
    commands: mpsc::Receiver<LinkCommand>,
    backlog: VecDeque<LinkEvent>,
    subscriptions: Subscriptions,
    generation: u64,
    /// The last reason said in a `Down` while no connection succeeded since.
    told: Option<String>,
    /// Size of the packet over our limit that ended the last connection.
    oversize: Option<usize>,
}

/// What belongs to one connection and is forgotten with it.
struct Session {
    connection: Connection,
    answers: JoinSet<Answer>,
    acks: Acks,
    waiting: VecDeque<Waiting>,
    in_flight: usize,
    /// Set at CONNACK.
    session_present: Option<bool>,
    up_since: Option<Instant>,
    /// CONNACK and SUBACKs must be there by then.
    deadline: Option<Instant>,
    /// Both queues are full since: the agent waits for us, and we for it.
    stuck_since: Option<Instant>,
    silence: Silence,
}

impl Driver {
    pub(super) fn new(
        options: MqttOptions,
        client: rumqttc::MqttOptions,
        backoff: Backoff,
        events: mpsc::Sender<LinkEvent>,
        commands: mpsc::Receiver<LinkCommand>,
    ) -> Self {
        Self {
            place: place(&options.url),
            options,
            client,
            backoff,
            events,
            commands,
            backlog: VecDeque::new(),
            subscriptions: Subscriptions::default(),
            generation: 0,
            told: None,
            oversize: None,
        }
    }

    /// Runs until the agent closes a channel.
    pub(super) async fn run(mut self) {
        let mut wait = Duration::ZERO;
        let mut empty_session = false;
        loop {
            if self.wait(wait).await {
                return;
            }
            if empty_session {
                match self.empty_session().await {
                    Ok(()) => {
                        empty_session = false;
                        wait = Duration::ZERO;
                    }
                    Err(ended) => {
                        self.down(ended.reason, false);
                        wait = self.backoff.next_wait(Duration::ZERO);
                    }
                }
                continue;
            }
            self.generation += 1;
            let (turn, was_up) = self.connect().await;
            let Turn::Ended(ended) = turn else {
                return self.last_words();
            };
            if ended.oversize.is_some() && ended.oversize == self.oversize {
                warn!(
                    broker = %self.place,
                    bytes = ended.oversize,
                    "a message over the limit ended two connections in a row; the next one empties the broker's session, what waits in it is lost"
                );
                empty_session = true;
                self.oversize = None;
            } else {
                self.oversize = ended.oversize;
            }
            wait = self.backoff.next_wait(was_up.unwrap_or(Duration::ZERO));
            info!(broker = %self.place, reason = %ended.reason, next_ms = wait.as_millis(), "not connected");
            self.down(ended.reason, was_up.is_some());
        }
    }

    /// What the agent may still want to know, if it listens: publications that arrived are not to be sent again.
    fn last_words(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if self.events.try_send(event).is_err() {
                return;
            }
        }
    }

    /// Says `Down` after a connection that was up, and else once per reason.
    fn down(&mut self, reason: String, was_up: bool) {
        let reason = format!("{}: {reason}", self.place);
        if was_up || self.told.as_ref() != Some(&reason) {
            self.told = Some(reason.clone());
            self.backlog.push_back(LinkEvent::Down { reason });
        }
    }

    /// Hands the next event to the agent.
    fn pass_on(&mut self) {
        if let Some(event) = self.backlog.pop_front()
            && let Err(TrySendError::Full(event)) = self.events.try_send(event)
        {
            // Another link was quicker to take the room.
            self.backlog.push_front(event);
        }
    }

    /// Waits before a connection; says whether the link is to end. What is to be published meanwhile is forgotten.
    async fn wait(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                there = agent_has_room(&self.events), if !self.backlog.is_empty() => {
                    if !there {
                        return true;
                    }
                    self.pass_on();
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.command_while_down(command),
                    None => return true,
                },
                () = self.events.closed() => return true,
                // A connection only makes sense when its messages can be passed on.
                () = sleep_until(until), if self.backlog.len() < BACKLOG => return false,
            }
        }
    }

    fn command_while_down(&mut self, command: LinkCommand) {
        match command {
            LinkCommand::Subscribe(filters) => self.desire(filters),
            LinkCommand::Publish {
                id,
                topic,
                payload,
                qos,
                ..
            } => {
                if let Err(reason) = check_publication(&topic, &payload, qos) {
                    self.undeliverable(id, reason);
                }
            }
            _ => {}
        }
    }

    fn undeliverable(&mut self, id: u64, reason: String) {
        // Over the limit it is forgotten like any other publication: the agent sends it again and is told then.
        if self.backlog.len() < MOST_EVENTS {
            self.backlog
                .push_back(LinkEvent::Undeliverable { id, reason });
        }
    }

    fn desire(&mut self, filters: Vec<String>) {
        let place = &self.place;
        self.subscriptions
            .desire(
                filters
                    .into_iter()
                    .filter(|filter| match check_filter(filter) {
                        Ok(()) => true,
                        Err(problem) => {
                            warn!(broker = %place, %filter, "topic filter left out: {problem}");
                            false
                        }
                    }),
            );
    }

    /// One connection with `clean_session = true`: the broker throws away what it holds for us.
    async fn empty_session(&mut self) -> Result<(), Ended> {
        let mut connection =
            Connection::open(self.client.clone(), true, self.options.connect_timeout);
        let result = match connection.wire.recv().await {
            Some(Wire::Connected { .. }) => Ok(()),
            Some(Wire::Ended(ended)) => Err(ended),
            _ => Err(Ended::because("the broker spoke before its CONNACK")),
        };
        if result.is_ok() {
            // A DISCONNECT is a courtesy: the session is gone already.
            let _ = connection.client.try_disconnect_now();
            let _ = tokio::time::timeout(FAREWELL, async {
                while connection.wire.recv().await.is_some() {}
            })
            .await;
        }
        connection.close().await;
        result
    }

    /// One connection from its beginning to its end, and how long it was up.
    async fn connect(&mut self) -> (Turn, Option<Duration>) {
        let connection = Connection::open(self.client.clone(), false, self.options.connect_timeout);
        let silence = Silence::new(connection.heard.clone(), self.options.keep_alive);
        let mut session = Session {
            connection,
            answers: JoinSet::new(),
            acks: Acks::default(),
            waiting: VecDeque::new(),
            in_flight: 0,
            session_present: None,
            up_since: None,
            // The client has its own limit up to the CONNACK; this one is for the SUBACKs.
            deadline: None,
            stuck_since: None,
            silence,
        };
        let turn = self.serve(&mut session).await;
        let was_up = session.up_since.map(|since| since.elapsed());
        let Session {
            connection,
            mut answers,
            ..
        } = session;
        connection.close().await;
        // The client is gone, so each of these is answered already: delivered ones must not be sent again.
        while let Some(answer) = answers.join_next().await {
            if let Ok(Answer::Published {
                id,
                delivered: true,
            }) = answer
            {
                self.backlog.push_back(LinkEvent::Delivered(id));
            }
        }
        (turn, was_up)
    }

    async fn serve(&mut self, session: &mut Session) -> Turn {
        loop {
            self.send_what_can_go(session);
            let full = self.backlog.len() >= BACKLOG;
            let crowded = session.waiting.len() >= WAITING || self.backlog.len() >= MOST_EVENTS;
            session.stuck_since = if full && crowded {
                session.stuck_since.or_else(|| Some(Instant::now()))
            } else {
                None
            };
            let stuck = session.stuck_since.map(|at| at + self.options.keep_alive);
            // While nobody reads, the silence is ours.
            let silent = session.silence.until().filter(|_| !full);
            let limits = [session.deadline, stuck, silent];
            let limit = limits.into_iter().flatten().min();
            tokio::select! {
                there = agent_has_room(&self.events), if !self.backlog.is_empty() => {
                    if !there {
                        return farewell(session).await;
                    }
                    self.pass_on();
                }
                wire = session.connection.wire.recv(), if !full => match wire {
                    Some(Wire::Ended(ended)) => return Turn::Ended(ended),
                    Some(wire) => self.wire(session, wire),
                    None => return Turn::Ended(Ended::because("the client stopped")),
                },
                Some(answer) = session.answers.join_next(), if !session.answers.is_empty() => {
                    if let Ok(answer) = answer {
                        self.answer(session, answer);
                    }
                }
                command = self.commands.recv(), if !crowded => match command {
                    Some(command) => self.command(session, command),
                    None => return farewell(session).await,
                },
                () = self.events.closed() => return farewell(session).await,
                () = sleep_until(limit.unwrap_or_else(Instant::now)), if limit.is_some() => {
                    if limit == silent {
                        if !session.connection.wire.is_empty() {
                            session.silence.ends();
                        } else if session.silence.until() == silent {
                            return Turn::Ended(Ended::because(format!(
                                "the broker has answered nothing for {} s",
                                self.options.keep_alive.as_secs()
                            )));
                        }
                        continue;
                    }
                    return Turn::Ended(Ended::because(if session.stuck_since.is_some() {
                        "the agent takes no events but sends publications; the connection was given up to get unstuck"
                    } else {
                        "the broker did not answer SUBSCRIBE in time"
                    }));
                }
            }
        }
    }

    fn wire(&mut self, session: &mut Session, wire: Wire) {
        match wire {
            Wire::Connected { session_present } => {
                session.session_present = Some(session_present);
                session.deadline = Some(Instant::now() + self.options.connect_timeout);
                self.subscriptions.connected(session_present);
                self.subscribe(session);
            }
            Wire::Message(publish) => self.message(session, &publish),
            Wire::AckWritten(packet) => {
                if session.acks.written(packet) {
                    self.backlog.push_back(LinkEvent::Acknowledged(Token {
                        generation: self.generation,
                        packet,
                    }));
                }
            }
            Wire::Ended(_) => unreachable!("the last event is handled by the caller"),
        }
    }

    fn message(&mut self, session: &mut Session, publish: &rumqttc::Publish) {
        let exactly_once = publish.qos == QoS::ExactlyOnce;
        let topic = match std::str::from_utf8(&publish.topic) {
            Ok(topic) if publish.payload.len() <= MAX_PAYLOAD => topic.to_owned(),
            _ => {
                warn!(broker = %self.place, bytes = publish.payload.len(), "a message over 256 KiB, or whose topic is not UTF-8, was acknowledged and dropped");
                session.acks.refused(publish.pkid, exactly_once);
                return;
            }
        };
        session.acks.received(publish.pkid, exactly_once);
        self.backlog.push_back(LinkEvent::Message {
            token: Token {
                generation: self.generation,
                packet: publish.pkid,
            },
            topic,
            payload: publish.payload.to_vec(),
            duplicate: publish.dup,
            retained: publish.retain,
        });
    }

    fn answer(&mut self, session: &mut Session, answer: Answer) {
        match answer {
            Answer::Published { id, delivered } => {
                session.in_flight = session.in_flight.saturating_sub(1);
                // One that failed is forgotten: the connection is about to end, and the agent sends it again.
                if delivered {
                    self.backlog.push_back(LinkEvent::Delivered(id));
                }
            }
            Answer::Subscribed { filters, codes } => {
                let Some(codes) = codes else { return };
                for (filter, code) in filters.iter().zip(codes) {
                    if code == SubscribeReasonCode::Failure {
                        warn!(broker = %self.place, %filter, "the broker refused this topic filter; its access list must allow it");
                    }
                }
                self.subscriptions.subscribed();
                self.subscribe(session);
            }
            Answer::Unsubscribed { filters, done } => {
                if done {
                    self.subscriptions.unsubscribed(&filters);
                    self.subscribe(session);
                }
            }
        }
    }

    /// Sends what the set of filters needs next, and says `Up` when the first set is there.
    fn subscribe(&mut self, session: &mut Session) {
        let Some(session_present) = session.session_present else {
            return;
        };
        for request in self.subscriptions.next_requests() {
            let client = &session.connection.client;
            match request {
                Request::Subscribe(filters) => {
                    let inputs = filters
                        .iter()
                        .map(|filter| SubscribeFilterInput::new(filter.clone(), QoS::AtLeastOnce));
                    let Ok(notice) = client.try_subscribe_many_tracked(inputs) else {
                        return;
                    };
                    session.answers.spawn(async move {
                        let codes = notice
                            .wait_async()
                            .await
                            .ok()
                            .map(|suback| suback.return_codes);
                        Answer::Subscribed { filters, codes }
                    });
                }
                Request::Unsubscribe(filters) => {
                    let Ok(notice) = client.try_unsubscribe_many_tracked(filters.clone()) else {
                        return;
                    };
                    session.answers.spawn(async move {
                        let done = notice.wait_async().await.is_ok();
                        Answer::Unsubscribed { filters, done }
                    });
                }
            }
        }
        if session.up_since.is_none() && self.subscriptions.settled() {
            // What was sent before this `Up` was meant for an earlier connection; the agent sends it again now.
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    LinkCommand::Subscribe(filters) => {
                        self.desire(filters);
                        return self.subscribe(session);
                    }
                    LinkCommand::Acknowledge(token) => self.acknowledge(session, token),
                    other => self.command_while_down(other),
                }
            }
            session.up_since = Some(Instant::now());
            session.deadline = None;
            self.told = None;
            info!(broker = %self.place, generation = self.generation, session_present, "connected and subscribed");
            self.backlog.push_back(LinkEvent::Up {
                generation: self.generation,
                session_present,
            });
        }
    }

    fn command(&mut self, session: &mut Session, command: LinkCommand) {
        match command {
            LinkCommand::Subscribe(filters) => {
                self.desire(filters);
                self.subscribe(session);
            }
            LinkCommand::Acknowledge(token) => self.acknowledge(session, token),
            LinkCommand::Publish {
                id,
                topic,
                payload,
                qos,
                retain,
            } => {
                if let Err(reason) = check_publication(&topic, &payload, qos) {
                    self.undeliverable(id, reason);
                } else if session.up_since.is_some() {
                    let qos = if qos == 0 {
                        QoS::AtMostOnce
                    } else {
                        QoS::AtLeastOnce
                    };
                    session.waiting.push_back(Waiting {
                        id,
                        topic,
                        payload: payload.into(),
                        qos,
                        retain,
                    });
                }
            }
            // What is not said to a broker.
            _ => {}
        }
    }

    fn acknowledge(&self, session: &mut Session, token: Token) {
        if token.generation == self.generation {
            session.acks.acknowledge(token.packet);
        } else {
            debug!(broker = %self.place, ?token, "acknowledgement of an earlier connection ignored");
        }
    }

    fn send_what_can_go(&self, session: &mut Session) {
        let client = &session.connection.client;
        session.acks.release(|packet, exactly_once| {
            let ack = if exactly_once {
                ManualAck::PubRec(PubRec::new(packet))
            } else {
                ManualAck::PubAck(PubAck::new(packet))
            };
            client.try_manual_ack(ack).is_ok()
        });
        while session.in_flight < WINDOW {
            let Some(Waiting {
                id,
                topic,
                payload,
                mut qos,
                retain,
            }) = session.waiting.pop_front()
            else {
                break;
            };
            if session.silence.is_doubtful() {
                qos = QoS::AtLeastOnce;
            }
            let options = PublishOptions::new(qos).retain(retain);
            // It cannot fail for lack of room (the window is smaller than the client's queue), so only because the connection ends.
            let Ok(notice) = client.try_publish_tracked(topic, payload, options) else {
                break;
            };
            if qos != QoS::AtMostOnce {
                session.silence.asked();
            }
            session.in_flight += 1;
            session.answers.spawn(async move {
                Answer::Published {
                    id,
                    delivered: notice.wait_async().await.is_ok(),
                }
            });
        }
    }
}

/// Waits until an event can be handed over; false when nobody listens any more.
async fn agent_has_room(events: &mpsc::Sender<LinkEvent>) -> bool {
    events.reserve().await.is_ok()
}

/// The agent ends the link: lets what is in flight arrive and says goodbye, in bounded time.
async fn farewell(session: &mut Session) -> Turn {
    let _ = session
        .connection
        .client
        .try_disconnect_with_timeout(FAREWELL);
    let wire = &mut session.connection.wire;
    let _ = tokio::time::timeout(FAREWELL * 2, async {
        while let Some(event) = wire.recv().await {
            if matches!(event, Wire::Ended(_)) {
                break;
            }
        }
    })
    .await;
    Turn::Finished
}

fn check_publication(topic: &str, payload: &[u8], qos: u8) -> Result<(), String> {
    check_topic(topic).map_err(|problem| format!("the topic cannot be sent: {problem}"))?;
    if payload.len() > MAX_PAYLOAD {
        return Err(format!(
            "the payload has {} bytes; the limit is {MAX_PAYLOAD} bytes",
            payload.len()
        ));
    }
    if qos > 1 {
        return Err(format!("QoS {qos} is not supported; use 0 or 1"));
    }
    Ok(())
}
