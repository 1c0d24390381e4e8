//! What the tool makes, read as a device reads it. Most components here are no components: what is signed does not matter to
//! signing, and `tests/publish.rs` has real ones.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use otahost_adapters::{RepositoryError, Role, TargetName};
use tempfile::TempDir;

use super::*;
use crate::component::digest;

fn component(name: &str, version: &str, bytes: &[u8]) -> Component {
    Component {
        name: TargetName::new(name, version).unwrap(),
        bytes: bytes.to_vec(),
        adapter: PublishedAdapter {
            adapter: name.into(),
            version: version.into(),
            digest: digest(bytes),
            size: bytes.len() as u64,
            state_version: 2,
            protocol: "A protocol".into(),
            contract: "otahost:adapter/update-adapter@0.1.0".into(),
        },
    }
}

/// A folder with keys in `keys` and, once something is published, a repository in `repo`.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        keygen(&desk.path("keys")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn request(&self) -> Publish {
        Publish::new(self.path("repo"), self.path("keys"))
    }

    fn publish(&self, components: &[Component]) -> Result<Published, PublishError> {
        publish_components(&self.request(), components.to_vec(), &mut |_| {})
    }

    /// The offers of the repository, as a device sees them that trusts this version of the root.
    fn seen_from(&self, root: u64) -> Result<Vec<String>, RepositoryError> {
        let root = fs::read(self.path(&format!("repo/metadata/{root}.root.json"))).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let disk = otahost_disk::RealDisk::new(scratch.path()).unwrap();
        let options = otahost_adapters::RepositoryOptions::new(
            otahost_adapters::RepositorySource::directory(&self.path("repo")).unwrap(),
            root,
            std::sync::Arc::new(disk),
            otahost_disk::Place::data("seen"),
            otahost_adapters::Clock {
                now: SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap()
                    .as_millis() as u64,
                quality: otahost_core::model::ClockQuality::Synced,
            },
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let repository = runtime.block_on(otahost_adapters::Repository::open(options))?;
        Ok(repository
            .offers()
            .iter()
            .map(|offer| offer.name.to_string())
            .collect())
    }

    /// Every file of the repository with its content.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, into);
                } else {
                    into.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(&self.path("repo"), &mut files);
        files
    }

    /// No metadata was written.
    fn has_no_metadata(&self) -> bool {
        self.files()
            .keys()
            .all(|path| path.ends_with(".publish.lock"))
    }

    fn hide(&self, key: &str) {
        fs::remove_file(self.path("keys").join(key).with_extension("key")).unwrap();
    }
}

