//! A publisher that can do everything wrong, and a device that looks at what it made. Keys are made anew by every test.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use otahost_adapters::{Clock, Repository, RepositoryError, RepositoryOptions, RepositorySource};
use otahost_core::model::ClockQuality;
use otahost_disk::sim::{Loss, SimDisk};
use otahost_disk::{Place, Seam};
use serde_json::{Value, json};
use tough::TargetName;
use tough::schema::decoded::{Decoded, Hex};
use tough::schema::{
    Hashes, Metafile, Role, RoleKeys, RoleType, Root, Signature, Signed, Snapshot, Target, Targets,
    Timestamp,
};
use tough::sign::Sign as _;

/// 2026-06-01T00:00:00Z, the day of every test, in milliseconds since the Unix epoch.
pub(crate) const TODAY: u64 = 1_780_272_000_000;

/// One day in milliseconds.
pub(crate) const DAY: u64 = 24 * 3600 * 1000;

/// Path and bytes of every file of a repository.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A key that signs.
pub(crate) struct Key(Ed25519KeyPair);

impl Key {
    pub(crate) fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    pub(crate) fn id(&self) -> Decoded<Hex> {
        self.0.tuf_key().key_id().unwrap()
    }
}

pub(crate) fn sign<T: Role>(role: T, keys: &[&Key]) -> Vec<u8> {
    let message = role.canonical_form().unwrap();
    let signatures = keys
        .iter()
        .map(|key| Signature {
            keyid: key.id(),
            sig: key.0.sign(&message).as_ref().to_vec().into(),
        })
        .collect();
    serde_json::to_vec_pretty(&Signed {
        signed: role,
        signatures,
    })
    .unwrap()
}

pub(crate) fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn version(n: u64) -> NonZeroU64 {
    NonZeroU64::new(n).unwrap()
}

/// Which metadata names which: with size and digest, unless a test leaves them out.
pub(crate) fn meta(n: u64, bytes: Option<&[u8]>) -> Metafile {
    Metafile {
        length: bytes.map(|b| b.len() as u64),
        hashes: bytes.map(|b| Hashes {
            sha256: sha256(b).into(),
            _extra: HashMap::new(),
        }),
        version: version(n),
        _extra: HashMap::new(),
    }
}

pub(crate) struct Expires {
    pub(crate) root: u64,
    pub(crate) timestamp: u64,
    pub(crate) snapshot: u64,
    pub(crate) targets: u64,
}

fn date(milliseconds: u64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(i64::try_from(milliseconds).unwrap()).unwrap()
}

pub(crate) struct Publisher {
    pub(crate) root_keys: Vec<Key>,
    pub(crate) targets_keys: Vec<Key>,
    pub(crate) targets_threshold: u64,
    pub(crate) snapshot_key: Key,
    pub(crate) timestamp_key: Key,
    pub(crate) root_version: u64,
    /// Version of targets, snapshot and timestamp.
    pub(crate) state: u64,
    pub(crate) expires: Expires,
    pub(crate) consistent: bool,
    /// By name as signed.
    pub(crate) components: BTreeMap<String, (Vec<u8>, Value)>,
    /// What lies in the repository now.
    pub(crate) files: Files,
}

impl Publisher {
    /// With a root, and no state yet.
    pub(crate) fn new() -> Self {
        let mut publisher = Self {
            root_keys: vec![Key::new()],
            targets_keys: vec![Key::new()],
            targets_threshold: 1,
            snapshot_key: Key::new(),
            timestamp_key: Key::new(),
            root_version: 1,
            state: 0,
            expires: Expires {
                root: TODAY + 365 * DAY,
                timestamp: TODAY + 7 * DAY,
                snapshot: TODAY + 30 * DAY,
                targets: TODAY + 90 * DAY,
            },
            consistent: true,
            components: BTreeMap::new(),
            files: Files::new(),
        };
        publisher.put_root(&[]);
        publisher
    }

    /// With one version of one adapter published.
    pub(crate) fn with_one() -> Self {
        let mut publisher = Self::new();
        publisher.add("dji", "1.0.0", b"the first version");
        publisher.publish();
        publisher
    }

