//! Unpacking in a process of its own, for builds in which a panic cannot be caught.
//!
//! A decoder works on files that somebody else made. Should one give up by a panic after all, the archive is to blame, and the agent has
//! to go on. A build with `panic = "abort"`, made for devices with little room, cannot catch it; so there the agent starts its own
//! executable once more, which unpacks, says how far it is, and ends.

use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use otahost_disk::{Place, RealDisk};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::{Archive, ArchiveLimits, ArchiveSetup, UNPACK};
use crate::program::{self, Call, Follower, ProgramError};
use crate::{FlashError, Progress, Work};

/// Longer than any medium takes; whoever stops the work stops the process.
const TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Most lines of its standard error that go into the log.
const MAX_LOG: usize = 20;

/// Words of the lines that it says.
const PERCENT: &str = "percent";
const DONE: &str = "done";
const REFUSED: &str = "refused";
const NO_SPACE: &str = "no-space";
const FAILED: &str = "failed";

static PROGRAM: OnceLock<Vec<String>> = OnceLock::new();

/// Has every archive below one of the operator's paths unpacked by this program from now on: the agent's own executable, with the
/// argument that makes it call [`child_main`] with those that follow. The first call counts.
pub fn unpack_in_child(program: Vec<String>) {
    let _ = PROGRAM.set(program);
}

pub(super) fn program() -> Option<&'static [String]> {
    PROGRAM.get().map(Vec::as_slice)
}

/// Unpacks by a process what is staged there.
pub(super) fn unpack(
    program: &[String],
    staging: &Place,
    into: &str,
    (limits, share): (ArchiveLimits, u8),
    work: &Work<'_>,
) -> Result<(), FlashError> {
    let numbers = [
        limits.entries.to_string(),
        limits.unpacked.to_string(),
        limits.ratio.to_string(),
        limits.depth.to_string(),
        share.to_string(),
        std::process::id().to_string(),
    ];
    let directory = staging.path().to_string_lossy();
    let mut arguments = vec![directory.as_ref(), into];
    arguments.extend(numbers.iter().map(String::as_str));
    let call = Call {
        argv: program,
        arguments: &arguments,
        environment: &[],
    };
    let mut followed = Followed {
        work,
        verdict: None,
        logged: 0,
    };
    let ended = program::follow(&call, TIME, &mut followed);
    match (ended, followed.verdict) {
        (Err(ProgramError::Stopped { .. }), _) => Err(FlashError::Stopped),
        (Ok(()), Some(verdict)) => verdict,
        // By a signal of its own making: a panic, or worse.
        (Err(ProgramError::Failed { status, .. }), _)
            if status
                .signal()
                .and_then(Signal::from_named_raw)
                .is_some_and(is_fault) =>
        {
            Err(super::gave_up())
        }
        (Ok(()), None) => Err(FlashError::Io(
            "the process that unpacks ended without a word; was the agent's executable replaced?"
                .into(),
        )),
        (Err(error), _) => Err(FlashError::Io(format!(
            "cannot unpack in a process: {error}"
        ))),
    }
}

fn is_fault(signal: Signal) -> bool {
    [
        Signal::ABORT,
        Signal::SEGV,
        Signal::BUS,
        Signal::ILL,
        Signal::TRAP,
        Signal::FPE,
    ]
    .contains(&signal)
}

/// Reads what the process says.
struct Followed<'a> {
    work: &'a Work<'a>,
    verdict: Option<Result<(), FlashError>>,
    logged: usize,
}

impl Follower for Followed<'_> {
    fn line(&mut self, line: &str, is_error: bool) {
        if is_error {
            if self.logged < MAX_LOG {
                self.work.progress.log(&one_line(line));
            }
            self.logged += 1;
            return;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            PERCENT => {
                if let Ok(percent) = rest.parse::<u8>() {
                    self.work.progress.at(UNPACK, percent.min(100), None);
                }
            }
            DONE => self.verdict = Some(Ok(())),
            REFUSED => self.verdict = Some(Err(FlashError::Refused(rest.into()))),
            NO_SPACE => self.verdict = Some(Err(FlashError::NoSpace(rest.into()))),
            FAILED => self.verdict = Some(Err(FlashError::Io(rest.into()))),
            _ => {}
        }
    }

    fn is_stopped(&mut self) -> bool {
        self.work.progress.is_stopped()
    }
}

