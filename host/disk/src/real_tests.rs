#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::symlink;

use super::*;

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: i64 = 0x0102_1994;

#[test]
fn a_second_agent_is_told_which_directory_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a/b");
    let first = RealDisk::new(&data).unwrap();
    let refused = RealDisk::new(&data).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
    assert!(
        refused.to_string().contains(&data.display().to_string()),
        "{refused}"
    );
    drop(first);
    RealDisk::new(&data).unwrap();
}

#[test]
fn the_lock_is_no_file_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path()).unwrap();
    assert_eq!(disk.list(&Place::data("")).unwrap(), Vec::<String>::new());
}

#[test]
fn nothing_in_the_data_directory_leads_out_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let disk = RealDisk::new(&data).unwrap();
    fs::write(dir.path().join("outside"), b"secret").unwrap();
    symlink(dir.path().join("outside"), data.join("absolute")).unwrap();
    symlink("../outside", data.join("relative")).unwrap();
    symlink("..", data.join("up")).unwrap();
    for path in [
        "absolute",
        "relative",
        "up/outside",
        "../outside",
        "/etc/hostname",
        "a/../../outside",
    ] {
        for how in [Open::Read, Open::Write, Open::Create] {
            disk.open(&Place::data(path), how).expect_err(path);
        }
    }
    disk.replace(&Place::data("up/outside"), b"x").unwrap_err();
    disk.remove(&Place::data("up/outside")).unwrap_err();
    disk.create_dir(&Place::data("up/dir")).unwrap_err();
    disk.list(&Place::data("up")).unwrap_err();
    assert_eq!(fs::read(dir.path().join("outside")).unwrap(), b"secret");
    assert!(!dir.path().join("dir").exists());
}

#[test]
fn nothing_leads_out_of_a_directory_it_is_confined_to() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
    fs::create_dir_all(&inside).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("f"), b"kept").unwrap();
    symlink("../out", inside.join("up")).unwrap();
    let disk = RealDisk::operator_only();
    let confined = disk.confined(&Place::operator(&inside)).unwrap();
    for place in [Place::data("up/f"), Place::data("../out/f")] {
        for how in [Open::Read, Open::Create, Open::New] {
            confined.open(&place, how).expect_err("it is outside");
        }
    }
    confined.create_dir(&Place::data("up/d")).unwrap_err();
    confined.remove_tree(&Place::data("up/f")).unwrap_err();
    confined
        .make_link(&Place::data("l"), Path::new("/etc"))
        .unwrap_err();
    confined.remove_tree(&Place::data("up")).unwrap();
    assert_eq!(fs::read(outside.join("f")).unwrap(), b"kept");
}

#[test]
fn what_is_handed_to_others_can_be_read_and_run_by_them() {
    let dir = tempfile::tempdir().unwrap();
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let disk = RealDisk::operator_only();
    let confined = disk.confined(&Place::operator(&shared)).unwrap();
    confined.create_dir(&Place::data("d")).unwrap();
    let file = confined.open(&Place::data("d/f"), Open::New).unwrap();
    let mode = |path: &str| {
        fs::metadata(shared.join(path))
            .unwrap()
            .permissions()
            .mode()
    };
    assert_eq!((mode("d") & 0o500, mode("d/f") & 0o700), (0o500, 0o600));
    file.set_executable().unwrap();
    assert_eq!(mode("d/f") & 0o111, (mode("d/f") & 0o444) >> 2);
}

#[test]
fn errors_name_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path()).unwrap();
    let missing = disk.open(&Place::data("jobs/7"), Open::Read).unwrap_err();
    assert!(missing.to_string().contains("{data}/jobs/7"), "{missing}");
    let relative = disk
        .open(&Place::operator("slot_a"), Open::Read)
        .unwrap_err();
    assert!(
        relative.to_string().contains("slot_a") && relative.to_string().contains("absolute"),
        "{relative}"
    );
}

#[test]
fn what_is_neither_file_nor_block_device_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path()).unwrap();
    let refused = disk
        .open(&Place::operator("/dev/null"), Open::Write)
        .unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{refused}");
}

#[test]
fn free_space_is_known_before_the_file_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(&dir.path().join("data")).unwrap();
    assert!(disk.free_space(&Place::data("not/yet")).unwrap().unwrap() > 0);
    assert!(disk.free_space(&Place::data("")).unwrap().unwrap() > 0);
    assert!(
        disk.free_space(&Place::operator(dir.path().join("not/yet")))
            .unwrap()
            .unwrap()
            > 0
    );
}

#[test]
fn growth_takes_its_blocks_at_once() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path()).unwrap();
    let file = disk.open(&Place::data("f"), Open::Create).unwrap();
    // Where the file system cannot allocate there is nothing to promise.
    let probe = File::create(dir.path().join("probe")).unwrap();
    if rustix::fs::fallocate(&probe, FallocateFlags::empty(), 0, 4096).is_err() {
        return;
    }
    file.set_len(1 << 20).unwrap();
    assert!(fs::metadata(dir.path().join("f")).unwrap().blocks() * 512 >= 1 << 20);
}

/// Bytes that this thread has had fetched from a medium so far; `None` where the system does not count them.
fn fetched() -> Option<u64> {
    let counts = fs::read_to_string("/proc/thread-self/io").ok()?;
    let line = counts
        .lines()
        .find_map(|line| line.strip_prefix("read_bytes: "))?;
    Some(line.parse().unwrap())
}

#[test]
fn what_is_forgotten_is_read_from_the_medium_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::new(dir.path()).unwrap();
    let file = disk.open(&Place::data("f"), Open::Create).unwrap();
    let content = vec![7; 1 << 20];
    file.write_at(&content, 0).unwrap();
    let read_back = || {
        let before = fetched();
        let mut back = vec![0; content.len()];
        file.read_exact_at(&mut back, 0).unwrap();
        assert_eq!(back, content);
        before.map(|before| fetched().unwrap() - before)
    };
    let from_memory = read_back();
    file.forget_cached().unwrap();
    let from_medium = read_back();
    // A file system that lives in memory has nowhere else to read from, and some systems do not count.
    let in_memory = rustix::fs::statfs(dir.path()).unwrap().f_type == TMPFS;
    if let (Some(from_memory), Some(from_medium), false) = (from_memory, from_medium, in_memory) {
        assert!(from_memory < content.len() as u64, "{from_memory}");
        assert!(from_medium >= content.len() as u64, "{from_medium}");
    }
    let reader = disk.open(&Place::data("f"), Open::Read).unwrap();
    reader.forget_cached().unwrap();
}
