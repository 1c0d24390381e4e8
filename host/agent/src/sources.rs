//! Where artifacts, and the signatures beside them, come from on a real device: over HTTP within the grants, or from a file the
//! operator named. Links, files and transfer do not know each other; they are joined here, one kind of place in each module.

mod file;
mod ftps;
mod http;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use otahost_core::grants::{Grants, url_within};
use otahost_core::model::{ArtifactSource, Install};
use otahost_core::paths;
use otahost_links::ftps::FtpsLink;
use otahost_links::http::{HttpOptions, Reach};
use otahost_links::http_client::HttpClient;
use otahost_transfer::{Source, SourceError};
use url::Url;

use crate::platform::Sources;
use file::FileSource;
use ftps::OnFtps;
use http::{Http, OnApi};

/// What a signature has behind the name of the file it lies beside.
const SIDECAR: &str = ".minisig";

/// The real sources.
#[derive(Debug)]
pub struct RealSources {
    /// An attempt ends when no byte came for so long.
    pub idle_timeout: Duration,
    /// Time for a connection.
    pub connect_timeout: Duration,
    /// Links that give files.
    pub links: BTreeMap<String, Files>,
}

/// A link that gives files.
#[derive(Debug, Clone)]
pub enum Files {
    /// Over FTPS.
    Ftps(Arc<FtpsLink>),
    /// Over HTTP, with the link's credentials.
    Http(HttpClient),
}

impl Sources for RealSources {
    fn source(&self, install: &Install, grants: &Grants) -> Result<Arc<dyn Source>, SourceError> {
        let downloads = &grants.download;
        match &install.artifact.source {
            ArtifactSource::File(path) => Ok(Arc::new(FileSource { path: path.into() })),
            ArtifactSource::OnLink(place) => {
                // The grants may have changed since the plan was admitted.
                if !grants.allows_file(place) {
                    return Err(SourceError::Forbidden(format!(
                        "{} on link `{link}` is outside what grants.links.{link}.files allows",
                        paths::without_query(&place.path),
                        link = place.link
                    )));
                }
                let path = place.path.clone();
                match self.links.get(&place.link).cloned() {
                    Some(Files::Ftps(link)) => Ok(Arc::new(OnFtps { link, path })),
                    Some(Files::Http(link)) => Ok(Arc::new(OnApi { link, path })),
                    None => Err(SourceError::Forbidden(format!(
                        "link `{}` gives no files",
                        place.link
                    ))),
                }
            }
            source @ ArtifactSource::Url(text) => {
                let url = Url::parse(text)
                    .map_err(|e| SourceError::Forbidden(format!("{source} is no URL: {e}")))?;
                // The grants may have changed since the plan was admitted.
                if !downloads.iter().any(|prefix| url_within(prefix, text)) {
                    return Err(SourceError::Forbidden(format!(
                        "{source} is outside what grants.download allows"
                    )));
                }
                let granted = downloads.clone();
                // A redirect may lead out of the grant (object storage does that), but not into anybody's own network.
                let allow = Arc::new(move |url: &Url| {
                    let named = granted
                        .iter()
                        .any(|prefix| url_within(prefix, url.as_str()));
                    Ok(if named {
                        Reach::Named
                    } else {
                        Reach::PublicOnly
                    })
                });
                let mut options = HttpOptions::new(url, allow);
                options.idle_timeout = self.idle_timeout;
                options.connect_timeout = self.connect_timeout;
                Ok(Arc::new(Http::new(options, downloads.clone())?))
            }
        }
    }
}

/// What is not UTF-8 is no signature, and is refused by whoever reads it.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
