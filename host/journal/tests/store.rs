//! The journal without power cuts: order, errors, damaged files.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use otahost_disk::sim::{Image, Loss, SimDisk};
use otahost_disk::{Disk, Open, Place, RealDisk};
use otahost_journal::{Change, Journal, JournalError, Key};

fn place() -> Place {
    Place::data("journal")
}

fn put(key: Key, value: &[u8]) -> Change {
    Change::Put(key, value.to_vec())
}

fn open(disk: &SimDisk) -> Result<Journal, JournalError> {
    Journal::open(Arc::new(disk.clone()), place())
}

#[test]
fn rows_come_back_in_the_order_of_their_keys_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir.path()).unwrap());
    let journal = Journal::open(Arc::clone(&disk), place()).unwrap();
    let keys = [
        Key::Target("dock".into()),
        Key::Outbox { seq: 300 },
        Key::Outbox { seq: 2 },
        Key::Meta("boot".into()),
    ];
    let changes: Vec<Change> = keys
        .iter()
        .map(|key| put(key.clone(), key.to_string().as_bytes()))
        .collect();
    journal.commit(&changes).unwrap();
    journal
        .commit(&[
            Change::Delete(Key::Outbox { seq: 2 }),
            Change::Delete(Key::Job(1)),
        ])
        .unwrap();
    drop(journal);
    let journal = Journal::open(disk, place()).unwrap();
    let found: Vec<Key> = journal
        .load()
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(
        found,
        [
            Key::Meta("boot".into()),
            Key::Outbox { seq: 300 },
            Key::Target("dock".into())
        ]
    );
    assert_eq!(
        journal.get(&Key::Outbox { seq: 300 }).unwrap().unwrap(),
        b"outbox 300"
    );
    assert_eq!(journal.get(&Key::Outbox { seq: 2 }).unwrap(), None);
}

#[test]
fn changes_of_a_commit_are_made_in_order() {
    let journal = open(&SimDisk::new()).unwrap();
    let key = Key::Job(1);
    journal
        .commit(&[
            put(key.clone(), b"a"),
            put(key.clone(), b"b"),
            Change::Delete(key.clone()),
            put(key.clone(), b"c"),
        ])
        .unwrap();
    assert_eq!(journal.get(&key).unwrap().unwrap(), b"c");
}

#[test]
fn an_empty_commit_costs_nothing() {
    let disk = SimDisk::new();
    let journal = open(&disk).unwrap();
    let before = disk.operations();
    journal.commit(&[]).unwrap();
    assert_eq!(disk.operations(), before);
}

#[test]
fn the_file_is_preallocated() {
    let disk = SimDisk::new();
    let _journal = open(&disk).unwrap();
    assert_eq!(
        disk.open(&place(), Open::Read).unwrap().len().unwrap(),
        8 << 20
    );
}

#[test]
fn the_same_commits_are_the_same_operations() {
    let run = || {
        let disk = SimDisk::new();
        let journal = open(&disk).unwrap();
        for n in 0..10 {
            journal
                .commit(&[put(Key::Job(n), &[n as u8; 700])])
                .unwrap();
        }
        drop(journal);
        disk.log()
    };
    assert_eq!(run(), run());
}

/// Whichever operation fails, the journal refuses what comes after, and opened again it has the whole commit or nothing of it.
#[test]
fn after_a_failed_operation_it_refuses_until_it_is_opened_again() {
    let (one, two, three) = (Key::Job(1), Key::Job(2), Key::Job(3));
    for nth in 0..100 {
        let disk = SimDisk::new();
        let journal = open(&disk).unwrap();
        journal.commit(&[put(one.clone(), b"1")]).unwrap();
        disk.fail_after(nth, io::ErrorKind::StorageFull);
        let outcome = journal.commit(&[put(two.clone(), b"2"), Change::Delete(one.clone())]);
        let Err(e) = outcome else {
            assert!(nth > 2, "a commit has several operations");
            return;
        };
        assert!(matches!(e, JournalError::Commit { .. }), "{e}");
        let refused = journal.commit(&[put(three.clone(), b"3")]).unwrap_err();
        assert!(matches!(refused, JournalError::Refused { .. }), "{refused}");
        drop(journal);
        let journal = open(&disk).unwrap();
        let found: Vec<Key> = journal
            .load()
            .unwrap()
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert!(
            found == [one.clone()] || found == [two.clone()],
            "operation {nth}: {found:?}"
        );
        journal.commit(&[put(three.clone(), b"3")]).unwrap();
    }
    panic!("every one of 100 operations failed a commit");
}

