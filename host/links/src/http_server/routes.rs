//! Which requests are served. One table, compared exactly, so that what an adapter was granted is what it gets.

use std::collections::{BTreeMap, HashMap};

use otahost_core::model::{Field, RouteNeed};
use tracing::warn;
use url::form_urlencoded;

use super::MAX_BODY;

/// Query parameters of a request, at most.
const MAX_PARAMETERS: usize = 100;

/// Path → method → largest body. None before the first set.
#[derive(Debug, Default)]
pub(super) struct Routes(Option<HashMap<String, BTreeMap<String, usize>>>);

/// What the table says of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Served, with bodies up to so many bytes.
    Route(usize),
    /// Nobody said yet what is served.
    NotYet,
    NoPath,
    /// Served with these methods only.
    NoMethod(String),
}

impl Routes {
    /// A whole new table. What can never be served is left out with a warning.
    pub(super) fn new(needs: Vec<RouteNeed>) -> Self {
        let mut table: HashMap<String, BTreeMap<String, usize>> = HashMap::new();
        for need in needs {
            if let Some(problem) = problem(&need) {
                warn!(method = ?need.method, path = ?need.path, "this route is not served: {problem}");
                continue;
            }
            let limit = usize::try_from(need.max_body).map_or(MAX_BODY, |most| most.min(MAX_BODY));
            let methods = table.entry(need.path.clone()).or_default();
            if methods.contains_key(&need.method) {
                warn!(method = ?need.method, path = ?need.path, "this route is asked for twice; the first one counts");
                continue;
            }
            methods.insert(need.method, limit);
        }
        Self(Some(table))
    }

    pub(super) fn find(&self, method: &str, path: &str) -> Found {
        let Some(table) = &self.0 else {
            return Found::NotYet;
        };
        let Some(methods) = table.get(path) else {
            return Found::NoPath;
        };
        match methods.get(method) {
            Some(limit) => Found::Route(*limit),
            None => {
                let allowed: Vec<&str> = methods.keys().map(String::as_str).collect();
                Found::NoMethod(allowed.join(", "))
            }
        }
    }
}

fn problem(need: &RouteNeed) -> Option<&'static str> {
    if need.method.is_empty() || !need.method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Some("a method is written in upper-case letters");
    }
    if ["CONNECT", "TRACE"].contains(&need.method.as_str()) {
        return Some("this method is never served");
    }
    if !need.path.starts_with('/') || need.path.chars().any(char::is_control) {
        return Some("a path begins with / and holds no control character");
    }
    None
}

/// A path, percent-decoded once. None when the encoding is broken or hides what no path may hold.
pub(super) fn decode_path(raw: &str) -> Option<String> {
    let mut bytes = raw.bytes();
    let mut decoded = Vec::with_capacity(raw.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(decoded)
        .ok()
        .filter(|path| !path.chars().any(char::is_control))
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

/// Decoded parameters in order; none when there are too many.
pub(super) fn decode_query(raw: &str) -> Option<Vec<Field>> {
    let fields: Vec<Field> = form_urlencoded::parse(raw.as_bytes())
        .take(MAX_PARAMETERS + 1)
        .map(|(name, value)| Field {
            name: name.into_owned(),
            value: value.into_owned(),
        })
        .collect();
    (fields.len() <= MAX_PARAMETERS).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(method: &str, path: &str, max_body: u32) -> RouteNeed {
        RouteNeed {
            link: "kit".into(),
            method: method.into(),
            path: path.into(),
            max_body,
        }
    }

    #[test]
    fn a_route_is_an_exact_method_on_an_exact_path() {
        let routes = Routes::new(vec![
            need("POST", "/api/updateDevice", 100),
            need("GET", "/api/updateDevice", u32::MAX),
            need("POST", "/api/updateDevice", 7),
        ]);
        assert_eq!(routes.find("POST", "/api/updateDevice"), Found::Route(100));
        assert_eq!(
            routes.find("GET", "/api/updateDevice"),
            Found::Route(MAX_BODY)
        );
        assert_eq!(
            routes.find("PUT", "/api/updateDevice"),
            Found::NoMethod("GET, POST".into())
        );
        for other in [
            "/api/updatedevice",
            "/api/updateDevice/",
            "//api/updateDevice",
            "/api/x/../updateDevice",
            "/api/./updateDevice",
            "/",
            "",
            "*",
        ] {
            assert_eq!(routes.find("POST", other), Found::NoPath, "{other}");
        }
        assert_eq!(
            routes.find("post", "/api/updateDevice"),
            Found::NoMethod("GET, POST".into())
        );
    }

    #[test]
    fn before_the_first_set_nothing_is_unknown() {
        assert_eq!(Routes::default().find("POST", "/x"), Found::NotYet);
        assert_eq!(Routes::new(vec![]).find("POST", "/x"), Found::NoPath);
    }

    #[test]
    fn what_can_never_be_served_is_left_out() {
        let routes = Routes::new(vec![
            need("CONNECT", "/a", 0),
            need("TRACE", "/a", 0),
            need("post", "/a", 0),
            need("", "/a", 0),
            need("GET", "a", 0),
            need("GET", "/a\r\n", 0),
            need("GET", "/b", 0),
        ]);
        assert_eq!(routes.find("GET", "/a"), Found::NoPath);
        assert_eq!(routes.find("GET", "a"), Found::NoPath);
        assert_eq!(routes.find("GET", "/b"), Found::Route(0));
    }

    #[test]
    fn a_path_is_decoded_once() {
        for (raw, decoded) in [
            ("/a%20b", Some("/a b")),
            ("/a%2Fb", Some("/a/b")),
            ("/a%252Fb", Some("/a%2Fb")),
            ("/caf%c3%A9", Some("/café")),
            ("/a+b", Some("/a+b")),
            ("/%2e%2e/x", Some("/../x")),
            ("/%", None),
            ("/%4", None),
            ("/%4g", None),
            ("/%+4", None),
            ("/%00", None),
            ("/%0d%0a", None),
            ("/%ff", None),
        ] {
            assert_eq!(decode_path(raw).as_deref(), decoded, "{raw}");
        }
    }

    #[test]
    fn query_parameters_are_decoded_in_order_and_bounded() {
        let fields = decode_query("a=1&b=%C3%A9+x&a=2&c").unwrap_or_default();
        let pairs: Vec<_> = fields
            .iter()
            .map(|f| (f.name.as_str(), f.value.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "1"), ("b", "é x"), ("a", "2"), ("c", "")]);
        assert_eq!(decode_query(&"a&".repeat(100)).map(|f| f.len()), Some(100));
        assert_eq!(decode_query(&"a&".repeat(101)), None);
    }
}
