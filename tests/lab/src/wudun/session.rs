//! The side of the platform that runs on its thread: keeps the connection and enters what comes in into the book.

use std::sync::Arc;

use rumqttc::{AsyncClient, Event, EventLoop, Packet, QoS};

use super::{RECONNECT, Shared, now};

pub(super) struct Session {
    pub(super) client: AsyncClient,
    pub(super) shared: Arc<Shared>,
}

impl Session {
    pub(super) async fn run(self, mut events: EventLoop) {
        loop {
            match events.poll().await {
                // Subscribed anew on every connection: the broker may have lost the session.
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    if let Err(error) = self.client.try_subscribe("#", QoS::AtLeastOnce) {
                        tracing::warn!("the platform cannot subscribe: {error}");
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    self.shared.state().subscribed += 1;
                    self.shared.changed.notify_all();
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    // It hears itself.
                    if !topic.ends_with("/command") {
                        let book = &mut self.shared.state().book;
                        book.received(&topic, &publish.payload, publish.retain, now());
                        self.shared.changed.notify_all();
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    if self.shared.state().closing {
                        return;
                    }
                    tracing::debug!("the platform's connection: {error}");
                    tokio::time::sleep(RECONNECT).await;
                }
            }
        }
    }
}
