//! What an operator says about the device's place in the Withnox cloud, and what follows from it: the paths that are asked.

use otahost_adapter::{CallNeed, Requirements};
use serde::Deserialize;

/// Where the API begins, as the vendor's pages have it.
const API: &str = "/api/v1/addnox";
/// The shortest time between two polls, in milliseconds.
pub(crate) const POLL_MIN: u64 = 60_000;
/// The longest, in milliseconds: 30 days.
const POLL_MAX: u64 = 30 * 24 * 3_600_000;
/// The largest number that an id may have: what JSON of every origin can hold.
pub(crate) const ID_MAX: u64 = (1 << 53) - 1;

/// The secret that holds the token of every request; the host adds it by itself.
pub(crate) const ACCESS_TOKEN: &str = "access_token";
/// The secret that a new access token is asked for with. It changes with every use.
pub(crate) const REFRESH_TOKEN: &str = "refresh_token";
/// The stored account's name.
const ACCOUNT_USER: &str = "account_user";
/// The stored account's password.
const ACCOUNT_PASSWORD: &str = "account_password";

/// The operator's configuration of this adapter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The link to the API, of kind `http_client`.
    #[serde(default = "withnox")]
    pub link: String,
    /// The target that the cloud's device stands for.
    pub target: String,
    /// The device's id in the cloud.
    pub device_id: u64,
    /// The id of the (child) account that owns the device in the cloud: the page's `real_user_id`.
    pub user_id: u64,
    /// The id of the device's hardware in the cloud. Firmware for other hardware is left alone; none: the cloud is believed.
    #[serde(default)]
    pub hardware_id: Option<u64>,
    /// Takes the lowest version above the running one and not the highest, so that no version is left out.
    #[serde(default)]
    pub stepwise: bool,
    /// Seconds between two polls, give or take a fifth. Six hours unless said otherwise.
    #[serde(default = "six_hours")]
    pub poll_seconds: u64,
}

fn withnox() -> String {
    "withnox".into()
}

fn six_hours() -> u64 {
    6 * 3_600
}

/// JSON Schema of [`Config`], shown to integrators.
pub(crate) const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "additionalProperties": false,
  "required": ["target", "device_id", "user_id"],
  "properties": {
    "link": { "type": "string", "minLength": 1, "default": "withnox", "description": "The http_client link to the API." },
    "target": { "type": "string", "minLength": 1, "maxLength": 200, "description": "The target that the cloud's device stands for." },
    "device_id": { "type": "integer", "minimum": 0, "maximum": 9007199254740991, "description": "The device's id in the cloud." },
    "user_id": { "type": "integer", "minimum": 0, "maximum": 9007199254740991, "description": "The account that owns the device in the cloud: real_user_id." },
    "hardware_id": { "type": "integer", "minimum": 0, "maximum": 9007199254740991, "description": "The hardware's id in the cloud; firmware for other hardware is left alone." },
    "stepwise": { "type": "boolean", "default": false, "description": "Take the lowest version above the running one, not the highest." },
    "poll_seconds": { "type": "integer", "minimum": 60, "maximum": 2592000, "default": 21600, "description": "Seconds between two polls, give or take a fifth." }
  }
}"#;

