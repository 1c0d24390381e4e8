//! What goes over the wire: the envelope, the words for statuses and steps, and the numbers for errors.
//!
//! Inbound is read as tolerantly as real clouds need it (their examples omit fields, add fields and write numbers as text);
//! outbound is written one way only in each dialect.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest `tid`, `bid` or `method` in bytes: they are kept in a job's context, which holds 4 KiB even when each byte is escaped.
pub const ID_MAX: usize = 256;

/// The largest message that is read at all. The host's own limit; checked again so that this code does not lean on it.
pub const PAYLOAD_MAX: usize = 256 * 1024;

/// A message of the cloud, as far as it matters. `timestamp`, `gateway` and whatever else it holds are not looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// Names one transaction.
    pub tid: String,
    /// Names the business that the transaction belongs to.
    pub bid: String,
    /// What is asked or answered.
    pub method: String,
    /// The rest; null when absent.
    pub data: Value,
}

/// Reads an envelope.
///
/// # Errors
/// Why there is nobody to answer: it is no JSON object, or `method`, `tid` or `bid` is no text of 1 to [`ID_MAX`] bytes.
pub fn parse(payload: &[u8]) -> Result<Inbound, &'static str> {
    if payload.len() > PAYLOAD_MAX {
        return Err("it is larger than 256 KiB");
    }
    let value: Value = serde_json::from_slice(payload).map_err(|_| "it is no JSON")?;
    let Value::Object(mut fields) = value else {
        return Err("it is no JSON object");
    };
    Ok(Inbound {
        tid: id(&mut fields, "tid").ok_or("`tid` is missing or is no usable text")?,
        bid: id(&mut fields, "bid").ok_or("`bid` is missing or is no usable text")?,
        method: id(&mut fields, "method").ok_or("`method` is missing or is no usable text")?,
        data: fields.remove("data").unwrap_or(Value::Null),
    })
}

fn id(fields: &mut Map<String, Value>, name: &str) -> Option<String> {
    match fields.remove(name) {
        Some(Value::String(text)) if !text.is_empty() && text.len() <= ID_MAX => Some(text),
        _ => None,
    }
}

/// `data.result` of a reply of the cloud: 0 is success. Absent or unreadable counts as success, as in replies without data.
pub fn result_of(data: &Value) -> i64 {
    match data.get("result") {
        Some(Value::String(text)) => text.trim().parse().unwrap_or(0),
        Some(value) => value.as_i64().unwrap_or(0),
        None => 0,
    }
}

/// A message to the cloud.
#[derive(Debug, Serialize)]
pub struct Outbound<'a> {
    /// Names this transaction; in a reply that of the command.
    pub tid: &'a str,
    /// Names the business; in a reply that of the command.
    pub bid: &'a str,
    /// Milliseconds since the epoch.
    pub timestamp: u64,
    /// Serial number of the gateway. Written always: a known consumer reads it from here, not from the topic.
    pub gateway: &'a str,
    /// What it is; absent in `state` and `osd`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'a str>,
    /// In events: whether the cloud shall say that it has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub need_reply: Option<u8>,
    /// The rest.
    pub data: Value,
}

impl Outbound<'_> {
    /// The message as JSON.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text, numbers and a JSON value have a JSON form")
    }
}

/// How an update stands, in the vendor's words. All eight; each says whether it is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, not begun.
    Sent,
    /// Under way.
    InProgress,
    /// Held.
    Paused,
    /// Ended: the new version runs.
    Ok,
    /// Ended: refused.
    Rejected,
    /// Ended: it went wrong.
    Failed,
    /// Ended: called off.
    Canceled,
    /// Ended: a deadline passed.
    Timeout,
}

impl Status {
    /// True when no other status follows (`isEnd` of the vendor's own SDK).
    pub fn is_terminal(self) -> bool {
        match self {
            Status::Sent | Status::InProgress | Status::Paused => false,
            Status::Ok | Status::Rejected | Status::Failed | Status::Canceled | Status::Timeout => {
                true
            }
        }
    }
}

/// What is being done, in Autel's words; DJI has none. `Blank` stands in the replies, which carry an empty text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the vendor's page explains each word")]
pub enum SubStatus {
    #[serde(rename = "")]
    Blank,
    Unknown,
    Downloading,
    DownloadSuccess,
    DownloadFailed,
    Verify,
    VerifySuccess,
    VerifyFailed,
    UploadingDrone,
    Upgrading,
    UpgradeSuccess,
    UpgradeFail,
}

/// Which half of the update it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// None yet: number 1 with an empty key, as in Autel's reply.
    #[serde(rename = "")]
    Blank,
    /// Downloading and verifying.
    #[serde(rename = "download_firmware")]
    Download,
    /// Everything after.
    #[serde(rename = "upgrade_firmware")]
    Upgrade,
}

