//! What an honest repository offers, and how a component is fetched from it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::sync::Arc;

use otahost_adapters::{
    MAX_COMPONENT, MAX_TARGETS, Repository, RepositoryError, RepositoryOptions, RepositorySource,
};
use otahost_disk::{Place, RealDisk};
use serde_json::json;
use support::{DAY, Device, Publisher, TODAY, hex, sha256, versions};

#[tokio::test]
async fn a_repository_lists_each_version_with_what_its_publisher_signed_and_gives_its_bytes() {
    let mut publisher = Publisher::new();
    publisher.add("dji", "1.0.0", b"the first version");
    publisher.add("dji", "1.1.0", b"the second version");
    publisher.add("wudun", "0.3.0-rc.1+5", b"another adapter");
    publisher
        .components
        .insert("README.txt".into(), (b"hello".to_vec(), json!({})));
    publisher.publish();
    let mut device = Device::trusting(&publisher);
    let repository = device.look_at(&publisher.files).await.unwrap();
    let names: Vec<String> = repository
        .offers()
        .iter()
        .map(|o| o.name.to_string())
        .collect();
    assert_eq!(
        names,
        [
            "dji/1.0.0.wasm",
            "dji/1.1.0.wasm",
            "wudun/0.3.0-rc.1+5.wasm"
        ]
    );
    let offer = &repository.offers()[1];
    let bytes = b"the second version";
    assert_eq!(offer.digest, format!("sha256:{}", hex(&sha256(bytes))));
    assert_eq!(offer.size, bytes.len() as u64);
    assert_eq!(offer.state_version, Some(3));
    assert_eq!(offer.protocol.as_deref(), Some("A protocol"));
    assert_eq!(
        offer.contract.as_deref(),
        Some("otahost:adapter/update-adapter@0.1.0")
    );
    assert_eq!(repository.passed_over(), ["README.txt"]);
    assert_eq!(repository.fetch("dji", "1.1.0").await.unwrap(), bytes);
    assert_eq!(repository.root_version(), 1);
    assert_eq!(repository.expires(), TODAY + 7 * DAY);
    assert_eq!(repository.expires_text(), "2026-06-08T00:00:00Z");
    assert!(repository.expiry_is_certain());
}

