//! How far a transfer came, in a form that survives a restart and can be checked against what is really on the medium.

use serde::{Deserialize, Serialize};

use crate::source::{BoxFuture, Validator};

/// Most marks a checkpoint holds: the journal writes it once a second.
pub(crate) const MAX_MARKS: usize = 128;

/// How far a transfer came. All offsets count bytes of the file, header included. The default is "nothing yet".
///
/// It is a hint, not a proof: a resume reads the content back and goes on at the first byte that is not what the marks say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What told the content from another when it was last opened.
    pub validator: Option<Validator>,
    /// Size of the whole file, once known.
    pub total: Option<u64>,
    /// The header of a signed artifact without its zero padding; empty when the artifact has none.
    #[serde(with = "otahost_core::bytes_as_base64")]
    pub header: Vec<u8>,
    /// The text of the signature beside the artifact, where that is what it was trusted for; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sidecar: String,
    /// Digests the server published with the file, as in a plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<String>,
    /// Bytes that are on the medium, durably.
    pub received: u64,
    /// Digests of prefixes, in rising order; the last one is at `received`.
    pub marks: Vec<Mark>,
}

impl Checkpoint {
    /// True when there is nothing to go on from.
    pub fn is_empty(&self) -> bool {
        self.received == 0
    }
}

/// What the payload up to here must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Bytes of the file before this point.
    pub at: u64,
    /// First 16 bytes, in hex, of the SHA-256 of the payload before this point. It finds damage; digest and signature find malice.
    pub sha256: String,
}

/// Who is told how far a transfer came.
pub trait Checkpoints: Send + Sync {
    /// Bytes that came in, the ones from before a resume included. Called for every piece: it has to be cheap.
    fn progress(&self, received: u64, total: Option<u64>);
    /// Bytes that were fetched just now; their sum is what an attempt cost, however it ends.
    fn fetched(&self, bytes: u64) {
        let _ = bytes;
    }
    /// A checkpoint to remember instead of the one before; everything it speaks of is synced. An empty one says that what is
    /// staged is worth nothing. No more of them than [`crate::Tuning`] says, one more when an attempt ends, and never two at a time.
    fn checkpoint(&self, checkpoint: Checkpoint) -> BoxFuture<'_, ()>;
}

/// Drops every second mark and doubles the distance while there are too many, so that a checkpoint stays small whatever the size.
pub(crate) fn thin_out(marks: &mut Vec<Mark>, payload_start: u64, chunk: &mut u64) {
    while marks.len() > MAX_MARKS && *chunk < u64::MAX / 2 {
        *chunk *= 2;
        marks.retain(|mark| mark.at.saturating_sub(payload_start).is_multiple_of(*chunk));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn marks_stay_few_and_evenly_spread() {
        let (mut marks, mut chunk) = (Vec::new(), 4);
        for at in 1..=10_000_u64 {
            if (at * 4).is_multiple_of(chunk) {
                marks.push(Mark {
                    at: 100 + at * 4,
                    sha256: String::new(),
                });
                thin_out(&mut marks, 100, &mut chunk);
            }
        }
        assert!(
            marks.len() <= MAX_MARKS && marks.len() > MAX_MARKS / 2,
            "{}",
            marks.len()
        );
        assert!(marks.windows(2).all(|w| w[1].at - w[0].at == chunk));
    }

    #[test]
    fn a_checkpoint_survives_json() {
        let mut one = Checkpoint {
            validator: Some(Validator("\"x\"".into())),
            total: Some(9),
            header: b"otahost".to_vec(),
            sidecar: String::new(),
            published: Vec::new(),
            received: 8,
            marks: vec![Mark {
                at: 8,
                sha256: "ab".into(),
            }],
        };
        let text = serde_json::to_string(&one).unwrap();
        assert!(text.contains("\"header\":\"b3RhaG9zdA==\""), "{text}");
        assert!(
            !text.contains("sidecar"),
            "an older agent's form where nothing is new: {text}"
        );
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).unwrap(), one);
        one.sidecar = "untrusted comment: x\n".into();
        let text = serde_json::to_string(&one).unwrap();
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).unwrap(), one);
    }
}
