//! One request, from its head to its answer: the checks in the order of what they cost, and nothing of the body before the caller is
//! known and the route is served.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::header::{ALLOW, EXPECT, HeaderValue, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::answers::{close, from_adapter, last, own, retry_after};
use super::callers::Caller;
use super::exchange::{Outcome, exchange};
use super::headers::inbound;
use super::routes::{Found, decode_path, decode_query};
use super::shared::{Seat, Shared};
use crate::Inbound;

/// Longest request target, in bytes.
const MAX_TARGET: usize = 2_048;

/// So much of a body that is not wanted is read all the same, so that a caller who is still sending finds its answer and not a
/// reset connection.
const DISCARD: u64 = 2 * 1024 * 1024;
const DISCARD_WITHIN: Duration = Duration::from_secs(5);

/// A request that may be read.
struct Admitted {
    request: Inbound,
    max_body: usize,
}

/// Why there is no body.
enum NoBody {
    TooLarge,
    Broken,
}

/// Answers one request.
pub(super) async fn handle(
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let mut response = match admit(&shared, &seat, &head) {
        Ok(admitted) => serve(&shared, &head, &mut body, admitted).await,
        Err(response) => {
            discard(&head, &mut body).await;
            *response
        }
    };
    // With all places taken, the next caller needs this one more than its holder does.
    if shared.connections.available_permits() == 0 {
        close(&mut response);
    }
    debug!(
        peer = %seat.address,
        method = %head.method,
        path = head.uri.path(),
        status = response.status().as_u16(),
        "request"
    );
    response
}

/// All that can be said from the head alone.
fn admit(shared: &Shared, seat: &Seat, head: &Parts) -> Result<Admitted, Box<Response<Body>>> {
    let refuse = |status, message: &str| Err(Box::new(own(status, message)));
    let too_many = |wait| {
        let mut response = own(
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests from this address",
        );
        retry_after(&mut response, wait);
        Box::new(response)
    };
    shared
        .peers()
        .request(seat.peer, shared.now())
        .map_err(too_many)?;

    let target = head.uri.path_and_query().map_or(0, |t| t.as_str().len());
    if target > MAX_TARGET {
        return refuse(StatusCode::URI_TOO_LONG, "the request target is too long");
    }

    let tried = shared.gate.is_tried(&head.headers);
    if tried {
        shared
            .peers()
            .attempt(seat.peer, shared.now())
            .map_err(too_many)?;
    }
    let principal = match shared.gate.check(&head.headers) {
        Caller::Known(principal) => principal,
        Caller::Silent | Caller::Wrong => {
            let mut response = own(StatusCode::UNAUTHORIZED, "authentication is required");
            if let Some(challenge) = shared.gate.challenge() {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            return Err(Box::new(response));
        }
    };
    if tried {
        shared.peers().authenticated(seat.peer);
    }

    let Some(path) = decode_path(head.uri.path()) else {
        return refuse(StatusCode::BAD_REQUEST, "the path is not encoded correctly");
    };
    let max_body = match shared.routes().find(head.method.as_str(), &path) {
        Found::Route(max_body) => max_body,
        Found::NotYet => return refuse(StatusCode::SERVICE_UNAVAILABLE, "not ready yet"),
        Found::NoPath => return refuse(StatusCode::NOT_FOUND, "nothing is served at this path"),
        Found::NoMethod(allowed) => {
            let mut response = own(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path is not served with this method",
            );
            let allowed = HeaderValue::try_from(allowed).expect("methods are upper-case letters");
            response.headers_mut().insert(ALLOW, allowed);
            return Err(Box::new(response));
        }
    };
    let Some(query) = decode_query(head.uri.query().unwrap_or_default()) else {
        return refuse(StatusCode::BAD_REQUEST, "too many query parameters");
    };
    Ok(Admitted {
        request: Inbound {
            method: head.method.as_str().into(),
            path,
            query,
            headers: inbound(&head.headers),
            body: Vec::new(),
            principal,
            answer_within: shared.options.answer_within,
        },
        max_body,
    })
}

/// Reads the body, hands the request over and makes an answer of what comes back.
async fn serve(
    shared: &Arc<Shared>,
    head: &Parts,
    body: &mut Incoming,
    admitted: Admitted,
) -> Response<Body> {
    let Admitted {
        mut request,
        max_body,
    } = admitted;
    let within = shared.options.limits.body_within;
    request.body = match timeout(within, read(body, max_body)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(NoBody::TooLarge)) => {
            discard(head, body).await;
            return own(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("the body may have {max_body} bytes"),
            );
        }
        Ok(Err(NoBody::Broken)) => return last(StatusCode::BAD_REQUEST, "the body is broken"),
        Err(_) => return last(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
    };
    // Only now, so that slow senders cannot take the places of those who are done.
    let Ok(permit) = Arc::clone(&shared.parallel).try_acquire_owned() else {
        return own(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once");
    };
    let (method, path) = (request.method.clone(), request.path.clone());
    match exchange(shared, permit, request).await {
        Outcome::Answered(answer) => from_adapter(answer).unwrap_or_else(|problem| {
            warn!(
                method,
                path, "the adapter's answer cannot be sent: {problem}"
            );
            own(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the answer to this request cannot be sent",
            )
        }),
        Outcome::Late => own(StatusCode::GATEWAY_TIMEOUT, "no answer in time"),
        Outcome::Full => own(StatusCode::SERVICE_UNAVAILABLE, "too busy"),
        Outcome::Ending => last(StatusCode::SERVICE_UNAVAILABLE, "this service is stopping"),
    }
}

/// The whole body, if it has at most `limit` bytes.
async fn read(body: &mut Incoming, limit: usize) -> Result<Vec<u8>, NoBody> {
    if body.size_hint().lower() > limit as u64 {
        return Err(NoBody::TooLarge);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        let frame = frame.map_err(|_| NoBody::Broken)?;
        // Trailers say nothing we know.
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if piece.len() > limit - bytes.len() {
            return Err(NoBody::TooLarge);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Reads what is not wanted, within bounds. A caller that waits for "100 Continue" sends nothing: the answer is its no.
async fn discard(head: &Parts, body: &mut Incoming) {
    if head.headers.contains_key(EXPECT) {
        return;
    }
    let reading = async {
        let mut read = 0;
        while read < DISCARD {
            match poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(1, |piece| piece.len() as u64),
                Some(Err(_)) | None => break,
            }
        }
    };
    let _ = timeout(DISCARD_WITHIN, reading).await;
}
