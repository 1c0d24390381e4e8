//! The name of a target: the border between what somebody signed and a path of ours.

use std::fmt;

/// Longest name of an adapter and longest version, in bytes. The configuration has the same limit for an adapter's name.
const MAX_PART: usize = 64;

/// `<adapter>/<version>.wasm`, where both parts can be file names and nothing else.
///
/// Adapter: 1 to 64 ASCII letters, digits, `.`, `_`, `-`, beginning with a letter or digit, as in the configuration. Version: the same
/// and `+`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetName {
    adapter: String,
    version: String,
}

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(String);

impl TargetName {
    /// The name of this version of this adapter.
    ///
    /// # Errors
    /// [`NameError`] says which part cannot be used, and what it may hold.
    pub fn new(adapter: &str, version: &str) -> Result<Self, NameError> {
        let checked = |what: &str, part: &str, more: &[u8]| {
            if is_part(part, more) {
                return Ok(part.to_owned());
            }
            Err(NameError(format!(
                "`{}` cannot be the {what} of a published adapter: it must have 1 to {MAX_PART} letters, digits, `.`, `_`, `-`{}, and begin \
                 with a letter or digit",
                printable(part),
                if more.is_empty() { "" } else { " or `+`" }
            )))
        };
        Ok(Self {
            adapter: checked("name", adapter, b"")?,
            version: checked("version", version, b"+")?,
        })
    }

    /// Reads the name of a target. `None` for one that is harmless and no adapter's: a repository may hold other things.
    ///
    /// # Errors
    /// [`NameError`] for a name that, taken for a path, could lead anywhere else.
    pub fn parse(raw: &str) -> Result<Option<Self>, NameError> {
        let escapes = raw.contains(|c: char| c == '\\' || c.is_control())
            || raw
                .split('/')
                .any(|segment| matches!(segment, "" | "." | ".."));
        if escapes {
            return Err(NameError(format!(
                "`{}` would lead out of the folder of the targets",
                printable(raw)
            )));
        }
        let parts = raw
            .split_once('/')
            .and_then(|(adapter, file)| Some((adapter, file.strip_suffix(".wasm")?)));
        Ok(parts.and_then(|(adapter, version)| Self::new(adapter, version).ok()))
    }

    /// The adapter's name.
    #[must_use]
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The file below `targets/`, where the repository keeps consistent snapshots.
    #[must_use]
    pub fn file(&self, sha256: &str) -> String {
        format!("{}/{sha256}.{}.wasm", self.adapter, self.version)
    }

    /// Where the file may lie: as the reference implementation writes it, and as `tuftool` does.
    pub(crate) fn files(&self, sha256: &str, consistent: bool) -> Vec<String> {
        if consistent {
            vec![self.file(sha256), format!("{sha256}.{self}")]
        } else {
            vec![self.to_string()]
        }
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.wasm", self.adapter, self.version)
    }
}

fn is_part(part: &str, more: &[u8]) -> bool {
    part.len() <= MAX_PART
        && part.starts_with(|c: char| c.is_ascii_alphanumeric())
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b) || more.contains(&b))
}

/// At most 100 characters, none of which moves a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .take(100)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_name_is_an_adapter_and_a_version_and_comes_back_as_it_was_written() {
        for (raw, adapter, version) in [
            ("dji/1.1.0.wasm", "dji", "1.1.0"),
            ("kit-112_b/2.0.0-rc.1+5.wasm", "kit-112_b", "2.0.0-rc.1+5"),
            ("Dock.2/7.wasm", "Dock.2", "7"),
        ] {
            let name = TargetName::parse(raw).unwrap().unwrap();
            assert_eq!((name.adapter(), name.version()), (adapter, version));
            assert_eq!(name.to_string(), raw);
        }
    }

    #[test]
    fn a_name_that_could_be_a_way_out_is_refused() {
        for raw in [
            "",
            "..",
            "/dji/1.wasm",
            "dji//1.wasm",
            "../dji/1.wasm",
            "dji/../1.wasm",
            "dji/..",
            "dji/./1.wasm",
            "dji/1.wasm/",
            "dji\\1.wasm",
            "dji/1\0.wasm",
            "dji/1\n.wasm",
        ] {
            assert!(TargetName::parse(raw).is_err(), "{raw:?}");
        }
    }

    #[test]
    fn what_is_harmless_and_no_adapter_is_passed_over() {
        for raw in [
            "README.txt",
            "dji/1.0.0.cwasm",
            "dji/.wasm",
            "dji/.hidden.wasm",
            "dji/a b.wasm",
            "dji/%2e%2e.wasm",
            "dji/deep/1.wasm",
            "-dji/1.wasm",
        ] {
            assert_eq!(TargetName::parse(raw).unwrap(), None, "{raw:?}");
        }
        let long = "a".repeat(65);
        assert_eq!(TargetName::parse(&format!("{long}/1.wasm")).unwrap(), None);
    }

    #[test]
    fn parts_that_are_no_file_names_are_refused_with_the_rule() {
        for (adapter, version) in [
            ("", "1"),
            ("dji", ""),
            ("a/b", "1"),
            ("dji", ".."),
            ("a+b", "1"),
        ] {
            let error = TargetName::new(adapter, version).unwrap_err();
            assert!(error.to_string().contains("must have 1 to 64"), "{error}");
        }
    }
}
