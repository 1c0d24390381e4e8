//! Which headers cross between callers and adapters.

use axum::http::HeaderMap;
use axum::http::header::{self, HeaderName};
use otahost_core::model::Field;
use tracing::debug;

/// Credentials: the host's business alone.
const CREDENTIALS: [HeaderName; 3] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
];

/// Belong to one connection (RFC 9110 §7.6.1, and older practice), so they say nothing to an adapter and are not its to set.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "expect",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "trailers",
    "transfer-encoding",
    "upgrade",
];

/// True for a header that belongs to the connection.
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

/// The headers of a request that an adapter may see. One that `Connection` names belongs to the connection, too.
pub(super) fn inbound(headers: &HeaderMap) -> Vec<Field> {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    headers
        .iter()
        .filter(|(name, _)| {
            !CREDENTIALS.contains(name)
                && !is_hop_by_hop(name.as_str())
                && !named.iter().any(|hop| hop == name.as_str())
        })
        .filter_map(|(name, value)| {
            let Ok(text) = std::str::from_utf8(value.as_bytes()) else {
                debug!(%name, "a header that is not UTF-8 was left out");
                return None;
            };
            Some(Field {
                name: name.as_str().into(),
                value: text.into(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn credentials_and_what_belongs_to_the_connection_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Basic YTpi"),
            ("proxy-authorization", "Basic YTpi"),
            ("cookie", "session=1"),
            ("connection", "keep-alive, X-Hop"),
            ("keep-alive", "5"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("content-type", "application/json"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-many", "1"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers.append("cookie", HeaderValue::from_static("other=2"));
        headers.append("x-many", HeaderValue::from_static("2"));
        headers.append("x-latin", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        let seen: Vec<String> = inbound(&headers)
            .into_iter()
            .map(|field| format!("{}: {}", field.name, field.value))
            .collect();
        assert_eq!(
            seen,
            [
                "content-type: application/json",
                "x-forwarded-for: 192.0.2.7",
                "x-many: 1",
                "x-many: 2"
            ]
        );
    }
}
