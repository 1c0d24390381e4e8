//! The floor: what a shell script does with the best tools there are.

use std::fs;
use std::path::{Path, PathBuf};

use super::{find, word};
use crate::artifact::Artifact;
use crate::contest::Contestant;
use crate::table::Missing;
use crate::timed::{self, Cost};

/// What is run. The same digests as ours: the vendor's MD5, SHA-256, and the BLAKE2b that a minisign signature is made over. Each
/// reads from a FIFO, so that all of them can be waited for. The slot is written over in place, as ours is.
const SCRIPT: &str = r#"
set -euo pipefail
slot=$1
shift
for digest in md5 sha256 b2; do
    rm -f "$digest.fifo"
    mkfifo "$digest.fifo"
    "${digest}sum" < "$digest.fifo" > "$digest.txt" &
done
"$@" | tee md5.fifo sha256.fifo b2.fifo | dd of="$slot" bs=1M iflag=fullblock conv=notrunc,fsync status=none
wait
"#;

/// What brings the bytes.
#[derive(Debug, Clone)]
pub(crate) enum Bytes {
    /// curl with these arguments.
    Curl(Vec<String>),
    /// A file.
    File(PathBuf),
}

/// The script.
pub(crate) struct Floor<'a> {
    pub(crate) bytes: Bytes,
    pub(crate) dir: PathBuf,
    pub(crate) slot: &'a Path,
    pub(crate) artifact: &'a Artifact,
}

impl Contestant for Floor<'_> {
    fn name(&self) -> String {
        "script".to_owned()
    }

    fn run(&mut self) -> Result<Cost, Missing> {
        let slot = word(self.slot);
        let mut arguments: Vec<String> = ["-c", SCRIPT, "floor", &slot].map(str::to_owned).to_vec();
        match &self.bytes {
            Bytes::Curl(more) => {
                find("curl")?;
                arguments.extend(["curl", "--silent", "--show-error", "--fail"].map(str::to_owned));
                arguments.extend(more.iter().cloned());
            }
            Bytes::File(path) => arguments.extend(["cat".to_owned(), word(path)]),
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (cost, _) = timed::run(&find("bash")?, &arguments, &self.dir)?;
        digests_are_right(&self.dir, self.artifact)?;
        Ok(cost)
    }

    fn check(&mut self) -> Result<(), Missing> {
        self.artifact.is_in(self.slot, &self.artifact.signed)
    }
}

/// What the script has written is what was published. Nobody else here computes BLAKE2b; that it was computed shows in its 128 digits.
pub(crate) fn digests_are_right(dir: &Path, artifact: &Artifact) -> Result<(), Missing> {
    let read = |name: &str| {
        fs::read_to_string(dir.join(name)).map_err(|e| Missing::Failed(format!("{name}: {e}")))
    };
    let described = &artifact.described;
    for (name, wanted) in [
        ("md5.txt", &described.md5),
        ("sha256.txt", &described.sha256),
    ] {
        let text = read(name)?;
        if !text.starts_with(wanted.as_str()) {
            return Err(Missing::Failed(format!(
                "{name} says {}, not {wanted}",
                text.trim()
            )));
        }
    }
    let blake = read("b2.txt")?;
    if blake.split(' ').next().map(str::len) != Some(128) {
        return Err(Missing::Failed(format!("b2sum says {}", blake.trim())));
    }
    Ok(())
}
