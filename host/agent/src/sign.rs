//! Signed artifacts and the keys for them, so that an integrator needs no other tool.
//!
//! The payload is read once: what is signed is what was written, even if somebody changes the input meanwhile.

mod keys;

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use otahost_transfer::header::{self, HEADER_LEN, HeaderError};
use otahost_transfer::{Signature, SignatureError, UNTRUSTED_COMMENT};

pub use keys::{KeyFiles, SigningKey, read_password, write_key_pair};
pub use otahost_transfer::Claims;

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
    /// The claims cannot be signed.
    #[error("the signature cannot be made: {0}")]
    Claims(#[from] SignatureError),
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
            SignError::Claims(_) | SignError::Header(_) => {
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

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Bytes of the payload.
    pub payload: u64,
    /// Bytes of the artifact that is to be published: the payload, and its header if it has one.
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
    let image = open_image(input, output)?;
    let (mut target, temporary) = Temporary::create(output)?;
    target
        .seek(SeekFrom::Start(HEADER_LEN as u64))
        .map_err(io_error("write", &temporary.0))?;
    let mut copy = Copy::new(image, Some(&mut target), progress);
    let signed = copy.sign(key, &comment, &temporary.0)?;
    let payload = copy.done;
    let header = header::assemble(&signed)?;
    target
        .rewind()
        .and_then(|()| target.write_all(&header))
        .map_err(io_error("write", &temporary.0))?;
    temporary.settle(&target, output)?;
    Ok(Signed {
        payload,
        total: payload + HEADER_LEN as u64,
        public_key: key.public_key(),
    })
}

/// Writes the signature of `input` to `output`, which belongs beside the image, under its name with `.minisig` behind. The image
/// itself stays as it is. Else as [`sign_file`].
///
/// # Errors
/// As for [`sign_file`].
pub fn sign_beside(
    key: &SigningKey,
    input: &Path,
    output: &Path,
    claims: &Claims,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Signed, SignError> {
    let comment = claims.to_trusted_comment()?;
    let image = open_image(input, output)?;
    let mut copy = Copy::new(image, None, progress);
    let signed = copy.sign(key, &comment, output)?;
    let payload = copy.done;
    // Read as a device will read it.
    let signature = Signature::parse(&signed)?;
    let (mut target, temporary) = Temporary::create(output)?;
    target
        .write_all(signature.text().as_bytes())
        .map_err(io_error("write", &temporary.0))?;
    temporary.settle(&target, output)?;
    Ok(Signed {
        payload,
        total: payload,
        public_key: key.public_key(),
    })
}

/// Opens what is to be signed, and looks whether that makes sense. Gives its size too.
fn open_image(input: &Path, output: &Path) -> Result<(File, u64), SignError> {
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
    Ok((source, found.len()))
}

/// Removed when something went wrong before the rename.
struct Temporary(PathBuf);

impl Temporary {
    /// A file beside `output` under a name that nobody has, so that not even a file called like it is lost.
    fn create(output: &Path) -> Result<(File, Self), SignError> {
        let mut path = output.as_os_str().to_owned();
        path.push(format!(".{}.new", std::process::id()));
        let path = PathBuf::from(path);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(io_error("write", &path))?;
        Ok((file, Temporary(path)))
    }

    /// Makes `file`, which is this one, durable under its own name.
    fn settle(&self, file: &File, output: &Path) -> Result<(), SignError> {
        let settle = || -> io::Result<()> {
            file.sync_all()?;
            std::fs::rename(&self.0, output)?;
            let directory = output
                .parent()
                .filter(|d| !d.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            File::open(directory)?.sync_all()
        };
        settle().map_err(io_error("write", output))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Hands the payload to the signer and writes it on the way, where it is to be written at all.
struct Copy<'p> {
    source: BufReader<File>,
    target: Option<&'p mut File>,
    done: u64,
    total: u64,
    progress: &'p mut dyn FnMut(u64, u64),
    /// The signer turns every error into one text; a failed write is told apart here.
    failed: Option<io::Error>,
}

impl<'p> Copy<'p> {
    fn new(
        (source, total): (File, u64),
        target: Option<&'p mut File>,
        progress: &'p mut dyn FnMut(u64, u64),
    ) -> Self {
        Copy {
            source: BufReader::with_capacity(256 * 1024, source),
            target,
            done: 0,
            total,
            progress,
            failed: None,
        }
    }

    /// The text of the signature of everything there is to read.
    fn sign(
        &mut self,
        key: &SigningKey,
        comment: &str,
        target: &Path,
    ) -> Result<String, SignError> {
        let signed = minisign::sign(
            Some(&key.public),
            &key.secret,
            &mut *self,
            Some(comment),
            Some(UNTRUSTED_COMMENT),
        );
        if let Some(source) = self.failed.take() {
            return Err(io_error("write", target)(source));
        }
        signed
            .map(minisign::SignatureBox::into_string)
            .map_err(|e| SignError::Minisign(e.to_string()))
    }
}

impl Read for Copy<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(into)?;
        if let Some(target) = &mut self.target
            && let Err(e) = target.write_all(&into[..n])
        {
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

    use minisign::PublicKey;
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
    fn a_signature_beside_an_image_verifies_it_and_leaves_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("image"), dir.path().join("image.minisig"));
        let payload: Vec<u8> = (0..300_000u32).map(|i| i.to_le_bytes()[0]).collect();
        std::fs::write(&input, &payload).unwrap();
        let key = SigningKey::generate().unwrap();
        let signed = sign_beside(&key, &input, &output, &claims(), &mut |_, _| ()).unwrap();
        assert_eq!((signed.payload, signed.total), (300_000, 300_000));
        assert_eq!(std::fs::read(&input).unwrap(), payload);
        let text = std::fs::read_to_string(&output).unwrap();
        assert_eq!(*Signature::parse(&text).unwrap().claims(), claims());
        let parsed = minisign::SignatureBox::from_string(&text).unwrap();
        let public = PublicKey::from_base64(&signed.public_key).unwrap();
        minisign::verify(&public, &parsed, Cursor::new(&payload), true, false, false).unwrap();
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
            for sign in [sign_file, sign_beside] {
                let error =
                    sign(&key, &path(input), &path(output), &claims, &mut |_, _| ()).unwrap_err();
                assert!(
                    error.to_string().contains(expected),
                    "{input} {output}: {error}"
                );
            }
        }
        assert_eq!(std::fs::read(path("image")).unwrap(), b"image");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            4,
            "image, empty, link and signed"
        );
    }
}
