//! The device as it really is: clock, boot id, versions, probes and the reboot, by files and programs of the operator.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use otahost_core::model::{ClockQuality, Instant};
use otahost_flash::program::{self, Call, Limits};

use crate::config::{Ready, VersionSource};
use crate::platform::Outside;

/// Most bytes read of a version file.
const MAX_FILE: u64 = 64 * 1024;
/// Longest version.
const MAX_VERSION: usize = 200;
/// Nothing this agent is part of was built before: 2026-01-01.
const BUILD_FLOOR: Instant = 1_767_225_600_000;

/// What is asked of one target.
#[derive(Debug, Clone)]
pub struct TargetQuestions {
    /// Where its version is read.
    pub version: VersionSource,
    /// Program whose exit status 0 says that it is well.
    pub probe: Option<Vec<String>>,
    /// What says that it can be done without for the time of an update.
    pub ready: Option<Ready>,
    /// Files that forbid updates while they exist.
    pub lock: Vec<PathBuf>,
}

/// The real device.
#[derive(Debug)]
pub struct Device {
    boot_id: String,
    reboot: Vec<String>,
    targets: BTreeMap<String, TargetQuestions>,
}

/// Why the device cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the boot id cannot be read from {}: {reason}; `device.boot_id` names the file", path.display())]
pub struct BootIdError {
    path: PathBuf,
    reason: String,
}

impl Device {
    /// Reads the boot id, which stays the same as long as the process lives.
    pub fn new(
        boot_id: &Path,
        reboot: Vec<String>,
        targets: BTreeMap<String, TargetQuestions>,
    ) -> Result<Self, BootIdError> {
        let fault = |reason: String| BootIdError {
            path: boot_id.to_owned(),
            reason,
        };
        let id = read_short(boot_id)
            .map_err(|e| fault(e.to_string()))?
            .trim()
            .to_owned();
        if id.is_empty() || id.len() > 100 {
            return Err(fault("it is empty or longer than 100 bytes".into()));
        }
        Ok(Device {
            boot_id: id,
            reboot,
            targets,
        })
    }
}

/// How far the system's clock can be trusted.
pub(crate) fn clock_quality() -> ClockQuality {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // systemd-timesyncd and chrony's unit touch this when the clock was set from the network.
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        ClockQuality::Synced
    } else if now.as_millis() > u128::from(BUILD_FLOOR) {
        ClockQuality::Floor
    } else {
        ClockQuality::Unset
    }
}

impl Outside for Device {
    fn boot_id(&self) -> String {
        self.boot_id.clone()
    }

    fn now(&self) -> Instant {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(now.as_millis())
            .unwrap_or(u64::MAX)
            .max(BUILD_FLOOR)
    }

    fn clock(&self) -> ClockQuality {
        clock_quality()
    }

    fn uptime(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000
            + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
    }

    fn seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        // It only fails where the system has no random source at all; a step must not be refused for that.
        if aws_lc_rs::rand::fill(&mut seed).is_err() {
            tracing::error!("the system gives no random bytes");
        }
        seed
    }

    fn version(&self, target: &str) -> Result<String, String> {
        let questions = self
            .targets
            .get(target)
            .ok_or_else(|| format!("there is no target `{target}`"))?;
        let version = match &questions.version {
            VersionSource::File { file, key } => {
                let text =
                    read_short(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
                match key {
                    None => text.trim().to_owned(),
                    Some(key) => value_of(&text, key)
                        .ok_or_else(|| format!("{} has no line {key}=…", file.display()))?,
                }
            }
            VersionSource::Command(command) => ask(command, target)?.trim().to_owned(),
        };
        if version.is_empty()
            || version.len() > MAX_VERSION
            || version.chars().any(char::is_control)
        {
            return Err("what it reports is no version: it is empty, longer than 200 bytes, or has several lines".into());
        }
        Ok(version)
    }

    fn probe(&self, target: &str) -> Result<(), String> {
        match self.targets.get(target).and_then(|q| q.probe.as_ref()) {
            None => Ok(()),
            Some(command) => ask(command, target).map(|_| ()),
        }
    }

    fn locked(&self, target: &str) -> Option<String> {
        let lock = self
            .targets
            .get(target)?
            .lock
            .iter()
            .find(|file| file.exists())?;
        Some(lock.display().to_string())
    }

    fn ready(&self, target: &str) -> Result<(), String> {
        match self.targets.get(target).and_then(|q| q.ready.as_ref()) {
            None => Ok(()),
            Some(Ready::File(file)) if file.exists() => Ok(()),
            Some(Ready::File(file)) => Err(format!("{} does not exist", file.display())),
            Some(Ready::Command(command)) => ask(command, target).map(|_| ()),
        }
    }

    fn reboot(&self) -> Result<(), String> {
        run(&self.reboot).map(|_| ())
    }
}

