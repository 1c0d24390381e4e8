//! A minisign signature text, as it stands in the header of an artifact or beside it.
//!
//! Four lines: an untrusted comment, the signature of the signed bytes' BLAKE2b-512 with the key's identifier, the trusted comment,
//! and the signature of the two. minisign does not sign its untrusted comment; in our form it is fixed, so that one signature has
//! one text.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::claims::Claims;

/// The untrusted comment every signature has in our form.
pub const UNTRUSTED_COMMENT: &str = "otahost signed artifact";

/// Most bytes a signature beside an artifact may have.
pub const SIDECAR_MAX: usize = 4096;

const UNTRUSTED_PREFIX: &str = "untrusted comment: ";
const TRUSTED_PREFIX: &str = "trusted comment: ";

/// Why a signature cannot be read or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A line is not what it has to be.
    #[error("{0}")]
    Line(&'static str),
    /// The signature is of minisign's old kind, which cannot be checked while streaming.
    #[error("the signature is not prehashed; sign with a current minisign, or with `otahost sign`")]
    NotPrehashed,
    /// A claim in the trusted comment cannot be read.
    #[error("the trusted comment's {name}: {what}")]
    Claim {
        /// Name of the claim.
        name: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No signature is so large.
    #[error("it is larger than {SIDECAR_MAX} bytes")]
    TooLarge,
}

/// A signature that could be read. It proves nothing until [`crate::TrustKeys::check`] and the end of the pass.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature {
    text: String,
    key_id: [u8; 8],
    signature: [u8; 64],
    trusted_comment: String,
    global_signature: [u8; 64],
    claims: Claims,
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature")
            .field("key_id", &self.key())
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

impl Signature {
    /// Reads the text minisign writes, at most [`SIDECAR_MAX`] bytes. What nobody signed is brought into our form: the untrusted
    /// comment is replaced by [`UNTRUSTED_COMMENT`], carriage returns at the ends of lines are dropped.
    pub fn parse(minisign_text: &str) -> Result<Self, SignatureError> {
        if minisign_text.len() > SIDECAR_MAX {
            return Err(SignatureError::TooLarge);
        }
        Self::normalise(minisign_text)
    }

    /// As [`Signature::parse`], of any size.
    pub(crate) fn normalise(minisign_text: &str) -> Result<Self, SignatureError> {
        let mut lines = minisign_text.lines();
        if !lines
            .next()
            .is_some_and(|line| line.starts_with(UNTRUSTED_PREFIX))
        {
            return Err(SignatureError::Line(
                "its first line is no untrusted comment",
            ));
        }
        let text = lines.fold(
            format!("{UNTRUSTED_PREFIX}{UNTRUSTED_COMMENT}\n"),
            |text, line| text + line + "\n",
        );
        Self::from_our_form(&text)
    }

    /// Reads a text in our form, and no other.
    pub(crate) fn from_our_form(text: &str) -> Result<Self, SignatureError> {
        let shape = SignatureError::Line("it is not four lines that each end with a newline");
        let lines: Vec<&str> = text
            .strip_suffix('\n')
            .ok_or_else(|| shape.clone())?
            .split('\n')
            .collect();
        let [untrusted, signature, trusted, global] = lines[..] else {
            return Err(shape);
        };
        if untrusted.strip_prefix(UNTRUSTED_PREFIX) != Some(UNTRUSTED_COMMENT) {
            return Err(SignatureError::Line(
                "its untrusted comment is not \"otahost signed artifact\"",
            ));
        }
        let trusted = trusted
            .strip_prefix(TRUSTED_PREFIX)
            .ok_or(SignatureError::Line("its third line is no trusted comment"))?;
        if trusted.chars().any(|c| c.is_control() && c != '\t') {
            return Err(SignatureError::Line(
                "there is a control character in its trusted comment",
            ));
        }
        let signature = decode::<74>(signature, "its second line is no signature")?;
        let (algorithm, rest) = signature.split_at(2);
        let (key_id, signature) = rest.split_at(8);
        match algorithm {
            b"ED" => {}
            b"Ed" => return Err(SignatureError::NotPrehashed),
            _ => {
                return Err(SignatureError::Line("its signature is of an unknown kind"));
            }
        }
        let signature = Signature {
            text: text.to_owned(),
            key_id: key_id.try_into().expect("eight bytes were split off"),
            signature: signature.try_into().expect("74 less 2 less 8 is 64"),
            trusted_comment: trusted.to_owned(),
            global_signature: decode::<64>(global, "its fourth line is no signature")?,
            claims: Claims::parse(trusted)?,
        };
        minisign_verify::Signature::decode(text)
            .map_err(|_| SignatureError::Line("minisign cannot read it"))?;
        Ok(signature)
    }

    /// The text in our form.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the signer says about what is signed.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The signing key's identifier, as minisign shows it.
    pub fn key(&self) -> String {
        show_key(&self.key_id)
    }

    pub(crate) fn key_id(&self) -> &[u8; 8] {
        &self.key_id
    }

    /// What the global signature signs, and that signature.
    pub(crate) fn global(&self) -> (Vec<u8>, &[u8; 64]) {
        (
            [&self.signature[..], self.trusted_comment.as_bytes()].concat(),
            &self.global_signature,
        )
    }

    /// The signature for minisign's own verifier.
    pub(crate) fn minisign(&self) -> minisign_verify::Signature {
        minisign_verify::Signature::decode(&self.text).expect("it was read when it came")
    }
}

/// minisign shows a key's identifier as a little-endian number.
pub(crate) fn show_key(id: &[u8; 8]) -> String {
    format!("{:016X}", u64::from_le_bytes(*id))
}

/// Strict base64: one text for one value, or a changed bit could go unnoticed.
fn decode<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N], SignatureError> {
    STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(SignatureError::Line(what))
}
