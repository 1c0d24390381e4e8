//! The disk of a device: a data directory nobody else writes to, and the files and block devices the operator named.
//!
//! The data directory is held as an open handle (cap-std), so that no path made from outside data, and no link somebody put
//! there, leads out of it. Paths of the operator are used as they are.

use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use crate::{Disk, DiskFile, Open, Place};

/// The file whose lock says that an agent is at work in the data directory. It stays there, empty.
const LOCK: &str = "otahost.lock";

/// The disk of the device we run on.
///
/// It holds the lock on its data directory until it is dropped.
#[derive(Debug)]
pub struct RealDisk {
    /// None for a disk that serves the operator's paths only.
    data: Option<Dir>,
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
        let lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(data_dir.join(LOCK))
            .map_err(named)?;
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
            _lock: Some(lock),
        })
    }

    /// A disk without a data directory: it serves the operator's paths and locks nothing, to look at slots while an agent runs.
    pub fn operator_only() -> RealDisk {
        RealDisk {
            data: None,
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

    fn open_data(&self, path: &Path, how: Open) -> io::Result<RealFile> {
        match self.data()?.metadata(path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is no ordinary file",
                ));
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound && how == Open::Create => {}
            Err(e) => return Err(e),
        }
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(how != Open::Read)
            .create(how == Open::Create)
            .mode(0o600);
        Ok(RealFile {
            file: self.data()?.open_with(path, &options)?.into_std(),
            place: Place::data(path),
            capacity: None,
            writable: how != Open::Read,
        })
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
    let device = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if found.is_file() => false,
        Ok(found) if found.file_type().is_block_device() => true,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is neither a file nor a block device",
            ));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && how == Open::Create => false,
        Err(e) => return Err(e),
    };
    let mut file = File::options()
        .read(true)
        .write(how != Open::Read)
        .create(how == Open::Create)
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
            Place::Data(_) => self.data()?.create_dir_all(path),
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
                    if path == Path::new(".") {
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
mod tests {
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

    /// Whether the first bytes of a file are in the system's memory; `None` where the system does not say.
    fn is_cached(path: &Path) -> Option<bool> {
        use rustix::io::{ReadWriteFlags, preadv2};
        let file = File::open(path).unwrap();
        let mut bytes = [0; 16];
        let mut into = [io::IoSliceMut::new(&mut bytes)];
        match preadv2(&file, &mut into, 0, ReadWriteFlags::NOWAIT) {
            Ok(_) => Some(true),
            Err(Errno::AGAIN) => Some(false),
            Err(_) => None,
        }
    }

    #[test]
    fn what_is_forgotten_is_read_from_the_medium_again() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path()).unwrap();
        let path = dir.path().join("f");
        let file = disk.open(&Place::data("f"), Open::Create).unwrap();
        let content = vec![7; 1 << 20];
        file.write_at(&content, 0).unwrap();
        let before = is_cached(&path);
        file.forget_cached().unwrap();
        // A file system that lives in memory has nowhere else to read from, and some do not say.
        let in_memory = rustix::fs::statfs(dir.path()).unwrap().f_type == TMPFS;
        if before.is_some() && !in_memory {
            assert_eq!((before, is_cached(&path)), (Some(true), Some(false)));
        }
        let mut back = vec![0; content.len()];
        file.read_exact_at(&mut back, 0).unwrap();
        assert_eq!(back, content);
        let reader = disk.open(&Place::data("f"), Open::Read).unwrap();
        reader.forget_cached().unwrap();
    }
}
