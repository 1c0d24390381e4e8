//! What an operator says about the gateway, and what follows from it: its topics.
//!
//! A serial number becomes part of topic names, so it is checked here, before anything is subscribed: a `+` in it would subscribe
//! to other people's devices.

use otahost_adapter::{Requirements, TopicNeeds};
use serde::Deserialize;

use crate::dialect::Dialect;

/// The longest serial number in bytes. Two of them with their MD5s fit into a job key of 200 bytes; the vendors' have 14 to 20.
pub const SN_MAX: usize = 48;

/// The most sub-devices whose `state` is published: what was published of each is part of the adapter's state.
const SUB_DEVICES_MAX: usize = 8;

/// The operator's configuration of this adapter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The MQTT link to the cloud.
    #[serde(default = "cloud")]
    pub link: String,
    /// Serial number of the gateway: the device that owns the `services` and `events` topics.
    pub gateway_sn: String,
    /// Which vendor's reading of the protocol is spoken; see [`Config::dialect`].
    #[serde(default = "autel")]
    pub dialect: String,
    /// Who tells the cloud that the gateway is there.
    #[serde(default)]
    pub presence: Presence,
    /// Serial numbers of the devices behind the gateway whose `state` is published: a topic of their own, to be granted.
    #[serde(default)]
    pub sub_devices: Vec<String>,
    /// What the gateway says of itself in `update_topo`.
    #[serde(default)]
    pub topo: Topology,
}

/// Who publishes topology, state and osd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// This adapter does.
    #[default]
    Own,
    /// Another process on the gateway does; this adapter only replies and reports progress.
    None,
}

/// The gateway's product in the words of `update_topo`. The defaults are DJI's for a dock.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topology {
    /// Namespace of the product: 0 aircraft, 2 remote control, 3 dock.
    pub domain: u32,
    /// Product type within the namespace.
    #[serde(rename = "type")]
    pub kind: u32,
    /// Product subtype.
    pub sub_type: u32,
    /// Version of the thing model; none for the dialect's own.
    pub version: Option<String>,
}

impl Default for Topology {
    fn default() -> Self {
        Topology {
            domain: 3,
            kind: 1,
            sub_type: 0,
            version: None,
        }
    }
}

fn cloud() -> String {
    "cloud".into()
}

fn autel() -> String {
    Dialect::Autel.word().into()
}

/// JSON Schema of [`Config`], shown to integrators.
pub(crate) const SCHEMA: &str = r##"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "required": ["gateway_sn"],
  "properties": {
    "link": { "type": "string", "minLength": 1, "default": "cloud", "description": "The MQTT link to the cloud." },
    "gateway_sn": { "type": "string", "minLength": 1, "maxLength": 48, "pattern": "^[^+#/\\p{Cc}]+$", "description": "Serial number of the gateway." },
    "dialect": { "enum": ["autel", "dji-v1", "dji-2026"], "default": "autel", "description": "Which vendor's reading of the protocol is spoken." },
    "presence": { "enum": ["own", "none"], "default": "own", "description": "Whether this adapter publishes topology, state and osd, or another process does." },
    "sub_devices": {
      "type": "array", "maxItems": 8, "uniqueItems": true, "default": [],
      "items": { "type": "string", "minLength": 1, "maxLength": 48, "pattern": "^[^+#/\\p{Cc}]+$" },
      "description": "Serial numbers of the devices behind the gateway whose state is published."
    },
    "topo": {
      "type": "object",
      "additionalProperties": false,
      "description": "What the gateway says of itself in update_topo.",
      "properties": {
        "domain": { "type": "integer", "minimum": 0, "default": 3 },
        "type": { "type": "integer", "minimum": 0, "default": 1 },
        "sub_type": { "type": "integer", "minimum": 0, "default": 0 },
        "version": { "type": "string", "maxLength": 64, "description": "Version of the thing model; the dialect's own when absent." }
      }
    }
  }
}"##;

