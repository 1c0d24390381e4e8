//! tar: entry by entry, with the extensions that carry long names read by us, within limits.
//!
//! The crate's own reading of them takes as much memory as the archive says, and its unpacking follows links; both are left out.

use std::io::Read;

use tar::{Archive, EntryType, PaxExtensions};

use super::reader::read_up_to;
use super::tree::Tree;
use crate::FlashError;

/// Most bytes of one extension.
const MAX_EXTENSION: usize = 64 * 1024;
/// Extensions in a row, without an entry that they extend.
const MAX_EXTENSIONS: u32 = 16;
/// Most bytes after the end of the archive; tools fill up whole blocks.
const MAX_FILL: usize = 1024 * 1024;

/// What extensions say of the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<Vec<u8>>,
    count: u32,
}

/// Unpacks a tar.
pub(super) fn unpack(from: &mut dyn Read, tree: &mut Tree<'_>) -> Result<(), FlashError> {
    let mut archive = Archive::new(from);
    let mut extended = Extended::default();
    let entries = archive.entries().map_err(|error| tree.unreadable(&error))?;
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|error| tree.unreadable(&error))?;
        let kind = entry.header().entry_type();
        let size = entry
            .header()
            .entry_size()
            .map_err(|error| tree.unreadable(&error))?;
        if is_extension(kind) {
            extended.count += 1;
            if size > MAX_EXTENSION as u64 || extended.count > MAX_EXTENSIONS {
                return Err(tree.refused("it has an extension that is too long"));
            }
            let bytes =
                read_up_to(&mut entry, MAX_EXTENSION).map_err(|error| tree.unreadable(&error))?;
            if bytes.len() as u64 != size {
                return Err(tree.refused("it ends in the middle of an extension"));
            }
            extend(&mut extended, kind, &bytes, tree)?;
            continue;
        }
        let Extended {
            path,
            link,
            size: said,
            ..
        } = std::mem::take(&mut extended);
        if said.is_some_and(|said| said != size.to_string().as_bytes()) {
            return Err(tree.refused("it says two sizes of one entry"));
        }
        let path = path.unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let shown = String::from_utf8_lossy(&path).into_owned();
        match kind {
            // Old tars mark a directory by its name alone.
            EntryType::Regular if path.ends_with(b"/") => tree.directory(&path)?,
            EntryType::Regular | EntryType::Continuous => {
                let mode = entry.header().mode().unwrap_or(0);
                tree.file(&path, size, mode & 0o111 != 0, &mut entry)?;
            }
            EntryType::Directory => tree.directory(&path)?,
            EntryType::Symlink => {
                let link = link.or_else(|| {
                    let link = entry.header().link_name_bytes();
                    link.map(|link| link.into_owned())
                });
                tree.link(&path, &link.unwrap_or_default())?;
            }
            EntryType::Link => {
                return Err(tree.refused(format!("its entry {shown:?} is a hard link")));
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                return Err(tree.refused(format!("its entry {shown:?} is a device or a pipe")));
            }
            _ => {
                return Err(tree.refused(format!(
                    "its entry {shown:?} is of a kind that is not known ({:?})",
                    char::from(kind.as_byte())
                )));
            }
        }
    }
    if extended.count > 0 {
        return Err(tree.refused("it ends with an extension of nothing"));
    }
    // The end of what is around it, a check sum perhaps, is only seen by whoever reads up to it.
    let rest =
        read_up_to(archive.into_inner(), MAX_FILL + 1).map_err(|error| tree.unreadable(&error))?;
    if rest.len() > MAX_FILL {
        return Err(tree.refused("it goes on after its end"));
    }
    Ok(())
}

fn is_extension(kind: EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
}

fn extend(
    extended: &mut Extended,
    kind: EntryType,
    bytes: &[u8],
    tree: &Tree<'_>,
) -> Result<(), FlashError> {
    let until_nul = || {
        let end = bytes.iter().position(|byte| *byte == 0);
        bytes[..end.unwrap_or(bytes.len())].to_vec()
    };
    let twice = match kind {
        kind if kind.is_gnu_longname() => extended.path.replace(until_nul()).is_some(),
        kind if kind.is_gnu_longlink() => extended.link.replace(until_nul()).is_some(),
        // What holds for the whole archive are comments and owners.
        kind if kind.is_pax_global_extensions() => false,
        _ => {
            for record in PaxExtensions::new(bytes) {
                let record = record.map_err(|error| tree.unreadable(&error))?;
                let place = match record.key_bytes() {
                    b"path" => &mut extended.path,
                    b"linkpath" => &mut extended.link,
                    b"size" => &mut extended.size,
                    key if key.starts_with(b"GNU.sparse") => {
                        return Err(tree.refused("it holds a sparse file, which is not known here"));
                    }
                    _ => continue,
                };
                *place = Some(record.value_bytes().to_vec());
            }
            false
        }
    };
    if twice {
        return Err(tree.refused("it says two names of one entry"));
    }
    Ok(())
}
