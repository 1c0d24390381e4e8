//! Runs a program of the operator's: boot selectors, versions, probes, the reboot.
//!
//! Such a program is a script that somebody wrote for one device. It may hang, talk without end, or leave something behind that
//! keeps its outputs open; none of that may hold up an update. So there is one way to run it, with limits, and it is here.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process_group};

/// Pauses between two looks at a program: short for those that answer at once, longer for those that take their time.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// Most bytes taken from an output at once.
const PIECE: usize = 8 * 1024;

/// What a program may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time from its start to its end.
    pub time: Duration,
    /// Most bytes it may say, on each of its outputs.
    pub output: usize,
}

impl Default for Limits {
    /// 30 s and 64 KiB.
    fn default() -> Self {
        Limits {
            time: Duration::from_secs(30),
            output: 64 * 1024,
        }
    }
}

/// Why a program did not do what it was asked for. The text begins with how it was called.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is no program's name.
    #[error("the command is empty; give a program and its arguments")]
    Empty,
    /// It is not there, or may not be executed.
    #[error("{called} cannot be started: {reason}")]
    NotStarted {
        /// How it was called.
        called: Called,
        /// What the system said.
        reason: io::Error,
    },
    /// It ended, and not with status 0.
    #[error("{called} failed ({status}) {said}")]
    Failed {
        /// How it was called.
        called: Called,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to standard error.
        said: Complaint,
    },
    /// It did not end in time. It was killed, with all it had started.
    #[error("{called} did not end within {} s and was killed", time.as_secs_f32())]
    TooLong {
        /// How it was called.
        called: Called,
        /// The time it had.
        time: Duration,
    },
    /// It said too much. It was killed unless it had ended, with all it had started.
    #[error("{called} said more than {limit} bytes on {output}")]
    TooMuch {
        /// How it was called.
        called: Called,
        /// What it may say.
        limit: usize,
        /// Where it said it: `standard output` or `standard error`.
        output: &'static str,
    },
    /// The system did not let us watch it. It was killed, with all it had started.
    #[error("{called} cannot be watched: {reason}")]
    Lost {
        /// How it was called.
        called: Called,
        /// What the system said.
        reason: io::Error,
    },
}

/// A program with its arguments, for people: on one line and in backticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called(String);

impl Called {
    fn new(argv: &[String]) -> Self {
        let line = argv.join(" ");
        // A script with several lines stays one line of the log.
        Called(line.replace(char::is_control, " "))
    }
}

impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

/// What a person needs of what a program wrote to standard error: three lines, 400 characters, nothing that moves the cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint(String);

impl Complaint {
    fn new(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4096)]);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .take(3)
            .collect();
        let shown = lines.join(" / ");
        Complaint(
            shown
                .chars()
                .filter(|c| !c.is_control())
                .take(400)
                .collect(),
        )
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("and said nothing")
        } else {
            write!(f, "and said: {}", self.0)
        }
    }
}

/// Runs a program to its end and gives what it wrote to standard output; bytes that are no UTF-8 are replaced.
///
/// `argv` is the program and its arguments, without a shell; a program without a `/` in its name is looked for in `PATH`. It gets
/// no input. Success is exit status 0. The call ends when the *program* ends: what it left running in the background runs on without
/// outputs, and does not hold up the call even when it keeps them open. A program that breaks a limit is killed, with all it started
/// that has not made a process group of its own.
///
/// # Errors
/// Whatever kept it from ending with status 0 within its limits.
pub fn run(argv: &[String], limits: Limits) -> Result<String, ProgramError> {
    let (program, arguments) = argv
        .split_first()
        .filter(|(program, _)| !program.is_empty())
        .ok_or(ProgramError::Empty)?;
    let called = Called::new(argv);
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that everything it starts can be ended with it.
        .process_group(0);
    let child = match command.spawn() {
        Ok(child) => child,
        Err(reason) => return Err(ProgramError::NotStarted { called, reason }),
    };
    let mut running = Running { child: Some(child) };
    let (status, said, complained) = match running.watch(limits) {
        Ok(ended) => ended,
        Err(Broken::Time) => {
            let time = limits.time;
            return Err(ProgramError::TooLong { called, time });
        }
        Err(Broken::Output(output)) => {
            return Err(ProgramError::TooMuch {
                called,
                limit: limits.output,
                output,
            });
        }
        Err(Broken::System(reason)) => return Err(ProgramError::Lost { called, reason }),
    };
    if status.success() {
        return Ok(String::from_utf8_lossy(&said).into_owned());
    }
    Err(ProgramError::Failed {
        called,
        status,
        said: Complaint::new(&complained),
    })
}

/// Why a program is not waited for any longer.
enum Broken {
    Time,
    Output(&'static str),
    System(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Broken::System(error)
    }
}

/// A program that is killed with its group unless it has ended.
struct Running {
    /// None when it has ended: its id may be another's by now.
    child: Option<Child>,
}

impl Running {
    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = match &mut self.child {
            Some(child) => child.try_wait()?,
            None => None,
        };
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    fn watch(&mut self, limits: Limits) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Broken> {
        let (stdout, stderr) = match &mut self.child {
            Some(child) => (child.stdout.take(), child.stderr.take()),
            None => (None, None),
        };
        let mut said = Output::new("standard output", stdout)?;
        let mut complained = Output::new("standard error", stderr)?;
        let deadline = Instant::now() + limits.time;
        let mut pause = FIRST_PAUSE;
        loop {
            // Asked before the outputs are read: all that an ended program said is in the pipes by then.
            let ended = self.ended()?;
            said.take(limits.output)?;
            complained.take(limits.output)?;
            if let Some(status) = ended {
                return Ok((status, said.bytes, complained.bytes));
            }
            if Instant::now() >= deadline {
                return Err(Broken::Time);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        // It is not waited for yet, so its id is still its own and that of its group.
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // It fails only when all of them are gone.
            let _ = kill_process_group(group, Signal::KILL);
        }
        // Killed, it ends at once, unless a driver holds it; then it is not us who wait for the driver.
        let _ = std::thread::Builder::new().spawn(move || child.wait());
    }
}

/// One output of a program, read without ever waiting for more: whoever holds its other end cannot hold us up.
struct Output<R> {
    name: &'static str,
    /// None when it was closed.
    pipe: Option<R>,
    bytes: Vec<u8>,
}

impl<R: Read + AsFd> Output<R> {
    fn new(name: &'static str, pipe: Option<R>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            let flags = rustix::fs::fcntl_getfl(pipe)?;
            rustix::fs::fcntl_setfl(pipe, flags | OFlags::NONBLOCK)?;
        }
        Ok(Output {
            name,
            pipe,
            bytes: Vec::new(),
        })
    }

    /// Takes what is there, up to a little more than the limit.
    fn take(&mut self, limit: usize) -> Result<(), Broken> {
        let mut piece = [0; PIECE];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut piece) {
                Ok(0) => self.pipe = None,
                Ok(read) => self.bytes.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            if self.bytes.len() > limit {
                return Err(Broken::Output(self.name));
            }
        }
        Ok(())
    }
}
