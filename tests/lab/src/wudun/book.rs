//! What the platform knows was sent and came back, and the rules by which it judges a device.
//!
//! The rules are those of the vendor's pages and of `README.md` of the adapter: what a result's envelope holds, which fields its `data`
//! may have, and in which order the numbers of an update may come.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{Answer, Kind, Sent};

/// A device's clock may be so many milliseconds away from ours.
const CLOCK: u64 = 10 * 60 * 1_000;

/// The book of one device.
#[derive(Debug, Default)]
pub(super) struct Book {
    device_uid: String,
    commands: BTreeMap<(Kind, String), Entry>,
    mids: BTreeSet<String>,
    counts: BTreeMap<Kind, usize>,
    violations: Vec<String>,
}

/// A command, how often it was sent, and what was said to it.
#[derive(Debug)]
struct Entry {
    sent: Sent,
    times: usize,
    answers: Vec<Answer>,
}

impl Book {
    pub(super) fn new(device_uid: &str) -> Self {
        Book {
            device_uid: device_uid.to_owned(),
            ..Book::default()
        }
    }

    /// A command goes out.
    pub(super) fn sent(&mut self, sent: &Sent) {
        self.mids.insert(sent.mid.clone());
        self.commands
            .entry((sent.kind, sent.trace_id.clone()))
            .or_insert_with(|| Entry {
                sent: sent.clone(),
                times: 0,
                answers: Vec::new(),
            })
            .times += 1;
    }

    pub(super) fn answers(&self, to: &Sent) -> &[Answer] {
        self.commands
            .get(&(to.kind, to.trace_id.clone()))
            .map_or(&[], |entry| &entry.answers)
    }

    pub(super) fn count(&self, kind: Kind) -> usize {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.clone()
    }

    /// A message came.
    pub(super) fn received(&mut self, topic: &str, payload: &[u8], retained: bool, now: u64) {
        let mut faults = Vec::new();
        if retained {
            faults.push("it is retained".to_owned());
        }
        self.judge(topic, payload, now, &mut faults);
        self.violations
            .extend(faults.iter().map(|fault| format!("{topic}: {fault}")));
    }

    fn judge(&mut self, topic: &str, payload: &[u8], now: u64, faults: &mut Vec<String>) {
        let route = topic
            .strip_suffix("/result")
            .and_then(|rest| rest.rsplit_once("/ota/"))
            .and_then(|(base, level)| Some((base, Kind::of_level(level)?)));
        let Some((base, kind)) = route else {
            return faults.push("nobody subscribes to this topic".to_owned());
        };
        let Ok(Value::Object(message)) = serde_json::from_slice(payload) else {
            return faults.push("it is no JSON object".to_owned());
        };
        let text = |field: &str| message.get(field).and_then(Value::as_str);
        let (Some(mid), Some(trace_id)) = (text("mid"), text("trace_id")) else {
            return faults.push("it has no mid or no trace_id".to_owned());
        };
        let Some(entry) = self.commands.get_mut(&(kind, trace_id.to_owned())) else {
            return faults.push(format!(
                "no {} was sent with trace_id {trace_id}",
                kind.word()
            ));
        };
        if !self.mids.insert(mid.to_owned()) {
            // The broker may give the same message twice, and nobody may give one mid to two.
            let same = entry
                .answers
                .iter()
                .any(|known| known.mid == mid && known.message.as_object() == Some(&message));
            if !same {
                faults.push(format!("the mid {mid} was used before"));
            }
            return;
        }
        envelope(&entry.sent, &self.device_uid, base, &message, now, faults);
        let answer = Answer {
            kind,
            base: base.to_owned(),
            mid: mid.to_owned(),
            trace_id: trace_id.to_owned(),
            data: message.get("data").cloned().unwrap_or_default(),
            message: Value::Object(message),
        };
        match kind {
            Kind::Upgrade => upgrade(entry, &answer, faults),
            Kind::EmuUpgrade => emu_upgrade(entry, &answer, faults),
            Kind::EmuVersion => emu_version(entry, &answer, faults),
            Kind::EmuUpgradeResult => emu_upgrade_result(entry, &answer, faults),
        }
        entry.answers.push(answer);
        *self.counts.entry(kind).or_default() += 1;
    }
}

fn envelope(
    sent: &Sent,
    device_uid: &str,
    base: &str,
    message: &Map<String, Value>,
    now: u64,
    faults: &mut Vec<String>,
) {
    if base != sent.base {
        faults.push(format!("its command came on {}", sent.base));
    }
    known_fields(
        message,
        &[
            "mid",
            "trace_id",
            "type",
            "device_uid",
            "sub_device_id",
            "sub_device_uid",
            "timestamp",
            "data",
            "reply",
            "code",
            "msg",
        ],
        faults,
    );
    let mid = message.get("mid").and_then(Value::as_str);
    if !mid.is_some_and(is_uuid) {
        faults.push(format!("its mid {mid:?} is no UUID"));
    }
    let mut is = |field: &str, expected: &Value| {
        let found = message.get(field);
        if found != Some(expected) {
            faults.push(format!("{field} is {found:?} and not {expected}"));
        }
    };
    is("type", &sent.kind.word().into());
    is("device_uid", &device_uid.into());
    for field in ["sub_device_id", "sub_device_uid"] {
        match sent.message.get(field).filter(|value| !value.is_null()) {
            Some(value) => is(field, value),
            None if message.contains_key(field) => {
                is(field, &Value::from("nothing: the command has none"));
            }
            None => {}
        }
    }
    if message.contains_key("reply") {
        is("reply", &sent.mid.as_str().into());
    }
    let time = message.get("timestamp").and_then(Value::as_u64);
    if time.is_none_or(|time| time.abs_diff(now) > CLOCK) {
        faults.push(format!("its timestamp is {time:?}, and it is {now}"));
    }
}

