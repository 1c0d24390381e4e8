//! Archives as nobody's tool makes them.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "tests; not every file uses all of it"
)]

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder};
use tar::{EntryType, Header};

/// An entry of an archive.
#[derive(Debug, Clone)]
pub enum Item {
    File(Vec<u8>, Vec<u8>),
    Program(Vec<u8>, Vec<u8>),
    Dir(Vec<u8>),
    Link(Vec<u8>, Vec<u8>),
    /// Another kind of tar entry, with what it leads to.
    Other(EntryType, Vec<u8>, Vec<u8>),
    /// So many zeros.
    Zeros(Vec<u8>, u64),
}

pub fn file(name: &str, content: &str) -> Item {
    Item::File(name.into(), content.into())
}

pub fn dir(name: &str) -> Item {
    Item::Dir(name.into())
}

pub fn link(name: &str, target: &str) -> Item {
    Item::Link(name.into(), target.into())
}

impl Item {
    fn name(&self) -> &[u8] {
        match self {
            Item::File(name, _)
            | Item::Program(name, _)
            | Item::Dir(name)
            | Item::Link(name, _)
            | Item::Other(_, name, _)
            | Item::Zeros(name, _) => name,
        }
    }

    fn content(&self) -> Vec<u8> {
        match self {
            Item::File(_, content) | Item::Program(_, content) => content.clone(),
            Item::Zeros(_, len) => vec![0; usize::try_from(*len).unwrap()],
            Item::Dir(_) | Item::Link(..) | Item::Other(..) => Vec::new(),
        }
    }

    fn link(&self) -> &[u8] {
        match self {
            Item::Link(_, target) | Item::Other(_, _, target) => target,
            _ => b"",
        }
    }
}

fn entry(kind: EntryType, name: &[u8], link: &[u8], size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    let old = header.as_old_mut();
    let take = name.len().min(100);
    old.name[..take].copy_from_slice(&name[..take]);
    let take = link.len().min(100);
    old.linkname[..take].copy_from_slice(&link[..take]);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_cksum();
    header
}

fn put(out: &mut Vec<u8>, header: &Header, content: &[u8]) {
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// A tar with these entries; long names by GNU's extension.
pub fn tar(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let (name, content) = (item.name(), item.content());
        if name.len() > 100 {
            let kind = EntryType::GNULongName;
            let long = entry(kind, b"././@LongLink", b"", name.len() as u64, 0);
            put(&mut out, &long, name);
        }
        let (kind, mode) = match item {
            Item::File(..) | Item::Zeros(..) => (EntryType::Regular, 0o644),
            Item::Program(..) => (EntryType::Regular, 0o755),
            Item::Dir(_) => (EntryType::Directory, 0o755),
            Item::Link(..) => (EntryType::Symlink, 0o777),
            Item::Other(kind, ..) => (*kind, 0o644),
        };
        let header = entry(kind, name, item.link(), content.len() as u64, mode);
        put(&mut out, &header, &content);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A pax record.
pub fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    let mut record = format!("{len} {key}=").into_bytes();
    record.extend_from_slice(value);
    record.push(b'\n');
    record
}

/// A tar with an extension of this kind before its one file.
pub fn tar_with_extension(kind: EntryType, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(
        &mut out,
        &entry(kind, b"extension", b"", content.len() as u64, 0),
        content,
    );
    out.extend(tar(&[file("plain", "x")]));
    out
}

pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zst(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// How a zip is to be spoilt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spoil {
    /// Every entry says that it is encrypted.
    pub encrypted: bool,
    /// This method instead of the true one.
    pub method: Option<u16>,
    /// The local headers name something else.
    pub cloaked: bool,
    /// Check sums are wrong.
    pub crc: bool,
    /// Sizes are said too small.
    pub size: bool,
    /// This mode for every entry.
    pub mode: Option<u32>,
    /// The end record says so many entries.
    pub entries: Option<u16>,
}

pub fn zip(items: &[Item]) -> Vec<u8> {
    spoilt_zip(items, Spoil::default())
}

pub fn spoilt_zip(items: &[Item], spoil: Spoil) -> Vec<u8> {
    let (mut out, mut central) = (Vec::new(), Vec::new());
    for item in items {
        let name = item.name().to_vec();
        let (content, mode) = match item {
            Item::Link(_, target) => (target.clone(), 0o120_777),
            Item::Dir(_) => (Vec::new(), 0o040_755),
            Item::Program(..) => (item.content(), 0o100_755),
            Item::Other(..) => (Vec::new(), 0o010_644),
            Item::File(..) | Item::Zeros(..) => (item.content(), 0o100_644),
        };
        let mode = spoil.mode.unwrap_or(mode);
        let mut crc = flate2::Crc::new();
        crc.update(&content);
        let mut deflate = DeflateEncoder::new(Vec::new(), Compression::best());
        deflate.write_all(&content).unwrap();
        let packed = deflate.finish().unwrap();
        let size = content.len() as u32 - u32::from(spoil.size);
        let mut both = Vec::new();
        both.extend(20u16.to_le_bytes());
        both.extend(u16::from(spoil.encrypted).to_le_bytes());
        both.extend(spoil.method.unwrap_or(8).to_le_bytes());
        both.extend([0; 4]);
        both.extend((crc.sum() ^ u32::from(spoil.crc)).to_le_bytes());
        both.extend((packed.len() as u32).to_le_bytes());
        both.extend(size.to_le_bytes());
        both.extend((name.len() as u16).to_le_bytes());
        both.extend(0u16.to_le_bytes());
        let offset = out.len() as u32;
        out.extend(0x0403_4b50u32.to_le_bytes());
        out.extend(&both);
        let mut local_name = name.clone();
        if spoil.cloaked {
            local_name[0] ^= 1;
        }
        out.extend(local_name);
        out.extend(packed);
        central.extend(0x0201_4b50u32.to_le_bytes());
        central.extend((3u16 << 8 | 20).to_le_bytes());
        central.extend(&both);
        central.extend([0; 6]);
        central.extend((mode << 16).to_le_bytes());
        central.extend(offset.to_le_bytes());
        central.extend(&name);
    }
    let start = out.len() as u32;
    let len = central.len() as u32;
    out.extend(central);
    let entries = spoil.entries.unwrap_or(items.len() as u16);
    out.extend(0x0605_4b50u32.to_le_bytes());
    out.extend([0; 4]);
    out.extend(entries.to_le_bytes());
    out.extend(entries.to_le_bytes());
    out.extend(len.to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend(0u16.to_le_bytes());
    out
}
