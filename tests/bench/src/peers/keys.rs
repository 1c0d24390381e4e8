//! The key pair that bundles for SWUpdate and RAUC are signed with.

use std::path::{Path, PathBuf};

use super::{find, word};
use crate::table::Missing;
use crate::timed;

/// A certificate that signed itself, and its key.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// PEM.
    pub(crate) certificate: PathBuf,
    /// PEM.
    pub(crate) key: PathBuf,
}

impl Keys {
    /// Makes them with openssl.
    pub(crate) fn make(dir: &Path) -> Result<Self, Missing> {
        let keys = Keys {
            certificate: dir.join("certificate.pem"),
            key: dir.join("key.pem"),
        };
        let (certificate, key) = (word(&keys.certificate), word(&keys.key));
        let arguments = [
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &certificate,
            "-subj",
            "/CN=bench",
            "-days",
            "2",
            "-addext",
            // What SWUpdate asks for, and what RAUC does.
            "extendedKeyUsage=emailProtection,codeSigning",
            "-addext",
            "keyUsage=digitalSignature",
        ];
        timed::run(&find("openssl")?, &arguments, dir)?;
        Ok(keys)
    }
}
