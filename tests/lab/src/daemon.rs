//! Servers that others wrote and Debian packs, as processes of a test: in the foreground, on a loopback port, gone with the test.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process};

use tempfile::NamedTempFile;

use crate::broker::{free_port, wait_for_port};
use crate::proxy::wait_until;

/// Where Debian puts daemons, outside the search path of ordinary users.
const FALLBACK: &str = "/usr/sbin";

/// How long a start or a stop may take.
const LIMIT: Duration = Duration::from_secs(10);

/// How deep a daemon's processes may be nested; vsftpd's are at 2.
const GENERATIONS: usize = 16;

/// Date of the first file that is put, in seconds since 1970: 1 January 2024.
const FIRST_DATE: u64 = 1_704_067_200;

/// A program by its name: of the search path first, else where Debian keeps daemons.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([Path::new(FALLBACK).to_owned()])
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

/// Tries free ports until a start succeeds: between choosing a port and listening on it another process may take it.
///
/// # Errors
/// What the last try said.
pub(crate) fn on_a_free_port<E>(mut launch: impl FnMut(u16) -> Result<(), E>) -> Result<(), E> {
    for _ in 0..9 {
        if launch(free_port()).is_ok() {
            return Ok(());
        }
    }
    launch(free_port())
}

/// A process with its children.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Child,
    ended: bool,
}

impl Daemon {
    /// Runs a command whose words go to the end of a log file, and waits until it accepts on a loopback port.
    ///
    /// # Errors
    /// When it does not run, or does not accept within ten seconds.
    pub(crate) fn start(command: &mut Command, log: &Path, port: u16) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut daemon = Self {
            process,
            ended: false,
        };
        if wait_for_port(port, LIMIT, || {
            matches!(daemon.process.try_wait(), Ok(None))
        }) {
            return Ok(daemon);
        }
        daemon.kill();
        Err(io::Error::other("it does not listen"))
    }

    /// Ends it, and the processes it made for its sessions, at once (SIGKILL).
    pub(crate) fn kill(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        // vsftpd's sessions are in groups of their own, and outlive it. Nobody makes another one while all are stopped.
        let mut all = vec![Pid::from_child(&self.process)];
        for _ in 0..GENERATIONS {
            for process in &all {
                let _ = kill_process(*process, Signal::STOP);
            }
            let known = all.len();
            all.extend(children(&all));
            if all.len() == known {
                break;
            }
        }
        for process in all.iter().rev() {
            let _ = kill_process(*process, Signal::KILL);
        }
        let _ = self.process.wait();
    }

    /// Ends it in good order (SIGTERM), and after ten seconds at once. For daemons without processes for sessions.
    pub(crate) fn stop(&mut self) {
        if self.ended {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        self.ended = wait_until(LIMIT, || !matches!(self.process.try_wait(), Ok(None)));
        self.kill();
    }
}

/// Children of some processes that are not among them.
fn children(parents: &[Pid]) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let process = pid(entry.file_name().to_str()?)?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // Behind the name, which may hold anything: the state, then the parent.
            let parent = pid(stat.rsplit(')').next()?.split_whitespace().nth(1)?)?;
            (parents.contains(&parent) && !parents.contains(&process)).then_some(process)
        })
        .collect()
}

fn pid(text: &str) -> Option<Pid> {
    Pid::from_raw(text.parse().ok()?)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Puts a file below a directory that a daemon serves, with its directories, in one step, readable by everybody. Its date is a
/// second later than that of the file that was put before it: servers make validators of dates in whole seconds.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn put(root: &Path, path: &str, bytes: &[u8]) -> io::Result<()> {
    static VERSIONS: AtomicU64 = AtomicU64::new(0);
    let place = root.join(path);
    let directory = place.parent().unwrap_or(root);
    for missing in directory.ancestors().take_while(|known| *known != root) {
        fs::create_dir_all(missing)?;
        fs::set_permissions(missing, Permissions::from_mode(0o755))?;
    }
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file()
        .set_permissions(Permissions::from_mode(0o644))?;
    let version = VERSIONS.fetch_add(1, Ordering::Relaxed);
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(FIRST_DATE + version);
    file.as_file().set_modified(date)?;
    file.persist(place)?;
    Ok(())
}
