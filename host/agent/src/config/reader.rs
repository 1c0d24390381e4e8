//! Reading TOML so that every fault is found and said with its place: a walk over the parsed document with spans, where each step
//! that fails leaves a finding and goes on.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};
use url::Url;

use super::finding::{Finding, Location, Show};
use super::nearest::nearest;
use super::schema::Table;
use super::units;

/// The longest name of a link, target, adapter or device.
const MAX_NAME: usize = 64;

/// The file that is read, and what was found so far.
pub(super) struct Reader {
    directory: PathBuf,
    line_starts: Vec<usize>,
    text: String,
    findings: RefCell<Vec<Finding>>,
}

impl Reader {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(i, _)| i + 1))
            .collect();
        Reader {
            directory: path.parent().unwrap_or(Path::new("")).to_path_buf(),
            line_starts,
            text: text.into(),
            findings: RefCell::default(),
        }
    }

    /// A path of the operator's; a relative one starts at the directory of the file that is read.
    pub(super) fn beside(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings.into_inner()
    }

    pub(super) fn location(&self, offset: usize) -> Location {
        let line = self
            .line_starts
            .partition_point(|start| *start <= offset)
            .max(1);
        let column = self
            .text
            .get(self.line_starts[line - 1]..offset)
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Location {
            line: small(line),
            column: small(column),
        }
    }

    pub(super) fn fault(
        &self,
        at: &Range<usize>,
        key: &str,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.fault_showing(Show::Marked, at, key, what, advice);
    }

    pub(super) fn fault_showing(
        &self,
        show: Show,
        at: &Range<usize>,
        key: &str,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let width = self
            .text
            .get(at.clone())
            .and_then(|t| t.lines().next())
            .map_or(1, |t| t.chars().count());
        self.findings.borrow_mut().push(Finding {
            width: u32::try_from(width).unwrap_or(u32::MAX).max(1),
            show,
            ..Finding::error(Some(self.location(at.start)), key, what, advice)
        });
    }
}

/// A table whose keys the schema knows.
#[derive(Clone)]
pub(super) struct Section<'t> {
    pub(super) reader: &'t Reader,
    /// With the tables above: `targets.dock`.
    pub(super) path: String,
    /// Where its name stands.
    pub(super) at: Range<usize>,
    schema: &'static Table,
    table: &'t DeTable<'t>,
}

impl<'t> Section<'t> {
    /// Takes the table, and finds the keys that nobody knows.
    pub(super) fn new(
        reader: &'t Reader,
        schema: &'static Table,
        path: String,
        at: Range<usize>,
        table: &'t DeTable<'t>,
    ) -> Self {
        for (key, _) in table.iter() {
            let name = key.get_ref().as_ref();
            if schema.key(name).is_none() {
                let of = if path.is_empty() {
                    "this file".to_owned()
                } else {
                    format!("[{path}]")
                };
                let known: Vec<_> = schema.keys.iter().map(|k| k.name).collect();
                let advice = match nearest(name, known.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!(
                        "known here: {}; remove the line if it is none of them",
                        known.join(", ")
                    ),
                };
                let what = format!("is no key of {of}");
                reader.fault_showing(
                    Show::UpToMark,
                    &key.span(),
                    &join(&path, name),
                    what,
                    advice,
                );
            }
        }
        Section {
            reader,
            path,
            at,
            schema,
            table,
        }
    }

    pub(super) fn location(&self) -> Location {
        self.reader.location(self.at.start)
    }

    pub(super) fn fault(&self, what: impl Into<String>, advice: impl Into<String>) {
        self.reader.fault(&self.at, &self.path, what, advice);
    }