    pub(crate) fn add(&mut self, adapter: &str, version: &str, bytes: &[u8]) {
        let custom = json!({
            "adapter": adapter, "version": version, "state_version": 3, "protocol": "A protocol",
            "contract": "otahost:adapter/update-adapter@0.1.0",
        });
        self.components.insert(
            format!("{adapter}/{version}.wasm"),
            (bytes.to_vec(), custom),
        );
    }

    pub(crate) fn root(&self) -> Root {
        let mut keys = HashMap::new();
        let mut roles = HashMap::new();
        let mut role = |role: RoleType, holders: Vec<&Key>, threshold: u64| {
            let keyids = holders.iter().map(|key| key.id()).collect();
            keys.extend(holders.iter().map(|key| (key.id(), key.0.tuf_key())));
            roles.insert(
                role,
                RoleKeys {
                    keyids,
                    threshold: version(threshold),
                    _extra: HashMap::new(),
                },
            );
        };
        role(RoleType::Root, self.root_keys.iter().collect(), 1);
        role(
            RoleType::Targets,
            self.targets_keys.iter().collect(),
            self.targets_threshold,
        );
        role(RoleType::Snapshot, vec![&self.snapshot_key], 1);
        role(RoleType::Timestamp, vec![&self.timestamp_key], 1);
        Root {
            spec_version: "1.0.0".into(),
            consistent_snapshot: self.consistent,
            version: version(self.root_version),
            expires: date(self.expires.root),
            keys,
            roles,
            _extra: HashMap::new(),
        }
    }

    /// Signs a root with our keys and these, and puts it into the repository.
    pub(crate) fn put_root(&mut self, also: &[&Key]) {
        let signers: Vec<&Key> = self.root_keys.iter().chain(also.iter().copied()).collect();
        let bytes = sign(self.root(), &signers);
        self.files
            .insert(format!("metadata/{}.root.json", self.root_version), bytes);
    }

    pub(crate) fn root_bytes(&self, version: u64) -> Vec<u8> {
        self.files[&format!("metadata/{version}.root.json")].clone()
    }

    pub(crate) fn targets(&self) -> Targets {
        let mut targets = Targets::new(
            "1.0.0".into(),
            version(self.state),
            date(self.expires.targets),
        );
        for (name, (bytes, custom)) in &self.components {
            let target = Target {
                length: bytes.len() as u64,
                hashes: Hashes {
                    sha256: sha256(bytes).into(),
                    _extra: HashMap::new(),
                },
                custom: serde_json::from_value(custom.clone()).unwrap(),
                _extra: HashMap::new(),
            };
            targets.add_target(TargetName::new(name.clone()).unwrap(), target);
        }
        targets
    }

    pub(crate) fn snapshot(&self, targets: Metafile) -> Snapshot {
        let mut snapshot = Snapshot::new(
            "1.0.0".into(),
            version(self.state),
            date(self.expires.snapshot),
        );
        snapshot.meta.insert("targets.json".into(), targets);
        snapshot
    }

    pub(crate) fn timestamp(&self, snapshot: Metafile) -> Timestamp {
        let mut timestamp = Timestamp::new(
            "1.0.0".into(),
            version(self.state),
            date(self.expires.timestamp),
        );
        timestamp.meta.insert("snapshot.json".into(), snapshot);
        timestamp
    }

    fn versioned(&self, name: &str) -> String {
        if self.consistent {
            format!("metadata/{}.{name}.json", self.state)
        } else {
            format!("metadata/{name}.json")
        }
    }

    pub(crate) fn put_targets(&mut self, bytes: Vec<u8>) {
        self.files.insert(self.versioned("targets"), bytes);
    }

    pub(crate) fn put_snapshot(&mut self, bytes: Vec<u8>) {
        self.files.insert(self.versioned("snapshot"), bytes);
    }

    pub(crate) fn put_timestamp(&mut self, bytes: Vec<u8>) {
        self.files.insert("metadata/timestamp.json".into(), bytes);
    }

    /// Signs snapshot and timestamp around these targets.
    pub(crate) fn seal(&mut self, targets: Vec<u8>) {
        let snapshot = sign(
            self.snapshot(meta(self.state, Some(&targets))),
            &[&self.snapshot_key],
        );
        self.put_targets(targets);
        self.seal_snapshot(snapshot);
    }

