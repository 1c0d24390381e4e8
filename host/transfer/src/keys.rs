//! Whose signature counts.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::signature::{Signature, show_key};

/// Why a key cannot be used, or a signature is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No keys were given.
    #[error(
        "there is no key; give at least one minisign public key (\"RWQ…\"), or the word \"unsigned\""
    )]
    None,
    /// Not a minisign public key.
    #[error(
        "key number {0} is no minisign public key; it is the second line of a .pub file and begins with \"RW\""
    )]
    NoKey(usize),
    /// The signature names a key that is not trusted.
    #[error("it was signed with key {0}, which is not among the trusted ones")]
    Stranger(String),
    /// The signature of the trusted comment is wrong.
    #[error("its trusted comment was changed, or was not signed with the trusted key {0}")]
    Comment(String),
}

/// minisign public keys. A signature by any of them counts.
#[derive(Debug, Clone)]
pub struct TrustKeys(Vec<TrustKey>);

#[derive(Debug, Clone)]
struct TrustKey {
    id: [u8; 8],
    key: [u8; 32],
    public: minisign_verify::PublicKey,
}

impl TrustKeys {
    /// Reads base64 public keys as minisign prints them.
    pub fn parse(keys: &[String]) -> Result<Self, KeyError> {
        if keys.is_empty() {
            return Err(KeyError::None);
        }
        let read = |(index, text): (usize, &String)| {
            read_key(text.trim()).ok_or(KeyError::NoKey(index + 1))
        };
        keys.iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, _>>()
            .map(TrustKeys)
    }

    /// The keys' identifiers, as minisign shows them.
    pub fn ids(&self) -> Vec<String> {
        self.0.iter().map(|key| show_key(&key.id)).collect()
    }

    /// Checks all of a signature that can be checked before the payload is here: that a trusted key signed the pair of payload
    /// signature and trusted comment. The claims can be believed from here on; the payload cannot.
    pub fn check(&self, signature: &Signature) -> Result<(), KeyError> {
        self.signer(signature).map(drop)
    }

    /// As `check`; gives the key the payload's signature has to be verified with.
    pub(crate) fn signer(
        &self,
        signature: &Signature,
    ) -> Result<&minisign_verify::PublicKey, KeyError> {
        let (message, global) = signature.global();
        let mut named = self
            .0
            .iter()
            .filter(|key| key.id == *signature.key_id())
            .peekable();
        if named.peek().is_none() {
            return Err(KeyError::Stranger(signature.key()));
        }
        named
            .find(|key| {
                UnparsedPublicKey::new(&ED25519, key.key)
                    .verify(&message, global)
                    .is_ok()
            })
            .map(|key| &key.public)
            .ok_or_else(|| KeyError::Comment(signature.key()))
    }
}

/// "Ed", eight bytes of identifier, 32 of key.
fn read_key(text: &str) -> Option<TrustKey> {
    let bytes = STANDARD.decode(text).ok()?;
    let (id, key) = bytes.strip_prefix(b"Ed")?.split_first_chunk::<8>()?;
    Some(TrustKey {
        id: *id,
        key: key.try_into().ok()?,
        public: minisign_verify::PublicKey::from_base64(text).ok()?,
    })
}
