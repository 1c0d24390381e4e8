//! What a server's head promises, compared with what was asked. Pure and strict (RFC 9110, 13 to 15): a range that is not the one
//! asked for would put bytes in the wrong place.

use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    LAST_MODIFIED, TRANSFER_ENCODING,
};

/// What to do with an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The body begins at `offset` and goes on to `end`, where that is known.
    Take {
        offset: u64,
        end: Option<u64>,
        total: Option<u64>,
        validator: Option<String>,
    },
    /// All bytes are there already.
    Complete {
        total: u64,
        validator: Option<String>,
    },
    /// Ask again, for the whole: the reason is for the log.
    Restart(&'static str),
    /// The answer contradicts the question or itself.
    Wrong(String),
    /// An error status, for the caller to report with its body.
    Status,
}

/// Reads an answer to a request for everything from `from` on (0: for the whole), with the validator known from before.
pub(super) fn read(from: u64, known: Option<&str>, status: u16, headers: &HeaderMap) -> Answer {
    match status {
        200 | 206 => {}
        416 if from > 0 => return read_unsatisfied(from, known, headers),
        _ => return Answer::Status,
    }
    if text(headers, &CONTENT_ENCODING)
        .is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"))
    {
        return Answer::Wrong("the body is compressed, which was not asked for; its ranges would not be those of the artifact".into());
    }
    let length = match (
        headers.contains_key(TRANSFER_ENCODING),
        text(headers, &CONTENT_LENGTH),
    ) {
        (false, Some(length)) => match number(length) {
            Some(length) => Some(length),
            None => return Answer::Wrong("its Content-Length is no number".into()),
        },
        _ => None,
    };
    if status == 200 {
        return Answer::Take {
            offset: 0,
            end: length,
            total: length,
            validator: validator(headers),
        };
    }
    if from == 0 {
        return Answer::Wrong("a part was sent although the whole was asked for".into());
    }
    if text(headers, &CONTENT_TYPE)
        .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/"))
    {
        return Answer::Wrong("several ranges were sent although one was asked for".into());
    }
    let Some(range) = text(headers, &CONTENT_RANGE).and_then(parse_range) else {
        return Answer::Wrong("a part was sent without a Content-Range that can be read".into());
    };
    if range.first != from {
        return Answer::Wrong(format!(
            "byte {from} was asked for, but a part that begins at byte {} was sent",
            range.first
        ));
    }
    let Some(end) = range
        .last
        .checked_add(1)
        .filter(|end| *end > range.first && range.total.is_none_or(|total| *end <= total))
    else {
        return Answer::Wrong("its Content-Range contradicts itself".into());
    };
    if length.is_some_and(|length| length != end - from) {
        return Answer::Wrong(
            "its Content-Length and its Content-Range contradict each other".into(),
        );
    }
    if changed(known, headers) {
        return Answer::Restart("the content is another than before");
    }
    Answer::Take {
        offset: from,
        end: Some(end),
        total: range.total,
        validator: validator(headers),
    }
}

/// 416: either all is there already, or the content became shorter.
fn read_unsatisfied(from: u64, known: Option<&str>, headers: &HeaderMap) -> Answer {
    let total = text(headers, &CONTENT_RANGE)
        .and_then(|range| range.strip_prefix("bytes */"))
        .and_then(number);
    match total {
        Some(total) if total == from && !changed(known, headers) => Answer::Complete {
            total,
            validator: validator(headers),
        },
        _ => Answer::Restart("the server has no such range"),
    }
}

/// The value for `If-Range`, where the validator is good for it: a strong ETag or a date.
pub(super) fn if_range(validator: &str) -> Option<&str> {
    let usable = (validator.starts_with('"') && validator.ends_with('"') && validator.len() > 1)
        || validator.ends_with(" GMT");
    (usable && validator.bytes().all(|byte| (0x20..0x7f).contains(&byte))).then_some(validator)
}

/// A strong ETag, else Last-Modified, else a weak ETag.
fn validator(headers: &HeaderMap) -> Option<String> {
    let etag = text(headers, &ETAG);
    let modified = text(headers, &LAST_MODIFIED);
    etag.filter(|etag| !is_weak(etag))
        .or(modified)
        .or(etag)
        .map(str::to_owned)
}

