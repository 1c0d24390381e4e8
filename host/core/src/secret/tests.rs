#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use url::Url;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::*;
use crate::model::{Capture, Fetch, Field, Repeat};

fn fetch(path: &str, headers: &[(&str, &str)], body: &str) -> Fetch {
    Fetch {
        tag: "t".into(),
        link: "api".into(),
        method: "POST".into(),
        path: path.into(),
        headers: headers
            .iter()
            .map(|(name, value)| Field {
                name: (*name).into(),
                value: (*value).into(),
            })
            .collect(),
        body: body.into(),
        captures: Vec::new(),
        repeat: Repeat::Once,
        timeout: 1_000,
        redirects: 0,
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

fn fill_one(fetch: &Fetch, value: &str) -> Result<Filled, FillError> {
    let secret = Secret::new(value);
    fill(fetch, |name| (name == "s").then_some(&secret))
}

/// What the scrubber must find: the writings a server may use.
fn writings(value: &str) -> Vec<(&'static str, String)> {
    let json = serde_json::to_string(value).unwrap();
    let json = json[1..json.len() - 1].to_owned();
    let mut percent = String::new();
    let mut lower = String::new();
    for byte in value.bytes() {
        percent += &format!("%{byte:02X}");
        if byte.is_ascii_alphanumeric() {
            lower.push(byte.into());
        } else {
            lower += &format!("%{byte:02x}");
        }
    }
    let unicode: String = value
        .encode_utf16()
        .map(|unit| format!("\\u{unit:04x}"))
        .collect();
    let form = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    let xml = value
        .chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\'' => "&#39;".to_owned(),
            '>' => "&#x3E;".to_owned(),
            c => c.to_string(),
        })
        .collect();
    let nested = serde_json::to_string(&json).unwrap();
    vec![
        ("raw", value.to_owned()),
        ("json", json.clone()),
        ("json in json", nested[1..nested.len() - 1].to_owned()),
        ("json with slashes escaped", json.replace('/', "\\/")),
        ("json in ascii", unicode),
        ("percent", percent.clone()),
        ("percent, lower case", lower),
        ("percent, twice", percent.replace('%', "%25")),
        ("form", form),
        ("xml", xml),
        ("base64", STANDARD.encode(value)),
        ("base64url", URL_SAFE_NO_PAD.encode(value)),
    ]
}

#[test]
fn debug_shows_no_value() {
    let filled = fill_one(&fetch("/{secret:s}", &[], ""), "hush-hush").unwrap();
    let scrubber = Scrubber::new(&[Secret::new("hush-hush")]);
    let shown = format!("{:?} {filled:?} {scrubber:?}", Secret::new("hush-hush"));
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn uses_names_each_secret_with_its_place() {
    let fetch = fetch(
        "/a/{secret:p}/b?x={secret:q}&y={secret:q}",
        &[
            ("x-one", "Bearer {secret:h}"),
            ("x-two", "{secret:h}{secret:p}"),
        ],
        r#"{"a": "{secret:b-1.x}", "b": "{notsecret:z} {secret"}"#,
    );
    let pair = |name: &str, place| (name.to_owned(), place);
    assert_eq!(
        uses(&fetch),
        [
            pair("p", Place::Path),
            pair("q", Place::Query),
            pair("h", Place::Header),
            pair("p", Place::Header),
            pair("b-1.x", Place::Body),
        ]
    );
    assert_eq!(serde_json::to_value(Place::Body).unwrap(), json!("body"));
    assert_eq!(Place::Query.to_string(), "query");
}

#[test]
fn a_malformed_placeholder_fills_nothing() {
    for text in [
        "{secret:",
        "{secret:}",
        "{secret:a b}",
        "{secret:a?b}",
        "{secret:a/b}",
        "{secret:{secret:s}}",
        "{secret:ü}",
        "{secret:s",
    ] {
        let error = fill_one(&fetch("/x", &[("x-a", text)], ""), "value").unwrap_err();
        assert_eq!(error, FillError::Malformed(Place::Header), "{text}");
    }
    let long = format!("{{secret:{}}}", "n".repeat(201));
    let error = fill_one(&fetch("/x", &[("x-a", &long)], ""), "value").unwrap_err();
    assert_eq!(error, FillError::Malformed(Place::Header));
}

#[test]
fn a_missing_secret_is_said_in_the_agreed_words() {
    let error = fill_one(&fetch("/x?a={secret:token}", &[], ""), "value").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no-secret: token is not known on this link"
    );
    assert_eq!(error.to_string(), missing("token"));
}

