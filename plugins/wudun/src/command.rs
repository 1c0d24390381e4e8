//! A command as it came: what it is known by, and what it asks for.
//!
//! Read as tolerantly as the vendor's pages are contradictory: numbers may be text, nulls are absent, unknown fields and a wrong
//! `type` do not matter (the topic says which command it is).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::wire::Kind;

/// The longest text in bytes that is kept to be sent back: `mid`, `trace_id`, `sub_device_uid`, `sub_device_id`, `source`. Five of them
/// fit into a job's context of 4 KiB even when each byte is escaped.
pub const TEXT_MAX: usize = 96;
/// The longest address in bytes.
const URL_MAX: usize = 10_240;

/// What the platform knows a command by: all that its results carry. It is the context of a job, so it outlives reboots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// Which command.
    pub kind: Kind,
    /// What stood before `/ota/…` in its topic.
    pub base: String,
    /// What tells this command from every other; condensed to 64 bits.
    pub id: u64,
    /// The command's `mid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mid: Option<String>,
    /// Sent back as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<Value>,
    /// Sent back as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_device_uid: Option<Value>,
    /// Sent back as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_device_id: Option<Value>,
    /// `data.source`, in `ota/upgrade`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

impl Correlation {
    /// The EMU that is meant.
    pub fn emu(&self) -> Option<i64> {
        whole(self.sub_device_id.as_ref()?)
    }
}

/// A command.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// What it is known by.
    pub known_by: Correlation,
    /// The device it is for, where it says so.
    pub device_uid: Option<String>,
    /// When it was sent, in milliseconds since the epoch.
    pub timestamp: Option<u64>,
    /// What it asks for; null when absent.
    pub data: Value,
}

/// Reads a command. `unique` is asked for an identity where the command has neither a `mid` nor a `timestamp`.
///
/// # Errors
/// It is no JSON object.
pub fn read(
    value: Value,
    kind: Kind,
    base: String,
    unique: impl FnOnce() -> String,
) -> Result<Command, &'static str> {
    let Value::Object(mut fields) = value else {
        return Err("it is no JSON object");
    };
    let data = fields.remove("data").unwrap_or(Value::Null);
    let timestamp = fields.get("timestamp").and_then(whole);
    let mut known_by = Correlation {
        kind,
        base,
        id: 0,
        mid: scalar(&mut fields, "mid").map(|mid| text(&mid)),
        trace_id: scalar(&mut fields, "trace_id"),
        sub_device_uid: scalar(&mut fields, "sub_device_uid"),
        sub_device_id: scalar(&mut fields, "sub_device_id"),
        source: data
            .get("source")
            .and_then(Value::as_str)
            .filter(|source| is_short(source))
            .map(Into::into),
    };
    known_by.id = identity(&known_by, timestamp, &data, unique);
    Ok(Command {
        known_by,
        device_uid: scalar(&mut fields, "device_uid").map(|uid| text(&uid)),
        timestamp: timestamp.and_then(|at| at.try_into().ok()),
        data,
    })
}

/// What tells a command from every other: its kind and `mid`; without a `mid` what it asks for and when. The kind belongs to it, because
/// the vendor's own examples use one `mid` for all four commands. Condensed to 64 bits, because hundreds are remembered.
fn identity(
    command: &Correlation,
    timestamp: Option<i64>,
    data: &Value,
    unique: impl FnOnce() -> String,
) -> u64 {
    let at = match (&command.mid, timestamp) {
        (Some(mid), _) => return of_mid(command.kind.word(), mid),
        (None, Some(at)) => at.to_string(),
        (None, None) => unique(),
    };
    let ids = [&command.sub_device_uid, &command.sub_device_id];
    let mut sum = Sum::new();
    sum.take(command.kind.word());
    // No mid is empty.
    sum.take("");
    sum.take(&at);
    sum.take(
        data.get("md5_code")
            .and_then(Value::as_str)
            .unwrap_or_default(),
    );
    sum.take(command.source.as_deref().unwrap_or_default());
    ids.into_iter()
        .for_each(|id| sum.take(&id.as_ref().map(text).unwrap_or_default()));
    sum.finish()
}

fn of_mid(kind: &str, mid: &str) -> u64 {
    let mut sum = Sum::new();
    sum.take(kind);
    sum.take(mid);
    sum.finish()
}

/// Key of the job for a command: its `mid` in sight of the operator where it is fit to be one.
pub fn key(command: &Correlation) -> String {
    match &command.mid {
        Some(mid) if !mid.starts_with('#') && !mid.chars().any(char::is_control) => {
            format!("{}/{mid}", command.kind.word())
        }
        _ => format!("{}/#{:016x}", command.kind.word(), command.id),
    }
}

