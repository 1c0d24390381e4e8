//! A disk in memory that loses what was not synced.
//!
//! A test runs the agent on a [`SimDisk`] once. Every operation is logged with its bytes, so that from the [`Record`] the disk after a
//! power cut at any moment can be made, in several ways of losing what was not synced, and the agent started again on each.
//! Names and contents have separate fates, as POSIX allows: nothing is more durable here than [`crate::Disk`] promises.

mod confined;
mod content;
mod image;
mod op;
mod random;
mod record;
mod state;
mod trouble;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use image::Image;
pub use op::{FileId, Op};
pub use record::{Loss, Record, Replay};
pub use trouble::{Trouble, Where};

use crate::{Disk, DiskFile, Kind, Open, Place};
use state::State;
use trouble::Does;

/// Switches that break the disk's promise on purpose, so that a crash test can show that it would notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Controls {
    /// Syncs of files are accepted and do nothing.
    pub skip_file_sync: bool,
    /// Syncs of directories are accepted and do nothing.
    pub skip_dir_sync: bool,
    /// The same for files only that were opened at a place in which this text stands.
    pub skip_file_sync_at: Option<&'static str>,
    /// The same for directories only with this place: `{data}/` is the data directory.
    pub skip_dir_sync_at: Option<&'static str>,
}

impl Controls {
    fn keeps_file(&self, place: &Place) -> bool {
        let is_meant = |text: &str| place.to_string().contains(text);
        !self.skip_file_sync && !self.skip_file_sync_at.is_some_and(is_meant)
    }

    fn keeps_dir(&self, place: &Place) -> bool {
        let is_meant = |text: &str| place.to_string() == text;
        !self.skip_dir_sync && !self.skip_dir_sync_at.is_some_and(is_meant)
    }
}

type Hook = Arc<dyn Fn(usize) + Send + Sync>;

/// The simulated disk. Clones are the same disk.
///
/// With one thread at work its log is the same on every run.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    start: Image,
    state: State,
    ops: Vec<Op>,
    controls: Controls,
    /// After so many operations, fail so.
    fault: Option<(usize, io::ErrorKind)>,
    /// The last number: so many refusals are left until it is over.
    trouble: Option<(Where, Trouble, usize)>,
    free_space: Option<u64>,
    hook: Option<Hook>,
}

impl Default for SimDisk {
    fn default() -> Self {
        SimDisk::new()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk after {} operations", self.operations())
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        SimDisk::from_image(Image::new())
    }

    /// A disk as a machine finds it after a start.
    pub fn from_image(image: Image) -> Self {
        let state = State::new(&image);
        SimDisk {
            shared: Arc::new(Mutex::new(Shared {
                start: image,
                state,
                ops: Vec::new(),
                controls: Controls::default(),
                fault: None,
                trouble: None,
                free_space: None,
                hook: None,
            })),
        }
    }

    /// A test that panicked in one thread must not hide its message behind a poisoned lock in another.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every operation so far.
    pub fn log(&self) -> Vec<Op> {
        self.lock().ops.clone()
    }

    /// The number of operations so far.
    pub fn operations(&self) -> usize {
        self.lock().ops.len()
    }

    /// The run so far.
    pub fn record(&self) -> Record {
        let shared = self.lock();
        Record {
            start: shared.start.clone(),
            ops: shared.ops.clone(),
        }
    }

    /// The disk after a power cut now.
    pub fn image(&self, loss: Loss) -> Image {
        self.lock().state.image(loss)
    }

    /// Has this called before each operation that will be logged, with its index, outside of all locks: the moment to note what the world
    /// around the disk looks like at this cut. A later call replaces the hook. An operation that [`SimDisk::fail_after`] stops is
    /// announced and not logged, so an index can come twice.
    pub fn on_operation(&self, hook: Box<dyn Fn(usize) + Send + Sync>) {
        self.lock().hook = Some(Arc::from(hook));
    }

    /// Breaks or mends the disk's promise, from the next operation on.
    pub fn set_controls(&self, controls: Controls) {
        self.lock().controls = controls;
    }

    /// Lets this many more operations (of any logged kind but edits from outside) pass and fails the next one, once, with nothing of it done.
    /// A sync that fails has lost what it was to make durable, as on Linux: it is still read, and no later sync brings it to the medium.
    pub fn fail_after(&self, operations: usize, kind: io::ErrorKind) {
        self.lock().fault = Some((operations, kind));
    }

    /// From now on the disk, or a part of it, is in this trouble, until it is told otherwise.
    pub fn set_trouble(&self, trouble: Option<(Where, Trouble)>) {
        self.lock().trouble = trouble.map(|(part, trouble)| (part, trouble, usize::MAX));
    }

    /// The same, but it is over when so many operations have met it.
    pub fn set_trouble_for(&self, part: Where, trouble: Trouble, refusals: usize) {
        self.lock().trouble = Some((part, trouble, refusals));
    }

