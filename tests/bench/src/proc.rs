//! What the kernel says of a process.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::Failed;

/// Every process of Linux counts its time in hundredths of a second (`USER_HZ`).
const TICK: f64 = 0.01;

/// A process that runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(pub(crate) u32);

/// Where its memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Resident: of what it has mapped, what is in memory.
    pub(crate) rss: u64,
    /// The same, with pages that several share divided between them.
    pub(crate) pss: u64,
    /// What no file stands behind.
    pub(crate) anonymous: u64,
}

impl Process {
    /// The one of this program whose command line has all of these words too.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn find(program: &Path, words: &[&str]) -> Result<Self, Failed> {
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            // Processes come and go meanwhile.
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mut found = line.split(|byte| *byte == 0);
            let is_program = found.next() == Some(program.as_os_str().as_bytes());
            let found: Vec<_> = found.collect();
            if is_program && words.iter().all(|word| found.contains(&word.as_bytes())) {
                return Ok(Process(id));
            }
        }
        Err(format!("no process runs with {}", words.join(" ")).into())
    }

    fn read(self, name: &str) -> Result<String, Failed> {
        let path = format!("/proc/{}/{name}", self.0);
        fs::read_to_string(&path).map_err(|e| format!("{path}: {e}").into())
    }

    /// Resident memory at its most.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn peak(self) -> Result<u64, Failed> {
        kib(&self.read("status")?, "VmHWM:")
    }

    /// Counts the peak anew from now on.
    ///
    /// # Errors
    /// When it is gone or somebody else's.
    pub(crate) fn forget_peak(self) -> Result<(), Failed> {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.0), "5")?)
    }

    /// Memory now.
    ///
    /// # Errors
    /// When it is gone or somebody else's.
    pub(crate) fn memory(self) -> Result<Memory, Failed> {
        memory(&self.read("smaps_rollup")?)
    }

    /// Seconds of the processor, with those of its children that have ended.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn cpu(self) -> Result<f64, Failed> {
        cpu(&self.read("stat")?)
    }

    /// Bytes it has written to files: what it gave to calls of `write`. With them come a few that are none: what wakes
    /// its threads, and what some sockets are given that way. Near nothing beside work; where little is written, strace counts (`rows/wear`).
    ///
    /// Not `write_bytes` of the same file: there the kernel counts the whole piece of its cache that a write makes dirty, and on file
    /// systems with large folios (Linux 6.16 for ext4) that is up to 2 MiB for each 4 KiB.
    ///
    /// # Errors
    /// When it is gone or somebody else's.
    pub(crate) fn written(self) -> Result<u64, Failed> {
        let text = self.read("io")?;
        let value = text.lines().find_map(|l| l.strip_prefix("wchar: "));
        Ok(value.ok_or("no wchar in io")?.trim().parse()?)
    }
}

/// Bytes that a line tells in KiB.
fn kib(text: &str, line: &str) -> Result<u64, Failed> {
    let value = text
        .lines()
        .find_map(|found| found.strip_prefix(line)?.trim().strip_suffix(" kB"));
    let value = value.ok_or_else(|| format!("no line {line}"))?;
    Ok(value.trim().parse::<u64>()? * 1024)
}

fn memory(rollup: &str) -> Result<Memory, Failed> {
    Ok(Memory {
        rss: kib(rollup, "Rss:")?,
        pss: kib(rollup, "Pss:")?,
        anonymous: kib(rollup, "Anonymous:")?,
    })
}

fn cpu(stat: &str) -> Result<f64, Failed> {
    // Behind the name, which may hold anything: state is the first, utime the 12th, then stime, cutime, cstime.
    let rest = stat.rsplit_once(") ").ok_or("no name in stat")?.1;
    let fields: Vec<&str> = rest.split(' ').collect();
    let times = fields.get(11..15).ok_or("stat is too short")?;
    let mut ticks = 0.0;
    for time in times {
        ticks += time.parse::<f64>()?;
    }
    Ok(ticks * TICK)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const ROLLUP: &str = "55e0-7ffc ---p 00000000 00:00 0    [rollup]\n\
        Rss:               27004 kB\nPss:               24011 kB\nPss_Dirty:          9100 kB\nPss_Anon:           9000 kB\n\
        Shared_Clean:       3500 kB\nAnonymous:          9004 kB\nSwap:                  0 kB\n";

    #[test]
    fn the_rollup_is_read_by_whole_names() {
        let found = memory(ROLLUP).unwrap();
        assert_eq!(
            (found.rss, found.pss, found.anonymous),
            (27_004 * 1024, 24_011 * 1024, 9_004 * 1024)
        );
    }

    #[test]
    fn a_rollup_without_a_line_is_an_error_and_no_zero() {
        let text = ROLLUP.replace("Anonymous:", "Other:");
        assert!(memory(&text).is_err());
        assert!(memory(&ROLLUP.replace("27004 kB", "many")).is_err());
    }

    #[test]
    fn the_times_of_a_process_count_its_ended_children_whatever_it_is_called() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 200 0 0 150 50 25 75 20 0 1 0 100 0 0";
        assert!((cpu(stat).unwrap() - 3.0).abs() < 1e-9);
        assert!(cpu("42 (a) S 1 2").is_err());
    }

    #[test]
    fn this_very_process_can_be_read() {
        let own = Process(std::process::id());
        assert!(own.memory().unwrap().rss > 0 && own.peak().unwrap() > 0);
        own.cpu().unwrap();
    }
}
