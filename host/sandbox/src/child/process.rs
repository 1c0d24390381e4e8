//! The agent's side: starts the process, feeds it, and ends it when it takes too long or writes too much.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::wire::{Answer, FRAME, Request};
use super::{ChildFault, ChildLimits};
use crate::compiled::EngineId;
use crate::text::plain;

/// Most bytes of standard error that are read, and of them shown.
const MAX_COMPLAINT: usize = 4096;
const SHOWN: usize = 200;

/// Code, and the engine that made it.
pub(super) struct Made {
    pub(super) engine: EngineId,
    pub(super) code: Vec<u8>,
}

/// What a thread at one of the process's ends has seen.
enum Seen {
    /// All of standard output; `None` when it is more than allowed.
    Output(Option<Vec<u8>>),
    /// The beginning of standard error.
    Complaint(Vec<u8>),
    /// The process has ended.
    Ended,
}

pub(super) fn run(
    program: &[OsString],
    component: &[u8],
    limits: &ChildLimits,
) -> Result<Made, ChildFault> {
    let (executable, arguments) = program
        .split_first()
        .ok_or_else(|| ChildFault::Start("no program is named".into()))?;
    let began = Instant::now();
    let child = Command::new(executable)
        .args(arguments)
        // Neither secrets nor a loader's wishes have a place there.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Killed with all it may have started.
        .process_group(0)
        .spawn();
    let child = child.map_err(|e| ChildFault::Start(e.to_string()))?;
    let mut child = Reaped(child);
    let (tell, told) = mpsc::channel();
    attend(&mut child.0, component, limits, &tell).map_err(|e| ChildFault::Start(e.to_string()))?;

    let (mut output, mut complaint, mut ended) = (None, None, false);
    while output.is_none() || complaint.is_none() || !ended {
        let left = limits.wall.saturating_sub(began.elapsed());
        match told.recv_timeout(left) {
            Ok(Seen::Output(None)) => return Err(ChildFault::Output(limits.output)),
            Ok(Seen::Output(Some(bytes))) => output = Some(bytes),
            Ok(Seen::Complaint(bytes)) => complaint = Some(bytes),
            Ok(Seen::Ended) => ended = true,
            Err(_) => {
                let wall = u64::try_from(limits.wall.as_millis()).unwrap_or(u64::MAX);
                return Err(ChildFault::WallClock(wall));
            }
        }
    }
    let status = child.0.wait();
    let status = status.map_err(|e| ChildFault::Start(e.to_string()))?;
    let complaint = String::from_utf8_lossy(&complaint.unwrap_or_default()).into_owned();
    judge(status, output.unwrap_or_default(), &complaint, limits)
}

/// Kills the process, if it still runs, and takes it off the system's list, however we leave.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // A process that was waited for is gone, and its number may be another's.
        if matches!(self.0.try_wait(), Ok(None)) {
            let group = pid(&self.0);
            if rustix::process::kill_process_group(group, Signal::KILL).is_err() {
                let _ = self.0.kill();
            }
            let _ = self.0.wait();
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Puts a thread at each end of the process. Each ends with the process, which closes its ends.
fn attend(
    child: &mut Child,
    component: &[u8],
    limits: &ChildLimits,
    tell: &Sender<Seen>,
) -> std::io::Result<()> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(std::io::Error::other("it has no standard streams"));
    };
    let request = Request {
        memory: limits.memory,
        cpu_seconds: limits.cpu_seconds,
        length: component.len() as u64,
    };
    let component = component.to_vec();
    start(move || {
        // A process that does not read to the end says why in its own way.
        let _ = request
            .write(&mut stdin)
            .and_then(|()| stdin.write_all(&component));
    })?;
    let most = limits.output.saturating_add(FRAME);
    let theirs = tell.clone();
    start(move || {
        let bytes = read_at_most(stdout, most);
        let fits = (bytes.len() <= most).then_some(bytes);
        let _ = theirs.send(Seen::Output(fits));
    })?;
    let theirs = tell.clone();
    start(move || {
        let _ = theirs.send(Seen::Complaint(read_and_forget(stderr)));
    })?;
    let (theirs, pid) = (tell.clone(), pid(child));
    start(move || {
        // Looked at and left on the list, so that its number stays its own until the other side has taken its status.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), look) {}
        let _ = theirs.send(Seen::Ended);
    })
}

fn start(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new()
        .name("compiler-process".into())
        .stack_size(128 * 1024)
        .spawn(work)
        .map(drop)
}

/// One byte more than allowed shows that there was more.
fn read_at_most(from: impl Read, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = from
        .take((most as u64).saturating_add(1))
        .read_to_end(&mut bytes);
    bytes
}

/// The beginning; what follows is read too, so that nobody waits for room in the pipe.
fn read_and_forget(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = (&mut from)
        .take(MAX_COMPLAINT as u64)
        .read_to_end(&mut bytes);
    let _ = std::io::copy(&mut from, &mut std::io::sink());
    bytes
}

fn judge(
    status: ExitStatus,
    output: Vec<u8>,
    complaint: &str,
    limits: &ChildLimits,
) -> Result<Made, ChildFault> {
    if let Some(signal) = status.signal().and_then(Signal::from_named_raw) {
        return Err(match signal {
            Signal::XCPU => ChildFault::CpuTime(limits.cpu_seconds),
            Signal::KILL => ChildFault::Killed,
            // What the standard library says before it aborts.
            Signal::ABORT if complaint.contains("memory allocation of") => {
                ChildFault::Memory(limits.memory)
            }
            other => ChildFault::Crashed(format!("signal {}{}", other.as_raw(), said(complaint))),
        });
    }
    match Answer::read(output) {
        Some(Answer::Code(engine, code)) if status.success() => Ok(Made { engine, code }),
        Some(Answer::Invalid(why)) => Err(ChildFault::Invalid(why)),
        Some(Answer::Memory) => Err(ChildFault::Memory(limits.memory)),
        Some(Answer::Unable(why)) => Err(ChildFault::Start(why)),
        // A panic says where it was; anything else has not understood the request.
        _ if complaint.contains("panicked at") => Err(ChildFault::Crashed(format!(
            "it panicked{}",
            said(complaint)
        ))),
        _ => Err(ChildFault::Foreign(format!(
            "its answer is none ({status}){}",
            said(complaint)
        ))),
    }
}

fn said(complaint: &str) -> String {
    match plain(complaint.trim(), SHOWN) {
        text if text.is_empty() => text,
        text => format!(": {text}"),
    }
}
