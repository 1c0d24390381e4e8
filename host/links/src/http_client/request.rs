//! A request as it leaves: checked, filled, with our credentials. Nothing is sent here.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use otahost_core::model::Fetch;
use otahost_core::paths;
use otahost_core::secret::{Secret, fill, missing, uses};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::Auth;
use super::gate::Needs;

/// Headers that belong to the connection, to us, or to mechanisms we do not take part in.
const OURS: [&str; 17] = [
    "accept-encoding",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// A request that is ready to be sent.
pub(super) struct Ready {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Secrets were filled in, which are granted for this path only.
    pub(super) holds_secrets: bool,
}

/// The secrets a fetch has to do with.
pub(super) fn needs(fetch: &Fetch, auth: &Auth) -> Needs {
    let mut needs = Needs {
        reads: uses(fetch).into_iter().map(|(name, _)| name).collect(),
        writes: fetch.captures.iter().map(|c| c.secret.clone()).collect(),
        counted: true,
    };
    if let (Auth::Bearer(name), true) = (auth, takes_ours(auth, fetch)) {
        needs.reads.insert(name.clone());
    }
    needs
}

/// Whether a request is sent with the link's own credentials: not one that brings others, and not one that the bearer token comes
/// from, which is sent when there is no token, or none that is good.
fn takes_ours(auth: &Auth, fetch: &Fetch) -> bool {
    let is_source = |name: &String| fetch.captures.iter().any(|c| c.secret == *name);
    !brings_authorization(fetch) && !matches!(auth, Auth::Bearer(name) if is_source(name))
}

fn brings_authorization(fetch: &Fetch) -> bool {
    fetch
        .headers
        .iter()
        .any(|field| field.name.eq_ignore_ascii_case("authorization"))
}

/// What a request is called in texts: method, place and path as the adapter wrote it, without secrets and query.
pub(super) fn shown(base: &Url, fetch: &Fetch) -> String {
    format!(
        "{} {}{}{}",
        fetch.method,
        base.origin().ascii_serialization(),
        base.path().trim_end_matches('/'),
        paths::without_query(&fetch.path)
    )
}

/// Makes a fetch ready.
///
/// # Errors
/// A sentence for the adapter, without values.
pub(super) fn ready(
    base: &Url,
    auth: &Auth,
    secrets: &BTreeMap<String, Secret>,
    fetch: &Fetch,
) -> Result<Ready, String> {
    let method = match Method::from_bytes(fetch.method.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) | Err(_) => {
            return Err(format!("the method {:?} is not sent", fetch.method));
        }
        Ok(method) => method,
    };
    let filled = fill(fetch, |name| secrets.get(name)).map_err(|error| error.to_string())?;
    let mut headers = HeaderMap::new();
    for field in &filled.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| "the name of a header is no token".to_owned())?;
        if OURS.contains(&name.as_str()) {
            return Err(format!("the header `{name}` is not the adapter's to set"));
        }
        let value = secret_value(&field.value)
            .ok_or_else(|| format!("the value of the header `{name}` cannot be sent"))?;
        headers.append(name, value);
    }
    if takes_ours(auth, fetch)
        && let Some(value) = authorization(auth, secrets)?
    {
        headers.insert(AUTHORIZATION, value);
    }
    Ok(Ready {
        method,
        url: address(base, &filled.path)?,
        headers,
        body: filled.body,
        holds_secrets: !uses(fetch).is_empty(),
    })
}

/// The link's own credentials.
///
/// # Errors
/// [`missing`], or that the token can be in no header.
pub(super) fn authorization(
    auth: &Auth,
    secrets: &BTreeMap<String, Secret>,
) -> Result<Option<HeaderValue>, String> {
    let value = match auth {
        Auth::None => return Ok(None),
        Auth::Basic { username, password } => {
            let pair = Secret::new(format!("{}:{}", username.reveal(), password.reveal()));
            Secret::new(format!("Basic {}", STANDARD.encode(pair.reveal())))
        }
        Auth::Bearer(name) => {
            let token = secrets
                .get(name)
                .filter(|token| !token.reveal().is_empty())
                .ok_or_else(|| missing(name))?;
            if !token.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!(
                    "secret {name} is no bearer token: it holds a character that is no visible ASCII"
                ));
            }
            Secret::new(format!("Bearer {}", token.reveal()))
        }
    };
    Ok(secret_value(value.reveal()))
}

