//! The dead-man: brings the old version back when no agent lives to do it.
//!
//! A new version in which the agent does not come up confirms nothing and rolls nothing back. It runs on trial until somebody cuts
//! the power often enough; and a watchdog that only the agent feeds changes nothing, because nobody armed it. So a timer of the
//! system's runs this some time after the boot: while the slot that runs is on trial it reboots, and each boot takes one try, until
//! the boot loader goes back to the old version, whose agent reports it.
//!
//! It shares nothing with the agent but the boot selectors, which it only reads: no journal, no data directory, no adapter.

use std::fmt;
use std::sync::Arc;

use otahost_disk::{Disk, RealDisk};
use otahost_flash::program::{self, Limits};
use otahost_flash::{BootState, FlashError, SlotState};
use serde::Serialize;

use crate::assemble;
use crate::config::{BootConfig, Watched};
use crate::exit::{Exit, ExitError};

/// What the dead-man found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The device was asked to reboot.
    pub rebooting: bool,
    /// What runs without being confirmed.
    pub on_trial: Vec<Trial>,
}

/// A slot that runs without being confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// The target.
    pub target: String,
    /// The slot that runs.
    pub slot: String,
    /// Boots it has left.
    pub tries: u8,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for trial in &self.on_trial {
            writeln!(
                f,
                "{}: slot {} runs on trial and nobody confirmed it; boots left: {}",
                trial.target, trial.slot, trial.tries
            )?;
        }
        f.write_str(if self.rebooting {
            "asked for a reboot\n"
        } else {
            "nothing is on trial\n"
        })
    }
}

/// Looks at every boot selector, and asks for a reboot when a slot runs on trial that there is a good one behind.
///
/// # Errors
/// The reboot was not taken; or none was asked for, and a boot selector could not be read or had nothing good to go back to.
pub fn run(watched: &Watched) -> Result<Report, ExitError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::operator_only());
    let mut on_trial = Vec::new();
    let mut doubts = Vec::new();
    for (target, boot) in &watched.boots {
        let state = match read(&disk, boot) {
            Ok(state) => state,
            Err(error) => {
                doubts.push(format!("target `{target}`: {error}"));
                continue;
            }
        };
        let (slot, other) = (state.booted, state.booted.other());
        let SlotState::Trial { tries } = state.of(slot) else {
            continue;
        };
        if state.of(other) != SlotState::Good {
            // Its last try would be the device's last boot.
            doubts.push(format!(
                "target `{target}`: slot {slot} runs on trial, but the slot to go back to, {other}, is {}, not good",
                state.of(other)
            ));
            continue;
        }
        on_trial.push(Trial {
            target: target.clone(),
            slot: slot.to_string(),
            tries,
        });
    }
    for doubt in &doubts {
        tracing::warn!("{doubt}");
    }
    if !on_trial.is_empty() {
        program::run(&watched.reboot, Limits::default()).map_err(|error| {
            ExitError::failure(
                format!("a version that is not confirmed runs on, because the device cannot be rebooted: {error}"),
                "reboot it by hand, and mend `device.reboot`",
            )
        })?;
    } else if !doubts.is_empty() {
        return Err(ExitError::new(
            Exit::Failure,
            format!("cannot tell what runs on trial: {}", doubts.join("; ")),
            "`otahost status` shows the slots; mend the boot selector",
        ));
    }
    Ok(Report {
        rebooting: !on_trial.is_empty(),
        on_trial,
    })
}

fn read(disk: &Arc<dyn Disk>, boot: &BootConfig) -> Result<BootState, FlashError> {
    assemble::selector(Arc::clone(disk), boot)?.read()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::path::Path;

    use super::*;

    const GOOD: &str = r#"{"state":"good"}"#;
    const BAD: &str = r#"{"state":"bad"}"#;
    const TRIAL: &str = r#"{"state":"trial","tries":1}"#;

    fn selector(dir: &Path, name: &str, booted: &str, a: &str, b: &str) -> (String, BootConfig) {
        let path = dir.join(name);
        let state = format!(r#"{{"booted":"{booted}","primary":"b","slots":{{"a":{a},"b":{b}}}}}"#);
        std::fs::write(&path, state).unwrap();
        (name.to_owned(), BootConfig::File(path))
    }

    /// What it says, and how often it asked for a reboot.
    fn ask(dir: &Path, boots: Vec<(String, BootConfig)>) -> (Result<Report, ExitError>, usize) {
        let asked = dir.join("asked");
        let reboot = format!("echo >> {}", asked.display());
        let said = run(&Watched {
            reboot: ["/bin/sh", "-c", &reboot].map(str::to_owned).to_vec(),
            boots,
            faults: None,
        });
        (said, std::fs::read_to_string(asked).map_or(0, |t| t.len()))
    }

    #[test]
    fn only_a_slot_on_trial_that_runs_and_has_a_good_one_behind_it_is_rebooted() {
        for (booted, a, b, reboots) in [
            ("b", GOOD, TRIAL, true),
            ("b", GOOD, r#"{"state":"trial","tries":0}"#, true),
            // Confirmed; not booted yet; given up.
            ("b", GOOD, GOOD, false),
            ("a", GOOD, TRIAL, false),
            ("a", GOOD, BAD, false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let boots = vec![selector(dir.path(), "dock", booted, a, b)];
            let (said, asked) = ask(dir.path(), boots);
            let said = said.unwrap();
            assert_eq!((said.rebooting, asked), (reboots, usize::from(reboots)));
            assert_eq!(said.on_trial.len(), usize::from(reboots));
        }
    }

    #[test]
    fn nothing_is_rebooted_into_the_last_try_without_a_way_back() {
        for behind in [BAD, TRIAL] {
            let dir = tempfile::tempdir().unwrap();
            let boots = vec![selector(dir.path(), "dock", "b", behind, TRIAL)];
            let (said, asked) = ask(dir.path(), boots);
            let said = said.unwrap_err().to_string();
            assert!(
                said.contains("`dock`") && said.contains("go back"),
                "{said}"
            );
            assert_eq!(asked, 0);
        }
    }

    #[test]
    fn a_selector_that_cannot_be_read_is_an_error_and_does_not_hide_another() {
        let dir = tempfile::tempdir().unwrap();
        let gone = ("gone".to_owned(), BootConfig::File(dir.path().join("no")));
        let (said, asked) = ask(dir.path(), vec![gone.clone()]);
        assert!(said.unwrap_err().to_string().contains("`gone`"));
        assert_eq!(asked, 0);
        let trial = selector(dir.path(), "dock", "b", GOOD, TRIAL);
        let (said, asked) = ask(dir.path(), vec![gone, trial]);
        assert_eq!(
            (said.unwrap().on_trial[0].target.as_str(), asked),
            ("dock", 1)
        );
    }

    #[test]
    fn a_reboot_that_is_not_taken_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let said = run(&Watched {
            reboot: ["/bin/sh", "-c", "echo masked >&2; exit 1"]
                .map(str::to_owned)
                .to_vec(),
            boots: vec![selector(dir.path(), "dock", "b", GOOD, TRIAL)],
            faults: None,
        });
        assert!(said.unwrap_err().to_string().contains("masked"));
    }
}
