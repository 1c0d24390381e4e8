//! A boot selector behind a command of the operator's, which fits any boot loader.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{BootSelector, BootState, Slot, SlotState};
use crate::FlashError;

const TIME_OUT: Duration = Duration::from_secs(30);
/// Most bytes a command may say, on each of its outputs.
const LIMIT: usize = 64 * 1024;

/// A program and its first arguments. It is called as
///
/// - `… get`: prints the JSON form of [`BootState`];
/// - `… set SLOT trial TRIES`: this slot may boot so many times more. A boot loader that counts otherwise may keep another number
///   above 0;
/// - `… mark SLOT good` and `… mark SLOT bad`;
/// - `… primary SLOT`: this slot is to boot next;
///
/// where SLOT is `a` or `b`. It has to be done, durably, before it exits, and exits with 0 unless something failed; then what it
/// says on standard error is shown. It gets 30 s and may say 64 KiB; it is killed, with whatever it started, when it takes more.
#[derive(Debug)]
pub struct CommandSelector {
    argv: Vec<String>,
    time_out: Duration,
}

impl CommandSelector {
    /// A selector behind this program. Without a `/` in its name it is looked for in `PATH`.
    ///
    /// # Errors
    ///
    /// `Selector` when there is no program's name.
    pub fn new(argv: Vec<String>) -> Result<Self, FlashError> {
        if argv.first().is_none_or(String::is_empty) {
            return Err(FlashError::Selector(
                "the boot selector's command is empty; give a program and its arguments".to_owned(),
            ));
        }
        Ok(CommandSelector {
            argv,
            time_out: TIME_OUT,
        })
    }

    /// The same with another time-out.
    #[must_use]
    pub fn with_time_out(self, time_out: Duration) -> Self {
        CommandSelector { time_out, ..self }
    }

    fn run(&self, arguments: &[&str]) -> Result<Vec<u8>, FlashError> {
        let called = format!("{} {}", self.argv.join(" "), arguments.join(" "));
        let failed = |why: String| {
            FlashError::Selector(format!("the boot selector's command `{called}` {why}"))
        };
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).args(arguments);
        // A group of its own, so that everything it starts can be ended with it.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let child = command
            .spawn()
            .map_err(|error| failed(format!("cannot be started: {error}")))?;
        let mut running = Running {
            child,
            ended: false,
        };
        let output = running.watch(self.time_out).map_err(&failed)?;
        if output.status.success() {
            return Ok(output.said);
        }
        let complaint = first_lines(&output.complained);
        let complaint = if complaint.is_empty() {
            "and said nothing".to_owned()
        } else {
            format!("and said: {complaint}")
        };
        Err(failed(format!("failed ({}) {complaint}", output.status)))
    }
}

struct Output {
    status: ExitStatus,
    said: Vec<u8>,
    complained: Vec<u8>,
}

struct Running {
    child: Child,
    ended: bool,
}

impl Running {
    /// Waits until it has ended and closed its outputs; the error completes "the command …".
    fn watch(&mut self, time_out: Duration) -> Result<Output, String> {
        let deadline = Instant::now() + time_out;
        let late = || {
            format!(
                "did not end, or something it started did not, within {} s",
                time_out.as_secs_f32()
            )
        };
        let (to, outputs) = mpsc::channel();
        collect(
            "stdout",
            self.child.stdout.take().expect("stdout was piped"),
            to.clone(),
        )?;
        collect(
            "stderr",
            self.child.stderr.take().expect("stderr was piped"),
            to,
        )?;
        let (mut said, mut complained) = (None, None);
        while said.is_none() || complained.is_none() {
            let (which, bytes) = outputs
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                .map_err(|_| late())?;
            let bytes: Vec<u8> = bytes.map_err(|error| format!("cannot be read from: {error}"))?;
            if bytes.len() > LIMIT {
                return Err(format!("said more than {LIMIT} bytes on {which}"));
            }
            *(if which == "stdout" {
                &mut said
            } else {
                &mut complained
            }) = Some(bytes);
        }
        // With its outputs closed it is as good as gone.
        loop {
            if let Some(status) = self
                .child
                .try_wait()
                .map_err(|error| format!("cannot be waited for: {error}"))?
            {
                self.ended = true;
                return Ok(Output {
                    status,
                    said: said.unwrap_or_default(),
                    complained: complained.unwrap_or_default(),
                });
            }
            if Instant::now() >= deadline {
                return Err(late());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It fails only when all of them are gone.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

type Collected = (&'static str, std::io::Result<Vec<u8>>);

/// Reads an output on a thread of its own, one byte more than allowed at most.
fn collect(
    which: &'static str,
    output: impl Read + Send + 'static,
    to: mpsc::Sender<Collected>,
) -> Result<(), String> {
    let read = move || {
        let mut bytes = Vec::new();
        let result = output.take(LIMIT as u64 + 1).read_to_end(&mut bytes);
        // Nobody listens any more after a time-out.
        let _ = to.send((which, result.map(|_| bytes)));
    };
    std::thread::Builder::new()
        .spawn(read)
        .map(drop)
        .map_err(|error| format!("cannot be listened to: {error}"))
}

/// What a person needs of a complaint: three lines, 400 characters, nothing that moves the cursor.
fn first_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .take(3)
        .collect();
    lines
        .join(" / ")
        .chars()
        .filter(|c| !c.is_control())
        .take(400)
        .collect()
}

impl BootSelector for CommandSelector {
    fn read(&self) -> Result<BootState, FlashError> {
        BootState::parse(
            &self.run(&["get"])?,
            &format_args!("`{} get`", self.argv.join(" ")),
        )
    }

    fn set_state(&self, slot: Slot, state: SlotState) -> Result<(), FlashError> {
        match state {
            SlotState::Good => self.run(&["mark", slot.name(), "good"]),
            SlotState::Bad => self.run(&["mark", slot.name(), "bad"]),
            SlotState::Trial { tries } => {
                self.run(&["set", slot.name(), "trial", &tries.to_string()])
            }
        }
        .map(drop)
    }

    fn set_primary(&self, slot: Slot) -> Result<(), FlashError> {
        self.run(&["primary", slot.name()]).map(drop)
    }
}
