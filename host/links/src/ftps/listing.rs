//! Listings, as servers write them: MLSD (RFC 3659), the two dialects of LIST that servers speak, and bare names.
//!
//! Only MLSD is a format. LIST is meant for people: its times have no zone and often no year, so no time is taken from it. A line
//! that is not understood, or a name that is none, is left out and counted, because a listing of hundred files should not fail for
//! one.

use otahost_core::model::DirectoryEntry;

use super::path::is_name;
use super::reply::milliseconds;

/// Which command made the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Facts for machines.
    Mlsd,
    /// Lines for people.
    List,
    /// Names only: nobody knows what is a directory.
    Nlst,
}

impl Form {
    /// In the order they are tried.
    pub(super) const ALL: [Form; 3] = [Form::Mlsd, Form::List, Form::Nlst];

    pub(super) fn command(self) -> &'static str {
        match self {
            Form::Mlsd => "MLSD",
            Form::List => "LIST",
            Form::Nlst => "NLST",
        }
    }
}

/// What a listing holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) entries: Vec<DirectoryEntry>,
    /// Lines left out: not understood, not UTF-8, or no plain name.
    pub(super) dropped: usize,
}

/// What one line says.
enum Line<'a> {
    Entry(Entry<'a>),
    /// The directory itself, its parent, a heading.
    Nothing,
}

struct Entry<'a> {
    name: &'a str,
    directory: bool,
    size: Option<u64>,
    modified: Option<u64>,
}

/// Reads a listing. `Err` when it has more than `max` entries.
pub(super) fn read(form: Form, bytes: &[u8], max: usize) -> Result<Listing, String> {
    let mut listing = Listing::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let line = std::str::from_utf8(line).ok().and_then(|line| match form {
            Form::Mlsd => mlsd(line),
            Form::List => list(line),
            Form::Nlst => Some(nlst(line)),
        });
        match line {
            Some(Line::Entry(entry)) if is_name(entry.name) => {
                if listing.entries.len() == max {
                    return Err(format!("it has more than {max} entries"));
                }
                listing.entries.push(DirectoryEntry {
                    name: entry.name.to_owned(),
                    directory: entry.directory,
                    size: entry.size,
                    modified: entry.modified,
                });
            }
            Some(Line::Nothing) => {}
            Some(Line::Entry(_)) | None => listing.dropped += 1,
        }
    }
    Ok(listing)
}

/// `fact=value;fact=value; name`.
fn mlsd(line: &str) -> Option<Line<'_>> {
    let (facts, name) = line.split_once(' ')?;
    let (mut kind, mut size, mut modified) = (String::new(), None, None);
    for fact in facts.split_terminator(';') {
        let (key, value) = fact.split_once('=')?;
        match key.to_ascii_lowercase().as_str() {
            "type" => kind = value.to_ascii_lowercase(),
            "size" => size = number(value),
            "modify" => modified = milliseconds(value),
            _ => {}
        }
    }
    let (directory, size) = match kind.as_str() {
        "cdir" | "pdir" => return Some(Line::Nothing),
        "dir" => (true, None),
        "file" => (false, size),
        // A link: its size is not that of the file.
        _ => (false, None),
    };
    Some(Line::Entry(Entry {
        name,
        directory,
        size,
        modified,
    }))
}

fn list(line: &str) -> Option<Line<'_>> {
    if line
        .strip_prefix("total ")
        .is_some_and(|rest| number(rest.trim()).is_some())
    {
        return Some(Line::Nothing);
    }
    let line = unix(line).or_else(|| windows(line))?;
    Some(if matches!(line.name, "." | "..") {
        Line::Nothing
    } else {
        Line::Entry(line)
    })
}

