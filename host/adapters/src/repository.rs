//! A repository, opened and verified, and what it offers.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use otahost_core::model::ClockQuality;
use otahost_disk::{Disk, Place, Seam};
use serde_json::Value;
use tempfile::TempDir;
use tough::schema::{Role as _, Root, Signed, Target};
use tough::{ExpirationEnforcement, Limits, RepositoryLoader};

use crate::memory::{KnownRoot, Memory, Store, hex};
use crate::name::printable;
use crate::read::{ReadError, Reader};
use crate::transport::{Metadata, addresses};
use crate::{
    MAX_COMPONENT, MAX_METADATA, MAX_ROOTS, MAX_TARGETS, RepositoryError, RepositorySource, Role,
    TargetName, verdict,
};

/// What the device knows of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds since the Unix epoch.
    pub now: u64,
    /// How far that can be trusted; see the rule for clocks at the top of this crate.
    pub quality: ClockQuality,
}

/// How to open a repository.
#[derive(Debug, Clone)]
pub struct RepositoryOptions {
    /// Where it is.
    pub source: RepositorySource,
    /// A root the operator trusts: the content of the publisher's `N.root.json`, any version. It came with the firmware or by hand,
    /// never from the repository itself.
    pub root: Vec<u8>,
    /// The device's disk: for the memory, and to read a directory.
    pub disk: Arc<dyn Disk>,
    /// A directory for the memory of this one repository; made when it does not exist. One opening at a time may use it.
    pub store: Place,
    /// What the device knows of the time.
    pub clock: Clock,
    /// Where blocking work happens.
    pub seam: Seam,
    /// Limit for [`Repository::open`]. Default 5 minutes.
    pub open_within: Duration,
    /// Limit for one [`Repository::fetch`]. Default 15 minutes.
    pub fetch_within: Duration,
}

impl RepositoryOptions {
    /// Options with the defaults.
    #[must_use]
    pub fn new(
        source: RepositorySource,
        root: Vec<u8>,
        disk: Arc<dyn Disk>,
        store: Place,
        clock: Clock,
    ) -> Self {
        Self {
            source,
            root,
            disk,
            store,
            clock,
            seam: Seam::Threads,
            open_within: Duration::from_secs(5 * 60),
            fetch_within: Duration::from_secs(15 * 60),
        }
    }
}

/// One version of one adapter, as its publisher signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Adapter and version.
    pub name: TargetName,
    /// Identity of the component: `sha256:` and 64 lower-case hexadecimal digits.
    pub digest: String,
    /// Its size in bytes. One beyond [`MAX_COMPONENT`] is shown and cannot be fetched.
    pub size: u64,
    /// Layout of its state, where the publisher says it. Like the next two a word for people and for plans: the component itself, asked
    /// in the sandbox, has the last word.
    pub state_version: Option<u32>,
    /// Name of the protocol.
    pub protocol: Option<String>,
    /// The world it was built against: `otahost:adapter/update-adapter@0.1.0`.
    pub contract: Option<String>,
    /// Where the file may lie, below `targets/`.
    files: Vec<String>,
}

/// A repository as it was when it was opened. Made for one look and what follows of it: it does not notice newer states, nor that it
/// expires meanwhile.
#[derive(Debug)]
pub struct Repository {
    offers: Vec<Offer>,
    passed_over: Vec<String>,
    expires: (u64, String),
    expiry_is_certain: bool,
    root_version: u64,
    reader: Reader,
    fetch_within: Duration,
}

impl Repository {
    /// Reads and verifies the metadata, and remembers durably what it saw. Of a repository that is refused, only new verified roots
    /// are remembered.
    ///
    /// # Errors
    /// [`RepositoryError`]; see its cases.
    pub async fn open(options: RepositoryOptions) -> Result<Self, RepositoryError> {
        if options.clock.quality == ClockQuality::Unset {
            return Err(RepositoryError::ClockUnset);
        }
        let what = format!("reading the repository {}", options.source);
        within(options.open_within, &what, Self::look(options)).await
    }