impl Step {
    /// Autel's number for it.
    pub fn number(self) -> u8 {
        match self {
            Step::Blank | Step::Download => 1,
            Step::Upgrade => 2,
        }
    }
}

/// How an update stands: all that a reply or an event says of it, whatever the dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The vendor's status.
    pub status: Status,
    /// What is being done.
    pub sub_status: SubStatus,
    /// Which half.
    pub step: Step,
    /// Of the whole update, 0 to 100.
    pub percent: u8,
}

impl Standing {
    /// Accepted, nothing begun.
    pub const SENT: Standing = Standing {
        status: Status::Sent,
        sub_status: SubStatus::Blank,
        step: Step::Blank,
        percent: 0,
    };

    /// Refused before it began.
    pub const REJECTED: Standing = Standing {
        status: Status::Rejected,
        sub_status: SubStatus::Blank,
        step: Step::Blank,
        percent: 0,
    };
}

/// A number of the vendor's error table; 0 is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u32);

impl Code {
    /// Success.
    pub const OK: Code = Code(0);
    /// The file is not what it should be.
    pub const VALIDATION: Code = Code(312_003);
    /// The request is of a kind that is not known.
    pub const MISMATCH: Code = Code(312_010);
    /// A parameter is missing or wrong.
    pub const PARAMETERS: Code = Code(312_012);
    /// It failed, no word says how.
    pub const FAILED: Code = Code(312_013);
    /// Another update runs.
    pub const UPDATING: Code = Code(312_014);
    /// The device is at work and does not update now.
    pub const BUSY: Code = Code(312_015);
    /// The version that runs is not the one asked for.
    pub const VERSION: Code = Code(312_017);
    /// The sub-device is not connected.
    pub const NOT_CONNECTED: Code = Code(312_022);
    /// The package could not be unpacked.
    pub const UNPACK: Code = Code(312_026);
    /// The device restarted in the middle.
    pub const RESTARTED: Code = Code(312_028);
    /// The method is not supported.
    pub const UNSUPPORTED: Code = Code(314_000);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn an_envelope_needs_method_tid_and_bid_and_nothing_else() {
        let read = parse(br#"{"tid":"t","bid":"b","method":"m"}"#).unwrap();
        assert_eq!(
            read,
            Inbound {
                tid: "t".into(),
                bid: "b".into(),
                method: "m".into(),
                data: Value::Null
            }
        );
        for timestamp in [
            "1654070968655",
            "\"1654070968655\"",
            "16540709686550000",
            "null",
            "{}",
        ] {
            let text = format!(
                r#"{{"tid":"t","bid":"b","method":"m","timestamp":{timestamp},"gateway":7,"more":[1],"data":{{}}}}"#
            );
            assert!(parse(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn an_envelope_that_nobody_could_answer_is_refused() {
        let long = format!(
            r#"{{"tid":"{}","bid":"b","method":"m"}}"#,
            "t".repeat(ID_MAX + 1)
        );
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let huge = vec![b' '; 1024 * 1024];
        let texts: [&[u8]; 12] = [
            br#"{"bid":"b","method":"m"}"#,
            br#"{"tid":"t","method":"m"}"#,
            br#"{"tid":"t","bid":"b"}"#,
            br#"{"tid":"","bid":"b","method":"m"}"#,
            br#"{"tid":7,"bid":"b","method":"m"}"#,
            br#"["t","b","m",{}]"#,
            b"\"text\"",
            b"no json",
            b"",
            long.as_bytes(),
            deep.as_bytes(),
            &huge,
        ];
        for text in texts {
            assert!(
                parse(text).is_err(),
                "{}",
                String::from_utf8_lossy(&text[..text.len().min(60)])
            );
        }
    }

    #[test]
    fn the_terminal_statuses_are_those_of_the_vendors_sdk() {
        let table: Map<String, Value> =
            serde_json::from_str(include_str!("../fixtures/dji_status_terminality.json")).unwrap();
        assert_eq!(table.len(), 8);
        for (word, terminal) in table {
            let status: Status = serde_json::from_value(Value::String(word.clone())).unwrap();
            assert_eq!(Value::Bool(status.is_terminal()), terminal, "{word}");
        }
    }

    #[test]
    fn a_result_may_be_a_number_a_text_or_absent() {
        assert_eq!(result_of(&json!({ "result": 7 })), 7);
        assert_eq!(result_of(&json!({ "result": "7" })), 7);
        assert_eq!(result_of(&json!({})), 0);
        assert_eq!(result_of(&json!([1])), 0);
    }
}
