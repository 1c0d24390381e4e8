//! Files of an API: asked for with the link's credentials, which stay behind when it redirects to where the bytes lie.

use std::sync::Arc;

use otahost_core::grants::url_within;
use otahost_core::model::Field;
use otahost_core::secret::Scrubber;
use url::Url;

use super::gate::Needs;
use super::{Auth, HttpClient, request};
use crate::http::{HttpError, HttpOpened, HttpOptions, HttpSource, MAX_ERROR_BODY, OnLink, Reach};

/// Read of an error's body before it is scrubbed and cut, in bytes: a secret is not to be cut in two first.
const READ_OF_ERROR: usize = MAX_ERROR_BODY + 32 * 1024;

impl HttpClient {
    /// Opens the file at `path` (and query) behind the base, from byte `from` on. `validator` is what an earlier opening said. It is
    /// always the API that is asked first, so that a signed address it redirects to is a fresh one.
    ///
    /// At most 5 redirects (301, 302, 303, 307, 308), each by GET, never from https to http. `Authorization` goes to the first
    /// hops on the API's own origin and is gone for good when one leads elsewhere. A redirect may lead to the API's host, to what
    /// [`super::HttpClientOptions::redirects`] names, and to public addresses.
    ///
    /// Waits while a fetch replaces the bearer token.
    ///
    /// # Errors
    /// [`HttpError`], scrubbed. `Broken` with a text that begins `no-secret:` where the bearer token is not known.
    pub async fn open(
        &self,
        path: &str,
        from: u64,
        validator: Option<&str>,
    ) -> Result<HttpOpened, HttpError> {
        let opened = self.ask(path, from, validator).await;
        opened.map_err(|error| scrubbed(&self.0.vault.scrubber(&[]), error))
    }

    async fn ask(
        &self,
        path: &str,
        from: u64,
        validator: Option<&str>,
    ) -> Result<HttpOpened, HttpError> {
        let shared = &self.0;
        let base = &shared.options.url;
        let url = request::address(base, path).map_err(HttpError::Forbidden)?;
        let mut needs = Needs::default();
        if let Auth::Bearer(name) = &shared.options.auth {
            needs.reads.insert(name.clone());
        }
        let turn = shared.gate.enter(needs);
        let turn =
            turn.ok_or_else(|| HttpError::Broken("too many requests wait on this link".into()))?;
        let pass = turn
            .await
            .map_err(|_| HttpError::Broken("the link has ended".into()))?;
        let authorization = request::authorization(&shared.options.auth, &shared.vault.usable())
            .map_err(HttpError::Broken)?;
        drop(pass);
        let (host, prefixes) = (
            base.host_str().map(str::to_owned),
            shared.options.redirects.clone(),
        );
        let mut options = HttpOptions::new(
            url,
            Arc::new(move |url| {
                let named = url.host_str() == host.as_deref() || is_named(&prefixes, url);
                Ok(if named {
                    Reach::Named
                } else {
                    Reach::PublicOnly
                })
            }),
        );
        options.connect_timeout = shared.options.connect_timeout;
        options.idle_timeout = shared.options.idle_timeout;
        options.on_link = Some(OnLink {
            authorization,
            tls: Arc::clone(&shared.tls),
            max_error_body: READ_OF_ERROR,
        });
        HttpSource::new(options)?.open(from, validator).await
    }
}

/// Whether the operator named this place.
pub(super) fn is_named(prefixes: &[String], url: &Url) -> bool {
    prefixes
        .iter()
        .any(|prefix| url_within(prefix, url.as_str()))
}

fn scrubbed(scrubber: &Scrubber, error: HttpError) -> HttpError {
    match error {
        HttpError::Status {
            status,
            headers,
            body,
            text,
        } => {
            let mut fields: Vec<Field> = headers
                .into_iter()
                .map(|(name, value)| Field { name, value })
                .collect();
            scrubber.fields(&mut fields);
            let mut body = scrubber.bytes(&body);
            body.truncate(MAX_ERROR_BODY);
            HttpError::Status {
                status,
                headers: fields
                    .into_iter()
                    .map(|field| (field.name, field.value))
                    .collect(),
                body,
                text: scrubber.text(&text),
            }
        }
        HttpError::Broken(text) => HttpError::Broken(scrubber.text(&text)),
        HttpError::Stalled(text) => HttpError::Stalled(scrubber.text(&text)),
        HttpError::Forbidden(text) => HttpError::Forbidden(scrubber.text(&text)),
    }
}