    async fn look(options: RepositoryOptions) -> Result<Self, RepositoryError> {
        let RepositoryOptions { disk, seam, .. } = options;
        let trusted = KnownRoot::parse(&options.root)?;
        let store = Store::new(Arc::clone(&disk), options.store, seam);
        let before = store.load().await?;
        let memory = Memory::begin(before.as_ref(), &trusted);
        let reader = Reader::open(&options.source, &disk, seam).await?;
        let metadata = Metadata::new(reader.clone());
        let seen = memory.clone();
        let scratch = seam
            .run(move || scratch(&seen))
            .await
            .map_err(|e| verdict::scratch(&e))?;
        let loaded = load(&memory.root, scratch.path(), metadata.clone()).await;
        let read = loaded.map_err(verdict::of).and_then(|repository| {
            check_expiry(&repository, options.clock)?;
            let (offers, passed_over) = offers(&repository)?;
            Ok((repository, offers, passed_over))
        });
        let memory_after = match &read {
            Ok((repository, ..)) => {
                let kept = metadata.kept();
                let mut memory = memory.follow(repository.root(), &kept);
                memory.timestamp = kept.timestamp;
                memory.snapshot = kept.snapshot;
                memory
            }
            Err(_) => {
                let path = scratch.path().join("root.json");
                match seam.run(move || verified_root(&path)).await {
                    Some(root) => memory.follow(&root, &metadata.kept()),
                    None => memory,
                }
            }
        };
        if before.as_ref() != Some(&memory_after) {
            let saved = store.save(&memory_after).await;
            match (&read, saved) {
                (Ok(_), saved) => saved?,
                // The first error is the one to tell; the roots come again.
                (Err(_), Err(error)) => tracing::warn!(%error, "a new root was not remembered"),
                (Err(_), Ok(())) => {}
            }
        }
        let (repository, offers, passed_over) = read?;
        let expires = lifetimes(&repository)
            .into_iter()
            .map(|(_, at, text)| (at, text))
            .min_by_key(|(at, _)| *at)
            .expect("there are four");
        Ok(Self {
            offers,
            passed_over,
            expires,
            expiry_is_certain: options.clock.quality == ClockQuality::Synced,
            root_version: repository.root().signed.version.get(),
            reader,
            fetch_within: options.fetch_within,
        })
    }

    /// All versions of all adapters, sorted by adapter, then by version as text.
    #[must_use]
    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }

    /// Names of targets that are no adapter's, sorted: for the operator who misses one.
    #[must_use]
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// When the first part of the metadata expires, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn expires(&self) -> u64 {
        self.expires.0
    }

    /// The same in words: RFC 3339.
    #[must_use]
    pub fn expires_text(&self) -> &str {
        &self.expires.1
    }

    /// False when the clock was a floor only: the metadata may have expired, and nobody could tell.
    #[must_use]
    pub fn expiry_is_certain(&self) -> bool {
        self.expiry_is_certain
    }

    /// Version of the root that holds now.
    #[must_use]
    pub fn root_version(&self) -> u64 {
        self.root_version
    }

    /// Fetches a component, whole, and checks it against what was signed.
    ///
    /// # Errors
    /// [`RepositoryError::NotOffered`], [`RepositoryError::Oversize`] for one larger than [`MAX_COMPONENT`] or than its signed size,
    /// [`RepositoryError::Content`] for other bytes than were signed, [`RepositoryError::Missing`], [`RepositoryError::Transport`],
    /// [`RepositoryError::TimedOut`].
    pub async fn fetch(&self, adapter: &str, version: &str) -> Result<Vec<u8>, RepositoryError> {
        let offer = self
            .offers
            .iter()
            .find(|offer| offer.name.adapter() == adapter && offer.name.version() == version)
            .ok_or_else(|| self.not_offered(adapter, version))?;
        let what = format!("fetching {}", offer.name);
        within(self.fetch_within, &what, self.fetch_offer(offer)).await
    }

    async fn fetch_offer(&self, offer: &Offer) -> Result<Vec<u8>, RepositoryError> {
        let target = offer.name.to_string();
        if offer.size > MAX_COMPONENT {
            return Err(RepositoryError::Oversize {
                what: target,
                limit: MAX_COMPONENT,
            });
        }
        let mut missing = Vec::new();
        for file in &offer.files {
            let path = format!("targets/{file}");
            match self.reader.read(&path, offer.size).await {
                Ok(bytes) => return offer.check(bytes),
                Err(ReadError::Missing(why)) => missing.push(why),
                Err(other) => return Err(other.of(&path)),
            }
        }
        Err(RepositoryError::Missing {
            what: format!("file of {target}"),
            why: missing.join("; "),
        })
    }

    fn not_offered(&self, adapter: &str, version: &str) -> RepositoryError {
        let versions: Vec<&str> = self
            .offers
            .iter()
            .filter(|offer| offer.name.adapter() == adapter)
            .map(|offer| offer.name.version())
            .collect();
        RepositoryError::NotOffered {
            adapter: printable(adapter),
            version: printable(version),
            offered: if versions.is_empty() {
                "none of this adapter".to_owned()
            } else {
                versions.join(", ")
            },
        }
    }
}

impl Offer {
    fn read(name: TargetName, target: &Target, consistent: bool) -> Result<Self, RepositoryError> {
        let text = |key: &str| {
            target
                .custom
                .get(key)
                .and_then(Value::as_str)
                .map(printable)
        };
        for (key, part) in [("adapter", name.adapter()), ("version", name.version())] {
            if let Some(said) = text(key).filter(|said| said != part) {
                return Err(RepositoryError::Malformed {
                    role: Role::Targets,
                    why: format!("target {name} says it is {key} `{said}`"),
                });
            }
        }
        let sha256: &[u8] = &target.hashes.sha256;
        let sha256 = hex(sha256);
        Ok(Self {
            size: target.length,
            state_version: target
                .custom
                .get("state_version")
                .and_then(Value::as_u64)
                .and_then(|n| u32::try_from(n).ok()),
            protocol: text("protocol"),
            contract: text("contract"),
            files: name.files(&sha256, consistent),
            digest: format!("sha256:{sha256}"),
            name,
        })
    }

