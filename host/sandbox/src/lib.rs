//! Runs adapters: audits what a component imports, compiles it, and runs one call at a time in a fresh, bounded store.
//!
//! An adapter is somebody else's code that speaks to somebody else's cloud. It exists here only as a function from a
//! frozen view, a state and an event to the next state and a list of wishes: nothing of it survives a call, nothing it
//! does can hold a thread, fill the memory or reach anything but the interface `otahost:adapter/host`. Whatever it does
//! wrong becomes a [`Failure`] in words, and the next call starts afresh.
//!
//! - The audit reads the import list of the file *before* anything is compiled.
//! - Work is bounded by fuel, which is the same on every device and every run, so that a failure can be replayed. A clock
//!   (the epoch) stands behind it as a backstop only.
//! - Each contract version is one module of `src/worlds/`, converted at the edge to `otahost_core::model`.
//! - The shape of what comes out (lengths, counts, characters) is settled here; whether a wish is declared and granted is
//!   settled by `otahost_core::admit`.
//!
//! - Native code is made in a process of its own, with limits (`child_main`), kept in a `Cache`, and never run unless this
//!   very engine made it, or somebody signed it whom the operator trusts with that ([`Signers`]).
//! - Without the feature `compiler` there is no compiler, no cache and no audit: what is run was audited and compiled elsewhere.
//! - Every step can be recorded ([`TraceRing`]) and run again ([`replay`](replay())), on the same component or on its successor.
//!
//! All calls block for as long as the guest runs; run them off the async workers.

#[cfg(feature = "compiler")]
mod audit;
#[cfg(feature = "compiler")]
mod cache;
#[cfg(feature = "compiler")]
mod child;
mod compiled;
mod failure;
mod guest;
mod how;
mod limits;
mod pool;
mod precompiled;
mod replay;
mod sandbox;
mod shape;
#[cfg(all(test, feature = "compiler"))]
#[path = "../tests/sandbox/components.rs"]
mod test_components;
mod text;
mod ticker;
mod trace;
mod worlds;

#[cfg(feature = "compiler")]
pub use cache::{Bounds, Cache, Compile};
#[cfg(feature = "compiler")]
pub use child::{ChildFault, ChildLimits, child_main};
#[cfg(feature = "compiler")]
pub use compiled::Compiled;
pub use failure::{Failure, FailureKind, LoadError, SandboxError};
pub use guest::LogLine;
pub use how::{How, Loaded, Why};
pub use limits::Limits;
#[cfg(feature = "compiler")]
pub use precompiled::precompile;
pub use precompiled::{CodeFault, Signers, Target, is_precompiled, precompiled_from};
pub use replay::{Difference, Finding, Replay, Replayer, replay};
pub use sandbox::{Adapter, Handled, Sandbox};
pub use trace::{
    Brief, Change, Entry, Incomplete, Outcome, Recorder, Recording, StepRecord, TraceRing,
    event_in_words,
};
