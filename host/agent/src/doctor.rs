//! `otahost doctor`: is what the agent keeps whole?
//!
//! For the person at a device that does not do what it should, and for a factory before a device leaves it. It looks at everything the
//! agent would have to believe after a start, with the code that would read it then, and never changes a byte: the journal is copied into
//! memory, and nothing is locked. Beside an agent at work it asks that one for what only it can tell.

mod kept;
mod slots;

use std::path::Path;

use otahost_core::model::ClockQuality;
use otahost_disk::{Disk, Place, RealDisk};
use otahost_journal::{Journal, JournalError};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Client, Reply, Request, StatusView};
use crate::config::Config;
use crate::engine::{Contents, inspect};
use crate::outside::clock_quality;

/// The journal's file.
const JOURNAL: &str = "journal.redb";
/// Less free space than this keeps the agent from making a journal anew, or from keeping another version of an adapter.
const LITTLE: u64 = 16 << 20;

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Whole,
    /// Worth knowing, and no damage.
    Note,
    /// Damaged, missing, or in contradiction to something else.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Where it belongs: `agent`, `disk`, `journal`, `jobs`, `slots`, `staged`, `adapters`, `cache`, `repositories`, `secrets`, `clock`.
    pub area: String,
    /// Which one: a target, a file; empty where there is only one.
    pub subject: String,
    /// How it was found.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do; empty when nothing is to be done.
    pub advice: String,
}

/// Everything that was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of looking.
    pub checks: Vec<Check>,
}

impl Report {
    /// Nothing is broken.
    pub fn is_whole(&self) -> bool {
        self.count(State::Broken) == 0
    }

    /// How many were found so.
    pub fn count(&self, state: State) -> usize {
        let so = |check: &&Check| check.state == state;
        self.checks.iter().filter(so).count()
    }

    /// For programs: `{"ok": true, "checks": [{"area": …, "subject": …, "state": "whole" | "note" | "broken", "found": …, "advice": …}]}`.
    pub fn to_json(&self) -> Value {
        json!({ "ok": self.is_whole(), "checks": self.checks })
    }

    /// Whoever looks at a device needs the path, and not our word for it.
    fn name_the_directory(&mut self, data_dir: &Path) {
        let path = data_dir.display().to_string();
        for check in &mut self.checks {
            for text in [&mut check.found, &mut check.advice] {
                *text = text.replace("{data}", &path);
            }
        }
    }

    fn add(&mut self, area: &str, subject: &str, state: State, found: impl Into<String>) {
        self.advise(area, subject, state, found, "");
    }

    fn advise(
        &mut self,
        area: &str,
        subject: &str,
        state: State,
        found: impl Into<String>,
        advice: &str,
    ) {
        self.checks.push(Check {
            area: area.to_owned(),
            subject: subject.to_owned(),
            state,
            found: found.into(),
            advice: advice.to_owned(),
        });
    }
}

/// Looks at everything. `agent` is asked when it answers.
pub fn examine(config: &Config, agent: &Client) -> Report {
    let mut report = Report::default();
    let data_dir = &config.device.data_dir;
    let status = match agent.ask(&Request::Status) {
        Ok(Reply::Status(status)) => Some(status),
        _ => None,
    };
    let status = status.as_deref();
    let in_use = RealDisk::is_in_use(data_dir);
    who_runs(&mut report, status, in_use);
    let disk = match RealDisk::to_look_at(data_dir) {
        Ok(disk) => disk,
        Err(error) => {
            let advice =
                "is its file system mounted? The agent makes the directory at its first start";
            report.advise("disk", "", State::Broken, error.to_string(), advice);
            return report;
        }
    };
    space(&mut report, &disk, data_dir);
    let contents = journal(&mut report, &disk, data_dir, status);
    slots::look(&mut report, config, contents.as_ref(), in_use);
    kept::components(&mut report, &disk, contents.as_ref());
    kept::cache(&mut report, &disk);
    kept::repositories(&mut report, &disk, config);
    kept::secrets(&mut report, config);
    clock(&mut report, status);
    report.name_the_directory(data_dir);
    report
}