/// `KEY=value` of a file like os-release: quotes around the value are taken off.
fn value_of(text: &str, key: &str) -> Option<String> {
    let value = text
        .lines()
        .find_map(|line| {
            line.trim()
                .strip_prefix(key)?
                .trim_start()
                .strip_prefix('=')
        })?
        .trim();
    let quoted = |q: char| value.strip_prefix(q).and_then(|v| v.strip_suffix(q));
    Some(
        quoted('"')
            .or_else(|| quoted('\''))
            .unwrap_or(value)
            .to_owned(),
    )
}

fn read_short(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(MAX_FILE)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Asks a program of the operator about a target, which it finds in its environment: one program may answer for many.
fn ask(command: &[String], target: &str) -> Result<String, String> {
    let call = Call {
        argv: command,
        arguments: &[],
        environment: &[("OTAHOST_TARGET", target)],
    };
    program::run_call(&call, Limits::default()).map_err(|error| error.to_string())
}

/// Runs a program of the operator to its end and gives what it printed.
fn run(command: &[String]) -> Result<String, String> {
    program::run(command, Limits::default()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn words(command: &[&str]) -> Vec<String> {
        command.iter().map(|w| (*w).to_owned()).collect()
    }

    /// A device with one target `t`, whose questions are answered by these shell scripts.
    fn device(version: &str, probe: &str, reboot: &str) -> Device {
        let dir = tempfile::tempdir().unwrap();
        let boot_id = dir.path().join("boot-id");
        std::fs::write(&boot_id, "b\n").unwrap();
        let shell = |script: &str| words(&["/bin/sh", "-c", script]);
        let questions = TargetQuestions {
            version: VersionSource::Command(shell(version)),
            probe: Some(shell(probe)),
            ready: None,
            lock: vec![],
        };
        let targets = [("t".to_owned(), questions)].into();
        Device::new(&boot_id, shell(reboot), targets).unwrap()
    }

    #[test]
    fn a_version_is_read_from_a_line_of_os_release() {
        let text = "NAME=\"x\"\nVERSION_ID_OLD=0\nVERSION_ID=\"1.2.0.69\"\n";
        assert_eq!(value_of(text, "VERSION_ID").unwrap(), "1.2.0.69");
        assert_eq!(value_of("V='a b'\n", "V").unwrap(), "a b");
        assert_eq!(value_of("V = 3\n", "V").unwrap(), "3");
        assert_eq!(value_of(text, "MISSING"), None);
    }

    #[test]
    fn a_version_of_several_lines_is_none() {
        let ask = |script: &str| device(script, "true", "true").version("t");
        assert_eq!(ask("echo 1.2").unwrap(), "1.2");
        assert!(ask("echo 1; echo 2").is_err());
        assert!(ask("true").is_err());
    }

    #[test]
    fn a_program_that_answers_for_many_targets_is_told_which_is_meant() {
        let script = "echo 1.2-$OTAHOST_TARGET";
        assert_eq!(
            device(script, "true", "true").version("t").unwrap(),
            "1.2-t"
        );
        let is_t = "test $OTAHOST_TARGET = t";
        assert_eq!(device("true", is_t, "true").probe("t"), Ok(()));
    }

    #[test]
    fn what_a_program_of_the_operator_complains_of_is_passed_on() {
        let failing = "echo no battery >&2; exit 3";
        let device = device(failing, failing, failing);
        for error in [
            device.version("t").unwrap_err(),
            device.probe("t").unwrap_err(),
            device.reboot().unwrap_err(),
        ] {
            assert!(
                error.contains("no battery") && error.contains('3'),
                "{error}"
            );
        }
    }

    /// What it leaves behind keeps its outputs open, and nobody waits for that.
    #[test]
    fn a_reboot_that_goes_on_in_the_background_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let go = dir.path().join("go");
        let script = format!("(until test -e {}; do sleep 0.05; done) &", go.display());
        device("true", "true", &script).reboot().unwrap();
        std::fs::write(&go, "").unwrap();
    }
}
