//! Asks for an artifact: hop by hop, each judged before anything is sent to it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, IF_RANGE, LOCATION, RANGE, SET_COOKIE,
};
use reqwest::{Client, Response};
use tokio::time::timeout;
use tracing::debug;
use url::{Host, Url};

use super::answer::{self, Answer};
use super::body::HttpBody;
use super::document;
use super::hop::{check_url, next_url};
use super::{HttpError, HttpOpened, HttpOptions, MAX_ERROR_BODY, Reach, place};
use crate::address::is_public;

pub(crate) const USER_AGENT: &str = concat!("otahost/", env!("CARGO_PKG_VERSION"));

/// Headers of an error answer that are kept.
const MAX_HEADERS: usize = 64;

/// Their size in bytes.
const MAX_HEADERS_SIZE: usize = 16 * 1024;

/// One artifact at one URL; can be opened again and again.
pub struct HttpSource {
    options: HttpOptions,
    client: Client,
    pinned: Arc<Pinned>,
    /// Held while a hop is asked: the pinned addresses are those of one hop.
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSource")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl HttpSource {
    /// Prepares the client; connects nowhere yet.
    ///
    /// # Errors
    /// [`HttpError::Forbidden`] for a URL that can never be fetched, [`HttpError::Broken`] for certificates that cannot be used.
    pub fn new(options: HttpOptions) -> Result<Self, HttpError> {
        check_url(&options.url)?;
        let pinned = Arc::new(Pinned::default());
        let client = build_client(&options, &options.url, &pinned)?;
        Ok(Self {
            options,
            client,
            pinned,
            turn: tokio::sync::Mutex::new(()),
        })
    }

    /// Opens the artifact at `from` bytes. `validator` is what an earlier opening said. Where the server cannot resume, or its
    /// content is another one now, the answer starts at 0: look at [`HttpOpened::offset`].
    ///
    /// # Errors
    /// [`HttpError`]; one that contradicts itself about ranges is `Broken`.
    pub async fn open(&self, from: u64, validator: Option<&str>) -> Result<HttpOpened, HttpError> {
        let mut from = from;
        let (mut response, mut url) = self.follow(from, validator).await?;
        let mut answer = answer::read(
            from,
            validator,
            response.status().as_u16(),
            response.headers(),
        );
        if let Answer::Restart(reason) = answer {
            debug!(from, reason, "starting over at byte 0");
            from = 0;
            (response, url) = self.follow(0, None).await?;
            answer = answer::read(0, None, response.status().as_u16(), response.headers());
        }
        let place = place(&url);
        match answer {
            Answer::Take {
                offset,
                end,
                total,
                validator,
            } => {
                if offset < from {
                    debug!(from, "the server starts over at byte 0");
                }
                let headers = response.headers().clone();
                let mut body = HttpBody::new(
                    response,
                    offset,
                    end,
                    total,
                    self.options.idle_timeout,
                    place.clone(),
                );
                if offset == 0 && document::may_be_error(&headers, total) {
                    self.refuse_error_document(&mut body, &headers, &place)
                        .await?;
                }
                Ok(HttpOpened {
                    offset,
                    total,
                    validator,
                    md5: answer::etag_md5(&headers),
                    body,
                })
            }
            Answer::Complete { total, validator } => Ok(HttpOpened {
                offset: total,
                total: Some(total),
                validator,
                md5: answer::etag_md5(response.headers()),
                body: HttpBody::empty(total, place),
            }),
            Answer::Wrong(problem) => Err(HttpError::Broken(format!("{place}: {problem}"))),
            Answer::Status | Answer::Restart(_) => Err(self.status_error(response, place).await),
        }
    }

    /// 200 with an error in it. The bytes that were looked at are put back.
    async fn refuse_error_document(
        &self,
        body: &mut HttpBody,
        headers: &HeaderMap,
        place: &str,
    ) -> Result<(), HttpError> {
        let kept = self.max_error_body();
        let mut start = Vec::new();
        while start.len() < kept.max(document::LOOKED_AT)
            && let Some(piece) = body.next().await?
        {
            start.extend_from_slice(&piece);
        }
        if document::is_error(&start[..start.len().min(document::LOOKED_AT)]) {
            start.truncate(kept);
            return Err(HttpError::Status {
                status: 200,
                headers: kept_headers(headers),
                body: start,
                text: format!(
                    "{place}: the server answered 200 with an error document in place of the file"
                ),
            });
        }
        body.put_back(start);
        Ok(())
    }

    fn max_error_body(&self) -> usize {
        let on_link = self.options.on_link.as_ref();
        on_link.map_or(MAX_ERROR_BODY, |link| link.max_error_body)
    }

