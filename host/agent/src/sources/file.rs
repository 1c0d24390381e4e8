//! Artifacts in files on the device, which the operator named.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use otahost_disk::Seam;
use otahost_transfer::{Body, BoxFuture, Opened, SIDECAR_MAX, Source, SourceError, Validator};

use super::{SIDECAR, text};

/// Piece read from a file at once.
const PIECE: usize = 256 * 1024;

/// A file of the operator's. It is only read.
#[derive(Debug)]
pub(super) struct FileSource {
    pub(super) path: PathBuf,
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
                        published: Vec::new(),
                        guessed: false,
                        body,
                    })
                })
                .await
        })
    }

    fn sidecar(&self) -> BoxFuture<'_, Result<Option<String>, SourceError>> {
        Box::pin(async move {
            let mut path = self.path.clone().into_os_string();
            path.push(SIDECAR);
            let path = PathBuf::from(path);
            Seam::Threads
                .run(move || {
                    let fault = |e: std::io::Error| broken(&path, &e);
                    match std::fs::metadata(&path) {
                        Ok(metadata) if metadata.is_file() => {}
                        Ok(_) => {
                            return Err(SourceError::Forbidden(format!(
                                "{} is not a file",
                                path.display()
                            )));
                        }
                        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                        Err(e) => return Err(fault(e)),
                    }
                    let mut bytes = Vec::new();
                    File::open(&path)
                        .and_then(|file| file.take(SIDECAR_MAX as u64 + 1).read_to_end(&mut bytes))
                        .map_err(fault)?;
                    Ok(Some(text(&bytes)))
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