/// Nothing that ends the line, or moves the cursor of whoever reads the log.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// All of the process that unpacks: its arguments are those of the agent that started it, which reads what it writes. It ends with the
/// agent. False when it was not called by one.
pub fn child_main(arguments: &[String], say: &(dyn Fn(&str) + Sync)) -> bool {
    let Some((directory, into, limits, share, agent)) = read(arguments) else {
        return false;
    };
    // A dead agent's successor unpacks into the same place.
    let orphaned = || getppid() != Some(agent);
    if orphaned() || set_parent_process_death_signal(Some(Signal::KILL)).is_err() || orphaned() {
        return false;
    }
    let setup = ArchiveSetup {
        directory: Place::operator(directory),
        deliver: None,
        limits,
    };
    let archive = Archive::new(Arc::new(RealDisk::operator_only()), setup);
    let work = Work {
        target: "",
        version: "",
        old_version: None,
        progress: &Saying {
            say,
            last: AtomicU8::new(u8::MAX),
        },
    };
    let unpacked = archive
        .staging
        .open()
        .and_then(|disk| archive.unpack_here(disk.as_ref(), into, share, &work));
    let told = |word: &str, text: &dyn std::fmt::Display| {
        say(&format!("{word} {}", one_line(&text.to_string())));
    };
    match &unpacked {
        Ok(()) => say(DONE),
        Err(FlashError::Refused(text)) => told(REFUSED, text),
        Err(FlashError::NoSpace(text)) => told(NO_SPACE, text),
        Err(error) => told(FAILED, error),
    }
    true
}

fn read(arguments: &[String]) -> Option<(&str, &str, ArchiveLimits, u8, Pid)> {
    let [
        directory,
        into,
        entries,
        unpacked,
        ratio,
        depth,
        share,
        agent,
    ] = arguments
    else {
        return None;
    };
    let limits = ArchiveLimits {
        entries: entries.parse().ok()?,
        unpacked: unpacked.parse().ok()?,
        ratio: ratio.parse().ok()?,
        depth: depth.parse().ok()?,
    };
    let agent = Pid::from_raw(agent.parse().ok()?)?;
    Some((directory, into, limits, share.parse().ok()?, agent))
}

struct Saying<'a> {
    say: &'a (dyn Fn(&str) + Sync),
    /// Said once, not with every piece.
    last: AtomicU8,
}

impl Progress for Saying<'_> {
    fn at(&self, _stage: &str, percent: u8, _device: Option<&str>) {
        if self.last.swap(percent, Ordering::Relaxed) != percent {
            (self.say)(&format!("{PERCENT} {percent}"));
        }
    }

    fn log(&self, line: &str) {
        eprintln!("{line}");
    }

    /// Who stops it ends the process.
    fn is_stopped(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard {
        percents: Mutex<Vec<u8>>,
        stopped: bool,
    }

    impl Progress for Heard {
        fn at(&self, stage: &str, percent: u8, device: Option<&str>) {
            assert_eq!((stage, device), (UNPACK, None));
            self.percents.lock().unwrap().push(percent);
        }
        fn log(&self, _line: &str) {}
        fn is_stopped(&self) -> bool {
            self.stopped
        }
    }

    /// What becomes of an archive when the process that unpacks is this script.
    fn by(script: &str, heard: &Heard) -> Result<(), FlashError> {
        let program = ["/bin/sh", "-c", script].map(str::to_owned);
        let work = Work {
            target: "emu",
            version: "2",
            old_version: None,
            progress: heard,
        };
        let limits = (ArchiveLimits::default(), 50);
        unpack(&program, &Place::operator("/nowhere"), "a", limits, &work)
    }

    #[test]
    fn a_process_that_unpacked_says_so_and_how_far_it_was() {
        let heard = Heard::default();
        by("echo percent 20; echo percent 50; echo done", &heard).unwrap();
        assert_eq!(*heard.percents.lock().unwrap(), [20, 50]);
    }

    #[test]
    fn a_decoder_that_gives_up_is_the_archives_fault() {
        for signal in ["ABRT", "SEGV"] {
            let fault = by(&format!("kill -{signal} $$"), &Heard::default()).unwrap_err();
            assert!(
                matches!(&fault, FlashError::Refused(text) if text.contains("gave up")),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn a_process_that_is_killed_or_says_nothing_is_not() {
        for script in ["kill -KILL $$", "exit 0", "exit 1"] {
            let fault = by(script, &Heard::default()).unwrap_err();
            assert!(matches!(fault, FlashError::Io(_)), "{script}: {fault:?}");
        }
    }

    #[test]
    fn its_verdict_keeps_its_kind_and_its_words() {
        let verdict = |script: &str| by(script, &Heard::default()).unwrap_err();
        assert_eq!(
            verdict("echo 'refused it holds nothing'"),
            FlashError::Refused("it holds nothing".into())
        );
        assert_eq!(
            verdict("echo 'no-space the disk is full'"),
            FlashError::NoSpace("the disk is full".into())
        );
    }

    #[test]
    fn who_stops_the_work_stops_the_process() {
        let heard = Heard {
            stopped: true,
            ..Heard::default()
        };
        assert_eq!(by("exec sleep 600", &heard), Err(FlashError::Stopped));
    }

    #[test]
    fn without_an_agent_it_does_nothing() {
        let arguments = ["/nowhere", "a", "1", "1", "1", "1", "50", "1"].map(str::to_owned);
        assert!(!child_main(&arguments[..7], &|_| panic!("said something")));
        assert!(!child_main(&arguments, &|_| panic!("said something")));
    }
}