#[test]
fn values_are_escaped_for_their_place() {
    let request = fetch(
        "/a?x={secret:s}",
        &[JSON, ("x-token", "{secret:s}")],
        r#"{"t":"<{secret:s}>"}"#,
    );
    let filled = fill_one(&request, r#"a b"\&=+/"#).unwrap();
    assert_eq!(filled.path, "/a?x=a%20b%22%5C%26%3D%2B%2F");
    assert_eq!(filled.headers[1].value, r#"a b"\&=+/"#);
    let body: Value = serde_json::from_slice(&filled.body).unwrap();
    assert_eq!(body, json!({"t": r#"<a b"\&=+/>"#}));
    let form = fetch("/a", &[FORM], "username=u&password={secret:s}");
    let filled = fill_one(&form, "a b&c=d+ü").unwrap();
    assert_eq!(
        filled.body,
        b"username=u&password=a+b%26c%3Dd%2B%C3%BC".to_vec()
    );
    let plain = fetch("/a/{b}", &[], "no placeholder, no type needed");
    assert_eq!(fill_one(&plain, "x").unwrap().body, plain.body);
}

#[test]
fn a_value_that_would_change_the_path_is_refused() {
    let request = fetch("/a/{secret:s}/b?q=1", &[], "");
    assert_eq!(
        fill_one(&request, "t.1-_~ü").unwrap().path,
        "/a/t.1-_~%C3%BC/b?q=1"
    );
    for value in [".", "..", "a/b", "a\\b", "\0", "../../x", ""] {
        let error = fill_one(&request, value).unwrap_err();
        assert!(
            matches!(
                error,
                FillError::Unfit {
                    place: Place::Path,
                    ..
                }
            ),
            "{value:?}: {error:?}"
        );
    }
    // Two halves of a segment that are innocent alone.
    let dots = fetch("/a/.{secret:s}/b", &[], "");
    assert!(fill_one(&dots, ".").is_err());
}

#[test]
fn a_value_that_would_end_a_header_is_refused() {
    let alone = fetch("/", &[("x-a", "{secret:s}")], "");
    let beside = fetch("/", &[("x-a", "Token {secret:s}")], "");
    for value in ["a\r\nx-b: c", "a\nb", "a\tb", "a\0b", "ü", "\u{7f}"] {
        assert!(fill_one(&alone, value).is_err(), "{value:?}");
    }
    for value in ["a, b", "a b", "a;b", "a\"b", "a\\b"] {
        assert!(fill_one(&alone, value).is_ok(), "{value:?}");
        assert!(fill_one(&beside, value).is_err(), "{value:?}");
    }
    let error = fill_one(&beside, "hush;hush").unwrap_err().to_string();
    assert!(
        error.contains("secret s") && !error.contains("hush"),
        "{error}"
    );
}

#[test]
fn bodies_that_nobody_can_escape_for_are_refused() {
    let body = r#"{"t":"{secret:s}"}"#;
    for headers in [
        &[][..],
        &[JSON, FORM],
        &[("content-type", "text/plain")],
        &[("content-type", "application/xml")],
        &[("content-type", "multipart/form-data; boundary=x")],
        &[("content-type", "application/json; charset=utf-16")],
        &[("content-type", "application/jsonx")],
    ] {
        let error = fill_one(&fetch("/", headers, body), "v").unwrap_err();
        assert!(
            matches!(error, FillError::Body(_)),
            "{headers:?}: {error:?}"
        );
    }
    for kind in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/problem+json",
    ] {
        let request = fetch("/", &[("content-type", kind)], body);
        assert_eq!(fill_one(&request, "v").unwrap().body, br#"{"t":"v"}"#);
    }
    for body in [
        r#"{"t":{secret:s}}"#,
        r#"["\"",{secret:s}]"#,
        r#"{"t":"{secret:s}"#,
        r#"{"t":'{secret:s}'}"#,
        r#"{"t":"\{secret:s}"}"#,
        r#"// "{secret:s}"#,
    ] {
        assert!(fill_one(&fetch("/", &[JSON], body), "v").is_err(), "{body}");
    }
    let escaped = fetch("/", &[JSON], r#"{"t":"\\\"{secret:s}\\"}"#);
    assert_eq!(
        fill_one(&escaped, "\"").unwrap().body,
        br#"{"t":"\\\"\"\\"}"#
    );
}

fn pointers(pairs: &[(&str, &str)]) -> Vec<Capture> {
    pairs
        .iter()
        .map(|(pointer, secret)| Capture {
            pointer: (*pointer).into(),
            secret: (*secret).into(),
        })
        .collect()
}

#[test]
fn captured_values_are_cut_from_what_is_seen() {
    let body =
        json!({"access_token": "aaa", "expires_in": 900, "deep": [{"refresh/token": "rrr"}]});
    let taken = capture(
        body.to_string().as_bytes(),
        &pointers(&[
            ("/access_token", "access"),
            ("/deep/0/refresh~1token", "refresh"),
            ("/absent", "absent"),
        ]),
    )
    .unwrap();
    let seen: Value = serde_json::from_slice(&taken.body).unwrap();
    assert_eq!(
        seen,
        json!({"access_token": null, "expires_in": 900, "deep": [{"refresh/token": null}]})
    );
    let values: BTreeMap<String, String> = taken
        .values
        .iter()
        .map(|(name, value)| (name.clone(), value.reveal().to_owned()))
        .collect();
    assert_eq!(
        values,
        [
            ("access".into(), "aaa".into()),
            ("refresh".into(), "rrr".into())
        ]
        .into()
    );
}

#[test]
fn what_is_no_fit_string_is_cut_and_not_captured() {
    for (value, fits) in [
        (json!("x"), true),
        (json!("x".repeat(MAX_CAPTURED)), true),
        (json!("x".repeat(MAX_CAPTURED + 1)), false),
        (json!(""), false),
        (json!(7), false),
        (json!(null), false),
        (json!({"a": "hush"}), false),
        (json!(["hush"]), false),
    ] {
        let body = json!({ "t": value }).to_string();
        let taken = capture(body.as_bytes(), &pointers(&[("/t", "token")])).unwrap();
        assert_eq!(taken.body, br#"{"t":null}"#);
        assert_eq!(taken.values.len(), usize::from(fits), "{body:.80}");
    }
    let twice = capture(
        br#"{"a":"1","b":{"c":"2"},"a":"3"}"#,
        &pointers(&[("/b", "x"), ("/b/c", "y"), ("/a", "y"), ("", "z")]),
    )
    .unwrap();
    assert_eq!(twice.body, b"null");
    assert_eq!(twice.values, [("y".to_owned(), Secret::new("3"))]);
    for body in ["", "<html>", "{\"a\":", "{} {}", "\u{feff}{}"] {
        assert_eq!(capture(body.as_bytes(), &[]), Err(NotJson), "{body}");
    }
}

#[test]
fn an_echo_is_scrubbed_in_every_writing_and_the_rest_stays() {
    let value = r#"p&w <"d'>/\ü😀+1%"#;
    let scrubber = Scrubber::new(&[Secret::new(value), Secret::new("short")]);
    for (name, written) in writings(value) {
        let text = format!("before [{written}] short after");
        let scrubbed = scrubber.text(&text).replace('=', "");
        assert_eq!(scrubbed, "before [***] short after", "{name}");
    }
    let untouched = br#"{"detail":"100% of \u00fc & a%20b+c \" \q \ud800 &#xffffffff; %zz"}"#;
    assert_eq!(scrubber.bytes(untouched), untouched);
    assert_eq!(Scrubber::default().bytes(b"any"), b"any");
}

#[test]
fn the_pair_of_http_basic_is_scrubbed() {
    let (user, password) = (Secret::new("joe"), Secret::new("pw"));
    let scrubber = Scrubber::new([&user, &password]).with_basic(&user, &password);
    let sent = format!("Basic {}", STANDARD.encode("joe:pw"));
    let mut fields = [Field {
        name: "x-echo".into(),
        value: sent,
    }];
    scrubber.fields(&mut fields);
    assert!(
        !fields[0].value.contains(&STANDARD.encode("joe:pw")[..6]),
        "{fields:?}"
    );
}

#[test]
fn secrets_that_touch_overlap_or_appear_by_the_replacement_are_gone() {
    let of = |values: &[&str]| {
        let secrets: Vec<Secret> = values.iter().map(|v| Secret::new(*v)).collect();
        Scrubber::new(&secrets)
    };
    assert_eq!(of(&["aaaaaa"]).text("xaaaaaaaaay"), "x***y");
    assert_eq!(
        of(&["abcdef", "defghi"]).text("abcdefghi abcdefdefghi"),
        "*** ***"
    );
    assert_eq!(of(&["secret1", "ab***cd"]).text("absecret1cd"), "***");
    assert_eq!(of(&["******"]).text("a******b*****"), "a***b*****");
    // Each round makes another one, more often than anybody waits for.
    let chain: Vec<String> = (0..20).map(|n| format!("{n:02}***{n:02}")).collect();
    let mut values: Vec<&str> = chain.iter().map(String::as_str).collect();
    values.push("kernel");
    let text = (0..20).fold("kernel".to_owned(), |text, n| format!("{n:02}{text}{n:02}"));
    assert_eq!(of(&values).text(&text), HIDDEN);
}

proptest! {
    #[test]
    fn no_known_secret_survives_scrubbing(
        value in any::<String>().prop_filter("long enough", |v| v.len() >= MIN_SCRUBBED),
        other in "[ -~]{6,20}",
        before in "[a-z \"{}:,<>]{0,12}",
        after in any::<String>(),
    ) {
        let secrets = [Secret::new(value.clone()), Secret::new(other)];
        let scrubber = Scrubber::new(&secrets);
        for (name, written) in writings(&value) {
            let text = scrubber.text(&format!("{before}{written}{after}"));
            for (as_what, trace) in writings(&value) {
                prop_assert!(!text.contains(&trace), "{} written, {} left: {}", name, as_what, text);
            }
        }
    }

    #[test]
    fn scrubbing_takes_any_bytes_and_never_makes_them_more(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        value in "[a-c%&;\\\\u0+]{6,8}",
    ) {
        let scrubbed = Scrubber::new(&[Secret::new(value)]).bytes(&bytes);
        prop_assert!(scrubbed.len() <= bytes.len());
    }

    #[test]
    fn a_filled_path_and_query_parse_back_to_the_value(value in any::<String>()) {
        let request = fetch("/a/{secret:s}/b?x=1&y={secret:s}&z=2", &[], "");
        if let Ok(filled) = fill_one(&request, &value) {
            let base: Url = "https://api.example:8443/".parse().unwrap();
            let url = base.join(&filled.path).unwrap();
            prop_assert_eq!(url.origin(), base.origin());
            prop_assert_eq!(url.fragment(), None);
            let segments: Vec<&str> = url.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 3);
            prop_assert_eq!((segments[0], segments[2]), ("a", "b"));
            let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            prop_assert_eq!(pairs.len(), 3);
            prop_assert_eq!(&pairs[1], &("y".to_owned(), value));
        } else {
            let harmless = value.chars().all(|c| c.is_ascii_alphanumeric());
            prop_assert!(value.is_empty() || !harmless);
        }
    }

    #[test]
    fn a_filled_query_takes_every_value(value in any::<String>().prop_filter("not empty", |v| !v.is_empty())) {
        let filled = fill_one(&fetch("/a?x=1&y={secret:s}", &[], ""), &value).unwrap();
        prop_assert!(filled.path.bytes().all(|b| b.is_ascii_graphic()));
    }

    #[test]
    fn a_filled_header_is_one_line(value in any::<String>()) {
        if let Ok(filled) = fill_one(&fetch("/", &[("x-a", "Bearer {secret:s}")], ""), &value) {
            let sent = &filled.headers[0].value;
            prop_assert_eq!(sent, &format!("Bearer {value}"));
            prop_assert!(sent.bytes().all(|b| b.is_ascii_graphic() || b == b' '));
            prop_assert_eq!(sent.split([' ', ',', ';']).count(), 2);
        }
    }

    #[test]
    fn filled_bodies_parse_back_to_the_value(value in any::<String>().prop_filter("not empty", |v| !v.is_empty())) {
        let json = fetch("/", &[JSON], r#"{"a":1,"t":"{secret:s}","b":[true]}"#);
        let body: Value = serde_json::from_slice(&fill_one(&json, &value).unwrap().body).unwrap();
        prop_assert_eq!(body, json!({"a": 1, "t": value.clone(), "b": [true]}));
        let form = fetch("/", &[FORM], "a=1&t={secret:s}&b=2");
        let body = fill_one(&form, &value).unwrap().body;
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(&body).into_owned().collect();
        prop_assert_eq!(pairs, [("a".into(), "1".into()), ("t".into(), value), ("b".into(), "2".into())]);
    }

    #[test]
    fn nothing_that_was_captured_is_left_in_the_body(
        token in "[ -~]{6,40}",
        other in "[a-z]{0,5}",
    ) {
        let body = json!({"token": token, "other": other}).to_string();
        let taken = capture(body.as_bytes(), &pointers(&[("/token", "t")])).unwrap();
        prop_assert_eq!(taken.values[0].1.reveal(), token);
        let seen: Value = serde_json::from_slice(&taken.body).unwrap();
        prop_assert_eq!(seen, json!({"token": null, "other": other}));
    }
}
