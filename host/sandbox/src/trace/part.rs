//! The parts a record is made of.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::sandbox::hex;

/// Values whose JSON is no longer than this stand in the record itself: naming them by digest would be as long.
const INLINE: usize = 96;
/// The same for values that hardly any other step has.
const OWN: usize = 512;

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
    /// It was too large to be looked at.
    Gone,
}

impl Slot {
    pub(super) fn part(&self) -> Option<Digest> {
        match self {
            Slot::Is(_) | Slot::Gone => None,
            Slot::Part(digest, _) => Some(*digest),
        }
    }
}

/// The parts of one record, the most needed first.
pub(super) type Parts = Vec<(Digest, Arc<[u8]>)>;

/// Takes a value to pieces.
pub(super) fn put<T: Serialize + ?Sized>(value: &T, parts: &mut Parts) -> Slot {
    let bytes = json(value);
    if bytes.len() <= INLINE {
        return inline(&bytes);
    }
    put_bytes(bytes, parts)
}

/// The same for a value that is JSON already; gives its digest too.
pub(super) fn put_json(json: Vec<u8>, parts: &mut Parts) -> (Slot, Digest) {
    let digest = Digest::of(&json);
    let slot = match json.len() {
        0..=INLINE => inline(&json),
        _ => put_digested(digest, json.into(), parts),
    };
    (slot, digest)
}

/// A value that hardly any other step has: it stands in the record as long as it is not large.
pub(super) fn put_own<T: Serialize + ?Sized>(value: &T, parts: &mut Parts) -> Slot {
    let bytes = json(value);
    if bytes.len() <= OWN {
        return inline(&bytes);
    }
    put_bytes(bytes, parts)
}

pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("what crosses the border is plain data")
}

fn inline(json: &[u8]) -> Slot {
    Slot::Is(serde_json::from_slice(json).expect("it was just made"))
}

fn put_bytes(bytes: Vec<u8>, parts: &mut Parts) -> Slot {
    put_digested(Digest::of(&bytes), bytes.into(), parts)
}

/// Bytes whose digest is known, as a part whatever their length.
pub(super) fn put_digested(digest: Digest, bytes: Arc<[u8]>, parts: &mut Parts) -> Slot {
    let length = bytes.len();
    if !parts.iter().any(|(known, _)| *known == digest) {
        parts.push((digest, bytes));
    }
    Slot::Part(digest, length)
}