    /// The bytes, if they are the signed ones.
    fn check(&self, bytes: Vec<u8>) -> Result<Vec<u8>, RepositoryError> {
        let found = format!("sha256:{}", hex(digest(&SHA256, &bytes).as_ref()));
        let why = if bytes.len() as u64 != self.size {
            format!("it has {} bytes of {}", bytes.len(), self.size)
        } else if found != self.digest {
            format!("its digest is {found}, and {} was signed", self.digest)
        } else {
            return Ok(bytes);
        };
        Err(RepositoryError::Content {
            target: self.name.to_string(),
            why,
        })
    }
}

/// Whether this can be a trusted root: metadata that can be read and has signed itself.
///
/// # Errors
/// [`RepositoryError::TrustedRoot`] says why not.
pub fn check_root(root: &[u8]) -> Result<(), RepositoryError> {
    KnownRoot::parse(root).map(|_| ())
}

/// `tough`, with our transport, our limits and our clock: its own is the system's, and refuses to work after a step back.
async fn load(
    root: &str,
    scratch: &Path,
    metadata: Metadata,
) -> Result<tough::Repository, tough::error::Error> {
    let (metadata_url, targets_url) = addresses();
    RepositoryLoader::new(&root, metadata_url, targets_url)
        .transport(metadata)
        .limits(Limits {
            max_root_size: MAX_METADATA,
            max_targets_size: MAX_METADATA,
            max_timestamp_size: MAX_METADATA,
            max_snapshot_size: MAX_METADATA,
            max_root_updates: MAX_ROOTS,
        })
        .datastore(scratch)
        .expiration_enforcement(ExpirationEnforcement::Unsafe)
        .load()
        .await
}

/// A temporary folder with what was seen before.
fn scratch(seen: &Memory) -> std::io::Result<TempDir> {
    let scratch = tempfile::tempdir()?;
    for (name, text) in [
        ("timestamp.json", &seen.timestamp),
        ("snapshot.json", &seen.snapshot),
    ] {
        if let Some(text) = text {
            fs::write(scratch.path().join(name), text)?;
        }
    }
    Ok(scratch)
}

/// The root `tough` came to before it gave up.
fn verified_root(path: &Path) -> Option<Signed<Root>> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The four parts in the order in which they are verified, with the time each expires: milliseconds, and RFC 3339.
fn lifetimes(repository: &tough::Repository) -> [(Role, u64, String); 4] {
    [
        (Role::Root, repository.root().signed.expires()),
        (Role::Timestamp, repository.timestamp().signed.expires()),
        (Role::Snapshot, repository.snapshot().signed.expires()),
        (Role::Targets, repository.targets().signed.expires()),
    ]
    .map(|(role, at)| {
        let milliseconds = u64::try_from(at.as_millisecond()).unwrap_or(0);
        (role, milliseconds, at.to_string())
    })
}

fn check_expiry(repository: &tough::Repository, clock: Clock) -> Result<(), RepositoryError> {
    for (role, at, expires) in lifetimes(repository) {
        if at > clock.now {
            continue;
        }
        return Err(match role {
            Role::Timestamp => RepositoryError::Frozen { expires },
            role => RepositoryError::Expired { role, expires },
        });
    }
    Ok(())
}

fn offers(repository: &tough::Repository) -> Result<(Vec<Offer>, Vec<String>), RepositoryError> {
    // Only those the top-level role signed.
    let targets = &repository.targets().signed.targets;
    if targets.len() > MAX_TARGETS {
        return Err(RepositoryError::TooMany {
            what: "targets",
            count: targets.len(),
            limit: MAX_TARGETS,
        });
    }
    let consistent = repository.root().signed.consistent_snapshot;
    let (mut offers, mut passed_over) = (Vec::new(), Vec::new());
    for (raw, target) in targets {
        let name =
            TargetName::parse(raw.raw()).map_err(|e| RepositoryError::NameEscape(e.to_string()))?;
        match name {
            Some(name) => offers.push(Offer::read(name, target, consistent)?),
            None => passed_over.push(printable(raw.raw())),
        }
    }
    offers.sort_by(|a, b| a.name.cmp(&b.name));
    passed_over.sort();
    Ok((offers, passed_over))
}

async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, RepositoryError>>,
) -> Result<T, RepositoryError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(RepositoryError::TimedOut {
            what: what.to_owned(),
            seconds: limit.as_secs().max(1),
        }),
    }
}
