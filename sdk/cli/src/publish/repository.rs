//! Reads a repository as it is, makes its next state, and puts that in place.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp as Instant;
use otahost_adapters::{
    Clock, MAX_METADATA, MAX_TARGETS, Repository, RepositoryOptions, RepositorySource,
};
use otahost_core::model::ClockQuality;
use otahost_disk::{Place, RealDisk};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tough::editor::signed::SignedRole;
use tough::schema::{Metafile, Role, RoleType, Root, Signed, Snapshot, Target, Targets, Timestamp};

use super::inspect::Component;
use super::keys::KeyFolder;
use super::{Publish, PublishError, Published, PublishedAdapter, sign};
use crate::component;

/// The file whose lock keeps two publishers apart. It stays there, empty.
const LOCK: &str = ".publish.lock";

/// What a former publishing left.
struct State {
    targets: Signed<Targets>,
    snapshot: Signed<Snapshot>,
    timestamp: Signed<Timestamp>,
}

/// Files to write, in order.
type Files = Vec<(PathBuf, Vec<u8>)>;

pub(super) async fn update(
    request: &Publish,
    components: Vec<Component>,
) -> Result<Published, PublishError> {
    let folder = &request.repository;
    let metadata = folder.join("metadata");
    fs::create_dir_all(&metadata).map_err(PublishError::machine(format!(
        "make {}",
        metadata.display()
    )))?;
    let _lock = lock(folder)?;
    let keys = KeyFolder::open(&request.keys).await?;
    let roots = read_roots(&metadata)?;
    let before = read_state(&metadata, &roots)?;
    let (root, new_root) = root(request, &keys, roots.last()).await?;

    let mut files = Files::new();
    let mut all = before
        .as_ref()
        .map(|state| state.targets.signed.targets.clone())
        .unwrap_or_default();
    let (added, unchanged) = add(folder, &mut all, &components, &mut files)?;
    let offered = all.len();
    let expires = after(request.now, request.expires);
    let signer = Signer {
        root: &root,
        keys: &keys,
        metadata: &metadata,
        expires,
    };
    let sealed = signer
        .seal(before.as_ref(), all, !added.is_empty(), &mut files)
        .await?;
    let root_path = metadata.join(root.filename(true));
    if let Some(bytes) = &new_root {
        // Before the timestamp it signs for, after all the rest.
        let last = files.len() - 1;
        files.insert(last, (root_path.clone(), bytes.clone()));
    }
    for (path, bytes) in &files {
        component::write(path, bytes).map_err(|error| PublishError::Repository {
            file: path.clone(),
            why: describe(&error),
        })?;
    }
    let seen = look(request, &root_path).await?;
    for adapter in added.iter().chain(&unchanged) {
        seen.fetch(&adapter.adapter, &adapter.version)
            .await
            .map_err(PublishError::NotTaken)?;
    }
    Ok(Published {
        repository: folder.clone(),
        created: roots.is_empty(),
        root: root_path,
        root_version: root.version.get(),
        root_is_new: new_root.is_some(),
        added,
        unchanged,
        offered,
        targets_version: sealed.targets,
        snapshot_version: sealed.snapshot,
        timestamp_version: sealed.timestamp,
        expires: seen.expires_text().to_owned(),
    })
}

