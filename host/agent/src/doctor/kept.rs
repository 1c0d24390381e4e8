//! Files the agent keeps beside its journal: components, native code, what it has seen of repositories; and the secrets it is given.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;

use otahost_disk::{Disk, Place};

use super::{Contents, Report, State};
use crate::assemble::{MAX_COMPONENT, digest_of};
use crate::config::Config;

/// Largest memory of a repository that is read.
const MAX_SEEN: u64 = 64 << 20;
/// Names in the configuration under which `{ file = … }` is no secret.
const PUBLIC: [&str; 4] = ["version", "ready", "boot", "ca"];

/// Versions of adapters, by their digest.
pub(super) fn components(report: &mut Report, disk: &dyn Disk, contents: Option<&Contents>) {
    let directory = Place::data("adapters");
    let mut there = BTreeSet::new();
    let mut broken = 0;
    for name in disk.list(&directory).unwrap_or_default() {
        let Some(hex) = name.strip_suffix(".wasm") else {
            continue;
        };
        let fault = match disk.read(&directory.join(&name), MAX_COMPONENT) {
            Err(error) => Some(error.to_string()),
            Ok(bytes) => (digest_of(&bytes) != format!("sha256:{hex}"))
                .then(|| "its content is not what its name says".to_owned()),
        };
        there.insert(format!("sha256:{hex}"));
        if let Some(fault) = fault {
            broken += 1;
            let advice = "the agent does not run it, and goes on with the version before or the configured one; install it again";
            report.advise("adapters", &name, State::Broken, fault, advice);
        }
    }
    let needed = contents.into_iter().flat_map(|c| &c.components);
    for digest in needed.filter(|digest| !there.contains(*digest)) {
        // It can be the configured component, of which there is no copy.
        let found = "is not in the store";
        report.add("adapters", digest, State::Note, found);
    }
    if broken == 0 && !there.is_empty() {
        let found = format!("{} kept, every one whole", there.len());
        report.add("adapters", "", State::Whole, found);
    }
}

/// Native code.
#[cfg(feature = "compiler")]
pub(super) fn cache(report: &mut Report, disk: &dyn Disk) {
    use otahost_sandbox::{Bounds, Cache};

    let place = Place::data(crate::assemble::COMPILED);
    let files = match Cache::inspect(disk, &place, Bounds::default()) {
        Ok(files) => files,
        Err(error) => return report.add("cache", "", State::Broken, error.to_string()),
    };
    let count = files.len();
    let broken = files
        .into_iter()
        .filter_map(|(name, found)| Some((name, found.err()?)));
    let mut whole = count > 0;
    for (name, fault) in broken {
        whole = false;
        let advice = "nothing: the adapter is compiled anew at the next start";
        report.advise("cache", &name, State::Broken, fault, advice);
    }
    if whole {
        let found = format!("native code in {count} files, every one whole");
        report.add("cache", "", State::Whole, found);
    }
}

/// An agent without the compiler keeps no native code.
#[cfg(not(feature = "compiler"))]
pub(super) fn cache(_: &mut Report, _: &dyn Disk) {}

/// What was seen of repositories: without it an older state could be shown again.
pub(super) fn repositories(report: &mut Report, disk: &dyn Disk, config: &Config) {
    for name in config.repositories.keys() {
        let file = Place::data(format!("repositories/{name}/seen.json"));
        match disk.read(&file, MAX_SEEN) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                report.add("repositories", name, State::Note, "was not read yet");
            }
            Err(error) => report.add("repositories", name, State::Broken, error.to_string()),
            Ok(bytes) if serde_json::from_slice::<serde_json::Value>(&bytes).is_err() => {
                let advice = format!(
                    "if the disk is sound, remove {file}: the repository is then believed as on the first day"
                );
                let found = "what was seen of it is damaged";
                report.advise("repositories", name, State::Broken, found, &advice);
            }
            Ok(_) => {
                let found = "what was seen of it is remembered";
                report.add("repositories", name, State::Whole, found);
            }
        }
    }
}

/// Files of secrets that others can read. That they are there was found out with the configuration.
pub(super) fn secrets(report: &mut Report, config: &Config) {
    let text = std::fs::read_to_string(&config.path).unwrap_or_default();
    let Ok(document) = text.parse::<toml::Table>() else {
        return;
    };
    let mut files = BTreeSet::new();
    gather(&toml::Value::Table(document), "", &mut files);
    let mut open = 0;
    for file in &files {
        let mode = std::fs::metadata(file).map_or(0, |m| m.permissions().mode() & 0o777);
        if mode & 0o077 != 0 {
            open += 1;
            let found =
                format!("its mode is {mode:o}: others than the agent can read or change it");
            report.advise("secrets", file, State::Note, found, "chmod 600");
        }
    }
    if open == 0 && !files.is_empty() {
        let found = format!("{} files, none that others can read", files.len());
        report.add("secrets", "", State::Whole, found);
    }
}

fn gather(value: &toml::Value, name: &str, files: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            if let (1, Some(toml::Value::String(file))) = (table.len(), table.get("file"))
                && !PUBLIC.contains(&name)
            {
                files.insert(file.clone());
            }
            for (name, value) in table {
                gather(value, name, files);
            }
        }
        toml::Value::Array(values) => values.iter().for_each(|v| gather(v, name, files)),
        _ => {}
    }
}
