//! Secrets go into a request: each escaped for its place, so that a value can never become more than a value.

use std::fmt;

use crate::model::{Fetch, Field};
use crate::paths;

use super::template::{Malformed, Part, Place, parts, path_and_query};
use super::{Secret, missing};

/// The parts of a request that may hold secrets, filled in. `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Filled {
    /// Path and query.
    pub path: String,
    /// Headers in order.
    pub headers: Vec<Field>,
    /// The body.
    pub body: Vec<u8>,
}

impl fmt::Debug for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filled(…)")
    }
}

/// Why a request cannot be filled. The texts hold names and never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// The link does not have this secret.
    #[error("{}", missing(.0))]
    Missing(String),
    /// Something begins with `{secret:` and is no placeholder.
    #[error(
        "a placeholder in the {0} is malformed; write {{secret:NAME}} with letters, digits, `_`, `-` and `.` in the name"
    )]
    Malformed(Place),
    /// This value cannot stand there.
    #[error("secret {name} cannot be filled into the {place}: {why}")]
    Unfit {
        /// Name of the secret.
        name: String,
        /// Where it was to stand.
        place: Place,
        /// What is in the way.
        why: &'static str,
    },
    /// No secret at all can stand in this body.
    #[error("no secret can be filled into the body: {0}")]
    Body(&'static str),
}

/// Fills the placeholders of a request.
///
/// - Path and query: percent-encoded but for the unreserved characters (RFC 3986 §2.3). In the path a value may not change the
///   segments: no `/`, `\`, NUL, and no segment that becomes `.` or `..`.
/// - Header: visible ASCII and spaces; beside other text in the same value also no space and none of `" , ; \`, which would begin
///   another parameter.
/// - Body: by `Content-Type`. JSON: escaped, and only inside a string of a valid document. `application/x-www-form-urlencoded`:
///   form-encoded. Every other type, and every charset but UTF-8, is refused.
///
/// # Errors
/// [`FillError`]; nothing is filled by halves.
pub fn fill<'a>(
    fetch: &Fetch,
    known: impl Fn(&str) -> Option<&'a Secret>,
) -> Result<Filled, FillError> {
    let known = |name: &str, place: Place| match known(name) {
        None => Err(FillError::Missing(name.to_owned())),
        Some(secret) if secret.reveal().is_empty() => Err(unfit(name, place, "it is empty")),
        Some(secret) => Ok(secret.reveal()),
    };
    Ok(Filled {
        path: address(&fetch.path, &known)?,
        headers: fetch
            .headers
            .iter()
            .map(|field| header(field, &known))
            .collect::<Result<_, _>>()?,
        body: body(fetch, &known)?,
    })
}

fn unfit(name: &str, place: Place, why: &'static str) -> FillError {
    FillError::Unfit {
        name: name.to_owned(),
        place,
        why,
    }
}

/// Copies the text and lets `put` append each value.
fn filled<'a>(
    text: &[u8],
    place: Place,
    known: &impl Fn(&str, Place) -> Result<&'a str, FillError>,
    mut put: impl FnMut(&str, &'a str, &mut Vec<u8>) -> Result<(), FillError>,
) -> Result<Vec<u8>, FillError> {
    let mut out = Vec::with_capacity(text.len());
    for part in parts(text) {
        match part {
            Ok(Part::Text(text)) => out.extend_from_slice(text),
            Ok(Part::Secret(name)) => put(name, known(name, place)?, &mut out)?,
            Err(Malformed) => return Err(FillError::Malformed(place)),
        }
    }
    Ok(out)
}

fn address<'a>(
    text: &str,
    known: &impl Fn(&str, Place) -> Result<&'a str, FillError>,
) -> Result<String, FillError> {
    let (path, query) = path_and_query(text);
    let mut last = None;
    let mut done = filled(path.as_bytes(), Place::Path, known, |name, value, out| {
        last = Some(name.to_owned());
        percent_encode(value, out);
        Ok(())
    })?;
    if let Some(name) = last
        && !std::str::from_utf8(&done).is_ok_and(paths::is_plain)
    {
        return Err(unfit(
            &name,
            Place::Path,
            "it would change the segments of the path",
        ));
    }
    if let Some(query) = query {
        done.push(b'?');
        done.extend(filled(
            query.as_bytes(),
            Place::Query,
            known,
            |_, value, out| {
                percent_encode(value, out);
                Ok(())
            },
        )?);
    }
    Ok(text_of(done))
}

