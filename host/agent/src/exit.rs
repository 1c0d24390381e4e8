//! What the process says when it ends: one table of exit codes for every command, so that scripts and service managers can tell
//! apart what they have to treat differently.

use std::fmt;

/// Why a command ended. The number is the exit code and never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Done as asked.
    Ok = 0,
    /// Anything that has no code of its own.
    Failure = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// The configuration has faults.
    Configuration = 3,
    /// No agent answers on the socket.
    Unreachable = 4,
    /// There is no such job, target, adapter or step.
    Unknown = 5,
    /// Refused: the target is busy, or policy or trust forbid it.
    Refused = 6,
    /// The update failed; what ran before still runs.
    UpdateFailed = 7,
    /// The new version did not prove itself; the old one runs again.
    RolledBack = 8,
    /// Past the point of no return.
    TooLate = 9,
    /// The update was cancelled.
    Cancelled = 10,
    /// The way back to the old version failed too.
    RollbackFailed = 11,
    /// A replay gave something else than what is on record.
    Differs = 12,
    /// Something that the agent keeps is not whole.
    NotWhole = 13,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Exit; 14] = [
        Exit::Ok,
        Exit::Failure,
        Exit::Usage,
        Exit::Configuration,
        Exit::Unreachable,
        Exit::Unknown,
        Exit::Refused,
        Exit::UpdateFailed,
        Exit::RolledBack,
        Exit::TooLate,
        Exit::Cancelled,
        Exit::RollbackFailed,
        Exit::Differs,
        Exit::NotWhole,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The word used in `--json` output.
    pub fn word(self) -> &'static str {
        match self {
            Exit::Ok => "ok",
            Exit::Failure => "failure",
            Exit::Usage => "usage",
            Exit::Configuration => "configuration",
            Exit::Unreachable => "unreachable",
            Exit::Unknown => "unknown",
            Exit::Refused => "refused",
            Exit::UpdateFailed => "update-failed",
            Exit::RolledBack => "rolled-back",
            Exit::TooLate => "too-late",
            Exit::Cancelled => "cancelled",
            Exit::RollbackFailed => "rollback-failed",
            Exit::Differs => "differs",
            Exit::NotWhole => "not-whole",
        }
    }

    /// What it means, in one line.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Ok => "done as asked",
            Exit::Failure => "failed for a reason that has no code of its own",
            Exit::Usage => "the command line cannot be understood",
            Exit::Configuration => "the configuration has faults; nothing was started",
            Exit::Unreachable => "no agent answers on the socket",
            Exit::Unknown => "there is no such job, target, adapter or step",
            Exit::Refused => "refused: the target is busy, or policy or trust forbid it",
            Exit::UpdateFailed => "the update failed; what ran before still runs",
            Exit::RolledBack => "the new version did not prove itself; the old one runs again",
            Exit::TooLate => "too late: past the point of no return",
            Exit::Cancelled => "the update was cancelled",
            Exit::Differs => "the replay gave something else than what is on record",
            Exit::NotWhole => "something that the agent keeps is not whole; `doctor` says what",
            Exit::RollbackFailed => "the way back to the old version failed; a person has to look",
        }
    }

    /// The table for `--help`.
    pub fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Exit::ALL {
            text.push_str(&format!(
                "  {:>2}  {:<16} {}\n",
                exit.code(),
                exit.word(),
                exit.meaning()
            ));
        }
        text
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit.code())
    }
}

/// An error that ends a command: what failed and why, what to do, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitError {
    /// The exit code.
    pub exit: Exit,
    /// What failed and why, outermost first.
    pub what: String,
    /// What to do about it; empty where nobody can say.
    pub advice: String,
}

impl ExitError {
    /// An error from its parts.
    pub fn new(exit: Exit, what: impl Into<String>, advice: impl Into<String>) -> Self {
        ExitError {
            exit,
            what: what.into(),
            advice: advice.into(),
        }
    }

    /// An error without a code of its own.
    pub fn failure(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Exit::Failure, what, advice)
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.advice.is_empty() {
            write!(f, "\n  help: {}", self.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for ExitError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_own_number_and_word_in_order() {
        for (i, exit) in Exit::ALL.iter().enumerate() {
            assert_eq!(usize::from(exit.code()), i);
            assert_eq!(
                Exit::ALL.iter().filter(|e| e.word() == exit.word()).count(),
                1
            );
        }
    }
}
