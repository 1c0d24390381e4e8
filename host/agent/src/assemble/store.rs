//! Versions of adapters that were installed on a running device: kept by their digest, made ready when one is to run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use otahost_disk::{Disk, Place};
use otahost_sandbox::Sandbox;

use super::{MAX_COMPONENT, make_ready};
use crate::config::AdapterConfig;
use crate::platform::{AdapterSetup, Workshop};

/// Where they lie in the data directory.
const DIRECTORY: &str = "adapters";

/// The kept components.
#[derive(Debug)]
pub(super) struct Store {
    disk: Arc<dyn Disk>,
    sandbox: Sandbox,
    adapters: BTreeMap<String, AdapterConfig>,
}

impl Store {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        sandbox: Sandbox,
        adapters: BTreeMap<String, AdapterConfig>,
    ) -> Self {
        Store {
            disk,
            sandbox,
            adapters,
        }
    }
}

fn digest_of(component: &[u8]) -> String {
    let hex: String = digest(&SHA256, component)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// The file of a component. What is no digest names no file.
fn place(digest: &str) -> Option<Place> {
    let hex = digest.strip_prefix("sha256:")?;
    let fits = hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit());
    fits.then(|| Place::data(format!("{DIRECTORY}/{hex}.wasm")))
}

impl Workshop for Store {
    fn take(&self, adapter: &str, component: &[u8]) -> Result<AdapterSetup, String> {
        let setup = self.make_ready(adapter, component)?;
        let place =
            place(setup.component.digest()).ok_or("a digest has another form than it should")?;
        let failed = |e: std::io::Error| format!("the component cannot be kept: {e}");
        if self
            .disk
            .read(&place, MAX_COMPONENT)
            .is_ok_and(|kept| kept == component)
        {
            return Ok(setup);
        }
        let directory = place.parent();
        if self.disk.list(&directory).is_err() {
            self.disk.create_dir(&directory).map_err(failed)?;
            self.disk.sync_dir(&directory.parent()).map_err(failed)?;
        }
        self.disk.replace(&place, component).map_err(failed)?;
        Ok(setup)
    }

    fn prepare(&self, adapter: &str, digest: &str) -> Result<AdapterSetup, String> {
        let place = place(digest).ok_or_else(|| format!("{digest} is no digest"))?;
        let bytes = self
            .disk
            .read(&place, MAX_COMPONENT)
            .map_err(|e| format!("version {digest} cannot be read: {e}"))?;
        if digest_of(&bytes) != digest {
            return Err(format!("the file of version {digest} was changed"));
        }
        self.make_ready(adapter, &bytes)
    }

    fn tidy(&self, needed: &BTreeSet<String>) {
        let directory = Place::data(DIRECTORY);
        for name in self.disk.list(&directory).unwrap_or_default() {
            let digest = format!("sha256:{}", name.trim_end_matches(".wasm"));
            if needed.contains(&digest) {
                continue;
            }
            if let Err(error) = self.disk.remove(&directory.join(&name)) {
                tracing::warn!(%error, name, "a version that nobody needs cannot be removed");
            }
        }
    }
}

impl Store {
    fn make_ready(&self, adapter: &str, component: &[u8]) -> Result<AdapterSetup, String> {
        let config = self
            .adapters
            .get(adapter)
            .ok_or_else(|| format!("adapter `{adapter}` is not configured"))?;
        make_ready(&self.sandbox, adapter, config, "the component", component).map_err(|findings| {
            let texts: Vec<String> = findings.iter().map(|f| f.what.clone()).collect();
            texts.join("; ")
        })
    }
}
