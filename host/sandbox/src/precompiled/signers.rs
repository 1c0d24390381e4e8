//! Whose native code counts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minisign_verify::{PublicKey, Signature};

use super::CodeFault;

/// minisign public keys. Native code signed by any of them is run; without one, none is.
#[derive(Debug, Clone, Default)]
pub struct Signers(Vec<([u8; 8], PublicKey)>);

impl Signers {
    /// Base64 public keys as minisign prints them. What is none is left out, and so signs nothing.
    pub fn new(keys: &[String]) -> Signers {
        let read = |text: &String| {
            let bytes = STANDARD.decode(text.trim()).ok()?;
            let key = PublicKey::from_base64(text.trim()).ok()?;
            Some((key_id(&bytes)?, key))
        };
        Signers(keys.iter().filter_map(read).collect())
    }

    /// Checks a minisign signature text of these bytes; gives the key, as minisign shows it.
    pub(super) fn verify(&self, bytes: &[u8], signature: &str) -> Result<String, CodeFault> {
        let read = || {
            let line = signature.lines().nth(1)?;
            let id = key_id(&STANDARD.decode(line).ok()?)?;
            Some((id, Signature::decode(signature).ok()?))
        };
        let (id, signature) = read().ok_or(CodeFault::NoSignature)?;
        let key = format!("{:016X}", u64::from_le_bytes(id));
        if self.0.is_empty() {
            return Err(CodeFault::NoSigners(key));
        }
        let mut named = self.0.iter().filter(|(of, _)| *of == id).peekable();
        if named.peek().is_none() {
            return Err(CodeFault::Stranger(key));
        }
        match named.any(|(_, public)| public.verify(bytes, &signature, false).is_ok()) {
            true => Ok(key),
            false => Err(CodeFault::Signature(key)),
        }
    }
}

/// Two bytes of kind, eight of identifier.
fn key_id(bytes: &[u8]) -> Option<[u8; 8]> {
    let (id, _) = bytes.get(2..)?.split_first_chunk::<8>()?;
    Some(*id)
}
