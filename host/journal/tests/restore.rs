//! The journal of a device that has to go on: after a sync that failed, with a damaged file, on a disk that takes nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use otahost_disk::sim::{Image, Loss, SimDisk, Trouble, Where};
use otahost_disk::{Disk, Open, Place};
use otahost_journal::{Change, Damage, Journal, JournalError, Key, Restored};

type Rows = BTreeMap<Key, Vec<u8>>;

fn place() -> Place {
    Place::data("journal")
}

fn open(disk: &SimDisk) -> Result<Journal, JournalError> {
    Journal::open(Arc::new(disk.clone()), place())
}

fn restore(disk: &SimDisk, same_boot: bool) -> Result<Restored, JournalError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Journal::restore(&disk, &place(), |_| same_boot)
}

fn job(n: u64, value: u8) -> Change {
    Change::Put(Key::Job(n), vec![value; 300])
}

fn rows(journal: &Journal) -> Rows {
    journal.load().unwrap().into_iter().collect()
}

/// A journal with a hundred rows of several kinds, and what is in it.
fn full(disk: &SimDisk) -> (Journal, Rows) {
    let journal = open(disk).unwrap();
    for n in 0..40 {
        let changes = [
            job(n, n as u8),
            Change::Put(Key::Outbox { seq: n }, vec![7; 900]),
            Change::Put(Key::State(format!("{n}")), vec![8; 2_000]),
        ];
        journal.commit(&changes).unwrap();
    }
    let rows = rows(&journal);
    (journal, rows)
}

/// One operation of a commit fails, and the journal is taken up again by `again` in the same process; what that shows is there after
/// a power cut too. Gives what was not.
fn lost_after_failures(again: impl Fn(&SimDisk) -> Journal) -> Vec<String> {
    let mut lost = Vec::new();
    for nth in 0..40 {
        let disk = SimDisk::new();
        let (journal, _) = full(&disk);
        disk.fail_after(nth, io::ErrorKind::Other);
        if journal.commit(&[job(1, 99), job(2, 99)]).is_ok() {
            assert!(nth > 2, "a commit has several operations");
            return lost;
        }
        drop(journal);
        let journal = again(&disk);
        let shown = rows(&journal);
        // Far from the rows of the commit that failed, whose pages it would write again.
        let next = (Key::State("z".into()), vec![98; 300]);
        journal
            .commit(&[Change::Put(next.0.clone(), next.1.clone())])
            .unwrap();
        let after = SimDisk::from_image(disk.image(Loss::AllDropped));
        let expected: Rows = shown.into_iter().chain([next]).collect();
        match open(&after) {
            Ok(journal) if rows(&journal) == expected => {}
            Ok(_) => lost.push(format!("operation {nth}: other rows")),
            Err(e) => lost.push(format!("operation {nth}: {e}")),
        }
    }
    panic!("every one of 40 operations failed a commit");
}

#[test]
fn after_a_failed_sync_what_the_same_boot_shows_is_written_anew_and_lasts() {
    let restored = |disk: &SimDisk| restore(disk, true).unwrap().journal;
    assert_eq!(lost_after_failures(restored), Vec::<String>::new());
}

#[test]
fn a_journal_that_is_only_opened_again_after_a_failed_sync_loses_what_it_shows() {
    let lost = lost_after_failures(|disk| open(disk).unwrap());
    assert_ne!(lost, Vec::<String>::new());
}

#[test]
fn a_journal_that_was_closed_or_comes_from_another_boot_is_not_written_anew() {
    let disk = SimDisk::new();
    let (journal, expected) = full(&disk);
    let crashed = SimDisk::from_image(disk.image(Loss::AllDropped));
    drop(journal);
    for (disk, same_boot) in [(&disk, true), (&crashed, false)] {
        let restored = restore(disk, same_boot).unwrap();
        assert_eq!(restored.rows.into_iter().collect::<Rows>(), expected);
        let made = |op: &otahost_disk::sim::Op| matches!(op, otahost_disk::sim::Op::Rename { .. });
        let before = if same_boot { 1 } else { 0 };
        assert_eq!(disk.log().iter().filter(|op| made(op)).count(), before);
    }
    let restored = restore(&SimDisk::from_image(disk.image(Loss::AllKept)), true);
    drop(restored.unwrap());
}

#[test]
fn a_full_disk_keeps_no_journal_from_going_on_that_has_its_space() {
    let disk = SimDisk::new();
    let (journal, expected) = full(&disk);
    disk.fail_after(0, io::ErrorKind::StorageFull);
    journal.commit(&[job(1, 99)]).unwrap_err();
    drop(journal);
    disk.set_trouble(Some((Where::Data, Trouble::Full)));
    let restored = restore(&disk, true).unwrap();
    assert_eq!(restored.rows.len(), expected.len());
    restored.journal.commit(&[job(1, 98)]).unwrap();
}

/// Bytes of the file changed in one place, so that the store refuses it.
fn damaged(image: &Image, spot: usize) -> Option<SimDisk> {
    let disk = SimDisk::from_image(image.clone());
    let file = disk.open(&place(), Open::Write).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, spot as u64).unwrap();
    file.write_at(&[byte[0] ^ 0x41], spot as u64).unwrap();
    file.sync().unwrap();
    let disk = SimDisk::from_image(disk.image(Loss::AllDropped));
    let refused = matches!(
        Journal::copy_of(&disk, &place()).and_then(|journal| journal.load()),
        Err(JournalError::Corrupt { .. })
    );
    refused.then_some(disk)
}

