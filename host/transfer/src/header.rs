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

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bytes before the payload.
pub const HEADER_LEN: usize = 4096;

/// First line of a signed artifact.
pub const MAGIC: &str = "otahost-signed-artifact 1\n";

/// The untrusted comment every header has.
pub const UNTRUSTED_COMMENT: &str = "otahost signed artifact";

/// What the magic of every version of the format starts with.
const FAMILY: &[u8] = b"otahost-signed-artifact ";
const UNTRUSTED_PREFIX: &str = "untrusted comment: ";
const TRUSTED_PREFIX: &str = "trusted comment: ";

/// Why a header cannot be read or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A newer format.
    #[error(
        "it is of a format this version does not know; only \"otahost-signed-artifact 1\" is known"
    )]
    Format,
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
    /// It does not fit.
    #[error("the signature text has {0} bytes and does not fit into a header of {HEADER_LEN}")]
    TooLong(usize),
}

/// What the signer says about the payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// The kind of device it is made for.
    pub compatible: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Never decreases over the releases that may be installed one after the other.
    pub rollback_index: Option<u64>,
}

impl Claims {
    /// Reads a trusted comment: `name=value` items with tabs between. Other items (minisign adds a timestamp and a file name by
    /// default) are passed over; a claim that comes twice or is empty is an error.
    pub fn parse(trusted_comment: &str) -> Result<Self, HeaderError> {
        let mut claims = Claims::default();
        for (name, value) in trusted_comment
            .split('\t')
            .filter_map(|item| item.split_once('='))
        {
            match name {
                "compatible" => set(
                    &mut claims.compatible,
                    "compatible",
                    value.to_owned(),
                    value,
                )?,
                "version" => set(&mut claims.version, "version", value.to_owned(), value)?,
                "rollback-index" => {
                    let digits = value.bytes().all(|b| b.is_ascii_digit());
                    let index = value.parse().ok().filter(|_| digits);
                    let index = index.ok_or(HeaderError::Claim {
                        name: "rollback-index",
                        what: "is no whole number below 2^64",
                    })?;
                    set(&mut claims.rollback_index, "rollback-index", index, value)?;
                }
                _ => {}
            }
        }
        Ok(claims)
    }

    /// The trusted comment a signer signs.
    pub fn to_trusted_comment(&self) -> Result<String, HeaderError> {
        let index = self.rollback_index.map(|index| index.to_string());
        let items = [
            ("compatible", self.compatible.as_deref()),
            ("version", self.version.as_deref()),
            ("rollback-index", index.as_deref()),
        ];
        let mut parts = Vec::new();
        for (name, value) in items {
            let Some(value) = value else { continue };
            if value.is_empty() || value.len() > 200 || value.chars().any(char::is_control) {
                return Err(HeaderError::Claim {
                    name,
                    what: "has to be 1 to 200 bytes without control characters",
                });
            }
            parts.push(format!("{name}={value}"));
        }
        Ok(parts.join("\t"))
    }
}

fn set<T>(
    claim: &mut Option<T>,
    name: &'static str,
    value: T,
    text: &str,
) -> Result<(), HeaderError> {
    if text.is_empty() {
        return Err(HeaderError::Claim {
            name,
            what: "is empty",
        });
    }
    match claim.replace(value) {
        None => Ok(()),
        Some(_) => Err(HeaderError::Claim {
            name,
            what: "is there twice",
        }),
    }
}

