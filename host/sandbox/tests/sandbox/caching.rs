//! The cache of native code: what it serves, what it never serves, and what it says.

use std::io;
use std::sync::Arc;

use otahost_disk::sim::{Loss, SimDisk};
use otahost_disk::{Disk, Place};
use otahost_sandbox::{Bounds, Cache, Compile, How, Limits, LoadError, Loaded, Sandbox, Why};

use crate::components::{ROGUE, contract, encode, rogue_but, rogue_component};
use crate::step;

fn place() -> Place {
    Place::data("native")
}

fn open(disk: &SimDisk) -> Cache {
    open_with(disk, Bounds::default())
}

fn open_with(disk: &SimDisk, bounds: Bounds) -> Cache {
    Cache::open(Arc::new(disk.clone()), place(), bounds).unwrap()
}

fn sandbox() -> Sandbox {
    Sandbox::new(Limits::default()).unwrap()
}

fn load(cache: &Cache, component: &[u8]) -> Loaded {
    cache
        .load(&sandbox(), "rogue", component, Compile::Here)
        .unwrap()
}

/// Loads it, and sees it run.
fn how(cache: &Cache, component: &[u8]) -> How {
    let loaded = load(cache, component);
    assert_eq!(loaded.not_kept, None);
    assert_eq!(step(&loaded.adapter, "count").state, [1]);
    loaded.how
}

fn compiled(why: Why) -> How {
    How::Compiled { why }
}

/// The rogue in another build.
fn build(n: usize) -> Vec<u8> {
    rogue_but("0.0.1", &format!("0.0.{n}"))
}

fn names(disk: &SimDisk) -> Vec<String> {
    disk.list(&place()).unwrap()
}

/// A disk with the rogue's native code, and the place of its one file.
fn filled() -> (SimDisk, Place) {
    let disk = SimDisk::new();
    assert_eq!(how(&open(&disk), rogue_component()), compiled(Why::Absent));
    let [name] = &names(&disk)[..] else {
        panic!("{:?}", names(&disk))
    };
    let place = place().join(name);
    (disk, place)
}

#[test]
fn a_component_is_compiled_once_and_then_comes_from_the_cache() {
    let (disk, _) = filled();
    let cache = open(&disk);
    let before = disk.operations();
    assert_eq!(how(&cache, rogue_component()), How::Cached);
    assert_eq!(how(&cache, rogue_component()), How::Cached);
    assert_eq!(
        disk.operations(),
        before,
        "a load from the cache writes nothing"
    );
    let direct = sandbox().load("rogue", rogue_component()).unwrap();
    assert_eq!(
        load(&cache, rogue_component()).adapter.digest(),
        direct.digest()
    );
}

#[test]
fn another_component_does_not_get_the_code() {
    let (disk, _) = filled();
    let cache = open(&disk);
    assert_eq!(how(&cache, &build(2)), compiled(Why::Absent));
    assert_eq!(how(&cache, &build(2)), How::Cached);
    assert_eq!(
        load(&cache, &build(2)).adapter.describe().unwrap().version,
        "0.0.2"
    );
}

/// The file after this happened to it is not used, that is said, and the next start finds a sound one.
fn is_replaced(disk: &SimDisk, place: &Place, file: &[u8], what: &str) {
    let sound = disk.read_outside(place).unwrap();
    disk.write_outside(place, file);
    let found = how(&open(disk), rogue_component());
    assert!(
        matches!(
            &found,
            How::Compiled {
                why: Why::Damaged(_)
            }
        ),
        "{what}: {found}"
    );
    assert!(found.to_string().contains("damaged"), "{found}");
    assert_eq!(how(&open(disk), rogue_component()), How::Cached, "{what}");
    assert_eq!(
        disk.read_outside(place).unwrap().len(),
        sound.len(),
        "{what}"
    );
}

#[test]
fn a_file_that_was_changed_or_cut_off_is_compiled_again_and_replaced() {
    let (disk, place) = filled();
    let sound = disk.read_outside(&place).unwrap();
    // Every byte of the header and of the code is covered by a test beside the header.
    for at in [0, 20, 100, 180, 300, sound.len() / 2, sound.len() - 1] {
        let mut file = sound.clone();
        file[at] ^= 0x10;
        is_replaced(&disk, &place, &file, &format!("byte {at}"));
        is_replaced(&disk, &place, &sound[..at], &format!("cut off at {at}"));
    }
    is_replaced(&disk, &place, b"", "empty");
    let mut longer = sound;
    longer.push(0);
    is_replaced(&disk, &place, &longer, "longer");
}

#[test]
fn the_code_of_another_component_under_this_name_is_never_used() {
    let (disk, place) = filled();
    let cache = open(&disk);
    assert_eq!(how(&cache, &build(2)), compiled(Why::Absent));
    let other = names(&disk)
        .into_iter()
        .find(|name| !place.path().ends_with(name));
    let other = disk
        .read_outside(&self::place().join(other.unwrap()))
        .unwrap();
    is_replaced(&disk, &place, &other, "another's file");
}

#[test]
fn a_file_larger_than_the_cache_may_be_is_not_even_read() {
    let (disk, place) = filled();
    disk.write_outside(&place, &vec![0; 2 * 1024 * 1024]);
    let bounds = Bounds {
        files: 4,
        bytes: 1024 * 1024,
    };
    let found = how(&open_with(&disk, bounds), rogue_component());
    assert!(
        matches!(
            found,
            How::Compiled {
                why: Why::Unreadable(_)
            }
        ),
        "{found}"
    );
    assert_eq!(
        how(&open_with(&disk, bounds), rogue_component()),
        How::Cached
    );
}

