//! What an operator says about the energy management system, and what follows from it: its topics.
//!
//! Every point that the vendor's pages leave open is a key here, with the decision taken as its default. What becomes part of a
//! topic is checked before anything is subscribed: a `+` in it would subscribe to other people's devices.

use std::fmt;

use otahost_adapter::{Requirements, TopicNeeds};
use serde::Deserialize;

use crate::wire::Kind;

/// The longest `device_uid`, `device`, `product_key` and `tenant` in bytes.
const SEGMENT_MAX: usize = 64;
/// The longest `prefix` in bytes.
const PREFIX_MAX: usize = 128;
/// The fewest and the most ended commands that are remembered. The most keeps the adapter's state below its 60,000 bytes.
const REMEMBER: std::ops::RangeInclusive<u16> = 256..=512;
/// The longest name of an attribute in bytes.
const ATTRIBUTE_MAX: usize = 64;
/// The oldest retained command that may be allowed, in seconds: a day.
const RETAINED_MAX: u32 = 86_400;

/// The operator's configuration of this adapter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The MQTT link to the platform.
    #[serde(default = "cloud")]
    pub link: String,
    /// `device_uid` of this device; a command that names another one is dropped.
    pub device_uid: String,
    /// `DEVICE` in the topics; none when it is the `device_uid`.
    #[serde(default)]
    pub device: Option<String>,
    /// `PRODUCT_KEY`: topics `v1/wudun/{product_key}/{device}/…`, the vendor's form for a broker of the user's own.
    #[serde(default)]
    pub product_key: Option<String>,
    /// `TENANT`: topics `v1/user/{tenant}/{device}/…`, the vendor's form for its own platform.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Any other prefix: topics `{prefix}/{device}/…`.
    #[serde(default)]
    pub prefix: Option<String>,
    /// How `emu_upgrade_success` is written.
    #[serde(default)]
    pub emu_upgrade_success: SuccessForm,
    /// What an EMU is said to be whose health nobody knows.
    #[serde(default)]
    pub unknown_health: Running,
    /// Names of the target attributes that tie targets to the platform's ids.
    #[serde(default)]
    pub attributes: Attributes,
    /// Commands with trailing commas are accepted.
    #[serde(default = "yes")]
    pub lenient_json: bool,
    /// Results carry `reply`, the `mid` of their command.
    #[serde(default = "yes")]
    pub reply: bool,
    /// Results to commands with a wrong parameter carry `code` 400 and `msg`.
    #[serde(default = "yes")]
    pub error_code: bool,
    /// The oldest retained command that is carried out, in seconds; 0 for none at all.
    #[serde(default = "ten_minutes")]
    pub retained_max_age: u32,
    /// How many ended commands are remembered, so that one that comes again is answered and not carried out.
    #[serde(default = "remember")]
    pub remember: u16,
}

/// The two meanings that `emu_upgrade_success` has had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SuccessForm {
    /// 0 something went wrong, 1 all went well.
    #[default]
    Flag,
    /// Bits since 2024-12-05: 0 transferred, 1 to 6 the boards, 7 the EMU, 8 all went well, 9 not finished.
    Bitmask,
}

/// `status` of an EMU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Running {
    /// 1.
    #[default]
    Running,
    /// 2.
    Offline,
    /// 3.
    Fault,
}

/// Names of the target attributes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attributes {
    /// Value of `source` by which `ota/upgrade` means a target.
    pub source: String,
    /// Value of `sub_device_uid`, where `ota/upgrade` means a device behind this one.
    pub sub_device_uid: String,
    /// Whole number by which the `ota/emu_…` commands mean a target (`sub_device_id`, `device_id`); what has it is an EMU.
    pub device_id: String,
    /// `emu_upgrade_device`: 3 the EMU itself, 21 to 26 a communication board. 3 where a target has none.
    pub emu_upgrade_device: String,
    /// `emu_product_sn`. The version that runs where a target has none: the vendor's sample value is a version.
    pub emu_product_sn: String,
}

impl Default for Attributes {
    fn default() -> Self {
        Attributes {
            source: "source".into(),
            sub_device_uid: "sub_device_uid".into(),
            device_id: "device_id".into(),
            emu_upgrade_device: "emu_upgrade_device".into(),
            emu_product_sn: "emu_product_sn".into(),
        }
    }
}