impl Config {
    /// What is wrong, one sentence each; nothing when the configuration can be used.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.link.is_empty() {
            faults.push("config.link is empty; name the MQTT link to the cloud".into());
        }
        faults.extend(sn_fault("gateway_sn", &self.gateway_sn));
        if self.sub_devices.len() > SUB_DEVICES_MAX {
            faults.push(format!(
                "config.sub_devices has {} entries; at most {SUB_DEVICES_MAX} are allowed",
                self.sub_devices.len()
            ));
        }
        for (i, sn) in self.sub_devices.iter().enumerate() {
            faults.extend(sn_fault("sub_devices", sn));
            if *sn == self.gateway_sn
                || self.sub_devices.iter().skip(i + 1).any(|other| other == sn)
            {
                faults.push(
                    "config.sub_devices names a serial number twice, or the gateway's own; name each device behind the \
                     gateway once"
                        .into(),
                );
            }
        }
        if self.presence == Presence::None && !self.sub_devices.is_empty() {
            faults.push(
                "config.sub_devices is set, but with config.presence `none` another process publishes their state; leave one \
                 of the two out"
                    .into(),
            );
        }
        if Dialect::of(&self.dialect).is_none() {
            let known = Dialect::ALL.map(|d| format!("`{}`", d.word())).join(", ");
            faults.push(format!(
                "config.dialect `{}` is not one that this version speaks; use one of {known}",
                self.dialect
            ));
        }
        if self.topo.version.as_ref().is_some_and(|v| v.len() > 64) {
            faults.push(
                "config.topo.version is longer than 64 bytes; write the version of the thing model"
                    .into(),
            );
        }
        faults
    }

    /// All this adapter asks for.
    ///
    /// # Errors
    /// The faults of the configuration.
    pub fn requirements(&self) -> Result<Requirements, Vec<String>> {
        let faults = self.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let mut subscribe = vec![self.services(), self.events_reply()];
        let mut publish = vec![self.services_reply(), self.events()];
        match self.presence {
            Presence::Own => {
                subscribe.push(self.status_reply());
                publish.extend([self.state(), self.osd(), self.status()]);
                publish.extend(self.sub_devices.iter().map(|sn| state_of(sn)));
            }
            Presence::None => {}
        }
        Ok(Requirements {
            topics: vec![TopicNeeds {
                link: self.link.clone(),
                subscribe,
                publish,
            }],
            routes: Vec::new(),
            calls: Vec::new(),
            sources: Vec::new(),
            // The cloud names the address in each command; the operator's grant decides.
            downloads: Vec::new(),
            targets: vec!["*".into()],
        })
    }

    /// The dialect that is spoken. A word that is none is a fault, found before the first event.
    pub fn dialect(&self) -> Dialect {
        Dialect::of(&self.dialect).unwrap_or(Dialect::Autel)
    }

    /// Version of the thing model.
    pub fn thing_version(&self) -> &str {
        match &self.topo.version {
            Some(version) => version,
            None => self.dialect().thing_version(),
        }
    }

    fn thing(&self, leaf: &str) -> String {
        format!("thing/product/{}/{leaf}", self.gateway_sn)
    }

    /// Where commands come in.
    pub fn services(&self) -> String {
        self.thing("services")
    }

    /// Where commands are answered.
    pub fn services_reply(&self) -> String {
        self.thing("services_reply")
    }

    /// Where progress is reported.
    pub fn events(&self) -> String {
        self.thing("events")
    }

    /// Where the cloud says that it has an event.
    pub fn events_reply(&self) -> String {
        self.thing("events_reply")
    }

    /// Properties that are sent when they change.
    pub fn state(&self) -> String {
        state_of(&self.gateway_sn)
    }

    /// Properties that are sent all the time.
    pub fn osd(&self) -> String {
        self.thing("osd")
    }

    /// Where the gateway announces itself.
    pub fn status(&self) -> String {
        format!("sys/product/{}/status", self.gateway_sn)
    }

    /// Where the cloud accepts the announcement.
    pub fn status_reply(&self) -> String {
        format!("sys/product/{}/status_reply", self.gateway_sn)
    }
}

/// Where the device with this serial number sends its properties when they change.
pub fn state_of(sn: &str) -> String {
    format!("thing/product/{sn}/state")
}

