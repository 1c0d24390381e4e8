//! What the cloud says, read without trust: a list of firmware, a device, an error, or a gateway's page in HTML.
//!
//! Dates are not read: in lists they have no zone, in devices they have. Of the three ids of a list's entry only `firmware_id` is
//! used; `id` is that of the row, and `firmware.id` is the same by luck.

use otahost_adapter::HttpResponse;
use serde_json::Value;

use crate::config::ID_MAX;

/// The longest version that is taken, in bytes. The vendor's have 5.
const VERSION_MAX: usize = 64;
/// The longest text of a server that is kept, in characters.
const TEXT_MAX: usize = 160;

/// One firmware of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// The id that paths are made of.
    pub id: u64,
    /// As the cloud writes it.
    pub version: String,
    /// The hardware it is for, where the cloud says so.
    pub hardware: Option<u64>,
    /// The cloud gives it out.
    pub active: bool,
    /// Changes when another file is put under the same id.
    pub stamp: u64,
}

/// The list of firmware newer than what the cloud thinks is installed, and how many entries could not be used; `None` when this is
/// no list at all.
pub fn firmware_list(body: &[u8]) -> Option<(Vec<Firmware>, usize)> {
    let Ok(Value::Array(entries)) = serde_json::from_slice(body) else {
        return None;
    };
    let all = entries.len();
    let list: Vec<_> = entries.iter().filter_map(firmware).collect();
    let odd = all - list.len();
    Some((list, odd))
}

fn firmware(entry: &Value) -> Option<Firmware> {
    let firmware = entry.get("firmware")?;
    let version = text(firmware, "version").trim();
    if version.is_empty() || version.len() > VERSION_MAX || version.chars().any(char::is_control) {
        return None;
    }
    Some(Firmware {
        id: id(entry.get("firmware_id")?)?,
        version: version.to_owned(),
        hardware: entry.get("hardware_id").and_then(id),
        active: firmware.get("is_active").and_then(Value::as_bool) == Some(true),
        stamp: stamp([version, text(firmware, "name"), text(firmware, "file_key")]),
    })
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// An id: a number, or the same as text.
fn id(value: &Value) -> Option<u64> {
    let id = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    id.filter(|id| *id <= ID_MAX)
}

/// FNV-1a over the parts. It tells one entry of the cloud from another, and protects nothing.
fn stamp(parts: [&str; 3]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0xff])) {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    sum
}

/// `now_firmware_id` of a device's page.
pub fn now_firmware_id(body: &[u8]) -> Option<u64> {
    let device: Value = serde_json::from_slice(body).ok()?;
    id(device.get("now_firmware_id")?)
}

/// True where the body is a JSON object, as every answer with tokens is.
pub fn is_object(body: &[u8]) -> bool {
    matches!(serde_json::from_slice(body), Ok(Value::Object(_)))
}

/// The sentence of an error's body, where it has one: `detail` as text. A list (FastAPI's 422), HTML and anything else have none.
pub fn detail(body: &[u8]) -> Option<String> {
    let error: Value = serde_json::from_slice(body).ok()?;
    Some(shown(error.get("detail")?.as_str()?))
}

