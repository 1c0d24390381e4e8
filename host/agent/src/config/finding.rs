//! What is wrong with a configuration, said so that an integrator can mend it: where, which key, what, and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::excerpt;

/// A position in the configuration file. Both count from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct Location {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The agent does not start.
    Error,
    /// The agent starts, but something will not work as it reads.
    Warning,
}

/// How much of the line may be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// The marked part as it is; other strings of the line are masked.
    Marked,
    /// The marked part, and nothing after it: what follows is a value nobody knows the meaning of.
    UpToMark,
    /// Only what stands before the mark, masked: the marked part is or may be a secret.
    BeforeMark,
}

/// One fault or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where; `None` when it concerns the file as a whole.
    pub at: Option<Location>,
    /// The key with its tables, as in `targets.dock.slots`; empty when it concerns the file.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub advice: String,
    /// Characters to mark; 0 marks one.
    pub(crate) width: u32,
    pub(crate) show: Show,
}

impl Finding {
    /// A fault: the agent does not start with it.
    pub fn error(
        at: Option<Location>,
        key: impl Into<String>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Finding {
            severity: Severity::Error,
            at,
            key: key.into(),
            what: what.into(),
            advice: advice.into(),
            width: 0,
            show: Show::Marked,
        }
    }

    /// A warning: the agent starts.
    pub fn warning(
        at: Option<Location>,
        key: impl Into<String>,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Finding {
            severity: Severity::Warning,
            ..Self::error(at, key, what, advice)
        }
    }

    /// True when the agent does not start with it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The findings about one file, with the file's text for the excerpts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The file.
    pub path: PathBuf,
    /// What was found, in the order of the file.
    pub findings: Vec<Finding>,
    text: String,
}

impl Faults {
    pub(super) fn new(path: &Path, text: &str, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|f| f.at);
        Faults {
            path: path.into(),
            findings,
            text: text.into(),
        }
    }

    /// Findings about a configuration that was read before; the excerpts come from the file as it is now, if it can be read.
    pub fn about(path: &Path, findings: Vec<Finding>) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self::new(path, &text, findings)
    }

    /// True when the agent does not start with these findings.
    pub fn any_error(&self) -> bool {
        self.findings.iter().any(Finding::is_error)
    }

    /// The findings as data: `{"file", "findings": [{"severity", "line", "column", "key", "what", "advice"}]}`. The file's text
    /// is not in it.
    pub fn to_json(&self) -> serde_json::Value {
        let findings: Vec<_> = self
            .findings
            .iter()
            .map(|f| {
                serde_json::json!({
                    "severity": f.severity,
                    "line": f.at.map(|at| at.line),
                    "column": f.at.map(|at| at.column),
                    "key": f.key,
                    "what": f.what,
                    "advice": f.advice,
                })
            })
            .collect();
        serde_json::json!({ "file": self.path.display().to_string(), "findings": findings })
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, finding) in self.findings.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let word = if finding.is_error() {
                "error"
            } else {
                "warning"
            };
            let key = match finding.what.split(' ').next() {
                _ if finding.key.is_empty() => String::new(),
                // The key is the subject of the sentence.
                Some(
                    "is" | "must" | "has" | "holds" | "names" | "contains" | "stands" | "belongs"
                    | "hangs",
                ) => {
                    format!("`{}` ", finding.key)
                }
                _ => format!("`{}`: ", finding.key),
            };
            writeln!(f, "{word}: {key}{}", finding.what)?;
            match finding.at {
                None => writeln!(f, " --> {}", self.path.display())?,
                Some(at) => {
                    let gutter = " ".repeat(at.line.to_string().len());
                    writeln!(f, "{gutter}--> {}:{at}", self.path.display())?;
                    if let Some(line) = self.text.lines().nth(at.line.saturating_sub(1) as usize) {
                        let (shown, marks) =
                            excerpt::mark(line, at.column, finding.width, finding.show);
                        writeln!(f, "{gutter} |\n{} | {shown}\n{gutter} | {marks}", at.line)?;
                    }
                }
            }
            if !finding.advice.is_empty() {
                writeln!(f, "   = help: {}", finding.advice)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