    pub(super) fn get(&self, name: &str) -> Option<Item<'t>> {
        let key = self
            .schema
            .key(name)
            .expect("the reader asks for keys of the schema only");
        let (written, value) = self.table.get_key_value(name)?;
        Some(Item {
            reader: self.reader,
            path: join(&self.path, name),
            example: key.example,
            key_at: written.span(),
            at: if value.get_ref().is_table() {
                written.span()
            } else {
                value.span()
            },
            value: value.get_ref(),
        })
    }

    /// A key that must be there; `why` ends the sentence about its absence.
    pub(super) fn require(&self, name: &str, why: &str) -> Option<Item<'t>> {
        let item = self.get(name);
        if item.is_none() {
            let key = self
                .schema
                .key(name)
                .expect("the reader asks for keys of the schema only");
            let why = if why.is_empty() {
                String::new()
            } else {
                format!(": {why}")
            };
            let what = format!("is missing{why}");
            self.reader.fault(
                &self.at,
                &join(&self.path, name),
                what,
                format!("add `{}`", key.example),
            );
        }
        item
    }

    /// A span of time, or the schema's default.
    pub(super) fn duration(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        let default =
            || units::duration(self.default(name)).expect("the schema's default is a span");
        self.get(name)
            .and_then(|i| i.duration(range))
            .unwrap_or_else(default)
    }

    /// A size, or the schema's default.
    pub(super) fn size(&self, name: &str) -> u64 {
        let default = || units::size(self.default(name)).expect("the schema's default is a size");
        self.get(name)
            .and_then(|i| i.size())
            .unwrap_or_else(default)
    }

    /// A whole number, or the schema's default.
    pub(super) fn count(&self, name: &str, range: std::ops::RangeInclusive<u32>) -> u32 {
        let default = || {
            self.default(name)
                .parse()
                .expect("the schema's default is a number")
        };
        self.get(name)
            .and_then(|i| i.count(range))
            .unwrap_or_else(default)
    }

    /// The default the schema names.
    pub(super) fn default(&self, name: &str) -> &'static str {
        self.schema
            .key(name)
            .expect("the reader asks for keys of the schema only")
            .default
    }
}

/// What a URL is for.
pub(super) struct UrlKind {
    /// How it is written, as advice.
    pub(super) form: &'static str,
    /// The schemes it may have.
    pub(super) schemes: &'static [&'static str],
    /// What any other scheme is.
    pub(super) otherwise: &'static str,
    /// Why it holds no user or password, and what to do.
    pub(super) credentials: (&'static str, &'static str),
}

/// Why a URL of a server that takes credentials holds none itself.
pub(super) const SHOWN: &str = "this file gets copied, shown and mailed";

/// A value with its place.
#[derive(Clone)]
pub(super) struct Item<'t> {
    pub(super) reader: &'t Reader,
    pub(super) path: String,
    example: &'static str,
    /// Where the key stands.
    pub(super) key_at: Range<usize>,
    /// Where to point: the value, or the key of a table.
    pub(super) at: Range<usize>,
    pub(super) value: &'t DeValue<'t>,
}

impl<'t> Item<'t> {
    pub(super) fn fault(&self, what: impl Into<String>, advice: impl Into<String>) {
        self.reader.fault(&self.at, &self.path, what, advice);
    }

    /// A fault about a value that may be a secret: the excerpt leaves it out.
    pub(super) fn secret_fault(&self, what: impl Into<String>, advice: impl Into<String>) {
        let at = if self.value.is_table() {
            &self.key_at
        } else {
            &self.at
        };
        self.reader
            .fault_showing(Show::BeforeMark, at, &self.path, what, advice);
    }

    pub(super) fn wrong_type(&self, expected: &str) {
        let article = if self.value.type_str().starts_with(['a', 'i']) {
            "an"
        } else {
            "a"
        };
        let what = format!("must be {expected}, is {article} {}", self.value.type_str());
        let advice = if self.example.is_empty() {
            String::new()
        } else {
            format!("write it as in `{}`", self.example)
        };
        self.fault(what, advice);
    }