fn lock(folder: &Path) -> Result<File, PublishError> {
    let path = folder.join(LOCK);
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(PublishError::machine(format!("open {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(PublishError::Busy(folder.to_owned())),
        // A medium whose file system knows no locks has one writer.
        Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(source)) => Err(PublishError::Machine {
            what: format!("lock {}", path.display()),
            source,
        }),
    }
}

/// All roots, from the first on, each verified by the one before it.
fn read_roots(metadata: &Path) -> Result<Vec<Signed<Root>>, PublishError> {
    let mut roots: Vec<Signed<Root>> = Vec::new();
    loop {
        let path = metadata.join(format!("{}.root.json", roots.len() + 1));
        let Some(root) = read::<Root>(&path)? else {
            return Ok(roots);
        };
        let by = roots.last().unwrap_or(&root);
        let verified = by
            .signed
            .verify_role(&root)
            .and_then(|()| root.signed.verify_role(&root));
        let why = match verified {
            Err(e) => e.to_string(),
            Ok(()) if root.signed.version.get() != roots.len() as u64 + 1 => {
                format!("it has version {}", root.signed.version)
            }
            Ok(()) => {
                roots.push(root);
                continue;
            }
        };
        return Err(PublishError::Repository { file: path, why });
    }
}

/// The newest state; `None` before the first one. It may be signed by former keys, where a rotation was interrupted.
fn read_state(metadata: &Path, roots: &[Signed<Root>]) -> Result<Option<State>, PublishError> {
    let path = metadata.join("timestamp.json");
    let Some(timestamp) = read::<Timestamp>(&path)? else {
        return Ok(None);
    };
    verify(roots, &path, &timestamp)?;
    let meta = timestamp.signed.meta.get("snapshot.json");
    let snapshot: Signed<Snapshot> = part(metadata, roots, "snapshot", meta)?;
    let meta = snapshot.signed.meta.get("targets.json");
    let targets = part(metadata, roots, "targets", meta)?;
    Ok(Some(State {
        targets,
        snapshot,
        timestamp,
    }))
}

fn part<T: Role + DeserializeOwned>(
    metadata: &Path,
    roots: &[Signed<Root>],
    name: &str,
    meta: Option<&Metafile>,
) -> Result<Signed<T>, PublishError> {
    let version = meta.map_or(0, |meta| meta.version.get());
    let path = metadata.join(format!("{version}.{name}.json"));
    let part = read::<T>(&path)?.ok_or_else(|| PublishError::Repository {
        file: path.clone(),
        why: "it is missing; get a whole copy of the repository".to_owned(),
    })?;
    verify(roots, &path, &part)?;
    if part.signed.version().get() != version {
        return Err(PublishError::Repository {
            file: path,
            why: format!("it has version {}", part.signed.version()),
        });
    }
    Ok(part)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<Signed<T>>, PublishError> {
    let refuse = |why: String| PublishError::Repository {
        file: path.to_owned(),
        why,
    };
    match fs::metadata(path) {
        Ok(found) if found.len() > MAX_METADATA => {
            return Err(refuse(format!("it has more than {MAX_METADATA} bytes")));
        }
        _ => {}
    }
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| refuse(format!("it is no metadata: {e}"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PublishError::Machine {
            what: format!("read {}", path.display()),
            source,
        }),
    }
}

fn verify<T: Role + Serialize>(
    roots: &[Signed<Root>],
    path: &Path,
    part: &Signed<T>,
) -> Result<(), PublishError> {
    if roots
        .iter()
        .rev()
        .any(|root| root.signed.verify_role(part).is_ok())
    {
        return Ok(());
    }
    Err(PublishError::Repository {
        file: path.to_owned(),
        why:
            "no root of this repository vouches for its signature; somebody else made or changed it"
                .to_owned(),
    })
}

/// The root that holds from now on, and its file where it is new.
async fn root(
    request: &Publish,
    keys: &KeyFolder,
    newest: Option<&Signed<Root>>,
) -> Result<(Root, Option<Vec<u8>>), PublishError> {
    let expires = after(request.now, request.root_expires);
    let made = match (newest, &request.rotate_from) {
        (Some(newest), None) => return Ok((newest.signed.clone(), None)),
        (None, Some(_)) => {
            return Err(PublishError::NothingToRotate(request.repository.clone()));
        }
        (None, None) => {
            let root = sign::root(keys, sign::next(None), expires).await?;
            sign::signed(root.clone(), &root, keys).await?
        }
        (Some(newest), Some(old)) => {
            let old = KeyFolder::open(old).await?;
            let version = sign::next(Some(newest.signed.version.get()));
            let root = sign::root(keys, version, expires).await?;
            let by_old = sign::signed(root.clone(), &newest.signed, &old).await?;
            let by_new = sign::signed(root.clone(), &root, keys).await?;
            let by_both = by_new.add_old_signatures(by_old.signed().signatures.clone());
            let made = by_both.map_err(|e| PublishError::Sign {
                role: "root".to_owned(),
                why: e.to_string(),
            })?;
            newest
                .signed
                .verify_role(made.signed())
                .map_err(|e| PublishError::Sign {
                    role: "root".to_owned(),
                    why: format!("the former root does not vouch for the new one: {e}"),
                })?;
            made
        }
    };
    Ok((made.signed().signed.clone(), Some(made.buffer().clone())))
}

/// Adds the components to the targets and to the files to write. Gives those that are new and those that were there.
fn add(
    folder: &Path,
    all: &mut HashMap<tough::TargetName, Target>,
    components: &[Component],
    files: &mut Files,
) -> Result<(Vec<PublishedAdapter>, Vec<PublishedAdapter>), PublishError> {
    let (mut added, mut unchanged) = (Vec::new(), Vec::new());
    for component in components {
        let target = sign::target(component);
        let name = tough::TargetName::new(component.name.to_string())
            .expect("a checked name is none that the library refuses");
        let given = hex(&target.hashes.sha256);
        match all.get(&name) {
            Some(published) if published.hashes.sha256 != target.hashes.sha256 => {
                return Err(PublishError::OtherContent {
                    target: component.name.to_string(),
                    published: format!("sha256:{}", hex(&published.hashes.sha256)),
                    given: format!("sha256:{given}"),
                });
            }
            Some(_) => unchanged.push(component.adapter.clone()),
            None => {
                all.insert(name, target);
                added.push(component.adapter.clone());
            }
        }
        // Also for one that is there: its file may not be, where a copy was cut short.
        let path = folder.join("targets").join(component.name.file(&given));
        if !path.is_file() {
            files.push((path, component.bytes.clone()));
        }
    }
    if all.len() > MAX_TARGETS {
        return Err(PublishError::Full {
            count: all.len(),
            limit: MAX_TARGETS,
        });
    }
    Ok((added, unchanged))
}

/// Versions of what was sealed.
struct Sealed {
    targets: u64,
    snapshot: u64,
    timestamp: u64,
}

struct Signer<'a> {
    root: &'a Root,
    keys: &'a KeyFolder,
    metadata: &'a Path,
    expires: Instant,
}

impl Signer<'_> {
    /// Signs what has to be, and what there are keys for: so the timestamp can be renewed where the other keys are not.
    async fn seal(
        &self,
        before: Option<&State>,
        all: HashMap<tough::TargetName, Target>,
        changed: bool,
        files: &mut Files,
    ) -> Result<Sealed, PublishError> {
        let stands = |role: RoleType, verified: bool| {
            verified && !self.keys.has_one_of(self.root.keys(role))
        };
        let kept = before.filter(|state| {
            let verified = self.root.verify_role(&state.targets).is_ok();
            !changed && stands(RoleType::Targets, verified)
        });
        let (targets, targets_version) = match kept {
            Some(state) => (
                state.snapshot.signed.meta.get("targets.json").cloned(),
                state.targets.signed.version,
            ),
            None => {
                let version = sign::next(before.map(|s| s.targets.signed.version.get()));
                let part = sign::targets(version, self.expires, all);
                let part = self.put(part, files).await?;
                (Some(sign::meta(&part)), version)
            }
        };
        let same_targets = kept.is_some();
        let kept = before.filter(|state| {
            let verified = self.root.verify_role(&state.snapshot).is_ok();
            same_targets && stands(RoleType::Snapshot, verified)
        });
        let (snapshot, snapshot_version) = match (kept, targets) {
            (Some(state), _) => (
                state.timestamp.signed.meta.get("snapshot.json").cloned(),
                state.snapshot.signed.version,
            ),
            (None, targets) => {
                let version = sign::next(before.map(|s| s.snapshot.signed.version.get()));
                let targets = targets.ok_or_else(|| self.incomplete("targets"))?;
                let part = sign::snapshot(version, self.expires, targets);
                let part = self.put(part, files).await?;
                (Some(sign::meta(&part)), version)
            }
        };
        let snapshot = snapshot.ok_or_else(|| self.incomplete("snapshot"))?;
        let version = sign::next(before.map(|s| s.timestamp.signed.version.get()));
        self.put(sign::timestamp(version, self.expires, snapshot), files)
            .await?;
        Ok(Sealed {
            targets: targets_version.get(),
            snapshot: snapshot_version.get(),
            timestamp: version.get(),
        })
    }

    async fn put<T: Role + Serialize>(
        &self,
        part: T,
        files: &mut Files,
    ) -> Result<SignedRole<T>, PublishError> {
        let part = sign::signed(part, self.root, self.keys).await?;
        let path = self.metadata.join(part.signed().signed.filename(true));
        if *part.length() > MAX_METADATA {
            return Err(PublishError::Repository {
                file: path,
                why: format!(
                    "it would have {} bytes, and devices take {MAX_METADATA}; begin a new repository",
                    part.length()
                ),
            });
        }
        files.push((path, part.buffer().clone()));
        Ok(part)
    }

    fn incomplete(&self, what: &str) -> PublishError {
        PublishError::Repository {
            file: self.metadata.to_owned(),
            why: format!("its {what} metadata is named nowhere"),
        }
    }
}

