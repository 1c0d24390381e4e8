//! What is left on the medium: for people at the station, and so that the same stick does not update a device twice.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::candidate::Candidate;

/// What the names of results end with.
pub(super) const SUFFIX: &str = ".result.json";
/// Largest result that is read.
const MAX_RESULT: u64 = 64 * 1024;

/// How an update from a medium ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Result {
    pub device: String,
    pub target: String,
    /// The file's version.
    pub version: Option<String>,
    /// The version that ran before.
    pub old_version: Option<String>,
    /// The phase the job ended in, `up-to-date` or `refused`.
    pub outcome: String,
    pub reason: Option<String>,
    /// SHA-256 of the file's signature: another file under the same name has no result yet.
    pub signature: String,
}

/// The result of a file for one target of one device.
pub(super) fn path(file: &Path, device: &str, target: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{device}.{target}{SUFFIX}"));
    PathBuf::from(name)
}

/// True when the result that lies beside a file is this file's.
pub(super) fn is_of(candidate: &Candidate) -> bool {
    let Some(file) = super::candidate::open_regular(&candidate.result) else {
        return false;
    };
    let mut bytes = Vec::new();
    file.take(MAX_RESULT).read_to_end(&mut bytes).is_ok()
        && serde_json::from_slice::<Result>(&bytes)
            .is_ok_and(|result| result.signature == candidate.signature)
}

/// Writes a result whole or not at all. It lies on the operator's medium, and nothing depends on it.
pub(super) fn write(path: &Path, result: &Result) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(result)?;
    text.push(b'\n');
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    // A link under that name would lead the write to a file of the device.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(&beside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
