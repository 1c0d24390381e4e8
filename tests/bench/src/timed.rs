//! What a program costs: time, time of the processor, memory at its most.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::table::Missing;

/// GNU time, which tells what the kernel counted for a process and its children.
const TIME: &str = "/usr/bin/time";

/// What a run cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    /// Seconds from start to end.
    pub(crate) seconds: f64,
    /// Seconds of the processor, user and system.
    pub(crate) cpu: f64,
    /// Resident bytes at the most, of its largest process.
    pub(crate) peak: f64,
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started or fails: with the last lines of what it said.
pub(crate) fn run(
    program: &Path,
    arguments: &[&str],
    in_dir: &Path,
) -> Result<(Cost, String), Missing> {
    let report = in_dir.join("time.txt");
    if !Path::new(TIME).is_file() {
        return Err(Missing::Absent(format!(
            "{TIME} is not installed; `cargo xtask bench` installs it"
        )));
    }
    let start = Instant::now();
    let output = Command::new(TIME)
        .args(["--quiet", "-f", "%U %S %M", "-o"])
        .arg(&report)
        .arg(program)
        .args(arguments)
        .current_dir(in_dir)
        .output();
    let output = output.map_err(|e| Missing::Failed(format!("{TIME} does not start: {e}")))?;
    let seconds = start.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let words = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
        return Err(Missing::Failed(format!(
            "{} ended with {}: {}",
            program.display(),
            output.status,
            last_lines(&words)
        )));
    }
    let text = fs::read_to_string(&report)
        .map_err(|e| Missing::Failed(format!("{}: {e}", report.display())))?;
    let (cpu, peak) =
        read(&text).ok_or_else(|| Missing::Failed(format!("{TIME} says {text:?}")))?;
    Ok((Cost { seconds, cpu, peak }, said))
}

/// Seconds of the processor and bytes, from the report.
fn read(report: &str) -> Option<(f64, f64)> {
    let mut words = report.lines().last()?.split(' ');
    let mut next = || words.next()?.parse::<f64>().ok();
    let (user, system, kib) = (next()?, next()?, next()?);
    Some((user + system, kib * 1024.0))
}

/// Enough to see why something failed.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_report_is_the_last_line() {
        assert_eq!(
            read("Command was noisy\n1.50 0.25 2048\n"),
            Some((1.75, 2_097_152.0))
        );
        assert_eq!(read(""), None);
        assert_eq!(read("1.5 x 3"), None);
    }
}
