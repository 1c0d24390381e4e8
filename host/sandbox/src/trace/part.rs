//! The parts a record is made of.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::sandbox::hex;

/// Values whose JSON is no longer than this stand in the record itself: naming them by digest would be as long.
const INLINE: usize = 96;

/// SHA-256 of a part's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let digest = digest(&SHA256, bytes);
        Digest(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let no = || serde::de::Error::custom("a digest has 64 hex digits");
        if text.len() != 64 || !text.is_ascii() {
            return Err(no());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| no())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| no())?;
        }
        Ok(Digest(bytes))
    }
}

/// A part, or a value too small to be one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Slot {
    /// The value itself.
    Is(Value),
    /// JSON, or bytes as they are, stored by their digest.
    Part(Digest, usize),
}

impl Slot {
    pub(super) fn part(&self) -> Option<Digest> {
        match self {
            Slot::Is(_) => None,
            Slot::Part(digest, _) => Some(*digest),
        }
    }
}

/// The parts of one record, the most needed first.
pub(super) type Parts = Vec<(Digest, Arc<[u8]>)>;

/// Takes a value to pieces.
pub(super) fn put<T: Serialize>(value: &T, parts: &mut Parts) -> Slot {
    let value = serde_json::to_value(value).expect("what crosses the border is plain data");
    put_value(value, parts)
}

pub(super) fn put_value(value: Value, parts: &mut Parts) -> Slot {
    if matches!(value, Value::Null | Value::Bool(_) | Value::Number(_)) {
        return Slot::Is(value);
    }
    let bytes = value.to_string().into_bytes();
    if bytes.len() <= INLINE {
        return Slot::Is(value);
    }
    put_bytes(bytes, parts)
}

/// Bytes as they are: a state. They are always a part, because the next step begins with the same.
pub(super) fn put_bytes(bytes: Vec<u8>, parts: &mut Parts) -> Slot {
    let digest = Digest::of(&bytes);
    let length = bytes.len();
    if !parts.iter().any(|(known, _)| *known == digest) {
        parts.push((digest, bytes.into()));
    }
    Slot::Part(digest, length)
}
