//! The file server, and the files the operator put on the device.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otahost::platform::Sources;
use otahost_core::model::{ArtifactSource, Install};
use otahost_transfer::{Body, BoxFuture, Opened, Source, SourceError, Validator};

use super::outer::{Shared, VirtualTime};

/// Bytes the file server sends at once, and virtual time they take.
const PIECE: usize = 4 * 1024;
const PIECE_TIME: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct SimSources {
    pub world: Shared,
    pub time: VirtualTime,
}

impl Sources for SimSources {
    fn source(
        &self,
        install: &Install,
        _downloads: &[String],
    ) -> Result<Arc<dyn Source>, SourceError> {
        let name = match &install.artifact.source {
            ArtifactSource::Url(url) => url,
            ArtifactSource::File(path) => path,
            ArtifactSource::OnLink(_) => {
                return Err(SourceError::Forbidden("no link gives files here".into()));
            }
        };
        let file = self.world.lock().unwrap().files.get(name).cloned();
        match file {
            Some(file) => Ok(Arc::new(SimSource {
                world: self.world.clone(),
                time: self.time,
                file,
            })),
            None => Err(SourceError::Forbidden("no such file".into())),
        }
    }
}

#[derive(Debug)]
struct SimSource {
    world: Shared,
    time: VirtualTime,
    file: Arc<Vec<u8>>,
}

impl Source for SimSource {
    fn open<'a>(
        &'a self,
        from: u64,
        _validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        let offset = from.min(self.file.len() as u64);
        let status = {
            let mut world = self.world.lock().unwrap();
            world.requests.push(self.time.now());
            if world.statuses.is_empty() {
                200
            } else {
                world.statuses.remove(0)
            }
        };
        let opened = if status == 200 {
            Ok(Opened {
                offset,
                total: Some(self.file.len() as u64),
                validator: Some(Validator("\"v1\"".into())),
                body: Box::new(SimBody {
                    world: self.world.clone(),
                    file: self.file.clone(),
                    at: offset,
                }),
            })
        } else {
            Err(SourceError::Status {
                status,
                headers: Vec::new(),
                body: Vec::new(),
                text: format!("files.example answered {status}"),
            })
        };
        Box::pin(std::future::ready(opened))
    }
}

#[derive(Debug)]
struct SimBody {
    world: Shared,
    file: Arc<Vec<u8>>,
    at: u64,
}

impl Body for SimBody {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move {
            tokio::time::sleep(PIECE_TIME).await;
            let from = usize::try_from(self.at).unwrap();
            let mut to = (from + PIECE).min(self.file.len());
            let mut world = self.world.lock().unwrap();
            if let Some(cut) = world
                .cuts
                .iter()
                .position(|cut| *cut >= self.at && *cut < to as u64)
            {
                to = usize::try_from(world.cuts[cut]).unwrap();
                if to == from {
                    world.cuts.remove(cut);
                    return Err(SourceError::Broken("the connection was cut".into()));
                }
            }
            if from == to {
                return Ok(None);
            }
            world.served += (to - from) as u64;
            self.at = to as u64;
            Ok(Some(Bytes::copy_from_slice(&self.file[from..to])))
        })
    }
}
