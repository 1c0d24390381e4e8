//! What the book says of each message: the checks a cloud makes on everything a device sends.
//!
//! The rules are those of the DJI Cloud API (github dji-sdk/Cloud-API-Doc, `00.topic-definition.md` and `80.firmware.md`), and of
//! the cloud that DJI published (dji-sdk/DJI-Cloud-API-Demo), which drops silently what breaks them.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{Ids, Progress, Reply, Status};

/// Remembers what was sent and seen, and says what breaks a rule.
#[derive(Debug, Default)]
pub(super) struct Book {
    gateway: String,
    /// tid and bid of every command sent.
    commands: HashSet<Ids>,
    courses: HashMap<String, Course>,
    /// Event tids with the payload they came with: the same tid again is a redelivery or a re-send, and must say the same.
    tids: HashMap<String, Value>,
    violations: Vec<String>,
}

/// How the events of one bid have gone so far.
#[derive(Debug, Default)]
struct Course {
    percent: i64,
    end: Option<(Status, String)>,
}

impl Book {
    pub(super) fn new(gateway: &str) -> Self {
        Book {
            gateway: gateway.to_owned(),
            ..Book::default()
        }
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.clone()
    }

    fn broken(&mut self, topic: &str, rule: impl Into<String>) {
        let rule = rule.into();
        self.violations.push(format!("{topic}: {rule}"));
    }

    /// A command is about to be sent.
    pub(super) fn sent(&mut self, ids: &Ids) {
        self.commands.insert(ids.clone());
    }

