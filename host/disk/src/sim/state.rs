//! A disk with its two faces: what a running program sees, and what would be left after a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::content::{Content, SECTOR};
use super::image::{Image, Node as ImageNode};
use super::op::{FileId, Op};
use super::random::Random;
use super::record::Loss;
use crate::{Kind, Place};

const DATA: usize = 0;
const OPERATOR: usize = 1;

/// Files and directories by number, so that content and names can have their own fate.
#[derive(Clone)]
pub(super) struct State {
    nodes: Vec<Node>,
}

#[derive(Clone)]
enum Node {
    File(FileNode),
    Dir(DirNode),
    /// It never changes; only its name comes and goes.
    Link(PathBuf),
}

#[derive(Clone, Default)]
struct FileNode {
    device: bool,
    now: Content,
    durable: Content,
    /// What `now` has and `durable` has not, in order, but for what was lost.
    pending: Vec<Pending>,
    /// A sync has failed: `now` has more than `durable` with all that is pending.
    lossy: bool,
}

#[derive(Clone)]
enum Pending {
    Write { offset: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

type Entries = BTreeMap<OsString, usize>;
/// Names that are set or go away together.
type EntryChange = Vec<(OsString, Option<usize>)>;

#[derive(Clone, Default)]
struct DirNode {
    now: Entries,
    durable: Entries,
    pending: Vec<EntryChange>,
}

impl DirNode {
    fn change(&mut self, change: EntryChange) {
        apply(&mut self.now, &change);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        self.durable = self.now.clone();
        self.pending.clear();
    }

    /// Sets a name at once and for good.
    fn set_outside(&mut self, name: &OsStr, node: usize) {
        for change in &mut self.pending {
            change.retain(|(changed, _)| changed != name);
        }
        self.now.insert(name.to_os_string(), node);
        self.durable.insert(name.to_os_string(), node);
    }
}

fn apply(entries: &mut Entries, change: &EntryChange) {
    for (name, node) in change {
        match node {
            Some(node) => entries.insert(name.clone(), *node),
            None => entries.remove(name),
        };
    }
}

impl FileNode {
    /// A sync has failed. The system believes that nothing is left to write.
    fn lose(&mut self) {
        // Lengths are kept elsewhere than contents.
        self.durable.set_len(self.now.len());
        self.lossy |= !self.pending.is_empty();
        self.pending.clear();
    }

    /// What is left when nothing is lost but what failed syncs have lost.
    fn kept(&self) -> Content {
        if !self.lossy {
            return self.now.clone();
        }
        let mut kept = self.durable.clone();
        for pending in &self.pending {
            match pending {
                Pending::Write { offset, bytes } => kept.write(bytes, *offset),
                Pending::SetLen(len) => kept.set_len(*len),
            }
        }
        kept
    }

    fn sync(&mut self) {
        if self.lossy {
            self.durable = self.kept();
            self.pending.clear();
        }
        if self.pending.iter().any(|p| matches!(p, Pending::SetLen(_))) {
            self.durable = self.now.clone();
            self.pending.clear();
        }
        for pending in self.pending.drain(..) {
            if let Pending::Write { offset, bytes } = pending {
                self.durable.share(&self.now, offset, bytes.len());
            }
        }
    }

    /// Everything but a part of the last write.
    fn torn(&self, random: &mut Random) -> Content {
        let Some((Pending::Write { offset, bytes }, earlier)) = self.pending.split_last() else {
            return self.kept();
        };
        let mut left = self.durable.clone();
        for pending in earlier {
            match pending {
                Pending::SetLen(len) => left.set_len(*len),
                Pending::Write { offset, bytes } => left.write(bytes, *offset),
            }
        }
        let end = offset + bytes.len() as u64;
        let sectors = end.div_ceil(SECTOR) - offset / SECTOR;
        let missing = random.up_to(sectors - 1);
        let in_order = random.percent(50);
        // The length changes with the write, or not.
        if random.percent(50) {
            left.set_len(left.len().max(end));
        }
        for index in 0..sectors {
            let arrives = if in_order {
                index < missing
            } else {
                index != missing && random.percent(50)
            };
            if arrives {
                let sector = offset / SECTOR + index;
                let reached = ((sector + 1) * SECTOR).min(end);
                left.set_len(left.len().max(reached));
                left.copy_sector(&self.now, sector);
            }
        }
        left
    }

    /// What the seed lets survive: of every sector the state after some write to it, of the length some state it had.
    fn survivor(&self, random: &mut Random) -> Content {
        let mut running = self.durable.clone();
        let mut left = self.durable.clone();
        let by_sector = random.percent(50);
        let chance = [10, 50, 90][random.up_to(2) as usize];
        for (index, pending) in self.pending.iter().enumerate() {
            match pending {
                Pending::SetLen(len) => {
                    running.set_len(*len);
                    if random.percent(chance) {
                        left.set_len(*len);
                    }
                }
                Pending::Write { offset, bytes } => {
                    running.write(bytes, *offset);
                    let end = offset + bytes.len() as u64;
                    let sectors = offset / SECTOR..end.div_ceil(SECTOR);
                    let torn = index + 1 == self.pending.len();
                    // A write whole or not at all, but the last: that one was under way and may have got anywhere.
                    let kept = match (by_sector, torn) {
                        (true, _) => None,
                        (false, true) => Some(random.up_to(sectors.end - sectors.start)),
                        (false, false) if random.percent(chance) => {
                            Some(sectors.end - sectors.start)
                        }
                        (false, false) => Some(0),
                    };
                    if end > left.len() && kept != Some(0) && random.percent(chance) {
                        left.set_len(end);
                    }
                    for sector in sectors.clone() {
                        let keep = match kept {
                            Some(count) => sector - sectors.start < count,
                            None => random.percent(chance),
                        };
                        if keep {
                            left.copy_sector(&running, sector);
                        }
                    }
                }
            }
        }
        left
    }
}

impl State {
    pub(super) fn new(image: &Image) -> Self {
        let mut state = State {
            nodes: vec![Node::Dir(DirNode::default()), Node::Dir(DirNode::default())],
        };
        for (place, node) in image.nodes() {
            let id = state.add(match node {
                ImageNode::Dir => Node::Dir(DirNode::default()),
                ImageNode::Link(content) => Node::Link(content.clone()),
                ImageNode::File(content) => Node::File(FileNode {
                    device: false,
                    now: content.clone(),
                    durable: content.clone(),
                    pending: Vec::new(),
                    lossy: false,
                }),
                ImageNode::Device(content) => Node::File(FileNode {
                    device: true,
                    now: content.clone(),
                    durable: content.clone(),
                    pending: Vec::new(),
                    lossy: false,
                }),
            });
            // The directory above comes first in the order of the image.
            let (parent, name) = state
                .parent_of(place)
                .expect("an image has every directory");
            state.dir_mut(parent).set_outside(&name, id);
        }
        state
    }

    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn file(&self, id: FileId) -> &FileNode {
        match &self.nodes[id.0] {
            Node::File(file) => file,
            Node::Dir(_) | Node::Link(_) => unreachable!("a file's number is never another's"),
        }
    }

    fn file_mut(&mut self, id: FileId) -> &mut FileNode {
        match &mut self.nodes[id.0] {
            Node::File(file) => file,
            Node::Dir(_) | Node::Link(_) => unreachable!("a file's number is never another's"),
        }
    }

    fn dir_mut(&mut self, id: usize) -> &mut DirNode {
        match &mut self.nodes[id] {
            Node::Dir(dir) => dir,
            Node::File(_) | Node::Link(_) => {
                unreachable!("the number was looked up as a directory's")
            }
        }
    }

    fn child(&self, dir: usize, name: &OsStr) -> io::Result<Option<usize>> {
        match &self.nodes[dir] {
            Node::Dir(dir) => Ok(dir.now.get(name).copied()),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
            Node::Link(_) => Err(follows()),
        }
    }

    /// The node a place names; an error where the way there does not exist.
    fn lookup(&self, place: &Place) -> io::Result<Option<usize>> {
        let names = place.names()?;
        let Some((last, above)) = names.split_last() else {
            return Ok(Some(root(place)));
        };
        self.child(self.walk(root(place), above)?, last)
    }

    fn walk(&self, from: usize, names: &[&OsStr]) -> io::Result<usize> {
        names.iter().try_fold(from, |at, name| {
            self.child(at, name)?
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    fn parent_of(&self, place: &Place) -> io::Result<(usize, OsString)> {
        let names = place.names()?;
        let (last, above) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = self.walk(root(place), above)?;
        self.child(parent, last)?;
        Ok((parent, last.to_os_string()))
    }

    /// The file of this name, `None` where there is no file but could be one.
    pub(super) fn find(&self, place: &Place) -> io::Result<Option<FileId>> {
        match self.lookup(place)? {
            None => Ok(None),
            Some(id) => match self.nodes[id] {
                Node::File(_) => Ok(Some(FileId(id))),
                Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
                Node::Link(_) => Err(follows()),
            },
        }
    }

    /// What a name stands for.
    pub(super) fn kind(&self, place: &Place) -> io::Result<Option<Kind>> {
        let found = match self.lookup(place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            found => found?,
        };
        Ok(found.map(|id| match self.nodes[id] {
            Node::File(_) => Kind::File,
            Node::Dir(_) => Kind::Dir,
            Node::Link(_) => Kind::Link,
        }))
    }

    /// Where a link leads.
    pub(super) fn read_link(&self, place: &Place) -> io::Result<PathBuf> {
        match self.lookup(place)?.map(|id| &self.nodes[id]) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Node::Link(content)) => Ok(content.clone()),
            Some(Node::File(_) | Node::Dir(_)) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Whether a new name can be given there: an error where it is taken, or where there is no directory for it.
    pub(super) fn check_free(&self, place: &Place) -> io::Result<()> {
        match self.lookup(place)? {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    /// Whether there is an empty directory to remove; an error where something else is.
    pub(super) fn check_remove_dir(&self, place: &Place) -> io::Result<bool> {
        let found = match self.lookup(place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            found => found?,
        };
        match found.map(|id| &self.nodes[id]) {
            None => Ok(false),
            Some(Node::Dir(dir)) if dir.now.is_empty() => Ok(true),
            Some(Node::Dir(_)) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            Some(Node::File(_) | Node::Link(_)) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The number the next new file gets.
    pub(super) fn next_file(&self) -> FileId {
        FileId(self.nodes.len())
    }

    /// The names in a directory.
    pub(super) fn list(&self, place: &Place) -> io::Result<Vec<String>> {
        match self.lookup(place)?.map(|id| &self.nodes[id]) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            Some(Node::Link(_)) => Err(follows()),
            Some(Node::Dir(dir)) => {
                let mut names: Vec<String> = dir
                    .now
                    .keys()
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect();
                names.sort();
                Ok(names)
            }
        }
    }

    /// Whether there are directories to make; an error where none can be.
    pub(super) fn lacks_dir(&self, place: &Place) -> io::Result<bool> {
        let names = place.names()?;
        let mut at = root(place);
        for (depth, name) in names.iter().enumerate() {
            match self.child(at, name)? {
                None => return Ok(true),
                Some(id) if depth + 1 == names.len() && !matches!(self.nodes[id], Node::Dir(_)) => {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                Some(id) => at = id,
            }
        }
        Ok(false)
    }

    /// Whether a rename would change something; an error where it is impossible. The order of the checks is Linux's.
    pub(super) fn check_rename(&self, from: &Place, to: &Place) -> io::Result<bool> {
        if root(from) != root(to) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let (old_dir, old_name) = self.parent_of(from)?;
        let (new_dir, new_name) = self.parent_of(to)?;
        let old = self
            .child(old_dir, &old_name)?
            .ok_or(io::ErrorKind::NotFound)?;
        let (old_names, new_names) = (from.names()?, to.names()?);
        if new_names.len() > old_names.len() && new_names.starts_with(&old_names) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if old_names.len() > new_names.len() && old_names.starts_with(&new_names) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let Some(new) = self.child(new_dir, &new_name)? else {
            return Ok(true);
        };
        match (&self.nodes[old], &self.nodes[new]) {
            _ if old == new => Ok(false),
            (Node::Dir(_), Node::File(_) | Node::Link(_)) => {
                Err(io::ErrorKind::NotADirectory.into())
            }
            (Node::File(_) | Node::Link(_), Node::Dir(_)) => {
                Err(io::ErrorKind::IsADirectory.into())
            }
            (_, Node::Dir(dir)) if !dir.now.is_empty() => {
                Err(io::ErrorKind::DirectoryNotEmpty.into())
            }
            _ => Ok(true),
        }
    }

    pub(super) fn content(&self, file: FileId) -> &Content {
        &self.file(file).now
    }

    pub(super) fn is_device(&self, file: FileId) -> bool {
        self.file(file).device
    }

    /// Does what was logged.
    ///
    /// # Panics
    /// When the operation does not fit the disk: it was checked when it was logged, and a record belongs to its start image.
    pub(super) fn apply(&mut self, op: &Op) {
        const CHECKED: &str = "the operation was checked against the disk it was logged on";
        match op {
            Op::Create { place, file } => {
                let (parent, name) = self.parent_of(place).expect(CHECKED);
                let id = self.add(Node::File(FileNode::default()));
                assert_eq!(id, file.0, "{CHECKED}");
                self.dir_mut(parent).change(vec![(name, Some(id))]);
            }
            Op::Write {
                file,
                offset,
                bytes,
            } => {
                let file = self.file_mut(*file);
                file.now.write(bytes, *offset);
                file.pending.push(Pending::Write {
                    offset: *offset,
                    bytes: Arc::clone(bytes),
                });
            }
            Op::SetLen { file, len } => {
                let file = self.file_mut(*file);
                file.now.set_len(*len);
                file.pending.push(Pending::SetLen(*len));
            }
            Op::SyncFile { file, durable } => {
                if *durable {
                    self.file_mut(*file).sync();
                }
            }
            Op::SyncLost { file } => self.file_mut(*file).lose(),
            Op::Rename { from, to } => {
                let (old_dir, old_name) = self.parent_of(from).expect(CHECKED);
                let (new_dir, new_name) = self.parent_of(to).expect(CHECKED);
                let node = self
                    .child(old_dir, &old_name)
                    .ok()
                    .flatten()
                    .expect(CHECKED);
                if old_dir == new_dir {
                    self.dir_mut(old_dir)
                        .change(vec![(old_name, None), (new_name, Some(node))]);
                } else {
                    // Each half lasts when its own directory is synced: POSIX promises no more.
                    self.dir_mut(old_dir).change(vec![(old_name, None)]);
                    self.dir_mut(new_dir).change(vec![(new_name, Some(node))]);
                }
            }
            Op::MakeLink { place, content } => {
                let (parent, name) = self.parent_of(place).expect(CHECKED);
                let id = self.add(Node::Link(content.clone()));
                self.dir_mut(parent).change(vec![(name, Some(id))]);
            }
            Op::Remove { place } | Op::RemoveDir { place } => {
                let (parent, name) = self.parent_of(place).expect(CHECKED);
                self.dir_mut(parent).change(vec![(name, None)]);
            }
            Op::CreateDir { place } => {
                let mut at = root(place);
                for name in place.names().expect(CHECKED) {
                    at = match self.child(at, name).expect(CHECKED) {
                        Some(id) => id,
                        None => {
                            let id = self.add(Node::Dir(DirNode::default()));
                            self.dir_mut(at)
                                .change(vec![(name.to_os_string(), Some(id))]);
                            id
                        }
                    };
                }
            }
            Op::SyncDir { place, durable } => {
                if *durable {
                    let dir = self.lookup(place).ok().flatten().expect(CHECKED);
                    self.dir_mut(dir).sync();
                }
            }
            Op::Outside { place, bytes } => self.write_outside(place, bytes),
        }
    }

    fn write_outside(&mut self, place: &Place, bytes: &[u8]) {
        let names = place
            .names()
            .expect("the place of an outside edit is usable");
        let (last, above) = names.split_last().expect("an outside edit is of a file");
        let mut at = root(place);
        for name in above {
            let id = self
                .child(at, name)
                .expect("the directories above an outside edit are no files");
            let id = id.unwrap_or_else(|| self.add(Node::Dir(DirNode::default())));
            self.dir_mut(at).set_outside(name, id);
            at = id;
        }
        let id = self
            .child(at, last)
            .expect("the directory above an outside edit is no file");
        let id = id.unwrap_or_else(|| self.add(Node::File(FileNode::default())));
        self.dir_mut(at).set_outside(last, id);
        let file = self.file_mut(FileId(id));
        if !file.device {
            file.now = Content::default();
        }
        file.now.write(bytes, 0);
        file.durable = file.now.clone();
        file.pending.clear();
        file.lossy = false;
    }

    /// The disk after a power cut now.
    pub(super) fn image(&self, loss: Loss) -> Image {
        let mut walk = Walk {
            state: self,
            loss,
            random: Random::new(0),
            contents: BTreeMap::new(),
            seen: BTreeSet::new(),
            image: Image::new(),
        };
        if let Loss::Seeded(seed) | Loss::Torn(seed) = loss {
            walk.random = Random::new(seed);
        }
        walk.dir(DATA, &Place::Data(PathBuf::new()));
        walk.dir(OPERATOR, &Place::Operator(PathBuf::from("/")));
        walk.image
    }
}

/// Gathers what a cut leaves, from the two roots down.
struct Walk<'a> {
    state: &'a State,
    loss: Loss,
    random: Random,
    /// A file that two names survived of has one content.
    contents: BTreeMap<usize, Content>,
    /// A directory of which two names survived is shown once; it might even lie in itself.
    seen: BTreeSet<usize>,
    image: Image,
}

impl Walk<'_> {
    fn dir(&mut self, id: usize, place: &Place) {
        let Node::Dir(dir) = &self.state.nodes[id] else {
            unreachable!("the walk was told that this is a directory")
        };
        let entries = match self.loss {
            Loss::AllDropped => dir.durable.clone(),
            Loss::AllKept | Loss::NamesKept | Loss::Torn(_) => dir.now.clone(),
            Loss::Seeded(_) => {
                // File systems keep the order of changes within a directory.
                let kept = self.random.up_to(dir.pending.len() as u64) as usize;
                let mut entries = dir.durable.clone();
                dir.pending
                    .iter()
                    .take(kept)
                    .for_each(|change| apply(&mut entries, change));
                entries
            }
        };
        for (name, id) in entries {
            let place = match place {
                Place::Data(path) => Place::Data(path.join(&name)),
                Place::Operator(path) => Place::Operator(path.join(&name)),
            };
            match &self.state.nodes[id] {
                Node::Dir(_) => {
                    if self.seen.insert(id) {
                        self.image.insert(place.clone(), ImageNode::Dir);
                        self.dir(id, &place);
                    }
                }
                Node::Link(content) => {
                    self.image.insert(place, ImageNode::Link(content.clone()));
                }
                Node::File(file) => {
                    let content = match self.loss {
                        Loss::AllDropped | Loss::NamesKept => file.durable.clone(),
                        Loss::AllKept => file.kept(),
                        Loss::Seeded(_) | Loss::Torn(_) => match self.contents.get(&id) {
                            Some(content) => content.clone(),
                            None => {
                                let content = if matches!(self.loss, Loss::Torn(_)) {
                                    file.torn(&mut self.random)
                                } else {
                                    file.survivor(&mut self.random)
                                };
                                self.contents.insert(id, content.clone());
                                content
                            }
                        },
                    };
                    self.image.insert(
                        place,
                        if file.device {
                            ImageNode::Device(content)
                        } else {
                            ImageNode::File(content)
                        },
                    );
                }
            }
        }
    }
}

/// Nothing simulated follows a link: what is written goes to places that are named as they are.
fn follows() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "the simulated disk follows no links",
    )
}

fn root(place: &Place) -> usize {
    match place {
        Place::Data(_) => DATA,
        Place::Operator(_) => OPERATOR,
    }
}
