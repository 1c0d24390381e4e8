//! What an operator says about the kit, and what follows from it: routes, folder, target.
//!
//! The vendor's page leaves much open. Every open point is a key here, and its default is the decision of this project.

use std::fmt;

use otahost_adapter::{Requirements, RouteNeed};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::messages::Messages;
use crate::rules::Files;
use crate::wire::BODY_MAX;

/// Starts an update.
pub const UPDATE_DEVICE: &str = "/updateDevice";
/// Says what the device is.
pub const GET_DEVICE_INFO: &str = "/getDeviceInfo";
/// Says how the device is.
pub const HEALTH_CHECK: &str = "/healthCheck";

/// JSON Schema of [`Config`], shown to integrators.
pub(crate) const SCHEMA: &str = include_str!("schema.json");

/// Longest kit id, target or link in bytes.
const ID_MAX: usize = 200;
/// Longest base path in bytes.
const BASE_PATH_MAX: usize = 100;
/// Longest directory in bytes.
const DIRECTORY_MAX: usize = 200;
/// Longest name of the vehicle in bytes.
const VEHICLE_MAX: usize = 100;
/// Largest `device_info` in bytes of JSON.
const DEVICE_INFO_MAX: usize = 8 * 1024;

/// The operator's configuration of this adapter.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The kit's id as the centre issued it: opaque, compared byte by byte.
    pub kit_id: String,
    /// The target that is updated.
    #[serde(default = "kit")]
    pub target: String,
    /// The `http_server` link that the centre calls.
    #[serde(default = "kit")]
    pub link: String,
    /// The `ftps` link that has the kit model's folder.
    #[serde(default = "centre")]
    pub source: String,
    /// The kit model's folder on that link, an absolute path.
    #[serde(default = "root")]
    pub directory: String,
    /// What stands before `/updateDevice` in its address.
    #[serde(default)]
    pub base_path: String,
    /// What `getDeviceInfo` says beside `kitId` and `version`.
    #[serde(default)]
    pub device_info: Map<String, Value>,
    /// How alerts name the vehicle.
    #[serde(default = "vehicle")]
    pub vehicle: String,
    /// Methods of `getDeviceInfo` and `healthCheck`.
    #[serde(default = "methods")]
    pub info_methods: Vec<String>,
    /// Whether those two need a kit id.
    #[serde(default)]
    pub info_kit_id: KitId,
    /// What a second `updateDevice` gets while one runs.
    #[serde(default)]
    pub repeat: Repeated,
    /// What `estimatedTime` is.
    #[serde(default)]
    pub estimated_time: EstimatedTime,
    /// Whether `healthCheck` tells of an update that ended before anything was activated.
    #[serde(default)]
    pub failed_updates: FailedUpdates,
    /// Seconds to read the folder in.
    #[serde(default = "budget")]
    pub budget_seconds: u64,
    /// How many hours after an update a device that becomes unwell raises an alert.
    #[serde(default = "watch")]
    pub watch_hours: u64,
    /// Which file of the folder is the update.
    #[serde(default)]
    pub files: Files,
    /// Texts for people.
    #[serde(default)]
    pub messages: Messages,
}

// By hand: the kit's id and what is said of the vehicle are nobody's who reads a log.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("target", &self.target)
            .field("link", &self.link)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// Whether a request that changes nothing needs a kit id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KitId {
    /// It may carry one, which then has to match.
    #[default]
    Optional,
    /// It must carry the right one.
    Required,
}

/// What a second `updateDevice` gets while one runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Repeated {
    /// 409.
    #[default]
    Busy,
    /// The first answer again: a centre that timed out asks again.
    Answer,
}

/// What `estimatedTime` is. The page's text says Unix time, its example is a duration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EstimatedTime {
    /// Seconds that the update takes.
    #[default]
    Duration,
    /// Unix time in seconds at which it will be done.
    Instant,
}

/// Whether `healthCheck` tells of an update that ended before anything was activated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailedUpdates {
    /// No: such a failure is not reported to the platform, the page says.
    #[default]
    Hidden,
    /// Yes, to who asks.
    Shown,
}

fn kit() -> String {
    "kit".into()
}

fn centre() -> String {
    "centre".into()
}

fn root() -> String {
    "/".into()
}

fn vehicle() -> String {
    "Araç".into()
}

fn methods() -> Vec<String> {
    ["GET", "POST"].map(String::from).to_vec()
}

fn budget() -> u64 {
    10
}

fn watch() -> u64 {
    24
}