/// Shown by no `Debug`.
fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Base and path as one URL. What was granted is what is sent: nothing in the path may be read as something else.
///
/// # Errors
/// What is wrong with the path; it is not repeated.
pub(super) fn address(base: &Url, path_and_query: &str) -> Result<Url, String> {
    let (path, query) = path_and_query
        .split_once('?')
        .map_or((path_and_query, None), |(path, query)| (path, Some(query)));
    let printable = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\';
    if !path.starts_with('/') || !paths::is_plain(path) || !path_and_query.bytes().all(printable) {
        return Err(
            "the path must begin with `/`, have no `.`, `..` or empty segments, and be percent-encoded"
                .into(),
        );
    }
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url.set_query(query);
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use otahost_core::model::{Field, Repeat};

    fn fetch(method: &str, path: &str, headers: &[(&str, &str)]) -> Fetch {
        Fetch {
            tag: "t".into(),
            link: "api".into(),
            method: method.into(),
            path: path.into(),
            headers: headers
                .iter()
                .map(|(name, value)| Field {
                    name: (*name).into(),
                    value: (*value).into(),
                })
                .collect(),
            body: Vec::new(),
            captures: Vec::new(),
            repeat: Repeat::Safe,
            timeout: 1_000,
            redirects: 0,
        }
    }

    fn base() -> Url {
        "https://api.example:8443/api/v1/".parse().unwrap()
    }

    fn make(fetch: &Fetch, auth: &Auth) -> Result<Ready, String> {
        let secrets = [("token".to_owned(), Secret::new("tok-en"))].into();
        ready(&base(), auth, &secrets, fetch)
    }

    #[test]
    fn the_path_is_put_behind_the_base_and_can_lead_nowhere_else() {
        for (path, expected) in [
            ("/a", "https://api.example:8443/api/v1/a"),
            ("/a/", "https://api.example:8443/api/v1/a/"),
            (
                "/a?x=/../b?c",
                "https://api.example:8443/api/v1/a?x=/../b?c",
            ),
            (
                "/@evil.example/x",
                "https://api.example:8443/api/v1/@evil.example/x",
            ),
            ("/:80/x", "https://api.example:8443/api/v1/:80/x"),
            ("/", "https://api.example:8443/api/v1/"),
        ] {
            assert_eq!(address(&base(), path).unwrap().as_str(), expected);
        }
        for path in [
            "",
            "a",
            "?a",
            "//evil.example/x",
            "/a//b",
            "/../b",
            "/a/..",
            "/a/%2e%2E/b",
            "/a\\b",
            "/a%2fb",
            "/a#b",
            "/a b",
            "/ü",
            "/a?b#c",
            "/a?ü",
            "https://evil.example/",
            "/a\r\nb",
        ] {
            assert!(address(&base(), path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn headers_of_the_connection_are_refused_and_others_pass() {
        for name in OURS {
            assert!(
                make(&fetch("GET", "/", &[(name, "x")]), &Auth::None).is_err(),
                "{name}"
            );
        }
        let own = [("accept", "application/json"), ("x-a", "{secret:token}")];
        let ready = make(&fetch("GET", "/", &own), &Auth::None).unwrap();
        assert_eq!(ready.headers["x-a"], "tok-en");
        assert!(ready.holds_secrets);
        assert!(!format!("{:?}", ready.headers).contains("tok-en"));
        for method in ["CONNECT", "TRACE", "GE T", ""] {
            assert!(
                make(&fetch(method, "/", &[]), &Auth::None).is_err(),
                "{method}"
            );
        }
    }

    #[test]
    fn our_authorization_gives_way_to_the_adapters_own() {
        let bearer = Auth::Bearer("token".into());
        let ready = make(&fetch("GET", "/", &[]), &bearer).unwrap();
        assert_eq!(ready.headers[AUTHORIZATION], "Bearer tok-en");
        assert!(!ready.holds_secrets);
        let own = fetch("GET", "/", &[("authorization", "Token {secret:token}")]);
        let ready = make(&own, &bearer).unwrap();
        let all: Vec<_> = ready.headers.get_all(AUTHORIZATION).iter().collect();
        assert_eq!(all, ["Token tok-en"]);
        let basic = Auth::Basic {
            username: Secret::new("joe"),
            password: Secret::new("pw"),
        };
        let ready = make(&fetch("GET", "/", &[]), &basic).unwrap();
        assert_eq!(ready.headers[AUTHORIZATION], "Basic am9lOnB3");
    }

    #[test]
    fn a_missing_bearer_token_is_said_in_the_agreed_words() {
        let error = make(&fetch("GET", "/", &[]), &Auth::Bearer("access".into())).err();
        assert_eq!(error, Some(missing("access")));
    }

    #[test]
    fn a_request_that_the_bearer_token_comes_from_is_sent_without_one() {
        let mut sign_in = fetch("POST", "/sign-in", &[]);
        sign_in.captures = vec![otahost_core::model::Capture {
            pointer: "/a".into(),
            secret: "access".into(),
        }];
        let ready = make(&sign_in, &Auth::Bearer("access".into())).unwrap();
        assert!(!ready.headers.contains_key(AUTHORIZATION));
        // Another secret's source is a request like any other.
        let ready = make(&sign_in, &Auth::Bearer("token".into())).unwrap();
        assert_eq!(ready.headers[AUTHORIZATION], "Bearer tok-en");
    }

    #[test]
    fn a_fetch_needs_what_it_names_and_the_token_it_is_sent_with() {
        let bearer = Auth::Bearer("token".into());
        let mut refresh = fetch("POST", "/r", &[("x-a", "{secret:refresh}")]);
        refresh.captures = vec![otahost_core::model::Capture {
            pointer: "/a".into(),
            secret: "token".into(),
        }];
        let found = needs(&refresh, &bearer);
        assert_eq!(found.reads, ["refresh".to_owned()].into());
        assert_eq!(found.writes, ["token".to_owned()].into());
        let own = fetch("GET", "/", &[("Authorization", "x")]);
        assert!(needs(&own, &bearer).reads.is_empty());
    }

    #[test]
    fn what_is_shown_of_a_request_holds_neither_query_nor_value() {
        let fetch = fetch("GET", "/a/{secret:token}?sig=hush", &[]);
        assert_eq!(
            shown(&base(), &fetch),
            "GET https://api.example:8443/api/v1/a/{secret:token}"
        );
    }
}
