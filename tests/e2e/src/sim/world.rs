//! Everything outside the device's disk, as one value that can be noted at any moment and gone on from.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A message the cloud has sent and the device has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// MQTT packet id: the same when it is delivered again.
    pub packet: u16,
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
}

/// Cloud, broker, file server and machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct World {
    /// Virtual milliseconds that have passed in all boots before this one.
    pub past: u64,
    /// Boots so far.
    pub boots: u32,
    /// The slot that runs.
    pub slot: usize,
    /// What the running image says its version is.
    pub version: String,
    /// Boots of a trial slot that did not come up.
    pub failed_boots: u32,
    /// Reboots the agent asked for.
    pub reboots: u32,
    /// Steps so far: the seed of randomness.
    pub seeds: u64,
    /// MQTT connections so far.
    pub connections: u64,
    /// The broker's session: messages that wait for their acknowledgement.
    pub inbox: Vec<Delivery>,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// What the device published with QoS 1, oldest first: topic and payload.
    pub received: Vec<(String, Vec<u8>)>,
    /// Files by URL.
    pub files: BTreeMap<String, Arc<Vec<u8>>>,
    /// Offsets at which the file server cuts the connection, each once.
    pub cuts: Vec<u64>,
    /// Bytes the file server sent.
    pub served: u64,
}

impl World {
    /// The results the cloud got on a topic whose `data.output.status` is final, each different one once.
    pub fn results(&self, topic: &str) -> Vec<(String, i64)> {
        let mut results: Vec<(String, i64)> = Vec::new();
        for (_, payload) in self.received.iter().filter(|(t, _)| t == topic) {
            let Ok(value) = serde_json::from_slice::<serde_json::Value>(payload) else {
                continue;
            };
            let status = value["data"]["output"]["status"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let result = value["data"]["result"].as_i64().unwrap_or(-1);
            if matches!(
                status.as_str(),
                "ok" | "failed" | "rejected" | "canceled" | "timeout"
            ) && !results.contains(&(status.clone(), result))
            {
                results.push((status, result));
            }
        }
        results
    }
}