/// What is wrong with a serial number that becomes part of topics.
fn sn_fault(key: &str, sn: &str) -> Option<String> {
    if sn.is_empty() {
        Some(format!("config.{key} is empty; write the serial number"))
    } else if sn.len() > SN_MAX {
        Some(format!(
            "config.{key} is longer than {SN_MAX} bytes; write the serial number"
        ))
    } else if sn
        .chars()
        .any(|c| matches!(c, '+' | '#' | '/') || c.is_control())
    {
        Some(format!(
            "config.{key} holds `+`, `#`, `/` or a control character, which would change the topics; write the serial \
             number alone"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn config(text: &str) -> Config {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_gateway_sn_is_all_that_has_to_be_said() {
        let config = config(r#"{"gateway_sn":"GW1"}"#);
        assert_eq!(config.faults(), Vec::<String>::new());
        let needs = config.requirements().unwrap();
        assert_eq!(needs.topics[0].link, "cloud");
        assert_eq!(
            needs.topics[0].subscribe,
            [
                "thing/product/GW1/services",
                "thing/product/GW1/events_reply",
                "sys/product/GW1/status_reply"
            ]
        );
        assert_eq!(
            needs.topics[0].publish,
            [
                "thing/product/GW1/services_reply",
                "thing/product/GW1/events",
                "thing/product/GW1/state",
                "thing/product/GW1/osd",
                "sys/product/GW1/status"
            ]
        );
        assert_eq!(needs.targets, ["*"]);
    }

    #[test]
    fn without_presence_of_its_own_it_asks_for_no_topic_of_the_presence() {
        let needs = config(r#"{"gateway_sn":"GW1","presence":"none"}"#)
            .requirements()
            .unwrap();
        assert_eq!(needs.topics[0].subscribe.len(), 2);
        assert_eq!(
            needs.topics[0].publish,
            [
                "thing/product/GW1/services_reply",
                "thing/product/GW1/events"
            ]
        );
    }

    #[test]
    fn d16_a_serial_number_that_would_change_the_topics_is_a_config_error() {
        let long = "x".repeat(SN_MAX + 1);
        for sn in [
            "a/b",
            "+",
            "#",
            "",
            "a+",
            "x#y",
            "/",
            "a\nb",
            "a\0",
            long.as_str(),
        ] {
            let text = serde_json::json!({ "gateway_sn": sn }).to_string();
            let faults = config(&text).requirements().unwrap_err();
            assert_eq!(faults.len(), 1, "{sn:?}: {faults:?}");
            assert!(faults[0].starts_with("config.gateway_sn "), "{faults:?}");
        }
    }

    #[test]
    fn another_dialect_is_a_config_error_and_every_fault_is_told() {
        let faults =
            config(r#"{"gateway_sn":"+","dialect":"dji-v3","link":"","topo":{"type":119}}"#)
                .requirements()
                .unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(
            faults
                .iter()
                .any(|f| f.contains("`dji-v3`") && f.contains("`autel`, `dji-v1`, `dji-2026`")),
            "{faults:?}"
        );
    }

    #[test]
    fn every_dialect_can_be_chosen() {
        for dialect in Dialect::ALL {
            let text = format!(r#"{{"gateway_sn":"GW1","dialect":"{}"}}"#, dialect.word());
            let config = config(&text);
            assert_eq!(config.faults(), Vec::<String>::new());
            assert_eq!(config.dialect(), dialect);
        }
    }

    #[test]
    fn a_sub_device_adds_the_topic_of_its_state_and_nothing_else() {
        let needs = config(r#"{"gateway_sn":"GW1","sub_devices":["DRONE"]}"#)
            .requirements()
            .unwrap();
        assert_eq!(needs.topics[0].subscribe.len(), 3);
        assert_eq!(needs.topics[0].publish.len(), 6);
        assert_eq!(needs.topics[0].publish[5], "thing/product/DRONE/state");
    }

    #[test]
    fn d16_a_sub_devices_serial_number_is_checked_too() {
        let nine = serde_json::json!((0..9).map(|n| format!("D{n}")).collect::<Vec<_>>());
        for sub_devices in [
            serde_json::json!(["a/b"]),
            serde_json::json!(["+"]),
            serde_json::json!([""]),
            serde_json::json!(["D", "D"]),
            serde_json::json!(["GW1"]),
            nine,
        ] {
            let text = serde_json::json!({ "gateway_sn": "GW1", "sub_devices": sub_devices });
            let faults = config(&text.to_string()).requirements().unwrap_err();
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
            assert!(faults[0].starts_with("config.sub_devices "), "{faults:?}");
        }
        let faults = config(r#"{"gateway_sn":"GW1","presence":"none","sub_devices":["D"]}"#)
            .requirements()
            .unwrap_err();
        assert!(faults[0].contains("config.presence"), "{faults:?}");
    }

    #[test]
    fn the_schema_names_every_key() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let mut keys: Vec<_> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        keys.sort();
        assert_eq!(
            keys,
            [
                "dialect",
                "gateway_sn",
                "link",
                "presence",
                "sub_devices",
                "topo"
            ]
        );
        let words: Vec<_> = Dialect::ALL.iter().map(|d| d.word()).collect();
        assert_eq!(
            schema["properties"]["dialect"]["enum"],
            serde_json::json!(words)
        );
        let unknown = serde_json::from_str::<Config>(r#"{"gateway_sn":"a","gatewaysn":"b"}"#);
        assert!(unknown.unwrap_err().to_string().contains("gatewaysn"));
    }
}
