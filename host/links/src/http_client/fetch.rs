//! One request and its answer, redirects within the API's own origin included.

use std::time::Duration;

use otahost_core::model::Fetch;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, LOCATION};
use reqwest::{Method, Response};
use tokio::time::timeout;
use url::Url;

use super::Shared;
use super::answer::{self, Answer, Outcome};
use super::request::{self, Ready};
use crate::http::describe;
use crate::http::hop::next_url;

/// The longest time-out of the contract.
const LONGEST: Duration = Duration::from_secs(120);

/// Sends a fetch. Whoever calls has the right to; the time-out begins here, not when the fetch began to wait.
pub(super) async fn fetch(shared: &Shared, fetch: &Fetch) -> Outcome {
    let options = &shared.options;
    let secrets = shared.vault.usable();
    let ready = match request::ready(&options.url, &options.auth, &secrets, fetch) {
        Ok(ready) => ready,
        // In words that begin as agreed, where a secret is missing.
        Err(why) => return Outcome::failed(&shared.vault, &why),
    };
    let limit = Duration::from_millis(fetch.timeout).min(LONGEST);
    let answer = match timeout(limit, exchange(shared, ready, fetch.redirects)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", limit.as_secs_f32())),
    };
    match answer {
        Ok(answer) => answer::judge(&shared.vault, &fetch.captures, answer),
        Err(why) => {
            let shown = request::shown(&options.url, fetch);
            Outcome::failed(&shared.vault, &format!("{shown}: {why}"))
        }
    }
}

/// Sends, and follows redirects. One that may not be followed is the answer.
async fn exchange(shared: &Shared, ready: Ready, redirects: u8) -> Result<Answer, String> {
    let mut ready = ready;
    let mut left = redirects;
    loop {
        let response = send(shared, &ready).await?;
        let next = if left > 0 {
            redirect(&shared.options.url, &ready, &response)
        } else {
            None
        };
        let Some((url, method)) = next else {
            return answer::read(response, shared.options.idle_timeout).await;
        };
        left -= 1;
        ready.url = url;
        if method != ready.method {
            ready.method = method;
            ready.body = Vec::new();
            without_content(&mut ready.headers);
        }
    }
}

async fn send(shared: &Shared, ready: &Ready) -> Result<Response, String> {
    let request = shared
        .client
        .request(ready.method.clone(), ready.url.clone())
        .headers(ready.headers.clone())
        .header(ACCEPT_ENCODING, "identity");
    let bodiless = matches!(ready.method, Method::GET | Method::HEAD) && ready.body.is_empty();
    let request = if bodiless {
        request
    } else {
        request.body(ready.body.clone())
    };
    request.send().await.map_err(|error| {
        let what = if error.is_connect() {
            "no connection"
        } else {
            "no answer"
        };
        format!("{what}: {}", describe(error))
    })
}

/// Where a redirect leads, and with which method (RFC 9110 §15.4): 307 and 308 repeat the request; 303 asks with GET, or HEAD where
/// that was asked; 301 and 302 are followed for GET and HEAD only, since for others nobody agrees on what they mean. Only within
/// the API's origin, and never with secrets in the request, which were granted for its path alone.
fn redirect(base: &Url, ready: &Ready, response: &Response) -> Option<(Url, Method)> {
    if ready.holds_secrets {
        return None;
    }
    let safe = matches!(ready.method, Method::GET | Method::HEAD);
    let method = match response.status().as_u16() {
        307 | 308 => ready.method.clone(),
        301 | 302 if safe => ready.method.clone(),
        303 if safe => ready.method.clone(),
        303 => Method::GET,
        _ => return None,
    };
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let url = next_url(&ready.url, location).ok()?;
    (url.origin() == base.origin()).then_some((url, method))
}

/// What describes a body that is not sent any more.
fn without_content(headers: &mut HeaderMap) {
    let names: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("content-"))
        .cloned()
        .collect();
    for name in names {
        headers.remove(name);
    }
}
