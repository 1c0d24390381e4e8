//! zip: by its central directory, entry by entry (APPNOTE.TXT 6.3.10).
//!
//! Read by our own code, because the limits come first: the crates there are make an index in memory of as many entries as the archive
//! says it has, before anybody can object. This reads what is needed and is strict where two readers could see two archives in one:
//! one end record at the very end, equal names in both headers, sizes and check sums as said.

use std::io::{BufRead, Read};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use super::reader::{FileReader, read_up_to};
use super::tree::Tree;
use crate::FlashError;

const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
/// Bytes of the fixed parts.
const END_LEN: usize = 22;
const END_64_LEN: usize = 56;
const LOCATOR_64_LEN: usize = 20;
const CENTRAL_LEN: usize = 46;
const LOCAL_LEN: usize = 30;
/// Longest comment behind the end record.
const MAX_COMMENT: usize = u16::MAX as usize;
/// Longest content of a symbolic link.
const MAX_LINK: usize = 4096;
/// The extra field with 64-bit sizes.
const EXTRA_64: u16 = 1;

/// Where the central directory is.
struct Directory {
    entries: u64,
    start: u64,
    end: u64,
}

/// What the central directory says of an entry.
struct Entry {
    name: Vec<u8>,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    offset: u64,
    /// As `stat` has it; 0 where nobody said.
    mode: u32,
}