    /// Asks, and follows redirects to the answer that is none.
    async fn follow(
        &self,
        from: u64,
        validator: Option<&str>,
    ) -> Result<(Response, Url), HttpError> {
        let mut url = self.options.url.clone();
        let on_link = self.options.on_link.as_ref();
        let mut authorization = on_link.and_then(|link| link.authorization.as_ref());
        for _ in 0..=self.options.max_redirects {
            // Gone for good: a stranger may not choose which of the link's addresses gets the credentials.
            authorization = authorization.filter(|_| url.origin() == self.options.url.origin());
            let response = self.ask(&url, from, validator, authorization).await?;
            let location = match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => response.headers().get(LOCATION),
                _ => None,
            };
            let Some(location) = location else {
                return Ok((response, url));
            };
            let location = location.to_str().map_err(|_| {
                HttpError::Broken(format!(
                    "{}: redirects to something that is no URL",
                    place(&url)
                ))
            })?;
            let next = next_url(&url, location)?;
            debug!(from = %place(&url), to = %place(&next), "redirect");
            url = next;
        }
        Err(HttpError::Forbidden(format!(
            "{}: redirects more than {} times; the last was to {}",
            place(&self.options.url),
            self.options.max_redirects,
            place(&url)
        )))
    }

    /// One hop: grant, address, request, head of the answer.
    async fn ask(
        &self,
        url: &Url,
        from: u64,
        validator: Option<&str>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, HttpError> {
        let reach = (self.options.allow)(url)
            .map_err(|reason| HttpError::Forbidden(format!("{}: {reason}", place(url))))?;
        let addresses = self.resolve(url, reach).await?;
        let elsewhere = self.elsewhere(url)?;
        let mut request = elsewhere
            .as_ref()
            .unwrap_or(&self.client)
            .get(url.clone())
            .header(ACCEPT_ENCODING, "identity");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
            if let Some(validator) = validator.and_then(answer::if_range) {
                request = request.header(IF_RANGE, validator);
            }
        }
        let _turn = self.turn.lock().await;
        self.pinned.set(url, addresses);
        let limit = self.options.connect_timeout + self.options.idle_timeout;
        match timeout(limit, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let what = if error.is_connect() {
                    "no connection"
                } else {
                    "no answer"
                };
                Err(HttpError::Broken(format!(
                    "{}: {what}: {}",
                    place(url),
                    describe(error)
                )))
            }
            Err(_) => Err(HttpError::Stalled(format!(
                "{}: no answer for {} s",
                place(url),
                limit.as_secs_f32()
            ))),
        }
    }

    /// A client of its own for a server that is trusted for other reasons than the first one.
    fn elsewhere(&self, url: &Url) -> Result<Option<Client>, HttpError> {
        let first = &self.options.url;
        let is_trusted_alike = match self.options.on_link {
            Some(_) => url.origin() == first.origin(),
            // The client of an http URL trusts no certificate at all.
            None => {
                self.options.ca_pem.is_some() || first.scheme() != "http" || url.scheme() == "http"
            }
        };
        if is_trusted_alike {
            return Ok(None);
        }
        build_client(&self.options, url, &self.pinned).map(Some)
    }

    /// The addresses the connection may go to. Resolved here, once, and pinned: a second look-up could say something else.
    async fn resolve(&self, url: &Url, reach: Reach) -> Result<Vec<SocketAddr>, HttpError> {
        let addresses: Vec<SocketAddr> = match url.host() {
            Some(Host::Ipv4(address)) => vec![SocketAddr::new(IpAddr::V4(address), 0)],
            Some(Host::Ipv6(address)) => vec![SocketAddr::new(IpAddr::V6(address), 0)],
            Some(Host::Domain(name)) => match timeout(
                self.options.connect_timeout,
                tokio::net::lookup_host((name, 0)),
            )
            .await
            {
                Ok(Ok(addresses)) => addresses.collect(),
                Ok(Err(error)) => {
                    return Err(HttpError::Broken(format!(
                        "{}: the name cannot be resolved: {error}",
                        place(url)
                    )));
                }
                Err(_) => {
                    return Err(HttpError::Broken(format!(
                        "{}: the name server does not answer",
                        place(url)
                    )));
                }
            },
            None => Vec::new(),
        };
        let found = addresses.len();
        let allowed = allowed(addresses, reach);
        if allowed.is_empty() && found > 0 {
            return Err(HttpError::Forbidden(format!(
                "{}: leads to an address of the device itself or of a private network; the operator's download grant must name this host",
                place(url)
            )));
        }
        Ok(allowed)
    }

    async fn status_error(&self, mut response: Response, place: String) -> HttpError {
        let status = response.status();
        let headers = kept_headers(response.headers());
        let mut body = Vec::new();
        // What cannot be read of an error's body is not worth another error.
        let kept = self.max_error_body();
        while let Ok(Ok(Some(piece))) = timeout(self.options.idle_timeout, response.chunk()).await {
            let room = kept - body.len();
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if body.len() == kept {
                break;
            }
        }
        HttpError::Status {
            status: status.as_u16(),
            headers,
            body,
            text: format!("{place}: the server answered {status}"),
        }
    }
}

