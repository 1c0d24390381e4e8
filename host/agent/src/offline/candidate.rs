//! Which files of a medium are updates for this device.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use otahost_core::policy::versions;
use otahost_transfer::{HEADER_LEN, Header, SIDECAR_MAX, Signature};

use super::{KEY, OfflineTarget, result};

/// Most entries of the directory that are looked at.
const MAX_ENTRIES: usize = 1_000;

/// What tells whether a file changes: size, and time of its last change.
pub(super) type Look = (u64, i64, i64);

/// A file for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    pub(super) target: String,
    pub(super) version: Option<String>,
    /// Names the job: the same signature on the same target is the same update.
    pub(super) key: String,
    /// SHA-256 of the signature.
    pub(super) signature: String,
    /// Where its result belongs.
    pub(super) result: PathBuf,
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) looks: BTreeMap<PathBuf, Look>,
    /// Keys of all files that are there, taken or not.
    pub(super) keys: BTreeSet<String>,
    /// At most one for each target: the newest.
    pub(super) candidates: Vec<Candidate>,
}

/// Looks at the directory. A directory that is not there has no files: nothing is plugged in.
pub(super) fn find(
    directory: &Path,
    device: &str,
    targets: &[OfflineTarget],
    last: &BTreeMap<PathBuf, Look>,
) -> Found {
    let mut found = Found::default();
    let Ok(entries) = fs::read_dir(directory) else {
        return found;
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .take(MAX_ENTRIES)
        .collect();
    paths.sort();
    let mut best: BTreeMap<&str, (u64, Candidate)> = BTreeMap::new();
    for path in paths {
        let Some((file, metadata)) = open(&path) else {
            continue;
        };
        let look = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        found.looks.insert(path.clone(), look);
        let Some(signature) = signature(file, &path) else {
            continue;
        };
        for target in targets {
            let claims = signature.claims();
            if claims.compatible.as_deref() != Some(&target.compatible)
                || target.keys.check(&signature).is_err()
            {
                continue;
            }
            let digest = hex(digest(&SHA256, signature.text().as_bytes()).as_ref());
            let candidate = Candidate {
                path: path.clone(),
                target: target.id.clone(),
                version: claims.version.clone(),
                key: format!("{KEY}{}-{}", &digest[..16], target.id),
                signature: digest,
                result: result::path(&path, device, &target.id),
            };
            found.keys.insert(candidate.key.clone());
            if last.get(&path) != Some(&look) || result::is_of(&candidate) {
                continue;
            }
            let index = claims.rollback_index.unwrap_or(0);
            let newer = best.get(target.id.as_str()).is_none_or(|(known, other)| {
                (index, &candidate.version) != (*known, &other.version)
                    && (index > *known
                        || index == *known
                            && is_newer(candidate.version.as_deref(), other.version.as_deref()))
            });
            if newer {
                best.insert(&target.id, (index, candidate));
            }
        }
    }
    // In the order of the configuration.
    found.candidates = targets
        .iter()
        .filter_map(|t| best.remove(t.id.as_str()).map(|(_, candidate)| candidate))
        .collect();
    found
}

fn is_newer(one: Option<&str>, other: Option<&str>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            versions::compare(one, other).is_some_and(std::cmp::Ordering::is_gt)
        }
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// A regular file, and none that a link points to: what lies on a medium must not name files of the device.
fn open(path: &Path) -> Option<(File, Metadata)> {
    let name = path.file_name()?.to_str()?;
    if name.starts_with('.') || name.ends_with(result::SUFFIX) || name.ends_with(".minisig") {
        return None;
    }
    let file = open_regular(path)?;
    let metadata = file.metadata().ok()?;
    Some((file, metadata))
}

/// Opens a regular file for reading. No link is followed, and nothing that would block is waited for.
pub(super) fn open_regular(path: &Path) -> Option<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .ok()?;
    file.metadata().ok()?.is_file().then_some(file)
}

/// The signature in front of a file, or beside it.
fn signature(mut file: File, path: &Path) -> Option<Signature> {
    let mut head = [0; HEADER_LEN];
    if file.read_exact(&mut head).is_ok()
        && let Ok(Some(header)) = Header::parse(&head)
    {
        return Some(header.signature().clone());
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".minisig");
    let beside = open_regular(&PathBuf::from(beside))?;
    let mut text = String::new();
    let limit = u64::try_from(SIDECAR_MAX).unwrap_or(u64::MAX);
    beside.take(limit).read_to_string(&mut text).ok()?;
    Signature::parse(&text).ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
