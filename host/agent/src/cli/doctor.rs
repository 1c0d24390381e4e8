//! `otahost doctor`: what is whole and what is not, for people.

use super::render::lines;
use super::words::{clean, count};
use crate::doctor::{Check, Report, State};

/// The table, and what to do.
pub(super) fn table(report: &Report) -> String {
    let row = |check: &Check| {
        let mark = match check.state {
            State::Whole => "ok",
            State::Note => "note",
            State::Broken => "BROKEN",
        };
        vec![
            mark.to_owned(),
            clean(&check.area),
            clean(&check.subject),
            clean(&check.found),
        ]
    };
    let rows: Vec<_> = report.checks.iter().map(row).collect();
    let mut text = lines(&rows).join("\n") + "\n";
    let mut advised = report.checks.iter().filter(|c| !c.advice.is_empty());
    let mut advised = advised.by_ref().peekable();
    if advised.peek().is_some() {
        text.push_str("what to do\n");
    }
    for check in advised {
        let about = format!("{} {}", clean(&check.area), clean(&check.subject));
        let line = format!("  - {}: {}\n", about.trim_end(), clean(&check.advice));
        text.push_str(&line);
    }
    text.push_str(&match report.count(State::Broken) {
        0 => "everything that was looked at is whole\n".to_owned(),
        n => format!("{} not whole\n", count(n, "thing is", "things are")),
    });
    text
}
