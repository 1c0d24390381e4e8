//! The header's format, and whose headers are trusted.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::Cursor;

use otahost_transfer::{
    Claims, HEADER_LEN, Header, HeaderError, KeyError, SIDECAR_MAX, Signature, SignatureError,
    TrustKeys, header,
};
use support::*;

fn text(comment: &str) -> String {
    let pair = keys();
    minisign::sign(
        None,
        &pair.sk,
        Cursor::new(b"payload"),
        Some(comment),
        Some("mine"),
    )
    .unwrap()
    .into_string()
}

fn padded(text: &str) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    bytes
}

#[test]
fn a_header_is_read_as_it_was_made() {
    let comment = claims("7.1.0").to_trusted_comment().unwrap();
    assert_eq!(
        comment,
        "compatible=evonest-dock\tversion=7.1.0\trollback-index=7"
    );
    for text in [text(&comment), text(&comment).replace('\n', "\r\n")] {
        let bytes = header::assemble(&text).unwrap();
        assert!(bytes.starts_with(
            b"otahost-signed-artifact 1\nuntrusted comment: otahost signed artifact\nRU"
        ));
        let header = Header::parse(&bytes).unwrap().unwrap();
        assert_eq!(header.claims(), &claims("7.1.0"));
        assert_eq!(header.encode(), bytes);
    }
}

#[test]
fn a_file_that_is_not_ours_has_no_header() {
    for bytes in [
        [0; HEADER_LEN],
        [b'o'; HEADER_LEN],
        padded("otahost-signed-artefact 1\n"),
    ] {
        assert_eq!(Header::parse(&bytes), Ok(None));
    }
}

#[test]
fn a_header_that_is_not_as_it_must_be_is_refused_with_a_reason() {
    let whole = header::assemble(&text("version=1")).unwrap();
    let end = whole.iter().position(|b| *b == 0).unwrap();
    let good = std::str::from_utf8(&whole[..end]).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    for (text, word) in [
        (good.replace("artifact 1\n", "artifact 2\n"), "a format"),
        (good.replace("artifact 1\n", "artifact 1\r\n"), "a format"),
        (
            good.replace('\n', "\r\n").replacen("\r\n", "\n", 1),
            "untrusted comment",
        ),
        (good.trim_end().to_owned(), "four lines"),
        (format!("{good}\n"), "four lines"),
        (format!("{good}more\n"), "four lines"),
        (
            good.replace("otahost signed artifact", "something else"),
            "untrusted comment is not",
        ),
        (
            good.replace("trusted comment: version", "comment: version"),
            "third line",
        ),
        (good.replace(lines[2], "RUQ="), "second line"),
        (
            good.replace(lines[2], &format!("{}\t", lines[2])),
            "second line",
        ),
        (good.replace(lines[4], "AAAA"), "fourth line"),
        (
            good.replace("version=1", "version=1\u{7}"),
            "control character",
        ),
        (good.replace("version=1", "version="), "is empty"),
        (good.replace("version=1", "version=1\tversion=1"), "twice"),
        (
            good.replace("version=1", "rollback-index=-1"),
            "whole number",
        ),
        (
            good.replace("version=1", "rollback-index=+1"),
            "whole number",
        ),
        (
            good.replace("version=1", "rollback-index=18446744073709551616"),
            "whole number",
        ),
        // "Ed" instead of "ED": the old kind.
        (
            good.replace(lines[2], &lines[2].replacen("RU", "RW", 1)),
            "not prehashed",
        ),
    ] {
        let error = Header::parse(&padded(&text)).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}\n{text}");
    }
    let mut stuffed = whole;
    stuffed[HEADER_LEN - 1] = b' ';
    assert!(
        Header::parse(&stuffed)
            .unwrap_err()
            .to_string()
            .contains("padding")
    );
    stuffed[end..].fill(0xff);
    assert!(Header::parse(&stuffed).is_err());
}

#[test]
fn a_signature_beside_a_file_is_read_as_minisign_wrote_it_and_kept_in_one_form() {
    let comment = claims("7.1.0").to_trusted_comment().unwrap();
    let text = text(&comment);
    let read = Signature::parse(&text).unwrap();
    assert_eq!(read.claims(), &claims("7.1.0"));
    assert!(
        read.text()
            .starts_with("untrusted comment: otahost signed artifact\nRU")
    );
    for same in [
        text.replace('\n', "\r\n"),
        text.trim_end().to_owned(),
        text.replacen("mine", "yours", 1),
        read.text().to_owned(),
    ] {
        assert_eq!(Signature::parse(&same).as_ref(), Ok(&read), "{same}");
    }
}