/// Reads the repository as a device would that trusts this root and has seen nothing yet.
async fn look(request: &Publish, root: &Path) -> Result<Repository, PublishError> {
    let folder = &request.repository;
    let path = folder
        .canonicalize()
        .map_err(PublishError::machine(format!("find {}", folder.display())))?;
    let root = fs::read(root).map_err(PublishError::machine(format!("read {}", root.display())))?;
    let scratch = tempfile::tempdir().map_err(PublishError::machine("make a temporary folder"))?;
    let disk =
        RealDisk::new(scratch.path()).map_err(PublishError::machine("use a temporary folder"))?;
    let clock = Clock {
        now: milliseconds(request.now),
        quality: ClockQuality::Synced,
    };
    let source = RepositorySource::directory(&path).map_err(PublishError::NotTaken)?;
    let options = RepositoryOptions::new(source, root, Arc::new(disk), Place::data("seen"), clock);
    Repository::open(options)
        .await
        .map_err(PublishError::NotTaken)
}

fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// That time, to the second, as the metadata has it; the last one there is for times beyond.
fn after(now: SystemTime, expires: Duration) -> Instant {
    let seconds = (milliseconds(now) / 1000).saturating_add(expires.as_secs());
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Instant::from_second(seconds).ok())
        .unwrap_or(Instant::MAX)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error with its cause, in one line.
fn describe(error: &crate::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
