//! Source → digests and signature → stage, in one pass, with checkpoints.
//!
//! The engine is generic over three traits of its own, joined by the agent: a [`Source`] of bytes, a [`Stage`] that takes them, and
//! [`Checkpoints`] that remember how far it came. It makes one *attempt* ([`attempt`]); whether there is another is decided in
//! `otahost_core`.
//!
//! Nothing counts as verified before the pass has ended: [`Verified`] is only made when size, digests and signature were all settled.

mod checkpoint;
mod digest;
pub mod engine;
mod failure;
pub mod header;
mod keys;
mod lanes;
mod pass;
pub mod source;
mod stage;

pub use checkpoint::{Checkpoint, Checkpoints, Mark};
pub use digest::{Digest, DigestError};
pub use engine::{Request, Trust, Tuning, Verified, attempt};
pub use failure::{Failure, Headers};
pub use header::{Claims, HEADER_LEN, Header, HeaderError};
pub use keys::{KeyError, TrustKeys};
pub use source::{Body, BoxFuture, Opened, Source, SourceError, Validator};
pub use stage::{Stage, StageError};
