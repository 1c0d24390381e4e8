//! Reads the platform's JSON: strictly, and once more without trailing commas where that fails.
//!
//! The vendor's own published examples have a comma before a closing bracket, and people paste them. Nothing else that strict JSON
//! forbids is let through.

use serde_json::Value;

/// The largest message that is read at all. The host's own limit; checked again so that this code does not lean on it.
pub const PAYLOAD_MAX: usize = 256 * 1024;

/// A message that could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// What it says.
    pub value: Value,
    /// It had trailing commas.
    pub lenient: bool,
}

/// Reads a message; `lenient` says whether trailing commas are passed over.
///
/// # Errors
/// Why it cannot be read.
pub fn read(payload: &[u8], lenient: bool) -> Result<Read, &'static str> {
    if payload.len() > PAYLOAD_MAX {
        return Err("it is larger than 256 KiB");
    }
    if let Ok(value) = serde_json::from_slice(payload) {
        return Ok(Read {
            value,
            lenient: false,
        });
    }
    lenient
        .then(|| without_trailing_commas(payload))
        .flatten()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .map(|value| Read {
            value,
            lenient: true,
        })
        .ok_or("it is no JSON")
}

/// The text with every comma taken out that stands between a value and a closing bracket; `None` where there is none.
fn without_trailing_commas(text: &[u8]) -> Option<Vec<u8>> {
    let mut clean = Vec::with_capacity(text.len());
    let mut in_string = false;
    let mut escaped = false;
    // The last byte outside strings that is no white space, the one before it, and where the last one stands in `clean`.
    let (mut last, mut before, mut at) = (b'{', b'{', 0);
    for &byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else if !byte.is_ascii_whitespace() {
            in_string = byte == b'"';
            if matches!(byte, b'}' | b']')
                && last == b','
                && !matches!(before, b'{' | b'[' | b',' | b':')
            {
                clean.remove(at);
                // The value before the comma is now the last; a second comma before it was refused above.
                last = before;
            }
            before = last;
            last = byte;
            at = clean.len();
        }
        clean.push(byte);
    }
    (clean.len() < text.len()).then_some(clean)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    #[test]
    fn trailing_commas_are_passed_over_and_told() {
        for (text, value) in [
            (r#"{"a":1,}"#, json!({ "a": 1 })),
            ("[1, 2 ,\n ]", json!([1, 2])),
            (r#"{"a":{"b":[1,],},}"#, json!({ "a": { "b": [1] } })),
            (
                r#"{"a":",}","b":"\",]",}"#,
                json!({ "a": ",}", "b": "\",]" }),
            ),
            (r#"["",]"#, json!([""])),
            (r#"{"a":[],}"#, json!({ "a": [] })),
        ] {
            let read = super::read(text.as_bytes(), true).unwrap();
            assert_eq!(
                read,
                Read {
                    value,
                    lenient: true
                },
                "{text}"
            );
            assert!(super::read(text.as_bytes(), false).is_err(), "{text}");
        }
        assert!(!read(br#"{"a":"1,}"}"#, true).unwrap().lenient);
    }

    #[test]
    fn nothing_else_that_json_forbids_is_let_through() {
        for text in [
            "{,}",
            "[,]",
            "[1,,]",
            "[,1]",
            r#"{"a":,}"#,
            r#"{"a":1},"#,
            r#"{"a":1,"#,
            r#"{"a":1"#,
            r#"{"a":1,}}"#,
            "{'a':1,}",
            "{a:1,}",
            "{\"a\":1, // x\n}",
            "{\"a\":NaN,}",
            "",
            ",",
            "{\"a\":\"\n\",}",
            "[1 2,]",
        ] {
            assert!(read(text.as_bytes(), true).is_err(), "{text}");
        }
        assert!(read(&vec![b' '; PAYLOAD_MAX + 1], true).is_err());
        let deep = format!("{}{}", "[".repeat(50_000), ",]".repeat(50_000));
        assert!(read(deep.as_bytes(), true).is_err());
    }
}
