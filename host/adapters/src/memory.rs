//! What a repository has shown before, kept over power cuts: without it, somebody between us and the repository could show an older
//! state, or older keys, after every restart.
//!
//! One file, replaced as a whole, so that root, timestamp and snapshot in it always belong together. `tough` has a store of its own,
//! which is neither durable nor whole; it is given a temporary copy.

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use otahost_disk::{Disk, Place, Seam};
use serde::{Deserialize, Serialize};
use tough::schema::{Role as _, RoleType, Root, Signed};

use crate::transport::Kept;
use crate::{MAX_METADATA, RepositoryError};

/// The file's name in the directory that is ours.
const FILE: &str = "seen.json";

/// Its format.
const FORMAT: u32 = 1;

/// Its largest size in bytes: three files of metadata as strings in JSON, and the roots passed.
const MAX_FILE: u64 = 8 * MAX_METADATA;

/// Roots that are remembered as passed.
const MAX_PASSED: usize = 1_024;

/// Versions of metadata stay exact in every language's numbers; beyond that is nonsense.
const MAX_VERSION: u64 = 1 << 53;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    format: u32,
    /// Digests of the roots from the trusted one to the newest, which stand for it: a trusted root among them is an old acquaintance.
    passed: Vec<String>,
    /// The newest root.
    pub(crate) root: String,
    /// The newest timestamp.
    pub(crate) timestamp: Option<String>,
    /// The newest snapshot.
    pub(crate) snapshot: Option<String>,
}

impl Memory {
    /// Where to begin, with this trusted root: at the newest root that came from it. With another trusted root than before, at that
    /// one; what was seen stays evidence, as far as its keys still hold for it.
    pub(crate) fn begin(before: Option<&Memory>, trusted: &KnownRoot) -> Memory {
        match before {
            Some(memory) if memory.passed.contains(&trusted.digest) => memory.clone(),
            other => Memory {
                format: FORMAT,
                passed: vec![trusted.digest.clone()],
                root: trusted.text.clone(),
                timestamp: other.and_then(|memory| memory.timestamp.clone()),
                snapshot: other.and_then(|memory| memory.snapshot.clone()),
            },
        }
    }

    /// The same after the way to this verified root. Where it names other keys for timestamp or snapshot, those that were seen are
    /// forgotten: a thief of the old keys may have raised the versions as far as he liked (TUF 1.0, 5.3.11).
    pub(crate) fn follow(mut self, root: &Signed<Root>, read: &Kept) -> Memory {
        let newest = root.signed.version.get();
        let before: Option<Signed<Root>> = serde_json::from_str(&self.root).ok();
        for (version, text) in read.roots.iter().filter(|(version, _)| *version <= newest) {
            let Ok(root) = KnownRoot::parse(text.as_bytes()) else {
                continue;
            };
            if !self.passed.contains(&root.digest) {
                self.passed.push(root.digest);
            }
            if *version == newest {
                self.root = root.text;
            }
        }
        let excess = self.passed.len().saturating_sub(MAX_PASSED);
        self.passed.drain(..excess);
        let same = |role| {
            before
                .as_ref()
                .is_some_and(|before| before.signed.keys(role).eq(root.signed.keys(role)))
        };
        if !(same(RoleType::Timestamp) && same(RoleType::Snapshot)) {
            self.timestamp = None;
            self.snapshot = None;
        }
        self
    }
}

/// A root that can be read and has signed itself.
#[derive(Debug)]
pub(crate) struct KnownRoot {
    text: String,
    digest: String,
}

impl KnownRoot {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, RepositoryError> {
        let refuse = |why: String| RepositoryError::TrustedRoot(why);
        if bytes.len() as u64 > MAX_METADATA {
            return Err(refuse(format!("it has more than {MAX_METADATA} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| refuse("it is no text".to_owned()))?;
        let root: Signed<Root> = serde_json::from_str(text)
            .map_err(|e| refuse(format!("it is no root metadata: {e}")))?;
        root.signed
            .verify_role(&root)
            .map_err(|e| refuse(e.to_string()))?;
        if root.signed.version.get() > MAX_VERSION {
            return Err(refuse("its version is out of all reason".to_owned()));
        }
        let canonical = root
            .signed
            .canonical_form()
            .map_err(|e| refuse(e.to_string()))?;
        Ok(Self {
            text: text.to_owned(),
            digest: hex(digest(&SHA256, &canonical).as_ref()),
        })
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The directory the memory lies in.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    disk: Arc<dyn Disk>,
    directory: Place,
    seam: Seam,
}

impl Store {
    pub(crate) fn new(disk: Arc<dyn Disk>, directory: Place, seam: Seam) -> Self {
        Self {
            disk,
            directory,
            seam,
        }
    }

    fn file(&self) -> Place {
        self.directory.join(FILE)
    }

    /// What was seen; `None` before the first time. A damaged memory is an error: taken for an empty one, it would let an old state pass.
    pub(crate) async fn load(&self) -> Result<Option<Memory>, RepositoryError> {
        let (disk, file) = (Arc::clone(&self.disk), self.file());
        let read = self.seam.run(move || disk.read(&file, MAX_FILE)).await;
        let failed = |why: String| RepositoryError::Memory {
            doing: "read",
            why,
            advice: format!(
                "if the disk is sound, remove {}: the repository is then believed as on the first day",
                self.file()
            ),
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e.to_string())),
        };
        let memory: Memory = serde_json::from_slice(&bytes)
            .map_err(|e| failed(format!("{} is damaged: {e}", self.file())))?;
        if memory.format != FORMAT {
            return Err(failed(format!(
                "{} has format {}, and this agent knows {FORMAT}",
                self.file(),
                memory.format
            )));
        }
        Ok(Some(memory))
    }

    /// Keeps this memory; durable on return.
    pub(crate) async fn save(&self, memory: &Memory) -> Result<(), RepositoryError> {
        let failed = |why: String| RepositoryError::Memory {
            doing: "written",
            why,
            advice: "make room on the data directory, or look after its disk".to_owned(),
        };
        let bytes = serde_json::to_vec(memory).map_err(|e| failed(e.to_string()))?;
        let (disk, directory, file) = (Arc::clone(&self.disk), self.directory.clone(), self.file());
        self.seam
            .run(move || {
                if disk.kind(&directory)?.is_none() {
                    create_durably(disk.as_ref(), &directory)?;
                }
                disk.replace(&file, &bytes)
            })
            .await
            .map_err(|e| failed(e.to_string()))
    }
}

/// Makes a directory and those above it, and their names last.
fn create_durably(disk: &dyn Disk, directory: &Place) -> io::Result<()> {
    disk.create_dir(directory)?;
    let mut at = directory.clone();
    while at.path().file_name().is_some() {
        at = at.parent();
        disk.sync_dir(&at)?;
    }
    Ok(())
}