impl Config {
    /// What is wrong, one sentence each; nothing when the configuration can be used.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, value) in [
            ("kit_id", &self.kit_id),
            ("target", &self.target),
            ("link", &self.link),
            ("source", &self.source),
        ] {
            if value.is_empty() || value.len() > ID_MAX || value.chars().any(char::is_control) {
                faults.push(format!(
                    "config.{key} takes 1 to {ID_MAX} bytes without control characters"
                ));
            }
        }
        faults.extend(self.path_faults());
        if self.vehicle.len() > VEHICLE_MAX {
            faults.push(format!(
                "config.vehicle is longer than {VEHICLE_MAX} bytes; write the plate"
            ));
        }
        for name in ["kitId", "version"] {
            if self.device_info.contains_key(name) {
                faults.push(format!(
                    "config.device_info names `{name}`, which the adapter says itself; leave it out"
                ));
            }
        }
        if serde_json::to_vec(&self.device_info).map_or(true, |json| json.len() > DEVICE_INFO_MAX) {
            faults.push(format!(
                "config.device_info has more than {DEVICE_INFO_MAX} bytes as JSON"
            ));
        }
        let mut methods = self.info_methods.clone();
        methods.sort_unstable();
        methods.dedup();
        if methods.is_empty()
            || methods.len() != self.info_methods.len()
            || methods.iter().any(|m| m != "GET" && m != "POST")
        {
            faults.push("config.info_methods takes \"GET\", \"POST\" or both, each once".into());
        }
        if !(1..=60).contains(&self.budget_seconds) {
            faults.push(format!(
                "config.budget_seconds is {}; it takes 1 to 60",
                self.budget_seconds
            ));
        }
        if self.watch_hours > 720 {
            faults.push(format!(
                "config.watch_hours is {}; it takes 0 to 720",
                self.watch_hours
            ));
        }
        faults.extend(self.files.chooser().err().into_iter().flatten());
        faults.extend(self.messages.faults());
        faults
    }

    fn path_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let is_segment = |segment: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            !matches!(segment, "" | "." | "..") && segment.bytes().all(plain)
        };
        let base_path_is_sound = match self.base_path.strip_prefix('/') {
            Some(rest) => rest.split('/').all(is_segment),
            None => self.base_path.is_empty(),
        };
        if !base_path_is_sound || self.base_path.len() > BASE_PATH_MAX {
            faults.push(format!(
                "config.base_path is no path such as \"/api/v1\": it begins with `/`, does not end with it, and has at most \
                 {BASE_PATH_MAX} bytes"
            ));
        }
        let is_folder = |rest: &str| {
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            !rest.split('/').any(|s| matches!(s, "" | "." | ".."))
        };
        let directory_is_sound =
            self.directory == "/" || self.directory.strip_prefix('/').is_some_and(is_folder);
        if !directory_is_sound
            || self.directory.len() > DIRECTORY_MAX
            || self.directory.chars().any(|c| c == '\\' || c.is_control())
        {
            faults.push(format!(
                "config.directory is no absolute path such as \"/model\" without `.` and `..`, of at most {DIRECTORY_MAX} bytes"
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
        let route = |method: &str, service: &str| RouteNeed {
            link: self.link.clone(),
            method: method.into(),
            path: format!("{}{service}", self.base_path),
            max_body: BODY_MAX as u32,
        };
        let mut routes = vec![route("POST", UPDATE_DEVICE)];
        for service in [GET_DEVICE_INFO, HEALTH_CHECK] {
            routes.extend(
                self.info_methods
                    .iter()
                    .map(|method| route(method, service)),
            );
        }
        Ok(Requirements {
            routes,
            sources: vec![self.source.clone()],
            targets: vec![self.target.clone()],
            ..Requirements::default()
        })
    }

    /// The path of a file of the folder.
    pub fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.directory.trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn config(value: &Value) -> Config {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn a_kit_id_is_all_that_has_to_be_said() {
        let needs = config(&json!({ "kit_id": "k" })).requirements().unwrap();
        let routes: Vec<_> = needs
            .routes
            .iter()
            .map(|route| {
                (
                    route.link.as_str(),
                    route.method.as_str(),
                    route.path.as_str(),
                )
            })
            .collect();
        assert_eq!(
            routes,
            [
                ("kit", "POST", "/updateDevice"),
                ("kit", "GET", "/getDeviceInfo"),
                ("kit", "POST", "/getDeviceInfo"),
                ("kit", "GET", "/healthCheck"),
                ("kit", "POST", "/healthCheck"),
            ]
        );
        assert_eq!(needs.sources, ["centre"]);
        assert_eq!(needs.targets, ["kit"]);
        assert!(needs.topics.is_empty() && needs.calls.is_empty() && needs.downloads.is_empty());
    }

    #[test]
    fn base_path_and_methods_are_the_operators() {
        let needs =
            config(&json!({ "kit_id": "k", "base_path": "/api/v1", "info_methods": ["POST"] }))
                .requirements()
                .unwrap();
        let paths: Vec<_> = needs
            .routes
            .iter()
            .map(|route| route.path.as_str())
            .collect();
        assert_eq!(
            paths,
            [
                "/api/v1/updateDevice",
                "/api/v1/getDeviceInfo",
                "/api/v1/healthCheck"
            ]
        );
    }

    #[test]
    fn a_folder_and_a_name_make_one_path() {
        for (directory, path) in [
            ("/", "/a.img"),
            ("/model", "/model/a.img"),
            ("/x/y/", "/x/y/a.img"),
        ] {
            let config = config(&json!({ "kit_id": "k", "directory": directory }));
            assert_eq!(config.faults(), Vec::<String>::new());
            assert_eq!(config.path_of("a.img"), path);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        let big: String = "x".repeat(DEVICE_INFO_MAX);
        for (key, value) in [
            ("kit_id", json!("")),
            ("kit_id", json!("a\nb")),
            ("kit_id", json!("x".repeat(201))),
            ("target", json!("")),
            ("link", json!("")),
            ("source", json!("")),
            ("directory", json!("")),
            ("directory", json!("model")),
            ("directory", json!("/a/../b")),
            ("directory", json!("//")),
            ("directory", json!("/a\r\nDELE b")),
            ("base_path", json!("api")),
            ("base_path", json!("/")),
            ("base_path", json!("/api/")),
            ("base_path", json!("/a/*")),
            ("base_path", json!("/a?b")),
            ("base_path", json!("/../a")),
            ("vehicle", json!("x".repeat(101))),
            ("device_info", json!({ "version": "1" })),
            ("device_info", json!({ "kitId": "1" })),
            ("device_info", json!({ "brand": big })),
            ("info_methods", json!([])),
            ("info_methods", json!(["PUT"])),
            ("info_methods", json!(["GET", "GET"])),
            ("budget_seconds", json!(0)),
            ("budget_seconds", json!(61)),
            ("watch_hours", json!(721)),
            ("files", json!({ "pattern": "(" })),
            ("messages", json!({ "busy": "" })),
        ] {
            let mut text = json!({ "kit_id": "k" });
            text[key] = value;
            let faults = config(&text).requirements().unwrap_err();
            assert_eq!(faults.len(), 1, "{key}: {faults:?}");
            assert!(
                faults[0].starts_with(&format!("config.{key}")),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn the_kit_id_is_not_shown_by_debug_nor_by_a_fault() {
        let config =
            config(&json!({ "kit_id": "geheim\n", "vehicle": "34 ABC 112", "base_path": "x" }));
        let shown = format!("{config:?} {:?}", config.faults());
        assert!(
            !shown.contains("geheim") && !shown.contains("34 ABC"),
            "{shown}"
        );
    }

    #[test]
    fn the_schema_and_the_readme_name_every_key_and_the_schemas_defaults_are_the_defaults() {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let readme = include_str!("../README.md");
        let properties = schema["properties"].as_object().unwrap();
        let mut written = Map::new();
        for (key, property) in properties {
            assert!(readme.contains(&format!("| `{key}` |")), "{key}");
            if let Some(default) = property.get("default") {
                written.insert(key.clone(), default.clone());
            }
        }
        let mut files = Map::new();
        for (key, property) in properties["files"]["properties"].as_object().unwrap() {
            assert!(readme.contains(&format!("| `files.{key}` |")), "{key}");
            if let Some(default) = property.get("default") {
                files.insert(key.clone(), default.clone());
            }
        }
        written.insert("files".into(), files.into());
        written.insert("kit_id".into(), json!("k"));
        // Read with the schema's defaults written out, it is the configuration without them.
        assert_eq!(
            config(&Value::Object(written)),
            config(&json!({ "kit_id": "k" }))
        );
        let count = 17;
        assert_eq!(properties.len(), count);
        let unknown = serde_json::from_str::<Config>(r#"{"kit_id":"a","kitid":"b"}"#);
        assert!(unknown.unwrap_err().to_string().contains("kitid"));
    }
}