/// A header that could be read. It proves nothing until [`crate::TrustKeys::check`] and the end of the pass.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    text: String,
    key_id: [u8; 8],
    signature: [u8; 64],
    trusted_comment: String,
    global_signature: [u8; 64],
    claims: Claims,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("key_id", &show_key(&self.key_id))
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
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
            return Err(HeaderError::Line(
                "there is something in the padding, which has to be zero",
            ));
        }
        let text = std::str::from_utf8(text).map_err(|_| HeaderError::Line("it is not UTF-8"))?;
        Self::from_text(text).map(Some)
    }

    /// Reads a minisign signature text whose untrusted comment is [`UNTRUSTED_COMMENT`].
    fn from_text(text: &str) -> Result<Self, HeaderError> {
        let shape = HeaderError::Line("it is not four lines that each end with a newline");
        let lines: Vec<&str> = text
            .strip_suffix('\n')
            .ok_or_else(|| shape.clone())?
            .split('\n')
            .collect();
        let [untrusted, signature, trusted, global] = lines[..] else {
            return Err(shape);
        };
        if untrusted.strip_prefix(UNTRUSTED_PREFIX) != Some(UNTRUSTED_COMMENT) {
            return Err(HeaderError::Line(
                "its untrusted comment is not \"otahost signed artifact\"",
            ));
        }
        let trusted = trusted
            .strip_prefix(TRUSTED_PREFIX)
            .ok_or(HeaderError::Line("its third line is no trusted comment"))?;
        if trusted.chars().any(|c| c.is_control() && c != '\t') {
            return Err(HeaderError::Line(
                "there is a control character in its trusted comment",
            ));
        }
        let signature = decode::<74>(signature, "its second line is no signature")?;
        let (algorithm, rest) = signature.split_at(2);
        let (key_id, signature) = rest.split_at(8);
        match algorithm {
            b"ED" => {}
            b"Ed" => return Err(HeaderError::NotPrehashed),
            _ => return Err(HeaderError::Line("its signature is of an unknown kind")),
        }
        Ok(Header {
            text: text.to_owned(),
            key_id: key_id.try_into().expect("eight bytes were split off"),
            signature: signature.try_into().expect("74 less 2 less 8 is 64"),
            trusted_comment: trusted.to_owned(),
            global_signature: decode::<64>(global, "its fourth line is no signature")?,
            claims: Claims::parse(trusted)?,
        })
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
        [MAGIC.as_bytes(), self.text.as_bytes()].concat()
    }

    /// What the signer says about the payload.
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
    pub(crate) fn minisign(&self) -> Result<minisign_verify::Signature, HeaderError> {
        minisign_verify::Signature::decode(&self.text)
            .map_err(|_| HeaderError::Line("minisign cannot read it"))
    }
}

/// Makes a header from the text minisign gives for the payload. Its untrusted comment is replaced by [`UNTRUSTED_COMMENT`], and
/// carriage returns are dropped; neither is signed.
///
/// The signer signs the payload alone, prehashed, with [`Claims::to_trusted_comment`] as its trusted comment, and writes header and
/// payload one behind the other.
pub fn assemble(minisign_text: &str) -> Result<[u8; HEADER_LEN], HeaderError> {
    let mut lines = minisign_text.lines();
    if !lines
        .next()
        .is_some_and(|line| line.starts_with(UNTRUSTED_PREFIX))
    {
        return Err(HeaderError::Line("its first line is no untrusted comment"));
    }
    let text = lines.fold(
        format!("{UNTRUSTED_PREFIX}{UNTRUSTED_COMMENT}\n"),
        |text, line| text + line + "\n",
    );
    // One zero byte at least, so that a reader always sees where the text ends.
    if MAGIC.len() + text.len() >= HEADER_LEN {
        return Err(HeaderError::TooLong(text.len()));
    }
    Header::from_text(&text).map(|header| header.encode())
}

/// True when a file that begins so may have a header.
pub(crate) fn may_begin(head: &[u8]) -> bool {
    head.iter()
        .zip(FAMILY)
        .all(|(found, wanted)| found == wanted)
}

/// minisign shows a key's identifier as a little-endian number.
pub(crate) fn show_key(id: &[u8; 8]) -> String {
    format!("{:016X}", u64::from_le_bytes(*id))
}

/// Strict base64: one text for one value, or a changed bit could go unnoticed.
fn decode<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N], HeaderError> {
    STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(HeaderError::Line(what))
}
