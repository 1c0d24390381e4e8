//! Anybody at the other side of a broker: says what it is told to say, and keeps what it hears. For protocols without a cloud of
//! their own in this lab.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, PublishOptions, QoS,
};

use crate::ids::uuid;

/// How long the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to connect.
const RECONNECT: Duration = Duration::from_millis(100);
const LARGEST_PACKET: usize = 4 * 1024 * 1024;
/// What may be said before the broker took it.
const CAPACITY: usize = 65_536;

/// Why it cannot speak or hear.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// There is no broker, or it does not let it subscribe.
    #[error("a peer waited {0:?} for its subscription")]
    Deaf(Duration),
    /// The MQTT client has ended.
    #[error("a peer's MQTT client: {0}")]
    Client(String),
}

/// A client of a broker on 127.0.0.1, with a persistent session of its own. It disconnects when dropped.
pub struct Peer {
    client: AsyncClient,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    subscribed: usize,
    heard: Vec<(String, Vec<u8>)>,
    closing: bool,
}

impl Peer {
    /// Connects and subscribes. Nothing that is published to the filter after this returns is missed, while the broker keeps its
    /// sessions.
    ///
    /// # Errors
    /// When there is no broker, or it does not let it subscribe.
    pub fn connect(port: u16, filter: &str) -> Result<Self, PeerError> {
        Self::connect_as(port, &format!("lab-peer-{}", &uuid()[..8]), filter)
    }

    /// The same under a client id of one's choice: somebody else's, for one.
    ///
    /// # Errors
    /// As [`connect`](Peer::connect).
    pub fn connect_as(port: u16, client_id: &str, filter: &str) -> Result<Self, PeerError> {
        let mut options = MqttOptions::new(client_id, ("127.0.0.1", port));
        options
            .set_clean_session(false)
            .set_keep_alive(30)
            .set_max_packet_size(LARGEST_PACKET, LARGEST_PACKET);
        let (client, mut events) = AsyncClient::builder(options).capacity(CAPACITY).build();
        // Without it every publication waits for the broker's delayed acknowledgement of the last one.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let shared = Arc::new(Shared::default());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| PeerError::Client(e.to_string()))?;
        let (speaker, told, filter) = (client.clone(), Arc::clone(&shared), filter.to_owned());
        let thread = thread::spawn(move || runtime.block_on(listen(speaker, told, filter, events)));
        let peer = Peer {
            client,
            shared,
            thread: Some(thread),
        };
        let subscribed = peer.wait(CONNECT_TIMEOUT, |state| state.subscribed > 0);
        if subscribed {
            Ok(peer)
        } else {
            Err(PeerError::Deaf(CONNECT_TIMEOUT))
        }
    }

    /// Publishes at QoS 1. What is said while the broker is away is said when it is back.
    ///
    /// # Errors
    /// When the client has ended, or too much waits for the broker.
    pub fn say(&self, topic: &str, payload: impl Into<Vec<u8>>) -> Result<(), PeerError> {
        let options = PublishOptions::at_least_once();
        let said = self
            .client
            .try_publish(topic.to_owned(), payload.into(), options);
        said.map_err(|e| PeerError::Client(e.to_string()))
    }

    /// How often the broker has let it subscribe: once for each connection.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.state().subscribed
    }

    /// Topic and payload of all it has heard, in order, copies included.
    #[must_use]
    pub fn heard(&self) -> Vec<(String, Vec<u8>)> {
        self.shared.state().heard.clone()
    }

    /// Waits until what it has heard answers to a condition. Says whether it did within the limit.
    #[must_use]
    pub fn wait_for(
        &self,
        limit: Duration,
        mut condition: impl FnMut(&[(String, Vec<u8>)]) -> bool,
    ) -> bool {
        self.wait(limit, |state| condition(&state.heard))
    }

    fn wait(&self, limit: Duration, mut condition: impl FnMut(&State) -> bool) -> bool {
        let state = self.shared.state();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| !condition(state))
            .unwrap_or_else(PoisonError::into_inner);
        condition(&state)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        // With a full channel the thread ends at its next event instead; it is not waited for then.
        if self.client.try_disconnect_now().is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(client: AsyncClient, shared: Arc<Shared>, filter: String, mut events: EventLoop) {
    loop {
        match events.poll().await {
            // Subscribed anew on every connection: the broker may have lost the session.
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                if let Err(error) = client.try_subscribe(filter.clone(), QoS::AtLeastOnce) {
                    tracing::warn!("a peer cannot subscribe: {error}");
                }
            }
            Ok(Event::Incoming(Packet::SubAck(_))) => shared.state().subscribed += 1,
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                let payload = publish.payload.to_vec();
                shared.state().heard.push((topic, payload));
            }
            Ok(_) => continue,
            Err(error) => {
                if shared.state().closing {
                    return;
                }
                tracing::debug!("a peer's connection: {error}");
                tokio::time::sleep(RECONNECT).await;
                continue;
            }
        }
        shared.changed.notify_all();
    }
}