    /// The envelope that every message has. `None` when it cannot be answered.
    pub(super) fn envelope(&mut self, topic: &str, payload: &[u8]) -> Option<(Ids, Value)> {
        let Ok(message @ Value::Object(_)) = serde_json::from_slice::<Value>(payload) else {
            self.broken(topic, "the payload is no JSON object");
            return None;
        };
        let text = |name: &str| {
            message[name]
                .as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let (tid, bid) = (text("tid"), text("bid"));
        for (name, found) in [("tid", &tid), ("bid", &bid)] {
            if found.is_none() {
                self.broken(topic, format!("{name} is missing or no text"));
            }
        }
        if message["timestamp"].as_u64().is_none() {
            self.broken(topic, "timestamp is missing or no integer");
        }
        if !message["data"].is_object() {
            self.broken(topic, "data is missing or no object");
        }
        let ids = Ids {
            tid: tid?,
            bid: bid?,
        };
        Some((ids, message))
    }

    /// `thing/product/{sn}/…` must come from this gateway and say so: the published cloud reads the field and not the topic.
    pub(super) fn gateway(&mut self, topic: &str, message: &Value) {
        match message["gateway"].as_str() {
            None => self.broken(topic, "gateway is missing"),
            Some(found) if found != self.gateway => self.broken(
                topic,
                format!("gateway is {found:?}, not {:?}", self.gateway),
            ),
            Some(_) => {}
        }
    }

    pub(super) fn method(&mut self, topic: &str, message: &Value, expected: Option<&str>) {
        match (message["method"].as_str(), expected) {
            (None | Some(""), _) => self.broken(topic, "method is missing"),
            (Some(found), Some(expected)) if found != expected => {
                self.broken(topic, format!("method is {found:?}, not {expected:?}"))
            }
            _ => {}
        }
    }

    /// An answer to a command. Only the pair of both ids is an answer.
    pub(super) fn reply(&mut self, topic: &str, ids: &Ids, message: &Value) -> Option<Reply> {
        if !self.commands.contains(ids) {
            self.broken(topic, format!("answers no command that was sent: {ids:?}"));
        }
        let Some(result) = message["data"]["result"].as_i64() else {
            self.broken(topic, "data.result is missing or no integer");
            return None;
        };
        let status = &message["data"]["output"]["status"];
        let status = match Status::from_value(status) {
            Some(status) => Some(status),
            None if status.is_null() => None,
            None => {
                self.broken(topic, format!("unknown status {status}"));
                None
            }
        };
        Some(Reply {
            ids: ids.clone(),
            result,
            status,
            message: message.clone(),
        })
    }

    /// An event: `need_reply` is there, and a tid seen before comes with what it came with.
    pub(super) fn event(&mut self, topic: &str, ids: &Ids, message: &Value) {
        if !matches!(message["need_reply"].as_i64(), Some(0 | 1)) {
            self.broken(topic, "need_reply is neither 0 nor 1");
        }
        match self.tids.get(&ids.tid) {
            Some(earlier)
                if earlier["data"] != message["data"] || earlier["bid"] != message["bid"] =>
            {
                self.broken(
                    topic,
                    format!("tid {} was used for another event before", ids.tid),
                );
            }
            Some(_) => {}
            None => {
                self.tids.insert(ids.tid.clone(), message.clone());
            }
        }
    }

    /// A device's `state`: the published cloud throws on a version without `compatible_status`.
    pub(super) fn state(&mut self, topic: &str, data: &Value) {
        if !data["firmware_version"].is_null()
            && !matches!(data["compatible_status"].as_i64(), Some(0 | 1))
        {
            self.broken(topic, "firmware_version without compatible_status 0 or 1");
        }
    }

    /// Progress of an update.
    pub(super) fn progress(&mut self, topic: &str, ids: &Ids, message: &Value) -> Option<Progress> {
        let output = &message["data"]["output"];
        let result = message["data"]["result"].as_i64();
        if result.is_none() {
            self.broken(topic, "data.result is missing or no integer");
        }
        let Some(status) = Status::from_value(&output["status"]) else {
            self.broken(topic, format!("unknown status {}", output["status"]));
            return None;
        };
        let Some(percent) = output["progress"]["percent"]
            .as_i64()
            .filter(|percent| (0..=100).contains(percent))
        else {
            self.broken(
                topic,
                format!(
                    "percent is {}, not an integer from 0 to 100",
                    output["progress"]["percent"]
                ),
            );
            return None;
        };
        if !self.commands.iter().any(|sent| sent.bid == ids.bid) {
            self.broken(topic, format!("bid {} is that of no command", ids.bid));
        }
        let resent = self
            .courses
            .entry(ids.bid.clone())
            .or_default()
            .end
            .as_ref()
            .is_some_and(|(_, tid)| *tid == ids.tid);
        if !resent {
            self.course(topic, ids, status, percent);
        }
        match (status, result) {
            (Status::Ok, _) if percent != 100 => {
                self.broken(topic, format!("ok with {percent} percent"))
            }
            (Status::Ok, Some(result)) if result != 0 => {
                self.broken(topic, format!("ok with result {result}"))
            }
            (Status::Failed | Status::Rejected | Status::Timeout, Some(0)) => {
                self.broken(topic, format!("{status} with result 0"))
            }
            _ => {}
        }
        if status.is_terminal() && message["need_reply"].as_i64() != Some(1) {
            self.broken(topic, "the last event does not ask for an answer");
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Some(Progress {
            ids: ids.clone(),
            status,
            percent: u8::try_from(percent).unwrap_or(100),
            result: result.unwrap_or_default(),
            step_key: text(&output["progress"]["step_key"]),
            sub_status: text(&output["sub_status"]),
            message: message.clone(),
        })
    }

    fn course(&mut self, topic: &str, ids: &Ids, status: Status, percent: i64) {
        let course = self.courses.entry(ids.bid.clone()).or_default();
        let mut broken = Vec::new();
        if let Some((end, _)) = course.end {
            broken.push(format!("{status} after the end, which was {end}"));
        }
        if percent < course.percent {
            broken.push(format!(
                "percent falls from {} to {percent}",
                course.percent
            ));
        }
        course.percent = course.percent.max(percent);
        if status.is_terminal() && course.end.is_none() {
            course.end = Some((status, ids.tid.clone()));
        }
        for rule in broken {
            self.broken(topic, rule);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    const TOPIC: &str = "thing/product/NM1/events";

    fn ids(tid: &str) -> Ids {
        Ids {
            tid: tid.to_owned(),
            bid: "bid".to_owned(),
        }
    }

    fn book() -> Book {
        let mut book = Book::new("NM1");
        book.sent(&ids("command"));
        book
    }

    fn event(tid: &str, status: &str, percent: i64) -> Value {
        let terminal = Status::from_value(&json!(status)).is_some_and(Status::is_terminal);
        let result = if matches!(status, "failed" | "rejected" | "timeout") {
            312_013
        } else {
            0
        };
        json!({
            "tid": tid, "bid": "bid", "timestamp": 1, "gateway": "NM1", "method": "ota_progress",
            "need_reply": i32::from(terminal),
            "data": {"result": result, "output": {"status": status, "progress": {"percent": percent, "step_key": "x"}}},
        })
    }

    fn feed(book: &mut Book, message: &Value) {
        if let Some((ids, message)) = book.envelope(TOPIC, message.to_string().as_bytes()) {
            book.gateway(TOPIC, &message);
            book.method(TOPIC, &message, Some("ota_progress"));
            book.event(TOPIC, &ids, &message);
            book.progress(TOPIC, &ids, &message);
        }
    }

    fn verdict(messages: &[Value]) -> Vec<String> {
        let mut book = book();
        for message in messages {
            feed(&mut book, message);
        }
        book.violations()
    }

    #[test]
    fn a_course_by_the_book_breaks_nothing_even_when_the_end_is_sent_again() {
        let end = event("3", "ok", 100);
        assert_eq!(
            verdict(&[
                event("1", "in_progress", 0),
                event("2", "in_progress", 50),
                end.clone(),
                end
            ]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn each_broken_rule_is_found() {
        let with = |path: &str, value: Value| {
            let mut message = event("1", "in_progress", 10);
            *message.pointer_mut(path).unwrap() = value;
            message
        };
        let without = |name: &str| {
            let mut message = event("1", "in_progress", 10);
            message.as_object_mut().unwrap().remove(name);
            message
        };
        let cases: [(Vec<Value>, &str); 18] = [
            (vec![without("gateway")], "gateway is missing"),
            (vec![with("/gateway", json!("other"))], "gateway is"),
            (vec![without("need_reply")], "need_reply"),
            (vec![without("method")], "method is missing"),
            (vec![without("tid")], "tid is missing"),
            (vec![without("bid")], "bid is missing"),
            (vec![with("/timestamp", json!("1"))], "timestamp"),
            (vec![with("/bid", json!("stranger"))], "of no command"),
            (
                vec![with("/data/output/status", json!("done"))],
                "unknown status",
            ),
            (
                vec![with("/data/output/progress/percent", json!(101))],
                "percent is 101",
            ),
            (
                vec![with("/data/output/progress/percent", json!(1.5))],
                "percent is 1.5",
            ),
            (
                vec![event("1", "in_progress", 20), event("2", "in_progress", 19)],
                "falls from 20 to 19",
            ),
            (
                vec![event("1", "in_progress", 20), event("1", "in_progress", 21)],
                "used for another event",
            ),
            (
                vec![event("1", "ok", 100), event("2", "failed", 100)],
                "failed after the end, which was ok",
            ),
            (
                vec![event("1", "ok", 100), event("2", "ok", 100)],
                "ok after the end",
            ),
            (vec![event("1", "ok", 99)], "ok with 99 percent"),
            (
                vec![{
                    let mut message = event("1", "failed", 10);
                    message["data"]["result"] = json!(0);
                    message
                }],
                "failed with result 0",
            ),
            (
                vec![{
                    let mut message = event("1", "ok", 100);
                    message["need_reply"] = json!(0);
                    message
                }],
                "does not ask for an answer",
            ),
        ];
        for (messages, rule) in cases {
            let found = verdict(&messages);
            assert!(
                found.len() == 1 && found[0].contains(rule),
                "expected {rule:?}, found {found:?}"
            );
        }
    }

    #[test]
    fn a_payload_that_is_no_object_is_found_and_ends_there() {
        let mut book = book();
        for payload in [&b"[1]"[..], b"nonsense", b"", b"\"text\""] {
            assert!(book.envelope(TOPIC, payload).is_none());
        }
        assert_eq!(book.violations().len(), 4);
    }

    #[test]
    fn an_answer_with_one_wrong_id_answers_nothing() {
        let mut book = book();
        let answer = json!({"data": {"result": 0}});
        for wrong in [
            ids("other"),
            Ids {
                tid: "command".to_owned(),
                bid: "other".to_owned(),
            },
        ] {
            book.reply(TOPIC, &wrong, &answer);
        }
        assert_eq!(book.violations().len(), 2);
        book.reply(TOPIC, &ids("command"), &answer).unwrap();
        assert_eq!(book.violations().len(), 2);
    }
}
