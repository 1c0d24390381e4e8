//! The harness's own MQTT client: tells a device something and notes when it hears of it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use otahost_lab::ids::uuid;
use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, PublishOptions, QoS,
    SubscribeFilter,
};

use crate::Failed;

/// For a connection and its subscription.
const CONNECT: Duration = Duration::from_secs(20);
/// Publications that may wait in the client.
const WAITING: usize = 4_096;

/// A message, and when it came.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// A connected client.
pub(crate) struct Client {
    client: AsyncClient,
    heard: Receiver<Option<Heard>>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Connects to the broker at this port and subscribes to these topics.
    ///
    /// # Errors
    /// When the broker does not take it.
    pub(crate) fn connect(port: u16, topics: &[String]) -> Result<Self, Failed> {
        let mut options = MqttOptions::new(format!("bench-{}", uuid()), ("127.0.0.1", port));
        options.set_keep_alive(30);
        let (client, mut events) = AsyncClient::builder(options).capacity(WAITING).build();
        // What is measured shall not be how the kernel gathers small packets.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let (tell, heard) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let filters = topics
            .iter()
            .map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce));
        client.try_subscribe_many(filters)?;
        let thread = thread::spawn(move || runtime.block_on(listen(events, &tell)));
        let client = Client {
            client,
            heard,
            thread: Some(thread),
        };
        // The first word says that the subscription stands.
        match client.heard.recv_timeout(CONNECT) {
            Ok(None) => Ok(client),
            _ => Err("the broker does not take the harness's subscription".into()),
        }
    }

    /// Publishes at QoS 1.
    ///
    /// # Errors
    /// When too much waits already.
    pub(crate) fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<(), Failed> {
        let payload: Vec<u8> = payload.into();
        Ok(self
            .client
            .try_publish(topic.to_owned(), payload, PublishOptions::at_least_once())?)
    }

    /// The next message.
    ///
    /// # Errors
    /// When none comes in time.
    pub(crate) fn next(&self, patience: Duration) -> Result<Heard, Failed> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(Some(heard)) => return Ok(heard),
                Ok(None) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("no message within {patience:?}").into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err("the connection to the broker broke".into());
                }
            }
        }
    }

    /// A message that is there already.
    pub(crate) fn at_hand(&self) -> Option<Heard> {
        self.heard.try_iter().flatten().next()
    }

    /// Says `word` on `topic` again and again until something comes on `answers`: then somebody listens.
    ///
    /// # Errors
    /// When nothing comes.
    pub(crate) fn await_listener(
        &self,
        topic: &str,
        word: &str,
        patience: Duration,
    ) -> Result<(), Failed> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            self.publish(topic, word)?;
            if self.next(Duration::from_millis(500)).is_ok() {
                // What was said more than once is answered more than once.
                while self.next(Duration::from_millis(500)).is_ok() {}
                return Ok(());
            }
        }
        Err(format!("nobody answers on {topic}").into())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.client.try_disconnect_now().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

async fn listen(mut events: EventLoop, tell: &Sender<Option<Heard>>) {
    // The first error ends it: a harness that reconnects would hide what it lost.
    while let Ok(event) = events.poll().await {
        let word = match event {
            Event::Incoming(Packet::SubAck(_)) => None,
            Event::Incoming(Packet::Publish(publish)) => Some(Heard {
                at: Instant::now(),
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.to_vec(),
            }),
            _ => continue,
        };
        if tell.send(word).is_err() {
            return;
        }
    }
}
