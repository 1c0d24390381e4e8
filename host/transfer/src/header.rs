//! The header of a signed artifact.
//!
//! It comes first, so that a file for another device, of a stranger or with an old index is refused before hundreds of megabytes
//! are fetched. 4,096 bytes:
//!
//! ```text
//! otahost-signed-artifact 1
//! untrusted comment: otahost signed artifact
//! <base64 of "ED", key id, signature of the payload's BLAKE2b-512>
//! trusted comment: compatible=evonest-dock<TAB>version=7.1.0<TAB>rollback-index=12
//! <base64 of the signature of (signature, trusted comment)>
//! <zero bytes up to 4,096>
//! ```
//!
//! Lines two to five are a minisign signature file (prehashed, the default of current tools) of what follows the header; every
//! line ends with one newline. minisign does not sign its untrusted comment: it is fixed here, so that no byte of a signed
//! artifact can be changed unnoticed. `otahost sign` makes the file; so does `minisign -S -c 'otahost signed artifact' -t '…'`
//! with the magic line and the padding added by hand.

use crate::claims::Claims;
use crate::signature::{Signature, SignatureError};

/// Bytes before the payload.
pub const HEADER_LEN: usize = 4096;

/// First line of a signed artifact.
pub const MAGIC: &str = "otahost-signed-artifact 1\n";

/// What the magic of every version of the format starts with.
const FAMILY: &[u8] = b"otahost-signed-artifact ";

/// Why a header cannot be read or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A newer format.
    #[error(
        "it is of a format this version does not know; only \"otahost-signed-artifact 1\" is known"
    )]
    Format,
    /// A part is not what it has to be.
    #[error("{0}")]
    Shape(&'static str),
    /// The signature in it cannot be read.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It does not fit.
    #[error("the signature text has {0} bytes and does not fit into a header of {HEADER_LEN}")]
    TooLong(usize),
}

/// A header that could be read. It proves nothing until [`crate::TrustKeys::check`] and the end of the pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    signature: Signature,
}

impl Header {
    /// Reads the first bytes of a file. `None`: the file is not a signed artifact.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Option<Self>, HeaderError> {
        if !bytes.starts_with(FAMILY) {
            return Ok(None);
        }
        let rest = bytes
            .strip_prefix(MAGIC.as_bytes())
            .ok_or(HeaderError::Format)?;
        let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
        let (text, padding) = rest.split_at(end);
        if padding.iter().any(|b| *b != 0) {
            return Err(HeaderError::Shape(
                "there is something in the padding, which has to be zero",
            ));
        }
        let text = std::str::from_utf8(text).map_err(|_| HeaderError::Shape("it is not UTF-8"))?;
        let signature = Signature::from_our_form(text)?;
        Ok(Some(Header { signature }))
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let content = self.content();
        bytes[..content.len()].copy_from_slice(&content);
        bytes
    }

    /// The header's bytes without the padding.
    pub(crate) fn content(&self) -> Vec<u8> {
        [MAGIC.as_bytes(), self.signature.text().as_bytes()].concat()
    }

    /// The signature of the payload.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What the signer says about the payload.
    pub fn claims(&self) -> &Claims {
        self.signature.claims()
    }

    /// The signing key's identifier, as minisign shows it.
    pub fn key(&self) -> String {
        self.signature.key()
    }
}

/// Makes a header from the text minisign gives for the payload; see [`Signature::parse`] for what is changed in it.
///
/// The signer signs the payload alone, prehashed, with [`Claims::to_trusted_comment`] as its trusted comment, and writes header and
/// payload one behind the other.
pub fn assemble(minisign_text: &str) -> Result<[u8; HEADER_LEN], HeaderError> {
    let signature = Signature::normalise(minisign_text)?;
    let len = signature.text().len();
    // One zero byte at least, so that a reader always sees where the text ends.
    if MAGIC.len() + len >= HEADER_LEN {
        return Err(HeaderError::TooLong(len));
    }
    Ok(Header { signature }.encode())
}

/// True when a file that begins so may have a header.
pub(crate) fn may_begin(head: &[u8]) -> bool {
    head.iter()
        .zip(FAMILY)
        .all(|(found, wanted)| found == wanted)
}
