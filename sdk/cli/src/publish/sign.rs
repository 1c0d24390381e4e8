//! Makes the four parts of the metadata.

use std::collections::HashMap;
use std::num::NonZeroU64;

use aws_lc_rs::rand::SystemRandom;
use jiff::Timestamp as Instant;
use serde::Serialize;
use serde_json::json;
use tough::editor::signed::SignedRole;
use tough::schema::{
    Hashes, KeyHolder, Metafile, Role, RoleKeys, RoleType, Root, Snapshot, Target, Targets,
    Timestamp,
};

use super::inspect::Component;
use super::keys::{KeyFolder, ROLES};
use super::{PublishError, PublishedAdapter};

/// The version of TUF the metadata is written for.
const SPECIFICATION: &str = "1.0.0";

/// The version after this one; 1 after none.
pub(super) fn next(version: Option<u64>) -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add(version.unwrap_or(0))
}

/// A root that gives each role the key of its name.
pub(super) async fn root(
    keys: &KeyFolder,
    version: NonZeroU64,
    expires: Instant,
) -> Result<Root, PublishError> {
    let mut root = Root {
        spec_version: SPECIFICATION.to_owned(),
        consistent_snapshot: true,
        version,
        expires,
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    for (name, _) in ROLES {
        let failed = |why: String| PublishError::Sign {
            role: "root".to_owned(),
            why,
        };
        let role: RoleType = name
            .parse()
            .map_err(|_| failed(format!("there is no role {name}")))?;
        let key = keys.role(name).await?;
        let id = key.key_id().map_err(|e| failed(e.to_string()))?;
        root.keys.insert(id.clone(), key);
        root.roles.insert(
            role,
            RoleKeys {
                keyids: vec![id],
                threshold: NonZeroU64::MIN,
                _extra: HashMap::new(),
            },
        );
    }
    Ok(root)
}

/// Signs a part with the keys in a folder that this root names for it.
pub(super) async fn signed<T: Role + Serialize>(
    part: T,
    root: &Root,
    keys: &KeyFolder,
) -> Result<SignedRole<T>, PublishError> {
    if !keys.has_one_of(root.keys(T::TYPE)) {
        return Err(PublishError::WrongKeys {
            keys: keys.path.clone(),
            role: T::TYPE.to_string(),
        });
    }
    SignedRole::new(
        part,
        &KeyHolder::Root(root.clone()),
        &keys.sources,
        &SystemRandom::new(),
    )
    .await
    .map_err(|e| PublishError::Sign {
        role: T::TYPE.to_string(),
        why: e.to_string(),
    })
}

pub(super) fn targets(
    version: NonZeroU64,
    expires: Instant,
    all: HashMap<tough::TargetName, Target>,
) -> Targets {
    Targets {
        spec_version: SPECIFICATION.to_owned(),
        version,
        expires,
        targets: all,
        delegations: None,
        _extra: HashMap::new(),
    }
}

pub(super) fn snapshot(version: NonZeroU64, expires: Instant, targets: Metafile) -> Snapshot {
    let mut snapshot = Snapshot::new(SPECIFICATION.to_owned(), version, expires);
    snapshot.meta.insert("targets.json".to_owned(), targets);
    snapshot
}

pub(super) fn timestamp(version: NonZeroU64, expires: Instant, snapshot: Metafile) -> Timestamp {
    let mut timestamp = Timestamp::new(SPECIFICATION.to_owned(), version, expires);
    timestamp.meta.insert("snapshot.json".to_owned(), snapshot);
    timestamp
}

/// How another part names this one.
pub(super) fn meta<T: Role + Serialize>(part: &SignedRole<T>) -> Metafile {
    Metafile {
        length: Some(*part.length()),
        hashes: Some(hashes(part.sha256().to_vec())),
        version: part.signed().signed.version(),
        _extra: HashMap::new(),
    }
}

fn hashes(sha256: Vec<u8>) -> Hashes {
    Hashes {
        sha256: sha256.into(),
        _extra: HashMap::new(),
    }
}

/// A component as the targets metadata names it.
pub(super) fn target(component: &Component) -> Target {
    let PublishedAdapter {
        adapter,
        version,
        state_version,
        protocol,
        contract,
        ..
    } = &component.adapter;
    let custom = [
        ("adapter", json!(adapter)),
        ("version", json!(version)),
        ("state_version", json!(state_version)),
        ("protocol", json!(protocol)),
        ("contract", json!(contract)),
    ];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &component.bytes);
    Target {
        length: component.bytes.len() as u64,
        hashes: hashes(digest.as_ref().to_vec()),
        custom: custom
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
        _extra: HashMap::new(),
    }
}
