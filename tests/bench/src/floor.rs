//! The floor: what a shell script does with the best tools there are.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use otahost_lab::image::Described;

/// What is run. The same digests as ours: the vendor's MD5, SHA-256, and the BLAKE2b that a minisign signature is made over. Each
/// reads from a FIFO, so that all of them can be waited for. The slot is written over in place, as ours is.
const SCRIPT: &str = r#"
set -euo pipefail
url=$1 slot=$2
for digest in md5 sha256 b2; do
    rm -f "$digest.fifo"
    mkfifo "$digest.fifo"
    "${digest}sum" < "$digest.fifo" > "$digest.txt" &
done
curl --silent --show-error --fail "$url" | tee md5.fifo sha256.fifo b2.fifo \
    | dd of="$slot" bs=1M iflag=fullblock conv=notrunc,fsync status=none
wait
"#;

/// What the row says of it.
pub(crate) const NAME: &str =
    "curl | tee >(md5sum) >(sha256sum) >(b2sum) | dd bs=1M conv=notrunc,fsync";

/// Runs it once, and checks that it did what ours has to do.
///
/// # Errors
/// When a tool is missing or failed, or a digest is wrong.
pub(crate) fn run(
    directory: &Path,
    url: &str,
    slot: &Path,
    file: &Described,
) -> Result<Duration, String> {
    let start = Instant::now();
    let output = Command::new("bash")
        .args(["-c", SCRIPT, "floor", url])
        .arg(slot)
        .current_dir(directory)
        .output();
    let output = output.map_err(|error| format!("the floor cannot run: bash: {error}"))?;
    let took = start.elapsed();
    if !output.status.success() {
        return Err(format!(
            "the floor failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    for (digest, expected) in [("md5", &file.md5), ("sha256", &file.sha256)] {
        let text = fs::read_to_string(directory.join(format!("{digest}.txt")))
            .map_err(|error| format!("the floor: {digest}sum: {error}"))?;
        if !text.starts_with(expected.as_str()) {
            return Err(format!(
                "the floor: {digest}sum says {:?}, not {expected}",
                text.trim()
            ));
        }
    }
    // Nobody else here computes BLAKE2b; that it was computed shows in its 128 digits.
    let blake = fs::read_to_string(directory.join("b2.txt"))
        .map_err(|error| format!("the floor: b2sum: {error}"))?;
    if blake.split(' ').next().map(str::len) != Some(128) {
        return Err(format!("the floor: b2sum says {:?}", blake.trim()));
    }
    let written = fs::metadata(slot)
        .map_err(|error| format!("the floor: {}: {error}", slot.display()))?
        .len();
    if written != file.size {
        return Err(format!("the floor wrote {written} of {} bytes", file.size));
    }
    Ok(took)
}
