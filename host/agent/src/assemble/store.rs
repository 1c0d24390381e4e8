//! Versions of adapters that were installed on a running device: kept by their digest, made ready when one is to run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use otahost_disk::{Disk, Place};

use super::loader::made_from;
use super::{Loader, MAX_COMPONENT, make_ready, read_component};
use crate::config::AdapterConfig;
use crate::platform::{AdapterSetup, Workshop};

/// Where they lie in the data directory.
const DIRECTORY: &str = "adapters";

/// The kept components.
#[derive(Debug)]
pub(super) struct Store {
    disk: Arc<dyn Disk>,
    loader: Loader,
    adapters: BTreeMap<String, AdapterConfig>,
    /// Digests of the configured components.
    configured: BTreeSet<String>,
}

impl Store {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        loader: Loader,
        adapters: BTreeMap<String, AdapterConfig>,
        configured: BTreeSet<String>,
    ) -> Self {
        Store {
            disk,
            loader,
            adapters,
            configured,
        }
    }
}

/// What an adapter's file is known by: the digest of the component, which native code that was made elsewhere names.
pub(crate) fn digest_of(file: &[u8]) -> String {
    made_from(file).unwrap_or_else(|| {
        let hex: String = digest(&SHA256, file)
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("sha256:{hex}")
    })
}

/// The file of a version as it was given, by the component's digest. What is no digest names no file.
fn place(digest: &str) -> Option<Place> {
    let hex = digest.strip_prefix("sha256:")?;
    let fits = hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit());
    fits.then(|| Place::data(format!("{DIRECTORY}/{hex}.wasm")))
}

impl Workshop for Store {
    fn take(&self, adapter: &str, component: &[u8]) -> Result<AdapterSetup, String> {
        let setup = self.make_ready(adapter, component)?;
        self.keep(component)?;
        Ok(setup)
    }

    fn look(&self, adapter: &str, component: &[u8]) -> Result<AdapterSetup, String> {
        self.make_ready(adapter, component)
    }

    fn prepare(&self, adapter: &str, digest: &str) -> Result<AdapterSetup, String> {
        let place = place(digest).ok_or_else(|| format!("{digest} is no digest"))?;
        let bytes = self
            .disk
            .read(&place, MAX_COMPONENT)
            .map_err(|e| format!("version {digest} cannot be read: {e}"))?;
        let changed = || format!("the file of version {digest} was changed");
        // Before it is compiled, and of native code once more when its signature has been checked.
        if digest_of(&bytes) != digest {
            return Err(changed());
        }
        let setup = self.make_ready(adapter, &bytes)?;
        match setup.component.digest() == digest {
            true => Ok(setup),
            false => Err(changed()),
        }
    }

    fn keep_configured(&self) {
        for (name, adapter) in &self.adapters {
            let kept = read_component(&adapter.component).and_then(|component| {
                // Another one than was loaded is looked at by who sees that it changed.
                match self.configured.contains(&digest_of(&component)) {
                    true => self.keep(&component),
                    false => Ok(()),
                }
            });
            if let Err(why) = kept {
                tracing::warn!(
                    adapter = name,
                    why,
                    "no copy of its component is kept: if its file is replaced there is no way back"
                );
            }
        }
    }

    fn tidy(&self, needed: &BTreeSet<String>) {
        let directory = Place::data(DIRECTORY);
        for name in self.disk.list(&directory).unwrap_or_default() {
            let digest = format!("sha256:{}", name.trim_end_matches(".wasm"));
            if needed.contains(&digest) || self.configured.contains(&digest) {
                continue;
            }
            if let Err(error) = self.disk.remove(&directory.join(&name)) {
                tracing::warn!(%error, name, "a version that nobody needs cannot be removed");
            }
            self.loader.forget(&digest);
        }
    }
}

impl Store {
    /// Keeps a component durably. To keep it again changes nothing.
    fn keep(&self, component: &[u8]) -> Result<(), String> {
        let place =
            place(&digest_of(component)).ok_or("a digest has another form than it should")?;
        let failed = |e: std::io::Error| {
            let needs = component.len().div_ceil(1024);
            match e.kind() {
                std::io::ErrorKind::StorageFull => format!(
                    "the component cannot be kept: {e}; it needs {needs} KiB more in the data directory"
                ),
                _ => format!("the component cannot be kept: {e}"),
            }
        };
        if self
            .disk
            .read(&place, MAX_COMPONENT)
            .is_ok_and(|kept| kept == component)
        {
            return Ok(());
        }
        let directory = place.parent();
        if self.disk.list(&directory).is_err() {
            self.disk.create_dir(&directory).map_err(failed)?;
            self.disk.sync_dir(&directory.parent()).map_err(failed)?;
        }
        self.disk.replace(&place, component).map_err(|error| {
            // What there is of it takes the very space that is missing.
            let _ = self.disk.remove(&place.with_suffix(".new"));
            failed(error)
        })
    }

    fn make_ready(&self, adapter: &str, component: &[u8]) -> Result<AdapterSetup, String> {
        let config = self
            .adapters
            .get(adapter)
            .ok_or_else(|| format!("adapter `{adapter}` is not configured"))?;
        make_ready(&self.loader, adapter, config, "the component", component).map_err(|findings| {
            let texts: Vec<String> = findings.iter().map(|f| f.what.clone()).collect();
            texts.join("; ")
        })
    }
}
