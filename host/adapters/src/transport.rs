//! How `tough` gets its metadata: from our reader, one whole small file at a time, and not without end.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use tough::{Transport, TransportError, TransportErrorKind, TransportStream, async_trait};
use url::Url;

use crate::read::{ReadError, Reader};
use crate::{MAX_METADATA, MAX_ROOTS};

/// Most files of metadata one opening asks for: roots, and some room for the rest. Bounds delegations, which are read and not used.
pub(crate) const MAX_FILES: usize = MAX_ROOTS as usize + 64;

/// What `tough` believes to be the address. Where the files really are, only the reader knows.
const BASE: &str = "https://repository.invalid/";

/// The two addresses `tough` is given: of the metadata, and of the targets, which we fetch ourselves.
pub(crate) fn addresses() -> (Url, Url) {
    let base = Url::parse(BASE).expect("a constant URL");
    let join = |path| base.join(path).expect("a constant path");
    (join("metadata/"), join("targets/"))
}

/// What was read, verified or not, as it is signed: the library's own form of it differs from run to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    /// Version by the name of the file, and content.
    pub(crate) roots: Vec<(u64, String)>,
    pub(crate) timestamp: Option<String>,
    pub(crate) snapshot: Option<String>,
}

impl Kept {
    fn keep(&mut self, name: &str, bytes: &[u8]) {
        // What is no text fails to verify.
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Some(Ok(version)) = name.strip_suffix(".root.json").map(str::parse) {
            self.roots.push((version, text.to_owned()));
        } else if name == "timestamp.json" {
            self.timestamp = Some(text.to_owned());
        } else if name == "snapshot.json" || name.ends_with(".snapshot.json") {
            self.snapshot = Some(text.to_owned());
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    reader: Reader,
    files: Arc<AtomicUsize>,
    kept: Arc<Mutex<Kept>>,
}

impl Metadata {
    pub(crate) fn new(reader: Reader) -> Self {
        Self {
            reader,
            files: Arc::default(),
            kept: Arc::default(),
        }
    }

    /// What was read so far.
    pub(crate) fn kept(&self) -> Kept {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn read(&self, url: &Url) -> Result<Vec<u8>, ReadError> {
        let name = url.path().strip_prefix("/metadata/").unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-~".contains(&b);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(ReadError::Missing(
                "no file of ours has such a name".to_owned(),
            ));
        }
        if self.files.fetch_add(1, Ordering::Relaxed) >= MAX_FILES {
            return Err(ReadError::TooMany);
        }
        let bytes = self
            .reader
            .read(&format!("metadata/{name}"), MAX_METADATA)
            .await?;
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keep(name, &bytes);
        Ok(bytes)
    }
}

#[async_trait]
impl Transport for Metadata {
    /// Never fails at once: `tough` takes that, for a root, for the end of the chain. What fails later it only takes for the end where
    /// the file is not there; a server that is out of order must not hide a rotation.
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let item = self.read(&url).await.map(Bytes::from).map_err(|error| {
            let kind = match &error {
                ReadError::Missing(_) => TransportErrorKind::FileNotFound,
                _ => TransportErrorKind::Other,
            };
            TransportError::new_with_cause(kind, &url, error)
        });
        Ok(Box::pin(Once(Some(item))))
    }
}

/// A stream of one item.
struct Once(Option<Result<Bytes, TransportError>>);

impl Stream for Once {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.take())
    }
}
