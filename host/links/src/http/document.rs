//! Object stores may answer 200 and put the error into the body; gateways and hotels' portals answer 200 with a page of their own.
//! Taken for a file it would be one without a signature, and the source would not be asked again. Pure; what is asked of it is small.

use reqwest::header::{CONTENT_TYPE, HeaderMap};

/// How much of a body is looked at, in bytes.
pub(super) const LOOKED_AT: usize = 4 * 1024;

/// Larger bodies are no error documents of a store, in bytes.
const LARGEST: u64 = 64 * 1024;

/// Whether it is worth looking: a page, or XML of no length or a small one.
pub(super) fn may_be_error(headers: &HeaderMap, total: Option<u64>) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        match kind.to_ascii_lowercase().as_str() {
            "text/html" | "application/xhtml+xml" => true,
            "application/xml" | "text/xml" => total.is_none_or(|total| total <= LARGEST),
            other => other.ends_with("+xml") && total.is_none_or(|total| total <= LARGEST),
        }
    })
}

/// Whether a page begins here, or an XML document whose root is `Error` (Amazon S3 API reference, "Error responses").
pub(super) fn is_error(start: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start);
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    // Declaration, comments, document type.
    while let Some(inner) = rest.strip_prefix("<?").or_else(|| rest.strip_prefix("<!")) {
        let end = if rest.starts_with("<!--") { "-->" } else { ">" };
        let Some((_, after)) = inner.split_once(end) else {
            return false;
        };
        rest = after.trim_start();
    }
    let root = rest.strip_prefix('<').and_then(|rest| {
        let end = rest.find(|c: char| c == '>' || c == '/' || c.is_whitespace())?;
        rest.get(..end)
    });
    root.is_some_and(|root| root == "Error" || root.eq_ignore_ascii_case("html"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use reqwest::header::HeaderValue;

    #[test]
    fn an_error_document_is_known_by_its_root() {
        for document in [
            "<Error><Code>x</Code></Error>",
            "<Error/>",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>\n",
            "\u{feff}<?xml version=\"1.0\"?><!-- a > b --><Error xmlns=\"y\">",
            "<html>",
            "\r\n<!DOCTYPE html>\n<!-- gateway -->\n<HTML lang=\"en\">",
        ] {
            assert!(is_error(document.as_bytes()), "{document}");
        }
        for document in [
            "",
            "<",
            "<?xml version=\"1.0\"",
            "<!-- <Error> ",
            "<?xml version=\"1.0\"?><firmware><Error/></firmware>",
            "<Errors>",
            "<error>",
            "<htmlx>",
            "PK\u{3}\u{4}<Error>",
        ] {
            assert!(!is_error(document.as_bytes()), "{document}");
        }
    }

    #[test]
    fn only_pages_and_small_xml_are_looked_at() {
        let ask = |kind: &str, total| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
            may_be_error(&headers, total)
        };
        assert!(ask("application/xml", Some(300)) && ask("Text/XML; charset=utf-8", None));
        assert!(!ask("application/xml", Some(LARGEST + 1)));
        assert!(
            ask("application/problem+xml", None) && ask("text/html;charset=utf-8", Some(1 << 30))
        );
        assert!(!ask("application/octet-stream", Some(300)));
        assert!(!may_be_error(&HeaderMap::new(), None));
    }
}
