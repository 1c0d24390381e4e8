//! A *machine*: what an update agent lives in, and what it can break.
//!
//! A directory holds two slots, a boot selector, `os-release`, a boot id and the agent's configuration and data; the agent runs as a
//! process of its own. The machine boots by reading what is really in the slots ([`boot`]), reboots when the agent asks, loses power
//! when a test says so, and falls back when a new slot does not come up. What it saw is in the [boot log](Machine::boots).
//!
//! Everything here blocks; from async code call it on a blocking thread.

mod boot;
mod config;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

pub use boot::{Boot, Selector, Slot, SlotState, Why, boot};
pub use config::{MachineSpec, built_adapter, built_program, target_dir};

use crate::ids::uuid;
use crate::image::Image;

/// Why a machine cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file of the machine, or its process.
    #[error("cannot {what} {path}: {error}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// No slot comes up. For a real device this is the end.
    #[error("the machine is bricked: no slot boots")]
    Bricked,
    /// Asked to do what its present state does not allow.
    #[error("the machine is {0}")]
    State(&'static str),
    /// What was waited for did not come.
    #[error("waited {waited:?} for {what}")]
    Timeout {
        /// What did not come.
        what: String,
        /// How long.
        waited: Duration,
    },
}

impl MachineError {
    fn io(what: &'static str, path: &Path, error: io::Error) -> Self {
        MachineError::Io {
            what,
            path: path.to_path_buf(),
            error,
        }
    }
}

/// Where the machine's files are.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The image in a slot, `a` or `b`.
    pub fn slot(&self, name: &str) -> PathBuf {
        self.dir.join(format!("slot-{name}.img"))
    }
    /// The boot selector.
    pub fn selector(&self) -> PathBuf {
        self.dir.join("boot.json")
    }
    /// The file that says which version runs.
    pub fn os_release(&self) -> PathBuf {
        self.dir.join("os-release")
    }
    /// The file that names the present boot.
    pub fn boot_id(&self) -> PathBuf {
        self.dir.join("boot-id")
    }
    /// The agent's configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("otahost.toml")
    }
    /// The agent's data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
    /// What the agent wrote to its standard output and error, all boots.
    pub fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }
    /// The FIFO through which a reboot is asked for.
    fn button(&self) -> PathBuf {
        self.dir.join("reboot-button")
    }
}

/// A machine. It is off until [`power_on`](Machine::power_on), and everything of it stops when it is dropped; the directory stays.
#[derive(Debug)]
pub struct Machine {
    shared: Arc<Shared>,
    button: File,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    spec: MachineSpec,
    /// Held for the length of one operation, so that a reboot and a power cut do not run into each other.
    control: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    on: Option<On>,
    agent: Option<Pid>,
    boots: Vec<Boot>,
    exits: Vec<ExitStatus>,
    /// Set while the machine itself ends the agent, so that this is not taken for a crash.
    killing: bool,
    bricked: bool,
}

#[derive(Debug, Clone)]
struct On {
    boot_id: String,
    slot: String,
    version: String,
    /// The agent comes up in this version.
    agent: bool,
}