#[test]
fn a_damaged_journal_is_kept_aside_and_most_rows_go_on_and_never_a_wrong_one() {
    let disk = SimDisk::new();
    let (journal, expected) = full(&disk);
    let crashed = disk.image(Loss::AllDropped);
    drop(journal);
    let closed = disk.image(Loss::AllDropped);
    let (mut tried, mut most) = (0, 0);
    for image in [crashed, closed] {
        let bytes = image.read(&place()).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        for spot in (0..48).step_by(5).chain((4_096..end).step_by(2_713)) {
            let Some(disk) = damaged(&image, spot) else {
                continue;
            };
            tried += 1;
            let before = disk.read_outside(&place()).unwrap();
            let restored = restore(&disk, true).unwrap();
            let damage = Damage::of(&restored.rows).unwrap();
            assert_eq!(damage.rows + 1, restored.rows.len(), "byte {spot}");
            assert_eq!(
                disk.read_outside(&Place::data(&damage.kept)).unwrap(),
                before
            );
            let left = expected.len() - damage.rows;
            most += usize::from(left <= 20);
            for (key, value) in restored.rows {
                if key == Damage::key() {
                    continue;
                }
                assert_eq!(expected.get(&key), Some(&value), "byte {spot}: {key}");
            }
            restored.journal.commit(&[job(1, 97)]).unwrap();
            drop(restored.journal);
            let again = restore(&disk, true).unwrap();
            assert_eq!(Damage::of(&again.rows), Some(damage), "byte {spot}");
            assert_eq!(
                disk.list(&Place::data("")).unwrap(),
                ["journal", "journal.damaged"]
            );
        }
    }
    assert!(tried > 20, "{tried}");
    println!(
        "{tried} damaged journals; of {most} at most 20 of {} rows were lost",
        expected.len()
    );
    assert!(most * 10 >= tried * 7, "{most} of {tried}");
}

#[test]
fn a_power_cut_while_a_damaged_journal_is_replaced_leaves_it_or_the_new_one() {
    let disk = SimDisk::new();
    let (journal, _) = full(&disk);
    drop(journal);
    let image = disk.image(Loss::AllDropped);
    let end = image.read(&place()).unwrap();
    let end = end.iter().rposition(|byte| *byte != 0).unwrap();
    let disk = (4_096..end)
        .step_by(997)
        .find_map(|spot| {
            damaged(&image, spot)
                .filter(|disk| Journal::readable_rows(disk, &place()).is_ok_and(|rows| rows > 50))
        })
        .unwrap();
    let restored = restore(&disk, true).unwrap();
    let expected: Rows = restored.rows.into_iter().collect();
    drop(restored.journal);
    let record = disk.record();
    for cut in 0..=record.ops.len() {
        for loss in [Loss::AllDropped, Loss::AllKept, Loss::NamesKept]
            .into_iter()
            .chain((0..4).map(Loss::Seeded))
        {
            let disk = SimDisk::from_image(record.image_after(cut, loss));
            let restored = restore(&disk, false).unwrap();
            let rows: Rows = restored.rows.into_iter().collect();
            assert!(rows == expected, "cut {cut}, {loss:?}: {} rows", rows.len());
        }
    }
}

#[test]
fn a_copy_takes_commits_and_changes_no_byte_of_the_file() {
    let disk = SimDisk::new();
    let (_open, expected) = full(&disk);
    let before = disk.operations();
    disk.set_trouble(Some((Where::Everywhere, Trouble::ReadOnly)));
    let copy = Journal::copy_of(&disk, &place()).unwrap();
    assert_eq!(rows(&copy), expected);
    copy.commit(&[job(1, 99)]).unwrap();
    assert_eq!(rows(&copy)[&Key::Job(1)], [99; 300]);
    assert_eq!(disk.operations(), before);
    let empty = Journal::in_memory(&place()).unwrap();
    empty.commit(&[job(1, 1)]).unwrap();
    assert_eq!(rows(&empty).len(), 1);
}

#[test]
fn what_keeps_the_journal_from_being_used_says_what_it_needs() {
    const MIB: u64 = 1 << 20;
    for (trouble, free, needs) in [
        (Trouble::Full, Some(5 * MIB), "free 3 MiB more"),
        (Trouble::Full, None, "free 8 MiB more"),
        (Trouble::ReadOnly, None, "writable again"),
        (Trouble::Failing, None, "may be failing"),
    ] {
        let disk = SimDisk::new();
        disk.set_trouble(Some((Where::Data, trouble)));
        let error = restore(&disk, true).unwrap_err();
        assert!(matches!(error, JournalError::Open { .. }), "{error}");
        assert!(error.needs(free).contains(needs), "{}", error.needs(free));
        assert!(error.to_string().contains("{data}/journal"), "{error}");
        // And goes on once it has it.
        disk.set_trouble(None);
        restore(&disk, true)
            .unwrap()
            .journal
            .commit(&[job(1, 1)])
            .unwrap();
    }
}

/// A disk that cannot be read is no damaged journal: nothing is put aside.
#[test]
fn a_file_that_cannot_be_read_is_left_where_it_is() {
    let disk = SimDisk::new();
    let (journal, expected) = full(&disk);
    drop(journal);
    disk.set_trouble(Some((Where::Data, Trouble::Unreadable)));
    let error = restore(&disk, true).unwrap_err();
    assert!(!matches!(error, JournalError::Corrupt { .. }), "{error}");
    disk.set_trouble(None);
    let restored = restore(&disk, true).unwrap();
    assert_eq!(restored.rows.into_iter().collect::<Rows>(), expected);
}
