//! Artifacts on an FTPS server, and the digests and signatures beside them.

use std::sync::Arc;

use bytes::Bytes;
use otahost_links::ftps::{FtpsBody, FtpsError, FtpsLink};
use otahost_transfer::{
    Body, BoxFuture, Digest, Opened, SIDECAR_MAX, Source, SourceError, Validator,
};

use super::{SIDECAR, text};

/// Largest file with a digest.
const MAX_DIGEST_FILE: usize = 1024;

/// A file on an FTPS server.
#[derive(Debug)]
pub(super) struct OnFtps {
    pub(super) link: Arc<FtpsLink>,
    pub(super) path: String,
}

impl Source for OnFtps {
    fn open<'a>(
        &'a self,
        from: u64,
        validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            let published = self.published().await?;
            let opened = self
                .link
                .open(&self.path, from, validator.map(|v| v.0.as_str()))
                .await
                .map_err(from_ftps)?;
            Ok(Opened {
                offset: opened.offset,
                total: opened.total,
                validator: opened.validator.map(Validator),
                published,
                guessed: false,
                body: Box::new(FtpsPieces(opened.body)),
            })
        })
    }

    fn sidecar(&self) -> BoxFuture<'_, Result<Option<String>, SourceError>> {
        Box::pin(async move {
            let name = format!("{}{SIDECAR}", self.path);
            let bytes = self.link.small_file(&name, SIDECAR_MAX + 1).await;
            Ok(bytes.map_err(from_ftps)?.map(|bytes| text(&bytes)))
        })
    }
}

impl OnFtps {
    /// The digests that lie beside the file, as `sha256sum` and `md5sum` write them.
    async fn published(&self) -> Result<Vec<Digest>, SourceError> {
        let mut published = Vec::new();
        for algorithm in ["sha256", "md5"] {
            let name = format!("{}.{algorithm}", self.path);
            let Some(bytes) = self
                .link
                .small_file(&name, MAX_DIGEST_FILE)
                .await
                .map_err(from_ftps)?
            else {
                continue;
            };
            let text = text(&bytes);
            let word = text.split_whitespace().next().unwrap_or_default();
            let word = word.trim_start_matches('\\');
            // One that is there has to be right: an image beside a broken digest is suspect.
            let digest = Digest::parse(&format!("{algorithm}:{word}"))
                .map_err(|e| SourceError::Forbidden(format!("the file {name}: {e}")))?;
            published.push(digest);
        }
        Ok(published)
    }
}

#[derive(Debug)]
struct FtpsPieces(FtpsBody);

impl Body for FtpsPieces {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move { self.0.next().await.map_err(from_ftps) })
    }
}

fn from_ftps(error: FtpsError) -> SourceError {
    match error {
        FtpsError::Broken(text) | FtpsError::Unreachable(text) => SourceError::Broken(text),
        FtpsError::Stalled(text) => SourceError::Stalled(text),
        error => SourceError::Forbidden(error.to_string()),
    }
}
