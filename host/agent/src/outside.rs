//! The device as it really is: clock, boot id, versions, probes and the reboot, by files and programs of the operator.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use otahost_core::model::{ClockQuality, Instant};

use crate::config::VersionSource;
use crate::platform::Outside;

/// Time a program of the operator has.
const PROGRAM_TIME: Duration = Duration::from_secs(30);
/// Most bytes read of a version file or of a program's output.
const MAX_OUTPUT: u64 = 64 * 1024;
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
            VersionSource::Command(command) => run(command)?.trim().to_owned(),
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
            Some(command) => run(command).map(|_| ()),
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
        .take(MAX_OUTPUT)
        .read_to_string(&mut text)?;
    Ok(text)
}

struct Words<'a>(&'a [String]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// Runs a program of the operator to its end and gives what it printed. It gets no input; one that takes longer than 30 s is killed.
fn run(command: &[String]) -> Result<String, String> {
    let shown = Words(command);
    let (program, arguments) = command.split_first().ok_or("the command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run `{shown}`: {e}"))?;
    let reader = |pipe: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(pipe) = pipe {
                // A program that prints without end is stopped by its time, not by our memory.
                let _ = pipe.take(MAX_OUTPUT).read_to_end(&mut text);
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = reader(
        child
            .stdout
            .take()
            .map(|p| Box::new(p) as Box<dyn Read + Send>),
    );
    let err = reader(
        child
            .stderr
            .take()
            .map(|p| Box::new(p) as Box<dyn Read + Send>),
    );
    let deadline = std::time::Instant::now() + PROGRAM_TIME;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if std::time::Instant::now() >= deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "`{shown}` did not end within {} s and was killed",
                    PROGRAM_TIME.as_secs()
                ));
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(e) => return Err(format!("cannot wait for `{shown}`: {e}")),
        }
    };
    let (out, err) = (
        out.join().unwrap_or_default(),
        err.join().unwrap_or_default(),
    );
    if status.success() {
        Ok(out)
    } else {
        let said = err
            .lines()
            .find(|l| !l.trim().is_empty())
            .unwrap_or("")
            .trim()
            .to_owned();
        Err(format!(
            "`{shown}` failed ({status}){}{said}",
            if said.is_empty() { "" } else { ": " }
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn words(command: &[&str]) -> Vec<String> {
        command.iter().map(|w| (*w).to_owned()).collect()
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
    fn a_program_that_fails_says_what_it_said() {
        assert_eq!(
            run(&words(&["/bin/sh", "-c", "echo 1.2"])).unwrap(),
            "1.2\n"
        );
        let error = run(&words(&["/bin/sh", "-c", "echo no battery >&2; exit 3"])).unwrap_err();
        assert!(
            error.contains("no battery") && error.contains('3'),
            "{error}"
        );
        assert!(
            run(&words(&["/nonexistent/program"]))
                .unwrap_err()
                .contains("cannot run")
        );
    }

    #[test]
    fn a_version_of_several_lines_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let boot_id = dir.path().join("boot-id");
        std::fs::write(&boot_id, "b\n").unwrap();
        let ask = |script: &str| {
            let version = VersionSource::Command(words(&["/bin/sh", "-c", script]));
            let targets = [(
                "t".to_owned(),
                TargetQuestions {
                    version,
                    probe: None,
                },
            )]
            .into();
            Device::new(&boot_id, vec![], targets).unwrap().version("t")
        };
        assert_eq!(ask("echo 1.2").unwrap(), "1.2");
        assert!(ask("echo 1; echo 2").is_err());
        assert!(ask("true").is_err());
    }
}
