//! Why a component was not loaded and why a call came to nothing, in words an operator can act on.

use std::fmt;

#[cfg(feature = "compiler")]
use crate::child::ChildFault;
use crate::guest::LogLine;
use crate::precompiled::CodeFault;
#[cfg(feature = "compiler")]
use crate::precompiled::Target;

/// A call that came to nothing. Nothing of it may be committed; the adapter's state is what it was before.
///
/// `Display` says what happened; the log the guest wrote until then is kept because it often says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: FailureKind,
    /// What the guest had logged until then.
    pub log: Vec<LogLine>,
    /// The fuel it had used until then.
    pub fuel: u64,
}

/// What went wrong in a call.
///
/// All but [`Timeout`](FailureKind::Timeout) and [`Engine`](FailureKind::Engine) are the adapter's doing and the same on
/// every run with the same component, view, state and event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The guest trapped (a panic, a wild address, a stack overflow); the innermost functions are named.
    Trap(String),
    /// It used all its fuel, this much: an endless loop, or far too much work for one event.
    OutOfFuel(u64),
    /// It ran into the wall-clock backstop of so many milliseconds. May be the device's fault as much as the adapter's.
    Timeout(u64),
    /// It wanted more memory, tables, instances or host calls than it may have.
    Limit(String),
    /// Its answer breaks the contract: too long, too many, an unknown form, text that is no UTF-8.
    Malformed(String),
    /// The engine failed, not the guest: the device is out of memory, or a fault of the host.
    Engine(String),
}

