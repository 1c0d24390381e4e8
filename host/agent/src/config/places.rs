//! Slots and staging directories that cannot work: the wrong kind of place, one place for two, or the agent's own data in it.
//!
//! Each of these would destroy something at the first update and not before, so they are found at start.

use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::reader::{Item, Reader};

/// The places that targets are written to.
#[derive(Default)]
pub(super) struct Places<'t> {
    pub(super) slots: Vec<PlaceAt<'t>>,
    /// Staging directories.
    pub(super) directories: Vec<PlaceAt<'t>>,
}

/// A slot or directory and where it stands in the file.
pub(super) struct PlaceAt<'t> {
    pub(super) target: String,
    pub(super) path: PathBuf,
    pub(super) item: Item<'t>,
}

pub(super) fn check(
    reader: &Reader,
    data_dir: Option<&(PathBuf, Range<usize>)>,
    places: &Places<'_>,
) {
    let slots = &places.slots;
    check_directories(
        data_dir.map(|(path, _)| path.as_path()),
        &places.directories,
    );
    for (i, slot) in slots.iter().enumerate() {
        if let Some((what, advice)) = unfit(&slot.path) {
            slot.item.fault(what, advice);
        }
        if let Some(other) = slots[..i]
            .iter()
            .find(|other| same_place(&other.path, &slot.path))
        {
            let what = if other.target == slot.target {
                "is the same place as the other slot: writing the new version would destroy the running one".to_owned()
            } else {
                format!(
                    "is a slot of target `{}` too: one would overwrite the other",
                    other.target
                )
            };
            slot.item.fault(what, "give every slot a place of its own");
        }
    }
    let Some((data_dir, data_dir_at)) = data_dir else {
        return;
    };
    let data_dir = resolved(data_dir);
    for slot in slots {
        let place = resolved(&slot.path);
        if place.starts_with(&data_dir) && place != data_dir {
            slot.item.fault(
                "is inside `device.data_dir`: the agent's own files and the slot would share one place",
                "keep slots outside the data directory",
            );
        } else if data_dir.starts_with(&place) || mounted_from(&data_dir, &slot.path) {
            reader.fault(
                data_dir_at,
                "device.data_dir",
                format!(
                    "is on the slot {}: the next update would overwrite it",
                    slot.path.display()
                ),
                "put it on a partition that no update writes",
            );
        }
    }
}

/// Each staging directory is cleared by the agent and belongs to one target alone.
fn check_directories(data_dir: Option<&Path>, directories: &[PlaceAt<'_>]) {
    // Everything lies below the root; that it is written at all is fault enough.
    let is_root = |path: &Path| path.parent().is_none();
    let overlap =
        |a: &Path, b: &Path| !is_root(a) && !is_root(b) && (a.starts_with(b) || b.starts_with(a));
    for (i, directory) in directories.iter().enumerate() {
        let place = resolved(&directory.path);
        match std::fs::metadata(&directory.path) {
            Ok(found) if !found.is_dir() => {
                directory.item.fault("is no directory", "name a directory");
            }
            Ok(_) => {}
            Err(_) if place.parent().is_some_and(Path::is_dir) => {}
            Err(_) => directory.item.fault(
                "neither it nor the directory above it exists",
                "make the directory, or correct the path",
            ),
        }
        if is_root(&place) {
            directory.item.fault(
                "is the root of the file system",
                "give it a directory of its own",
            );
        } else if data_dir.is_some_and(|data| overlap(&resolved(data), &place)) {
            directory.item.fault(
                "shares its place with `device.data_dir`",
                "keep what is staged outside the agent's own directory",
            );
        }
        if let Some(other) = directories[..i]
            .iter()
            .find(|other| overlap(&resolved(&other.path), &place))
        {
            directory.item.fault(
                format!(
                    "shares its place with the directory of target `{}`",
                    other.target
                ),
                "give every target a directory of its own",
            );
        }
    }
}

/// Why nothing can be written there.
fn unfit(path: &Path) -> Option<(String, &'static str)> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Some((
            "is a directory".into(),
            "a slot is a block device or a file",
        )),
        Ok(found) if path.starts_with("/dev") && !found.file_type().is_block_device() => Some((
            "is not a block device".into(),
            "name the partition, as in `/dev/mmcblk0p2`",
        )),
        Ok(_) => None,
        Err(_) if path.starts_with("/dev") => Some((
            "this device does not exist".into(),
            "`lsblk` shows the devices there are",
        )),
        Err(_) if path.parent().is_some_and(Path::is_dir) => None,
        Err(_) => Some((
            "neither it nor its directory exists".into(),
            "make the directory, or correct the path",
        )),
    }
}

/// True for one file or one device under two names as well.
fn same_place(a: &Path, b: &Path) -> bool {
    if resolved(a) == resolved(b) {
        return true;
    }
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) if a.file_type().is_block_device() && b.file_type().is_block_device() => {
            a.rdev() == b.rdev()
        }
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// True when the file system that holds `directory` (or will, once it is made) is on this block device.
fn mounted_from(directory: &Path, device: &Path) -> bool {
    let Some(found) = directory
        .ancestors()
        .find_map(|d| std::fs::metadata(d).ok())
    else {
        return false;
    };
    std::fs::metadata(device)
        .is_ok_and(|d| d.file_type().is_block_device() && d.rdev() == found.dev())
}

/// The path with the links in its existing part followed.
fn resolved(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (above.canonicalize(), path.strip_prefix(above)) {
            return if rest.as_os_str().is_empty() {
                real
            } else {
                real.join(rest)
            };
        }
    }
    path.to_path_buf()
}
