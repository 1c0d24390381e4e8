//! The envelope of every answer, and the one thing every request may carry: the kit's id.

use std::hint::black_box;

use otahost_adapter::effects::respond;
use otahost_adapter::{Effect, Field, HttpResponse};
use serde::{Deserialize, Serialize};

/// The largest body that is read; the vendor's has 60 bytes.
pub const BODY_MAX: usize = 16 * 1024;

/// Why a request is refused before anything else is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 400: the body is not what was expected; why, without anything of it.
    BadRequest(&'static str),
    /// 404: another kit is meant.
    UnknownKit,
}

/// The envelope of the vendor's page, fields in its order.
#[derive(Serialize)]
struct Envelope<'a, T> {
    success: bool,
    data: T,
    message: &'a str,
    status: u16,
    timestamp: u64,
}

/// 200 with this data and a time in milliseconds since the epoch.
pub fn accept(request: &str, data: &impl Serialize, message: &str, timestamp: u64) -> Effect {
    envelope(request, true, data, message, 200, timestamp)
}

/// An error with this HTTP status, which the body repeats.
pub fn refuse(request: &str, status: u16, message: &str, timestamp: u64) -> Effect {
    envelope(request, false, (), message, status, timestamp)
}

fn envelope(
    request: &str,
    success: bool,
    data: impl Serialize,
    message: &str,
    status: u16,
    timestamp: u64,
) -> Effect {
    let body = Envelope {
        success,
        data,
        message,
        status,
        timestamp,
    };
    respond(request, HttpResponse::with_json(status, &body))
}

/// Checks the kit's id that the body must carry.
///
/// # Errors
/// Why the request is refused.
pub fn check_body(body: &[u8], kit_id: &str) -> Result<(), Refusal> {
    match read_kit_id(body)? {
        Some(given) => check(&given, kit_id),
        None => Err(Refusal::BadRequest("it has no kitId")),
    }
}

/// Checks the kit's id where the body or the query carries one.
///
/// # Errors
/// Why the request is refused; that it carries none only where one is `required`.
pub fn check_any(
    body: &[u8],
    query: &[Field],
    kit_id: &str,
    required: bool,
) -> Result<(), Refusal> {
    let mut given: Vec<String> = query
        .iter()
        .filter(|field| field.name == "kitId")
        .map(|field| field.value.clone())
        .collect();
    if !body.iter().all(u8::is_ascii_whitespace) {
        given.extend(read_kit_id(body)?);
    }
    if required && given.is_empty() {
        return Err(Refusal::BadRequest("it has no kitId"));
    }
    given.iter().try_for_each(|given| check(given, kit_id))
}

fn check(given: &str, kit_id: &str) -> Result<(), Refusal> {
    if same(given.as_bytes(), kit_id.as_bytes()) {
        Ok(())
    } else {
        Err(Refusal::UnknownKit)
    }
}

/// What is read of a body; other fields are allowed, so that the centre can add some.
#[derive(Deserialize)]
struct Body {
    #[serde(rename = "kitId", default)]
    kit_id: Option<String>,
}

fn read_kit_id(body: &[u8]) -> Result<Option<String>, Refusal> {
    if body.len() > BODY_MAX {
        return Err(Refusal::BadRequest("it is too large"));
    }
    // serde would take an array for the object's fields in order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::BadRequest("it is no JSON object"));
    }
    match serde_json::from_slice::<Body>(body) {
        Ok(body) => Ok(body.kit_id),
        Err(_) => Err(Refusal::BadRequest("it is no JSON, or its kitId no text")),
    }
}

