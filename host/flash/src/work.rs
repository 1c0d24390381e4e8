//! What a flasher is told about the work it does, and how it tells what it does.

use std::fmt;

/// Follows work that takes a while.
pub trait Progress: Send + Sync {
    /// So far of what it was told to do, 0 to 100, is done; `stage` says in a word what is being done, `device` on what where it is
    /// one of several.
    fn at(&self, stage: &str, percent: u8, device: Option<&str>);
    /// A line for the log: something a program said.
    fn log(&self, line: &str);
    /// True when the work has to stop. Asked often; once it is true it stays so.
    fn is_stopped(&self) -> bool;
}

/// What work is done for, and who follows it.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Id of the target.
    pub target: &'a str,
    /// The version that is installed; empty where nobody named it.
    pub version: &'a str,
    /// The version that ran before, where it is known.
    pub old_version: Option<&'a str>,
    /// Who follows it.
    pub progress: &'a dyn Progress,
}

impl fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("target", &self.target)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Work<'static> {
    /// Work that nobody follows.
    pub fn quiet() -> Self {
        Work {
            target: "",
            version: "",
            old_version: None,
            progress: &Quiet,
        }
    }
}

/// Follows nothing and never stops.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn at(&self, _stage: &str, _percent: u8, _device: Option<&str>) {}
    fn log(&self, _line: &str) {}
    fn is_stopped(&self) -> bool {
        false
    }
}
