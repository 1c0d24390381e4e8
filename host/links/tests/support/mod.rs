//! What the MQTT tests share: both brokers behind one type, a link with its events, and plain clients for the other side.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "tests; not every file uses all of it"
)]

use std::time::Duration;

use otahost_lab::broker::Broker;
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::proxy::Proxy;
use otahost_links::mqtt::{MqttLink, MqttOptions};
use otahost_links::{Link, LinkCommand, LinkEvent, Token};
use rumqttc::{AsyncClient, Event, Packet, PublishOptions, QoS};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// No step of a test takes this long unless something is wrong.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The same test body runs against both.
pub(crate) enum AnyBroker {
    /// Embedded rumqttd.
    Embedded(Broker),
    /// The real mosquitto.
    Mosquitto(Mosquitto),
}

impl AnyBroker {
    pub(crate) fn embedded() -> Self {
        Self::Embedded(Broker::start())
    }

    pub(crate) fn mosquitto() -> Self {
        Self::Mosquitto(Mosquitto::start().unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Embedded(broker) => broker.port(),
            Self::Mosquitto(broker) => broker.port(),
        }
    }

    /// Connections break, sessions are forgotten.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Embedded(broker) => broker.stop(),
            Self::Mosquitto(broker) => broker.kill(),
        }
    }

    pub(crate) fn restart(&mut self) {
        match self {
            Self::Embedded(broker) => broker.restart(),
            Self::Mosquitto(broker) => broker.restart().unwrap(),
        }
    }
}

/// A started link and its events so far.
pub(crate) struct Running {
    pub(crate) commands: mpsc::Sender<LinkCommand>,
    pub(crate) events: mpsc::Receiver<LinkEvent>,
}

pub(crate) fn options(port: u16) -> MqttOptions {
    MqttOptions {
        backoff_first: Duration::from_millis(20),
        backoff_max: Duration::from_millis(200),
        jitter_seed: Some(7),
        keep_alive: Duration::from_secs(5),
        ..MqttOptions::new(format!("mqtt://127.0.0.1:{port}").parse().unwrap(), "gw-7")
    }
}

impl Running {
    pub(crate) fn start(options: MqttOptions) -> Self {
        let (sender, events) = mpsc::channel(64);
        let commands = MqttLink::new(options).unwrap().start(sender);
        Self { commands, events }
    }

    /// Starts, subscribes, and waits for the first `Up`.
    pub(crate) async fn up(options: MqttOptions, filters: &[&str]) -> Self {
        let mut link = Self::start(options);
        link.subscribe(filters).await;
        link.wait_up().await;
        link
    }

    pub(crate) async fn subscribe(&self, filters: &[&str]) {
        self.commands
            .send(LinkCommand::Subscribe(
                filters.iter().map(ToString::to_string).collect(),
            ))
            .await
            .unwrap();
    }

    pub(crate) async fn publish(&self, id: u64, topic: &str, payload: Vec<u8>, qos: u8) {
        self.commands
            .send(LinkCommand::Publish {
                id,
                topic: topic.into(),
                payload,
                qos,
                retain: false,
            })
            .await
            .unwrap();
    }

    pub(crate) async fn acknowledge(&self, token: Token) {
        self.commands
            .send(LinkCommand::Acknowledge(token))
            .await
            .unwrap();
    }

    pub(crate) async fn next(&mut self) -> LinkEvent {
        timeout(LIMIT, self.events.recv())
            .await
            .expect("an event in time")
            .expect("the link lives")
    }

    /// Takes events until one fits; the others are dropped.
    pub(crate) async fn until<T>(&mut self, mut pick: impl FnMut(LinkEvent) -> Option<T>) -> T {
        loop {
            let event = self.next().await;
            if let Some(found) = pick(event) {
                return found;
            }
        }
    }

    /// Waits for `Up`; gives the generation and whether the session was there.
    pub(crate) async fn wait_up(&mut self) -> (u64, bool) {
        self.until(|event| match event {
            LinkEvent::Up {
                generation,
                session_present,
            } => Some((generation, session_present)),
            _ => None,
        })
        .await
    }

    /// Waits for the next `Up` and the next message, whichever comes first: what a broker kept may come before `Up`.
    pub(crate) async fn wait_up_and_message(&mut self) -> (Token, Vec<u8>) {
        let (mut up, mut message) = (false, None);
        loop {
            match self.next().await {
                LinkEvent::Up { .. } => up = true,
                LinkEvent::Message { token, payload, .. } => message = Some((token, payload)),
                _ => {}
            }
            if up && let Some(message) = message.take() {
                return message;
            }
        }
    }

    pub(crate) async fn wait_down(&mut self) -> String {
        self.until(|event| match event {
            LinkEvent::Down { reason } => Some(reason),
            _ => None,
        })
        .await
    }

    pub(crate) async fn wait_delivered(&mut self, wanted: u64) {
        self.until(|event| (event == LinkEvent::Delivered(wanted)).then_some(()))
            .await;
    }

    /// The next message, as its token, topic, payload and DUP flag.
    pub(crate) async fn wait_message(&mut self) -> (Token, String, Vec<u8>, bool) {
        self.until(|event| match event {
            LinkEvent::Message {
                token,
                topic,
                payload,
                duplicate,
                ..
            } => Some((token, topic, payload, duplicate)),
            _ => None,
        })
        .await
    }
}

/// The other side: a plain client whose messages come by a channel. Ends with its value.
pub(crate) struct Peer {
    pub(crate) client: AsyncClient,
    pub(crate) messages: mpsc::Receiver<(String, Vec<u8>)>,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Connects, and subscribes when a filter is given.
    pub(crate) async fn connect(port: u16, client_id: &str, filter: Option<&str>) -> Self {
        let mut options = rumqttc::MqttOptions::new(client_id, ("127.0.0.1", port));
        options.set_max_packet_size(1 << 24, 1 << 24);
        let (client, mut event_loop) = AsyncClient::builder(options).build();
        let (sender, messages) = mpsc::channel(1_000);
        let task = tokio::spawn(async move {
            while let Ok(event) = event_loop.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event {
                    let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                    if sender
                        .send((topic, publish.payload.to_vec()))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
        });
        if let Some(filter) = filter {
            let notice = client
                .subscribe_tracked(filter, QoS::AtLeastOnce)
                .await
                .unwrap();
            timeout(LIMIT, notice.wait_completion_async())
                .await
                .expect("a SUBACK in time")
                .unwrap();
        }
        Self {
            client,
            messages,
            task,
        }
    }

    /// Publishes and waits until the broker has it.
    pub(crate) async fn publish(&self, topic: &str, payload: Vec<u8>) {
        self.publish_with(topic, payload, PublishOptions::at_least_once())
            .await;
    }

    pub(crate) async fn publish_with(
        &self,
        topic: &str,
        payload: Vec<u8>,
        options: PublishOptions,
    ) {
        let notice = self
            .client
            .publish_tracked(topic, payload, options)
            .await
            .unwrap();
        timeout(LIMIT, notice.wait_completion_async())
            .await
            .expect("a PUBACK in time")
            .unwrap();
    }

    pub(crate) async fn next(&mut self) -> (String, Vec<u8>) {
        timeout(LIMIT, self.messages.recv())
            .await
            .expect("a message in time")
            .expect("the peer lives")
    }
}

/// A proxy in front of a broker.
pub(crate) fn proxy(broker: &AnyBroker) -> Proxy {
    Proxy::to_port(broker.port())
}
