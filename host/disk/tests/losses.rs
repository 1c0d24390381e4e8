//! What a power cut takes from the simulated disk, and that this is enough to find a missing sync.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use otahost_disk::sim::{Controls, Image, Loss, Op, Record, Replay, SimDisk, Trouble, Where};
use otahost_disk::{Disk, Open, Place};

const SEEDS: u64 = 200;

fn losses() -> impl Iterator<Item = Loss> {
    [Loss::AllDropped, Loss::AllKept, Loss::NamesKept]
        .into_iter()
        .chain((0..SEEDS).map(Loss::Seeded))
        .chain((0..SEEDS).map(Loss::Torn))
}

fn file(name: &str) -> Place {
    Place::data(name)
}

/// A disk that holds these files for good.
fn disk_with(files: &[(&str, &[u8])]) -> SimDisk {
    let mut image = Image::new();
    files
        .iter()
        .for_each(|(name, bytes)| image.write(&file(name), bytes));
    SimDisk::from_image(image)
}

/// Everything a file can be found as after a cut at the end.
fn outcomes(disk: &SimDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    losses()
        .map(|loss| disk.image(loss).read(&file(name)))
        .collect()
}

fn some(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(bytes.to_vec())
}

/// Where `replace` broke its word: (cut, loss).
fn broken_replacements(controls: Controls) -> Vec<(usize, Loss)> {
    let contents: [Vec<u8>; 3] = [vec![1; 700], vec![2; 3_000], vec![3; 20]];
    let mut image = Image::new();
    image.write(&file("dir/f"), &contents[0]);
    let disk = SimDisk::from_image(image);
    disk.set_controls(controls);
    // Which content is promised from which operation on.
    let mut promised = vec![0];
    for content in &contents[1..] {
        disk.replace(&file("dir/f"), content).unwrap();
        promised.push(disk.operations());
    }
    let record = disk.record();
    let mut broken = Vec::new();
    for cut in 0..=record.ops.len() {
        let least = promised.iter().rposition(|from| *from <= cut).unwrap();
        for loss in losses() {
            let found = record.image_after(cut, loss).read(&file("dir/f"));
            if !contents[least..(least + 2).min(contents.len())]
                .iter()
                .any(|content| found.as_ref() == Some(content))
            {
                broken.push((cut, loss));
            }
        }
    }
    broken
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_at_every_cut() {
    assert_eq!(broken_replacements(Controls::default()), []);
}

#[test]
fn a_replacement_without_the_sync_of_the_file_is_found_out() {
    let broken = broken_replacements(Controls {
        skip_file_sync: true,
        ..Controls::default()
    });
    assert!(
        broken.iter().any(|(_, loss)| *loss == Loss::AllDropped),
        "{broken:?}"
    );
    assert!(
        broken
            .iter()
            .any(|(_, loss)| matches!(loss, Loss::Seeded(_))),
        "{broken:?}"
    );
}

#[test]
fn a_replacement_without_the_sync_of_the_directory_is_found_out() {
    let broken = broken_replacements(Controls {
        skip_dir_sync: true,
        ..Controls::default()
    });
    assert!(
        broken.iter().any(|(_, loss)| *loss == Loss::AllDropped),
        "{broken:?}"
    );
    assert!(
        broken
            .iter()
            .any(|(_, loss)| matches!(loss, Loss::Seeded(_))),
        "{broken:?}"
    );
}

#[test]
fn what_a_cut_leaves() {
    type Script = fn(&SimDisk);
    type Found = Option<&'static [u8]>;
    // Each begins with the file "f" holding "old"; found as: all dropped, all kept.
    let table: [(&str, Script, Found, Found); 12] = [
        (
            "an unsynced write",
            |d| {
                d.open(&file("f"), Open::Write)
                    .unwrap()
                    .write_at(b"new", 0)
                    .unwrap()
            },
            Some(b"old"),
            Some(b"new"),
        ),
        (
            "a synced write",
            |d| {
                let f = d.open(&file("f"), Open::Write).unwrap();
                f.write_at(b"new", 0).unwrap();
                f.sync().unwrap();
            },
            Some(b"new"),
            Some(b"new"),
        ),
        (
            "a write after the sync",
            |d| {
                let f = d.open(&file("f"), Open::Write).unwrap();
                f.sync().unwrap();
                f.write_at(b"new", 0).unwrap();
            },
            Some(b"old"),
            Some(b"new"),
        ),
        (
            "an unsynced cut",
            |d| d.open(&file("f"), Open::Write).unwrap().set_len(1).unwrap(),
            Some(b"old"),
            Some(b"o"),
        ),
        (
            "an unsynced growth",
            |d| d.open(&file("f"), Open::Write).unwrap().set_len(5).unwrap(),
            Some(b"old"),
            Some(b"old\0\0"),
        ),
        (
            "a synced growth",
            |d| {
                let f = d.open(&file("f"), Open::Write).unwrap();
                f.set_len(5).unwrap();
                f.sync().unwrap();
            },
            Some(b"old\0\0"),
            Some(b"old\0\0"),
        ),
        (
            "an unsynced removal",
            |d| d.remove(&file("f")).unwrap(),
            Some(b"old"),
            None,
        ),
        (
            "a synced removal",
            |d| {
                d.remove(&file("f")).unwrap();
                d.sync_dir(&file("")).unwrap();
            },
            None,
            None,
        ),
        (
            "an unsynced rename",
            |d| d.rename(&file("f"), &file("g")).unwrap(),
            Some(b"old"),
            None,
        ),
        (
            "a new file renamed over it without its own sync",
            |d| {
                d.open(&file("n"), Open::Create)
                    .unwrap()
                    .write_at(b"new", 0)
                    .unwrap();
                d.rename(&file("n"), &file("f")).unwrap();
                d.sync_dir(&file("")).unwrap();
            },
            Some(b""),
            Some(b"new"),
        ),
        (
            "a new file renamed over it without the directory's sync",
            |d| {
                let n = d.open(&file("n"), Open::Create).unwrap();
                n.write_at(b"new", 0).unwrap();
                n.sync().unwrap();
                d.rename(&file("n"), &file("f")).unwrap();
            },
            Some(b"old"),
            Some(b"new"),
        ),
        (
            "a write through a handle after the removal was undone",
            |d| {
                let f = d.open(&file("f"), Open::Write).unwrap();
                d.remove(&file("f")).unwrap();
                f.write_at(b"new", 0).unwrap();
                f.sync().unwrap();
            },
            Some(b"new"),
            None,
        ),
    ];
    for (what, script, dropped, kept) in table {
        let disk = disk_with(&[("f", b"old")]);
        script(&disk);
        assert_eq!(
            disk.image(Loss::AllDropped).read(&file("f")).as_deref(),
            dropped,
            "{what}, all dropped"
        );
        assert_eq!(
            disk.image(Loss::AllKept).read(&file("f")).as_deref(),
            kept,
            "{what}, all kept"
        );
    }
}

#[test]
fn a_synced_file_in_an_unsynced_directory_is_lost_by_name() {
    let disk = SimDisk::new();
    let f = disk.open(&file("f"), Open::Create).unwrap();
    f.write_at(b"x", 0).unwrap();
    f.sync().unwrap();
    assert_eq!(disk.image(Loss::AllDropped).read(&file("f")), None);
    assert_eq!(outcomes(&disk, "f"), BTreeSet::from([None, some(b"x")]));
}

#[test]
fn a_new_directory_lasts_when_the_one_above_is_synced() {
    let disk = SimDisk::new();
    disk.create_dir(&file("d/e")).unwrap();
    disk.replace(&file("d/e/f"), b"x").unwrap();
    disk.sync_dir(&file("d")).unwrap();
    assert_eq!(disk.image(Loss::AllDropped).read(&file("d/e/f")), None);
    disk.sync_dir(&file("")).unwrap();
    assert_eq!(outcomes(&disk, "d/e/f"), BTreeSet::from([some(b"x")]));
}

#[test]
fn a_rename_within_a_directory_is_one_change() {
    let disk = disk_with(&[("d/a", b"x")]);
    disk.rename(&file("d/a"), &file("d/b")).unwrap();
    for loss in losses() {
        let image = disk.image(loss);
        assert_ne!(
            image.read(&file("d/a")).is_some(),
            image.read(&file("d/b")).is_some(),
            "{loss:?}"
        );
    }
    assert_eq!(outcomes(&disk, "d/a"), BTreeSet::from([None, some(b"x")]));
}

#[test]
fn a_rename_between_directories_lasts_in_halves() {
    let disk = disk_with(&[("a/f", b"x"), ("b/g", b"y")]);
    disk.rename(&file("a/f"), &file("b/f")).unwrap();
    disk.sync_dir(&file("a")).unwrap();
    let image = disk.image(Loss::AllDropped);
    assert_eq!(
        (image.read(&file("a/f")), image.read(&file("b/f"))),
        (None, None)
    );
    disk.sync_dir(&file("b")).unwrap();
    assert_eq!(outcomes(&disk, "b/f"), BTreeSet::from([some(b"x")]));
}

#[test]
fn a_directory_keeps_the_order_of_its_changes() {
    let disk = SimDisk::new();
    for name in ["a", "b", "c"] {
        disk.open(&file(name), Open::Create).unwrap();
    }
    let seen: BTreeSet<Vec<Place>> = losses()
        .map(|loss| disk.image(loss).files().cloned().collect())
        .collect();
    let prefixes: BTreeSet<Vec<Place>> = (0..4)
        .map(|count| {
            ["a", "b", "c"][..count]
                .iter()
                .map(|name| file(name))
                .collect()
        })
        .collect();
    assert_eq!(seen, prefixes);
}

#[test]
fn sectors_survive_whole_and_each_in_a_state_it_had() {
    let disk = disk_with(&[("f", &[0; 2_048])]);
    let f = disk.open(&file("f"), Open::Write).unwrap();
    f.write_at(&[1; 2_048], 0).unwrap();
    f.write_at(&[2; 1_024], 512).unwrap();
    let mut seen = BTreeSet::new();
    for loss in losses() {
        let bytes = disk.image(loss).read(&file("f")).unwrap();
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert!(
            bytes
                .chunks(512)
                .all(|sector| sector.iter().all(|byte| *byte == sector[0])),
            "{loss:?} tore a sector"
        );
        assert!(sectors[0] < 2 && sectors[3] < 2, "{loss:?}");
        seen.insert(sectors);
    }
    for expected in [
        vec![0, 0, 0, 0],
        vec![1, 2, 2, 1],
        vec![0, 2, 2, 0],
        vec![1, 1, 1, 1],
    ] {
        assert!(
            seen.contains(&expected),
            "{expected:?} never came in {seen:?}"
        );
    }
    assert!(
        seen.iter().any(|sectors| sectors[1] != sectors[2]),
        "no write was torn: {seen:?}"
    );
}

#[test]
fn a_later_write_to_a_sector_never_survives_without_the_earlier() {
    let disk = disk_with(&[("f", &[0; 512])]);
    let f = disk.open(&file("f"), Open::Write).unwrap();
    f.write_at(&[1; 100], 0).unwrap();
    f.write_at(&[2; 100], 100).unwrap();
    let outcomes = outcomes(&disk, "f");
    assert_eq!(outcomes.len(), 3);
    assert!(
        outcomes
            .iter()
            .flatten()
            .all(|bytes| bytes[100] == 0 || bytes[0] == 1)
    );
}

#[test]
fn a_write_that_grows_the_file_can_leave_its_length_without_its_bytes() {
    let disk = disk_with(&[("f", b"")]);
    disk.open(&file("f"), Open::Write)
        .unwrap()
        .write_at(&[1; 600], 0)
        .unwrap();
    let outcomes = outcomes(&disk, "f");
    for expected in [vec![], vec![0; 600], vec![1; 600]] {
        assert!(outcomes.contains(&Some(expected)));
    }
}

#[test]
fn the_same_record_cut_and_seed_make_the_same_image() {
    let disk = disk_with(&[("f", b"old")]);
    let f = disk.open(&file("f"), Open::Write).unwrap();
    for n in 0..20u8 {
        f.write_at(&[n; 2_000], u64::from(n) * 700).unwrap();
        disk.open(&file(&format!("{n}")), Open::Create).unwrap();
    }
    let record: Record = disk.record();
    let mut walk = Replay::new(&record.start);
    for cut in 0..=record.ops.len() {
        for seed in 0..3 {
            let loss = Loss::Seeded(seed);
            assert_eq!(record.image_after(cut, loss), walk.image(loss), "cut {cut}");
        }
        if let Some(op) = record.ops.get(cut) {
            walk.apply(op);
        }
    }
    assert_eq!(walk.image(Loss::AllKept), disk.image(Loss::AllKept));
}

#[test]
fn an_image_starts_a_disk_that_looks_the_same() {
    let disk = disk_with(&[("a/b/c", b"x"), ("d", b"")]);
    disk.create_dir(&file("empty")).unwrap();
    disk.write_outside(&Place::operator("/boot/select"), b"a");
    let image = disk.image(Loss::AllKept);
    let again = SimDisk::from_image(image.clone());
    for loss in losses() {
        assert_eq!(again.image(loss), image);
    }
    assert_eq!(again.list(&file("")).unwrap(), ["a", "d", "empty"]);
}

#[test]
fn an_edit_from_outside_lasts_at_once_and_is_replayed() {
    let disk = disk_with(&[("f", b"old")]);
    disk.remove(&file("f")).unwrap();
    disk.write_outside(&file("f"), b"theirs");
    disk.write_outside(&file("new/g"), b"too");
    assert_eq!(disk.read_outside(&file("f")), some(b"theirs"));
    for loss in losses() {
        let image = disk.record().image_after(disk.operations(), loss);
        assert_eq!(
            (image.read(&file("f")), image.read(&file("new/g"))),
            (some(b"theirs"), some(b"too")),
            "{loss:?}"
        );
    }
    assert_eq!(
        disk.record()
            .image_after(1, Loss::AllDropped)
            .read(&file("f")),
        some(b"old")
    );
}

#[test]
fn a_device_has_its_capacity_for_ever() {
    let slot = Place::operator("/dev/slot_a");
    let mut image = Image::new();
    image.device(&slot, 4_096);
    image.write(&slot, b"factory");
    let disk = SimDisk::from_image(image);
    let device = disk.open(&slot, Open::Write).unwrap();
    assert!(device.is_device());
    assert_eq!(device.len().unwrap(), 4_096);
    device.set_len(10).unwrap();
    assert_eq!(device.len().unwrap(), 4_096);
    assert_eq!(
        device.set_len(4_097).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(
        device.write_at(&[1; 10], 4_090).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(disk.operations(), 0, "what was refused is not logged");
    device.write_at(b"F", 0).unwrap();
    assert_eq!(
        &disk.image(Loss::AllDropped).read(&slot).unwrap()[..7],
        b"factory"
    );
    disk.write_outside(&slot, b"S");
    assert_eq!(
        &disk.image(Loss::AllDropped).read(&slot).unwrap()[..7],
        b"Sactory"
    );
    assert_eq!(disk.image(Loss::AllKept).read(&slot).unwrap().len(), 4_096);
}

#[test]
fn every_operation_is_announced_before_it_happens_and_with_no_lock_held() {
    let disk = disk_with(&[("f", b"old")]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (watched, noted) = (disk.clone(), Arc::clone(&seen));
    disk.on_operation(Box::new(move |index| {
        assert_eq!(watched.operations(), index);
        noted
            .lock()
            .unwrap()
            .push((index, watched.read_outside(&file("f"))));
    }));
    disk.replace(&file("f"), b"new").unwrap();
    disk.write_outside(&file("f"), b"theirs");
    let seen = seen.lock().unwrap();
    assert_eq!(
        seen.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
        (0..disk.operations()).collect::<Vec<_>>()
    );
    let rename = disk
        .log()
        .iter()
        .position(|op| matches!(op, Op::Rename { .. }))
        .unwrap();
    assert_eq!(
        (&seen[rename].1, &seen[rename + 1].1),
        (&some(b"old"), &some(b"new"))
    );
}

#[test]
fn an_operation_made_to_fail_has_not_happened_and_the_next_one_does() {
    let disk = disk_with(&[("f", b"old")]);
    let f = disk.open(&file("f"), Open::Write).unwrap();
    disk.fail_after(1, io::ErrorKind::StorageFull);
    f.write_at(b"1", 0).unwrap();
    assert_eq!(
        f.write_at(b"2", 1).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    f.write_at(b"3", 2).unwrap();
    assert_eq!(disk.read_outside(&file("f")), some(b"1l3"));
    disk.fail_after(0, io::ErrorKind::Other);
    f.sync().unwrap_err();
    assert_eq!(disk.image(Loss::AllDropped).read(&file("f")), some(b"old"));
}

#[test]
fn links_and_removed_directories_last_when_the_directory_above_is_synced() {
    let disk = disk_with(&[("d/f", b"1"), ("e/f", b"2")]);
    let here = file("current");
    disk.make_link(&here, std::path::Path::new("d")).unwrap();
    assert_eq!(disk.image(Loss::AllDropped).read_link(&here), None);
    disk.sync_dir(&here.parent()).unwrap();
    let next = file("next");
    disk.make_link(&next, std::path::Path::new("e")).unwrap();
    disk.rename(&next, &here).unwrap();
    let leads = |loss| disk.image(loss).read_link(&here).map(|to| to.to_path_buf());
    assert_eq!(leads(Loss::AllDropped), Some("d".into()));
    assert_eq!(leads(Loss::AllKept), Some("e".into()));
    disk.sync_dir(&here.parent()).unwrap();
    assert_eq!(leads(Loss::AllDropped), Some("e".into()));
    disk.remove_tree(&file("d")).unwrap();
    assert_eq!(disk.read_outside(&file("d/f")), None);
    assert_eq!(disk.image(Loss::AllDropped).read(&file("d/f")), some(b"1"));
    disk.sync_dir(&here.parent()).unwrap();
    assert_eq!(disk.image(Loss::AllDropped).read(&file("d/f")), None);
}

#[test]
fn of_the_last_write_only_some_sectors_arrive_and_all_of_what_came_before() {
    let disk = disk_with(&[("f", &[0; 4096])]);
    let f = disk.open(&file("f"), Open::Write).unwrap();
    f.write_at(&[1; 2048], 0).unwrap();
    f.write_at(&[2; 2048], 1024).unwrap();
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let left = disk.image(Loss::Torn(seed)).read(&file("f")).unwrap();
        assert_eq!(left.len(), 4096);
        assert_eq!(left[..1024], [1; 1024], "what came before");
        assert_eq!(left[3072..], [0; 1024], "what nobody wrote");
        let sectors: Vec<u8> = left.chunks(512).map(|sector| sector[0]).collect();
        assert!(
            left.chunks(512).all(|s| s.iter().all(|b| *b == s[0])),
            "whole sectors"
        );
        assert_ne!(sectors[2..6], [2; 4], "it never arrives whole");
        found.insert(sectors);
    }
    assert!(found.len() > 5, "{found:?}");
    // And nothing is torn that was synced.
    f.sync().unwrap();
    let torn = disk.image(Loss::Torn(1));
    assert_eq!(torn, disk.image(Loss::AllDropped));
}

#[test]
fn a_torn_write_that_grows_a_file_leaves_a_length_it_could_have() {
    let disk = disk_with(&[("f", &[1; 100])]);
    let f = disk.open(&file("f"), Open::Write).unwrap();
    f.write_at(&[2; 2000], 100).unwrap();
    let lengths: BTreeSet<usize> = (0..SEEDS)
        .map(|seed| {
            let left = disk.image(Loss::Torn(seed)).read(&file("f")).unwrap();
            assert_eq!(left[..100], [1; 100]);
            left.len()
        })
        .collect();
    let possible = BTreeSet::from([100, 512, 1024, 1536, 2048, 2100]);
    assert!(lengths.is_subset(&possible), "{lengths:?}");
    assert!(lengths.len() > 3, "{lengths:?}");
}

#[test]
fn names_may_last_before_what_they_name() {
    let disk = disk_with(&[("f", b"old")]);
    let n = disk.open(&file("n"), Open::Create).unwrap();
    n.write_at(b"new", 0).unwrap();
    disk.rename(&file("n"), &file("f")).unwrap();
    let left = disk.image(Loss::NamesKept);
    assert_eq!(left.read(&file("f")).as_deref(), Some(&b""[..]));
    assert_eq!(left.read(&file("n")), None);
    n.sync().unwrap();
    assert_eq!(disk.image(Loss::NamesKept).read(&file("f")), some(b"new"));
}

#[test]
fn a_sync_can_be_left_out_at_one_place_alone() {
    let disk = disk_with(&[("a/f", b"old"), ("b/f", b"old")]);
    disk.set_controls(Controls {
        skip_file_sync_at: Some("a/f"),
        skip_dir_sync_at: Some("{data}/b"),
        ..Controls::default()
    });
    for dir in ["a", "b"] {
        let f = disk.open(&file(&format!("{dir}/f")), Open::Write).unwrap();
        f.write_at(b"new", 0).unwrap();
        f.sync().unwrap();
        disk.open(&file(&format!("{dir}/g")), Open::Create).unwrap();
        disk.sync_dir(&file(dir)).unwrap();
    }
    let left = disk.image(Loss::AllDropped);
    let read = |name: &str| left.read(&file(name));
    assert_eq!((read("a/f"), read("b/f")), (some(b"old"), some(b"new")));
    assert_eq!((read("a/g"), read("b/g")), (some(b""), None));
}

#[test]
fn what_a_failed_sync_was_to_make_durable_is_read_until_the_power_goes_and_never_comes_back() {
    let disk = disk_with(&[("f", &[0; 1024])]);
    let f = disk.open(&file("f"), Open::Write).unwrap();
    f.write_at(&[1; 512], 0).unwrap();
    disk.fail_after(0, std::io::ErrorKind::Other);
    f.sync().unwrap_err();
    let read = |disk: &SimDisk| disk.read_outside(&file("f")).unwrap();
    assert_eq!(read(&disk)[..512], [1; 512]);
    f.write_at(&[2; 512], 512).unwrap();
    f.sync().unwrap();
    for loss in losses() {
        let left = disk.image(loss).read(&file("f")).unwrap();
        assert_eq!((left[0], left[512]), (0, 2), "{loss:?}");
    }
    // What is written again lasts.
    f.write_at(&[3; 512], 0).unwrap();
    f.sync().unwrap();
    let left = disk.image(Loss::AllDropped).read(&file("f")).unwrap();
    assert_eq!((left[0], left[512]), (3, 2));
    let record = disk.record();
    assert_eq!(
        record.image_after(record.ops.len(), Loss::AllKept),
        disk.image(Loss::AllKept)
    );
}

#[test]
fn a_disk_in_trouble_refuses_what_it_cannot_do_and_no_more() {
    let disk = disk_with(&[("f", &[0; 1024])]);
    let f = disk.open(&file("f"), Open::Write).unwrap();
    let kind = |result: std::io::Result<()>| result.map_err(|e| e.kind());
    let tries = || {
        [
            kind(f.write_at(&[1], 0)),
            kind(f.set_len(2048).and_then(|()| f.set_len(1024))),
            kind(f.sync()),
            kind(disk.open(&file("f"), Open::Write).map(drop)),
            kind(disk.open(&file("n"), Open::Create).map(drop)),
            kind(f.read_exact_at(&mut [0], 0)),
        ]
    };
    use std::io::ErrorKind::{Other, ReadOnlyFilesystem, StorageFull};
    let (full, ro, other) = (Err(StorageFull), Err(ReadOnlyFilesystem), Err(Other));
    for (trouble, expected) in [
        (Trouble::Full, [Ok(()), full, Ok(()), Ok(()), full, Ok(())]),
        (Trouble::ReadOnly, [ro, ro, Ok(()), ro, ro, Ok(())]),
        (
            Trouble::Failing,
            [other, other, other, Ok(()), other, Ok(())],
        ),
        (Trouble::Unreadable, [other; 6]),
    ] {
        disk.set_trouble(Some((Where::Data, trouble)));
        assert_eq!(tries(), expected, "{trouble:?}");
        disk.set_trouble(Some((Where::Operator, trouble)));
        assert_eq!(f.write_at(&[1], 0).map_err(|e| e.kind()), Ok(()));
    }
    disk.set_trouble(None);
    assert_eq!(tries(), [Ok(()); 6]);
}