#[test]
fn a_power_cut_at_any_moment_leaves_a_cache_that_serves_sound_code_or_none() {
    let disk = SimDisk::new();
    let cache = open(&disk);
    assert_eq!(how(&cache, rogue_component()), compiled(Why::Absent));
    assert_eq!(how(&cache, &build(2)), compiled(Why::Absent));
    drop(cache);
    let record = disk.record();
    let (mut served, mut not) = (0, 0);
    for cut in 0..=record.ops.len() {
        for loss in [
            Loss::AllDropped,
            Loss::AllKept,
            Loss::Seeded(1),
            Loss::Seeded(2),
        ] {
            let after = SimDisk::from_image(record.image_after(cut, loss));
            match how(&open(&after), rogue_component()) {
                How::Cached => served += 1,
                How::Compiled { why } => {
                    not += 1;
                    assert_eq!(
                        why,
                        Why::Absent,
                        "cut {cut}, {loss:?}: a whole file or none"
                    );
                }
                other @ How::Signed { .. } => panic!("{other}"),
            }
            assert!(
                names(&after).iter().all(|name| name.ends_with(".cwasm")),
                "what was half written is cleared away: {:?}",
                names(&after)
            );
        }
    }
    assert!(served > 0 && not > 0, "{served} {not}");
}

#[test]
fn a_disk_that_fails_stops_no_adapter_and_that_is_said() {
    for operation in 0..5 {
        let disk = SimDisk::new();
        let cache = open(&disk);
        disk.fail_after(operation, io::ErrorKind::StorageFull);
        let loaded = load(&cache, rogue_component());
        assert_eq!(step(&loaded.adapter, "count").state, [1]);
        let why = loaded
            .not_kept
            .unwrap_or_else(|| panic!("operation {operation}"));
        assert!(why.contains("cannot be kept"), "{why}");
        assert_eq!(how(&open(&disk), &build(2)), compiled(Why::Absent));
    }
}

#[test]
fn the_oldest_that_was_of_no_use_makes_room() {
    let disk = SimDisk::new();
    let bounds = Bounds {
        files: 3,
        bytes: u64::MAX,
    };
    let first = open_with(&disk, bounds);
    for n in 2..5 {
        assert_eq!(how(&first, &build(n)), compiled(Why::Absent));
    }
    let cache = open_with(&disk, bounds);
    assert_eq!(how(&cache, &build(2)), How::Cached, "of use in this run");
    assert_eq!(how(&cache, &build(5)), compiled(Why::Absent));
    assert_eq!(names(&disk).len(), 3);
    for kept in [2, 4, 5] {
        assert_eq!(
            how(&open_with(&disk, bounds), &build(kept)),
            How::Cached,
            "{kept}"
        );
    }
    assert_eq!(
        how(&cache, &build(3)),
        compiled(Why::Absent),
        "3 was the oldest"
    );
}

#[test]
fn the_bytes_are_bounded_too_and_what_is_too_large_is_not_kept() {
    let (disk, place) = filled();
    let size = disk.read_outside(&place).unwrap().len() as u64;
    let cache = open_with(
        &disk,
        Bounds {
            files: 9,
            bytes: 2 * size + size / 2,
        },
    );
    for n in 2..5 {
        assert_eq!(how(&cache, &build(n)), compiled(Why::Absent));
        let held: u64 = names(&disk)
            .iter()
            .map(|name| disk.read_outside(&self::place().join(name)).unwrap().len() as u64)
            .sum();
        assert!(held <= 2 * size + size / 2, "{held}");
    }
    let small = open_with(
        &SimDisk::new(),
        Bounds {
            files: 9,
            bytes: size - 1,
        },
    );
    let loaded = load(&small, rogue_component());
    assert!(
        loaded
            .not_kept
            .unwrap()
            .contains("more than the cache may hold")
    );
    assert_eq!(step(&loaded.adapter, "count").state, [1]);
}

#[test]
fn what_is_forgotten_is_gone() {
    let (disk, _) = filled();
    let cache = open(&disk);
    let adapter = load(&cache, rogue_component()).adapter;
    cache.forget(adapter.digest()).unwrap();
    assert!(names(&disk).is_empty());
    cache.forget(adapter.digest()).unwrap();
    assert_eq!(how(&open(&disk), rogue_component()), compiled(Why::Absent));
}

#[test]
fn a_component_that_does_not_fit_is_refused_and_takes_no_place() {
    let disk = SimDisk::new();
    let cache = open(&disk);
    let refused = |component: &[u8]| {
        let result = cache.load(&sandbox(), "rogue", component, Compile::Here);
        result.map(|loaded| loaded.how).unwrap_err()
    };
    assert!(matches!(
        refused(b"no component"),
        LoadError::Invalid { .. }
    ));
    let wat = r#"(module (import "otahost:adapter/host@0.1.0" "now" (func (result i64))))"#;
    let world = "package test:none; world none { import otahost:adapter/host@0.1.0; }";
    let none = encode(wat, &[&contract(), world], "none");
    assert!(matches!(refused(&none), LoadError::Contract { .. }));
    let broken = ROGUE.replace(";;FUNCTIONS", "(func (result i32) (i64.const 0))");
    let broken = encode(&broken, &[&contract()], "update-adapter");
    assert!(matches!(refused(&broken), LoadError::Invalid { .. }));
    assert!(names(&disk).is_empty(), "{:?}", names(&disk));
}