    /// Fails what cannot be done in the trouble the disk is in.
    fn check_trouble(&self, place: &Place, does: trouble::Does) -> io::Result<()> {
        let mut shared = self.lock();
        let Some((_, trouble, left)) = shared.trouble.as_mut().filter(|t| t.0.covers(place)) else {
            return Ok(());
        };
        let checked = trouble.check(does);
        if checked.is_err() {
            *left -= 1;
            if *left == 0 {
                shared.trouble = None;
            }
        }
        checked
    }

    /// What [`Disk::free_space`] answers; `None` from the start. Nothing is enforced.
    pub fn set_free_space(&self, bytes: Option<u64>) {
        self.lock().free_space = bytes;
    }

    /// The content of a file or device as a running program sees it, past the log.
    pub fn read_outside(&self, place: &Place) -> Option<Vec<u8>> {
        let shared = self.lock();
        let file = shared.state.find(place).ok().flatten()?;
        Some(shared.state.content(file).to_vec())
    }

    /// Puts a file there as somebody outside the agent would, the boot loader for one: logged as [`Op::Outside`], durable at once, with the
    /// directories above it. A device keeps its capacity and what lies behind the bytes.
    ///
    /// # Panics
    /// When the place cannot be a file, or the bytes do not fit the device.
    pub fn write_outside(&self, place: &Place, bytes: &[u8]) {
        let bytes: Arc<[u8]> = Arc::from(bytes);
        self.perform(true, |_| {
            Ok(Some(Op::Outside {
                place: place.clone(),
                bytes: Arc::clone(&bytes),
            }))
        })
        .expect("an edit from outside is not subject to faults");
    }

    /// What a failed sync leaves of a file's writes.
    fn lose(&self, file: FileId) {
        let mut shared = self.lock();
        let lost = Op::SyncLost { file };
        shared.state.apply(&lost);
        shared.ops.push(lost);
    }

    /// Checks an operation, announces it, does and logs it. `plan` answers `None` where there is nothing to do.
    fn perform(
        &self,
        outside: bool,
        plan: impl Fn(&Shared) -> io::Result<Option<Op>>,
    ) -> io::Result<()> {
        let announced = {
            let shared = self.lock();
            if plan(&shared)?.is_none() {
                return Ok(());
            }
            shared.hook.clone().map(|hook| (hook, shared.ops.len()))
        };
        if let Some((hook, index)) = announced {
            hook(index);
        }
        let mut shared = self.lock();
        let Some(op) = plan(&shared)? else {
            return Ok(());
        };
        if !outside {
            match shared.fault {
                Some((0, kind)) => {
                    shared.fault = None;
                    if let Op::SyncFile { file, .. } = op {
                        let lost = Op::SyncLost { file };
                        shared.state.apply(&lost);
                        shared.ops.push(lost);
                    }
                    return Err(io::Error::new(kind, format!("made to fail: {op:?}")));
                }
                Some((left, kind)) => shared.fault = Some((left - 1, kind)),
                None => {}
            }
        }
        shared.state.apply(&op);
        shared.ops.push(op);
        Ok(())
    }
}

/// Says what could not be done, and where.
fn named(what: &str, place: &Place) -> impl FnOnce(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("cannot {what} {place}: {e}"))
}

impl Disk for SimDisk {
    fn open(&self, place: &Place, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let open = || {
            if how != Open::Read {
                self.check_trouble(place, Does::Open)?;
            }
            if matches!(how, Open::Create | Open::New) {
                // What else stands against it is said below, as the real disk says it.
                if matches!(self.lock().state.kind(place), Ok(None)) {
                    self.check_trouble(place, Does::Grow)?;
                }
                self.perform(false, |shared| {
                    if how == Open::New {
                        shared.state.check_free(place)?;
                    }
                    let missing = shared.state.find(place)?.is_none();
                    Ok(missing.then(|| Op::Create {
                        place: image::normal(place),
                        file: shared.state.next_file(),
                    }))
                })?;
            }
            let shared = self.lock();
            let file = shared.state.find(place)?.ok_or(io::ErrorKind::NotFound)?;
            Ok(SimFile {
                disk: self.clone(),
                file,
                place: place.clone(),
                writable: how != Open::Read,
                device: shared.state.is_device(file),
            })
        };
        Ok(Arc::new(open().map_err(named("open", place))?))
    }

    fn rename(&self, from: &Place, to: &Place) -> io::Result<()> {
        from.check_has_name()?;
        to.check_has_name()?;
        self.check_trouble(from, Does::Change)?;
        self.perform(false, |shared| {
            let changes = shared.state.check_rename(from, to)?;
            Ok(changes.then(|| Op::Rename {
                from: image::normal(from),
                to: image::normal(to),
            }))
        })
        .map_err(|e| io::Error::new(e.kind(), format!("cannot rename {from} to {to}: {e}")))
    }