#[test]
fn what_is_no_signature_is_refused_with_a_reason() {
    let good = text("version=1");
    let lines: Vec<&str> = good.lines().collect();
    for (text, word) in [
        (String::new(), "first line"),
        ("<!doctype html>\n".into(), "first line"),
        (good.replace("untrusted comment", "comment"), "first line"),
        (lines[..3].join("\n"), "four lines"),
        (format!("{good}more\n"), "four lines"),
        (good.replace("trusted comment: v", "v"), "third line"),
        (good.replace(lines[1], "RUQ="), "second line"),
        (good.replace(lines[3], "AAAA"), "fourth line"),
        (
            good.replace(lines[1], &lines[1].replacen("RU", "RW", 1)),
            "not prehashed",
        ),
        (
            good.replace("version=1", "version=1\u{fffd}\u{7}"),
            "control",
        ),
        (
            good.replace("version=1", "rollback-index=x"),
            "whole number",
        ),
        (format!("{good}{}", " ".repeat(SIDECAR_MAX)), "larger than"),
    ] {
        let error = Signature::parse(&text).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}\n{text}");
    }
    let full = good.replacen("mine", &"x".repeat(SIDECAR_MAX - good.len() + 4), 1);
    assert_eq!(full.len(), SIDECAR_MAX);
    assert!(Signature::parse(&full).is_ok());
    assert_eq!(
        Signature::parse(&full.replacen('x', "xx", 1)),
        Err(SignatureError::TooLarge)
    );
}

#[test]
fn any_bytes_can_be_parsed_without_a_panic() {
    let whole = header::assemble(&text("version=1")).unwrap();
    for seed in 0..2000 {
        let mut bytes = whole;
        for (at, noise) in content(9, seed)
            .chunks(3)
            .map(|c| (c[0] as usize * 2, c[1]))
        {
            bytes[at] = noise;
        }
        let _ = Header::parse(&bytes);
        let text = String::from_utf8_lossy(&bytes[header::MAGIC.len()..400]);
        let _ = Signature::parse(text.trim_end_matches('\0'));
    }
}

#[test]
fn what_cannot_be_a_header_is_not_made_into_one() {
    assert!(header::assemble("").is_err());
    assert!(header::assemble("hello\nworld\n").is_err());
    let long = format!("version={}", "1".repeat(4000));
    assert!(matches!(
        header::assemble(&text(&long)),
        Err(HeaderError::TooLong(_))
    ));
    for bad in ["", "a\tb", "a\nb", &"x".repeat(201)] {
        let claims = Claims {
            version: Some(bad.to_owned()),
            ..Claims::default()
        };
        assert!(claims.to_trusted_comment().is_err(), "{bad:?}");
    }
    assert_eq!(
        Claims::parse("timestamp:17\tfile:x\tprehashed"),
        Ok(Claims::default())
    );
}

#[test]
fn only_a_trusted_key_signs_a_header() {
    let (pair, other, stranger) = (keys(), keys(), keys());
    let trusted =
        TrustKeys::parse(&[other.pk.to_base64(), format!(" {}\n", pair.pk.to_base64())]).unwrap();
    assert_eq!(trusted.ids().len(), 2);
    let head = |file: Vec<u8>| Header::parse(file.first_chunk().unwrap()).unwrap().unwrap();
    let ours = head(signed(&pair, b"payload", "1"));
    assert_eq!(trusted.check(ours.signature()), Ok(()));
    assert!(trusted.ids().contains(&ours.key()));
    let theirs = head(signed(&stranger, b"payload", "1"));
    assert_eq!(
        trusted.check(theirs.signature()),
        Err(KeyError::Stranger(theirs.key()))
    );
    // The comment of one release with the signature of another.
    let file = String::from_utf8(signed(&pair, b"payload", "1")).unwrap();
    let forged = head(file.replace("version=1", "version=9").into_bytes());
    assert_eq!(
        trusted.check(forged.signature()),
        Err(KeyError::Comment(ours.key()))
    );
}

#[test]
fn a_key_that_is_none_is_refused_with_its_number() {
    let good = keys().pk.to_base64();
    assert_eq!(TrustKeys::parse(&[]).unwrap_err(), KeyError::None);
    for bad in [
        "",
        "unsigned",
        "RWQ",
        &good[1..],
        &format!("{good}A"),
        &good.replacen("RW", "RU", 1),
    ] {
        let error = TrustKeys::parse(&[good.clone(), bad.to_owned()]).unwrap_err();
        assert_eq!(error, KeyError::NoKey(2), "{bad}");
    }
}
