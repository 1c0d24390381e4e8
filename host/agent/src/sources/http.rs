//! Artifacts over HTTP: an absolute URL, or a path of an API that a link leads to.

use bytes::Bytes;
use otahost_core::grants::url_within;
use otahost_core::model::ArtifactSource;
use otahost_links::http::{HttpBody, HttpError, HttpOptions, HttpSource};
use otahost_links::http_client::HttpClient;
use otahost_transfer::{
    Body, BoxFuture, Digest, Opened, SIDECAR_MAX, Source, SourceError, Validator,
};
use tokio::time::timeout;

use super::{SIDECAR, text};

/// A URL within the grants, fetched without credentials.
#[derive(Debug)]
pub(super) struct Http {
    source: HttpSource,
    options: HttpOptions,
    downloads: Vec<String>,
}

impl Http {
    pub(super) fn new(options: HttpOptions, downloads: Vec<String>) -> Result<Self, SourceError> {
        Ok(Http {
            source: HttpSource::new(options.clone()).map_err(from_http)?,
            options,
            downloads,
        })
    }
}

impl Source for Http {
    fn open<'a>(
        &'a self,
        from: u64,
        validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            let opened = self
                .source
                .open(from, validator.map(|v| v.0.as_str()))
                .await
                .map_err(from_http)?;
            Ok(Opened {
                offset: opened.offset,
                total: opened.total,
                validator: opened.validator.map(Validator),
                published: Vec::new(),
                guessed: false,
                body: Box::new(HttpPieces(opened.body)),
            })
        })
    }

    fn sidecar(&self) -> BoxFuture<'_, Result<Option<String>, SourceError>> {
        Box::pin(async move {
            let mut url = self.options.url.clone();
            // The query stays: it may be what opens the door.
            url.set_path(&format!("{}{SIDECAR}", url.path()));
            let shown = ArtifactSource::Url(url.to_string());
            if !self.downloads.iter().any(|p| url_within(p, url.as_str())) {
                return Err(SourceError::Forbidden(format!(
                    "the file has no signed header, and {shown} is outside what grants.download allows"
                )));
            }
            let mut options = self.options.clone();
            options.url = url;
            let source = HttpSource::new(options).map_err(from_http)?;
            let mut body = match source.open(0, None).await {
                // Object storage that may not be listed answers 403 for what is not there.
                Err(HttpError::Status {
                    status: 403 | 404, ..
                }) => return Ok(None),
                opened => opened.map_err(from_http)?.body,
            };
            let mut bytes = Vec::new();
            let whole = async {
                while bytes.len() <= SIDECAR_MAX
                    && let Some(piece) = body.next().await.map_err(from_http)?
                {
                    let room = SIDECAR_MAX + 1 - bytes.len();
                    bytes.extend_from_slice(&piece[..piece.len().min(room)]);
                }
                Ok(())
            };
            // So little comes in that time, or it is being dripped.
            timeout(self.options.idle_timeout, whole)
                .await
                .unwrap_or_else(|_| {
                    Err(SourceError::Stalled(format!(
                        "{shown}: it comes too slowly"
                    )))
                })?;
            Ok(Some(text(&bytes)))
        })
    }
}

/// A path of an API: asked with the link's credentials, which stay behind when it redirects.
#[derive(Debug)]
pub(super) struct OnApi {
    pub(super) link: HttpClient,
    pub(super) path: String,
}

impl Source for OnApi {
    fn open<'a>(
        &'a self,
        from: u64,
        validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            let opened = self
                .link
                .open(&self.path, from, validator.map(|v| v.0.as_str()))
                .await
                .map_err(from_http)?;
            Ok(Opened {
                offset: opened.offset,
                total: opened.total,
                validator: opened.validator.map(Validator),
                published: opened.md5.map(Digest::Md5).into_iter().collect(),
                guessed: true,
                body: Box::new(HttpPieces(opened.body)),
            })
        })
    }
}

#[derive(Debug)]
struct HttpPieces(HttpBody);

impl Body for HttpPieces {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move { self.0.next().await.map_err(from_http) })
    }
}

fn from_http(error: HttpError) -> SourceError {
    match error {
        HttpError::Status {
            status,
            headers,
            body,
            text,
        } => SourceError::Status {
            status,
            headers,
            body,
            text,
        },
        HttpError::Broken(text) => SourceError::Broken(text),
        HttpError::Stalled(text) => SourceError::Stalled(text),
        HttpError::Forbidden(text) => SourceError::Forbidden(text),
    }
}
