//! Repositories that are wrong, each in one way, made by the test that shows it: what it is called, and that nothing of it is taken.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use otahost_adapters::{Clock, RepositoryError, Role};
use otahost_core::model::ClockQuality;
use serde_json::json;
use support::{DAY, Device, Key, Publisher, TODAY, meta, sign, versions};

/// The repository with one thing done to it before its state was signed.
fn after(change: impl FnOnce(&mut Publisher)) -> Publisher {
    let mut publisher = Publisher::new();
    publisher.add("dji", "1.0.0", b"the first version");
    change(&mut publisher);
    publisher.publish();
    publisher
}

#[tokio::test]
async fn an_expired_part_is_named_with_its_date_and_an_expired_timestamp_is_a_repository_that_stands_still()
 {
    for role in [Role::Root, Role::Snapshot, Role::Targets] {
        let publisher = after(|p| {
            match role {
                Role::Root => p.expires.root = TODAY - DAY,
                Role::Snapshot => p.expires.snapshot = TODAY - DAY,
                _ => p.expires.targets = TODAY - DAY,
            }
            p.put_root(&[]);
        });
        let error = Device::trusting(&publisher).refuses(&publisher.files).await;
        assert_eq!(
            error,
            RepositoryError::Expired {
                role,
                expires: "2026-05-31T00:00:00Z".into()
            }
        );
    }
    // To the millisecond: what expires now has expired.
    let publisher = after(|p| p.expires.timestamp = TODAY);
    let mut device = Device::trusting(&publisher);
    let error = device.refuses(&publisher.files).await;
    assert!(matches!(error, RepositoryError::Frozen { .. }), "{error:?}");
    device.clock.now -= 1;
    assert!(device.look().await.is_ok());
}

#[tokio::test]
async fn a_clock_that_was_never_set_opens_nothing_and_a_floor_judges_what_it_can() {
    let publisher = Publisher::with_one();
    let mut device = Device::trusting(&publisher);
    device.clock.quality = ClockQuality::Unset;
    assert_eq!(
        device.refuses(&publisher.files).await,
        RepositoryError::ClockUnset
    );
    // The floor is long before the expiry: nobody knows whether it has passed.
    device.clock = Clock {
        now: TODAY - 300 * DAY,
        quality: ClockQuality::Floor,
    };
    let repository = device.look().await.unwrap();
    assert!(!repository.expiry_is_certain());
    // The floor is after it: it has passed for certain.
    device.clock.now = TODAY + 8 * DAY;
    let error = device.look().await.unwrap_err();
    assert!(matches!(error, RepositoryError::Frozen { .. }), "{error:?}");
}

#[tokio::test]
async fn an_older_state_than_one_seen_before_is_refused_even_after_a_power_cut() {
    let mut publisher = Publisher::with_one();
    let old = publisher.files.clone();
    publisher.add("dji", "1.1.0", b"the second version");
    publisher.publish();
    let mut device = Device::trusting(&publisher);
    device.look_at(&publisher.files).await.unwrap();
    assert_eq!(
        device.refuses(&old).await,
        RepositoryError::RolledBack {
            role: Role::Timestamp,
            seen: 2,
            offered: 1
        }
    );
    // The state itself may be seen again.
    let repository = device.look_at(&publisher.files).await.unwrap();
    assert_eq!(versions(&repository, "dji"), ["1.0.0", "1.1.0"]);
}

#[tokio::test]
async fn an_older_snapshot_under_a_new_timestamp_and_older_targets_under_a_new_snapshot_are_rollbacks()
 {
    let mut publisher = Publisher::with_one();
    let old_snapshot = publisher.files["metadata/1.snapshot.json"].clone();
    let old_targets = publisher.files["metadata/1.targets.json"].clone();
    publisher.publish();
    let mut device = Device::trusting(&publisher);
    device.look_at(&publisher.files).await.unwrap();
    publisher.state = 3;
    let timestamp = sign(
        publisher.timestamp(meta(1, Some(&old_snapshot))),
        &[&publisher.timestamp_key],
    );
    publisher.put_timestamp(timestamp);
    assert_eq!(
        device.refuses(&publisher.files).await,
        RepositoryError::RolledBack {
            role: Role::Snapshot,
            seen: 2,
            offered: 1
        }
    );
    let snapshot = sign(
        publisher.snapshot(meta(1, Some(&old_targets))),
        &[&publisher.snapshot_key],
    );
    publisher.seal_snapshot(snapshot);
    assert_eq!(
        device.refuses(&publisher.files).await,
        RepositoryError::RolledBack {
            role: Role::Targets,
            seen: 2,
            offered: 1
        }
    );
}

