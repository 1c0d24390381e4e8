//! The others: what a shell script does with the best tools there are, the two agents that Debian packs, and what
//! an adapter would be without a sandbox.

pub(crate) mod floor;
pub(crate) mod keys;
pub(crate) mod native;
pub(crate) mod ours;
pub(crate) mod process;
pub(crate) mod rauc;
pub(crate) mod shell;
pub(crate) mod swupdate;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::table::Missing;

/// A program in the search path, or where Debian keeps daemons.
pub(crate) fn find(program: &str) -> Result<PathBuf, Missing> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| Missing::Absent(format!("{program} is not installed")))
}

/// The releases of those that Debian packs, for the paragraph about the machine.
pub(crate) fn versions() -> String {
    let packages = ["swupdate", "rauc", "curl", "mosquitto", "vsftpd"];
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${Version}, "])
        .args(packages)
        .stderr(Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    match text.trim_end_matches(", ") {
        "" => "no Debian packages".to_owned(),
        some => some.to_owned(),
    }
}

/// A path in an argument.
pub(crate) fn word(path: &Path) -> String {
    path.display().to_string()
}
