//! The journal over power cuts: what was acknowledged is there, and no commit is there by half.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use otahost_disk::sim::{Controls, Image, Loss, Replay, SimDisk};
use otahost_disk::{Disk, Place};
use otahost_journal::{Change, Journal, JournalError, Key};

const COMMITS: u64 = 60;

type Rows = BTreeMap<Key, Vec<u8>>;

fn place() -> Place {
    Place::data("journal")
}

fn open(image: &Image) -> Result<(SimDisk, Journal), JournalError> {
    let disk = SimDisk::from_image(image.clone());
    let journal = Journal::open(Arc::new(disk.clone()), place())?;
    Ok((disk, journal))
}

fn rows(journal: &Journal) -> Rows {
    journal.load().unwrap().into_iter().collect()
}

/// Numbers that look random and are always the same.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Few enough keys that rows are replaced and deleted; now and then a value as large as an adapter's state may be.
fn changes(numbers: &mut Numbers) -> Vec<Change> {
    (0..=numbers.below(6))
        .map(|_| {
            let key = match numbers.below(4) {
                0 => Key::Job(numbers.below(8)),
                1 => Key::Outbox {
                    seq: numbers.below(40),
                },
                2 => Key::State(format!("adapter-{}", numbers.below(3))),
                _ => Key::Timer {
                    adapter: "dji".into(),
                    name: format!("{}", numbers.below(5)),
                },
            };
            if numbers.below(4) == 0 {
                return Change::Delete(key);
            }
            let len = if numbers.below(12) == 0 {
                60_000
            } else {
                numbers.below(3_000)
            };
            Change::Put(key, vec![numbers.below(256) as u8; len as usize])
        })
        .collect()
}

fn apply(rows: &mut Rows, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(key, value) => {
                rows.insert(key.clone(), value.clone());
            }
            Change::Delete(key) => {
                rows.remove(key);
            }
        }
    }
}

/// A scripted life of a journal: the rows after each commit, and how many operations the disk had seen when it was acknowledged.
struct Life {
    disk: SimDisk,
    states: Vec<(usize, Rows)>,
}

fn live(start: Image, controls: Controls) -> Life {
    let disk = SimDisk::from_image(start);
    disk.set_controls(controls);
    let journal = Journal::open(Arc::new(disk.clone()), place()).unwrap();
    let mut states = vec![(disk.operations(), rows(&journal))];
    let mut numbers = Numbers(7);
    for _ in 0..COMMITS {
        let changes = changes(&mut numbers);
        journal.commit(&changes).unwrap();
        let mut rows = states.last().unwrap().1.clone();
        apply(&mut rows, &changes);
        states.push((disk.operations(), rows));
    }
    assert_eq!(rows(&journal), states.last().unwrap().1);
    drop(journal);
    Life { disk, states }
}

/// What is wrong with this image after a cut there; `None` when all is well.
fn fault(life: &Life, cut: usize, image: &Image) -> Option<String> {
    let (_, journal) = match open(image) {
        Ok(opened) => opened,
        Err(e) => return Some(e.to_string()),
    };
    let found = match journal.load() {
        Ok(found) => found.into_iter().collect::<Rows>(),
        Err(e) => return Some(e.to_string()),
    };
    // Before the journal was made, an empty one is made now.
    let least = life
        .states
        .iter()
        .rposition(|(acknowledged, _)| *acknowledged <= cut)
        .unwrap_or(0);
    let allowed = &life.states[least..(least + 2).min(life.states.len())];
    if allowed.iter().any(|(_, rows)| *rows == found) {
        return None;
    }
    let earlier = life.states.iter().position(|(_, rows)| *rows == found);
    Some(format!(
        "{least} commits were acknowledged, found is the state after {earlier:?}"
    ))
}