impl Attributes {
    fn each(&self) -> [(&'static str, &str); 5] {
        [
            ("source", &self.source),
            ("sub_device_uid", &self.sub_device_uid),
            ("device_id", &self.device_id),
            ("emu_upgrade_device", &self.emu_upgrade_device),
            ("emu_product_sn", &self.emu_product_sn),
        ]
    }
}

fn cloud() -> String {
    "cloud".into()
}

fn yes() -> bool {
    true
}

fn ten_minutes() -> u32 {
    600
}

fn remember() -> u16 {
    *REMEMBER.end()
}

/// JSON Schema of [`Config`], shown to integrators.
pub(crate) const SCHEMA: &str = r##"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "required": ["device_uid"],
  "anyOf": [{ "required": ["product_key"] }, { "required": ["tenant"] }, { "required": ["prefix"] }],
  "properties": {
    "link": { "type": "string", "minLength": 1, "default": "cloud", "description": "The MQTT link to the platform." },
    "device_uid": { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^\\P{Cc}+$", "description": "device_uid of this device." },
    "device": { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[^+#/\\p{Cc}]+$", "description": "DEVICE in the topics, where it differs from device_uid." },
    "product_key": { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[^+#/\\p{Cc}]+$", "description": "Topics v1/wudun/{product_key}/{device}/..." },
    "tenant": { "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[^+#/\\p{Cc}]+$", "description": "Topics v1/user/{tenant}/{device}/..." },
    "prefix": { "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[^+#\\p{Cc}]+$", "description": "Topics {prefix}/{device}/..." },
    "emu_upgrade_success": { "enum": ["flag", "bitmask"], "default": "flag", "description": "How emu_upgrade_success is written." },
    "unknown_health": { "enum": ["running", "offline", "fault"], "default": "running", "description": "What an EMU is said to be whose health nobody knows." },
    "attributes": {
      "type": "object",
      "additionalProperties": false,
      "description": "Names of the target attributes that tie targets to the platform's ids.",
      "properties": {
        "source": { "type": "string", "minLength": 1, "maxLength": 64, "default": "source" },
        "sub_device_uid": { "type": "string", "minLength": 1, "maxLength": 64, "default": "sub_device_uid" },
        "device_id": { "type": "string", "minLength": 1, "maxLength": 64, "default": "device_id" },
        "emu_upgrade_device": { "type": "string", "minLength": 1, "maxLength": 64, "default": "emu_upgrade_device" },
        "emu_product_sn": { "type": "string", "minLength": 1, "maxLength": 64, "default": "emu_product_sn" }
      }
    },
    "lenient_json": { "type": "boolean", "default": true, "description": "Accept commands with trailing commas, with a warning." },
    "reply": { "type": "boolean", "default": true, "description": "Results carry reply, the mid of their command." },
    "error_code": { "type": "boolean", "default": true, "description": "Results to commands with a wrong parameter carry code 400 and msg." },
    "retained_max_age": { "type": "integer", "minimum": 0, "maximum": 86400, "default": 600, "description": "The oldest retained command that is carried out, in seconds; 0 for none." },
    "remember": { "type": "integer", "minimum": 256, "maximum": 512, "default": 512, "description": "How many ended commands are remembered." }
  }
}"##;

impl Config {
    /// What is wrong, one sentence each; nothing when the configuration can be used.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.link.is_empty() {
            faults.push("config.link is empty; name the MQTT link to the platform".to_owned());
        }
        let uid = &self.device_uid;
        if uid.is_empty() || uid.len() > SEGMENT_MAX || uid.chars().any(char::is_control) {
            faults.push(format!(
                "config.device_uid is empty, longer than {SEGMENT_MAX} bytes or holds a control character; write the uid of this device"
            ));
        } else if self.device.is_none() {
            // It becomes part of the topics.
            faults.extend(
                segment_fault("device_uid", uid)
                    .map(|what| format!("{what}; or name the topics' DEVICE in config.device")),
            );
        }
        for (key, value) in [
            ("device", &self.device),
            ("product_key", &self.product_key),
            ("tenant", &self.tenant),
        ] {
            faults.extend(value.as_ref().and_then(|v| segment_fault(key, v)));
        }
        faults.extend(self.prefix.as_ref().and_then(|p| prefix_fault(p)));
        if self.product_key.is_none() && self.tenant.is_none() && self.prefix.is_none() {
            faults.push(
                "config has none of product_key, tenant and prefix, so there is no topic to listen to; name at least one"
                    .to_owned(),
            );
        }
        for (key, name) in self.attributes.each() {
            if name.is_empty() || name.len() > ATTRIBUTE_MAX {
                faults.push(format!(
                    "config.attributes.{key} is empty or longer than {ATTRIBUTE_MAX} bytes; name an attribute of the targets"
                ));
            }
        }
        if !REMEMBER.contains(&self.remember) {
            faults.push(format!(
                "config.remember is {}; it takes {} to {}",
                self.remember,
                REMEMBER.start(),
                REMEMBER.end()
            ));
        }
        if self.retained_max_age > RETAINED_MAX {
            faults.push(format!(
                "config.retained_max_age is {}; it takes 0 to {RETAINED_MAX} seconds",
                self.retained_max_age
            ));
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
        let topics = |leaf: &str| {
            self.bases()
                .iter()
                .flat_map(|base| Kind::ALL.map(|kind| format!("{base}/{}/{leaf}", kind.path())))
                .collect()
        };
        Ok(Requirements {
            topics: vec![TopicNeeds {
                link: self.link.clone(),
                subscribe: topics("command"),
                publish: topics("result"),
            }],
            // The platform names the address in each command; the operator's grant decides.
            targets: vec!["*".into()],
            ..Requirements::default()
        })
    }

    /// What stands before `/ota/…` in the topics, one for each form that is configured.
    pub fn bases(&self) -> Vec<String> {
        let device = self.device.as_ref().unwrap_or(&self.device_uid);
        let forms = [
            self.product_key
                .as_ref()
                .map(|key| format!("v1/wudun/{key}")),
            self.tenant
                .as_ref()
                .map(|tenant| format!("v1/user/{tenant}")),
            self.prefix.clone(),
        ];
        let mut bases = Vec::new();
        for prefix in forms.into_iter().flatten() {
            let base = format!("{prefix}/{device}");
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
        bases
    }

    /// Which command comes in on this topic, and what stands before `/ota/…` in it.
    pub fn route(&self, topic: &str) -> Option<(String, Kind)> {
        self.bases().into_iter().find_map(|base| {
            let path = topic
                .strip_prefix(base.as_str())?
                .strip_prefix('/')?
                .strip_suffix("/command")?;
            let kind = Kind::ALL.into_iter().find(|kind| kind.path() == path)?;
            Some((base, kind))
        })
    }
}

impl fmt::Display for SuccessForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SuccessForm::Flag => "flag",
            SuccessForm::Bitmask => "bitmask",
        })
    }
}

/// What is wrong with a text that becomes one level of a topic.
fn segment_fault(key: &str, text: &str) -> Option<String> {
    if text.is_empty() || text.len() > SEGMENT_MAX {
        Some(format!(
            "config.{key} is empty or longer than {SEGMENT_MAX} bytes; write it as the platform shows it"
        ))
    } else if text
        .chars()
        .any(|c| matches!(c, '+' | '#' | '/') || c.is_control())
    {
        Some(format!(
            "config.{key} holds `+`, `#`, `/` or a control character, which would change the topics; write it as the platform shows it"
        ))
    } else {
        None
    }
}

/// What is wrong with the levels before the device.
fn prefix_fault(prefix: &str) -> Option<String> {
    let what = if prefix.is_empty() || prefix.len() > PREFIX_MAX {
        format!("is empty or longer than {PREFIX_MAX} bytes")
    } else if prefix
        .chars()
        .any(|c| matches!(c, '+' | '#') || c.is_control())
    {
        "holds `+`, `#` or a control character".to_owned()
    } else if prefix.starts_with('$') {
        "begins with `$`, which is the broker's own".to_owned()
    } else if prefix.split('/').any(str::is_empty) {
        "begins or ends with `/`, or has two of them in a row".to_owned()
    } else {
        return None;
    };
    Some(format!(
        "config.prefix {what}; write what stands before the device in the topics, as in `v1/wudun/KEY`"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::{Value, json};

    use super::*;

    fn config(value: Value) -> Config {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn w16_a_device_and_one_form_of_the_topics_is_all_that_has_to_be_said() {
        for (key, value, prefix) in [
            ("product_key", "PK", "v1/wudun/PK"),
            ("tenant", "T", "v1/user/T"),
            ("prefix", "site/4/ems", "site/4/ems"),
        ] {
            let config = config(json!({ "device_uid": "D1", key: value }));
            assert_eq!(config.faults(), Vec::<String>::new());
            let needs = config.requirements().unwrap();
            let leaf = |leaf: &str| {
                [
                    "upgrade",
                    "emu_version",
                    "emu_upgrade",
                    "emu_upgrade_result",
                ]
                .map(|name| format!("{prefix}/D1/ota/{name}/{leaf}"))
                .to_vec()
            };
            assert_eq!(needs.topics.len(), 1);
            assert_eq!(needs.topics[0].link, "cloud");
            assert_eq!(needs.topics[0].subscribe, leaf("command"));
            assert_eq!(needs.topics[0].publish, leaf("result"));
            assert_eq!(needs.targets, ["*"]);
        }
    }

    #[test]
    fn w16_all_forms_may_stand_side_by_side_and_the_same_one_counts_once() {
        let all = config(
            json!({ "device_uid": "D", "device": "X", "product_key": "PK", "tenant": "T", "prefix": "a/b" }),
        );
        assert_eq!(all.bases(), ["v1/wudun/PK/X", "v1/user/T/X", "a/b/X"]);
        assert_eq!(all.requirements().unwrap().topics[0].subscribe.len(), 12);
        let same = config(json!({ "device_uid": "D", "tenant": "T", "prefix": "v1/user/T" }));
        assert_eq!(same.bases(), ["v1/user/T/D"]);
    }

    #[test]
    fn only_a_topic_that_was_subscribed_is_a_command() {
        let config = config(json!({ "device_uid": "D", "tenant": "T", "prefix": "p" }));
        let route = |topic: &str| config.route(topic);
        assert_eq!(
            route("p/D/ota/emu_version/command"),
            Some(("p/D".into(), Kind::EmuVersion))
        );
        assert_eq!(
            route("v1/user/T/D/ota/upgrade/command"),
            Some(("v1/user/T/D".into(), Kind::Upgrade))
        );
        for other in [
            "p/D/ota/upgrade/result",
            "p/D/ota/upgrade",
            "p/D2/ota/upgrade/command",
            "p/Dota/upgrade/command",
            "v1/wudun/T/D/ota/upgrade/command",
            "p/D/ota/emu/command",
            "",
        ] {
            assert_eq!(route(other), None, "{other}");
        }
    }

    #[test]
    fn what_would_change_the_topics_is_a_fault_of_its_key() {
        for text in ["a/b", "+", "#", "", "a\nb", &"x".repeat(65)] {
            for key in ["device", "product_key", "tenant"] {
                let mut value = json!({ "device_uid": "D", "prefix": "p" });
                value[key] = json!(text);
                let faults = config(value).faults();
                assert_eq!(faults.len(), 1, "{key} {text:?}: {faults:?}");
                assert!(
                    faults[0].starts_with(&format!("config.{key} ")),
                    "{faults:?}"
                );
            }
        }
        for text in [
            "/a",
            "a/",
            "a//b",
            "+",
            "a/#",
            "$SYS",
            "",
            "a\0",
            &"x".repeat(129),
        ] {
            let faults = config(json!({ "device_uid": "D", "prefix": text })).faults();
            assert_eq!(faults.len(), 1, "{text:?}: {faults:?}");
            assert!(faults[0].starts_with("config.prefix "), "{faults:?}");
        }
    }

    #[test]
    fn a_uid_that_cannot_be_in_a_topic_needs_a_device() {
        let faults = config(json!({ "device_uid": "a/b", "prefix": "p" })).faults();
        assert!(
            faults.len() == 1 && faults[0].contains("config.device"),
            "{faults:?}"
        );
        let named = config(json!({ "device_uid": "a/b", "device": "ab", "prefix": "p" }));
        assert_eq!(named.faults(), Vec::<String>::new());
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let faults = config(json!({
            "device_uid": "", "link": "", "remember": 10, "retained_max_age": 100_000, "attributes": { "source": "" }
        }))
        .faults();
        assert_eq!(faults.len(), 6, "{faults:?}");
        assert!(
            faults
                .iter()
                .any(|f| f.contains("product_key, tenant and prefix")),
            "{faults:?}"
        );
    }

    #[test]
    fn the_schema_names_every_key_and_word() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let every = json!({
            "link": "l", "device_uid": "u", "device": "d", "product_key": "k", "tenant": "t", "prefix": "p",
            "emu_upgrade_success": "bitmask", "unknown_health": "fault", "attributes": {}, "lenient_json": false, "reply": false,
            "error_code": false, "retained_max_age": 0, "remember": 256
        });
        assert_eq!(config(every.clone()).faults(), Vec::<String>::new());
        let keys = |value: &Value| {
            let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&schema["properties"]), keys(&every));
        let readme = include_str!("../README.md");
        for key in keys(&every) {
            assert!(readme.contains(&format!("| `{key}` |")), "{key}");
        }
        let mut names: Vec<_> = Attributes::default()
            .each()
            .map(|(key, _)| key.to_owned())
            .to_vec();
        names.sort();
        assert_eq!(
            keys(&schema["properties"]["attributes"]["properties"]),
            names
        );
        for form in [SuccessForm::Flag, SuccessForm::Bitmask] {
            assert!(
                schema["properties"]["emu_upgrade_success"]["enum"]
                    .as_array()
                    .unwrap()
                    .contains(&json!(form.to_string()))
            );
        }
    }
}
