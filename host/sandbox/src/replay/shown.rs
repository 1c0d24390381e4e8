//! Values as people may see them: bytes as what they mean, short, and without secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use otahost_core::model::Effect;
use serde_json::{Map, Value, json};

use crate::text::plain;

/// Longest value.
const MAX_VALUE: usize = 160;
/// Fields of an effect that are bytes.
const BYTES: [&str; 3] = ["payload", "body", "context"];
/// A field whose name has one of these in it is not shown.
const SECRET: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "token",
    "authorization",
    "cookie",
    "credential",
    "signature",
];
const HIDDEN: &str = "(hidden)";

/// True for the name of a field whose value is not shown.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|word| name.contains(word))
}

/// The fields of an effect, bytes as JSON or text where they are that.
pub(super) fn readable(effect: &Effect) -> Value {
    let value = serde_json::to_value(effect).expect("an effect is plain data");
    match value {
        // {"publish": {...}}: the kind is known.
        Value::Object(fields) => fields
            .into_iter()
            .next()
            .map_or(Value::Null, |(_, value)| decoded(value)),
        other => other,
    }
}

fn decoded(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(name, value): (String, Value)| {
                let value = match value {
                    Value::String(text) if BYTES.contains(&name.as_str()) => meaning(&text),
                    other => decoded(other),
                };
                (name, value)
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(decoded).collect()),
        other => other,
    }
}

/// What bytes in base64 mean.
fn meaning(base64: &str) -> Value {
    let Ok(bytes) = STANDARD.decode(base64) else {
        return Value::String(base64.to_owned());
    };
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => value,
        _ => match String::from_utf8(bytes) {
            Ok(text) => Value::String(text),
            Err(binary) => {
                let bytes = binary.as_bytes();
                json!({ "bytes": bytes.len(), "digest": crate::sandbox::sha256(bytes) })
            }
        },
    }
}

/// A value in one short line.
pub(super) fn shown(value: &Value, hidden: bool) -> String {
    if hidden {
        return HIDDEN.into();
    }
    let text = cleaned(value).to_string();
    match plain(&text, MAX_VALUE) {
        short if short.len() < text.len() => format!("{short}…"),
        whole => whole,
    }
}

/// Two values that differ; told when what is shown does not.
pub(super) fn shown_both(then: &Value, now: &Value, hidden: bool) -> (String, String) {
    let (old, new) = (shown(then, hidden), shown(now, hidden));
    if old == new {
        let new = format!("{new}, with a difference in what is not shown");
        return (old, new);
    }
    (old, new)
}

/// The value without secrets and queries.
fn cleaned(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_queries(text)),
        Value::Array(values) => Value::Array(values.iter().map(cleaned).collect()),
        Value::Object(fields) => {
            let named = fields.get("name").and_then(Value::as_str);
            let all = named.is_some_and(is_secret);
            let field = |(name, value): (&String, &Value)| {
                let hide = is_secret(name) || (all && name == "value");
                let value = match hide {
                    true => Value::String(HIDDEN.into()),
                    false => cleaned(value),
                };
                (name.clone(), value)
            };
            Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// The text with every address in it cut before its query, and without what stands before its host: either may be a secret.
fn without_queries(text: &str) -> String {
    let ends =
        |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '(' | ')' | ',' | ';');
    text.split_inclusive(ends)
        .map(|word| {
            let (word, end) = match word.chars().next_back() {
                Some(last) if ends(last) => word.split_at(word.len() - last.len_utf8()),
                _ => (word, ""),
            };
            format!("{}{end}", without_query(word))
        })
        .collect()
}

fn without_query(word: &str) -> String {
    if !word.starts_with('/') && !word.contains("://") {
        return word.to_owned();
    }
    let kept = word.split(['?', '#']).next().unwrap_or_default();
    let clean = match kept.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority
                .rsplit_once('@')
                .map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => kept.to_owned(),
    };
    if kept.len() < word.len() {
        return format!("{clean}?…");
    }
    clean
}