impl Config {
    /// What is wrong, one sentence each; nothing when the configuration can be used.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.link.is_empty() {
            faults.push("config.link is empty; name the http_client link to the API".into());
        }
        if self.target.is_empty()
            || self.target.len() > 200
            || self.target.chars().any(char::is_control)
        {
            faults.push(
                "config.target is no target's id; name the target that the cloud's device stands for"
                    .into(),
            );
        }
        for (key, id) in [
            ("device_id", Some(self.device_id)),
            ("user_id", Some(self.user_id)),
            ("hardware_id", self.hardware_id),
        ] {
            if id.is_some_and(|id| id > ID_MAX) {
                faults.push(format!(
                    "config.{key} is above {ID_MAX}; write the number that the cloud shows"
                ));
            }
        }
        if !(POLL_MIN / 1_000..=POLL_MAX / 1_000).contains(&self.poll_seconds) {
            faults.push(format!(
                "config.poll_seconds is {}; it takes {} to {} (30 days)",
                self.poll_seconds,
                POLL_MIN / 1_000,
                POLL_MAX / 1_000
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
        let call = |method: &str, path: String, secrets: &[&str]| CallNeed {
            link: self.link.clone(),
            method: method.into(),
            path,
            secrets: secrets.iter().map(|s| (*s).to_owned()).collect(),
        };
        Ok(Requirements {
            calls: vec![
                call("GET", self.latest(), &[]),
                call("PATCH", self.update_result("*"), &[]),
                call("POST", refresh(), &[REFRESH_TOKEN]),
                call("POST", sign_in(), &[ACCOUNT_USER, ACCOUNT_PASSWORD]),
            ],
            sources: vec![self.link.clone()],
            targets: vec![self.target.clone()],
            ..Requirements::default()
        })
    }

    /// Milliseconds between two polls.
    pub fn poll_interval(&self) -> u64 {
        self.poll_seconds
            .saturating_mul(1_000)
            .clamp(POLL_MIN, POLL_MAX)
    }

    /// Where it is asked for newer firmware.
    pub fn latest(&self) -> String {
        format!("{API}/firmware/latest/{}/{}", self.device_id, self.user_id)
    }

    /// Where a firmware's file is.
    pub fn file(&self, firmware: u64) -> String {
        format!(
            "{API}/firmware/file/{}/{firmware}/{}",
            self.device_id, self.user_id
        )
    }

    /// Where the cloud is told what runs. `firmware` is an id, or `*` for all of them.
    pub fn update_result(&self, firmware: &str) -> String {
        format!(
            "{API}/firmware/update-result/{}/{firmware}/{}",
            self.device_id, self.user_id
        )
    }
}

/// Where a refresh token becomes a new pair of tokens.
pub(crate) fn refresh() -> String {
    format!("{API}/auth/refresh-token")
}

/// Where an account becomes a pair of tokens.
pub(crate) fn sign_in() -> String {
    format!("{API}/auth/email/signin")
}

/// The body of a sign-in: a form, filled in by the host.
pub(crate) fn sign_in_form() -> String {
    format!("username={{secret:{ACCOUNT_USER}}}&password={{secret:{ACCOUNT_PASSWORD}}}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn config(more: &str) -> Config {
        serde_json::from_str(&format!(
            r#"{{"target":"cam","device_id":4,"user_id":9{more}}}"#
        ))
        .unwrap()
    }

    #[test]
    fn three_keys_are_enough_and_the_rest_has_the_pages_values() {
        let config = config("");
        assert_eq!(config.faults(), Vec::<String>::new());
        assert_eq!(config.poll_interval(), 6 * 3_600_000);
        assert_eq!(config.latest(), "/api/v1/addnox/firmware/latest/4/9");
        assert_eq!(config.file(7), "/api/v1/addnox/firmware/file/4/7/9");
        assert_eq!(
            config.update_result("7"),
            "/api/v1/addnox/firmware/update-result/4/7/9"
        );
    }

    #[test]
    fn it_asks_for_four_calls_and_each_secret_only_where_it_is_used() {
        let needs = config("").requirements().unwrap();
        let calls: Vec<_> = needs
            .calls
            .iter()
            .map(|c| format!("{} {} {}", c.method, c.path, c.secrets.join(",")))
            .collect();
        assert_eq!(
            calls,
            [
                "GET /api/v1/addnox/firmware/latest/4/9 ",
                "PATCH /api/v1/addnox/firmware/update-result/4/*/9 ",
                "POST /api/v1/addnox/auth/refresh-token refresh_token",
                "POST /api/v1/addnox/auth/email/signin account_user,account_password",
            ]
        );
        assert_eq!(
            (needs.sources, needs.targets),
            (vec!["withnox".to_owned()], vec!["cam".to_owned()])
        );
        assert!(needs.downloads.is_empty());
    }

    #[test]
    fn each_fault_names_its_key() {
        for (more, key) in [
            (r#","poll_seconds":59"#, "config.poll_seconds"),
            (r#","poll_seconds":9999999999"#, "config.poll_seconds"),
            (r#","link":"""#, "config.link"),
            (r#","hardware_id":9007199254740992"#, "config.hardware_id"),
        ] {
            let faults = config(more).faults();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].starts_with(key), "{faults:?}");
        }
    }

    #[test]
    fn the_schema_knows_the_keys_that_are_read() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let mut keys: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(
            keys,
            [
                "device_id",
                "hardware_id",
                "link",
                "poll_seconds",
                "stepwise",
                "target",
                "user_id"
            ]
        );
    }
}
