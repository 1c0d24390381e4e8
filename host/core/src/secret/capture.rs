//! Secrets come out of an answer: what the adapter named is taken, and cut from what it sees.

use serde_json::Value;

use crate::model::Capture;

use super::Secret;

/// Longest value that is captured, in bytes.
pub const MAX_CAPTURED: usize = 8 * 1024;

/// An answer without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The answer's JSON, written anew, with `null` where something was cut.
    pub body: Vec<u8>,
    /// What was captured, by name, each name once.
    pub values: Vec<(String, Secret)>,
}

/// The answer is no JSON, so what of it is secret is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no JSON, so nothing can be captured from it")]
pub struct NotJson;

/// Takes the values the pointers (RFC 6901) name. Only strings of 1 to [`MAX_CAPTURED`] bytes are captured; whatever else stands at
/// such a place is cut too and goes nowhere. A pointer to nothing is no error.
///
/// # Errors
/// [`NotJson`]; such a body must not be shown where it may hold what was to be captured.
pub fn capture(body: &[u8], captures: &[Capture]) -> Result<Captured, NotJson> {
    let mut document: Value = serde_json::from_slice(body).map_err(|_| NotJson)?;
    let mut values: Vec<(String, Secret)> = Vec::new();
    for capture in captures {
        if let Some(Value::String(text)) = document.pointer(&capture.pointer)
            && (1..=MAX_CAPTURED).contains(&text.len())
        {
            values.retain(|(name, _)| *name != capture.secret);
            values.push((capture.secret.clone(), Secret::new(text.as_str())));
        }
    }
    // Only after all were read: one pointer may lead to another's inside.
    for capture in captures {
        if let Some(place) = document.pointer_mut(&capture.pointer) {
            *place = Value::Null;
        }
    }
    Ok(Captured {
        body: serde_json::to_vec(&document).expect("JSON is JSON"),
        values,
    })
}
