//! The compiler in a process of its own.
//!
//! A compiler is a large program that works on a file somebody else made; what it costs in time and memory is for that file to say. In
//! the agent it could stop the device's updates for minutes, or bring the agent down by the kernel's hand. So the agent starts its own
//! executable once more, which limits itself, reads the component from standard input, writes the code to standard output and
//! ends. Whatever goes wrong there is a sentence here.

mod process;
mod wire;
mod worker;

use std::ffi::OsString;
use std::time::Duration;

use crate::compiled::Compiled;
use crate::failure::LoadError;
use crate::sandbox::Sandbox;

pub use worker::child_main;

/// What one compilation may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildLimits {
    /// Address space of the process in bytes, its own executable included.
    pub memory: u64,
    /// Processor time in seconds.
    pub cpu_seconds: u64,
    /// Time on the clock, the start of the process included.
    pub wall: Duration,
    /// Most bytes of native code.
    pub output: usize,
}

impl Default for ChildLimits {
    /// For a component of the largest size on a slow device.
    fn default() -> Self {
        ChildLimits {
            memory: 512 * 1024 * 1024,
            cpu_seconds: 60,
            wall: Duration::from_secs(300),
            output: 64 * 1024 * 1024,
        }
    }
}

/// Why the compiler's process gave no code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChildFault {
    /// The process could not be started or spoken to.
    #[error(
        "the compiler's process cannot be run: {0}; look at the agent's executable and at the device's free memory"
    )]
    Start(String),
    /// It is not the agent's own build.
    #[error(
        "the compiler's process is no compiler of this agent: {0}; restart the agent if its executable was replaced"
    )]
    Foreign(String),
    /// The component is not valid.
    #[error("the component cannot be compiled: {0}; fetch or build it again")]
    Invalid(String),
    /// It needed more memory than it may have.
    #[error(
        "compiling it takes more than the {} MiB of memory allowed; build a smaller component, or raise the limit", .0 / (1024 * 1024)
    )]
    Memory(u64),
    /// It needed more processor time than it may have.
    #[error(
        "compiling it takes more than the {0} s of processor time allowed; build a smaller component, or raise the limit"
    )]
    CpuTime(u64),
    /// It was not done in time on the clock.
    #[error(
        "compiling it was not done in {0} ms; the device may be overloaded: try again, or raise the limit"
    )]
    WallClock(u64),
    /// It wrote more code than allowed.
    #[error(
        "its native code is larger than the {0} bytes allowed; build a smaller component, or raise the limit"
    )]
    Output(usize),
    /// It was killed from outside.
    #[error(
        "the compiler's process was killed from outside, most likely because the device ran out of memory; try again"
    )]
    Killed,
    /// It ended in a way no compiler should.
    #[error("the compiler crashed ({0}); take another build of the component")]
    Crashed(String),
}

impl ChildFault {
    /// True when another try on a calmer device may go better; false when the component itself is to blame.
    pub fn may_pass(&self) -> bool {
        match self {
            ChildFault::Start(_)
            | ChildFault::Foreign(_)
            | ChildFault::WallClock(_)
            | ChildFault::Killed => true,
            ChildFault::Invalid(_)
            | ChildFault::Memory(_)
            | ChildFault::CpuTime(_)
            | ChildFault::Output(_)
            | ChildFault::Crashed(_) => false,
        }
    }
}

impl Sandbox {
    /// Makes native code as [`compile`](Self::compile) does, in a process with limits. `program` is the agent's own executable with the
    /// argument that makes it call [`child_main`]; it gets no environment. Blocks until that process has ended.
    ///
    /// # Errors
    /// As for [`compile`](Self::compile); [`LoadError::Compiler`] names the limit that was broken.
    pub fn compile_in_child(
        &self,
        name: &str,
        program: &[OsString],
        component: &[u8],
        limits: &ChildLimits,
    ) -> Result<Compiled, LoadError> {
        let digest = self.audit(name, component)?;
        let faulty = |fault| LoadError::Compiler {
            adapter: name.into(),
            fault,
        };
        let made = process::run(program, component, limits).map_err(faulty)?;
        if made.engine != self.shared.id {
            let why = "it is of another build, or sees another processor";
            return Err(faulty(ChildFault::Foreign(why.into())));
        }
        Ok(Compiled {
            component: digest,
            engine: made.engine,
            code: made.code,
        })
    }
}
