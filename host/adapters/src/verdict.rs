//! What `tough` found wrong, in our words.

use std::error::Error as _;

use tough::TransportError;
use tough::error::Error;
use tough::schema::RoleType;
use url::Url;

use crate::read::ReadError;
use crate::{RepositoryError, Role};

/// What is kept of a library's sentence, in characters.
const MAX_WHY: usize = 200;

pub(crate) fn of(error: Error) -> RepositoryError {
    match error {
        Error::VerifyMetadata {
            role: found,
            source,
            ..
        } => signature(role(found), &source),
        Error::VerifyTrustedMetadata { source, .. } => {
            RepositoryError::TrustedRoot(source.to_string())
        }
        Error::ParseTrustedMetadata { source, .. } => {
            RepositoryError::TrustedRoot(source.to_string())
        }
        Error::ParseMetadata {
            role: found,
            source,
            ..
        } => {
            let why = short(&source.to_string());
            // The library refuses the worst names while it reads.
            if found == RoleType::Targets && why.contains("target name") {
                RepositoryError::NameEscape(why)
            } else {
                malformed(role(found), why)
            }
        }
        Error::OlderMetadata {
            role: found,
            current_version,
            new_version,
            ..
        } => {
            if new_version < current_version {
                RepositoryError::RolledBack {
                    role: role(found),
                    seen: current_version,
                    offered: new_version,
                }
            } else {
                RepositoryError::Mixed(format!(
                    "after {} version {current_version} comes version {new_version}",
                    role(found)
                ))
            }
        }
        Error::OlderSnapshotInTimestamp {
            snapshot_new,
            snapshot_old,
            ..
        } => RepositoryError::RolledBack {
            role: Role::Snapshot,
            seen: snapshot_old,
            offered: snapshot_new,
        },
        Error::SnapshotRoleRollback {
            old_role_version,
            new_role_version,
            ..
        } => RepositoryError::RolledBack {
            role: Role::Targets,
            seen: old_role_version,
            offered: new_role_version,
        },
        Error::VersionMismatch {
            role: found,
            fetched,
            expected,
            ..
        } => RepositoryError::Mixed(format!(
            "its {} metadata has version {fetched}, and version {expected} belongs to this state",
            role(found)
        )),
        missing @ Error::SnapshotRoleMissing { .. } => {
            RepositoryError::Mixed(short(&missing.to_string()))
        }
        bad @ (Error::TimestampMetaLength { .. } | Error::MissingSnapshotMeta { .. }) => {
            malformed(Role::Timestamp, short(&bad.to_string()))
        }
        bad @ Error::SnapshotTargetsMetaMissing { .. } => {
            malformed(Role::Snapshot, short(&bad.to_string()))
        }
        Error::MaxUpdatesExceeded {
            max_root_updates, ..
        } => {
            let limit = usize::try_from(max_root_updates).unwrap_or(usize::MAX);
            RepositoryError::TooMany {
                what: "new versions of its root",
                count: limit.saturating_add(1),
                limit,
            }
        }
        Error::Transport { url, source, .. } => transport(&url, &source),
        disk @ (Error::DatastoreInit { .. }
        | Error::DatastoreCreate { .. }
        | Error::DatastoreOpen { .. }
        | Error::DatastoreRemove { .. }
        | Error::DatastoreSerialize { .. }) => scratch(&disk),
        // What is left concerns delegations of the targets, which are read with them.
        other => malformed(Role::Targets, short(&other.to_string())),
    }
}

/// The folder for temporary files is out of order.
pub(crate) fn scratch(error: &dyn std::error::Error) -> RepositoryError {
    RepositoryError::Memory {
        doing: "written",
        why: error.to_string(),
        advice: "the folder for temporary files needs 4 MiB; TMPDIR names another".to_owned(),
    }
}

fn transport(url: &Url, error: &TransportError) -> RepositoryError {
    let what = url.path().trim_start_matches('/');
    let Some(cause) = error.source() else {
        return RepositoryError::Transport(what.to_owned());
    };
    if let Some(read) = cause.downcast_ref::<ReadError>() {
        return read.clone().of(what);
    }
    match cause.downcast_ref::<Error>() {
        Some(Error::MaxSizeExceeded { max_size, .. }) => RepositoryError::Oversize {
            what: what.to_owned(),
            limit: *max_size,
        },
        Some(Error::HashMismatch { .. }) => {
            RepositoryError::Mixed(format!("{what} is not the file that belongs to this state"))
        }
        _ => RepositoryError::Transport(format!("{what}: {}", short(&cause.to_string()))),
    }
}

fn signature(role: Role, error: &tough::schema::Error) -> RepositoryError {
    match error {
        tough::schema::Error::SignatureThreshold {
            threshold, valid, ..
        } if *valid > 0 => RepositoryError::Threshold {
            role,
            valid: *valid,
            needed: *threshold,
        },
        tough::schema::Error::SignatureThreshold { .. } => RepositoryError::WrongSignature { role },
        other => malformed(role, short(&other.to_string())),
    }
}

fn role(role: RoleType) -> Role {
    match role {
        RoleType::Root => Role::Root,
        RoleType::Timestamp => Role::Timestamp,
        RoleType::Snapshot => Role::Snapshot,
        RoleType::Targets | RoleType::DelegatedTargets => Role::Targets,
    }
}

fn malformed(role: Role, why: String) -> RepositoryError {
    RepositoryError::Malformed { role, why }
}

/// A sentence that may quote what was read.
fn short(text: &str) -> String {
    let cut: String = text.chars().take(MAX_WHY).collect();
    cut.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