/// As `ls -l` writes it (vsftpd, ProFTPD, most others): `-rw-r--r-- 1 owner group 1234 Jan 31 12:00 name`. Owner and group may be
/// missing, so the date is what the rest is found by.
fn unix(line: &str) -> Option<Entry<'_>> {
    let kind = *line.as_bytes().first()?;
    if !matches!(kind, b'-' | b'd' | b'l') || !mode(line.split(' ').next()?) {
        return None;
    }
    let words = words(line);
    for at in 2..words.len() {
        let Some(size) = number(words[at - 1].1) else {
            continue;
        };
        let Some(length) = date(&words[at..]) else {
            continue;
        };
        let (start, last) = *words.get(at + length - 1)?;
        // One space, and the name: more of them belong to it.
        let name = line.get(start + last.len()..)?.strip_prefix(' ')?;
        return Some(match kind {
            b'd' => Entry {
                name,
                directory: true,
                size: None,
                modified: None,
            },
            b'l' => Entry {
                name: name.split_once(" -> ").map_or(name, |(name, _)| name),
                directory: false,
                size: None,
                modified: None,
            },
            _ => Entry {
                name,
                directory: false,
                size: Some(size),
                modified: None,
            },
        });
    }
    None
}

/// Nine letters of permissions behind the kind, and perhaps a mark of more.
fn mode(word: &str) -> bool {
    (10..=11).contains(&word.len())
        && word
            .bytes()
            .skip(1)
            .all(|byte| b"rwxsStTlL-+.@".contains(&byte))
}

/// The words that make a date, where these begin with one: `Jan 31 12:00`, `Jan 31 2025`, `2025-01-31 12:00`.
fn date(words: &[(usize, &str)]) -> Option<usize> {
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let word = |at: usize| words.get(at).map(|(_, word)| *word);
    let first = word(0)?;
    if MONTHS.contains(&first.to_ascii_lowercase().as_str()) {
        let day = number(word(1)?)?;
        let last = word(2)?;
        let year = last.len() == 4 && number(last).is_some();
        return ((1..=31).contains(&day) && (year || clock(last))).then_some(3);
    }
    (numbers(first, '-', 3) && clock(word(1)?)).then_some(2)
}

/// As Microsoft's server writes it: `01-31-25  12:00PM  1234 name`, with `<DIR>` in place of the size.
fn windows(line: &str) -> Option<Entry<'_>> {
    let words = words(line);
    let (_, day) = *words.first()?;
    let (_, time) = *words.get(1)?;
    let (start, what) = *words.get(2)?;
    let time = time
        .strip_suffix("AM")
        .or_else(|| time.strip_suffix("PM"))
        .unwrap_or(time);
    if !numbers(day, '-', 3) || !clock(time) {
        return None;
    }
    let name = line.get(start + what.len()..)?.trim_start();
    match what {
        "<DIR>" | "<JUNCTION>" | "<SYMLINKD>" => Some(Entry {
            name,
            directory: true,
            size: None,
            modified: None,
        }),
        size => Some(Entry {
            name,
            directory: false,
            size: Some(number(size)?),
            modified: None,
        }),
    }
}

/// Some servers answer with paths; the last segment is the name only where the rest is this directory.
fn nlst(line: &str) -> Line<'_> {
    let name = line.strip_prefix("./").unwrap_or(line);
    if matches!(name, "." | "..") {
        return Line::Nothing;
    }
    Line::Entry(Entry {
        name,
        directory: false,
        size: None,
        modified: None,
    })
}

/// The words of a line with their places.
fn words(line: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut at = 0;
    for word in line.split(' ') {
        if !word.is_empty() {
            words.push((at, word));
        }
        at += word.len() + 1;
        // A date comes early; a name of many words is not taken apart.
        if words.len() == 12 {
            break;
        }
    }
    words
}

/// `12:00` or `12:00:00`.
fn clock(word: &str) -> bool {
    numbers(word, ':', 2) || numbers(word, ':', 3)
}

/// So many numbers of at most four digits with this between them.
fn numbers(word: &str, between: char, count: usize) -> bool {
    let parts = word.split(between);
    parts.clone().count() == count
        && parts
            .into_iter()
            .all(|part| (1..=4).contains(&part.len()) && number(part).is_some())
}

/// Digits only: `parse` alone would take a plus sign.
fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests;
