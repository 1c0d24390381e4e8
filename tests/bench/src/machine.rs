//! The machine that a run was made on: numbers without it say nothing.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::peers;

/// What is told of it.
#[derive(Debug)]
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory: String,
    system: String,
    disk: String,
    rustc: &'static str,
    peers: String,
    commit: String,
    date: String,
}

impl Machine {
    /// This one, now.
    pub(crate) fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let distribution = field(&release, "PRETTY_NAME", '=')
            .trim_matches('"')
            .to_owned();
        Machine {
            processor: field(&cpuinfo, "model name", ':'),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: memory(&field(&meminfo, "MemTotal", ':')),
            system: format!("{distribution}, Linux {}", kernel.trim()),
            disk: said(
                "findmnt",
                &[
                    "-no",
                    "FSTYPE,SOURCE",
                    "-T",
                    &std::env::temp_dir().display().to_string(),
                ],
            ),
            rustc: if cfg!(debug_assertions) {
                "development (ours at opt-level 1, dependencies at 3)"
            } else {
                "release"
            },
            peers: peers::versions(),
            commit: commit(),
            date: said("date", &["-u", "+%Y-%m-%d"]),
        }
    }

    /// In one paragraph.
    pub(crate) fn text(&self) -> String {
        format!(
            "{}, {} cores, {}; {}; temporary files on {}; profile: {}; beside {}; commit {}; {}",
            self.processor,
            self.cores,
            self.memory,
            self.system,
            self.disk,
            self.rustc,
            self.peers,
            self.commit,
            self.date
        )
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "processor": self.processor, "cores": self.cores, "memory": self.memory, "system": self.system, "disk": self.disk,
            "profile": self.rustc, "peers": self.peers, "commit": self.commit, "date": self.date,
        })
    }
}

/// The value of a line `name = value`.
fn field(text: &str, name: &str, separator: char) -> String {
    let value = text.lines().find_map(|line| {
        let (found, value) = line.split_once(separator)?;
        (found.trim() == name).then_some(value.trim())
    });
    value.unwrap_or("unknown").to_owned()
}

fn memory(kib: &str) -> String {
    let number = kib
        .strip_suffix(" kB")
        .and_then(|kib| kib.parse::<f64>().ok());
    number.map_or_else(
        || "unknown".to_owned(),
        |kib| format!("{:.1} GiB", kib / f64::from(1 << 20)),
    )
}

/// What a program says in one line.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        "unknown".to_owned()
    } else {
        words.join(" ")
    }
}

fn commit() -> String {
    let commit = said("git", &["rev-parse", "--short", "HEAD"]);
    let changed = said("git", &["status", "--porcelain", "--untracked-files=no"]);
    if commit == "unknown" || changed == "unknown" {
        commit
    } else {
        format!("{commit} with changes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "MemTotalX: 1 kB\nMemTotal:       2097152 kB\n";
        assert_eq!(field(text, "MemTotal", ':'), "2097152 kB");
        assert_eq!(memory(&field(text, "MemTotal", ':')), "2.0 GiB");
        assert_eq!(memory(&field(text, "Mem", ':')), "unknown");
    }
}