/// The MD5 that the ETag is.
pub(super) fn etag_md5(headers: &HeaderMap) -> Option<[u8; 16]> {
    let etag = text(headers, &ETAG)?.strip_prefix('"')?.strip_suffix('"')?;
    let sealed = headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
        || headers
            .get("x-amz-server-side-encryption")
            .is_some_and(|how| how.as_bytes().to_ascii_lowercase().starts_with(b"aws:kms"));
    let digest = etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    (digest && !sealed)
        .then(|| u128::from_str_radix(etag, 16).ok())
        .flatten()
        .map(u128::to_be_bytes)
}

/// Whether the validator of the same kind is there and another one.
fn changed(known: Option<&str>, headers: &HeaderMap) -> bool {
    let Some(known) = known else { return false };
    let now = if known.starts_with('"') || is_weak(known) {
        text(headers, &ETAG)
    } else {
        text(headers, &LAST_MODIFIED)
    };
    now.is_some_and(|now| now != known)
}

fn is_weak(etag: &str) -> bool {
    etag.starts_with("W/")
}

#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
    total: Option<u64>,
}

/// `bytes FIRST-LAST/TOTAL`, where the total may be `*`.
fn parse_range(value: &str) -> Option<Range> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total == "*" {
        None
    } else {
        Some(number(total)?)
    };
    Some(Range {
        first: number(first)?,
        last: number(last)?,
        total,
    })
}

