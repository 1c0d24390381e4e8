//! The file: a mark, the head as JSON, the code.

use serde::{Deserialize, Serialize};

use crate::sandbox::sha256;

/// Begins every file; its last byte is the form's version.
const MAGIC: [u8; 16] = *b"otahost native\0\x01";
/// Bytes of the mark that every version of the form has.
const FAMILY: usize = 15;
/// Most bytes of the head.
const MAX_HEAD: usize = 4096;

/// What a file says of its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The component it was made from: `"sha256:<hex>"`. That it was audited is what the signature says.
    pub(super) component: String,
    /// Release of the engine that made it.
    pub(super) engine: String,
    /// The engine's settings.
    pub(super) settings: u32,
    /// What it was made for.
    pub(super) target: String,
    /// Bytes of code.
    length: u64,
    /// Digest of the code: `"sha256:<hex>"`.
    code: String,
}

/// True for a file of any version of the form.
pub(super) fn begins(file: &[u8]) -> bool {
    file.starts_with(&MAGIC[..FAMILY])
}

impl Head {
    #[cfg(feature = "compiler")]
    pub(super) fn of(
        component: String,
        engine: String,
        settings: u32,
        target: String,
        code: &[u8],
    ) -> Head {
        Head {
            component,
            engine,
            settings,
            target,
            length: code.len() as u64,
            code: sha256(code),
        }
    }

    /// The whole file.
    #[cfg(feature = "compiler")]
    pub(super) fn join(&self, code: &[u8]) -> Vec<u8> {
        let head = serde_json::to_vec(self).expect("a head has plain fields only");
        let length = u32::try_from(head.len()).expect("a head is short");
        [&MAGIC[..], &length.to_be_bytes(), &head, code].concat()
    }

    /// Takes a file apart.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn split(file: &[u8]) -> Result<(Head, &[u8]), String> {
        let cut = "it is cut off";
        let (magic, rest) = file.split_first_chunk::<16>().ok_or(cut)?;
        if *magic != MAGIC {
            return Err("it is of a form that this release does not know".into());
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(cut)?;
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_HEAD {
            return Err("its head is too large".into());
        }
        let (head, code) = rest.split_at_checked(length).ok_or(cut)?;
        let head: Head = serde_json::from_slice(head).map_err(|_| "its head cannot be read")?;
        let is_digest = |text: &str| {
            text.strip_prefix("sha256:").is_some_and(|hex| {
                hex.len() == 64
                    && hex
                        .bytes()
                        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            })
        };
        if !is_digest(&head.component) {
            return Err("it does not say what it was made from".into());
        }
        if head.length != code.len() as u64 || head.code != sha256(code) {
            return Err("its code is not what its head says".into());
        }
        Ok((head, code))
    }
}