impl FailureKind {
    /// The kind in one word, for the journal and for counters.
    pub fn word(&self) -> &'static str {
        match self {
            FailureKind::Trap(_) => "trap",
            FailureKind::OutOfFuel(_) => "out-of-fuel",
            FailureKind::Timeout(_) => "timeout",
            FailureKind::Limit(_) => "limit",
            FailureKind::Malformed(_) => "malformed",
            FailureKind::Engine(_) => "engine",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailureKind::Trap(what) => write!(f, "the adapter trapped: {what}"),
            FailureKind::OutOfFuel(fuel) => {
                write!(
                    f,
                    "the adapter used all of its fuel ({fuel}): it loops, or does far too much in one event"
                )
            }
            FailureKind::Timeout(ms) => write!(
                f,
                "the adapter ran longer than {ms} ms and was stopped by the backstop; the device may be overloaded"
            ),
            FailureKind::Limit(what) => write!(f, "the adapter went over a limit: {what}"),
            FailureKind::Malformed(what) => write!(f, "the adapter broke the contract: {what}"),
            FailureKind::Engine(what) => write!(f, "the sandbox itself failed: {what}"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for Failure {}

/// Why a file is not accepted as an adapter. Each begins with the adapter's name and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file is larger than [`Limits::component_bytes`](crate::Limits::component_bytes).
    #[error(
        "adapter {adapter}: the component has {bytes} bytes, more than the {limit} allowed; \
         build it in release mode and strip debug information"
    )]
    TooLarge {
        /// Name of the adapter.
        adapter: String,
        /// Size of the file.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The file is a core module, which has no typed imports and exports.
    #[error(
        "adapter {adapter}: this is a core WebAssembly module, not a component; \
         build it with `adapter build`, which encodes the component"
    )]
    CoreModule {
        /// Name of the adapter.
        adapter: String,
    },
    /// The file is no WebAssembly, is cut off, or is not valid.
    #[error(
        "adapter {adapter}: the file is damaged or no WebAssembly component: {reason}; fetch or build it again"
    )]
    Invalid {
        /// Name of the adapter.
        adapter: String,
        /// What the parser or the compiler says.
        reason: String,
    },
    /// It imports something other than the contract's interfaces.
    #[error(
        "adapter {adapter}: it imports `{import}`, and an adapter may import nothing but `otahost:adapter/host` and \
         `otahost:adapter/types`; build it for wasm32-unknown-unknown with `adapter build`"
    )]
    AlienImport {
        /// Name of the adapter.
        adapter: String,
        /// The offending import.
        import: String,
    },
    /// It was built against a contract version that this host does not serve.
    #[error(
        "adapter {adapter}: it was built against `{interface}`, and this host serves {served}{}; \
         update the host, or take an older release of the adapter",
        lacking(missing)
    )]
    OtherContract {
        /// Name of the adapter.
        adapter: String,
        /// The interface as the component names it.
        interface: String,
        /// The contract versions served here.
        served: &'static str,
        /// The functions it calls that no contract of this host has.
        missing: Vec<String>,
    },
    /// It needs an item of a later release of a contract version that is served.
    #[error(
        "adapter {adapter}: it needs `{item}` of `{interface}`, which came with a later contract than this host's; \
         update the host, or take an older release of the adapter"
    )]
    LaterContract {
        /// Name of the adapter.
        adapter: String,
        /// The interface as the component names it.
        interface: String,
        /// The function or resource that is missing here.
        item: String,
    },
    /// It needs an interface of a later release of a contract version that is served.
    #[error(
        "adapter {adapter}: it needs the interface `{interface}`{}, which came with a later contract than this host's; \
         update the host, or take an older release of the adapter",
        calling(functions)
    )]
    LaterInterface {
        /// Name of the adapter.
        adapter: String,
        /// The interface as the component names it.
        interface: String,
        /// The functions it calls there.
        functions: Vec<String>,
    },
    /// This build has no compiler.
    #[error(
        "adapter {adapter}: this build of otahost has no compiler; compile the component on another machine with \
         `otahost compile FILE --for {target} --out FILE.cwasm` of this release, sign that with `otahost sign`, and name the signed file"
    )]
    NoCompiler {
        /// Name of the adapter.
        adapter: String,
        /// What this device runs.
        target: &'static str,
    },
    /// This build's compiler makes no code for it.
    #[cfg(feature = "compiler")]
    #[error(
        "adapter {adapter}: this build of otahost makes code for {} and pulley64, not for {target}; one that is built with \
         `--features cross` makes it for x86_64 and aarch64",
        Target::host()
    )]
    NoBackend {
        /// Name of the adapter.
        adapter: String,
        /// What was asked for.
        target: Target,
    },
    /// A file of native code that is not run.
    #[error("adapter {adapter}: {fault}")]
    Precompiled {
        /// Name of the adapter.
        adapter: String,
        /// Why not.
        fault: CodeFault,
    },
    /// The compiler came to no end within its limits, or its process failed.
    #[cfg(feature = "compiler")]
    #[error("adapter {adapter}: {fault}")]
    Compiler {
        /// Name of the adapter.
        adapter: String,
        /// What happened.
        fault: ChildFault,
    },
    /// Native code that this engine may not run.
    #[error(
        "adapter {adapter}: its native code cannot be used: {reason}; compile the component again"
    )]
    Code {
        /// Name of the adapter.
        adapter: String,
        /// Why not.
        reason: String,
    },
    /// It does not export the contract's interface, or with other types.
    #[error(
        "adapter {adapter}: it does not fit the contract: {reason}; build it against the published `wit/` of otahost"
    )]
    Contract {
        /// Name of the adapter.
        adapter: String,
        /// What does not fit.
        reason: String,
    },
}

fn quoted(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn lacking(missing: &[String]) -> String {
    match missing {
        [] => String::new(),
        names => format!(", which has no {}", quoted(names)),
    }
}

fn calling(functions: &[String]) -> String {
    match functions {
        [] => String::new(),
        names => format!(" ({})", quoted(names)),
    }
}

/// Why the sandbox could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// The engine refused its settings or this machine.
    #[error("the WebAssembly engine cannot start: {0}")]
    Engine(String),
    /// No thread for the clock behind the backstop.
    #[error("the sandbox's clock thread cannot start: {0}")]
    Thread(#[source] std::io::Error),
}
