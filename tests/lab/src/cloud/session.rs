//! The side of the cloud that runs on its thread: keeps the connection, judges what comes in, and answers.

use std::sync::Arc;

use rumqttc::{AsyncClient, Event, EventLoop, Packet, PublishOptions, QoS, SubscribeFilter};
use serde_json::json;

use super::{Ids, RECONNECT, Shared, State, lock, now};

/// The side of the cloud that runs on its thread.
pub(super) struct Session {
    pub(super) gateway: String,
    pub(super) client: AsyncClient,
    pub(super) shared: Arc<Shared>,
}

impl Session {
    pub(super) async fn run(self, mut events: EventLoop) {
        loop {
            match events.poll().await {
                // Subscribed anew on every connection: the broker may have lost the session.
                Ok(Event::Incoming(Packet::ConnAck(_))) => self.subscribe(),
                Ok(Event::Incoming(Packet::SubAck(_))) => {
                    self.shared.state().subscribed += 1;
                    self.shared.changed.notify_all();
                }
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    let topic = String::from_utf8_lossy(&publish.topic).into_owned();
                    self.receive(&topic, &publish.payload);
                }
                Ok(_) => {}
                Err(error) => {
                    if self.shared.state().closing {
                        return;
                    }
                    tracing::debug!("the cloud's connection: {error}");
                    tokio::time::sleep(RECONNECT).await;
                }
            }
        }
    }

    fn subscribe(&self) {
        let filters = [
            "sys/product/+/status",
            "thing/product/+/services_reply",
            "thing/product/+/events",
            "thing/product/+/requests",
        ]
        .into_iter()
        .chain(["thing/product/+/osd", "thing/product/+/state"]);
        let filters =
            filters.map(|filter| SubscribeFilter::new(filter.to_owned(), QoS::AtLeastOnce));
        if let Err(error) = self.client.try_subscribe_many(filters) {
            tracing::warn!("the cloud cannot subscribe: {error}");
        }
    }

    fn receive(&self, topic: &str, payload: &[u8]) {
        let mut state = self.shared.state();
        state.received += 1;
        let parsed = state.book.envelope(topic, payload);
        let mut seen = None;
        if let Some((ids, message)) = parsed {
            match topic.split('/').collect::<Vec<_>>().as_slice() {
                ["sys", "product", sn, "status"] => {
                    state.book.method(topic, &message, Some("update_topo"));
                    state.online += 1;
                    self.answer(
                        &mut state,
                        &format!("sys/product/{sn}/status_reply"),
                        &ids,
                        "update_topo",
                    );
                }
                ["thing", "product", _, "services_reply"] => {
                    state.book.gateway(topic, &message);
                    state.book.method(topic, &message, None);
                    if let Some(reply) = state.book.reply(topic, &ids, &message) {
                        state.replies.push(reply);
                    }
                }
                ["thing", "product", sn, "events"] => {
                    state.book.gateway(topic, &message);
                    state.book.method(topic, &message, None);
                    state.book.event(topic, &ids, &message);
                    let method = message["method"].as_str().unwrap_or_default().to_owned();
                    if method == "ota_progress"
                        && let Some(progress) = state.book.progress(topic, &ids, &message)
                    {
                        state.note(&progress);
                        seen = Some(progress);
                    }
                    if message["need_reply"].as_i64() == Some(1) && !state.silent {
                        self.answer(
                            &mut state,
                            &format!("thing/product/{sn}/events_reply"),
                            &ids,
                            &method,
                        );
                    }
                }
                ["thing", "product", _, "osd"] => {
                    state.book.gateway(topic, &message);
                    state.osd = Some(message["data"].clone());
                }
                ["thing", "product", _, "state"] => {
                    state.book.gateway(topic, &message);
                    let data = &message["data"];
                    state.book.state(topic, data);
                    if let Some(version) = data["firmware_version"].as_str() {
                        state.firmware = Some(version.to_owned());
                    }
                }
                _ => {}
            }
        }
        drop(state);
        if let Some(progress) = seen
            && let Some(callback) = lock(&self.shared.callback).as_mut()
        {
            callback(&progress);
        }
        self.shared.changed.notify_all();
    }

    /// Answers with result 0, the same tid and bid.
    fn answer(&self, state: &mut State, topic: &str, ids: &Ids, method: &str) {
        state.sent += 1;
        let message = json!({
            "tid": ids.tid, "bid": ids.bid, "timestamp": now(), "gateway": self.gateway, "method": method, "data": {"result": 0},
        });
        let sent = self.client.try_publish(
            topic.to_owned(),
            message.to_string().into_bytes(),
            PublishOptions::at_least_once(),
        );
        if let Err(error) = sent {
            tracing::warn!("the cloud cannot answer on {topic}: {error}");
        }
    }
}
