//! Runs a program of the operator's: boot selectors, versions, probes, the reboot, and those that hand a payload over.
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
/// Most pieces taken between two looks at the clock: who talks without end is still stopped in time. More than a pipe holds (1 MiB at
/// the most, where nobody privileged made it larger).
const PIECES: usize = 160;
/// Longest line that is followed; what is longer is cut.
const LINE: usize = 4 * 1024;
/// Bytes of standard error that a followed program's complaint is made from: the last it said.
const LAST_WORDS: usize = 1024;

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
    /// It was stopped on request, with all it had started.
    #[error("{called} was stopped")]
    Stopped {
        /// How it was called.
        called: Called,
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

/// A program and how it is called.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The program and its arguments, without a shell; a program without a `/` in its name is looked for in `PATH`.
    pub argv: &'a [String],
    /// Further arguments.
    pub arguments: &'a [&'a str],
    /// What is added to its environment, which otherwise is the agent's.
    pub environment: &'a [(&'a str, &'a str)],
}

impl<'a> Call<'a> {
    /// A call with nothing added.
    pub fn new(argv: &'a [String]) -> Self {
        Call {
            argv,
            arguments: &[],
            environment: &[],
        }
    }

    fn start(&self) -> Result<(Running, Called), ProgramError> {
        let (program, arguments) = self
            .argv
            .split_first()
            .filter(|(program, _)| !program.is_empty())
            .ok_or(ProgramError::Empty)?;
        let called = Called::new(self.argv);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(self.arguments)
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that everything it starts can be ended with it.
            .process_group(0);
        match command.spawn() {
            Ok(child) => Ok((Running { child: Some(child) }, called)),
            Err(reason) => Err(ProgramError::NotStarted { called, reason }),
        }
    }
}

/// Runs a program to its end and gives what it wrote to standard output; bytes that are no UTF-8 are replaced.
///
/// It gets no input. Success is exit status 0. The call ends when the *program* ends: what it left running in the background runs on
/// without outputs, and does not hold up the call even when it keeps them open. A program that breaks a limit is killed, with all it
/// started that has not made a process group of its own.
///
/// # Errors
/// Whatever kept it from ending with status 0 within its limits.
pub fn run(argv: &[String], limits: Limits) -> Result<String, ProgramError> {
    run_call(&Call::new(argv), limits)
}

/// [`run`] for a call with further arguments or environment.
///
/// # Errors
/// As for [`run`].
pub fn run_call(call: &Call<'_>, limits: Limits) -> Result<String, ProgramError> {
    let (mut running, called) = call.start()?;
    let mut collector = Collector {
        limit: limits.output,
        said: Vec::new(),
        complained: Vec::new(),
    };
    match running.watch(limits.time, &mut collector) {
        Ok(status) if status.success() => Ok(String::from_utf8_lossy(&collector.said).into_owned()),
        Ok(status) => Err(ProgramError::Failed {
            called,
            status,
            said: Complaint::new(&collector.complained),
        }),
        Err(broken) => Err(broken.of(called, limits)),
    }
}

/// Follows a program that runs for a while.
pub trait Follower {
    /// It wrote this line to standard output, or to standard error. At most 4 KiB, without its end; bytes that are no UTF-8 are replaced.
    fn line(&mut self, line: &str, is_error: bool);
    /// Asked every few milliseconds: true ends the program.
    fn is_stopped(&mut self) -> bool;
}

/// Runs a program to its end and has its outputs followed line by line. It may say as much as it likes; otherwise as [`run`].
///
/// # Errors
/// Whatever kept it from ending with status 0 in this time. The complaint is the last it wrote to standard error.
pub fn follow(
    call: &Call<'_>,
    time: Duration,
    follower: &mut dyn Follower,
) -> Result<(), ProgramError> {
    let (mut running, called) = call.start()?;
    let mut lines = Lines {
        follower,
        begun: [Vec::new(), Vec::new()],
        last_words: Vec::new(),
    };
    let ended = running.watch(time, &mut lines);
    lines.end();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(ProgramError::Failed {
            called,
            status,
            said: Complaint::new(&lines.last_words),
        }),
        Err(broken) => Err(broken.of(called, Limits { time, output: 0 })),
    }
}