/// The addresses the grant reaches.
fn allowed(addresses: Vec<SocketAddr>, reach: Reach) -> Vec<SocketAddr> {
    addresses
        .into_iter()
        .filter(|address| reach == Reach::Named || is_public(address.ip()))
        .collect()
}

fn build_client(
    options: &HttpOptions,
    url: &Url,
    pinned: &Arc<Pinned>,
) -> Result<Client, HttpError> {
    let builder = || {
        Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(0)
            .connect_timeout(options.connect_timeout)
            .dns_resolver(Arc::clone(pinned))
    };
    let trust = |error: reqwest::Error| {
        HttpError::Broken(format!("TLS cannot be set up: {}", describe(error)))
    };
    if let Some(link) = &options.on_link {
        if url.scheme() == "http" {
            return builder().tls_certs_only([]).build().map_err(trust);
        }
        let config = (link.tls)(url).map_err(|reason| {
            HttpError::Broken(format!("{}: TLS cannot be set up: {reason}", place(url)))
        })?;
        return builder()
            .tls_backend_preconfigured((*config).clone())
            .build()
            .map_err(trust);
    }
    if let Some(pem) = &options.ca_pem {
        let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(trust)?;
        if certificates.is_empty() {
            return Err(HttpError::Broken(
                "TLS cannot be set up: the CA file holds no certificate".into(),
            ));
        }
        return builder()
            .tls_certs_only(certificates)
            .build()
            .map_err(trust);
    }
    if url.scheme() == "http" {
        // To read the system's authorities takes longer than many a download, and a device may have none at all.
        return builder().tls_certs_only([]).build().map_err(trust);
    }
    builder().build().map_err(trust)
}

/// What of an answer's headers may be shown: no cookies, at most 64, 16 KiB.
pub(crate) fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut size = 0;
    headers
        .iter()
        .filter(|(name, _)| *name != SET_COOKIE)
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .take(MAX_HEADERS)
        .take_while(|(name, value)| {
            size += name.len() + value.len();
            size <= MAX_HEADERS_SIZE
        })
        .collect()
}

/// The innermost cause: the outer layers repeat what the caller says, and the URL with its query.
pub(crate) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Answers the client's look-ups with the addresses that were checked, and with nothing else.
#[derive(Default)]
struct Pinned(Mutex<(String, Vec<SocketAddr>)>);

impl Pinned {
    fn set(&self, url: &Url, addresses: Vec<SocketAddr>) {
        let host = url.host_str().unwrap_or_default().to_owned();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (host, addresses);
    }
}

impl Resolve for Pinned {
    fn resolve(&self, name: Name) -> Resolving {
        let pinned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = if pinned.0 == name.as_str() {
            pinned.1.clone()
        } else {
            Vec::new()
        };
        Box::pin(async move {
            if addresses.is_empty() {
                return Err("the name has no checked address".into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use reqwest::header::HeaderName;

    #[test]
    fn of_several_addresses_only_those_within_reach_are_used() {
        let addresses: Vec<SocketAddr> = [
            "1.1.1.1:0",
            "127.0.0.1:0",
            "[::ffff:10.0.0.1]:0",
            "[2606:4700::1]:0",
        ]
        .iter()
        .map(|a| a.parse().unwrap())
        .collect();
        assert_eq!(allowed(addresses.clone(), Reach::Named), addresses);
        assert_eq!(
            allowed(addresses.clone(), Reach::PublicOnly),
            [addresses[0], addresses[3]]
        );
    }

    #[test]
    fn kept_headers_are_bounded_and_hold_no_cookie() {
        let mut headers = HeaderMap::new();
        headers.insert(SET_COOKIE, HeaderValue::from_static("id=1"));
        for n in 0..200 {
            headers.insert(
                HeaderName::try_from(format!("x-{n}")).unwrap(),
                HeaderValue::from_static("v"),
            );
        }
        let kept = kept_headers(&headers);
        assert_eq!(kept.len(), MAX_HEADERS);
        assert!(kept.iter().all(|(name, _)| name != "set-cookie"));
        let mut large = HeaderMap::new();
        for n in 0..10 {
            large.insert(
                HeaderName::try_from(format!("x-{n}")).unwrap(),
                HeaderValue::from_str(&"v".repeat(5_000)).unwrap(),
            );
        }
        assert_eq!(kept_headers(&large).len(), 3);
    }
}
