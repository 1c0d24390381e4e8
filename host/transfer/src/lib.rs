//! Source → digests and signature → stage, in one pass, with checkpoints.
//!
//! The engine is generic over three traits of its own, joined by the agent: a [`Source`] of bytes, a [`Stage`] that takes them, and
//! [`Checkpoints`] that remember how far it came. It makes one *attempt* ([`attempt`]); whether there is another is decided in
//! `otahost_core`.
//!
//! Nothing counts as verified before the pass has ended: [`Verified`] is only made when size, digests and signature were all settled.

mod checkpoint;
mod claims;
mod digest;
mod engine;
mod failure;
pub mod header;
mod keys;
mod lanes;
mod pass;
mod request;
mod settled;
mod signature;
mod source;
mod stage;

pub use checkpoint::{Checkpoint, Checkpoints, Mark};
pub use claims::Claims;
pub use digest::{Digest, DigestError};
pub use engine::attempt;
pub use failure::{Failure, Headers};
pub use header::{HEADER_LEN, Header, HeaderError};
pub use keys::{KeyError, TrustKeys};
pub use request::{Request, Trust, Tuning, Verified};
pub use signature::{SIDECAR_MAX, Signature, SignatureError, UNTRUSTED_COMMENT};
pub use source::{Body, BoxFuture, Opened, Source, SourceError, Validator};
pub use stage::{Stage, StageError};