fn who_runs(report: &mut Report, status: Option<&StatusView>, in_use: bool) {
    match status {
        Some(status) if status.safe_mode => report.advise(
            "agent",
            "",
            State::Note,
            "runs in safe mode: no adapter runs",
            "`otahost status` says why",
        ),
        Some(status) => {
            let found = format!("otahost {} runs and answers", status.version);
            report.add("agent", "", State::Whole, found);
        }
        None if in_use => report.advise(
            "agent",
            "",
            State::Broken,
            "one has the data directory and does not answer",
            "it is starting, or hangs: look at its log, then ask again",
        ),
        None => report.add("agent", "", State::Note, "none runs"),
    }
}

fn space(report: &mut Report, disk: &dyn Disk, data_dir: &Path) {
    let subject = data_dir.display().to_string();
    match disk.free_space(&Place::data("")) {
        Ok(Some(free)) if free < LITTLE => {
            let needed = (LITTLE - free).div_ceil(1 << 20);
            let advice = format!("free {needed} MiB more on its file system");
            let found = format!("only {} MiB are free", free >> 20);
            report.advise("disk", &subject, State::Broken, found, &advice);
        }
        Ok(Some(free)) => {
            let found = format!("{} MiB are free", free >> 20);
            report.add("disk", &subject, State::Whole, found);
        }
        Ok(None) => {}
        Err(error) => report.add("disk", &subject, State::Broken, error.to_string()),
    }
    if is_read_only(data_dir) {
        let advice = "make it writable again; the system's log says why it is not";
        report.advise(
            "disk",
            &subject,
            State::Broken,
            "its file system is read-only",
            advice,
        );
    }
}

/// Whether the file system of a directory takes no writes. One that the kernel has made read-only because it found an error does not
/// always say so with the flag of a mount, but always in the list of them.
fn is_read_only(directory: &Path) -> bool {
    let flagged = rustix::fs::statvfs(directory)
        .is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = directory.canonicalize();
    flagged || path.is_ok_and(|path| mounted_read_only(&mounts, &path))
}

/// The same by the list of mounts: of those a path is below, the last of the deepest ones counts.
fn mounted_read_only(mounts: &str, path: &Path) -> bool {
    const STOPPED: [&str; 3] = ["ro", "emergency_ro", "shutdown"];
    let options = mounts.lines().filter_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        // Spaces and the like are written in octal there.
        let point = mount.next()?.replace("\\040", " ");
        let mut options = mount
            .next()?
            .split(',')
            .chain(system.split(' ').nth(2)?.split(','));
        let depth = Path::new(&point).components().count();
        path.starts_with(&point)
            .then(|| (depth, options.any(|option| STOPPED.contains(&option))))
    });
    options
        .max_by_key(|(depth, _)| *depth)
        .is_some_and(|(_, stopped)| stopped)
}