/// Digits only: `parse` alone would take a plus sign.
fn number(value: &str) -> Option<u64> {
    value
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| value.parse().ok())
        .flatten()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use reqwest::header::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    fn ask(from: u64, status: u16, pairs: &[(&'static str, &str)]) -> Answer {
        read(from, None, status, &headers(pairs))
    }

    #[test]
    fn the_whole_is_taken_from_its_first_byte() {
        assert_eq!(
            ask(0, 200, &[("content-length", "10")]),
            Answer::Take {
                offset: 0,
                end: Some(10),
                total: Some(10),
                validator: None
            }
        );
        assert_eq!(
            ask(5, 200, &[]),
            Answer::Take {
                offset: 0,
                end: None,
                total: None,
                validator: None
            }
        );
        let chunked = [("content-length", "10"), ("transfer-encoding", "chunked")];
        assert_eq!(
            ask(0, 200, &chunked),
            Answer::Take {
                offset: 0,
                end: None,
                total: None,
                validator: None
            }
        );
    }

    #[test]
    fn a_part_is_taken_where_it_begins() {
        for (range, end, total) in [
            ("bytes 5-9/10", 10, Some(10)),
            ("bytes 5-9/*", 10, None),
            ("bytes 5-6/10", 7, Some(10)),
        ] {
            let expected = Answer::Take {
                offset: 5,
                end: Some(end),
                total,
                validator: None,
            };
            assert_eq!(ask(5, 206, &[("content-range", range)]), expected);
        }
    }

    #[test]
    fn a_part_that_is_not_the_one_asked_for_is_never_taken() {
        let cases: &[&[(&'static str, &str)]] = &[
            &[],
            &[("content-range", "bytes 4-9/10")],
            &[("content-range", "bytes 6-9/10")],
            &[("content-range", "bytes 0-9/10")],
            &[("content-range", "bytes 5-4/10")],
            &[("content-range", "bytes 5-10/10")],
            &[("content-range", "bytes 5-18446744073709551615/*")],
            &[("content-range", "bytes 5-99999999999999999999/*")],
            &[("content-range", "bytes +5-9/10")],
            &[("content-range", "items 5-9/10")],
            &[("content-range", "bytes */10")],
            &[("content-range", "junk")],
            &[("content-range", "bytes 5-9/10"), ("content-length", "10")],
            &[("content-range", "bytes 5-9/10"), ("content-length", "ten")],
            &[
                ("content-range", "bytes 5-9/10"),
                ("content-encoding", "gzip"),
            ],
            &[
                ("content-range", "bytes 5-9/10"),
                ("content-type", "multipart/byteranges; boundary=x"),
            ],
        ];
        for case in cases {
            assert!(matches!(ask(5, 206, case), Answer::Wrong(_)), "{case:?}");
        }
        assert!(matches!(
            ask(0, 206, &[("content-range", "bytes 0-9/10")]),
            Answer::Wrong(_)
        ));
        assert!(matches!(
            ask(0, 200, &[("content-encoding", "gzip")]),
            Answer::Wrong(_)
        ));
    }

    #[test]
    fn an_unsatisfiable_range_is_the_end_when_all_is_there_and_else_a_new_start() {
        assert_eq!(
            ask(10, 416, &[("content-range", "bytes */10")]),
            Answer::Complete {
                total: 10,
                validator: None
            }
        );
        for range in ["bytes */9", "bytes */11", "bytes */*", "junk"] {
            assert!(
                matches!(
                    ask(10, 416, &[("content-range", range)]),
                    Answer::Restart(_)
                ),
                "{range}"
            );
        }
        assert!(matches!(ask(10, 416, &[]), Answer::Restart(_)));
        assert_eq!(
            ask(0, 416, &[("content-range", "bytes */0")]),
            Answer::Status
        );
    }

    #[test]
    fn changed_content_starts_over() {
        for (known, header, same, other) in [
            ("\"a\"", "etag", "\"a\"", "\"b\""),
            ("W/\"a\"", "etag", "W/\"a\"", "\"a\""),
            (
                "Mon, 01 Jan 2024 00:00:00 GMT",
                "last-modified",
                "Mon, 01 Jan 2024 00:00:00 GMT",
                "x GMT",
            ),
        ] {
            let part = |value: &str| {
                read(
                    5,
                    Some(known),
                    206,
                    &headers(&[("content-range", "bytes 5-9/10"), (header, value)]),
                )
            };
            assert!(
                matches!(part(same), Answer::Take { offset: 5, .. }),
                "{known}"
            );
            assert!(matches!(part(other), Answer::Restart(_)), "{known}");
            let end = |value: &str| {
                read(
                    10,
                    Some(known),
                    416,
                    &headers(&[("content-range", "bytes */10"), (header, value)]),
                )
            };
            assert!(matches!(end(same), Answer::Complete { .. }), "{known}");
            assert!(matches!(end(other), Answer::Restart(_)), "{known}");
        }
        assert!(matches!(
            read(
                5,
                Some("\"a\""),
                206,
                &headers(&[("content-range", "bytes 5-9/10")])
            ),
            Answer::Take { .. }
        ));
    }

    #[test]
    fn only_strong_validators_go_into_if_range() {
        for good in ["\"abc\"", "\"\"", "Mon, 01 Jan 2024 00:00:00 GMT"] {
            assert_eq!(if_range(good), Some(good));
        }
        for bad in ["W/\"abc\"", "abc", "\"", "\"a\r\nX: y\"", "", "\"ü\""] {
            assert_eq!(if_range(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_strongest_validator_is_kept() {
        let date = "Mon, 01 Jan 2024 00:00:00 GMT";
        for (pairs, expected) in [
            (
                vec![("etag", "\"s\""), ("last-modified", date)],
                Some("\"s\""),
            ),
            (
                vec![("etag", "W/\"w\""), ("last-modified", date)],
                Some(date),
            ),
            (vec![("etag", "W/\"w\"")], Some("W/\"w\"")),
            (vec![], None),
        ] {
            assert_eq!(validator(&headers(&pairs)).as_deref(), expected);
        }
    }

    #[test]
    fn only_an_etag_that_can_be_an_md5_is_taken_for_one() {
        let hex = "\"D41D8CD98F00B204E9800998ECF8427E\"";
        let md5 = |pairs: &[(&'static str, &str)]| etag_md5(&headers(pairs));
        let found = Some(0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e_u128.to_be_bytes());
        assert_eq!(md5(&[("etag", hex)]), found);
        assert_eq!(
            md5(&[("etag", hex), ("x-amz-server-side-encryption", "AES256")]),
            found
        );
        for other in [
            vec![("etag", "\"d41d8cd98f00b204e9800998ecf8427e-2\"")],
            vec![("etag", "W/\"d41d8cd98f00b204e9800998ecf8427e\"")],
            vec![("etag", "d41d8cd98f00b204e9800998ecf8427e")],
            vec![("etag", "\"d41d8cd98f00b204e9800998ecf8427\"")],
            vec![("etag", "\"z41d8cd98f00b204e9800998ecf8427e\"")],
            vec![("etag", hex), ("x-amz-server-side-encryption", "aws:kms")],
            vec![
                ("etag", hex),
                ("x-amz-server-side-encryption", "aws:kms:dsse"),
            ],
            vec![
                ("etag", hex),
                ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
            ],
            vec![],
        ] {
            assert_eq!(md5(&other), None, "{other:?}");
        }
    }

    #[test]
    fn other_statuses_are_errors() {
        for status in [204, 301, 304, 403, 404, 500, 503] {
            assert_eq!(ask(5, status, &[]), Answer::Status);
        }
    }
}
