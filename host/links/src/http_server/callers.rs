//! Who calls: HTTP Basic (RFC 7617), compared so that neither time nor answer tells how close a guess was.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key, Tag, sign};
use aws_lc_rs::rand::SystemRandom;
use axum::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Callers;

/// Clients differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Lets callers in, or not.
pub(super) enum Gate {
    Open,
    Basic(Box<Basic>),
}

/// The pairs, as digests under a key of this process: whatever their length, two of them are compared byte by byte to the end.
pub(super) struct Basic {
    key: Key,
    users: Vec<(String, Tag)>,
    challenge: HeaderValue,
}

/// What is known of a caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// May call; the name is empty where anybody may.
    Known(String),
    /// Said nothing of who it is.
    Silent,
    /// Said something else than a pair that fits.
    Wrong,
}

impl Gate {
    pub(super) fn new(callers: &Callers, realm: &str) -> Self {
        let Callers::Basic(pairs) = callers else {
            return Gate::Open;
        };
        let key = Key::generate(HMAC_SHA256, &SystemRandom::new())
            .expect("the system's random numbers do not fail");
        // A user name holds no colon, so the joined text is one pair only.
        let users = pairs
            .iter()
            .map(|(name, password)| {
                let mut context = Context::with_key(&key);
                context.update(name.as_bytes());
                context.update(b":");
                context.update(password.reveal().as_bytes());
                (name.clone(), context.sign())
            })
            .collect();
        let challenge =
            HeaderValue::try_from(format!("Basic realm=\"{realm}\", charset=\"UTF-8\""))
                .expect("the realm is printable ASCII");
        Gate::Basic(Box::new(Basic {
            key,
            users,
            challenge,
        }))
    }

    /// The challenge of a 401; none where anybody may call.
    pub(super) fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Gate::Open => None,
            Gate::Basic(basic) => Some(basic.challenge.clone()),
        }
    }

    /// True when a request with these headers is a try to authenticate, which may fail.
    pub(super) fn is_tried(&self, headers: &HeaderMap) -> bool {
        matches!(self, Gate::Basic(_)) && headers.contains_key(AUTHORIZATION)
    }

    pub(super) fn check(&self, headers: &HeaderMap) -> Caller {
        let Gate::Basic(basic) = self else {
            return Caller::Known(String::new());
        };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        match (values.next(), values.next()) {
            (None, _) => Caller::Silent,
            (Some(value), None) => basic.check(value),
            _ => Caller::Wrong,
        }
    }
}

impl Basic {
    /// The same work for every pair, known or not.
    fn check(&self, value: &HeaderValue) -> Caller {
        let Some(pair) = decode(value.as_bytes()) else {
            return Caller::Wrong;
        };
        let tag = sign(&self.key, &pair);
        let mut found = None;
        for (index, (_, expected)) in self.users.iter().enumerate() {
            if verify_slices_are_equal(tag.as_ref(), expected.as_ref()).is_ok() {
                found = Some(index);
            }
        }
        match found {
            Some(index) => Caller::Known(self.users[index].0.clone()),
            None => Caller::Wrong,
        }
    }
}

/// `Basic`, in any case, one or more spaces, base64: RFC 7617 §2, RFC 9110 §11.4.
fn decode(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_at_checked(5)?;
    if !scheme.eq_ignore_ascii_case(b"basic") || !rest.starts_with(b" ") {
        return None;
    }
    BASE64.decode(rest.trim_ascii()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_core::secret::Secret;

    use super::*;

    fn gate() -> Gate {
        let pair = |name: &str, password: &str| (name.to_owned(), Secret::new(password));
        Gate::new(
            &Callers::Basic(vec![
                pair("centre", "geheim"),
                pair("zürich", "pass:wörd"),
                pair("centre", "next year's"),
            ]),
            "kit",
        )
    }

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn basic(pair: &str) -> Vec<u8> {
        format!("Basic {}", BASE64.encode(pair)).into_bytes()
    }

    #[test]
    fn only_a_whole_pair_lets_in() {
        let gate = gate();
        let check = |pair: &str| gate.check(&headers(&[&basic(pair)]));
        assert_eq!(check("centre:geheim"), Caller::Known("centre".into()));
        assert_eq!(check("centre:next year's"), Caller::Known("centre".into()));
        assert_eq!(check("zürich:pass:wörd"), Caller::Known("zürich".into()));
        for wrong in [
            "centre:geheim ",
            "centre:geheiM",
            "Centre:geheim",
            "centre:",
            ":geheim",
            "centre",
            "centregeheim",
            ":",
            "",
            "centre:pass:wörd",
            "centre:geheim\0",
        ] {
            assert_eq!(check(wrong), Caller::Wrong, "{wrong:?}");
        }
    }

    #[test]
    fn the_scheme_may_be_written_in_any_case_and_padding_may_be_missing() {
        let gate = gate();
        for value in [
            "basic Y2VudHJlOmdlaGVpbQ==",
            "BASIC Y2VudHJlOmdlaGVpbQ==",
            "Basic   Y2VudHJlOmdlaGVpbQ==",
            "Basic Y2VudHJlOmdlaGVpbQ",
        ] {
            assert_eq!(
                gate.check(&headers(&[value.as_bytes()])),
                Caller::Known("centre".into()),
                "{value}"
            );
        }
        for value in [
            &b"Bearer Y2VudHJlOmdlaGVpbQ=="[..],
            b"BasicY2VudHJlOmdlaGVpbQ==",
            b"Basic",
            b"Basic ",
            b"Bas",
            b"Basic Y2VudHJl!mdlaGVpbQ==",
            b"Basic \xff\xfe",
        ] {
            assert_eq!(gate.check(&headers(&[value])), Caller::Wrong, "{value:?}");
        }
    }

    #[test]
    fn two_authorizations_are_none() {
        let right = basic("centre:geheim");
        assert_eq!(gate().check(&headers(&[&right, &right])), Caller::Wrong);
        assert_eq!(gate().check(&headers(&[])), Caller::Silent);
    }

    #[test]
    fn an_open_gate_asks_nobody() {
        let gate = Gate::new(&Callers::Anonymous, "kit");
        let tried = headers(&[&basic("a:b")]);
        assert_eq!(gate.check(&tried), Caller::Known(String::new()));
        assert!(!gate.is_tried(&tried) && gate.challenge().is_none());
    }
}
