//! Keys change over the years, and are stolen. Which root holds, and what becomes of what was seen under another.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use otahost_adapters::{RepositoryError, Role};
use otahost_disk::sim::{Image, Loss, Replay, SimDisk};
use support::{Device, Key, Publisher, meta, sign, versions};

#[tokio::test]
async fn a_device_follows_several_rotations_from_the_root_it_was_shipped_with() {
    let mut publisher = Publisher::with_one();
    publisher.rotate();
    publisher.rotate();
    publisher.add("dji", "1.1.0", b"the second version");
    publisher.publish();
    let mut device = Device::trusting(&publisher);
    let repository = device.look_at(&publisher.files).await.unwrap();
    assert_eq!(repository.root_version(), 3);
    assert_eq!(versions(&repository, "dji"), ["1.0.0", "1.1.0"]);
}

#[tokio::test]
async fn a_new_root_without_a_signature_of_the_old_one_is_refused() {
    let mut publisher = Publisher::with_one();
    publisher.rotate_keys();
    publisher.put_root(&[]);
    publisher.publish();
    assert_eq!(
        Device::trusting(&publisher).refuses(&publisher.files).await,
        RepositoryError::WrongSignature { role: Role::Root }
    );
}

#[tokio::test]
async fn a_new_root_that_only_the_old_one_signed_is_refused() {
    let mut publisher = Publisher::with_one();
    let old = publisher.rotate_keys();
    let root = sign(publisher.root(), &[&old[0]]);
    publisher.publish();
    publisher.files.insert("metadata/2.root.json".into(), root);
    assert_eq!(
        Device::trusting(&publisher).refuses(&publisher.files).await,
        RepositoryError::WrongSignature { role: Role::Root }
    );
}

#[tokio::test]
async fn a_root_that_skips_a_version_is_refused() {
    let mut publisher = Publisher::with_one();
    publisher.root_version = 3;
    let root = sign(publisher.root(), &[&publisher.root_keys[0]]);
    publisher.files.insert("metadata/2.root.json".into(), root);
    let error = Device::trusting(&publisher).refuses(&publisher.files).await;
    assert!(matches!(error, RepositoryError::Mixed(_)), "{error:?}");
}

#[tokio::test]
async fn keys_that_were_rotated_away_are_worthless_even_where_the_new_root_is_withheld() {
    let mut publisher = Publisher::with_one();
    let old_state = publisher.files.clone();
    publisher.rotate();
    let mut device = Device::trusting(&publisher);
    device.look_at(&publisher.files).await.unwrap();
    // The repository of before, whose keys somebody may have by now.
    assert_eq!(
        device.refuses(&old_state).await,
        RepositoryError::WrongSignature {
            role: Role::Timestamp
        }
    );
}

#[tokio::test]
async fn a_new_root_is_remembered_even_where_the_rest_is_refused() {
    let mut publisher = Publisher::with_one();
    let old_state = publisher.files.clone();
    publisher.rotate();
    let mut broken = publisher.files.clone();
    broken.remove("metadata/timestamp.json");
    let mut device = Device::trusting(&publisher);
    let error = device.refuses(&broken).await;
    assert!(
        matches!(error, RepositoryError::Missing { .. }),
        "{error:?}"
    );
    assert_eq!(
        device.refuses(&old_state).await,
        RepositoryError::WrongSignature {
            role: Role::Timestamp
        }
    );
}

#[tokio::test]
async fn a_rotation_forgets_the_versions_a_thief_of_the_old_keys_had_raised() {
    let mut publisher = Publisher::with_one();
    let snapshot = publisher.files["metadata/1.snapshot.json"].clone();
    publisher.state = 1_000_000;
    let raised = sign(
        publisher.timestamp(meta(1, Some(&snapshot))),
        &[&publisher.timestamp_key],
    );
    publisher.put_timestamp(raised);
    let mut device = Device::trusting(&publisher);
    device.look_at(&publisher.files).await.unwrap();
    publisher.state = 1;
    publisher.publish();
    assert_eq!(
        device.refuses(&publisher.files).await,
        RepositoryError::RolledBack {
            role: Role::Timestamp,
            seen: 1_000_000,
            offered: 2
        }
    );
    publisher.rotate();
    let repository = device.look_at(&publisher.files).await.unwrap();
    assert_eq!(repository.root_version(), 2);
    // From here on it is remembered again.
    let third = publisher.files.clone();
    publisher.publish();
    device.look_at(&publisher.files).await.unwrap();
    assert!(matches!(
        device.refuses(&third).await,
        RepositoryError::RolledBack { .. }
    ));
}

#[tokio::test]
async fn a_new_snapshot_key_alone_forgets_them_too_also_when_the_look_that_saw_it_failed() {
    let mut publisher = Publisher::with_one();
    // The thief had the snapshot key; the timestamp's server signed what it was given.
    publisher.state = 999_999;
    publisher.publish();
    let mut device = Device::trusting(&publisher);
    device.look_at(&publisher.files).await.unwrap();
    publisher.state = 1;
    publisher.root_version = 2;
    publisher.snapshot_key = Key::new();
    publisher.put_root(&[]);
    publisher.publish();
    let mut broken = publisher.files.clone();
    broken.remove("metadata/timestamp.json");
    let error = device.refuses(&broken).await;
    assert!(
        matches!(error, RepositoryError::Missing { .. }),
        "{error:?}"
    );
    let repository = device.look_at(&publisher.files).await.unwrap();
    assert_eq!(repository.root_version(), 2);
}

