//! Placeholders: where they stand and what they name. One parser for the grants and for the filling, so that nothing is filled in
//! that was not looked at.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Fetch, MAX_ID};

const OPENING: &[u8] = b"{secret:";

/// Where in a request a secret is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In the path.
    Path,
    /// In the query.
    Query,
    /// In the value of a header.
    Header,
    /// In the body.
    Body,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
            Place::Body => "body",
        })
    }
}

/// A piece of a text with placeholders.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Taken as it is.
    Text(&'a [u8]),
    /// The value of this secret.
    Secret(&'a str),
}

/// Which secrets a request names and where, each pair once, in order. A malformed placeholder ends the list; such a request is
/// never filled ([`super::fill()`]).
pub fn uses(fetch: &Fetch) -> Vec<(String, Place)> {
    let mut found: Vec<(String, Place)> = Vec::new();
    let mut note = |text: &[u8], place: Place| {
        for part in parts(text) {
            match part {
                Ok(Part::Secret(name)) => {
                    if !found.iter().any(|(n, p)| n == name && *p == place) {
                        found.push((name.to_owned(), place));
                    }
                }
                Ok(Part::Text(_)) => {}
                Err(Malformed) => return,
            }
        }
    };
    let (path, query) = path_and_query(&fetch.path);
    note(path.as_bytes(), Place::Path);
    note(query.unwrap_or_default().as_bytes(), Place::Query);
    for header in &fetch.headers {
        note(header.value.as_bytes(), Place::Header);
    }
    note(&fetch.body, Place::Body);
    found
}

/// Splits at the first question mark. No name of a secret holds one, so no placeholder is torn.
pub(super) fn path_and_query(path: &str) -> (&str, Option<&str>) {
    path.split_once('?')
        .map_or((path, None), |(path, query)| (path, Some(query)))
}

/// Something begins as a placeholder and is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The pieces of a text in order.
pub(super) fn parts(text: &[u8]) -> Parts<'_> {
    Parts {
        rest: text,
        over: false,
    }
}

pub(super) struct Parts<'a> {
    rest: &'a [u8],
    over: bool,
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Part<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over || self.rest.is_empty() {
            return None;
        }
        let Some(named) = self.rest.strip_prefix(OPENING) else {
            let end = self
                .rest
                .windows(OPENING.len())
                .position(|window| window == OPENING)
                .unwrap_or(self.rest.len());
            let (text, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Some(Ok(Part::Text(text)));
        };
        let name = named
            .iter()
            .take(MAX_ID + 1)
            .position(|byte| *byte == b'}')
            .filter(|end| named[..*end].iter().all(is_name))
            .and_then(|end| std::str::from_utf8(&named[..end]).ok())
            .filter(|name| !name.is_empty());
        let Some(name) = name else {
            self.over = true;
            return Some(Err(Malformed));
        };
        self.rest = &named[name.len() + 1..];
        Some(Ok(Part::Secret(name)))
    }
}

/// Nothing that means anything in a path, a query, JSON or a form.
fn is_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}