    /// A string as it stands.
    pub(super) fn raw_string(&self) -> Option<&'t str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.wrong_type("a string");
        }
        text
    }

    /// A string of 1 to 1,000 bytes without control characters.
    pub(super) fn string(&self) -> Option<&'t str> {
        let text = self.raw_string()?;
        if text.is_empty() {
            self.fault("is empty", self.advice_by_example());
            return None;
        }
        if text.len() > 1000 || text.chars().any(char::is_control) {
            self.fault(
                "is longer than 1,000 bytes or holds control characters",
                self.advice_by_example(),
            );
            return None;
        }
        Some(text)
    }

    pub(super) fn advice_by_example(&self) -> String {
        if self.example.is_empty() {
            String::new()
        } else {
            format!("write it as in `{}`", self.example)
        }
    }

    /// A name: letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
    pub(super) fn name(&self) -> Option<&'t str> {
        let text = self.string()?;
        match name_fault(text) {
            None => Some(text),
            Some(fault) => {
                self.fault(fault, self.advice_by_example());
                None
            }
        }
    }

    pub(super) fn section(&self, schema: &'static Table) -> Option<Section<'t>> {
        match self.value.as_table() {
            Some(table) => Some(Section::new(
                self.reader,
                schema,
                self.path.clone(),
                self.key_at.clone(),
                table,
            )),
            None => {
                self.wrong_type("a table");
                None
            }
        }
    }

    /// The entries of a table whose keys are the operator's own, in the order of the file.
    pub(super) fn entries(&self, example: &'static str) -> Vec<(&'t str, Item<'t>)> {
        let Some(table) = self.value.as_table() else {
            self.wrong_type("a table");
            return Vec::new();
        };
        let mut entries: Vec<_> = table
            .iter()
            .map(|(key, value)| {
                let name = key.get_ref().as_ref();
                let at = if value.get_ref().is_table() {
                    key.span()
                } else {
                    value.span()
                };
                let path = join(&self.path, name);
                (
                    name,
                    Item {
                        reader: self.reader,
                        path,
                        example,
                        key_at: key.span(),
                        at,
                        value: value.get_ref(),
                    },
                )
            })
            .collect();
        entries.sort_by_key(|(_, item)| item.key_at.start);
        entries
    }

    /// The entries of a table of named things.
    pub(super) fn named(&self, example: &'static str) -> Vec<(&'t str, Item<'t>)> {
        let mut entries = self.entries(example);
        entries.retain(|(name, item)| match name_fault(name) {
            None => true,
            Some(fault) => {
                self.reader.fault(
                    &item.key_at,
                    &item.path,
                    format!("this name {fault}"),
                    format!("choose another, as in `{example}`"),
                );
                false
            }
        });
        entries
    }

    /// The elements of a list.
    pub(super) fn list(&self) -> Option<Vec<Item<'t>>> {
        let Some(array) = self.value.as_array() else {
            self.wrong_type("a list");
            return None;
        };
        let element = |(i, value): (usize, &'t serde_spanned::Spanned<DeValue<'t>>)| Item {
            reader: self.reader,
            path: format!("{}[{i}]", self.path),
            example: self.example,
            key_at: value.span(),
            at: value.span(),
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// A command: a list with the program and its arguments. The program is a bare name or an absolute path that exists.
    pub(super) fn command(&self) -> Option<Vec<String>> {
        let parts = self.list()?;
        let Some(program) = parts.first() else {
            self.fault(
                "is empty: there is nothing to run",
                self.advice_by_example(),
            );
            return None;
        };
        let path = Path::new(program.string()?);
        if path.is_absolute() && !path.is_file() {
            program.fault(
                "this program does not exist",
                "install it, or correct the path",
            );
        } else if !path.is_absolute() && path.components().count() > 1 {
            program.fault(
                "is a relative path, and nobody can say relative to what",
                "write an absolute path, or a bare name to look up in PATH",
            );
        }
        parts
            .iter()
            .map(|p| p.raw_string().map(str::to_owned))
            .collect()
    }

    pub(super) fn absolute_path(&self) -> Option<PathBuf> {
        let path = Path::new(self.string()?);
        if !path.is_absolute() {
            self.fault(
                "is not an absolute path",
                format!("write it from the root on: `{}`", self.example),
            );
            return None;
        }
        if path
            .components()
            .any(|c| c == std::path::Component::ParentDir)
        {
            self.fault("contains `..`", "write the path without it");
            return None;
        }
        // `components` also drops `.` and doubled separators, so that equal places have equal paths.
        Some(path.components().collect())
    }

    /// A URL of one of these kinds, without user and password. What stands in a faulty one may be a secret, so it is not shown.
    pub(super) fn url(&self, kind: &UrlKind) -> Option<Url> {
        let url = match Url::parse(self.raw_string()?) {
            Ok(url) => url,
            // What is not ASCII, and no `xn--` that stands for something.
            Err(e @ url::ParseError::IdnaError) => {
                let advice = "write the host in ASCII, as it stands in DNS: `xn--…` for a name in other letters";
                self.secret_fault(format!("is no URL: {e}"), advice);
                return None;
            }
            Err(e) => {
                self.secret_fault(format!("is no URL: {e}"), kind.form);
                return None;
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            let (why, advice) = kind.credentials;
            self.secret_fault(format!("holds a user or password; {why}"), advice);
        } else if !kind.schemes.contains(&url.scheme()) {
            self.fault(
                format!("`{}` is {}", url.scheme(), kind.otherwise),
                kind.form,
            );
        } else if url.host_str().is_none_or(str::is_empty) {
            self.fault("names no host", kind.form);
        } else {
            return Some(url);
        }
        None
    }

    pub(super) fn location(&self) -> Location {
        self.reader.location(self.at.start)
    }

    /// A file, whether or not it exists; relative to the directory of the configuration.
    pub(super) fn file(&self) -> Option<PathBuf> {
        Some(self.reader.directory.join(self.string()?))
    }

    /// A file that exists; relative to the directory of the configuration.
    pub(super) fn existing_file(&self, what: &str) -> Option<PathBuf> {
        let path = self.reader.directory.join(self.string()?);
        let fault = match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => "is a directory".to_owned(),
            Ok(_) => return Some(path),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => "does not exist".to_owned(),
            Err(e) => format!("cannot be read: {e}"),
        };
        self.fault(format!("{what} {} {fault}", path.display()), "put the file there, or correct the path (relative paths start at the directory of this file)");
        None
    }

    /// The content of such a file.
    pub(super) fn file_content(&self, what: &str, limit: u64) -> Option<Vec<u8>> {
        let path = self.existing_file(what)?;
        let read = std::fs::metadata(&path).and_then(|m| {
            if m.len() > limit {
                return Err(std::io::Error::other(format!(
                    "it has more than {limit} bytes"
                )));
            }
            std::fs::read(&path)
        });
        match read {
            Ok(bytes) => Some(bytes),
            Err(e) => {
                self.fault(
                    format!("{} cannot be read: {e}", path.display()),
                    "give the agent's user the right to read it",
                );
                None
            }
        }
    }

    fn duration(&self, range: std::ops::RangeInclusive<Duration>) -> Option<Duration> {
        let Some(text) = self.value.as_str() else {
            self.wrong_type("a string that says a time with its unit");
            return None;
        };
        match units::duration(text) {
            Err(form) => {
                self.fault("is no span of time", form);
                None
            }
            Ok(duration) if !range.contains(&duration) => {
                let [low, high] = [range.start(), range.end()].map(|d| units::duration_text(*d));
                self.fault(
                    "is out of range",
                    format!("write a time from {low} to {high}"),
                );
                None
            }
            Ok(duration) => Some(duration),
        }
    }

    fn size(&self) -> Option<u64> {
        let read = match self.value {
            DeValue::String(text) => units::size(text),
            DeValue::Integer(_) => self
                .integer()
                .and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| "write a number of bytes above 0".into()),
            _ => {
                self.wrong_type("a number of bytes or a string such as `4GiB`");
                return None;
            }
        };
        match read {
            Ok(0) => self.fault(
                "is 0: nothing could ever be fetched",
                "write a size above 0",
            ),
            Ok(size) => return Some(size),
            Err(form) => self.fault("is no size", form),
        }
        None
    }

    fn count(&self, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let Some(number) = self.integer() else {
            self.wrong_type("a whole number");
            return None;
        };
        let number = u32::try_from(number).ok().filter(|n| range.contains(n));
        if number.is_none() {
            self.fault(
                "is out of range",
                format!("write a number from {} to {}", range.start(), range.end()),
            );
        }
        number
    }

    pub(super) fn integer(&self) -> Option<i64> {
        let integer = self.value.as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
}

/// Whether a text can be the name of an adapter.
pub(crate) fn is_name(text: &str) -> bool {
    name_fault(text).is_none()
}

/// Why a text is no name.
fn name_fault(name: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(fits)
    {
        return None;
    }
    Some(format!(
        "must have 1 to {MAX_NAME} letters, digits, `.`, `_` or `-`, and begin with a letter or digit"
    ))
}

fn join(path: &str, name: &str) -> String {
    let name = printable(name);
    if path.is_empty() {
        name
    } else {
        format!("{path}.{name}")
    }
}

/// Without control characters, so that a message cannot move a terminal's cursor; at most 100 characters.
fn printable(text: &str) -> String {
    text.chars()
        .take(100)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}
