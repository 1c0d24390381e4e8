//! Joins links, transfer and flash the way the agent does: they do not know each other.

use bytes::Bytes;
use otahost_flash::FlashError;
use otahost_links::http::{HttpBody, HttpError, HttpSource};
use otahost_transfer::{
    Body, BoxFuture, Checkpoint, Checkpoints, Opened, Source, SourceError, Stage, StageError,
    Validator,
};

#[derive(Debug)]
pub(crate) struct Http(pub(crate) HttpSource);

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
                .map_err(broken)?;
            Ok(Opened {
                offset: opened.offset,
                total: opened.total,
                published: Vec::new(),
                guessed: false,
                validator: opened.validator.map(Validator),
                body: Box::new(Pieces(opened.body)),
            })
        })
    }
}

#[derive(Debug)]
struct Pieces(HttpBody);

impl Body for Pieces {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move { self.0.next().await.map_err(broken) })
    }
}

fn broken(error: HttpError) -> SourceError {
    SourceError::Broken(error.to_string())
}

#[derive(Debug)]
pub(crate) struct Staging(pub(crate) Box<dyn otahost_flash::Stage>);

impl Stage for Staging {
    fn capacity(&self) -> Option<u64> {
        self.0.capacity()
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StageError> {
        self.0.write_at(bytes, offset).map_err(failed)
    }
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> Result<(), StageError> {
        self.0.read_exact_at(into, offset).map_err(failed)
    }
    fn sync(&self) -> Result<(), StageError> {
        self.0.sync().map_err(failed)
    }
}

fn failed(error: FlashError) -> StageError {
    StageError::Failed(error.to_string())
}

/// Checkpoints nobody keeps: the journal is not part of this row.
pub(crate) struct Forgotten;

impl Checkpoints for Forgotten {
    fn progress(&self, _received: u64, _total: Option<u64>) {}
    fn checkpoint(&self, _checkpoint: Checkpoint) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