/// What the journal holds, where it could be read.
fn journal(
    report: &mut Report,
    disk: &RealDisk,
    data_dir: &Path,
    status: Option<&StatusView>,
) -> Option<Contents> {
    let place = Place::data(JOURNAL);
    let damaged = place.with_suffix(".damaged");
    if matches!(disk.kind(&damaged), Ok(Some(_))) {
        report.advise(
            "journal",
            "journal.redb.damaged",
            State::Note,
            "is there: a journal was damaged once and replaced",
            "look at the medium; when that is settled, take the file away",
        );
    }
    match status.map(|status| &status.journal.missing) {
        Some(Some(missing)) => report.add("journal", "", State::Broken, missing.clone()),
        Some(None) => report.add(
            "journal",
            "",
            State::Whole,
            "the agent has it open, and found every page whole at its start",
        ),
        None => {}
    }
    let looked = Journal::copy_of(disk, &place).and_then(|journal| journal.load());
    // Beside an agent at work the file may have been seen in the middle of a change.
    let at_work = RealDisk::is_in_use(data_dir);
    match looked {
        Ok(rows) => {
            let contents = inspect(&rows);
            if status.is_none() {
                let kinds = contents.kinds.iter();
                let kinds: Vec<String> = kinds.map(|(kind, n)| format!("{kind} {n}")).collect();
                let found = match kinds.as_slice() {
                    [] => "every page is whole, and nothing is in it".to_owned(),
                    kinds => format!("every page is whole; rows in it: {}", kinds.join(", ")),
                };
                report.add("journal", "", State::Whole, found);
            }
            for fault in &contents.faults {
                let advice = "the agent passes it over and keeps it; it comes from another version of the agent, or is damaged";
                report.advise("journal", "", State::Broken, fault.clone(), advice);
            }
            jobs(report, &contents);
            Some(contents)
        }
        Err(_) if at_work => None,
        Err(JournalError::Open { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            report.add("journal", "", State::Note, "there is none yet");
            Some(Contents::default())
        }
        Err(error @ JournalError::Corrupt { .. }) => {
            let rows = Journal::readable_rows(disk, &place).unwrap_or(0);
            let found = format!("{error}; {rows} rows of it can be read");
            let advice = "at its start the agent puts the file aside and goes on with what can be read; look at the medium, and copy the \
                          file before if it matters";
            report.advise("journal", "", State::Broken, found, advice);
            None
        }
        Err(error) => {
            let needs = error.needs(disk.free_space(&place).ok().flatten());
            report.advise("journal", "", State::Broken, error.to_string(), &needs);
            None
        }
    }
}

/// Whether the jobs make sense.
fn jobs(report: &mut Report, contents: &Contents) {
    let is_active = |job: &&otahost_core::job::Job| !job.phase.is_final();
    let active: Vec<_> = contents.jobs.iter().filter(is_active).collect();
    let mut faults = Vec::new();
    for job in &contents.jobs {
        let parts = job.installs.len();
        if parts != job.plan.installs.len() || job.current >= parts.max(1) {
            faults.push((&job.plan.key, "its parts do not belong together"));
        }
    }
    for (index, job) in active.iter().enumerate() {
        let mut earlier = active[..index].iter();
        if earlier.any(|other| other.targets().any(|t| job.targets().any(|own| own == t))) {
            faults.push((&job.plan.key, "another job is at work on the same target"));
        }
    }
    if faults.is_empty() {
        let all = contents.jobs.len();
        let found = format!("{all} remembered, {} of them under way", active.len());
        report.add("jobs", "", State::Whole, found);
    }
    for (key, fault) in faults {
        let advice = "`otahost cancel` ends it; have the update asked for again";
        report.advise("jobs", key, State::Broken, fault, advice);
    }
}

fn clock(report: &mut Report, status: Option<&StatusView>) {
    match status.map_or_else(clock_quality, |status| status.clock) {
        ClockQuality::Synced => report.add("clock", "", State::Whole, "set from the network"),
        ClockQuality::Floor => report.advise(
            "clock",
            "",
            State::Note,
            "plausible, but nobody says that it was set",
            "maintenance windows wait for a clock that was set: let the device reach its time server",
        ),
        ClockQuality::Unset => report.advise(
            "clock",
            "",
            State::Broken,
            "not set",
            "let the device reach its time server: without the time no certificate can be checked and no window opens",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 8:2 / /var ro,relatime - ext4 /dev/sda2 rw
31 30 7:0 / /var/lib rw,relatime - ext4 /dev/sda3 rw,errors=remount-ro
32 31 7:0 / /var/lib/otahost rw,relatime - ext4 /dev/loop0 rw,abort,errors=remount-ro,emergency_ro
33 22 8:3 / /my\\040disk rw - vfat /dev/sdb1 ro
34 22 8:4 / /mnt ro - ext4 /dev/sdc1 ro
35 34 8:5 / /mnt rw - ext4 /dev/sdc2 rw
";

    #[test]
    fn a_file_system_that_takes_no_writes_is_known_by_the_list_of_mounts() {
        let is = |path: &str| mounted_read_only(MOUNTS, Path::new(path));
        for path in [
            "/var/log",
            "/var/lib/otahost",
            "/var/lib/otahost/x",
            "/my disk/data",
        ] {
            assert!(is(path), "{path}");
        }
        for path in [
            "/etc",
            "/variant",
            "/var/lib",
            "/var/lib/otahost-2",
            "/mnt/data",
        ] {
            assert!(!is(path), "{path}");
        }
        assert!(!mounted_read_only("no list", Path::new("/etc")));
    }
}
