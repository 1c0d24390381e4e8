//! The operator's rules for which file is firmware and which is newer, checked before anything starts.
//!
//! The work that a pattern may cause is bounded by its length and by the size of what it compiles to.

use regex_lite::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::choice::{Chooser, NAME_MAX};
use crate::version::As;

/// The largest pattern: bytes of its text, and of its compiled form.
const PATTERN_MAX: usize = 500;
const COMPILED_MAX: usize = 16 * 1024;
/// The most parts that are compared, and of endings that are left out.
const PARTS_MAX: usize = 16;

/// Takes `kit-0.0.22.img`, `v1.2.3-rc.1.tar.gz` or `0.0.22`, and the bare version.
const PATTERN: &str = r"(?:.*[-_])?(?<version>[vV]?\d+\.\d+\.\d+(?:-[0-9A-Za-z]+(?:\.\d+)*)?)(?:\.[A-Za-z][0-9A-Za-z]*)*";

/// How files are told apart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Files {
    /// Regular expression that a file's whole name has to match, with named groups.
    pub pattern: String,
    /// The same for the version that runs now, with the groups of `order`; the same pattern where it is left out.
    pub current: Option<String>,
    /// The version a name stands for, as the target reports it once it runs: text with `{group}`.
    pub version: String,
    /// What makes one file newer than another: the first difference decides.
    pub order: Vec<Key>,
    /// Endings, in either case, of files that are no firmware whatever the pattern says.
    pub ignore: Vec<String>,
    /// The size in bytes that a time is estimated from where the server does not tell it.
    pub assumed_size: u64,
}

/// A group of the pattern and how it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Name of the group.
    pub group: String,
    /// How it is compared.
    #[serde(rename = "as")]
    pub how: As,
}

impl Default for Files {
    fn default() -> Self {
        Files {
            pattern: PATTERN.into(),
            current: None,
            version: "{version}".into(),
            order: vec![Key {
                group: "version".into(),
                how: As::Semver,
            }],
            ignore: [
                ".sha256",
                ".md5",
                ".minisig",
                ".sig",
                ".asc",
                ".txt",
                ".json",
                ".part",
                ".filepart",
                ".tmp",
            ]
            .map(String::from)
            .to_vec(),
            assumed_size: 64 * 1024 * 1024,
        }
    }
}

/// A piece of the template of versions.
#[derive(Debug)]
pub(crate) enum Piece {
    Text(String),
    Group(String),
}

impl Files {
    /// The rules, ready to be applied.
    ///
    /// # Errors
    /// What is wrong with them, one sentence each, naming its key.
    pub fn chooser(&self) -> Result<Chooser<'_>, Vec<String>> {
        let mut faults = Vec::new();
        let pattern = compile("pattern", &self.pattern, &mut faults);
        let current = self
            .current
            .as_ref()
            .map(|text| compile("current", text, &mut faults));
        let version = template(&self.version).unwrap_or_else(|why| {
            faults.push(why);
            Vec::new()
        });
        if self.order.is_empty() || self.order.len() > PARTS_MAX {
            faults.push(format!(
                "config.files.order has {} entries; it takes 1 to {PARTS_MAX}",
                self.order.len()
            ));
        }
        if self.ignore.len() > PARTS_MAX
            || self
                .ignore
                .iter()
                .any(|end| end.is_empty() || end.len() > NAME_MAX)
        {
            faults.push(format!(
                "config.files.ignore takes at most {PARTS_MAX} endings of 1 to {NAME_MAX} bytes"
            ));
        }
        let ordered = || self.order.iter().map(|key| key.group.as_str());
        let written = version.iter().filter_map(|piece| match piece {
            Piece::Group(group) => Some(group.as_str()),
            Piece::Text(_) => None,
        });
        if let Some(pattern) = &pattern {
            faults.extend(missing("pattern", pattern, "order", ordered()));
            faults.extend(missing("pattern", pattern, "version", written));
        }
        if let Some(Some(current)) = &current {
            faults.extend(missing("current", current, "order", ordered()));
        }
        match pattern {
            Some(pattern) if faults.is_empty() => Ok(Chooser {
                files: self,
                pattern,
                current: current.flatten(),
                version,
            }),
            _ => Err(faults),
        }
    }
}

fn compile(key: &str, text: &str, faults: &mut Vec<String>) -> Option<Regex> {
    if text.is_empty() || text.len() > PATTERN_MAX {
        faults.push(format!(
            "config.files.{key} has {} bytes; it takes 1 to {PATTERN_MAX}",
            text.len()
        ));
        return None;
    }
    // Alone first: a bracket too many must not close the one around it, nor a comment swallow what follows.
    let whole = match Regex::new(text) {
        Ok(_) => format!("\\A(?:{text})\\z"),
        Err(_) => text.to_owned(),
    };
    match RegexBuilder::new(&whole)
        .size_limit(COMPILED_MAX)
        .nest_limit(32)
        .build()
    {
        Ok(regex) => Some(regex),
        Err(e) => {
            faults.push(format!(
                "config.files.{key} is no regular expression that can be used: {e}"
            ));
            None
        }
    }
}

/// Groups that are named and that the pattern does not have.
fn missing<'a>(
    key: &str,
    pattern: &Regex,
    named_in: &str,
    groups: impl Iterator<Item = &'a str>,
) -> Vec<String> {
    groups
        .filter(|group| !pattern.capture_names().flatten().any(|name| name == *group))
        .map(|group| {
            format!(
                "config.files.{named_in} names the group `{group}`, which config.files.{key} does not have; write (?<{group}>...) there"
            )
        })
        .collect()
}

fn template(text: &str) -> Result<Vec<Piece>, String> {
    let fault = || {
        "config.files.version is no text with {group}; close each bracket, and name at least one group".to_owned()
    };
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (group, behind) = after.split_once('}').ok_or_else(fault)?;
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Group(group.to_owned()));
        rest = behind;
    }
    if pieces.is_empty() || rest.contains('}') || text.len() > PATTERN_MAX {
        return Err(fault());
    }
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_wrong_with_the_rules_is_told_with_its_key() {
        for (text, key) in [
            (r#"{"pattern":"("}"#, "config.files.pattern "),
            (r#"{"pattern":""}"#, "config.files.pattern "),
            (
                r#"{"pattern":"(?<version>\\d{100000})"}"#,
                "config.files.pattern ",
            ),
            (
                r#"{"pattern":"(?<version>1))|(?:2"}"#,
                "config.files.pattern ",
            ),
            (
                r#"{"pattern":"(?x)(?<version>1) # all of it"}"#,
                "config.files.pattern ",
            ),
            (r#"{"pattern":"\\d+"}"#, "config.files.order "),
            (r#"{"current":"x"}"#, "config.files.order "),
            (r#"{"current":"["}"#, "config.files.current "),
            (r#"{"order":[]}"#, "config.files.order "),
            (
                r#"{"order":[{"group":"date","as":"text"}]}"#,
                "config.files.order ",
            ),
            (r#"{"version":"{date}"}"#, "config.files.version "),
            (r#"{"version":"{version"}"#, "config.files.version "),
            (r#"{"version":"version"}"#, "config.files.version "),
            (r#"{"version":"{version}}"}"#, "config.files.version "),
            (r#"{"ignore":[""]}"#, "config.files.ignore "),
        ] {
            let files: Files = serde_json::from_str(text).unwrap();
            let faults = files.chooser().unwrap_err();
            assert!(
                faults.iter().all(|f| f.starts_with("config.files.")),
                "{faults:?}"
            );
            assert!(faults[0].starts_with(key), "{text}: {faults:?}");
        }
    }
}