/// 1 or 3 alone; or 2, and then one of 4, 5 and 6. To a command that was sent again the same once more.
fn upgrade(entry: &Entry, answer: &Answer, faults: &mut Vec<String>) {
    let Some(data) = answer.data.as_object() else {
        return faults.push("data is no object".to_owned());
    };
    known_fields(
        data,
        &[
            "source",
            "version",
            "target_version",
            "final_version",
            "status",
        ],
        faults,
    );
    if data.get("source") != entry.sent.message["data"].get("source") {
        faults.push(format!("source is {:?}", data.get("source")));
    }
    let status = data.get("status").and_then(Value::as_u64);
    for field in ["version", "target_version", "final_version"] {
        match data.get(field) {
            Some(Value::String(version)) if !version.is_empty() => {}
            Some(other) => faults.push(format!("{field} is {other}")),
            None => {}
        }
    }
    if data.contains_key("final_version") && status < Some(4) {
        faults.push("a final_version before the end".to_owned());
    }
    let said: Vec<u64> = entry
        .answers
        .iter()
        .filter_map(|answer| answer.number("status"))
        .collect();
    let end = said.iter().find(|status| **status != 2).copied();
    let again = entry.times > 1;
    let fits = match (status, end) {
        (Some(1 | 3), None) => said.is_empty(),
        (Some(2), None) => said.is_empty() || again,
        (Some(4..=6), None) => said.contains(&2),
        (Some(status), Some(end)) => again && (status == end || (status == 2 && said.contains(&2))),
        _ => false,
    };
    if !fits {
        faults.push(format!("status {status:?} after {said:?}"));
    }
}

/// One result to each time it was sent, always the same.
fn emu_upgrade(entry: &Entry, answer: &Answer, faults: &mut Vec<String>) {
    let Some(data) = answer.data.as_object() else {
        return faults.push("data is no object".to_owned());
    };
    known_fields(data, &["device_id", "download_status"], faults);
    if data.get("device_id") != entry.sent.message.get("sub_device_id") {
        faults.push(format!("device_id is {:?}", data.get("device_id")));
    }
    let status = answer.number("download_status");
    if !status.is_some_and(|status| (1..=6).contains(&status)) {
        faults.push(format!("download_status is {status:?}"));
    }
    if let Some(first) = entry.answers.first()
        && (first.data != answer.data || entry.answers.len() >= entry.times)
    {
        faults.push(format!("a second result: {status:?} after {}", first.data));
    }
}

fn emu_version(entry: &Entry, answer: &Answer, faults: &mut Vec<String>) {
    let Some(list) = answer.data.as_array() else {
        return faults.push("data is no array".to_owned());
    };
    let mut seen = BTreeSet::new();
    for emu in list {
        standing(emu, faults);
        let name = format!("{} {}", emu["device_id"], emu["emu_upgrade_device"]);
        if !seen.insert(name) {
            faults.push(format!("{} is there twice", emu["device_id"]));
        }
    }
    one_answer(entry, faults);
}

fn emu_upgrade_result(entry: &Entry, answer: &Answer, faults: &mut Vec<String>) {
    standing(&answer.data, faults);
    if answer.data.get("device_id") != entry.sent.message.get("sub_device_id") {
        faults.push(format!("device_id is {:?}", answer.data.get("device_id")));
    }
    one_answer(entry, faults);
}

/// A question is answered once each time it is asked.
fn one_answer(entry: &Entry, faults: &mut Vec<String>) {
    if entry.answers.len() >= entry.times {
        faults.push("a second answer to one question".to_owned());
    }
}

/// How one EMU stands.
fn standing(emu: &Value, faults: &mut Vec<String>) {
    let Some(fields) = emu.as_object() else {
        return faults.push(format!("an EMU is {emu}"));
    };
    known_fields(
        fields,
        &[
            "device_id",
            "status",
            "emu_upgrade_success",
            "emu_upgrade_device",
            "emu_upgrade_status",
            "emu_upgrade_content",
            "emu_product_sn",
        ],
        faults,
    );
    let mut within = |field: &str, least: u64, most: u64, nullable: bool| {
        let fits = match emu.get(field) {
            None | Some(Value::Null) => nullable,
            Some(value) => value
                .as_u64()
                .is_some_and(|number| (least..=most).contains(&number)),
        };
        if !fits {
            faults.push(format!("{field} is {:?}", emu.get(field)));
        }
    };
    within("device_id", 0, u64::MAX, false);
    within("status", 1, 3, false);
    within("emu_upgrade_success", 0, 0x3ff, true);
    within("emu_upgrade_device", 3, 26, true);
    within("emu_upgrade_status", 1, 5, true);
    within("emu_upgrade_content", 0, 100, true);
    if !emu.get("emu_product_sn").is_none_or(Value::is_string) {
        faults.push("emu_product_sn is no text".to_owned());
    }
}

fn known_fields(fields: &Map<String, Value>, known: &[&str], faults: &mut Vec<String>) {
    for field in fields.keys() {
        if !known.contains(&field.as_str()) {
            faults.push(format!("{field} is no field of the vendor's"));
        }
    }
}

/// Five groups of hexadecimal digits, of version 4.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
        && groups[2].starts_with('4')
}
