//! Publishes adapters: makes and extends the TUF repository that devices take new versions from.
//!
//! A repository is a directory, to be served over https or copied to a medium. Its files are replaced in an order in which a device
//! that reads meanwhile sees the old or the new state, and the timestamp, which says what the newest state is, comes last. What was
//! made is read back as a device would read it before it is called published.

mod error;
mod inspect;
mod keys;
mod repository;
mod sign;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::Serialize;

pub use error::PublishError;
pub use keys::{Generated, GeneratedKey, keygen};

use inspect::Component;

/// How long timestamp, snapshot and targets are valid where nobody says otherwise: a medium may lie in a drawer for a while.
pub const DEFAULT_EXPIRES: Duration = Duration::from_secs(90 * 24 * 3600);

/// How long a root is valid where nobody says otherwise.
pub const DEFAULT_ROOT_EXPIRES: Duration = Duration::from_secs(2 * 365 * 24 * 3600);

/// What to publish, and where.
#[derive(Debug, Clone)]
pub struct Publish {
    /// The repository's folder; made where it does not exist.
    pub repository: PathBuf,
    /// The folder of the keys that hold from now on: all its `*.key` files.
    pub keys: PathBuf,
    /// Components to add. None: everything that there are keys for is signed anew, with a new expiry.
    pub components: Vec<PathBuf>,
    /// Name of the adapter on devices; `None`: the file's name without `.wasm`. Only with one component.
    pub name: Option<String>,
    /// How long timestamp, snapshot and targets are valid.
    pub expires: Duration,
    /// How long a root that is made now is valid.
    pub root_expires: Duration,
    /// A new root takes over, with the keys of `keys`, signed by them and by those in this folder. The same folder as `keys` renews
    /// the root alone.
    pub rotate_from: Option<PathBuf>,
    /// The time of signing.
    pub now: SystemTime,
}

impl Publish {
    /// Publishes nothing yet, with the default expiries.
    pub fn new(repository: impl Into<PathBuf>, keys: impl Into<PathBuf>) -> Self {
        Publish {
            repository: repository.into(),
            keys: keys.into(),
            components: Vec::new(),
            name: None,
            expires: DEFAULT_EXPIRES,
            root_expires: DEFAULT_ROOT_EXPIRES,
            rotate_from: None,
            now: SystemTime::now(),
        }
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The repository's folder.
    pub repository: PathBuf,
    /// It was made now.
    pub created: bool,
    /// The root that holds now: a device that trusts it, or any before it, takes what is published.
    pub root: PathBuf,
    /// Its version.
    pub root_version: u64,
    /// It was made now.
    pub root_is_new: bool,
    /// Versions of adapters that were added.
    pub added: Vec<PublishedAdapter>,
    /// Versions that were there already, with the same content.
    pub unchanged: Vec<PublishedAdapter>,
    /// Versions of adapters in the repository altogether.
    pub offered: usize,
    /// Version of the targets metadata.
    pub targets_version: u64,
    /// Version of the snapshot metadata.
    pub snapshot_version: u64,
    /// Version of the timestamp metadata.
    pub timestamp_version: u64,
    /// When devices stop taking it, unless it is published again: RFC 3339.
    pub expires: String,
}

/// One version of one adapter, as it was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedAdapter {
    /// Name of the adapter on devices.
    pub adapter: String,
    /// Its version, in its own words.
    pub version: String,
    /// Identity of the component: `sha256:` and 64 lower-case hexadecimal digits.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// Layout of its state.
    pub state_version: u32,
    /// Name of the protocol.
    pub protocol: String,
    /// The world it was built against: `otahost:adapter/update-adapter@0.1.0`.
    pub contract: String,
}

/// Publishes. `progress` is given a line for people whenever something begins. Blocks; it may be called from async code.
///
/// # Errors
/// See [`PublishError`]; each says what failed, why and what to do. Devices see the former state then, but for
/// [`PublishError::NotTaken`].
pub fn publish(
    request: &Publish,
    progress: &mut dyn FnMut(&str),
) -> Result<Published, PublishError> {
    if request.name.is_some() && request.components.len() != 1 {
        return Err(PublishError::OneName(request.components.len()));
    }
    let mut components = Vec::new();
    for file in &request.components {
        progress(&format!("asking {} what it is", file.display()));
        components.push(inspect::inspect(file, request.name.as_deref())?);
    }
    publish_components(request, components, progress)
}

fn publish_components(
    request: &Publish,
    components: Vec<Component>,
    progress: &mut dyn FnMut(&str),
) -> Result<Published, PublishError> {
    progress(&format!(
        "signing the repository {}",
        request.repository.display()
    ));
    // A thread of its own: the caller's may be one of an async runtime, on which another must not be started.
    std::thread::scope(|scope| {
        let work = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .map_err(PublishError::machine("start the signing"))?
                .block_on(repository::update(request, components))
        };
        match scope.spawn(work).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
