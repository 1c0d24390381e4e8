//! The keys artifacts are signed with, in minisign's own files.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};

use super::{SignError, io_error};

/// The largest key file.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// A secret key, ready to sign.
#[derive(Clone)]
pub struct SigningKey {
    pub(super) secret: SecretKey,
    pub(super) public: PublicKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public_key())
    }
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<Self, SignError> {
        let pair = KeyPair::generate_unencrypted_keypair()
            .map_err(|e| SignError::Minisign(e.to_string()))?;
        Ok(SigningKey {
            secret: pair.sk,
            public: pair.pk,
        })
    }

    /// Reads a minisign secret key file, with the password it is encrypted with, if it is.
    ///
    /// # Errors
    /// The file cannot be read or is no key; the password is missing, wrong or too much.
    pub fn load(path: &Path, password: Option<&str>) -> Result<Self, SignError> {
        Self::from_text(&read_small(path, "read the secret key")?, password)
    }

    /// The same for the text of such a file.
    ///
    /// # Errors
    /// As for [`SigningKey::load`].
    pub fn from_text(text: &str, password: Option<&str>) -> Result<Self, SignError> {
        let no_key = || SignError::Key {
            what: "this is no minisign secret key".into(),
            advice: "name the `.key` file that `otahost keygen` or `minisign -G` wrote",
        };
        let line = text.lines().nth(1).ok_or_else(no_key)?;
        let bytes = STANDARD.decode(line.trim()).map_err(|_| no_key())?;
        // After the signature algorithm, two bytes name the key derivation: `Sc`, or zeros for none.
        let encrypted = match bytes.get(2..4) {
            Some([0, 0]) => false,
            Some(b"Sc") => true,
            _ => return Err(no_key()),
        };
        let parsed = SecretKeyBox::from(text.to_owned());
        let secret = match (encrypted, password) {
            (false, _) => SecretKey::from_unencrypted_box(parsed).map_err(|_| no_key())?,
            (true, Some(password)) => SecretKey::from_box(parsed, Some(password.to_owned()))
                .map_err(|e| SignError::Key {
                    what: format!("the secret key cannot be decrypted: {e}"),
                    advice: "check the file that --password-file names",
                })?,
            (true, None) => {
                return Err(SignError::Key {
                    what: "the secret key is encrypted".into(),
                    advice: "give its password with --password-file FILE",
                });
            }
        };
        let public = PublicKey::from_secret_key(&secret).map_err(|_| no_key())?;
        Ok(SigningKey { secret, public })
    }

    /// The public key, as `trust.minisign` takes it.
    pub fn public_key(&self) -> String {
        self.public.to_base64()
    }
}

/// The password in a file: its first line.
///
/// # Errors
/// The file cannot be read, or is empty.
pub fn read_password(path: &Path) -> Result<String, SignError> {
    let text = read_small(path, "read the password")?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(SignError::Key {
            what: format!("{} is empty", path.display()),
            advice: "write the password into its first line",
        }),
    }
}

fn read_small(path: &Path, doing: &'static str) -> Result<String, SignError> {
    let mut text = String::new();
    let file = File::open(path).map_err(io_error(doing, path))?;
    file.take(MAX_KEY_FILE)
        .read_to_string(&mut text)
        .map_err(io_error(doing, path))?;
    Ok(text)
}

/// Where [`write_key_pair`] put a new pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFiles {
    /// The secret key, mode 0600.
    pub secret: PathBuf,
    /// The public key.
    pub public: PathBuf,
    /// The public key as `trust.minisign` takes it.
    pub public_key: String,
}

/// Makes a pair and writes `PREFIX.key` (mode 0600) and `PREFIX.pub`, in minisign's format. With a password the secret key is
/// encrypted.
///
/// # Errors
/// One of the files is there already: keys are never overwritten. Or they cannot be written.
pub fn write_key_pair(prefix: &Path, password: Option<&str>) -> Result<KeyFiles, SignError> {
    let with = |ending: &str| {
        let mut path = prefix.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    let (secret_path, public_path) = (with(".key"), with(".pub"));
    for path in [&secret_path, &public_path] {
        if path.symlink_metadata().is_ok() {
            return Err(SignError::Input {
                what: format!(
                    "{} is there already, and keys are never overwritten",
                    path.display()
                ),
                advice: "choose another prefix, or move the old pair away",
            });
        }
    }
    let crypto = |e: minisign::PError| SignError::Minisign(e.to_string());
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password.to_owned())),
        None => KeyPair::generate_unencrypted_keypair(),
    }
    .map_err(crypto)?;
    let secret = pair
        .sk
        .to_box(Some("otahost secret key"))
        .map_err(crypto)?
        .into_string();
    let public = pair.pk.to_box().map_err(crypto)?.into_string();
    for (path, text, mode) in [(&secret_path, secret, 0o600), (&public_path, public, 0o644)] {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path);
        let written = file.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(io_error("write", path))?;
    }
    Ok(KeyFiles {
        secret: secret_path,
        public: public_path,
        public_key: pair.pk.to_base64(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_key_pair_is_written_once_and_reads_back() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let files = write_key_pair(&dir.path().join("vendor.release"), None).unwrap();
        assert!(
            files.secret.ends_with("vendor.release.key")
                && files.public.ends_with("vendor.release.pub")
        );
        assert_eq!(
            std::fs::metadata(&files.secret)
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        assert_eq!(
            SigningKey::load(&files.secret, None).unwrap().public_key(),
            files.public_key
        );
        let public = std::fs::read_to_string(&files.public).unwrap();
        assert_eq!(public.lines().nth(1), Some(files.public_key.as_str()));
        let before = std::fs::read(&files.secret).unwrap();
        assert!(write_key_pair(&dir.path().join("vendor.release"), None).is_err());
        assert_eq!(std::fs::read(&files.secret).unwrap(), before);
    }

    #[test]
    fn an_encrypted_key_needs_its_password() {
        let dir = tempfile::tempdir().unwrap();
        let files = write_key_pair(&dir.path().join("k"), Some("secret word")).unwrap();
        std::fs::write(dir.path().join("pw"), "secret word\n").unwrap();
        let password = read_password(&dir.path().join("pw")).unwrap();
        assert_eq!(
            SigningKey::load(&files.secret, Some(&password))
                .unwrap()
                .public_key(),
            files.public_key
        );
        let missing = SigningKey::load(&files.secret, None).unwrap_err();
        assert!(missing.advice().contains("--password-file"));
        let wrong = SigningKey::load(&files.secret, Some("other")).unwrap_err();
        assert!(wrong.to_string().contains("cannot be decrypted"), "{wrong}");
        assert!(SigningKey::load(&files.public, None).is_err());
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = SigningKey::generate().unwrap();
        assert_eq!(
            format!("{key:?}"),
            format!("SigningKey({})", key.public_key())
        );
    }
}
