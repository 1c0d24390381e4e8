//! A program of the operator's that hands a payload over or installs it: how it is called, and how it reports.

use std::time::Duration;

use serde::Deserialize;

use crate::Work;
use crate::program::{self, Call, Follower, ProgramError};

/// Most bytes of one run's output that go into the log.
const MAX_LOG: usize = 16 * 1024;
/// Longest word for a stage or a device.
const MAX_WORD: usize = 100;

/// A program of the operator's and the time it may take.
///
/// It is called with three further arguments: the path of what is to be installed, the id of the target, and the version. The same is in
/// its environment as `OTAHOST_ARTIFACT`, `OTAHOST_TARGET` and `OTAHOST_VERSION`, with `OTAHOST_OLD_VERSION` where that is known.
///
/// A line on its standard output that is a JSON object reports progress: `{"stage": "writing", "percent": 40, "device": "board 2"}`, each
/// of the three optional, others passed over. Everything else it says goes into the log, within limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Program and first arguments.
    pub command: Vec<String>,
    /// After so long it is killed, with all it started.
    pub timeout: Duration,
}

impl Program {
    /// Runs it to its end. What it reports is so much of the whole: from `done` to 100.
    pub(crate) fn run(&self, path: &str, work: &Work<'_>, done: u8) -> Result<(), ProgramError> {
        let arguments = [path, work.target, work.version];
        let mut environment = vec![
            ("OTAHOST_ARTIFACT", path),
            ("OTAHOST_TARGET", work.target),
            ("OTAHOST_VERSION", work.version),
        ];
        environment.extend(work.old_version.map(|old| ("OTAHOST_OLD_VERSION", old)));
        let call = Call {
            argv: &self.command,
            arguments: &arguments,
            environment: &environment,
        };
        let mut reader = Reader {
            work,
            done,
            percent: done,
            logged: 0,
        };
        program::follow(&call, self.timeout, &mut reader)
    }
}

/// What a line of progress may hold.
#[derive(Debug, Deserialize)]
struct Report {
    stage: Option<String>,
    percent: Option<f64>,
    device: Option<String>,
}

/// Reads what the program says.
struct Reader<'a> {
    work: &'a Work<'a>,
    done: u8,
    percent: u8,
    logged: usize,
}

impl Reader<'_> {
    fn report(&mut self, report: &Report) {
        if let Some(percent) = report.percent.filter(|percent| percent.is_finite()) {
            let share = f64::from(100 - self.done) * percent.clamp(0.0, 100.0) / 100.0;
            // Within 0 to 100 by what was clamped.
            self.percent = self.done + share as u8;
        }
        let stage = report.stage.as_deref().map(word).unwrap_or_default();
        let device = report.device.as_deref().map(word);
        self.work
            .progress
            .at(&stage, self.percent, device.as_deref());
    }

    fn log(&mut self, line: &str) {
        if line.trim().is_empty() || self.logged > MAX_LOG {
            return;
        }
        self.logged += line.len() + 1;
        if self.logged > MAX_LOG {
            self.work
                .progress
                .log("it says more than is kept; the rest is left out");
            return;
        }
        // Nothing that moves the cursor of whoever reads the log.
        self.work.progress.log(&line.replace(char::is_control, " "));
    }
}

impl Follower for Reader<'_> {
    fn line(&mut self, line: &str, is_error: bool) {
        let report = Some(line.trim())
            .filter(|line| !is_error && line.starts_with('{'))
            .and_then(|line| serde_json::from_str::<Report>(line).ok());
        match report {
            Some(report) => self.report(&report),
            None => self.log(line),
        }
    }

    fn is_stopped(&mut self) -> bool {
        self.work.progress.is_stopped()
    }
}

/// A word as a program may give it, fit for a log.
fn word(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_WORD)
        .collect()
}