/// What is put between pieces of UTF-8 is ASCII or UTF-8.
fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text filled with text")
}

fn percent_encode(value: &str, out: &mut Vec<u8>) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            out.extend(format!("%{byte:02X}").bytes());
        }
    }
}

fn header<'a>(
    field: &Field,
    known: &impl Fn(&str, Place) -> Result<&'a str, FillError>,
) -> Result<Field, FillError> {
    let alone = parts(field.value.as_bytes()).count() == 1;
    let value = filled(
        field.value.as_bytes(),
        Place::Header,
        known,
        |name, value, out| {
            if !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
                return Err(unfit(
                    name,
                    Place::Header,
                    "it holds a character that is no visible ASCII",
                ));
            }
            if !alone && value.contains([' ', '"', ',', ';', '\\']) {
                return Err(unfit(
                    name,
                    Place::Header,
                    "it holds a character that would end it beside other text",
                ));
            }
            out.extend_from_slice(value.as_bytes());
            Ok(())
        },
    )?;
    Ok(Field {
        name: field.name.clone(),
        value: text_of(value),
    })
}

/// How a body is written.
#[derive(Clone, Copy)]
enum Writing {
    Json,
    Form,
}

fn body<'a>(
    fetch: &Fetch,
    known: &impl Fn(&str, Place) -> Result<&'a str, FillError>,
) -> Result<Vec<u8>, FillError> {
    if parts(&fetch.body).all(|part| matches!(part, Ok(Part::Text(_)))) {
        return Ok(fetch.body.clone());
    }
    match writing(&fetch.headers)? {
        Writing::Json => json_body(&fetch.body, known),
        Writing::Form => filled(&fetch.body, Place::Body, known, |_, value, out| {
            out.extend(url::form_urlencoded::byte_serialize(value.as_bytes()).flat_map(str::bytes));
            Ok(())
        }),
    }
}

fn writing(headers: &[Field]) -> Result<Writing, FillError> {
    let mut types = headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("content-type"));
    let (Some(field), None) = (types.next(), types.next()) else {
        return Err(FillError::Body(
            "the request must have one Content-Type, which says how a value is escaped",
        ));
    };
    let value = field.value.to_ascii_lowercase();
    let (kind, parameters) = value.split_once(';').unwrap_or((&value, ""));
    let foreign = parameters.split(';').any(|parameter| {
        parameter
            .trim()
            .strip_prefix("charset=")
            .is_some_and(|charset| charset.trim_matches('"') != "utf-8")
    });
    if foreign {
        return Err(FillError::Body("its charset is not UTF-8"));
    }
    match kind.trim() {
        "application/json" => Ok(Writing::Json),
        "application/x-www-form-urlencoded" => Ok(Writing::Form),
        kind if kind.starts_with("application/") && kind.ends_with("+json") => Ok(Writing::Json),
        _ => Err(FillError::Body(
            "its Content-Type is neither JSON nor application/x-www-form-urlencoded",
        )),
    }
}

fn json_body<'a>(
    body: &[u8],
    known: &impl Fn(&str, Place) -> Result<&'a str, FillError>,
) -> Result<Vec<u8>, FillError> {
    // A document that only some parsers read could end its strings elsewhere than we think.
    let valid = std::str::from_utf8(body)
        .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
    if !valid {
        return Err(FillError::Body("it says it is JSON, and is none"));
    }
    let mut out = Vec::with_capacity(body.len());
    let (mut inside, mut escaped) = (false, false);
    for part in parts(body) {
        match part {
            Ok(Part::Text(text)) => {
                for byte in text {
                    match byte {
                        _ if escaped => escaped = false,
                        b'\\' => escaped = inside,
                        b'"' => inside = !inside,
                        _ => {}
                    }
                }
                out.extend_from_slice(text);
            }
            Ok(Part::Secret(name)) => {
                let value = known(name, Place::Body)?;
                if !inside {
                    return Err(unfit(
                        name,
                        Place::Body,
                        "in JSON it must stand inside a string",
                    ));
                }
                let quoted = serde_json::to_string(value).expect("a string is JSON");
                out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
            }
            Err(Malformed) => return Err(FillError::Malformed(Place::Body)),
        }
    }
    Ok(out)
}