#[tokio::test]
async fn firmware_may_ship_an_older_or_a_newer_root_of_the_same_publisher() {
    let mut publisher = Publisher::with_one();
    publisher.rotate();
    publisher.rotate();
    let before = publisher.files.clone();
    publisher.publish();
    let mut device = Device::trusting(&publisher);
    device.look_at(&publisher.files).await.unwrap();
    for shipped in [2, 3, 1] {
        device.trusted = publisher.root_bytes(shipped);
        // The chain need not be there again, and nothing is forgotten.
        let mut files = publisher.files.clone();
        files.remove("metadata/2.root.json");
        files.remove("metadata/3.root.json");
        assert_eq!(device.look_at(&files).await.unwrap().root_version(), 3);
        assert!(matches!(
            device.refuses(&before).await,
            RepositoryError::RolledBack { .. }
        ));
    }
    publisher.rotate();
    device.trusted = publisher.root_bytes(4);
    let repository = device.look_at(&publisher.files).await.unwrap();
    assert_eq!(repository.root_version(), 4);
}

#[tokio::test]
async fn another_trusted_root_begins_anew() {
    let mut first = Publisher::with_one();
    first.publish();
    let second = Publisher::with_one();
    let mut device = Device::trusting(&first);
    device.look_at(&first.files).await.unwrap();
    device.trusted = second.root_bytes(1);
    // Its version is lower than that of the other publisher, whose keys say nothing here.
    assert!(device.look_at(&second.files).await.is_ok());
    let error = device.refuses(&first.files).await;
    assert!(
        matches!(error, RepositoryError::WrongSignature { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_trusted_root_that_cannot_be_used_is_the_operators_to_mend() {
    let publisher = Publisher::with_one();
    let unsigned = sign(publisher.root(), &[]);
    let stranger = sign(publisher.root(), &[&Key::new()]);
    let timestamp = publisher.files["metadata/timestamp.json"].clone();
    for root in [unsigned, stranger, timestamp, b"".to_vec(), vec![0xff; 9]] {
        let mut device = Device::trusting(&publisher);
        device.trusted = root;
        let error = device.refuses(&publisher.files).await;
        assert!(
            matches!(error, RepositoryError::TrustedRoot(_)),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_damaged_memory_is_told_and_not_taken_for_an_empty_one() {
    let publisher = Publisher::with_one();
    let mut device = Device::trusting(&publisher);
    device.look_at(&publisher.files).await.unwrap();
    let good = device.disk.read_outside(&Device::memory()).unwrap();
    let newer = String::from_utf8(good.clone())
        .unwrap()
        .replace("\"format\":1", "\"format\":2");
    for bad in [&good[..good.len() / 2], b"", newer.as_bytes()] {
        device.disk.write_outside(&Device::memory(), bad);
        let error = device.look().await.unwrap_err();
        assert!(
            matches!(&error, RepositoryError::Memory { doing: "read", advice, .. } if advice.contains("seen.json")),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn what_is_already_known_is_not_written_again() {
    let publisher = Publisher::with_one();
    let mut device = Device::trusting(&publisher);
    device.look_at(&publisher.files).await.unwrap();
    let operations = device.disk.operations();
    device.look().await.unwrap();
    assert_eq!(device.disk.operations(), operations);
}

#[tokio::test]
async fn a_power_cut_at_any_moment_leaves_the_old_or_the_new_memory() {
    let mut publisher = Publisher::with_one();
    let mut device = Device::trusting(&publisher);
    device.look_at(&publisher.files).await.unwrap();
    let old = device.disk.read_outside(&Device::memory()).unwrap();
    publisher.publish();
    device.insert(&publisher.files);
    device.look().await.unwrap();
    let new = device.disk.read_outside(&Device::memory()).unwrap();
    assert_ne!(old, new);
    let record = device.disk.record();
    let mut replay = Replay::new(&record.start);
    let losses = || {
        [Loss::AllDropped, Loss::AllKept]
            .into_iter()
            .chain((0..50).map(Loss::Seeded))
    };
    let whole = |image: &Image| {
        let found = image.read(&Device::memory()).unwrap();
        found == old || found == new
    };
    for op in &record.ops {
        assert!(losses().all(|loss| whole(&replay.image(loss))));
        replay.apply(op);
    }
    for loss in losses() {
        let image = replay.image(loss);
        assert_eq!(image.read(&Device::memory()).unwrap(), new);
        let started = Device {
            disk: SimDisk::from_image(image),
            trusted: device.trusted.clone(),
            clock: device.clock,
        };
        assert!(started.look().await.is_ok());
    }
}

#[tokio::test]
async fn a_disk_that_cannot_keep_the_memory_makes_the_look_fail() {
    let publisher = Publisher::with_one();
    let mut device = Device::trusting(&publisher);
    device.insert(&publisher.files);
    device.disk.fail_after(2, std::io::ErrorKind::StorageFull);
    let error = device.look().await.unwrap_err();
    assert!(
        matches!(
            error,
            RepositoryError::Memory {
                doing: "written",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(device.look().await.is_ok());
}