impl Machine {
    /// Makes a machine in an existing, empty directory: `image` in slot a, slot b never written.
    ///
    /// # Errors
    /// When its files cannot be made.
    pub fn create(dir: &Path, spec: MachineSpec, image: &Image) -> Result<Self, MachineError> {
        let layout = Layout {
            dir: dir.to_path_buf(),
        };
        let make = |what, path: &Path, result: io::Result<()>| {
            result.map_err(|e| MachineError::io(what, path, e))
        };
        make(
            "write the image",
            &layout.slot("a"),
            image.write(&layout.slot("a")),
        )?;
        make(
            "make the slot",
            &layout.slot("b"),
            fs::write(layout.slot("b"), []),
        )?;
        Selector::factory().write(&layout.selector())?;
        make(
            "make the directory",
            &layout.data(),
            fs::create_dir_all(layout.data()),
        )?;
        make(
            "write the configuration",
            &layout.config(),
            fs::write(layout.config(), spec.otahost_toml(&layout)),
        )?;
        let fifo = rustix::fs::mknodat(
            rustix::fs::CWD,
            layout.button(),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from(0o600),
            0,
        );
        make(
            "make the FIFO",
            &layout.button(),
            fifo.map_err(io::Error::from),
        )?;
        // Opened for both, reading never ends and neither side waits for the other to open it.
        let open = File::options().read(true).write(true).open(layout.button());
        let button = open.map_err(|e| MachineError::io("open the FIFO", &layout.button(), e))?;
        let presses = button
            .try_clone()
            .map_err(|e| MachineError::io("open the FIFO", &layout.button(), e))?;
        let shared = Arc::new(Shared {
            layout,
            spec,
            control: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let watched = Arc::clone(&shared);
        let watcher = thread::spawn(move || watched.watch_button(presses));
        Ok(Machine {
            shared,
            button,
            watcher: Some(watcher),
        })
    }

    /// Where its files are.
    pub fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// Boots, and starts the agent, unless the image is one in which it does not come up.
    ///
    /// # Errors
    /// When it is on already, when no slot boots, or when the agent cannot be started.
    pub fn power_on(&self) -> Result<(), MachineError> {
        let _control = lock(&self.shared.control);
        if self.shared.state().on.is_some() {
            return Err(MachineError::State("on already"));
        }
        self.shared.start(Why::PowerOn)
    }

    /// Ends the agent and all it has started at once, as a power cut does. Returns when they are gone. (What a cut does to writes
    /// that were not synced is the simulated disk's subject, not this machine's.)
    pub fn lose_power(&self) {
        let _control = lock(&self.shared.control);
        self.shared.stop();
    }

    /// Kills the agent alone: the machine stays on, in the same boot.
    ///
    /// # Errors
    /// When no agent runs.
    pub fn kill_agent(&self) -> Result<(), MachineError> {
        let _control = lock(&self.shared.control);
        if self.shared.state().agent.is_none() {
            return Err(MachineError::State("without an agent"));
        }
        self.shared.kill_agent();
        Ok(())
    }

    /// Starts the agent again in the same boot, as a supervisor does after a crash.
    ///
    /// # Errors
    /// When the machine is off, the agent runs, or it cannot be started or does not come up in this version.
    pub fn start_agent(&self) -> Result<(), MachineError> {
        let _control = lock(&self.shared.control);
        let state = self.shared.state();
        match &state.on {
            None => return Err(MachineError::State("off")),
            Some(on) if !on.agent => {
                return Err(MachineError::State(
                    "running a version without a working agent",
                ));
            }
            Some(_) => {}
        }
        if state.agent.is_some() {
            return Err(MachineError::State("running its agent already"));
        }
        drop(state);
        self.shared.spawn_agent("agent restart")
    }

    /// The version that runs; `None` when it is off.
    pub fn version(&self) -> Option<String> {
        self.shared.state().on.as_ref().map(|on| on.version.clone())
    }

    /// The slot that runs; `None` when it is off.
    pub fn slot(&self) -> Option<String> {
        self.shared.state().on.as_ref().map(|on| on.slot.clone())
    }

    /// True while the agent's process lives.
    pub fn agent_runs(&self) -> bool {
        self.shared.state().agent.is_some()
    }

    /// Every attempt to boot so far, failed ones included.
    pub fn boots(&self) -> Vec<Boot> {
        self.shared.state().boots.clone()
    }

    /// How often it came up.
    pub fn boot_count(&self) -> usize {
        self.shared
            .state()
            .boots
            .iter()
            .filter(|boot| boot.came_up())
            .count()
    }

    /// How the agent ended whenever it ended by itself: an agent that works does not.
    pub fn crashes(&self) -> Vec<ExitStatus> {
        self.shared.state().exits.clone()
    }

    /// The boot selector as it is now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn selector(&self) -> Result<Selector, MachineError> {
        Selector::read(&self.shared.layout.selector())
    }

    /// Waits until it has come up this often.
    ///
    /// # Errors
    /// When that does not happen in time, or the machine is bricked.
    pub fn await_boots(&self, count: usize, timeout: Duration) -> Result<(), MachineError> {
        self.shared
            .wait(timeout, &format!("boot number {count}"), |state| {
                if state.bricked {
                    return Some(Err(MachineError::Bricked));
                }
                let up = match &state.on {
                    Some(on) => !on.agent || state.agent.is_some(),
                    None => false,
                };
                (up && state.boots.iter().filter(|boot| boot.came_up()).count() >= count)
                    .then_some(Ok(()))
            })
    }

    /// What the machine's timer does some time after each boot, in every version: runs the dead-man. A reboot it asks for follows.
    ///
    /// # Errors
    /// When the machine is off, or it cannot be started.
    pub fn run_deadman(&self) -> Result<Output, MachineError> {
        if self.shared.state().on.is_none() {
            return Err(MachineError::State("off"));
        }
        self.cli(&["deadman"])
    }

    /// Runs the agent's program with other arguments (`status`, `jobs`, `check`) and the machine's configuration.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output, MachineError> {
        let mut command = self.shared.agent_command();
        let output = command.args(arguments).stdin(Stdio::null()).output();
        output.map_err(|e| MachineError::io("run", Path::new(&self.shared.spec.agent[0]), e))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.lose_power();
        // The watcher ends at this word; when it cannot be written the thread is left behind rather than waited for.
        if self.button.write_all(b"drop\n").is_ok()
            && let Some(watcher) = self.watcher.take()
        {
            let _ = watcher.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn agent_command(&self) -> Command {
        let mut command = Command::new(&self.spec.agent[0]);
        command
            .args(&self.spec.agent[1..])
            .arg("--config")
            .arg(self.layout.config())
            .current_dir(&self.layout.dir);
        command
    }

    /// Boots and starts the agent. The caller holds `control`.
    fn start(self: &Arc<Self>, why: Why) -> Result<(), MachineError> {
        let layout = &self.layout;
        let log = |boot| self.state().boots.push(boot);
        let booted = boot(&layout.selector(), |name| layout.slot(name), why, log);
        let (slot, header) = match booted {
            Ok(booted) => booted,
            Err(error) => {
                self.state().bricked = true;
                self.changed.notify_all();
                return Err(error);
            }
        };
        let write = |path: PathBuf, text: String| {
            fs::write(&path, text).map_err(|e| MachineError::io("write", &path, e))
        };
        write(
            layout.os_release(),
            format!("NAME=\"Lab machine\"\nVERSION_ID=\"{}\"\n", header.version),
        )?;
        let boot_id = uuid();
        write(layout.boot_id(), format!("{boot_id}\n"))?;
        let note = format!("boot of slot {slot}, version {}", header.version);
        self.state().on = Some(On {
            boot_id,
            slot,
            version: header.version,
            agent: header.agent,
        });
        if header.agent {
            return self.spawn_agent(&note);
        }
        self.changed.notify_all();
        Ok(())
    }

    fn spawn_agent(self: &Arc<Self>, note: &str) -> Result<(), MachineError> {
        let path = self.layout.log();
        let open = || -> io::Result<(File, File)> {
            let mut log = File::options().create(true).append(true).open(&path)?;
            writeln!(log, "== {note}")?;
            Ok((log.try_clone()?, log))
        };
        let (out, err) = open().map_err(|e| MachineError::io("open the log", &path, e))?;
        let mut command = self.agent_command();
        command
            .arg("run")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let mut child = command
            .spawn()
            .map_err(|e| MachineError::io("start", Path::new(&self.spec.agent[0]), e))?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process has a positive id");
        let guard = guard(pid);
        let mut state = self.state();
        state.agent = Some(pid);
        state.killing = false;
        drop(state);
        self.changed.notify_all();
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let status = child.wait();
            end(guard);
            let mut state = shared.state();
            state.agent = None;
            if !state.killing
                && let Ok(status) = status
            {
                state.exits.push(status);
            }
            drop(state);
            shared.changed.notify_all();
        });
        Ok(())
    }

