//! Where new versions of adapters come from. A vendor ships an adapter when its protocol changes, and the device takes it unattended
//! for years: so what is offered is believed for its signatures and never for the place it lies in.
//!
//! The place is a TUF repository (The Update Framework, specification 1.0): a directory, as on a USB stick, or the same directory
//! behind https. `tough` verifies it; this crate fetches for it within limits, judges expiry by the device's own clock, remembers
//! durably what was seen, so that nobody can show an older state again, and gives every refusal a name and advice.
//!
//! # Layout
//! `metadata/` holds `N.root.json`, `timestamp.json`, `N.snapshot.json` and `N.targets.json`; `targets/` holds the components. A
//! component is the target `<adapter>/<version>.wasm`, in the file `targets/<adapter>/<sha256>.<version>.wasm` (python-tuf, go-tuf) or
//! `targets/<sha256>.<adapter>/<version>.wasm` (tuftool). Delegated targets are not offered.
//!
//! # The rule for clocks
//! A `synced` clock judges expiry. A clock that is a `floor` (at least this much time has passed) judges what it can: what expired
//! before the floor has expired for certain, anything else is taken, and [`Repository::expiry_is_certain`] says that nobody could
//! judge it. With an `unset` clock no repository is opened: a replayed old state could not be told from a new one.

mod error;
mod memory;
mod name;
mod read;
mod repository;
mod source;
mod transport;
mod verdict;

pub use error::{RepositoryError, Role};
pub use name::{NameError, TargetName};
pub use repository::{Clock, Offer, Repository, RepositoryOptions, check_root};
pub use source::RepositorySource;

/// Largest component that is fetched, in bytes.
pub const MAX_COMPONENT: u64 = 32 * 1024 * 1024;

/// Largest file of metadata that is read, in bytes.
pub const MAX_METADATA: u64 = 1024 * 1024;

/// Most targets of a repository.
pub const MAX_TARGETS: usize = 1_000;

/// Most versions of the root that are followed in one opening: years of rotations.
pub const MAX_ROOTS: u64 = 256;
