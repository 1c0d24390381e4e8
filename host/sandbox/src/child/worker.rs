//! The side of the compiler's process.

use std::io::{self, Read, Write};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::wire::{Answer, MAX_SENTENCE, Request};
use crate::compiled::id;
use crate::limits::Limits;
use crate::sandbox::engine;
use crate::text::plain;

/// Most open files: the three standard streams, and what the C library opens in passing.
const FILES: u64 = 16;
/// How much the process gives way to others.
const NICENESS: i32 = 10;
/// No component is larger; the agent has checked it before.
const MAX_COMPONENT: u64 = 256 * 1024 * 1024;

/// All of the compiler's process: it takes its limits from the request on `stdin`, puts itself under them, reads the component, and
/// writes the code, or why there is none, to `stdout`. Gives the exit code: 0 when code was written, 1 when not.
///
/// The limits hold for the whole process and for good, so nothing else may happen in it. No guest code runs.
pub fn child_main(mut stdin: impl Read, mut stdout: impl Write) -> u8 {
    let answer = match work(&mut stdin) {
        Ok(answer) => answer,
        // The component itself did not find room.
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => Answer::Memory,
        Err(error) => Answer::Unable(error.to_string()),
    };
    match answer.write(&mut stdout) {
        Ok(()) if matches!(answer, Answer::Code(..)) => 0,
        _ => 1,
    }
}

fn work(stdin: &mut impl Read) -> io::Result<Answer> {
    let request = Request::read(stdin)?;
    confine(&request)?;
    if request.length > MAX_COMPONENT {
        return Err(io::Error::other("the component is too large"));
    }
    let mut component = Vec::new();
    stdin.take(request.length).read_to_end(&mut component)?;
    if component.len() as u64 != request.length {
        return Err(io::Error::other("the component is cut off"));
    }
    // The limits are of calls; code does not depend on them, and the agent compares the engines' ids.
    let engine = engine(&Limits::default()).map_err(io::Error::other)?;
    Ok(match engine.precompile_component(&component) {
        Ok(code) => Answer::Code(id(&engine), code),
        Err(error) => {
            let why = plain(&format!("{error:#}"), MAX_SENTENCE);
            match is_about_memory(&why) {
                true => Answer::Memory,
                false => Answer::Invalid(why),
            }
        }
    })
}

/// The engine says in several ways that the system refused it memory.
fn is_about_memory(why: &str) -> bool {
    ["out of memory", "os error 12", "Cannot allocate memory"]
        .iter()
        .any(|words| why.contains(words))
}

/// Puts the process under its limits, before it has read a byte of the component.
fn confine(request: &Request) -> io::Result<()> {
    // The agent may be gone before this line; then the request is cut off, or the processor time ends it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // A hard limit a second later, should the soft one be ignored.
    limit(
        Resource::Cpu,
        request.cpu_seconds,
        request.cpu_seconds.saturating_add(1),
    )?;
    limit(Resource::As, request.memory, request.memory)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, 0, 0)?;
    limit(Resource::Nofile, FILES, FILES)?;
    // A process that may not give way compiles all the same.
    let _ = rustix::process::nice(NICENESS);
    Ok(())
}

/// Lowers a limit; one that is lower already stays.
fn limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let now = getrlimit(resource);
    let lower = |wanted: u64, now: Option<u64>| Some(now.map_or(wanted, |now| now.min(wanted)));
    let maximum = lower(hard, now.maximum);
    setrlimit(
        resource,
        Rlimit {
            current: lower(soft, maximum),
            maximum,
        },
    )
    .map_err(|e| io::Error::other(format!("the limit {resource:?} cannot be set: {e}")))
}