    fn remove(&self, place: &Place) -> io::Result<()> {
        place.check_has_name()?;
        self.check_trouble(place, Does::Change)?;
        self.perform(false, |shared| match shared.state.kind(place)? {
            Some(Kind::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            Some(_) => Ok(Some(Op::Remove {
                place: image::normal(place),
            })),
            None => Ok(None),
        })
        .map_err(named("remove", place))
    }

    fn create_dir(&self, place: &Place) -> io::Result<()> {
        if self.lock().state.lacks_dir(place)? {
            self.check_trouble(place, Does::Grow)?;
        }
        self.perform(false, |shared| {
            Ok(shared.state.lacks_dir(place)?.then(|| Op::CreateDir {
                place: image::normal(place),
            }))
        })
        .map_err(named("make the directory", place))
    }

    fn sync_dir(&self, place: &Place) -> io::Result<()> {
        self.check_trouble(place, Does::Sync)?;
        self.perform(false, |shared| {
            shared.state.list(place)?;
            let place = image::normal(place);
            Ok(Some(Op::SyncDir {
                durable: shared.controls.keeps_dir(&place),
                place,
            }))
        })
        .map_err(named("sync the directory", place))
    }

    fn list(&self, place: &Place) -> io::Result<Vec<String>> {
        self.lock().state.list(place).map_err(named("list", place))
    }

    fn free_space(&self, _place: &Place) -> io::Result<Option<u64>> {
        Ok(self.lock().free_space)
    }

    fn confined(&self, directory: &Place) -> io::Result<Arc<dyn Disk>> {
        directory.check_has_name()?;
        let found = self.kind(directory)?;
        if found != Some(Kind::Dir) {
            let kind = match found {
                None => io::ErrorKind::NotFound,
                Some(_) => io::ErrorKind::NotADirectory,
            };
            return Err(named("use the directory", directory)(kind.into()));
        }
        let base = image::normal(directory);
        Ok(Arc::new(confined::Confined::new(self.clone(), base)))
    }

    fn kind(&self, place: &Place) -> io::Result<Option<Kind>> {
        self.lock()
            .state
            .kind(place)
            .map_err(named("look at", place))
    }

    fn make_link(&self, place: &Place, content: &Path) -> io::Result<()> {
        place.check_has_name()?;
        crate::check_link(place, content)?;
        self.check_trouble(place, Does::Grow)?;
        self.perform(false, |shared| {
            shared.state.check_free(place)?;
            Ok(Some(Op::MakeLink {
                place: image::normal(place),
                content: content.to_path_buf(),
            }))
        })
        .map_err(named("make the link", place))
    }

    fn read_link(&self, place: &Place) -> io::Result<PathBuf> {
        self.lock()
            .state
            .read_link(place)
            .map_err(named("read the link", place))
    }

    fn remove_dir(&self, place: &Place) -> io::Result<()> {
        place.check_has_name()?;
        self.check_trouble(place, Does::Change)?;
        self.perform(false, |shared| {
            Ok(shared
                .state
                .check_remove_dir(place)?
                .then(|| Op::RemoveDir {
                    place: image::normal(place),
                }))
        })
        .map_err(named("remove the directory", place))
    }
}

/// An open file or device. It stays the same file when its name changes or goes.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: FileId,
    place: Place,
    writable: bool,
    device: bool,
}

impl SimFile {
    fn trouble(&self, does: Does) -> io::Result<()> {
        self.disk.check_trouble(&self.place, does)
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is open for reading only", self.place),
        ))
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().state.content(self.file).len())
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.trouble(Does::Read)
            .map_err(named("read", &self.place))?;
        if self.disk.lock().state.content(self.file).read(into, offset) {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "cannot read {}: it ends before byte {}",
                self.place,
                offset.saturating_add(into.len() as u64)
            ),
        ))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if self.device && end > self.len()? {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "cannot write {}: the device ends before byte {end}",
                    self.place
                ),
            ));
        }
        if end > i64::MAX as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("cannot write {}: no file is that large", self.place),
            ));
        }
        let does = if end > self.len()? {
            Does::Grow
        } else {
            Does::Change
        };
        self.trouble(does).map_err(named("write", &self.place))?;
        let bytes: Arc<[u8]> = Arc::from(bytes);
        self.disk
            .perform(false, |_| {
                Ok(Some(Op::Write {
                    file: self.file,
                    offset,
                    bytes: Arc::clone(&bytes),
                }))
            })
            .map_err(named("write", &self.place))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        if self.device {
            return crate::fits_device(&self.place, len, self.len()?);
        }
        let does = if len > self.len()? {
            Does::Grow
        } else {
            Does::Change
        };
        self.trouble(does)
            .map_err(named("set the length of", &self.place))?;
        self.disk
            .perform(false, |shared| {
                Ok(
                    (shared.state.content(self.file).len() != len).then_some(Op::SetLen {
                        file: self.file,
                        len,
                    }),
                )
            })
            .map_err(named("set the length of", &self.place))
    }

    fn sync(&self) -> io::Result<()> {
        let troubled = self.trouble(Does::Sync);
        if troubled.is_err() {
            self.disk.lose(self.file);
        }
        troubled.map_err(named("sync", &self.place))?;
        self.disk
            .perform(false, |shared| {
                Ok(Some(Op::SyncFile {
                    file: self.file,
                    durable: shared.controls.keeps_file(&self.place),
                }))
            })
            .map_err(named("sync", &self.place))
    }

    fn is_device(&self) -> bool {
        self.device
    }
}