#[tokio::test]
async fn a_part_signed_by_a_stranger_is_refused_by_its_name() {
    let stranger = Key::new();
    let mut publisher = Publisher::with_one();
    let honest = publisher.files.clone();
    let forge = |publisher: &mut Publisher, role| match role {
        Role::Timestamp => {
            let snapshot = publisher.files["metadata/1.snapshot.json"].clone();
            let forged = sign(publisher.timestamp(meta(1, Some(&snapshot))), &[&stranger]);
            publisher.put_timestamp(forged);
        }
        Role::Snapshot => {
            let targets = publisher.files["metadata/1.targets.json"].clone();
            let forged = sign(publisher.snapshot(meta(1, Some(&targets))), &[&stranger]);
            publisher.seal_snapshot(forged);
        }
        _ => {
            let forged = sign(publisher.targets(), &[&stranger]);
            publisher.seal(forged);
        }
    };
    for role in [Role::Timestamp, Role::Snapshot, Role::Targets] {
        publisher.files = honest.clone();
        forge(&mut publisher, role);
        let error = Device::trusting(&publisher).refuses(&publisher.files).await;
        assert_eq!(error, RepositoryError::WrongSignature { role });
    }
    // Another publisher altogether.
    let other = Publisher::with_one();
    let error = Device::trusting(&publisher).refuses(&other.files).await;
    assert!(
        matches!(error, RepositoryError::WrongSignature { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_signature_over_other_bytes_is_no_signature() {
    let mut publisher = Publisher::with_one();
    let timestamp = String::from_utf8(publisher.files["metadata/timestamp.json"].clone()).unwrap();
    let longer = timestamp.replace("2026-06-08", "2036-06-08");
    assert_ne!(longer, timestamp);
    publisher.put_timestamp(longer.into_bytes());
    let error = Device::trusting(&publisher).refuses(&publisher.files).await;
    assert_eq!(
        error,
        RepositoryError::WrongSignature {
            role: Role::Timestamp
        }
    );
}

#[tokio::test]
async fn fewer_signatures_than_the_root_asks_for_are_counted() {
    let mut publisher = after(|p| {
        p.targets_keys = vec![Key::new(), Key::new()];
        p.targets_threshold = 2;
        p.put_root(&[]);
    });
    assert!(
        Device::trusting(&publisher)
            .look_at(&publisher.files)
            .await
            .is_ok()
    );
    let one = sign(publisher.targets(), &[&publisher.targets_keys[0]]);
    publisher.seal(one);
    assert_eq!(
        Device::trusting(&publisher).refuses(&publisher.files).await,
        RepositoryError::Threshold {
            role: Role::Targets,
            valid: 1,
            needed: 2
        }
    );
}

#[tokio::test]
async fn parts_of_different_states_do_not_pass_for_one() {
    let mut publisher = Publisher::with_one();
    let first = publisher.files.clone();
    publisher.add("dji", "1.1.0", b"the second version");
    publisher.publish();
    for part in ["snapshot", "targets"] {
        // The file of the second state has the content of the first.
        let mut files = publisher.files.clone();
        files.insert(
            format!("metadata/2.{part}.json"),
            first[&format!("metadata/1.{part}.json")].clone(),
        );
        let error = Device::trusting(&publisher).refuses(&files).await;
        let other_size = matches!(error, RepositoryError::Oversize { .. });
        assert!(
            matches!(error, RepositoryError::Mixed(_)) && !other_size,
            "{error:?}"
        );
        // It is not there at all: a copy that was cut short.
        files.remove(&format!("metadata/2.{part}.json"));
        let error = Device::trusting(&publisher).refuses(&files).await;
        assert!(
            matches!(&error, RepositoryError::Missing { what, .. } if what.contains(part)),
            "{error:?}"
        );
    }
    // A repository that names versions only, without digests.
    let mut bare = Publisher::with_one();
    let targets = bare.files["metadata/1.targets.json"].clone();
    bare.state = 2;
    let snapshot = sign(bare.snapshot(meta(2, None)), &[&bare.snapshot_key]);
    let timestamp = sign(bare.timestamp(meta(2, None)), &[&bare.timestamp_key]);
    bare.put_targets(targets);
    bare.put_snapshot(snapshot);
    bare.put_timestamp(timestamp);
    let error = Device::trusting(&bare).refuses(&bare.files).await;
    assert!(
        matches!(&error, RepositoryError::Mixed(why) if why.contains("version 1")),
        "{error:?}"
    );
}

#[tokio::test]
async fn metadata_of_more_than_a_mebibyte_is_not_read_whoever_announces_it() {
    let large = vec![b' '; 1024 * 1024 + 1];
    for part in ["timestamp", "1.snapshot", "1.targets", "2.root"] {
        let mut publisher = Publisher::with_one();
        let path = format!("metadata/{part}.json");
        match part {
            // Signed with its size: the holder of the key may not fill our memory either.
            "1.snapshot" => publisher.seal_snapshot(large.clone()),
            "1.targets" => publisher.seal(large.clone()),
            _ => {
                publisher.files.insert(path.clone(), large.clone());
            }
        }
        let error = Device::trusting(&publisher).refuses(&publisher.files).await;
        assert_eq!(
            error,
            RepositoryError::Oversize {
                what: path,
                limit: 1024 * 1024
            }
        );
    }
}

#[tokio::test]
async fn a_chain_of_roots_without_end_is_given_up() {
    let mut publisher = Publisher::with_one();
    for _ in 0..300 {
        publisher.root_version += 1;
        publisher.put_root(&[]);
    }
    let error = Device::trusting(&publisher).refuses(&publisher.files).await;
    assert!(
        matches!(error, RepositoryError::TooMany { limit: 256, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_target_whose_name_leads_out_of_its_folder_makes_the_whole_repository_refused() {
    for name in [
        "../../etc/otahost.toml",
        "dji/../../x.wasm",
        "/etc/passwd",
        "dji\\..\\x.wasm",
        "dji//1.0.0.wasm",
    ] {
        let publisher = after(|p| {
            p.components.insert(name.into(), (vec![1], json!({})));
        });
        let error = Device::trusting(&publisher).refuses(&publisher.files).await;
        assert!(
            matches!(error, RepositoryError::NameEscape(_)),
            "{name}: {error:?}"
        );
    }
    // Those that the library refuses while it reads.
    let mut publisher = Publisher::with_one();
    let targets = String::from_utf8(publisher.files["metadata/1.targets.json"].clone()).unwrap();
    let targets = targets.replace("dji/1.0.0.wasm", "..");
    publisher.seal(targets.into_bytes());
    let error = Device::trusting(&publisher).refuses(&publisher.files).await;
    assert!(matches!(error, RepositoryError::NameEscape(_)), "{error:?}");
}

#[tokio::test]
async fn files_that_are_no_metadata_are_named() {
    for (part, role) in [
        ("timestamp", Role::Timestamp),
        ("1.snapshot", Role::Snapshot),
        ("1.targets", Role::Targets),
        ("2.root", Role::Root),
    ] {
        for bad in ["", "<html>not found</html>", "{}", "[[[[[["] {
            let mut publisher = Publisher::with_one();
            match part {
                "1.snapshot" => publisher.seal_snapshot(bad.into()),
                "1.targets" => publisher.seal(bad.into()),
                _ => {
                    let path = format!("metadata/{part}.json");
                    publisher.files.insert(path, bad.into());
                }
            }
            let error = Device::trusting(&publisher).refuses(&publisher.files).await;
            assert!(
                matches!(&error, RepositoryError::Malformed { role: named, .. } if *named == role),
                "{part}: {error:?}"
            );
        }
    }
}

#[tokio::test]
async fn whoever_stole_the_timestamp_key_can_delay_but_not_install() {
    let mut publisher = Publisher::with_one();
    let mut device = Device::trusting(&publisher);
    device.look_at(&publisher.files).await.unwrap();
    let honest = publisher.files.clone();
    let thief = Key::new();

    // A state of his own, which he cannot sign.
    publisher.state = 2;
    publisher.add("dji", "6.6.6", b"malware");
    let targets = sign(publisher.targets(), &[&thief]);
    let snapshot = sign(
        publisher.snapshot(meta(2, Some(&targets))),
        &[&thief, &publisher.timestamp_key],
    );
    publisher.put_targets(targets);
    publisher.seal_snapshot(snapshot);
    assert_eq!(
        device.refuses(&publisher.files).await,
        RepositoryError::WrongSignature {
            role: Role::Snapshot
        }
    );

    // The true state for ever, with timestamps that go on: he delays, and no further than snapshot and targets live.
    publisher.files = honest;
    publisher.expires.timestamp = TODAY + 9_999 * DAY;
    let snapshot = publisher.files["metadata/1.snapshot.json"].clone();
    publisher.state = 1_000_000;
    let timestamp = sign(
        publisher.timestamp(meta(1, Some(&snapshot))),
        &[&publisher.timestamp_key],
    );
    publisher.put_timestamp(timestamp);
    let repository = device.look_at(&publisher.files).await.unwrap();
    assert_eq!(versions(&repository, "dji"), ["1.0.0"]);
    device.clock.now = TODAY + 31 * DAY;
    let error = device.look().await.unwrap_err();
    assert!(
        matches!(
            error,
            RepositoryError::Expired {
                role: Role::Snapshot,
                ..
            }
        ),
        "{error:?}"
    );
}
