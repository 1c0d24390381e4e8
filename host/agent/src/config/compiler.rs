//! `[compiler]`: what making native code of an adapter may cost, and whose is run that was made elsewhere.

use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use super::reader::{Reader, Section};
use super::schema;
use super::targets::public_key;

/// The least memory that a compiler can work with.
const LEAST_MEMORY: u64 = 16 * 1024 * 1024;

/// What making native code of an adapter may cost, and whose is run that was made elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompilerConfig {
    /// Address space of the compiler's process in bytes.
    pub memory: u64,
    /// Processor time; whole seconds.
    pub cpu: Duration,
    /// Time on the clock.
    pub time: Duration,
    /// Minisign public keys whose native code is run.
    pub trust: Vec<String>,
}

impl Default for CompilerConfig {
    fn default() -> Self {
        let reader = Reader::new(Path::new(""), "");
        read_section(&Section::new(
            &reader,
            &schema::COMPILER,
            String::new(),
            0..0,
            &DeTable::new(),
        ))
    }
}

pub(super) fn read(root: &Section<'_>) -> Option<CompilerConfig> {
    match root.get("compiler").map(|c| c.section(&schema::COMPILER)) {
        None => Some(CompilerConfig::default()),
        Some(section) => Some(read_section(&section?)),
    }
}

fn read_section(section: &Section<'_>) -> CompilerConfig {
    let memory = section.size("memory");
    if memory < LEAST_MEMORY
        && let Some(item) = section.get("memory")
    {
        item.fault(
            "no compiler can work with so little",
            "give at least 16MiB; a small adapter needs about 64MiB",
        );
    }
    let second = Duration::from_secs(1);
    CompilerConfig {
        memory,
        cpu: section.duration("cpu", second..=Duration::from_secs(3_600)),
        time: section.duration("time", second..=Duration::from_secs(86_400)),
        trust: section
            .get("trust")
            .and_then(|item| item.list())
            .unwrap_or_default()
            .iter()
            .filter_map(public_key)
            .collect(),
    }
}