#[tokio::test]
async fn a_version_that_is_not_offered_is_refused_with_those_that_are() {
    let mut publisher = Publisher::with_one();
    publisher.add("dji", "1.1.0", b"more");
    publisher.publish();
    let mut device = Device::trusting(&publisher);
    let repository = device.look_at(&publisher.files).await.unwrap();
    let error = repository.fetch("dji", "9.9.9").await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::NotOffered { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("1.0.0, 1.1.0"), "{error}");
    let error = repository.fetch("../dji", "1.0.0").await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::NotOffered { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_repository_of_tuftool_and_one_without_consistent_snapshots_can_be_read() {
    let mut tuftool = Publisher::with_one();
    let digest = hex(&sha256(b"the first version"));
    let bytes = tuftool
        .files
        .remove(&format!("targets/dji/{digest}.1.0.0.wasm"))
        .unwrap();
    tuftool
        .files
        .insert(format!("targets/{digest}.dji/1.0.0.wasm"), bytes);
    let mut plain = Publisher::new();
    plain.consistent = false;
    plain.put_root(&[]);
    plain.add("dji", "1.0.0", b"the first version");
    plain.publish();
    assert!(plain.files.contains_key("targets/dji/1.0.0.wasm"));
    for publisher in [tuftool, plain] {
        let mut device = Device::trusting(&publisher);
        let repository = device.look_at(&publisher.files).await.unwrap();
        assert_eq!(
            repository.fetch("dji", "1.0.0").await.unwrap(),
            b"the first version"
        );
    }
}

#[tokio::test]
async fn a_component_that_was_changed_shortened_lengthened_or_left_out_is_refused() {
    let publisher = Publisher::with_one();
    let path = format!(
        "targets/dji/{}.1.0.0.wasm",
        hex(&sha256(b"the first version"))
    );
    let fetch = async |bytes: Option<&[u8]>| {
        let mut files = publisher.files.clone();
        match bytes {
            Some(bytes) => files.insert(path.clone(), bytes.to_vec()),
            None => files.remove(&path),
        };
        let mut device = Device::trusting(&publisher);
        let repository = device.look_at(&files).await.unwrap();
        repository.fetch("dji", "1.0.0").await.unwrap_err()
    };
    let changed = fetch(Some(b"The first version")).await;
    assert!(
        matches!(&changed, RepositoryError::Content { target, .. } if target == "dji/1.0.0.wasm"),
        "{changed:?}"
    );
    let shorter = fetch(Some(b"the first")).await;
    assert!(
        matches!(shorter, RepositoryError::Content { .. }),
        "{shorter:?}"
    );
    let longer = fetch(Some(b"the first version and more")).await;
    assert!(
        matches!(longer, RepositoryError::Oversize { limit: 17, .. }),
        "{longer:?}"
    );
    let missing = fetch(None).await;
    assert!(
        matches!(&missing, RepositoryError::Missing { what, .. } if what.contains("dji/1.0.0.wasm")),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_component_beyond_the_limit_is_listed_and_never_read() {
    let mut publisher = Publisher::with_one();
    publisher.state += 1;
    let mut targets = publisher.targets();
    for target in targets.targets.values_mut() {
        target.length = MAX_COMPONENT + 1;
    }
    let targets = support::sign(targets, &[&publisher.targets_keys[0]]);
    publisher.seal(targets);
    let mut device = Device::trusting(&publisher);
    let repository = device.look_at(&publisher.files).await.unwrap();
    assert_eq!(repository.offers()[0].size, MAX_COMPONENT + 1);
    let error = repository.fetch("dji", "1.0.0").await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::Oversize { limit, .. } if limit == MAX_COMPONENT),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_thousand_targets_are_taken_and_one_more_is_not() {
    let mut publisher = Publisher::new();
    for n in 0..MAX_TARGETS {
        publisher
            .components
            .insert(format!("a/{n}.wasm"), (vec![1], json!({})));
    }
    publisher.publish();
    let mut device = Device::trusting(&publisher);
    let repository = device.look_at(&publisher.files).await.unwrap();
    assert_eq!(versions(&repository, "a").len(), MAX_TARGETS);
    publisher
        .components
        .insert("a/more.wasm".into(), (vec![1], json!({})));
    publisher.publish();
    let error = device.refuses(&publisher.files).await;
    assert!(
        matches!(error, RepositoryError::TooMany { count: 1_001, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_target_that_says_it_is_another_adapter_or_version_is_refused() {
    for custom in [json!({"adapter": "wudun"}), json!({"version": "2.0.0"})] {
        let mut publisher = Publisher::new();
        publisher
            .components
            .insert("dji/1.0.0.wasm".into(), (vec![1], custom));
        publisher.publish();
        let error = Device::trusting(&publisher).refuses(&publisher.files).await;
        assert!(
            matches!(&error, RepositoryError::Malformed { why, .. } if why.contains("says it is")),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_stick_on_a_real_disk_is_read_and_a_link_out_of_it_is_not_followed() {
    let publisher = Publisher::with_one();
    let stick = tempfile::tempdir().unwrap();
    for (path, bytes) in &publisher.files {
        let path = stick.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let data = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::new(data.path()).unwrap());
    let look = async |path: &Path| {
        let options = RepositoryOptions::new(
            RepositorySource::directory(path).unwrap(),
            publisher.root_bytes(1),
            disk.clone(),
            Place::data("adapters/vendor"),
            Device::trusting(&publisher).clock,
        );
        Repository::open(options).await
    };
    let repository = look(stick.path()).await.unwrap();
    assert_eq!(
        repository.fetch("dji", "1.0.0").await.unwrap(),
        b"the first version"
    );
    assert!(data.path().join("adapters/vendor/seen.json").is_file());

    let outside = tempfile::tempdir().unwrap();
    let timestamp = stick.path().join("metadata/timestamp.json");
    let elsewhere = outside.path().join("timestamp.json");
    std::fs::rename(&timestamp, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &timestamp).unwrap();
    let error = look(stick.path()).await.unwrap_err();
    assert!(matches!(error, RepositoryError::Transport(_)), "{error:?}");

    let error = look(&outside.path().join("nothing")).await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::Transport(why) if why.contains("mounted")),
        "{error:?}"
    );
}
