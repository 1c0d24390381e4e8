//! Signed artifacts and the keys for them, so that an integrator needs no other tool.
//!
//! The payload is read once: what is signed is what was written, even if somebody changes the input meanwhile.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use otahost_transfer::header::{self, HEADER_LEN, HeaderError};

pub use otahost_transfer::header::Claims;

/// The largest key file.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// Why something could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A file could not be read or written.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The key cannot be used.
    #[error("{what}")]
    Key {
        /// What is wrong with it.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// The input or output cannot be right.
    #[error("{what}")]
    Input {
        /// What is wrong with it.
        what: String,
        /// What to do.
        advice: &'static str,
    },
    /// The claims do not fit into a header.
    #[error("the header cannot be made: {0}")]
    Header(#[from] HeaderError),
    /// The cryptography failed.
    #[error("cannot sign: {0}")]
    Minisign(String),
}

impl SignError {
    /// What to do about it; empty where nobody can say.
    pub fn advice(&self) -> &'static str {
        match self {
            SignError::Key { advice, .. } | SignError::Input { advice, .. } => advice,
            SignError::Header(_) => {
                "shorten --compatible and --version; they take plain text without tabs"
            }
            SignError::Io { .. } | SignError::Minisign(_) => "",
        }
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SignError {
    let path = path.to_path_buf();
    move |source| SignError::Io {
        doing,
        path,
        source,
    }
}

/// A secret key, ready to sign.
#[derive(Clone)]
pub struct SigningKey {
    secret: SecretKey,
    public: PublicKey,
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

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Bytes of the payload.
    pub payload: u64,
    /// Bytes of the signed artifact.
    pub total: u64,
    /// The public key that verifies it.
    pub public_key: String,
}

/// Writes the signed artifact of `input` to `output`: temporary file, sync, rename. `progress` is told the bytes done and the
/// bytes there are.
///
/// # Errors
/// `input` is empty or signed already, or is `output`; the claims are not printable; reading or writing fails. What was at `output`
/// before stays then.
pub fn sign_file(
    key: &SigningKey,
    input: &Path,
    output: &Path,
    claims: &Claims,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Signed, SignError> {
    let comment = claims.to_trusted_comment()?;
    let mut source = File::open(input).map_err(io_error("read", input))?;
    let found = source.metadata().map_err(io_error("read", input))?;
    let refuse = |what: String, advice| Err(SignError::Input { what, advice });
    if found.is_dir() {
        return refuse(
            format!("{} is a directory", input.display()),
            "name the image to sign",
        );
    }
    if std::fs::metadata(output).is_ok_and(|o| (o.dev(), o.ino()) == (found.dev(), found.ino())) {
        return refuse(
            format!("{} is the input itself", output.display()),
            "name another file with --out",
        );
    }
    let mut start = Vec::new();
    let family = header::MAGIC
        .trim_end()
        .trim_end_matches(|c: char| c.is_ascii_digit());
    Read::by_ref(&mut source)
        .take(family.len() as u64)
        .read_to_end(&mut start)
        .map_err(io_error("read", input))?;
    if start.is_empty() {
        return refuse(
            format!("{} is empty", input.display()),
            "name the image to sign",
        );
    }
    if start == family.as_bytes() {
        return refuse(
            format!("{} is signed already", input.display()),
            "sign the image itself; its signed form would be installed with its header",
        );
    }
    source.rewind().map_err(io_error("read", input))?;

    // A name that nobody has, so that not even a file called like it is lost.
    let mut temporary = output.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .map_err(io_error("write", &temporary))?;
    let temporary = Temporary(temporary);
    let mut copy = Copy {
        source: BufReader::with_capacity(256 * 1024, source),
        target,
        done: 0,
        total: found.len(),
        progress,
        failed: None,
    };
    copy.target
        .seek(SeekFrom::Start(HEADER_LEN as u64))
        .map_err(io_error("write", &temporary.0))?;
    let signed = minisign::sign(
        Some(&key.public),
        &key.secret,
        &mut copy,
        Some(&comment),
        Some(header::UNTRUSTED_COMMENT),
    );
    let Copy {
        mut target,
        done,
        failed,
        ..
    } = copy;
    if let Some(source) = failed {
        return Err(io_error("write", &temporary.0)(source));
    }
    let signature = signed
        .map_err(|e| SignError::Minisign(e.to_string()))?
        .into_string();
    let header = header::assemble(&signature)?;
    let mut finish = || -> io::Result<()> {
        target.rewind()?;
        target.write_all(&header)?;
        target.sync_all()?;
        std::fs::rename(&temporary.0, output)?;
        let directory = output
            .parent()
            .filter(|d| !d.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    };
    finish().map_err(io_error("write", output))?;
    Ok(Signed {
        payload: done,
        total: done + HEADER_LEN as u64,
        public_key: key.public_key(),
    })
}

/// Removed when something went wrong before the rename.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Hands the payload to the signer and writes it on the way.
struct Copy<'p> {
    source: BufReader<File>,
    target: File,
    done: u64,
    total: u64,
    progress: &'p mut dyn FnMut(u64, u64),
    /// The signer turns every error into one text; a failed write is told apart here.
    failed: Option<io::Error>,
}

impl Read for Copy<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(into)?;
        if let Err(e) = self.target.write_all(&into[..n]) {
            self.failed = Some(e);
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.done += n as u64;
        (self.progress)(self.done, self.total.max(self.done));
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::io::Cursor;

    use otahost_transfer::header::Header;

    use super::*;

    fn claims() -> Claims {
        Claims {
            compatible: Some("evonest-dock".into()),
            version: Some("7.1.0".into()),
            rollback_index: Some(12),
        }
    }

    #[test]
    fn a_signed_file_is_header_and_payload_and_verifies() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in"), dir.path().join("out"));
        let payload: Vec<u8> = (0..300_000u32).map(|i| i.to_le_bytes()[0]).collect();
        std::fs::write(&input, &payload).unwrap();
        let key = SigningKey::generate().unwrap();
        let mut last = (0, 0);
        let signed = sign_file(&key, &input, &output, &claims(), &mut |done, total| {
            last = (done, total)
        })
        .unwrap();
        assert_eq!(last, (300_000, 300_000));
        assert_eq!((signed.payload, signed.total), (300_000, 304_096));

        let bytes = std::fs::read(&output).unwrap();
        let header = Header::parse(bytes[..HEADER_LEN].try_into().unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(*header.claims(), claims());
        assert_eq!(bytes[HEADER_LEN..], payload);
        // The lines between magic and padding are a minisign signature of the payload.
        let text = String::from_utf8(bytes[header::MAGIC.len()..HEADER_LEN].to_vec()).unwrap();
        let parsed = minisign::SignatureBox::from_string(text.trim_end_matches('\0')).unwrap();
        let public = PublicKey::from_base64(&signed.public_key).unwrap();
        minisign::verify(&public, &parsed, Cursor::new(&payload), true, false, false).unwrap();
        let mut changed = payload.clone();
        changed[299_999] ^= 1;
        assert!(
            minisign::verify(&public, &parsed, Cursor::new(&changed), true, false, false).is_err()
        );
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            2,
            "no temporary file stays"
        );
    }

    #[test]
    fn what_cannot_be_right_is_refused_and_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let key = SigningKey::generate().unwrap();
        std::fs::write(path("image"), b"image").unwrap();
        std::fs::write(path("empty"), b"").unwrap();
        std::os::unix::fs::symlink(path("image"), path("link")).unwrap();
        sign_file(
            &key,
            &path("image"),
            &path("signed"),
            &claims(),
            &mut |_, _| (),
        )
        .unwrap();
        let tabbed = Claims {
            version: Some("1\tcompatible=other".into()),
            ..claims()
        };
        for (input, output, claims, expected) in [
            ("missing", "out", claims(), "cannot read"),
            ("empty", "out", claims(), "is empty"),
            (".", "out", claims(), "is a directory"),
            ("image", "image", claims(), "is the input itself"),
            ("image", "link", claims(), "is the input itself"),
            ("signed", "out", claims(), "is signed already"),
            ("image", "no/such/directory", claims(), "cannot write"),
            ("image", "out", tabbed, "cannot be made"),
        ] {
            let error =
                sign_file(&key, &path(input), &path(output), &claims, &mut |_, _| ()).unwrap_err();
            assert!(
                error.to_string().contains(expected),
                "{input} {output}: {error}"
            );
        }
        assert_eq!(std::fs::read(path("image")).unwrap(), b"image");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            4,
            "image, empty, link and signed"
        );
    }

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
