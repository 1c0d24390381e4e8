//! The file server, and the files the operator put on the device.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otahost::platform::Sources;
use otahost_core::grants::Grants;
use otahost_core::model::{ArtifactSource, Install};
use otahost_transfer::{Body, BoxFuture, Opened, Source, SourceError, Validator};

use super::client::Vault;
use super::outer::{Shared, VirtualTime};

/// Bytes the file server sends at once, and virtual time they take.
const PIECE: usize = 4 * 1024;
const PIECE_TIME: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct SimSources {
    pub world: Shared,
    pub time: VirtualTime,
    pub vault: Vault,
}

impl Sources for SimSources {
    fn source(&self, install: &Install, grants: &Grants) -> Result<Arc<dyn Source>, SourceError> {
        let (name, vault) = match &install.artifact.source {
            ArtifactSource::Url(url) => (url.clone(), None),
            ArtifactSource::File(path) => (path.clone(), None),
            ArtifactSource::OnLink(place) if !grants.allows_file(place) => {
                return Err(SourceError::Forbidden("it is not granted".into()));
            }
            ArtifactSource::OnLink(place) => (
                format!("{}:{}", place.link, place.path),
                (place.link == "api").then(|| self.vault.clone()),
            ),
        };
        let file = {
            let world = self.world.lock().unwrap();
            let on_medium = || world.medium.get(name.rsplit('/').next()?);
            let file = world.files.get(&name).or_else(on_medium);
            file.cloned()
        };
        match file {
            Some(file) => Ok(Arc::new(SimSource {
                world: self.world.clone(),
                time: self.time,
                vault,
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
    /// What a token has to be taken from.
    vault: Option<Vault>,
    file: Arc<Vec<u8>>,
}

impl SimSource {
    /// Whether the server lets us in.
    async fn enter(&self) -> Result<(), SourceError> {
        let Some(vault) = &self.vault else {
            return Ok(());
        };
        let token = vault.token().await.map_err(SourceError::Broken)?;
        let api = &mut self.world.lock().unwrap().api;
        let checked = api.check(self.time.now(), &token);
        checked.map_err(|refused| SourceError::Status {
            status: refused.status,
            headers: Vec::new(),
            body: refused.body,
            text: format!("api.example answered {}", refused.status),
        })
    }
}

impl Source for SimSource {
    fn open<'a>(
        &'a self,
        from: u64,
        _validator: Option<&'a Validator>,
    ) -> BoxFuture<'a, Result<Opened, SourceError>> {
        Box::pin(async move {
            self.enter().await?;
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
            if status != 200 {
                return Err(SourceError::Status {
                    status,
                    headers: Vec::new(),
                    body: Vec::new(),
                    text: format!("files.example answered {status}"),
                });
            }
            Ok(Opened {
                offset,
                total: Some(self.file.len() as u64),
                published: Vec::new(),
                guessed: false,
                validator: Some(Validator("\"v1\"".into())),
                body: Box::new(SimBody {
                    world: self.world.clone(),
                    file: self.file.clone(),
                    at: offset,
                }),
            })
        })
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