#[test]
fn a_disk_that_fails_while_it_is_opened_is_no_damaged_journal() {
    let disk = SimDisk::new();
    drop(open(&disk).unwrap());
    // An unclean end, so that opening has something to write.
    let journal = open(&disk).unwrap();
    journal.commit(&[put(Key::Job(1), b"1")]).unwrap();
    let image = disk.image(Loss::AllDropped);
    for nth in 0..100 {
        let disk = SimDisk::from_image(image.clone());
        disk.fail_after(nth, io::ErrorKind::StorageFull);
        let Err(e) = open(&disk) else {
            assert!(nth > 0, "opening writes something");
            return;
        };
        assert!(
            matches!(e, JournalError::Open { .. }),
            "operation {nth}: {e}"
        );
        assert_eq!(open(&disk).unwrap().load().unwrap().len(), 1);
    }
    panic!("every one of 100 operations failed the opening");
}

#[test]
fn a_file_that_is_no_journal_is_named_and_left_alone() {
    let contents: [&[u8]; 4] = [b"", b"hello", &[0; 8 << 20], &[b'x'; 20_000]];
    for content in contents {
        let mut image = Image::new();
        image.write(&place(), content);
        let disk = SimDisk::from_image(image.clone());
        let refused = open(&disk).unwrap_err();
        assert!(matches!(refused, JournalError::Corrupt { .. }), "{refused}");
        assert!(
            refused.to_string().contains("{data}/journal is damaged"),
            "{refused}"
        );
        assert_eq!(disk.image(Loss::AllKept), image);
    }
}

/// Damage anywhere: found, or in a place that holds nothing. Never a panic, a wrong row, or a fresh journal.
#[test]
fn a_damaged_file_never_shows_wrong_rows() {
    let disk = SimDisk::new();
    let journal = open(&disk).unwrap();
    for n in 0..40 {
        journal
            .commit(&[
                put(Key::Job(n), &[n as u8; 1_500]),
                put(Key::State(format!("{n}")), &[7; 100]),
            ])
            .unwrap();
    }
    let crashed = disk.image(Loss::AllDropped);
    let expected: BTreeMap<Key, Vec<u8>> = journal.load().unwrap().into_iter().collect();
    drop(journal);
    let closed = disk.image(Loss::AllDropped);
    let mut found_out = 0;
    for image in [crashed, closed] {
        let sound = image.read(&place()).unwrap();
        let end = sound.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        // The heads, ours and the store's behind it, densely; the rest by samples that share no factor with the pages.
        let spots = (0..64)
            .chain(4_096..4_496)
            .chain((4_496..end).step_by(4_001));
        for spot in spots {
            let disk = SimDisk::from_image(image.clone());
            disk.open(&place(), Open::Write)
                .unwrap()
                .write_at(&[sound[spot] ^ 0x41], spot as u64)
                .unwrap();
            match open(&disk) {
                Err(JournalError::Corrupt { .. }) => found_out += 1,
                Err(e) => panic!("byte {spot}: {e}"),
                Ok(journal) => match journal.load() {
                    Ok(rows) => {
                        let rows: BTreeMap<_, _> = rows.into_iter().collect();
                        // A damaged newest commit after a cut is a commit that was not finished, for all that can be seen.
                        let lost = expected.len() - rows.len();
                        assert!(lost == 0 || lost == 2, "byte {spot}: {lost} rows lost");
                        assert!(
                            rows.iter()
                                .all(|(key, value)| expected.get(key) == Some(value)),
                            "byte {spot}"
                        );
                    }
                    Err(e) => panic!("byte {spot}: {e}"),
                },
            }
        }
    }
    assert!(found_out > 100, "{found_out}");
}
