//! Our side: the transfer engine and the slots flasher, with the same settings as in the agent.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use otahost_disk::{Disk, Place, RealDisk, Seam};
use otahost_flash::Flasher;
use otahost_flash::boot::FileSelector;
use otahost_flash::slots::Slots;
use otahost_lab::image::Described;
use otahost_links::http::{HttpOptions, HttpSource, Reach};
use otahost_transfer::{Checkpoint, Digest, Request, Trust, TrustKeys, Tuning};
use tokio::runtime::Runtime;
use url::Url;

use crate::glue::{Forgotten, Http, Staging};

/// A target with two slots, ready to take artifacts.
pub(crate) struct Ours {
    runtime: Runtime,
    flasher: Arc<Slots>,
    keys: TrustKeys,
}

/// What one run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    /// From the request to the artifact being in the slot: digests and signature right, and synced.
    pub(crate) verified: Duration,
    /// Reading the slot back, which the agent does before it activates and the floor does not.
    pub(crate) read_back: Duration,
}

impl Ours {
    /// Two slots and a selector in this directory.
    pub(crate) fn new(directory: &Path, key: String) -> Result<Self, String> {
        let say = |error: &dyn std::fmt::Display| format!("ours: {error}");
        let place = |name: &str| Place::operator(directory.join(name));
        for slot in ["slot-a", "slot-b"] {
            std::fs::write(directory.join(slot), []).map_err(|e| say(&e))?;
        }
        let selector =
            r#"{"booted":"a","primary":"a","slots":{"a":{"state":"good"},"b":{"state":"bad"}}}"#;
        std::fs::write(directory.join("selector"), selector).map_err(|e| say(&e))?;
        let disk: Arc<dyn Disk> =
            Arc::new(RealDisk::new(&directory.join("data")).map_err(|e| say(&e))?);
        let selector = Box::new(FileSelector::new(Arc::clone(&disk), place("selector")));
        let flasher = Slots::new(disk, [place("slot-a"), place("slot-b")], selector);
        flasher.inspect().map_err(|e| say(&e))?;
        let keys = TrustKeys::parse(&[key]).map_err(|e| say(&e))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|e| say(&e))?;
        Ok(Ours {
            runtime,
            flasher: Arc::new(flasher),
            keys,
        })
    }

    /// Runs it once.
    ///
    /// # Errors
    /// When the transfer or the flasher fails, or did not do everything.
    pub(crate) fn run(&self, url: &str, file: &Described) -> Result<Took, String> {
        self.runtime
            .block_on(self.attempt(url, file))
            .map_err(|error| format!("ours: {error}"))
    }

    async fn attempt(
        &self,
        url: &str,
        file: &Described,
    ) -> Result<Took, Box<dyn std::error::Error>> {
        let options = HttpOptions::new(Url::parse(url)?, Arc::new(|_| Ok(Reach::Named)));
        let request = Request {
            expected_size: Some(file.size),
            digests: vec![Digest::parse(&format!("md5:{}", file.md5))?],
            trust: Trust::Minisign(self.keys.clone()),
            compatible: None,
            min_rollback_index: 0,
            max_size: file.size,
            version: None,
            tuning: Tuning::default(),
        };
        let start = Instant::now();
        let source = Http(HttpSource::new(options)?);
        let flasher = Arc::clone(&self.flasher);
        let stage = Seam::Threads.run(move || flasher.begin(false)).await?;
        let staging = Arc::new(Staging(stage));
        let verified = otahost_transfer::attempt(
            &source,
            staging,
            &request,
            Checkpoint::default(),
            &Forgotten,
            Seam::Threads,
        )
        .await?;
        if verified.fetched != file.size || verified.claims.is_none() {
            return Err(format!(
                "{} of {} bytes were fetched, header: {}",
                verified.fetched,
                file.size,
                verified.claims.is_some()
            )
            .into());
        }
        let flasher = Arc::clone(&self.flasher);
        let staged = Seam::Threads
            .run(move || flasher.finish(verified.payload_len, &verified.payload_sha256))
            .await?;
        let taken = start.elapsed();
        let start = Instant::now();
        let flasher = Arc::clone(&self.flasher);
        Seam::Threads.run(move || flasher.verify(&staged)).await?;
        Ok(Took {
            verified: taken,
            read_back: start.elapsed(),
        })
    }
}
