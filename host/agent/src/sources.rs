//! Where artifacts come from on a real device: over HTTP within the grants, or from a file the operator named.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otahost_core::grants::url_within;
use otahost_core::model::{ArtifactSource, Install};
use otahost_disk::Seam;
use otahost_links::http::{HttpBody, HttpError, HttpOptions, HttpSource, Reach};
use otahost_transfer::{Body, BoxFuture, Opened, Source, SourceError, Validator};
use url::Url;

use crate::platform::Sources;

/// Piece read from a file at once.
const PIECE: usize = 256 * 1024;

/// The real sources.
#[derive(Debug)]
pub struct RealSources {
    /// An attempt ends when no byte came for so long.
    pub idle_timeout: Duration,
    /// Time for a connection.
    pub connect_timeout: Duration,
}

impl Sources for RealSources {
    fn source(
        &self,
        install: &Install,
        downloads: &[String],
    ) -> Result<Arc<dyn Source>, SourceError> {
        match &install.artifact.source {
            ArtifactSource::File(path) => Ok(Arc::new(FileSource { path: path.into() })),
            ArtifactSource::OnLink(path) => Err(SourceError::Forbidden(format!(
                "link `{}` gives no files",
                path.link
            ))),
            source @ ArtifactSource::Url(text) => {
                let url = Url::parse(text)
                    .map_err(|e| SourceError::Forbidden(format!("{source} is no URL: {e}")))?;
                // The grants may have changed since the plan was admitted.
                if !downloads.iter().any(|prefix| url_within(prefix, text)) {
                    return Err(SourceError::Forbidden(format!(
                        "{source} is outside what grants.download allows"
                    )));
                }
                let granted = downloads.to_vec();
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
                let source = HttpSource::new(options).map_err(from_http)?;
                Ok(Arc::new(Http(source)))
            }
        }
    }
}

#[derive(Debug)]
struct Http(HttpSource);

impl Source for Http {
    fn open<'a>(
        &'a self,
        from: u64,
        validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            let opened = self
                .0
                .open(from, validator.map(|v| v.0.as_str()))
                .await
                .map_err(from_http)?;
            Ok(Opened {
                offset: opened.offset,
                total: opened.total,
                validator: opened.validator.map(Validator),
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

/// A file of the operator's. It is only read.
#[derive(Debug)]
struct FileSource {
    path: PathBuf,
}

fn broken(path: &Path, error: &std::io::Error) -> SourceError {
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
            SourceError::Forbidden(format!("cannot read {}: {error}", path.display()))
        }
        _ => SourceError::Broken(format!("cannot read {}: {error}", path.display())),
    }
}

impl Source for FileSource {
    fn open<'a>(
        &'a self,
        from: u64,
        _validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            let path = self.path.clone();
            Seam::Threads
                .run(move || {
                    let fault = |e: std::io::Error| broken(&path, &e);
                    let file = File::open(&path).map_err(fault)?;
                    let metadata = file.metadata().map_err(fault)?;
                    if !metadata.is_file() {
                        return Err(SourceError::Forbidden(format!(
                            "{} is not a file",
                            path.display()
                        )));
                    }
                    let total = metadata.len();
                    let offset = from.min(total);
                    let validator = Some(Validator(format!(
                        "{total} {} {}",
                        metadata.mtime(),
                        metadata.mtime_nsec()
                    )));
                    let body = Box::new(FilePieces {
                        file: Arc::new(file),
                        path,
                        offset,
                    });
                    Ok(Opened {
                        offset,
                        total: Some(total),
                        validator,
                        body,
                    })
                })
                .await
        })
    }
}

#[derive(Debug)]
struct FilePieces {
    file: Arc<File>,
    path: PathBuf,
    offset: u64,
}

impl Body for FilePieces {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move {
            let (file, path, offset) = (self.file.clone(), self.path.clone(), self.offset);
            let piece = Seam::Threads
                .run(move || {
                    let mut piece = vec![0; PIECE];
                    let read = file
                        .read_at(&mut piece, offset)
                        .map_err(|e| broken(&path, &e))?;
                    piece.truncate(read);
                    Ok::<_, SourceError>(piece)
                })
                .await?;
            self.offset += piece.len() as u64;
            Ok((!piece.is_empty()).then(|| Bytes::from(piece)))
        })
    }
}