/// A server's text as it may be kept and shown: short, on one line.
pub fn shown(text: &str) -> String {
    text.trim()
        .chars()
        .take(TEXT_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// An answer in words: its status, and what it says.
pub fn words(status: u16, body: &[u8]) -> String {
    match detail(body) {
        Some(detail) if !detail.is_empty() => format!("HTTP {status}, {detail}"),
        _ => format!("HTTP {status}"),
    }
}

/// True where the body is one of an object store's errors (XML) of this code or with this in its message.
pub fn is_store_error(body: &[u8], word: &str) -> bool {
    let body = String::from_utf8_lossy(body);
    body.contains("<Error>") && body.contains(word)
}

/// The wait in milliseconds that a server asks for. Only in seconds: its other form is a date, and clocks of devices are wrong.
pub fn retry_after(response: &HttpResponse) -> Option<u64> {
    let header = response
        .headers
        .iter()
        .find(|h| h.name.eq_ignore_ascii_case("retry-after"))?;
    let seconds: u64 = header.value.trim().parse().ok()?;
    Some(seconds.saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use otahost_adapter::Field;
    use serde_json::json;

    const PAGE: &str = include_str!("../fixtures/withnox_firmware_latest.json");

    #[test]
    fn r02_of_the_three_ids_firmware_id_is_the_one_that_counts() {
        let mut entry: Value = serde_json::from_str(PAGE).unwrap();
        entry[0]["firmware"]["id"] = json!(12);
        let (list, odd) = firmware_list(entry.to_string().as_bytes()).unwrap();
        assert_eq!((list.len(), odd), (1, 0));
        let one = &list[0];
        assert_eq!(
            (one.id, one.version.as_str(), one.hardware, one.active),
            (7, "1.0.0", Some(3), true)
        );
    }

    #[test]
    fn an_entry_that_cannot_be_used_costs_only_itself() {
        let page: Value = serde_json::from_str(PAGE).unwrap();
        let good = &page[0];
        let mut entries = vec![json!(null), json!([]), json!({"firmware_id": 1})];
        for (place, value) in [
            ("/firmware_id", json!(-1)),
            ("/firmware_id", json!(1.5)),
            ("/firmware_id", json!(u64::MAX)),
            ("/firmware/version", json!("")),
            ("/firmware/version", json!("1.0.0\n")),
            ("/firmware/version", json!("1\u{7}")),
            ("/firmware/version", json!(["1.0.0"])),
            ("/firmware", json!("1.0.0")),
        ] {
            let mut entry = good.clone();
            *entry.pointer_mut(place).unwrap() = value;
            entries.push(entry);
        }
        entries.push(good.clone());
        let (list, odd) = firmware_list(json!(entries).to_string().as_bytes()).unwrap();
        let ids: Vec<_> = list.iter().map(|f| (f.id, f.version.as_str())).collect();
        assert_eq!(ids, [(7, "1.0.0"), (7, "1.0.0")], "a line's end is trimmed");
        assert_eq!(odd, entries.len() - 2);
    }

    #[test]
    fn another_file_under_the_same_id_has_another_stamp_and_a_new_description_has_not() {
        let page: Value = serde_json::from_str(PAGE).unwrap();
        let stamp = |place: &str, value: &str| {
            let mut page = page.clone();
            *page.pointer_mut(place).unwrap() = json!(value);
            firmware_list(page.to_string().as_bytes()).unwrap().0[0].stamp
        };
        let first = stamp("/0/firmware/description", "old");
        assert_eq!(first, stamp("/0/firmware/description", "new"));
        for place in ["name", "version", "file_key"] {
            assert_ne!(
                first,
                stamp(&format!("/0/firmware/{place}"), "9"),
                "{place}"
            );
        }
    }

    #[test]
    fn what_is_no_error_of_the_api_has_no_detail() {
        for body in [
            "",
            "<html>502</html>",
            "[]",
            "null",
            "{}",
            r#"{"detail":[{"loc":["path","device_id"],"msg":"x"}]}"#,
            r#"{"detail":5}"#,
        ] {
            assert_eq!(detail(body.as_bytes()), None, "{body}");
        }
        assert_eq!(
            detail(br#"{"detail":" Token\u0007is "}"#),
            Some("Token is".into())
        );
        let long = json!({ "detail": "가".repeat(5_000) }).to_string();
        assert_eq!(detail(long.as_bytes()).unwrap().chars().count(), TEXT_MAX);
    }

    #[test]
    fn a_wait_is_read_in_seconds_only() {
        for (value, expected) in [
            ("120", Some(120_000)),
            (" 7 ", Some(7_000)),
            ("-1", None),
            ("Wed, 21 Oct 2026 07:28:00 GMT", None),
            ("18446744073709551615", Some(u64::MAX)),
        ] {
            let mut response = HttpResponse::status(429);
            response.headers.push(Field {
                name: "retry-after".into(),
                value: value.into(),
            });
            assert_eq!(retry_after(&response), expected, "{value}");
        }
    }
}