/// The identity of the command that a job has this key for.
pub fn id_of(key: &str) -> Option<u64> {
    let (kind, name) = key.split_once('/')?;
    match name.strip_prefix('#') {
        Some(id) => u64::from_str_radix(id, 16).ok(),
        None => Some(of_mid(kind, name)),
    }
}

/// The package that is to be installed.
#[derive(Clone, PartialEq, Eq)]
pub struct Package {
    /// Where it is. May hold a signature: never logged.
    pub url: String,
    /// 32 lower-case hexadecimal digits.
    pub md5: String,
}

/// What is wrong with the package's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageFault {
    /// `download_url` is missing or cannot be one.
    Url,
    /// `md5_code` is missing or no MD5.
    Md5,
}

impl PackageFault {
    /// A sentence for the platform.
    pub fn text(self) -> &'static str {
        match self {
            PackageFault::Url => "data.download_url is missing or is no http or https address",
            PackageFault::Md5 => "data.md5_code is missing or is not 32 hexadecimal digits",
        }
    }
}

/// Reads the package.
///
/// # Errors
/// The first parameter that is wrong.
pub fn package(data: &Value) -> Result<Package, PackageFault> {
    let url = match data.get("download_url").and_then(Value::as_str) {
        Some(url) if url.len() <= URL_MAX && is_web_address(url) => url.to_owned(),
        _ => return Err(PackageFault::Url),
    };
    match data.get("md5_code").and_then(Value::as_str).map(str::trim) {
        Some(md5) if md5.len() == 32 && md5.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(Package {
            url,
            md5: md5.to_ascii_lowercase(),
        }),
        _ => Err(PackageFault::Md5),
    }
}

/// An absolute `http` or `https` address with a host. The host program parses it in full later.
fn is_web_address(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else {
        return false;
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return false;
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    !host.is_empty()
        && !host.starts_with(':')
        && !url
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || c == '\\')
}

/// A number, a truth value, or a text that is neither empty nor too long; everything else counts as absent.
fn scalar(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    fields.remove(name).filter(|value| match value {
        Value::String(text) => is_short(text),
        Value::Number(_) | Value::Bool(_) => true,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    })
}

fn is_short(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_MAX
}

