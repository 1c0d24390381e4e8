//! What callers are told: by the host itself, and by an adapter, whose answer is checked before it leaves.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use otahost_core::model::HttpResponse;
use serde_json::json;

use super::MAX_BODY;
use super::headers::is_hop_by_hop;

/// Headers of an adapter's answer, and their bytes, at most (contract, `http-response`).
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: usize = 16 * 1024;

/// When to try again where nobody knows better.
const LATER: Duration = Duration::from_secs(5);

/// The host's own answer.
pub(super) fn own(status: StatusCode, message: &str) -> Response<Body> {
    let body = json!({"status": status.as_u16(), "message": message}).to_string();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if status == StatusCode::SERVICE_UNAVAILABLE {
        retry_after(&mut response, LATER);
    }
    response
}

/// The host's own answer to a request whose rest is not read: the connection ends with it.
pub(super) fn last(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = own(status, message);
    close(&mut response);
    response
}

/// Says that the connection ends with this answer.
pub(super) fn close(response: &mut Response<Body>) {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// Says when to come again, in whole seconds, at least one.
pub(super) fn retry_after(response: &mut Response<Body>, wait: Duration) {
    let seconds = wait
        .as_secs()
        .saturating_add(u64::from(wait.subsec_nanos() > 0))
        .max(1);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
}

/// An adapter's answer, or what HTTP does not allow in it. What is ours to say (hop-by-hop, length, date) is taken out.
pub(super) fn from_adapter(answer: HttpResponse) -> Result<Response<Body>, String> {
    if !(200..=599).contains(&answer.status) {
        return Err(format!("status {} is not from 200 to 599", answer.status));
    }
    let status = StatusCode::from_u16(answer.status).expect("200 to 599 are legal");
    if answer.body.len() > MAX_BODY {
        return Err(format!(
            "the body has {} bytes; the limit is {MAX_BODY} bytes",
            answer.body.len()
        ));
    }
    let bytes = |field: &otahost_core::model::Field| field.name.len() + field.value.len();
    if answer.headers.len() > MAX_HEADERS
        || answer.headers.iter().map(bytes).sum::<usize>() > MAX_HEADER_BYTES
    {
        return Err(format!(
            "more than {MAX_HEADERS} headers, or {MAX_HEADER_BYTES} bytes of them"
        ));
    }
    let mut headers = HeaderMap::new();
    for (index, field) in answer.headers.iter().enumerate() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| format!("header {index} has a name that HTTP does not allow"))?;
        let value = HeaderValue::from_bytes(field.value.as_bytes())
            .map_err(|_| format!("header {name} has a value that HTTP does not allow"))?;
        if !is_hop_by_hop(name.as_str()) && name != header::CONTENT_LENGTH && name != header::DATE {
            headers.append(name, value);
        }
    }
    let bodiless = matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    );
    let mut response = Response::new(if bodiless {
        Body::empty()
    } else {
        Body::from(answer.body)
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use axum::body::HttpBody;
    use otahost_core::model::Field;

    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: usize) -> HttpResponse {
        HttpResponse {
            status,
            headers: headers
                .iter()
                .map(|(name, value)| Field {
                    name: (*name).into(),
                    value: (*value).into(),
                })
                .collect(),
            body: vec![b'x'; body],
        }
    }

    #[test]
    fn an_answer_that_http_does_not_allow_is_refused() {
        let many: Vec<(&str, &str)> = vec![("x-many", "1"); 65];
        let long = "v".repeat(16 * 1024);
        for bad in [
            answer(0, &[], 0),
            answer(101, &[], 0),
            answer(199, &[], 0),
            answer(600, &[], 0),
            answer(200, &[("x y", "1")], 0),
            answer(200, &[("", "1")], 0),
            answer(200, &[("x:", "1")], 0),
            answer(200, &[("x", "1\r\nset-cookie: 2")], 0),
            answer(200, &[("x", "\0")], 0),
            answer(200, &many, 0),
            answer(200, &[("x", &long)], 0),
            answer(200, &[], MAX_BODY + 1),
        ] {
            let status = bad.status;
            assert!(from_adapter(bad).is_err(), "{status}");
        }
    }

    #[test]
    fn what_is_the_hosts_to_say_is_taken_out_and_the_rest_stays() {
        let response = from_adapter(answer(
            201,
            &[
                ("Content-Type", "application/json"),
                ("content-length", "7"),
                ("Transfer-Encoding", "chunked"),
                ("connection", "keep-alive"),
                ("upgrade", "h2c"),
                ("date", "yesterday"),
                ("x-many", "1"),
                ("x-many", "2"),
            ],
            MAX_BODY,
        ))
        .unwrap();
        let names: Vec<&str> = response.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(response.status(), 201);
        assert_eq!(names, ["content-type", "x-many"]);
        assert_eq!(response.headers().get_all("x-many").iter().count(), 2);
        assert_eq!(response.body().size_hint().exact(), Some(MAX_BODY as u64));
    }

    #[test]
    fn a_status_without_a_body_gets_none() {
        for status in [204, 205, 304] {
            let response = from_adapter(answer(status, &[], 5)).unwrap();
            assert_eq!(response.body().size_hint().exact(), Some(0), "{status}");
        }
    }

    #[test]
    fn times_to_come_again_are_rounded_up() {
        for (millis, seconds) in [
            (0, "1"),
            (1, "1"),
            (1_000, "1"),
            (1_001, "2"),
            (59_500, "60"),
        ] {
            let mut response = own(StatusCode::TOO_MANY_REQUESTS, "");
            retry_after(&mut response, Duration::from_millis(millis));
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds);
        }
    }
}