    /// Kills the agent's process group and waits until the agent is gone.
    fn kill_agent(&self) {
        let mut state = self.state();
        state.killing = true;
        if let Some(pid) = state.agent {
            // Fails only when nothing of the group is left, which is what is wanted.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        while state.agent.is_some() {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        self.kill_agent();
        self.state().on = None;
        self.changed.notify_all();
    }

    /// Reboots when the button says the id of the present boot.
    fn watch_button(self: &Arc<Self>, presses: File) {
        for line in BufReader::new(presses).lines() {
            let Ok(line) = line else { return };
            if line == "drop" {
                return;
            }
            let _control = lock(&self.control);
            let present = self
                .state()
                .on
                .as_ref()
                .is_some_and(|on| on.boot_id == line);
            if !present {
                continue;
            }
            self.stop();
            if let Err(error) = self.start(Why::Reboot) {
                tracing::warn!("reboot: {error}");
            }
        }
    }

    fn wait<T>(
        &self,
        timeout: Duration,
        what: &str,
        mut look: impl FnMut(&State) -> Option<Result<T, MachineError>>,
    ) -> Result<T, MachineError> {
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        loop {
            if let Some(found) = look(&state) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(MachineError::Timeout {
                    what: what.to_owned(),
                    waited: timeout,
                });
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
    }
}

/// A process in the agent's group that ends the group when we are gone, however we went: a test run that is killed leaves no agents
/// behind. It waits at a pipe whose other end only we hold. Without it (no shell) all else works.
fn guard(group: Pid) -> Option<Child> {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "read -r _; kill -9 0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.process_group(group.as_raw_pid()).spawn().ok()
}

/// Lets the guard do its work, which clears away what an agent that ended by itself has left, and waits for it.
fn end(guard: Option<Child>) {
    if let Some(mut guard) = guard {
        drop(guard.stdin.take());
        let _ = guard.wait();
    }
}

/// A test that panicked while it held the lock shall not hide its message behind a second panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