    /// Signs a timestamp around this snapshot.
    pub(crate) fn seal_snapshot(&mut self, snapshot: Vec<u8>) {
        let timestamp = sign(
            self.timestamp(meta(self.state, Some(&snapshot))),
            &[&self.timestamp_key],
        );
        self.put_snapshot(snapshot);
        self.put_timestamp(timestamp);
    }

    /// The next state, with all components.
    pub(crate) fn publish(&mut self) {
        self.state += 1;
        for (name, (bytes, _)) in &self.components {
            // No file system would take the worst names; what is signed has them all the same.
            if otahost_adapters::TargetName::parse(name).is_err() {
                continue;
            }
            let path = match name.split_once('/') {
                Some((folder, file)) if self.consistent => {
                    format!("targets/{folder}/{}.{file}", hex(&sha256(bytes)))
                }
                _ => format!("targets/{name}"),
            };
            self.files.insert(path, bytes.clone());
        }
        let signers: Vec<&Key> = self.targets_keys.iter().collect();
        let targets = sign(self.targets(), &signers);
        self.seal(targets);
    }

    /// New keys for everything; gives the old root keys.
    pub(crate) fn rotate_keys(&mut self) -> Vec<Key> {
        self.root_version += 1;
        self.targets_keys = vec![Key::new()];
        self.snapshot_key = Key::new();
        self.timestamp_key = Key::new();
        std::mem::replace(&mut self.root_keys, vec![Key::new()])
    }

    /// A rotation as it should be: signed by both.
    pub(crate) fn rotate(&mut self) -> Vec<Key> {
        let old = self.rotate_keys();
        self.put_root(&old.iter().collect::<Vec<_>>());
        self.publish();
        old
    }
}

/// A device with a disk that loses what is not synced, and a medium at `/stick`.
pub(crate) struct Device {
    pub(crate) disk: SimDisk,
    pub(crate) trusted: Vec<u8>,
    pub(crate) clock: Clock,
}

impl Device {
    pub(crate) fn trusting(publisher: &Publisher) -> Self {
        Self {
            disk: SimDisk::new(),
            trusted: publisher.root_bytes(1),
            clock: Clock {
                now: TODAY,
                quality: ClockQuality::Synced,
            },
        }
    }

    pub(crate) fn memory() -> Place {
        Place::data("adapters/vendor/seen.json")
    }

    /// A power cut that takes all that was not synced, and another medium.
    pub(crate) fn insert(&mut self, files: &Files) {
        let mut image = self.disk.image(Loss::AllDropped);
        let stick: Vec<Place> = image
            .files()
            .filter(|place| place.path().starts_with("/stick"))
            .cloned()
            .collect();
        stick.iter().for_each(|place| image.remove(place));
        for (path, bytes) in files {
            image.write(&Place::operator(Path::new("/stick").join(path)), bytes);
        }
        self.disk = SimDisk::from_image(image);
    }

    pub(crate) fn options(&self) -> RepositoryOptions {
        let mut options = RepositoryOptions::new(
            RepositorySource::directory(Path::new("/stick")).unwrap(),
            self.trusted.clone(),
            std::sync::Arc::new(self.disk.clone()),
            Place::data("adapters/vendor"),
            self.clock,
        );
        options.seam = Seam::Inline;
        options
    }

    pub(crate) async fn look(&self) -> Result<Repository, RepositoryError> {
        Repository::open(self.options()).await
    }

    pub(crate) async fn look_at(&mut self, files: &Files) -> Result<Repository, RepositoryError> {
        self.insert(files);
        self.look().await
    }

    /// The error of a look; panics when there is none.
    pub(crate) async fn refuses(&mut self, files: &Files) -> RepositoryError {
        match self.look_at(files).await {
            Ok(repository) => panic!("it was taken: {:?}", repository.offers()),
            Err(error) => error,
        }
    }
}

/// The versions offered of one adapter.
pub(crate) fn versions(repository: &Repository, adapter: &str) -> Vec<String> {
    repository
        .offers()
        .iter()
        .filter(|offer| offer.name.adapter() == adapter)
        .map(|offer| offer.name.version().to_owned())
        .collect()
}