/// Little-endian fields at fixed offsets.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(&self, at: usize) -> u16 {
        self.0[at..]
            .first_chunk()
            .map_or(0, |bytes| u16::from_le_bytes(*bytes))
    }

    fn u32(&self, at: usize) -> u32 {
        self.0[at..]
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn u64(&self, at: usize) -> u64 {
        self.0[at..]
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// Unpacks a zip.
pub(super) fn unpack(file: &FileReader<'_>, tree: &mut Tree<'_>) -> Result<(), FlashError> {
    let directory = directory(file, tree)?;
    if directory.entries > u64::from(tree.limits().entries) {
        return Err(tree.refused(format!(
            "it has {} entries; {} are allowed",
            directory.entries,
            tree.limits().entries
        )));
    }
    let mut central = file
        .from(directory.start)
        .take(directory.end - directory.start);
    for _ in 0..directory.entries {
        let entry = entry(&mut central, tree)?;
        unpack_entry(file, &entry, directory.start, tree)?;
    }
    Ok(())
}

fn directory(file: &FileReader<'_>, tree: &Tree<'_>) -> Result<Directory, FlashError> {
    let bytes = |at, len| {
        file.bytes_at(at, len)
            .map_err(|error| tree.unreadable(&error))
    };
    let broken = || tree.refused("its end record is missing or broken; it was not fetched whole");
    let tail_len = usize::try_from(file.len())
        .map_or(END_LEN + MAX_COMMENT, |len| len.min(END_LEN + MAX_COMMENT));
    let tail = bytes(file.len() - tail_len as u64, tail_len)?;
    let at = (0..=tail_len.checked_sub(END_LEN).ok_or_else(broken)?)
        .rev()
        .find(|at| {
            let end = Fields(&tail[*at..]);
            end.u32(0) == END && usize::from(end.u16(20)) == tail_len - at - END_LEN
        })
        .ok_or_else(broken)?;
    let end = Fields(&tail[at..]);
    let mut limit = file.len() - (tail_len - at) as u64;
    let (disk, on_disk) = (end.u16(4), end.u16(8));
    let (mut entries, mut len, mut start) = (
        u64::from(end.u16(10)),
        u64::from(end.u32(12)),
        u64::from(end.u32(16)),
    );
    let wants_64 = entries == u64::from(u16::MAX)
        || len == u64::from(u32::MAX)
        || start == u64::from(u32::MAX);
    if disk != 0 || u64::from(on_disk) != entries {
        return Err(tree.refused("it is one part of several"));
    }
    if wants_64 {
        let locator_at = limit
            .checked_sub(LOCATOR_64_LEN as u64)
            .ok_or_else(broken)?;
        let locator = bytes(locator_at, LOCATOR_64_LEN)?;
        let locator = Fields(&locator);
        let at = locator.u64(8);
        let fits = at
            .checked_add(END_64_LEN as u64)
            .is_some_and(|end| end <= locator_at);
        if locator.u32(0) != LOCATOR_64 || !fits {
            return Err(broken());
        }
        let end = bytes(at, END_64_LEN)?;
        let end = Fields(&end);
        if end.u32(0) != END_64 {
            return Err(broken());
        }
        (entries, len, start, limit) = (end.u64(32), end.u64(40), end.u64(48), at);
    }
    let end = start
        .checked_add(len)
        .filter(|end| *end <= limit)
        .ok_or_else(broken)?;
    Ok(Directory {
        entries,
        start,
        end,
    })
}

/// The next entry of the central directory.
fn entry(central: &mut impl BufRead, tree: &Tree<'_>) -> Result<Entry, FlashError> {
    let broken = || tree.refused("its directory is broken");
    let mut part = |len: usize| {
        let bytes = read_up_to(central, len).map_err(|error| tree.unreadable(&error))?;
        if bytes.len() < len {
            return Err(broken());
        }
        Ok(bytes)
    };
    let fixed = part(CENTRAL_LEN)?;
    let fixed = Fields(&fixed);
    if fixed.u32(0) != CENTRAL {
        return Err(broken());
    }
    let name = part(usize::from(fixed.u16(28)))?;
    let extra = part(usize::from(fixed.u16(30)))?;
    part(usize::from(fixed.u16(32)))?;
    let shown = String::from_utf8_lossy(&name).into_owned();
    // Encrypted, patched, or with masked headers.
    if fixed.u16(8) & (1 | 1 << 5 | 1 << 6 | 1 << 13) != 0 {
        return Err(tree.refused(format!("its entry {shown:?} is encrypted")));
    }
    let (mut size, mut packed, mut offset) = (
        u64::from(fixed.u32(24)),
        u64::from(fixed.u32(20)),
        u64::from(fixed.u32(42)),
    );
    let mut wide = extra_64(&extra).map_or(&[][..], |bytes| bytes);
    for field in [&mut size, &mut packed, &mut offset] {
        if *field == u64::from(u32::MAX) {
            let (bytes, rest) = wide.split_first_chunk().ok_or_else(broken)?;
            *field = u64::from_le_bytes(*bytes);
            wide = rest;
        }
    }
    // Unix and macOS keep the mode in the upper half; elsewhere the name alone tells a directory.
    let mode = match fixed.u16(4) >> 8 {
        3 | 19 => fixed.u32(38) >> 16,
        _ => 0,
    };
    Ok(Entry {
        name,
        method: fixed.u16(10),
        crc: fixed.u32(16),
        packed,
        size,
        offset,
        mode,
    })
}

fn extra_64(mut extra: &[u8]) -> Option<&[u8]> {
    while let Some((head, rest)) = extra.split_first_chunk::<4>() {
        let head = Fields(head);
        let (field, rest) = rest.split_at_checked(usize::from(head.u16(2)))?;
        if head.u16(0) == EXTRA_64 {
            return Some(field);
        }
        extra = rest;
    }
    None
}

fn unpack_entry(
    file: &FileReader<'_>,
    entry: &Entry,
    limit: u64,
    tree: &mut Tree<'_>,
) -> Result<(), FlashError> {
    const KIND: u32 = 0o170_000;
    const DIRECTORY: u32 = 0o040_000;
    const REGULAR: u32 = 0o100_000;
    const LINK: u32 = 0o120_000;
    let shown = String::from_utf8_lossy(&entry.name).into_owned();
    let start = content_at(file, entry, tree)?;
    if start
        .checked_add(entry.packed)
        .is_none_or(|end| end > limit)
    {
        return Err(tree.refused(format!("it ends in the middle of {shown:?}")));
    }
    let packed = file.from(start).take(entry.packed);
    let mut content: Box<dyn Read + '_> = match entry.method {
        0 if entry.packed != entry.size => {
            return Err(tree.refused(format!("it says two sizes of {shown:?}")));
        }
        0 => Box::new(packed),
        8 => Box::new(DeflateDecoder::new(packed)),
        other => {
            return Err(tree.refused(format!(
                "its entry {shown:?} is packed in a way that is not known (method {other})"
            )));
        }
    };
    match entry.mode & KIND {
        DIRECTORY => tree.directory(&entry.name),
        0 | REGULAR if entry.name.ends_with(b"/") => tree.directory(&entry.name),
        0 | REGULAR => {
            let mut checked = Checked {
                content,
                crc: Crc::new(),
                expected: entry.crc,
                left: entry.size,
            };
            let executable = entry.mode & 0o111 != 0;
            tree.file(&entry.name, entry.size, executable, &mut checked)
        }
        LINK => {
            if entry.size > MAX_LINK as u64 {
                return Err(tree.refused(format!("its link {shown:?} is too long")));
            }
            let target =
                read_up_to(&mut content, MAX_LINK).map_err(|error| tree.unreadable(&error))?;
            tree.link(&entry.name, &target)
        }
        _ => Err(tree.refused(format!("its entry {shown:?} is a device or a pipe"))),
    }
}

/// Where the content of an entry begins, behind its own header.
fn content_at(file: &FileReader<'_>, entry: &Entry, tree: &Tree<'_>) -> Result<u64, FlashError> {
    let bytes = |at, len| {
        file.bytes_at(at, len)
            .map_err(|error| tree.unreadable(&error))
    };
    let local = bytes(entry.offset, LOCAL_LEN)?;
    let local = Fields(&local);
    let (name_len, extra_len) = (local.u16(26), local.u16(28));
    let name_at = entry.offset + LOCAL_LEN as u64;
    if local.u32(0) != LOCAL || bytes(name_at, usize::from(name_len))? != entry.name {
        let shown = String::from_utf8_lossy(&entry.name);
        return Err(tree.refused(format!(
            "its entry {shown:?} is another one than its directory says"
        )));
    }
    Ok(name_at + u64::from(name_len) + u64::from(extra_len))
}

/// Compares the content's check sum when all of it was read.
struct Checked<'a> {
    content: Box<dyn Read + 'a>,
    crc: Crc,
    expected: u32,
    left: u64,
}

impl Read for Checked<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.content.read(into)?;
        self.crc.update(&into[..read]);
        self.left = self.left.saturating_sub(read as u64);
        if read == 0 && !into.is_empty() && self.left == 0 && self.crc.sum() != self.expected {
            return Err(std::io::Error::other("a check sum is wrong"));
        }
        Ok(read)
    }
}