#[test]
fn keys_are_readable_for_their_owner_only_and_never_overwritten_or_shown() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("keys");
    let generated = keygen(&folder).unwrap();
    let roles: Vec<&str> = generated.keys.iter().map(|key| key.role).collect();
    assert_eq!(roles, ["root", "targets", "snapshot", "timestamp"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let shown = format!(
        "{generated:?}{}",
        serde_json::to_string(&generated).unwrap()
    );
    for key in &generated.keys {
        assert_eq!(mode(&key.file), 0o600);
        assert_eq!(key.id.len(), 64);
        let private = fs::read(&key.file).unwrap();
        // The seed lies at this place of a PKCS #8 file of Ed25519 (RFC 8410, 7).
        let seed: String = private[16..48].iter().map(|b| format!("{b:02x}")).collect();
        assert!(!shown.contains(&seed));
    }
    fs::remove_file(folder.join("root.key")).unwrap();
    let before = fs::read(folder.join("targets.key")).unwrap();
    let error = keygen(&folder).unwrap_err();
    assert!(matches!(error, PublishError::KeysExist(_)), "{error}");
    assert_eq!(error.exit_code(), 8);
    assert_eq!(fs::read(folder.join("targets.key")).unwrap(), before);
    assert!(!folder.join("root.key").exists());
}

#[test]
fn a_repository_is_made_and_extended_and_devices_see_each_version() {
    let desk = Desk::new();
    let first = desk.publish(&[component("dji", "1.0.0", b"one")]).unwrap();
    assert!(first.created && first.root_is_new);
    assert_eq!((first.root_version, first.timestamp_version), (1, 1));
    let second = desk
        .publish(&[
            component("dji", "1.1.0", b"two"),
            component("wudun", "0.2.0", b"three"),
            component("dji", "1.0.0", b"one"),
        ])
        .unwrap();
    assert!(!second.created && !second.root_is_new);
    assert_eq!(second.added.len(), 2);
    assert_eq!(second.unchanged[0].version, "1.0.0");
    assert_eq!((second.offered, second.targets_version), (3, 2));
    assert_eq!(
        desk.seen_from(1).unwrap(),
        ["dji/1.0.0.wasm", "dji/1.1.0.wasm", "wudun/0.2.0.wasm"]
    );
    assert!(desk.path("repo/metadata/2.snapshot.json").is_file());
}

#[test]
fn a_published_version_with_other_content_is_refused_and_nothing_changes() {
    let desk = Desk::new();
    desk.publish(&[component("dji", "1.0.0", b"one")]).unwrap();
    let before = desk.files();
    let error = desk
        .publish(&[
            component("dji", "1.1.0", b"new"),
            component("dji", "1.0.0", b"other"),
        ])
        .unwrap_err();
    assert!(
        matches!(&error, PublishError::OtherContent { target, .. } if target == "dji/1.0.0.wasm"),
        "{error}"
    );
    assert!(error.to_string().contains("raise the"), "{error}");
    assert_eq!(error.exit_code(), 9);
    assert_eq!(desk.files(), before);
    // Nor twice in one call.
    let twice = [
        component("dji", "2.0.0", b"a"),
        component("dji", "2.0.0", b"b"),
    ];
    assert!(matches!(
        desk.publish(&twice),
        Err(PublishError::OtherContent { .. })
    ));
}

#[test]
fn what_expires_can_be_renewed_and_the_timestamp_needs_its_own_key_alone() {
    let desk = Desk::new();
    desk.publish(&[component("dji", "1.0.0", b"one")]).unwrap();
    for key in ["root", "targets", "snapshot"] {
        desk.hide(key);
    }
    let renewed = desk.publish(&[]).unwrap();
    assert_eq!(
        (
            renewed.targets_version,
            renewed.snapshot_version,
            renewed.timestamp_version
        ),
        (1, 1, 2)
    );
    assert_eq!(desk.seen_from(1).unwrap(), ["dji/1.0.0.wasm"]);
    let error = desk
        .publish(&[component("dji", "1.1.0", b"two")])
        .unwrap_err();
    assert!(
        matches!(&error, PublishError::WrongKeys { role, .. } if role == "targets"),
        "{error}"
    );
    assert_eq!(desk.seen_from(1).unwrap(), ["dji/1.0.0.wasm"]);
}

#[test]
fn new_keys_take_over_with_a_signature_of_the_old_root_and_never_without() {
    let desk = Desk::new();
    desk.publish(&[component("dji", "1.0.0", b"one")]).unwrap();
    keygen(&desk.path("new")).unwrap();
    keygen(&desk.path("strange")).unwrap();
    let rotate = |keys: &str, from: Option<&str>| {
        let request = Publish {
            rotate_from: from.map(|name| desk.path(name)),
            ..Publish::new(desk.path("repo"), desk.path(keys))
        };
        publish_components(&request, Vec::new(), &mut |_| {})
    };
    let before = desk.files();
    for (keys, from) in [
        ("new", None),
        ("new", Some("strange")),
        ("new", Some("new")),
    ] {
        let error = rotate(keys, from).unwrap_err();
        assert!(matches!(error, PublishError::WrongKeys { .. }), "{error}");
        assert_eq!(desk.files(), before);
    }
    let rotated = rotate("new", Some("keys")).unwrap();
    assert!(rotated.root_is_new && rotated.root_version == 2);
    assert_eq!(desk.seen_from(1).unwrap(), ["dji/1.0.0.wasm"]);
    assert_eq!(desk.seen_from(2).unwrap(), ["dji/1.0.0.wasm"]);
    // The old keys are worthless now, and the new ones can renew the root.
    assert!(matches!(
        desk.publish(&[]),
        Err(PublishError::WrongKeys { .. })
    ));
    assert_eq!(rotate("new", Some("new")).unwrap().root_version, 3);
    assert_eq!(desk.seen_from(1).unwrap(), ["dji/1.0.0.wasm"]);
}

#[test]
fn a_rotation_that_was_interrupted_is_completed_by_publishing_again() {
    let desk = Desk::new();
    desk.publish(&[component("dji", "1.0.0", b"one")]).unwrap();
    let timestamp = desk.path("repo/metadata/timestamp.json");
    let before = fs::read(&timestamp).unwrap();
    keygen(&desk.path("new")).unwrap();
    let request = Publish {
        rotate_from: Some(desk.path("keys")),
        ..Publish::new(desk.path("repo"), desk.path("new"))
    };
    publish_components(&request, Vec::new(), &mut |_| {}).unwrap();
    // The power went after the root and before the timestamp.
    fs::write(&timestamp, before).unwrap();
    assert_eq!(
        desk.seen_from(1).unwrap_err(),
        RepositoryError::WrongSignature {
            role: Role::Timestamp
        }
    );
    let request = Publish::new(desk.path("repo"), desk.path("new"));
    publish_components(&request, Vec::new(), &mut |_| {}).unwrap();
    assert_eq!(desk.seen_from(1).unwrap(), ["dji/1.0.0.wasm"]);
}

#[test]
fn a_repository_somebody_changed_is_not_signed_again() {
    let desk = Desk::new();
    desk.publish(&[component("dji", "1.0.0", b"one")]).unwrap();
    for part in ["1.root", "timestamp", "1.snapshot", "1.targets"] {
        let path = desk.path(&format!("repo/metadata/{part}.json"));
        let good = fs::read(&path).unwrap();
        let text = String::from_utf8(good.clone()).unwrap();
        for bad in [
            text.replacen("\"expires\": \"2", "\"expires\": \"3", 1),
            "{}".to_owned(),
        ] {
            assert_ne!(bad, text);
            fs::write(&path, bad).unwrap();
            let error = desk
                .publish(&[component("dji", "1.1.0", b"two")])
                .unwrap_err();
            assert!(
                matches!(&error, PublishError::Repository { file, .. } if *file == path),
                "{part}: {error}"
            );
        }
        fs::write(&path, good).unwrap();
    }
    let path = desk.path("repo/metadata/1.targets.json");
    fs::remove_file(path).unwrap();
    assert!(matches!(
        desk.publish(&[]),
        Err(PublishError::Repository { .. })
    ));
}

#[test]
fn a_component_that_is_gone_is_put_back_when_it_is_published_again() {
    let desk = Desk::new();
    let dji = component("dji", "1.0.0", b"one");
    desk.publish(std::slice::from_ref(&dji)).unwrap();
    let files = desk.files();
    let (path, _) = files
        .iter()
        .find(|(path, _)| path.extension().is_some_and(|e| e == "wasm"))
        .unwrap();
    fs::remove_file(path).unwrap();
    assert_eq!(
        desk.publish(std::slice::from_ref(&dji))
            .unwrap()
            .unchanged
            .len(),
        1
    );
    assert_eq!(fs::read(path).unwrap(), b"one");
    // A file that was changed is found out, not signed.
    fs::write(path, b"two").unwrap();
    let error = desk.publish(&[dji]).unwrap_err();
    assert!(
        matches!(
            error,
            PublishError::NotTaken(RepositoryError::Content { .. })
        ),
        "{error}"
    );
}

#[test]
fn two_publishers_at_once_and_a_rotation_of_nothing_are_refused() {
    let desk = Desk::new();
    let request = Publish {
        rotate_from: Some(desk.path("keys")),
        ..desk.request()
    };
    assert!(matches!(
        publish_components(&request, Vec::new(), &mut |_| {}),
        Err(PublishError::NothingToRotate(_))
    ));
    let lock = fs::File::create(desk.path("repo/.publish.lock")).unwrap();
    lock.lock().unwrap();
    let error = desk.publish(&[]).unwrap_err();
    assert!(matches!(error, PublishError::Busy(_)), "{error}");
    drop(lock);
    desk.publish(&[]).unwrap();
}

#[test]
fn more_than_devices_take_is_refused_before_anything_is_written() {
    let desk = Desk::new();
    let many: Vec<Component> = (0..=otahost_adapters::MAX_TARGETS)
        .map(|n| component("dji", &format!("{n}"), b"x"))
        .collect();
    let error = desk.publish(&many).unwrap_err();
    assert!(matches!(error, PublishError::Full { .. }), "{error}");
    let mut wordy = component("dji", "1.0.0", b"one");
    wordy.adapter.protocol = "p".repeat(1024 * 1024);
    let error = desk.publish(&[wordy]).unwrap_err();
    assert!(
        matches!(&error, PublishError::Repository { file, .. } if file.ends_with("1.targets.json")),
        "{error}"
    );
    assert!(desk.has_no_metadata());
}

#[test]
fn a_repository_cannot_be_begun_without_all_keys() {
    let desk = Desk::new();
    desk.hide("snapshot");
    let error = desk.publish(&[]).unwrap_err();
    assert!(
        matches!(&error, PublishError::NoKey { file } if file.ends_with("snapshot.key")),
        "{error}"
    );
    fs::write(desk.path("keys/snapshot.key"), b"no key").unwrap();
    let error = desk.publish(&[]).unwrap_err();
    assert!(matches!(error, PublishError::Sign { .. }), "{error}");
    assert!(desk.has_no_metadata());
}

#[tokio::test]
async fn publishing_may_be_called_from_async_code() {
    let desk = Desk::new();
    assert!(desk.publish(&[component("dji", "1.0.0", b"one")]).is_ok());
}
