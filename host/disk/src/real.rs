//! The disk of a device: a data directory nobody else writes to, and the files and block devices the operator named.
//!
//! The data directory is held as an open handle (cap-std), so that no path made from outside data, and no link somebody put
//! there, leads out of it. Paths of the operator are used as they are.

use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use crate::{Disk, DiskFile, Kind, Open, Place};

/// The file whose lock says that an agent is at work in the data directory. It stays there, empty.
const LOCK: &str = "otahost.lock";

/// Modes of what is made in the agent's own data directory, and in one that is handed to others.
const PRIVATE: Modes = Modes {
    file: 0o600,
    dir: 0o700,
};
const SHARED: Modes = Modes {
    file: 0o644,
    dir: 0o755,
};

#[derive(Debug, Clone, Copy)]
struct Modes {
    file: u32,
    dir: u32,
}

/// The disk of the device we run on.
///
/// It holds the lock on its data directory until it is dropped.
#[derive(Debug)]
pub struct RealDisk {
    /// None for a disk that serves the operator's paths only.
    data: Option<Dir>,
    modes: Modes,
    /// Locked; the lock goes with the handle, also when the process is killed.
    _lock: Option<File>,
}

impl RealDisk {
    /// Opens the data directory, making it (mode 0700) where it does not exist, and locks it.
    ///
    /// # Errors
    /// `ResourceBusy` when another agent has the directory; whatever the system says when it cannot be made or opened.
    pub fn new(data_dir: &Path) -> io::Result<RealDisk> {
        let named = |e: io::Error| {
            io::Error::new(
                e.kind(),
                format!("cannot use {} as data directory: {e}", data_dir.display()),
            )
        };
        create_durably(data_dir).map_err(named)?;
        let lock = open_lock(data_dir).map_err(named)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    format!(
                        "the data directory {} is in use by another otahost; stop that one, or give this one a data_dir of its own",
                        data_dir.display()
                    ),
                ));
            }
            Err(TryLockError::Error(e)) => return Err(named(e)),
        }
        let data = Dir::open_ambient_dir(data_dir, cap_std::ambient_authority()).map_err(named)?;
        Ok(RealDisk {
            data: Some(data),
            modes: PRIVATE,
            _lock: Some(lock),
        })
    }

    /// The disk of a data directory that is only to be looked at: nothing is made, and nothing is locked. What an agent at work changes
    /// meanwhile may be seen by half.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn to_look_at(data_dir: &Path) -> io::Result<RealDisk> {
        let data = Dir::open_ambient_dir(data_dir, cap_std::ambient_authority()).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!(
                    "cannot look at the data directory {}: {e}",
                    data_dir.display()
                ),
            )
        })?;
        Ok(RealDisk {
            data: Some(data),
            modes: PRIVATE,
            _lock: None,
        })
    }

    /// Whether an agent has this data directory now.
    pub fn is_in_use(data_dir: &Path) -> bool {
        let lock = File::open(data_dir.join(LOCK)).or_else(|_| File::open(data_dir));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// A disk without a data directory: it serves the operator's paths and locks nothing, to look at slots while an agent runs.
    pub fn operator_only() -> RealDisk {
        RealDisk {
            data: None,
            modes: PRIVATE,
            _lock: None,
        }
    }

    fn data(&self) -> io::Result<&Dir> {
        let none = || {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "this disk has no data directory",
            )
        };
        self.data.as_ref().ok_or_else(none)
    }

    /// A directory and those above it, with our mode and not whatever the umask leaves.
    fn create_data_dir(&self, path: &Path) -> io::Result<()> {
        let data = self.data()?;
        let mut builder = cap_std::fs::DirBuilder::new();
        builder.recursive(true);
        cap_std::fs::DirBuilderExt::mode(&mut builder, self.modes.dir);
        data.create_dir_with(path, &builder)
    }

    fn open_data(&self, path: &Path, how: Open) -> io::Result<RealFile> {
        let looked = match how {
            // Whatever has the name stands in the way, and `create_new` says so.
            Open::New => Err(io::ErrorKind::NotFound.into()),
            Open::Read | Open::Write | Open::Create => self.data()?.metadata(path),
        };
        let may_be_missing = matches!(how, Open::Create | Open::New);
        match looked {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is no ordinary file",
                ));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound && may_be_missing => {}
            Err(e) => return Err(e),
        }
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(how != Open::Read)
            .create(how == Open::Create)
            .create_new(how == Open::New)
            .mode(self.modes.file);
        Ok(RealFile {
            file: self.data()?.open_with(path, &options)?.into_std(),
            place: Place::data(path),
            capacity: None,
            writable: how != Open::Read,
        })
    }
}

