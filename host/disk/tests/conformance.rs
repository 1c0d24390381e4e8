//! The simulated disk behaves as the real one does: what is proved on the one holds on the other.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io;
use std::path::Path;
use std::sync::Arc;

use otahost_disk::sim::{Image, SimDisk};
use otahost_disk::{Disk, DiskFile, Open, Place, RealDisk};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

#[derive(Debug, Clone)]
enum Action {
    Open(usize, &'static str, Open),
    Write(usize, u64, usize, u8),
    SetLen(usize, u64),
    Len(usize),
    ReadAt(usize, u64, usize),
    Sync(usize),
    Rename(&'static str, &'static str),
    Remove(&'static str),
    CreateDir(&'static str),
    SyncDir(&'static str),
    List(&'static str),
    ReadWhole(&'static str),
    Replace(&'static str, usize),
    MakeLink(&'static str, &'static str),
    ReadLink(&'static str),
    RemoveDir(&'static str),
    RemoveTree(&'static str),
    Kind(&'static str),
    Confined(&'static str, &'static str),
}

/// Files, directories, a file where a directory should be, and ways out.
fn path() -> impl Strategy<Value = &'static str> {
    select(vec![
        "", "a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/f", "a/x", "./b", "../x", "d/../a",
    ])
}

fn action() -> impl Strategy<Value = Action> {
    let handle = || 0..3usize;
    let how = select(vec![
        Open::Read,
        Open::Write,
        Open::Create,
        Open::Create,
        Open::New,
    ]);
    // Links have names of their own: the simulated disk follows none.
    let link = || select(vec!["l", "d/l", "d/e/m"]);
    let any = || {
        select(vec![
            "", "a", "d", "d/a", "d/e", "d/e/f", "l", "d/l", "d/e/m", "../x",
        ])
    };
    let content = || select(vec!["a", "d/e", "../d", "gone", "/etc", ""]);
    let offset = || select(vec![0u64, 1, 511, 512, 4_095, 4_096, 9_000]);
    let len = || select(vec![0usize, 1, 300, 512, 5_000]);
    prop_oneof![
        4 => (handle(), path(), how).prop_map(|(h, p, how)| Action::Open(h, p, how)),
        4 => (handle(), offset(), len(), 1..255u8).prop_map(|(h, o, l, b)| Action::Write(h, o, l, b)),
        2 => (handle(), offset()).prop_map(|(h, l)| Action::SetLen(h, l)),
        1 => handle().prop_map(Action::Len),
        2 => (handle(), offset(), len()).prop_map(|(h, o, l)| Action::ReadAt(h, o, l)),
        1 => handle().prop_map(Action::Sync),
        3 => (path(), path()).prop_map(|(f, t)| Action::Rename(f, t)),
        1 => path().prop_map(Action::Remove),
        2 => path().prop_map(Action::CreateDir),
        1 => path().prop_map(Action::SyncDir),
        2 => path().prop_map(Action::List),
        2 => path().prop_map(Action::ReadWhole),
        1 => (path(), len()).prop_map(|(p, l)| Action::Replace(p, l)),
        2 => (link(), content()).prop_map(|(l, c)| Action::MakeLink(l, c)),
        1 => any().prop_map(Action::ReadLink),
        1 => any().prop_map(Action::RemoveDir),
        1 => any().prop_map(Action::RemoveTree),
        1 => any().prop_map(Action::Kind),
        1 => (any(), link()).prop_map(|(f, t)| Action::Rename(f, t)),
        1 => any().prop_map(Action::Remove),
        1 => (path(), path()).prop_map(|(d, p)| Action::Confined(d, p)),
    ]
}

/// A disk, the directory on it that the actions work in, and the open files.
struct Subject<'a> {
    disk: &'a dyn Disk,
    base: Place,
    open: Vec<Option<Arc<dyn DiskFile>>>,
}

impl<'a> Subject<'a> {
    fn new(disk: &'a dyn Disk, base: Place) -> Self {
        Subject {
            disk,
            base,
            open: vec![None, None, None],
        }
    }

    fn at(&self, path: &str) -> Place {
        match &self.base {
            Place::Data(base) => Place::Data(base.join(path)),
            Place::Operator(base) => Place::Operator(base.join(path)),
        }
    }

    /// What can be seen of an action: its answer, or the kind of its error.
    fn run(&mut self, action: &Action) -> String {
        fn seen<T: std::fmt::Debug>(result: io::Result<T>) -> String {
            format!("{:?}", result.map_err(|e| e.kind()))
        }
        let with =
            |handle: &usize, call: &dyn Fn(&dyn DiskFile) -> String| match &self.open[*handle] {
                Some(file) => call(file.as_ref()),
                None => "not open".into(),
            };
        match action {
            Action::Open(handle, path, how) => {
                let opened = self.disk.open(&self.at(path), *how);
                let seen = seen(
                    opened
                        .as_ref()
                        .map(|file| file.is_device())
                        .map_err(|e| io::Error::from(e.kind())),
                );
                self.open[*handle] = opened.ok();
                seen
            }
            Action::Write(handle, offset, len, byte) => with(handle, &|file| {
                seen(file.write_at(&vec![*byte; *len], *offset))
            }),
            Action::SetLen(handle, len) => with(handle, &|file| seen(file.set_len(*len))),
            Action::Len(handle) => with(handle, &|file| {
                seen(file.len().and_then(|len| Ok((len, file.is_empty()?))))
            }),
            Action::ReadAt(handle, offset, len) => with(handle, &|file| {
                let mut bytes = vec![0; *len];
                seen(file.read_exact_at(&mut bytes, *offset).map(|()| bytes))
            }),
            Action::Sync(handle) => with(handle, &|file| seen(file.sync())),
            Action::Rename(from, to) => seen(self.disk.rename(&self.at(from), &self.at(to))),
            Action::Remove(path) => seen(self.disk.remove(&self.at(path))),
            Action::CreateDir(path) => seen(self.disk.create_dir(&self.at(path))),
            Action::SyncDir(path) => seen(self.disk.sync_dir(&self.at(path))),
            Action::List(path) => seen(self.disk.list(&self.at(path))),
            Action::ReadWhole(path) => seen(self.disk.read(&self.at(path), 10_000)),
            Action::Replace(path, len) => seen(self.disk.replace(&self.at(path), &vec![9; *len])),
            Action::MakeLink(path, content) => {
                seen(self.disk.make_link(&self.at(path), Path::new(content)))
            }
            Action::ReadLink(path) => seen(self.disk.read_link(&self.at(path))),
            Action::RemoveDir(path) => seen(self.disk.remove_dir(&self.at(path))),
            Action::RemoveTree(path) => seen(self.disk.remove_tree(&self.at(path))),
            Action::Kind(path) => seen(self.disk.kind(&self.at(path))),
            Action::Confined(directory, path) => {
                seen(self.disk.confined(&self.at(directory)).and_then(|disk| {
                    let place = Place::data(*path);
                    disk.create_dir(&place)?;
                    disk.list(&place)
                }))
            }
        }
    }
}

fn compare(
    actions: &[Action],
    real: &mut Subject<'_>,
    sim: &mut Subject<'_>,
) -> Result<(), TestCaseError> {
    for (index, action) in actions.iter().enumerate() {
        let (expected, found) = (real.run(action), sim.run(action));
        prop_assert!(
            expected == found,
            "action {index}, {action:?}: real {expected}, simulated {found}"
        );
    }
    Ok(())
}

fn in_directory(dir: &Path) -> (RealDisk, SimDisk, Place) {
    let base = Place::operator(dir.join("base"));
    std::fs::create_dir(dir.join("base")).unwrap();
    let mut image = Image::new();
    image.create_dir(&base);
    (
        RealDisk::new(&dir.join("data")).unwrap(),
        SimDisk::from_image(image),
        base,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn both_disks_answer_alike_in_the_data_directory(actions in vec(action(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let (real, sim, _) = in_directory(dir.path());
        compare(&actions, &mut Subject::new(&real, Place::data("")), &mut Subject::new(&sim, Place::data("")))?;
    }

    #[test]
    fn both_disks_answer_alike_at_the_operators_places(actions in vec(action(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let (real, sim, base) = in_directory(dir.path());
        compare(&actions, &mut Subject::new(&real, base.clone()), &mut Subject::new(&sim, base))?;
    }
}

#[test]
fn a_name_never_moves_between_data_directory_and_operator() {
    let dir = tempfile::tempdir().unwrap();
    let (real, sim, base) = in_directory(dir.path());
    let disks: [&dyn Disk; 2] = [&real, &sim];
    for disk in disks {
        let (inside, outside) = (Place::data("f"), Place::operator(base.path().join("f")));
        disk.replace(&inside, b"1").unwrap();
        disk.replace(&outside, b"2").unwrap();
        assert_eq!(
            disk.rename(&inside, &outside).unwrap_err().kind(),
            io::ErrorKind::CrossesDevices
        );
        assert_eq!(
            disk.rename(&outside, &inside).unwrap_err().kind(),
            io::ErrorKind::CrossesDevices
        );
    }
}

#[test]
fn paths_of_the_wrong_kind_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (real, sim, _) = in_directory(dir.path());
    let disks: [&dyn Disk; 2] = [&real, &sim];
    for disk in disks {
        for place in [
            Place::data("/etc/passwd"),
            Place::operator("slot"),
            Place::operator(""),
            Place::operator("/a/../b"),
        ] {
            assert_eq!(
                disk.open(&place, Open::Read).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{place}"
            );
            assert_eq!(
                disk.list(&place).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{place}"
            );
        }
    }
}
