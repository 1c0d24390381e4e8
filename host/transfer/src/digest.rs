//! The digests a plan can name.

use std::fmt;

/// A digest of a whole file, the header of a signed artifact included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// Good against accidents, no proof against an attacker.
    Md5([u8; 16]),
    /// SHA-256.
    Sha256([u8; 32]),
}

/// A digest that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `algorithm:` in front.
    #[error(
        "a digest is written as \"md5:<hex>\" or \"sha256:<hex>\"; this one names no algorithm"
    )]
    NoAlgorithm,
    /// An algorithm we do not compute.
    #[error("the digest algorithm {0:?} is not known; \"md5\" and \"sha256\" are")]
    Algorithm(String),
    /// Not hexadecimal, or not of the algorithm's length.
    #[error(
        "a digest of {algorithm} has {wanted} hexadecimal digits; this one has {found} characters or others among them"
    )]
    Hex {
        /// The algorithm.
        algorithm: &'static str,
        /// Digits it has.
        wanted: usize,
        /// Characters that were given.
        found: usize,
    },
}

impl Digest {
    /// Reads `"md5:<hex>"` or `"sha256:<hex>"`, in upper or lower case.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (algorithm, hex) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
        match algorithm.to_ascii_lowercase().as_str() {
            "md5" => from_hex(hex, "md5").map(Digest::Md5),
            "sha256" => from_hex(hex, "sha256").map(Digest::Sha256),
            _ => Err(DigestError::Algorithm(
                algorithm
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(32)
                    .collect(),
            )),
        }
    }

    /// `md5` or `sha256`.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Digest::Md5(_) => "md5",
            Digest::Sha256(_) => "sha256",
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Digest::Md5(bytes) => bytes,
            Digest::Sha256(bytes) => bytes,
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), hex(self.as_bytes()))
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn from_hex<const N: usize>(text: &str, algorithm: &'static str) -> Result<[u8; N], DigestError> {
    let bad = DigestError::Hex {
        algorithm,
        wanted: 2 * N,
        found: text.chars().count(),
    };
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect();
    let digits = digits.ok_or_else(|| bad.clone())?;
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect();
    if digits.len() == 2 * N {
        bytes.try_into().map_err(|_| bad)
    } else {
        Err(bad)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn d04_upper_case_means_the_same_as_lower_case() {
        let lower = Digest::parse("md5:d41d8cd98f00b204e9800998ecf8427e").unwrap();
        assert_eq!(
            Digest::parse("MD5:D41D8CD98F00B204E9800998ECF8427E").unwrap(),
            lower
        );
        assert_eq!(lower.to_string(), "md5:d41d8cd98f00b204e9800998ecf8427e");
    }

    #[test]
    fn what_is_no_digest_is_refused_with_a_reason() {
        for (text, word) in [
            ("d41d8cd98f00b204e9800998ecf8427e", "names no algorithm"),
            ("sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "not known"),
            (
                "md5:d41d8cd98f00b204e9",
                "32 hexadecimal digits; this one has 18",
            ),
            (
                "md5:d41d8cd98f00b204e9800998ecf8427",
                "32 hexadecimal digits; this one has 31",
            ),
            ("md5:d41d8cd98f00b204e9800998ecf8427g", "32 hexadecimal"),
            (
                "md5:d41d8cd98f00b204e9800998ecf842\u{e9}e",
                "32 hexadecimal",
            ),
            ("sha256:", "64 hexadecimal"),
        ] {
            let error = Digest::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
