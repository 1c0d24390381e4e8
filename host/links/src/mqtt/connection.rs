//! One connection to the broker: a fresh client, its event loop in a task of its own, and what happens on the wire as a bounded
//! stream. The event loop may not be cancelled in the middle of a poll (a request it has taken would be lost), so nothing selects
//! over it: it runs until the connection ends.

use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, NetworkOptions, Outgoing,
    Packet, Publish, StateError,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::silence::Heard;

/// Events read ahead of the driver. Small, because each may hold a payload of the largest size.
const AHEAD: usize = 8;

/// What the driver must know of the wire.
#[derive(Debug)]
pub(super) enum Wire {
    /// CONNACK with success.
    Connected {
        session_present: bool,
    },
    Message(Publish),
    /// The acknowledgement of this packet was written and flushed.
    AckWritten(u16),
    /// The last event of a connection.
    Ended(Ended),
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// In words, without secrets.
    pub(super) reason: String,
    /// The broker sent a packet of this size, over our limit.
    pub(super) oversize: Option<usize>,
}

impl Ended {
    pub(super) fn because(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            oversize: None,
        }
    }
}

/// A connection that is being made, or is up. Dropping it cuts it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: AsyncClient,
    pub(super) wire: mpsc::Receiver<Wire>,
    /// When something of the broker was read last.
    pub(super) heard: Heard,
    task: JoinHandle<()>,
}

impl Connection {
    /// Starts to connect.
    pub(super) fn open(
        mut options: rumqttc::MqttOptions,
        clean_session: bool,
        timeout: Duration,
    ) -> Self {
        options.set_clean_session(clean_session);
        let (client, mut event_loop) = AsyncClient::builder(options)
            .capacity(super::COMMANDS)
            .build();
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(timeout.as_secs());
        network.set_tcp_nodelay(true);
        event_loop.set_network_options(network);
        let (sender, wire) = mpsc::channel(AHEAD);
        let heard = Heard::now();
        let task = tokio::spawn(poll_to_the_end(event_loop, sender, heard.clone(), timeout));
        Self {
            client,
            wire,
            heard,
            task,
        }
    }

    /// Cuts the connection if it still is there, and waits until the client is gone: after that every publication has its answer.
    pub(super) async fn close(mut self) {
        self.task.abort();
        // An error means aborted, which is what was asked for.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn poll_to_the_end(
    mut event_loop: EventLoop,
    wire: mpsc::Sender<Wire>,
    heard: Heard,
    timeout: Duration,
) {
    let ended = loop {
        let polled = event_loop.poll().await;
        if matches!(polled, Ok(Event::Incoming(_))) {
            heard.again();
        }
        let event = match polled {
            Ok(Event::Incoming(Packet::ConnAck(connack))) => Wire::Connected {
                session_present: connack.session_present,
            },
            Ok(Event::Incoming(Packet::Publish(publish))) => Wire::Message(publish),
            Ok(Event::Outgoing(Outgoing::PubAck(packet) | Outgoing::PubRec(packet))) => {
                Wire::AckWritten(packet)
            }
            Ok(Event::Outgoing(Outgoing::Disconnect)) => break Ended::because("disconnected"),
            Ok(_) => continue,
            Err(error) => break explain(&error, timeout),
        };
        if wire.send(event).await.is_err() {
            return;
        }
    };
    // The client goes first, so that every publication's answer is there when the driver hears of the end.
    drop(event_loop);
    let _ = wire.send(Wire::Ended(ended)).await;
}

fn explain(error: &ConnectionError, timeout: Duration) -> Ended {
    let reason = match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::BadUserNamePassword => {
                "the broker refused user name or password".to_owned()
            }
            ConnectReturnCode::NotAuthorized => {
                "the broker says this client is not authorised".to_owned()
            }
            ConnectReturnCode::BadClientId => "the broker refused the client id".to_owned(),
            ConnectReturnCode::ServiceUnavailable => "the broker is not available now".to_owned(),
            ConnectReturnCode::RefusedProtocolVersion => {
                "the broker does not speak MQTT 3.1.1".to_owned()
            }
            ConnectReturnCode::Success => "the broker refused the connection".to_owned(),
        },
        ConnectionError::NetworkTimeout => format!("no connection within {} s", timeout.as_secs()),
        ConnectionError::FlushTimeout => {
            format!("nothing could be written for {} s", timeout.as_secs())
        }
        // The packet would be shown whole.
        ConnectionError::NotConnAck(_) => {
            "the broker answered with something else than a CONNACK".to_owned()
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            "the broker closed the connection".to_owned()
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            "the broker did not answer a ping".to_owned()
        }
        ConnectionError::MqttState(StateError::Deserialization(
            rumqttc::Error::PayloadSizeLimitExceeded(size),
        )) => {
            return Ended {
                reason: format!(
                    "the broker sent a packet of {size} bytes; the limit is {} bytes",
                    super::MAX_PACKET
                ),
                oversize: Some(*size),
            };
        }
        ConnectionError::MqttState(
            StateError::Deserialization(rumqttc::Error::Io(error)) | StateError::Io(error),
        )
        | ConnectionError::Io(error) => {
            format!("the connection failed: {error}")
        }
        other => other.to_string(),
    };
    Ended::because(reason)
}
