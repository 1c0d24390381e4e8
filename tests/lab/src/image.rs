//! Firmware images a machine can judge for itself.
//!
//! A real boot loader does not ask the update agent whether an image is whole, it finds out. So an image of the lab says in a short
//! text header how long its body is and what its digest is, and a [machine](crate::machine) boots it only when both are true: an
//! agent that activates half an image is found out by the next boot, not by its own report.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use md5::{Digest, Md5};

use crate::ids::hex;

/// The first line of an image.
const MAGIC: &str = "otahost-lab-image 1";
/// No line of the header is longer; what has no line feed by then is no image.
const LONGEST_LINE: u64 = 256;
/// Bytes made and read at a time.
const PIECE: usize = 256 * 1024;

/// What an image shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    version: String,
    boots: bool,
    agent: bool,
    size: u64,
    seed: u64,
}

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageHeader {
    /// The version that runs when it has booted.
    pub version: String,
    /// Whether it comes up when booted.
    pub boots: bool,
    /// Whether the agent comes up in it.
    pub agent: bool,
    /// Bytes of the body, which follows the header.
    pub length: u64,
    /// SHA-256 of the body, lower-case hex.
    pub sha256: String,
}

/// A file as a platform describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Bytes.
    pub size: u64,
    /// MD5 of the whole file, lower-case hex.
    pub md5: String,
    /// SHA-256 of the whole file, lower-case hex.
    pub sha256: String,
}

/// Why something is not an image that can be booted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The header is not that of an image.
    #[error("no image: {0}")]
    NotAnImage(String),
    /// The body ends early.
    #[error("the body ends after {found} of {length} bytes")]
    Short {
        /// Bytes that are there.
        found: u64,
        /// Bytes the header announces.
        length: u64,
    },
    /// The body is another than the header says.
    #[error("the body has another SHA-256 than the header says")]
    Damaged,
    /// It cannot be read or written.
    #[error("image file: {0}")]
    Io(#[from] io::Error),
}

impl Image {
    /// An image that boots, of `size` bytes in all, header included (at least 1 KiB).
    pub fn new(version: &str, size: u64) -> Self {
        let seed = version
            .bytes()
            .fold(0x243f_6a88_85a3_08d3_u64, |seed, byte| {
                (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            });
        Image {
            version: version.to_owned(),
            boots: true,
            agent: true,
            size: size.max(1024),
            seed,
        }
    }

    /// Makes it one that is whole, and yet does not come up.
    #[must_use]
    pub fn that_does_not_boot(mut self) -> Self {
        self.boots = false;
        self
    }

    /// Makes it one that comes up, but in which the agent does not.
    #[must_use]
    pub fn without_agent(mut self) -> Self {
        self.agent = false;
        self
    }

    /// Gives it another body. Without this the body follows from the version.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Writes it to a file, piece by piece.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let header_bytes = self.header(self.size, &"0".repeat(64)).len() as u64;
        let length = self.size.saturating_sub(header_bytes);
        let mut file = BufWriter::with_capacity(PIECE, File::create(path)?);
        file.write_all(self.header(length, &"0".repeat(64)).as_bytes())?;
        let mut digest = Context::new(&SHA256);
        let mut noise = Noise(self.seed);
        let mut piece = vec![0; PIECE];
        let mut left = length;
        while left > 0 {
            let take = left.min(PIECE as u64) as usize;
            noise.fill(&mut piece[..take]);
            digest.update(&piece[..take]);
            file.write_all(&piece[..take])?;
            left -= take as u64;
        }
        let sha256 = hex(digest.finish().as_ref());
        file.seek(SeekFrom::Start(0))?;
        file.write_all(self.header(length, &sha256).as_bytes())?;
        file.flush()
    }

    fn header(&self, length: u64, sha256: &str) -> String {
        let [boots, agent] = [self.boots, self.agent].map(|is| if is { "yes" } else { "no" });
        // Twenty places, so that the header is as long for every length.
        format!(
            "{MAGIC}\nversion={}\nboots={boots}\nagent={agent}\nlength={length:020}\nsha256={sha256}\n",
            self.version
        )
    }

    /// Reads the header, and leaves the reader at the first byte of the body.
    ///
    /// # Errors
    /// When it is not the header of an image, or cannot be read.
    pub fn parse(reader: &mut impl BufRead) -> Result<ImageHeader, ImageError> {
        if line(reader)? != MAGIC {
            return Err(ImageError::NotAnImage(format!(
                "the first line is not \"{MAGIC}\""
            )));
        }
        let version = value(reader, "version")?;
        let boots = yes_or_no(reader, "boots")?;
        let agent = yes_or_no(reader, "agent")?;
        let length = value(reader, "length")?;
        let length = length
            .parse()
            .map_err(|_| ImageError::NotAnImage(format!("length={length:?} is no number")))?;
        let sha256 = value(reader, "sha256")?;
        Ok(ImageHeader {
            version,
            boots,
            agent,
            length,
            sha256,
        })
    }