/// The file that is locked. Where nothing can be made any more, on a full disk or a read-only one, the agent has to run all the same: what is
/// there is locked, if need be the directory itself.
fn open_lock(data_dir: &Path) -> io::Result<File> {
    let path = data_dir.join(LOCK);
    let made = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    match made {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
            ) =>
        {
            File::open(&path).or_else(|_| File::open(data_dir))
        }
        made => made,
    }
}

/// Makes a directory, those above it, and their names last.
fn create_durably(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    };
    create_durably(parent)?;
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        other => other?,
    }
    File::open(parent)?.sync_all()
}

fn open_operator(path: &Path, how: Open) -> io::Result<RealFile> {
    // Asked before opening, because opening a pipe would wait for its other end.
    let looked = match how {
        Open::New => Err(io::ErrorKind::NotFound.into()),
        Open::Read | Open::Write | Open::Create => fs::metadata(path),
    };
    let may_be_missing = matches!(how, Open::Create | Open::New);
    let device = match looked {
        Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if found.is_file() => false,
        Ok(found) if found.file_type().is_block_device() => true,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is neither a file nor a block device",
            ));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && may_be_missing => false,
        Err(e) => return Err(e),
    };
    let mut file = File::options()
        .read(true)
        .write(how != Open::Read)
        .create(how == Open::Create)
        .create_new(how == Open::New)
        .truncate(false)
        .open(path)?;
    let capacity = if device {
        Some(file.seek(SeekFrom::End(0))?)
    } else {
        None
    };
    Ok(RealFile {
        file,
        place: Place::operator(path),
        capacity,
        writable: how != Open::Read,
    })
}

/// The path as cap-std and the system want it: what a [`Place`] allows, and `.` for the data directory itself.
fn checked(place: &Place) -> io::Result<PathBuf> {
    let names = place.names()?;
    Ok(match place {
        Place::Data(_) if names.is_empty() => PathBuf::from("."),
        Place::Data(_) => names.iter().collect(),
        Place::Operator(_) => Path::new("/").join(names.iter().collect::<PathBuf>()),
    })
}

/// Says what could not be done, and where.
fn named(what: &str, place: &Place) -> impl FnOnce(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("cannot {what} {place}: {e}"))
}

impl Disk for RealDisk {
    fn open(&self, place: &Place, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let path = checked(place)?;
        let file = match place {
            Place::Data(_) => self.open_data(&path, how),
            Place::Operator(_) => open_operator(&path, how),
        };
        Ok(Arc::new(file.map_err(named("open", place))?))
    }

    fn rename(&self, from: &Place, to: &Place) -> io::Result<()> {
        from.check_has_name()?;
        to.check_has_name()?;
        let (old, new) = (checked(from)?, checked(to)?);
        match (from, to) {
            (Place::Data(_), Place::Data(_)) => {
                self.data().and_then(|data| data.rename(old, data, new))
            }
            (Place::Operator(_), Place::Operator(_)) => fs::rename(old, new),
            (Place::Data(_), Place::Operator(_)) | (Place::Operator(_), Place::Data(_)) => {
                Err(io::ErrorKind::CrossesDevices.into())
            }
        }
        .map_err(|e| io::Error::new(e.kind(), format!("cannot rename {from} to {to}: {e}")))
    }