/// Why a program is not waited for any longer.
enum Broken {
    Time,
    Output(&'static str),
    Stopped,
    System(io::Error),
}

impl Broken {
    fn of(self, called: Called, limits: Limits) -> ProgramError {
        match self {
            Broken::Time => ProgramError::TooLong {
                called,
                time: limits.time,
            },
            Broken::Output(output) => ProgramError::TooMuch {
                called,
                limit: limits.output,
                output,
            },
            Broken::Stopped => ProgramError::Stopped { called },
            Broken::System(reason) => ProgramError::Lost { called, reason },
        }
    }
}

/// Takes what a program says.
trait Taker {
    fn take(&mut self, piece: &[u8], is_error: bool) -> Result<(), Broken>;
    fn is_stopped(&mut self) -> bool {
        false
    }
}

/// Keeps all of it, up to a limit on each output.
struct Collector {
    limit: usize,
    said: Vec<u8>,
    complained: Vec<u8>,
}

impl Taker for Collector {
    fn take(&mut self, piece: &[u8], is_error: bool) -> Result<(), Broken> {
        let (bytes, output) = if is_error {
            (&mut self.complained, "standard error")
        } else {
            (&mut self.said, "standard output")
        };
        bytes.extend_from_slice(piece);
        if bytes.len() > self.limit {
            return Err(Broken::Output(output));
        }
        Ok(())
    }
}

/// Cuts it into lines and keeps none of it but the last words.
struct Lines<'a> {
    follower: &'a mut dyn Follower,
    begun: [Vec<u8>; 2],
    last_words: Vec<u8>,
}

impl Lines<'_> {
    fn tell(&mut self, is_error: bool) {
        let line = std::mem::take(&mut self.begun[usize::from(is_error)]);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        self.follower.line(&String::from_utf8_lossy(line), is_error);
    }

    /// A last line may lack its end.
    fn end(&mut self) {
        for is_error in [false, true] {
            if !self.begun[usize::from(is_error)].is_empty() {
                self.tell(is_error);
            }
        }
    }
}

impl Taker for Lines<'_> {
    fn take(&mut self, piece: &[u8], is_error: bool) -> Result<(), Broken> {
        if is_error {
            self.last_words.extend_from_slice(piece);
            let surplus = self.last_words.len().saturating_sub(LAST_WORDS);
            self.last_words.drain(..surplus);
        }
        for (index, part) in piece.split(|byte| *byte == b'\n').enumerate() {
            if index > 0 {
                self.tell(is_error);
            }
            let begun = &mut self.begun[usize::from(is_error)];
            let room = LINE.saturating_sub(begun.len()).min(part.len());
            begun.extend_from_slice(&part[..room]);
        }
        Ok(())
    }

    fn is_stopped(&mut self) -> bool {
        self.follower.is_stopped()
    }
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

    fn watch(&mut self, time: Duration, taker: &mut dyn Taker) -> Result<ExitStatus, Broken> {
        let (stdout, stderr) = match &mut self.child {
            Some(child) => (child.stdout.take(), child.stderr.take()),
            None => (None, None),
        };
        let mut said = Output::new(stdout)?;
        let mut complained = Output::new(stderr)?;
        let deadline = Instant::now() + time;
        let mut pause = FIRST_PAUSE;
        loop {
            // Asked before the outputs are read: all that an ended program said is in the pipes by then.
            let ended = self.ended()?;
            let mut more = said.read(|piece| taker.take(piece, false))?;
            more |= complained.read(|piece| taker.take(piece, true))?;
            if let Some(status) = ended {
                // One round takes more than a pipe holds; what it left behind may go on talking.
                return Ok(status);
            }
            if taker.is_stopped() {
                return Err(Broken::Stopped);
            }
            if Instant::now() >= deadline {
                return Err(Broken::Time);
            }
            if more {
                continue;
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
    /// None when it was closed.
    pipe: Option<R>,
}

impl<R: Read + AsFd> Output<R> {
    fn new(pipe: Option<R>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            let flags = rustix::fs::fcntl_getfl(pipe)?;
            rustix::fs::fcntl_setfl(pipe, flags | OFlags::NONBLOCK)?;
        }
        Ok(Output { pipe })
    }

    /// Takes what is there, within reason; true when there may be more.
    fn read(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), Broken>) -> Result<bool, Broken> {
        let mut piece = [0; PIECE];
        for _ in 0..PIECES {
            let Some(pipe) = &mut self.pipe else {
                return Ok(false);
            };
            match pipe.read(&mut piece) {
                Ok(0) => self.pipe = None,
                Ok(read) => take(&piece[..read])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}
