//! An answer as the adapter may see it: bounded, with what it named as secret cut out, and scrubbed.

use std::time::Duration;

use otahost_core::model::{Capture, FetchResult, Field, HttpResponse, MAX_PAYLOAD};
use otahost_core::secret::{Secret, capture};
use reqwest::Response;
use reqwest::header::CONTENT_ENCODING;
use tokio::time::timeout;

use super::vault::Vault;
use crate::http::{describe, kept_headers};

/// An answer as it came, within its limits.
pub(super) struct Answer {
    status: u16,
    headers: Vec<Field>,
    body: Vec<u8>,
}

/// How a fetch ended.
pub(super) struct Outcome {
    pub(super) result: FetchResult,
    pub(super) captured: Vec<(String, Secret)>,
}

impl Outcome {
    /// No answer: why, in words that are scrubbed here.
    pub(super) fn failed(vault: &Vault, why: &str) -> Self {
        Self {
            result: FetchResult::Failed(vault.scrubber(&[]).text(why)),
            captured: Vec::new(),
        }
    }
}

/// Reads an answer whole.
///
/// # Errors
/// Why it cannot be taken.
pub(super) async fn read(response: Response, idle: Duration) -> Result<Answer, String> {
    let too_long = || format!("the answer is longer than {MAX_PAYLOAD} bytes");
    let mut response = response;
    let encoded = response
        .headers()
        .get(CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        // What cannot be read cannot be scrubbed.
        return Err("the answer is compressed, which was not asked for".into());
    }
    if response
        .content_length()
        .is_some_and(|length| length > MAX_PAYLOAD as u64)
    {
        return Err(too_long());
    }
    let headers = kept_headers(response.headers())
        .into_iter()
        .map(|(name, value)| Field { name, value })
        .collect();
    let mut body = Vec::new();
    while let Some(piece) = timeout(idle, response.chunk())
        .await
        .map_err(|_| format!("nothing of the answer came for {} s", idle.as_secs_f32()))?
        .map_err(|error| format!("the answer broke off: {}", describe(error)))?
    {
        if body.len() + piece.len() > MAX_PAYLOAD {
            return Err(too_long());
        }
        body.extend_from_slice(&piece);
    }
    Ok(Answer {
        status: response.status().as_u16(),
        headers,
        body,
    })
}

/// Captures, cuts and scrubs. Values are captured from an answer of success only, and cut from every one.
pub(super) fn judge(vault: &Vault, captures: &[Capture], answer: Answer) -> Outcome {
    let success = (200..300).contains(&answer.status);
    let mut body = answer.body;
    let mut captured = Vec::new();
    if !captures.is_empty() {
        match capture(&body, captures) {
            Ok(taken) => {
                body = taken.body;
                captured = taken.values;
            }
            Err(error) if success => return Outcome::failed(vault, &error.to_string()),
            Err(_) => {}
        }
    }
    let scrubber = vault.scrubber(&captured);
    let mut headers = answer.headers;
    scrubber.fields(&mut headers);
    if !success {
        captured.clear();
    }
    Outcome {
        result: FetchResult::Answered(HttpResponse {
            status: answer.status,
            headers,
            body: scrubber.bytes(&body),
        }),
        captured,
    }
}
