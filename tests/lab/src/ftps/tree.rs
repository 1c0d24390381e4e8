//! The server's files, in memory, and how it lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Names of the months, as `ls` writes them.
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Date of what has none, where a listing must show one.
const UNDATED: &str = "19700101000000";

/// A file.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// What `RETR` sends.
    pub(super) bytes: Arc<[u8]>,
    /// The size it says it has, if it lies.
    pub(super) claimed: Option<u64>,
    /// `YYYYMMDDHHMMSS`, if it says so.
    pub(super) modified: Option<String>,
}

impl File {
    /// The size it says it has.
    pub(super) fn size(&self) -> u64 {
        self.claimed.unwrap_or(self.bytes.len() as u64)
    }
}

/// What stands in a listing without being there.
#[derive(Debug)]
enum Extra {
    Name(Vec<u8>, u64),
    Raw(Vec<u8>),
}

/// How a listing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// RFC 3659.
    Mlsd,
    /// As `ls -l`.
    Long,
    /// Names alone.
    Names,
}

/// All files and directories.
#[derive(Debug, Default)]
pub(super) struct Tree {
    files: BTreeMap<Vec<u8>, File>,
    directories: BTreeSet<Vec<u8>>,
    extra: BTreeMap<Vec<u8>, Vec<Extra>>,
    versions: u32,
}

/// An absolute path, without `.`, `..` and doubled separators.
pub(super) fn absolute(from: &[u8], path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    let whole = if path.starts_with(b"/") {
        path.to_owned()
    } else {
        [from, b"/", path].concat()
    };
    for part in whole.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    [b"/".as_slice(), &parts.join(b"/".as_slice())].concat()
}

/// The directory of a path, and what is below it begins with.
fn prefix(directory: &[u8]) -> Vec<u8> {
    if directory == b"/" {
        directory.to_owned()
    } else {
        [directory, b"/"].concat()
    }
}

impl Tree {
    /// Puts a file there with a date one second after that of the file before; its directories come with it.
    pub(super) fn put(&mut self, path: &[u8], bytes: Arc<[u8]>) {
        self.versions += 1;
        let (hours, minutes, seconds) = (
            self.versions / 3600 % 24,
            self.versions / 60 % 60,
            self.versions % 60,
        );
        self.files.insert(
            absolute(b"/", path),
            File {
                bytes,
                claimed: None,
                modified: Some(format!("20240101{hours:02}{minutes:02}{seconds:02}")),
            },
        );
    }

    pub(super) fn remove(&mut self, path: &[u8]) {
        self.files.remove(&absolute(b"/", path));
    }

    pub(super) fn file(&self, path: &[u8]) -> Option<&File> {
        self.files.get(path)
    }

    /// Changes a file that must be there.
    pub(super) fn change(&mut self, path: &[u8], change: impl FnOnce(&mut File)) {
        let file = self.files.get_mut(&absolute(b"/", path));
        change(file.expect("the file was put there before it is changed"));
    }

    pub(super) fn make_directory(&mut self, path: &[u8]) {
        self.directories.insert(absolute(b"/", path));
    }

    pub(super) fn list_name(&mut self, directory: &[u8], name: Vec<u8>, size: u64) {
        let extra = self.extra.entry(absolute(b"/", directory)).or_default();
        extra.push(Extra::Name(name, size));
    }

    pub(super) fn list_raw(&mut self, directory: &[u8], bytes: Vec<u8>) {
        let extra = self.extra.entry(absolute(b"/", directory)).or_default();
        extra.push(Extra::Raw(bytes));
    }

    pub(super) fn is_directory(&self, path: &[u8]) -> bool {
        let below = prefix(path);
        path == b"/"
            || self.directories.contains(path)
            || self.extra.contains_key(path)
            || self
                .files
                .keys()
                .chain(&self.directories)
                .any(|known| known.starts_with(&below))
    }

    /// The listing of a directory, or of one file.
    pub(super) fn listing(&self, path: &[u8], format: Format) -> Vec<u8> {
        let mut text = Vec::new();
        if let Some(file) = self.files.get(path) {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
            line(
                &mut text,
                format,
                name,
                Some(file.size()),
                file.modified.as_deref(),
            );
            return text;
        }
        if format == Format::Mlsd {
            text.extend_from_slice(b"type=cdir;modify=20240101000000; .\r\n");
            text.extend_from_slice(b"type=pdir;modify=20240101000000; ..\r\n");
        }
        let below = prefix(path);
        let mut seen = BTreeSet::new();
        for known in self.files.keys().chain(&self.directories) {
            let Some(rest) = known.strip_prefix(below.as_slice()) else {
                continue;
            };
            let name = rest.split(|byte| *byte == b'/').next().unwrap_or(rest);
            if name.is_empty() || !seen.insert(name) {
                continue;
            }
            match self.files.get(&[&below, name].concat()) {
                Some(file) => line(
                    &mut text,
                    format,
                    name,
                    Some(file.size()),
                    file.modified.as_deref(),
                ),
                None => line(&mut text, format, name, None, Some("20240101000000")),
            }
        }
        for extra in self.extra.get(path).into_iter().flatten() {
            match extra {
                Extra::Name(name, size) => {
                    line(&mut text, format, name, Some(*size), Some("20240101000000"))
                }
                Extra::Raw(bytes) => text.extend_from_slice(bytes),
            }
        }
        text
    }
}

/// Adds one entry; no size: a directory.
fn line(
    text: &mut Vec<u8>,
    format: Format,
    name: &[u8],
    size: Option<u64>,
    modified: Option<&str>,
) {
    match format {
        Format::Mlsd => {
            let kind = match size {
                Some(size) => format!("type=file;size={size};"),
                None => "type=dir;".to_owned(),
            };
            text.extend_from_slice(kind.as_bytes());
            if let Some(modified) = modified {
                text.extend_from_slice(format!("modify={modified};").as_bytes());
            }
            text.push(b' ');
        }
        Format::Long => {
            let modified = modified.unwrap_or(UNDATED);
            let month = modified
                .get(4..6)
                .and_then(|month| month.parse::<usize>().ok())
                .and_then(|month| MONTHS.get(month.checked_sub(1)?))
                .unwrap_or(&"Jan");
            let (year, day) = (
                modified.get(..4).unwrap_or("1970"),
                modified.get(6..8).unwrap_or("01"),
            );
            let rights = if size.is_some() {
                "-rw-r--r--"
            } else {
                "drwxr-xr-x"
            };
            let size = size.unwrap_or(4096);
            let facts = format!("{rights}    1 0        0        {size:>8} {month} {day}  {year} ");
            text.extend_from_slice(facts.as_bytes());
        }
        Format::Names => {}
    }
    text.extend_from_slice(name);
    text.extend_from_slice(b"\r\n");
}
