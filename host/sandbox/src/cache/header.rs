//! The head of a file of native code: who made it from what, and the digest that shows every change.

use aws_lc_rs::digest::{SHA256, digest};

use crate::compiled::{Compiled, EngineId};
use crate::text::plain;

/// Begins every file; its last byte is the form's version.
const MAGIC: [u8; 16] = *b"otahost cwasm \0\x01";
const VERSION: usize = 32;
/// Bytes before the code.
pub(super) const HEADER: usize = 16 + 8 + 32 + 32 + VERSION + 8 + 32 + 32;

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// Counts up with every file made in this directory.
    pub(super) made: u64,
    /// SHA-256 of the component.
    pub(super) component: [u8; 32],
    /// The engine that made it.
    pub(super) engine: EngineId,
    /// Its release, for people.
    pub(super) version: String,
    /// Bytes of code.
    pub(super) length: u64,
    /// SHA-256 of the code.
    code: [u8; 32],
}

impl Header {
    /// The header of this code.
    pub(super) fn of(made: u64, component: [u8; 32], version: &str, compiled: &Compiled) -> Self {
        let mut version = version.to_owned();
        version.truncate(VERSION);
        Header {
            made,
            component,
            engine: compiled.engine,
            version,
            length: compiled.code.len() as u64,
            code: sha256(&compiled.code),
        }
    }

    /// As the first bytes of the file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        bytes.extend(self.made.to_be_bytes());
        bytes.extend(self.component);
        bytes.extend(self.engine);
        bytes.extend(self.version.as_bytes());
        bytes.resize(16 + 8 + 32 + 32 + VERSION, 0);
        bytes.extend(self.length.to_be_bytes());
        bytes.extend(self.code);
        let seal = sha256(&bytes);
        bytes.extend(seal);
        bytes
    }

    /// From the first bytes of a file.
    ///
    /// # Errors
    /// What is wrong with them, in words.
    pub(super) fn read(bytes: &[u8]) -> Result<Header, String> {
        let cut = || "it is cut off".to_owned();
        let head = bytes.get(..HEADER).ok_or_else(cut)?;
        let (head, seal) = head.split_at(HEADER - 32);
        let (magic, rest) = head.split_first_chunk::<16>().ok_or_else(cut)?;
        let (made, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        let (&component, rest) = rest.split_first_chunk::<32>().ok_or_else(cut)?;
        let (&engine, rest) = rest.split_first_chunk::<32>().ok_or_else(cut)?;
        let (version, rest) = rest.split_first_chunk::<VERSION>().ok_or_else(cut)?;
        let (length, code) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
        if *magic != MAGIC {
            return Err("it does not begin as native code of this agent does".into());
        }
        if sha256(head) != seal {
            return Err("its header was changed".into());
        }
        let version = version.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Header {
            made: u64::from_be_bytes(*made),
            component,
            engine,
            version: plain(&String::from_utf8_lossy(version), 4 * VERSION),
            length: u64::from_be_bytes(*length),
            code: code.try_into().map_err(|_| cut())?,
        })
    }

    /// Checks the code that follows.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn check(&self, code: &[u8]) -> Result<(), String> {
        if code.len() as u64 != self.length {
            return Err(format!(
                "it has {} bytes of code and was made with {}",
                code.len(),
                self.length
            ));
        }
        if sha256(code) != self.code {
            return Err("its code was changed".into());
        }
        Ok(())
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn no_bit_of_a_file_can_change_unseen_and_no_byte_be_missing() {
        let compiled = Compiled {
            component: String::new(),
            engine: [2; 32],
            code: (0..=255).collect(),
        };
        let header = Header::of(5, [1; 32], "48.0.8", &compiled);
        let mut file = header.to_bytes();
        assert_eq!(file.len(), HEADER);
        file.extend(&compiled.code);
        let sound = |file: &[u8]| {
            Header::read(file).is_ok_and(|read| {
                assert_eq!(read, header);
                read.check(&file[HEADER..]).is_ok()
            })
        };
        assert!(sound(&file));
        for at in 0..file.len() {
            assert!(!sound(&file[..at]), "cut off at {at}");
            for bit in 0..8 {
                file[at] ^= 1 << bit;
                assert!(!sound(&file), "bit {bit} of byte {at}");
                file[at] ^= 1 << bit;
            }
        }
        file.push(0);
        assert!(!sound(&file), "longer");
    }
}
