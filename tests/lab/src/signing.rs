//! Signed artifacts, made independently of the agent.
//!
//! The agent's own `otahost sign` and its verifier could agree on the same mistake. This second writer follows the format's
//! description alone: a header of 4,096 bytes (the line `otahost-signed-artifact 1`, a minisign signature over the prehashed
//! payload whose untrusted comment is `otahost signed artifact`, zeros), then the payload.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::Path;

use minisign::KeyPair;

use crate::image::Described;

/// Bytes of the header before the payload.
pub const HEADER: usize = 4096;
/// The first line of the header.
const MAGIC: &str = "otahost-signed-artifact 1\n";
/// The one thing minisign does not sign; the format fixes it.
const UNTRUSTED_COMMENT: &str = "otahost signed artifact";

/// A publisher's key pair, made anew for every test.
pub struct Publisher {
    keys: KeyPair,
}

/// What the trusted comment of a signature says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The kind of device the payload is for.
    pub compatible: String,
    /// The payload's version.
    pub version: String,
    /// Rises with every release that older ones must not replace.
    pub rollback_index: u64,
}

impl Publisher {
    /// A new key pair.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> io::Result<Self> {
        Ok(Publisher {
            keys: KeyPair::generate_unencrypted_keypair().map_err(io::Error::other)?,
        })
    }

    /// The public key as `targets.X.trust` takes it.
    pub fn public_key(&self) -> String {
        self.keys.pk.to_base64()
    }

    /// Writes `artifact`: the header that signs `payload`, and the payload. Says what a platform would say of the file.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the signature is too long for the header.
    pub fn sign(&self, payload: &Path, artifact: &Path, claims: &Claims) -> io::Result<Described> {
        let comment = format!(
            "compatible={}\tversion={}\trollback-index={}",
            claims.compatible, claims.version, claims.rollback_index
        );
        let signature = minisign::sign(
            Some(&self.keys.pk),
            &self.keys.sk,
            BufReader::new(File::open(payload)?),
            Some(&comment),
            Some(UNTRUSTED_COMMENT),
        )
        .map_err(io::Error::other)?
        .into_string();
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC.as_bytes());
        header.extend_from_slice(signature.as_bytes());
        if header.len() > HEADER {
            return Err(io::Error::other(
                "the signature does not fit into the header",
            ));
        }
        header.resize(HEADER, 0);
        let mut file = File::create(artifact)?;
        file.write_all(&header)?;
        io::copy(&mut File::open(payload)?, &mut file)?;
        Described::of(artifact)
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("public_key", &self.public_key())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::io::Cursor;

    use minisign::{PublicKey, SignatureBox};

    use super::*;

    #[test]
    fn the_header_signs_the_payload_that_follows_it() {
        let dir = tempfile::tempdir().unwrap();
        let (payload, artifact) = (dir.path().join("payload"), dir.path().join("artifact"));
        fs::write(&payload, [7; 10_000]).unwrap();
        let publisher = Publisher::generate().unwrap();
        let claims = Claims {
            compatible: "lab".to_owned(),
            version: "2".to_owned(),
            rollback_index: 3,
        };
        let described = publisher.sign(&payload, &artifact, &claims).unwrap();

        let bytes = fs::read(&artifact).unwrap();
        assert_eq!(described.size, bytes.len() as u64);
        assert_eq!(&bytes[HEADER..], &[7; 10_000][..]);
        let header = std::str::from_utf8(&bytes[..HEADER]).unwrap();
        let signature =
            SignatureBox::from_string(header.strip_prefix(MAGIC).unwrap().trim_end_matches('\0'))
                .unwrap();
        assert_eq!(
            signature.trusted_comment().unwrap(),
            "compatible=lab\tversion=2\trollback-index=3"
        );
        let key = PublicKey::from_base64(&publisher.public_key()).unwrap();
        minisign::verify(
            &key,
            &signature,
            Cursor::new(&bytes[HEADER..]),
            true,
            false,
            false,
        )
        .unwrap();
        minisign::verify(
            &key,
            &signature,
            Cursor::new(&bytes[HEADER - 1..]),
            true,
            false,
            false,
        )
        .unwrap_err();
    }
}