/// Every cut, four ways of losing things, each image once.
fn faults(life: &Life, losses: impl Fn(usize) -> Vec<Loss>) -> Vec<String> {
    let record = life.disk.record();
    let mut walk = Replay::new(&record.start);
    let mut faults = Vec::new();
    for cut in 0..=record.ops.len() {
        let mut seen = HashSet::new();
        for loss in losses(cut) {
            let image = walk.image(loss);
            if seen.insert(image.clone()) {
                faults.extend(
                    fault(life, cut, &image).map(|fault| format!("cut {cut}, {loss:?}: {fault}")),
                );
            }
        }
        if let Some(op) = record.ops.get(cut) {
            walk.apply(op);
        }
    }
    faults
}

fn four_losses(cut: usize) -> Vec<Loss> {
    let seed = cut as u64 * 2;
    vec![
        Loss::AllDropped,
        Loss::AllKept,
        Loss::Seeded(seed),
        Loss::Seeded(seed + 1),
    ]
}

#[test]
fn at_every_cut_what_was_acknowledged_is_there_and_nothing_is_there_by_half() {
    let life = live(Image::new(), Controls::default());
    assert!(life.disk.operations() > 400, "{:?}", life.disk);
    assert_eq!(faults(&life, four_losses), Vec::<String>::new());
}

#[test]
fn a_journal_without_syncs_of_its_file_is_found_out() {
    let life = live(
        Image::new(),
        Controls {
            skip_file_sync: true,
            ..Controls::default()
        },
    );
    let faults = faults(&life, |_| vec![Loss::AllDropped]);
    assert!(faults.len() > 100, "{faults:?}");
}

#[test]
fn a_journal_without_the_sync_of_its_name_is_found_out() {
    let life = live(
        Image::new(),
        Controls {
            skip_dir_sync: true,
            ..Controls::default()
        },
    );
    let faults = faults(&life, |_| vec![Loss::AllDropped]);
    assert!(faults.len() > 100, "{faults:?}");
}

#[test]
fn a_cut_during_the_recovery_from_a_cut_loses_nothing() {
    let life = live(Image::new(), Controls::default());
    let record = life.disk.record();
    for cut in (0..record.ops.len()).step_by(41) {
        let (disk, journal) = open(&record.image_after(cut, Loss::Seeded(cut as u64))).unwrap();
        let expected = rows(&journal);
        let next = vec![Change::Put(Key::Meta("again".into()), vec![1])];
        let opened = disk.operations();
        journal.commit(&next).unwrap();
        let committed = disk.operations();
        drop(journal);
        let mut after = expected.clone();
        apply(&mut after, &next);
        let second = disk.record();
        for again in 0..=second.ops.len() {
            for loss in [Loss::AllDropped, Loss::AllKept, Loss::Seeded(again as u64)] {
                let found = rows(&open(&second.image_after(again, loss)).unwrap().1);
                let fine = match again {
                    _ if again <= opened => found == expected,
                    _ if again >= committed => found == after,
                    _ => found == expected || found == after,
                };
                assert!(
                    fine,
                    "cut {cut}, then {again} of {opened}/{committed}, {loss:?}"
                );
            }
        }
    }
}

#[test]
fn a_cut_while_the_journal_is_made_leaves_no_damaged_one() {
    let disk = SimDisk::new();
    // What an earlier attempt left behind is in the way of nobody.
    disk.write_outside(&Place::data("journal.new"), b"half a journal");
    drop(Journal::open(Arc::new(disk.clone()), place()).unwrap());
    let record = disk.record();
    for cut in 0..=record.ops.len() {
        for loss in [Loss::AllDropped, Loss::AllKept]
            .into_iter()
            .chain((0..10).map(Loss::Seeded))
        {
            let opened = open(&record.image_after(cut, loss));
            assert!(
                opened.is_ok_and(|(_, journal)| rows(&journal).is_empty()),
                "cut {cut}, {loss:?}"
            );
        }
    }
    assert_eq!(disk.list(&Place::data("")).unwrap(), ["journal"]);
}