/// Compares every byte whatever the first ones are, so that the time says nothing about how much of an id was guessed. It depends on
/// the length of the secret side alone.
fn same(given: &[u8], secret: &[u8]) -> bool {
    let mut differs = u8::from(given.len() != secret.len());
    for (at, byte) in secret.iter().enumerate() {
        differs |= byte ^ black_box(given.get(at).copied().unwrap_or(!byte));
    }
    black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIT: &str = "d8110f9d-d5ce-4451-ab12-d5881d-dfe4d6";

    #[test]
    fn k04_the_pages_kit_id_which_is_no_uuid_is_taken_as_it_is() {
        let body = include_bytes!("../fixtures/page_update_device_request.json");
        assert_eq!(check_body(body, KIT), Ok(()));
    }

    #[test]
    fn k03_an_id_that_differs_anywhere_is_another_kits() {
        for at in 0..KIT.len() {
            let mut other = KIT.as_bytes().to_vec();
            other[at] ^= 0x01;
            assert!(!same(&other, KIT.as_bytes()), "{at}");
        }
        for other in [
            "",
            "d",
            &KIT[..36],
            &format!("{KIT} "),
            &format!("{KIT}\0"),
            &KIT.to_uppercase(),
            &KIT.repeat(2),
        ] {
            assert!(!same(other.as_bytes(), KIT.as_bytes()), "{other}");
        }
        assert!(same(KIT.as_bytes(), KIT.as_bytes()));
    }

    #[test]
    fn k06_what_is_no_object_with_a_text_as_kit_id_is_a_bad_request() {
        let large = format!(r#"{{"kitId":"{KIT}","x":"{}"}}"#, "x".repeat(1024 * 1024));
        let array = format!(r#"["{KIT}"]"#);
        let twice = format!(r#"{{"kitId":"{KIT}","kitId":"{KIT}"}}"#);
        let cut = format!(r#"{{"kitId":"{KIT}""#);
        let more = format!(r#"{{"kitId":"{KIT}"}} x"#);
        let deep = format!(r#"{{"kitId":"{KIT}","x":{}}}"#, "[".repeat(10_000));
        for body in [
            "",
            "kitId",
            "{}",
            "null",
            "7",
            "[]",
            r#"{"kitid":"x"}"#,
            r#"{"kitId":7}"#,
            r#"{"kitId":null}"#,
            r#"{"kitId":["x"]}"#,
            r#"{"kitId":{}}"#,
            &array,
            &twice,
            &cut,
            &more,
            &deep,
            &large,
        ] {
            let shown: String = body.chars().take(60).collect();
            assert!(
                matches!(
                    check_body(body.as_bytes(), KIT),
                    Err(Refusal::BadRequest(_))
                ),
                "{shown}"
            );
        }
        assert!(matches!(
            check_body(b"{\"kitId\":\"\xff\"}", KIT),
            Err(Refusal::BadRequest(_))
        ));
    }

    #[test]
    fn a_body_may_say_more_than_the_kit_id() {
        let body = format!("\r\n {{ \"requestedBy\": [1, {{}}], \"kitId\": \"{KIT}\" }}\n");
        assert_eq!(check_body(body.as_bytes(), KIT), Ok(()));
    }

    #[test]
    fn an_id_that_is_not_needed_is_checked_where_it_is_given() {
        let query = |value: &str| {
            vec![Field {
                name: "kitId".into(),
                value: value.into(),
            }]
        };
        let body = format!(r#"{{"kitId":"{KIT}"}}"#);
        assert_eq!(check_any(b" \n", &[], KIT, false), Ok(()));
        assert_eq!(check_any(b"{}", &[], KIT, false), Ok(()));
        assert_eq!(check_any(b"", &query(KIT), KIT, true), Ok(()));
        assert_eq!(check_any(body.as_bytes(), &[], KIT, true), Ok(()));
        assert!(matches!(
            check_any(b"", &[], KIT, true),
            Err(Refusal::BadRequest(_))
        ));
        assert!(matches!(
            check_any(b"x", &[], KIT, false),
            Err(Refusal::BadRequest(_))
        ));
        assert_eq!(
            check_any(b"", &query("other"), KIT, false),
            Err(Refusal::UnknownKit)
        );
        assert_eq!(
            check_any(body.as_bytes(), &query("other"), KIT, false),
            Err(Refusal::UnknownKit)
        );
    }
}
