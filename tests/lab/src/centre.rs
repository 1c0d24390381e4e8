//! The 112 centre: calls a kit over HTTP as the vendor's page has it, and judges the envelope of every answer.
//!
//! Each call is a connection of its own and plain HTTP/1.1 by hand, so that a test can say what no client would.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::proxy::wait_until;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// No answer is dated before this: 2026, in milliseconds since the epoch.
const EARLIEST: u64 = 1_767_225_600_000;

/// The centre as one kit knows it.
#[derive(Clone)]
pub struct Centre {
    /// The port of 127.0.0.1 it calls.
    pub port: u16,
    /// What stands before `/updateDevice`.
    pub base_path: String,
    /// The kit it means.
    pub kit_id: String,
    user: String,
    password: String,
}

impl fmt::Debug for Centre {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Centre")
            .field("port", &self.port)
            .field("kit_id", &self.kit_id)
            .finish_non_exhaustive()
    }
}

/// An answer over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header field by its lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let field = self.headers.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| value.as_str())
    }

    /// The body as the envelope of the vendor's page.
    ///
    /// # Errors
    /// What is not as the page has it.
    pub fn envelope(&self) -> Result<Value, String> {
        let wrong = |what: &str| {
            let body = String::from_utf8_lossy(&self.body);
            format!("{what}: {} {body}", self.status)
        };
        let body: Value = serde_json::from_slice(&self.body).map_err(|_| wrong("no JSON"))?;
        let mut keys: Vec<&str> = body
            .as_object()
            .map(|fields| fields.keys().map(String::as_str).collect())
            .unwrap_or_default();
        keys.sort_unstable();
        let good = self.status == 200;
        if keys != ["data", "message", "status", "success", "timestamp"] {
            return Err(wrong("not the envelope's fields"));
        }
        if body["status"] != json!(self.status)
            || body["success"] != json!(good)
            || body["data"].is_null() == good
        {
            return Err(wrong("envelope and status disagree"));
        }
        if body["timestamp"].as_u64().is_none_or(|at| at < EARLIEST)
            || body["message"].as_str().is_none_or(str::is_empty)
            || self.header("content-type") != Some("application/json")
        {
            return Err(wrong("no timestamp in milliseconds, message or type"));
        }
        Ok(body)
    }
}

impl Centre {
    /// The centre that calls a kit on a port of 127.0.0.1 with these credentials.
    #[must_use]
    pub fn new(port: u16, kit_id: &str, user: &str, password: &str) -> Self {
        Centre {
            port,
            base_path: String::new(),
            kit_id: kit_id.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
        }
    }

    /// The same with another password.
    #[must_use]
    pub fn with_password(&self, password: &str) -> Self {
        Centre {
            password: password.to_owned(),
            ..self.clone()
        }
    }

    /// The same, calling another port and base path: a server that stands before the kit.
    #[must_use]
    pub fn through(&self, port: u16, base_path: &str) -> Self {
        Centre {
            port,
            base_path: base_path.to_owned(),
            ..self.clone()
        }
    }

    /// The value of its `Authorization` header.
    #[must_use]
    pub fn authorization(&self) -> String {
        let pair = format!("{}:{}", self.user, self.password);
        format!("Basic {}", base64(pair.as_bytes()))
    }

    /// The page's call: an update is to begin.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn update_device(&self) -> io::Result<Answer> {
        let body = json!({ "kitId": self.kit_id }).to_string();
        self.call("POST", "/updateDevice", body.as_bytes())
    }

    /// A call with the right credentials.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn call(&self, method: &str, service: &str, body: &[u8]) -> io::Result<Answer> {
        let field = format!("Authorization: {}\r\n", self.authorization());
        self.call_with(&field, method, service, body)
    }

    /// A call with these lines in its head, each with its line end.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn call_with(
        &self,
        fields: &str,
        method: &str,
        service: &str,
        body: &[u8],
    ) -> io::Result<Answer> {
        let head = format!(
            "{method} {}{service} HTTP/1.1\r\nHost: kit\r\nConnection: close\r\n{fields}Content-Length: {}\r\n\r\n",
            self.base_path,
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    /// Sends these bytes and reads the answer.
    ///
    /// # Errors
    /// When nobody answers, or not with HTTP.
    pub fn send(&self, bytes: &[u8]) -> io::Result<Answer> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(bytes)?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?;
        parse(&said).ok_or_else(|| io::Error::other("the answer is no HTTP"))
    }

    /// What a service says in `data`, asked with GET.
    ///
    /// # Errors
    /// When nobody answers, or something else than 200 with the page's envelope.
    pub fn ask(&self, service: &str) -> Result<Value, String> {
        let answer = self.call("GET", service, b"").map_err(|e| e.to_string())?;
        let mut envelope = answer.envelope()?;
        match answer.status {
            200 => Ok(envelope["data"].take()),
            status => Err(format!("{service} was answered {status}")),
        }
    }

    /// The version that `getDeviceInfo` says; none while nobody answers.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        let data = self.ask("/getDeviceInfo").ok()?;
        Some(data["version"].as_str()?.to_owned())
    }

    /// Waits until `getDeviceInfo` says this version.
    ///
    /// # Errors
    /// What it says instead when the time is up.
    pub fn await_version(&self, version: &str, limit: Duration) -> Result<(), String> {
        if wait_until(limit, || self.version().as_deref() == Some(version)) {
            return Ok(());
        }
        Err(format!(
            "getDeviceInfo says {:?} and not {version}",
            self.version()
        ))
    }
}

fn parse(said: &[u8]) -> Option<Answer> {
    let end = said.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&said[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Some(Answer {
        status,
        headers: lines.filter_map(field).collect(),
        body: said[end + 4..].to_vec(),
    })
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=three.len()].copy_from_slice(three);
        let word = u32::from_be_bytes(word);
        for place in 0..4 {
            text.push(if place <= three.len() {
                char::from(ALPHABET[(word >> (18 - 6 * place)) as usize & 63])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_pair_is_sent_as_rfc_7617_has_it() {
        let centre = Centre::new(1, "k", "Aladdin", "open sesame");
        assert_eq!(centre.authorization(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }

    fn answer(status: u16, body: &str) -> Answer {
        let text =
            format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nA: b\r\n\r\n{body}");
        parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_answer_that_contradicts_its_envelope_is_found() {
        let good =
            r#"{"success":true,"data":{},"message":"m","status":200,"timestamp":1767225600001}"#;
        assert!(answer(200, good).envelope().is_ok());
        assert_eq!(answer(200, good).header("a"), Some("b"));
        for (status, body) in [
            (503, good.to_owned()),
            (200, "[]".to_owned()),
            (200, good.replace("\"data\":{}", "\"data\":null")),
            (200, good.replace("1767225600001", "1767225600")),
            (200, good.replace("\"m\"", "\"\"")),
            (200, good.replace("\"status\":200", "\"status\":201")),
        ] {
            assert!(answer(status, &body).envelope().is_err(), "{body}");
        }
    }
}