/// A scalar as text.
pub fn text(scalar: &Value) -> String {
    match scalar {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A whole number, or one that was written as text.
pub fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// FNV-1a of 64 bits and a finisher that spreads it: the same in every build.
struct Sum(u64);

impl Sum {
    fn new() -> Self {
        Sum(0xcbf2_9ce4_8422_2325)
    }

    /// Takes in a text and its end, so that `ab`, `c` differs from `a`, `bc`.
    fn take(&mut self, text: &str) {
        for byte in text.bytes().chain([0xff]) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Command {
        super::read(value, Kind::Upgrade, "p/D".into(), || "unique".into()).unwrap()
    }

    fn page() -> Value {
        serde_json::from_str(include_str!("../fixtures/wudun_ota_upgrade_command.json")).unwrap()
    }

    #[test]
    fn the_vendors_command_is_read() {
        let command = read(page());
        assert_eq!(
            command.known_by.mid.as_deref(),
            Some("ee2e8f09-b280-4e4d-bcb9-1529b703cfed")
        );
        assert_eq!(
            command.known_by.trace_id,
            Some(json!("577f5df0-65d6-432d-8aac-06hjkgfg2"))
        );
        assert_eq!(command.known_by.source.as_deref(), Some("ems_II"));
        assert_eq!(command.device_uid.as_deref(), Some("test"));
        assert_eq!(command.timestamp, Some(1_697_789_021_000));
        let package = package(&command.data).ok().unwrap();
        assert_eq!(package.url, "http://example.com/ems_II");
        assert_eq!(package.md5, "50a2811e047dd49ace3801685eedb732");
    }

    #[test]
    fn scalars_may_be_of_the_wrong_type_and_nulls_are_absent() {
        let command = read(json!({
            "mid": 17, "trace_id": true, "sub_device_id": "2", "sub_device_uid": null, "timestamp": "1697789021000",
            "device_uid": 5, "new": {}
        }));
        assert_eq!(command.known_by.mid.as_deref(), Some("17"));
        assert_eq!(command.known_by.trace_id, Some(json!(true)));
        assert_eq!(command.known_by.emu(), Some(2));
        assert_eq!(command.known_by.sub_device_uid, None);
        assert_eq!(command.timestamp, Some(1_697_789_021_000));
        assert_eq!(command.device_uid.as_deref(), Some("5"));
        assert_eq!(command.data, Value::Null);
        for nothing in [
            json!({ "mid": "" }),
            json!({ "mid": [1] }),
            json!({ "mid": "m".repeat(TEXT_MAX + 1) }),
        ] {
            assert_eq!(read(nothing).known_by.mid, None);
        }
        assert!(super::read(json!([1]), Kind::Upgrade, "p".into(), String::new).is_err());
    }

    #[test]
    fn the_mid_and_the_kind_tell_commands_apart_and_nothing_else_does() {
        let id = |value: &Value| read(value.clone()).known_by.id;
        let mut other = page();
        other["data"]["md5_code"] = json!("00000000000000000000000000000000");
        other["timestamp"] = json!(1);
        assert_eq!(id(&page()), id(&other));
        let emu = super::read(page(), Kind::EmuUpgrade, "p/D".into(), String::new).unwrap();
        assert_ne!(id(&page()), emu.known_by.id);
        let prefix = super::read(page(), Kind::Upgrade, "q/D".into(), String::new).unwrap();
        assert_eq!(
            id(&page()),
            prefix.known_by.id,
            "the same command on the other prefix"
        );
        other["mid"] = json!("another");
        assert_ne!(id(&page()), id(&other));
    }

    #[test]
    fn without_a_mid_it_is_what_is_asked_for_and_when() {
        let mut command = page();
        command.as_object_mut().unwrap().remove("mid");
        let id = |value: &Value| read(value.clone()).known_by.id;
        let first = id(&command);
        assert_eq!(first, id(&command));
        for (pointer, value) in [
            ("/timestamp", json!(1_697_789_021_001_u64)),
            ("/data/md5_code", json!("00000000000000000000000000000000")),
            ("/data/source", json!("ems_III")),
        ] {
            let mut other = command.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            assert_ne!(first, id(&other), "{pointer}");
        }
        command["timestamp"] = Value::Null;
        let drawn = |unique: &str| {
            let unique = unique.to_owned();
            super::read(command.clone(), Kind::Upgrade, "p".into(), || unique)
                .unwrap()
                .known_by
                .id
        };
        assert_ne!(
            drawn("a"),
            drawn("b"),
            "nothing tells these two apart, so both are carried out"
        );
    }

    #[test]
    fn each_parameter_of_the_package_is_checked() {
        let fault = |name: &str, value: Value| {
            let mut data = page()["data"].clone();
            data[name] = value;
            package(&data).err()
        };
        for url in [
            json!(null),
            json!(""),
            json!("ftp://h/f"),
            json!("file:///etc/passwd"),
            json!("http://"),
            json!("http:///f"),
            json!("http://u@/f"),
            json!("http://h h/f"),
            json!("//h/f"),
            json!(5),
        ] {
            assert_eq!(
                fault("download_url", url.clone()),
                Some(PackageFault::Url),
                "{url}"
            );
        }
        for md5 in [
            json!(null),
            json!(""),
            json!("50a2"),
            json!("g0a2811e047dd49ace3801685eedb732"),
            json!(1),
        ] {
            assert_eq!(
                fault("md5_code", md5.clone()),
                Some(PackageFault::Md5),
                "{md5}"
            );
        }
        let mut data = page()["data"].clone();
        data["md5_code"] = json!("50A2811E047DD49ACE3801685EEDB732");
        assert_eq!(
            package(&data).ok().unwrap().md5,
            "50a2811e047dd49ace3801685eedb732"
        );
        assert_eq!(package(&Value::Null).err(), Some(PackageFault::Url));
    }

    #[test]
    fn a_key_shows_the_mid_and_is_always_a_legal_id() {
        assert_eq!(
            key(&read(page()).known_by),
            "ota_upgrade/ee2e8f09-b280-4e4d-bcb9-1529b703cfed"
        );
        for mid in [
            json!("a\nb"),
            json!("\u{1}".repeat(TEXT_MAX)),
            Value::Null,
            json!("ö".repeat(48)),
            json!("#00000000000000ff"),
            json!("a/b"),
        ] {
            let command = read(json!({ "mid": mid })).known_by;
            let key = key(&command);
            assert!(
                key.len() <= 200 && !key.chars().any(char::is_control),
                "{key:?}"
            );
            assert_eq!(id_of(&key), Some(command.id), "{key:?}");
        }
    }

    #[test]
    fn the_longest_correlation_fits_into_a_context_of_4_kib() {
        let long = "\u{1}".repeat(TEXT_MAX);
        let mut command = read(json!({
            "mid": long, "trace_id": long, "sub_device_uid": long, "sub_device_id": long, "data": { "source": long }
        }))
        .known_by;
        command.base = format!("{}/{}", "\"".repeat(128), "\"".repeat(64));
        assert_eq!(command.source.as_deref(), Some(long.as_str()));
        assert!(serde_json::to_vec(&command).unwrap().len() <= 4 * 1024);
    }
}