    fn remove(&self, place: &Place) -> io::Result<()> {
        place.check_has_name()?;
        let path = checked(place)?;
        let removed = match place {
            Place::Data(_) => self.data()?.remove_file(path),
            Place::Operator(_) => fs::remove_file(path),
        };
        match removed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(named("remove", place)),
        }
    }

    fn create_dir(&self, place: &Place) -> io::Result<()> {
        let path = checked(place)?;
        match place {
            Place::Data(_) if path == Path::new(".") => Ok(()),
            Place::Data(_) => self.create_data_dir(&path),
            Place::Operator(_) => fs::create_dir_all(path),
        }
        .map_err(named("make the directory", place))
    }

    fn sync_dir(&self, place: &Place) -> io::Result<()> {
        let path = checked(place)?;
        let sync = || match place {
            // A cap-std directory handle is opened for paths only and cannot be synced itself.
            Place::Data(_) => self.data()?.open_dir(&path)?.open(".")?.sync_all(),
            Place::Operator(_) if !fs::metadata(&path)?.is_dir() => {
                Err(io::ErrorKind::NotADirectory.into())
            }
            Place::Operator(_) => File::open(&path)?.sync_all(),
        };
        sync().map_err(named("sync the directory", place))
    }

    fn list(&self, place: &Place) -> io::Result<Vec<String>> {
        let path = checked(place)?;
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            match place {
                Place::Data(_) => {
                    for entry in self.data()?.read_dir(&path)? {
                        names.push(entry?.file_name().to_string_lossy().into_owned());
                    }
                    if path == Path::new(".") && self._lock.is_some() {
                        names.retain(|name| name != LOCK);
                    }
                }
                Place::Operator(_) => {
                    for entry in fs::read_dir(&path)? {
                        names.push(entry?.file_name().to_string_lossy().into_owned());
                    }
                }
            }
            names.sort();
            Ok(names)
        };
        list().map_err(named("list", place))
    }

    fn free_space(&self, place: &Place) -> io::Result<Option<u64>> {
        let path = checked(place)?;
        let ask = || -> io::Result<Option<u64>> {
            // What does not exist yet will be where the directory above it is.
            for path in path.ancestors() {
                let asked = match place {
                    Place::Data(_) => {
                        let path = if path.as_os_str().is_empty() {
                            Path::new(".")
                        } else {
                            path
                        };
                        self.data()?
                            .open_dir(path)
                            .and_then(|dir| Ok(rustix::fs::fstatvfs(dir.open(".")?)?))
                    }
                    Place::Operator(_) => match fs::metadata(path) {
                        Ok(found) if found.file_type().is_block_device() => return Ok(None),
                        Ok(_) => Ok(rustix::fs::statvfs(path)?),
                        Err(e) => Err(e),
                    },
                };
                match asked {
                    Ok(found) => return Ok(Some(found.f_bavail.saturating_mul(found.f_frsize))),
                    Err(e)
                        if matches!(
                            e.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                        ) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(None)
        };
        ask().map_err(named("find the free space of", place))
    }

    fn confined(&self, directory: &Place) -> io::Result<Arc<dyn Disk>> {
        directory.check_has_name()?;
        let path = checked(directory)?;
        let open = || match directory {
            Place::Data(_) => self.data()?.open_dir(&path),
            Place::Operator(_) => Dir::open_ambient_dir(&path, cap_std::ambient_authority()),
        };
        Ok(Arc::new(RealDisk {
            data: Some(open().map_err(named("use the directory", directory))?),
            modes: SHARED,
            _lock: None,
        }))
    }

    fn kind(&self, place: &Place) -> io::Result<Option<Kind>> {
        let path = checked(place)?;
        let of = |is_dir: bool, is_link: bool, is_file: bool| match (is_dir, is_link, is_file) {
            (true, _, _) => Kind::Dir,
            (_, true, _) => Kind::Link,
            (_, _, true) => Kind::File,
            _ => Kind::Other,
        };
        let found = match place {
            Place::Data(_) => self.data()?.symlink_metadata(&path).map(|found| {
                let file = found.is_file()
                    || cap_std::fs::FileTypeExt::is_block_device(&found.file_type());
                of(found.is_dir(), found.is_symlink(), file)
            }),
            Place::Operator(_) => fs::symlink_metadata(&path).map(|found| {
                let file = found.is_file() || found.file_type().is_block_device();
                of(found.is_dir(), found.is_symlink(), file)
            }),
        };
        match found {
            Ok(kind) => Ok(Some(kind)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(named("look at", place)(e)),
        }
    }

    fn make_link(&self, place: &Place, content: &Path) -> io::Result<()> {
        place.check_has_name()?;
        crate::check_link(place, content)?;
        let path = checked(place)?;
        match place {
            Place::Data(_) => self.data()?.symlink(content, path),
            Place::Operator(_) => std::os::unix::fs::symlink(content, path),
        }
        .map_err(named("make the link", place))
    }

    fn read_link(&self, place: &Place) -> io::Result<PathBuf> {
        let path = checked(place)?;
        match place {
            Place::Data(_) => self.data()?.read_link_contents(path),
            Place::Operator(_) => fs::read_link(path),
        }
        .map_err(named("read the link", place))
    }

    fn remove_dir(&self, place: &Place) -> io::Result<()> {
        place.check_has_name()?;
        let path = checked(place)?;
        let removed = match place {
            Place::Data(_) => self.data()?.remove_dir(path),
            Place::Operator(_) => fs::remove_dir(path),
        };
        match removed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(named("remove the directory", place)),
        }
    }

    /// The system's own way: it also takes names that are no UTF-8.
    fn remove_tree(&self, place: &Place) -> io::Result<()> {
        place.check_has_name()?;
        match self.kind(place)? {
            Some(Kind::Dir) => {}
            Some(_) => return self.remove(place),
            None => return Ok(()),
        }
        let path = checked(place)?;
        match place {
            Place::Data(_) => self.data()?.remove_dir_all(path),
            Place::Operator(_) => fs::remove_dir_all(path),
        }
        .map_err(named("remove the directory", place))
    }
}

/// An open file or block device.
#[derive(Debug)]
struct RealFile {
    file: File,
    place: Place,
    /// Of a block device.
    capacity: Option<u64>,
    writable: bool,
}

impl RealFile {
    /// The system answers a write to a read-only handle with a bare "bad file descriptor".
    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is open for reading only", self.place),
        ))
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        let now = self.file.metadata()?.len();
        if len <= now {
            return self.file.set_len(len);
        }
        // Growth takes its blocks now, so that a full disk is found here and not in the middle of a write.
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), now, len - now) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(len),
            Err(e) => {
                // Some file systems keep what they could get.
                self.file.set_len(now)?;
                Err(e.into())
            }
        }
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        match self.capacity {
            Some(capacity) => Ok(capacity),
            None => Ok(self
                .file
                .metadata()
                .map_err(named("find the length of", &self.place))?
                .len()),
        }
    }

    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.file
            .read_exact_at(into, offset)
            .map_err(named("read", &self.place))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        self.file
            .write_all_at(bytes, offset)
            .map_err(named("write", &self.place))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        match self.capacity {
            Some(capacity) => crate::fits_device(&self.place, len, capacity),
            None => self
                .resize(len)
                .map_err(named("set the length of", &self.place)),
        }
    }

    fn sync(&self) -> io::Result<()> {
        // Without the times of the file, which would cost a write to its inode for each commit of the journal.
        self.file.sync_data().map_err(named("sync", &self.place))
    }

    fn set_executable(&self) -> io::Result<()> {
        let make = || {
            let mode = self.file.metadata()?.permissions().mode();
            // Whoever may read it may run it.
            let mode = mode | ((mode & 0o444) >> 2);
            self.file.set_permissions(fs::Permissions::from_mode(mode))
        };
        make().map_err(named("make executable", &self.place))
    }

    fn forget_cached(&self) -> io::Result<()> {
        // Only pages that are on the medium already are ever let go.
        self.sync()?;
        match rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed) {
            // A file system without a medium has nothing else to read from.
            Ok(()) | Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(named("forget the cached content of", &self.place)(e.into())),
        }
    }

    fn is_device(&self) -> bool {
        self.capacity.is_some()
    }
}

#[cfg(test)]
#[path = "real_tests.rs"]
mod tests;