    /// Reads the whole image and compares the body with the header. What follows the body is not looked at: a slot may be larger.
    ///
    /// # Errors
    /// When it is no image, or not whole.
    pub fn verify(path: &Path) -> Result<ImageHeader, ImageError> {
        let mut reader = BufReader::with_capacity(PIECE, File::open(path)?);
        let header = Image::parse(&mut reader)?;
        let mut digest = Context::new(&SHA256);
        let mut body = reader.take(header.length);
        let mut piece = vec![0; PIECE];
        let mut found = 0;
        loop {
            match body.read(&mut piece)? {
                0 => break,
                read => {
                    digest.update(&piece[..read]);
                    found += read as u64;
                }
            }
        }
        if found < header.length {
            return Err(ImageError::Short {
                found,
                length: header.length,
            });
        }
        if hex(digest.finish().as_ref()) != header.sha256 {
            return Err(ImageError::Damaged);
        }
        Ok(header)
    }
}

impl Described {
    /// Reads a file once and describes it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut md5 = Md5::new();
        let mut sha256 = Context::new(&SHA256);
        let mut piece = vec![0; PIECE];
        let mut size = 0;
        loop {
            match file.read(&mut piece)? {
                0 => break,
                read => {
                    md5.update(&piece[..read]);
                    sha256.update(&piece[..read]);
                    size += read as u64;
                }
            }
        }
        Ok(Described {
            size,
            md5: hex(md5.finalize().as_slice()),
            sha256: hex(sha256.finish().as_ref()),
        })
    }
}

fn line(reader: &mut impl BufRead) -> Result<String, ImageError> {
    let mut bytes = Vec::new();
    reader.take(LONGEST_LINE).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(ImageError::NotAnImage(
            "a line of the header does not end".to_owned(),
        ));
    }
    String::from_utf8(bytes)
        .map_err(|_| ImageError::NotAnImage("the header is not text".to_owned()))
}

fn value(reader: &mut impl BufRead, name: &str) -> Result<String, ImageError> {
    let line = line(reader)?;
    match line.split_once('=') {
        Some((found, value)) if found == name => Ok(value.to_owned()),
        _ => Err(ImageError::NotAnImage(format!(
            "expected \"{name}=…\", found {line:?}"
        ))),
    }
}

fn yes_or_no(reader: &mut impl BufRead, name: &str) -> Result<bool, ImageError> {
    match value(reader, name)?.as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        other => Err(ImageError::NotAnImage(format!(
            "{name}={other:?} is neither yes nor no"
        ))),
    }
}

/// Pseudo-random bytes (splitmix64), the same for the same seed: a body that neither compresses nor repeats.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, into: &mut [u8]) {
        for chunk in into.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs::{self, OpenOptions};

    use super::*;

    fn written(image: &Image) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        image.write(&path).unwrap();
        (dir, path)
    }

    #[test]
    fn a_written_image_has_the_asked_size_and_verifies() {
        for size in [1024, 5_000, 1_000_003] {
            let (_dir, path) = written(&Image::new("1.2.3", size));
            assert_eq!(fs::metadata(&path).unwrap().len(), size);
            let header = Image::verify(&path).unwrap();
            assert_eq!(
                (header.version.as_str(), header.boots, header.agent),
                ("1.2.3", true, true)
            );
        }
    }

    #[test]
    fn the_same_image_is_the_same_bytes_and_another_seed_is_not() {
        let (_a, first) = written(&Image::new("1.0", 9_000));
        let (_b, again) = written(&Image::new("1.0", 9_000));
        let (_c, other) = written(&Image::new("1.0", 9_000).with_seed(7));
        assert_eq!(fs::read(&first).unwrap(), fs::read(&again).unwrap());
        assert_ne!(fs::read(&first).unwrap(), fs::read(&other).unwrap());
    }

    #[test]
    fn a_cut_image_does_not_verify() {
        let (_dir, path) = written(&Image::new("1.0", 9_000));
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(8_999)
            .unwrap();
        assert!(matches!(
            Image::verify(&path),
            Err(ImageError::Short { .. })
        ));
    }

    #[test]
    fn one_flipped_bit_of_the_body_does_not_verify() {
        let (_dir, path) = written(&Image::new("1.0", 9_000));
        let mut bytes = fs::read(&path).unwrap();
        bytes[8_000] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(Image::verify(&path), Err(ImageError::Damaged)));
    }

    #[test]
    fn bytes_behind_the_body_are_not_looked_at() {
        let (_dir, path) = written(&Image::new("1.0", 9_000));
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend([0xff; 100]);
        fs::write(&path, bytes).unwrap();
        Image::verify(&path).unwrap();
    }

    #[test]
    fn what_is_no_image_is_refused_and_not_read_whole() {
        for bytes in [
            Vec::new(),
            b"\n".to_vec(),
            vec![b'x'; 4096],
            b"otahost-lab-image 1\nversion=1\nboots=maybe\n".to_vec(),
            b"otahost-lab-image 1\nversion=1\nboots=yes\nagent=maybe\n".to_vec(),
        ] {
            assert!(matches!(
                Image::parse(&mut bytes.as_slice()),
                Err(ImageError::NotAnImage(_))
            ));
        }
    }

    #[test]
    fn a_description_has_the_digests_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let described = Described::of(&path).unwrap();
        assert_eq!(described.size, 3);
        assert_eq!(described.md5, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(
            described.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
