//! Our side of an installation, in a process of its own as the others are: the agent's sources, the transfer engine and the slots
//! flasher, with the settings they have in the agent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use otahost::platform::Sources;
use otahost::sources::{Files, RealSources};
use otahost_core::grants::{Grants, LinkGrant};
use otahost_core::model::{Artifact, ArtifactSource, Install, LinkPath};
use otahost_core::secret::Secret;
use otahost_disk::{Disk, Place, RealDisk, Seam};
use otahost_flash::boot::FileSelector;
use otahost_flash::slots::Slots;
use otahost_flash::{FlashError, Flasher};
use otahost_lab::tls::CA_PEM;
use otahost_links::ftps::{FtpsLink, FtpsOptions};
use otahost_links::tls::ServerTrust;
use otahost_transfer::{
    BoxFuture, Checkpoint, Checkpoints, Digest, Failure, Request, Stage, StageError, Trust,
    TrustKeys, Tuning, Verified,
};
use serde_json::{Value, json};

use crate::contest::Contestant;
use crate::table::{Beside, Missing};
use crate::timed::{self, Cost};
use crate::unit::Unit;
use crate::{Failed, artifact};

/// Name of the one link.
const LINK: &str = "server";
/// Attempts of a transfer that is cut.
const ATTEMPTS: usize = 8;

/// Where the bytes come from.
#[derive(Debug, Clone)]
pub(crate) enum From {
    /// An address.
    Url(String),
    /// A file on the device.
    File(PathBuf),
    /// A file on an FTPS server at this port of 127.0.0.1, with user and password.
    Ftps {
        port: u16,
        user: String,
        password: String,
        path: String,
    },
}

/// Our contestant.
pub(crate) struct Ours<'a> {
    pub(crate) dir: PathBuf,
    pub(crate) slots: &'a artifact::Slots,
    pub(crate) artifact: &'a artifact::Artifact,
    pub(crate) from: From,
    /// The transfer is cut on its way, and has to be resumed.
    pub(crate) resumes: bool,
    /// What reading the slot back took, which the agent does before it activates and the others do not do.
    pub(crate) read_back: Vec<f64>,
}

impl Contestant for Ours<'_> {
    fn name(&self) -> String {
        "ours".to_owned()
    }

    fn run(&mut self) -> Result<Cost, Missing> {
        let (cost, _) = self.process(false)?;
        Ok(cost)
    }

    fn check(&mut self) -> Result<(), Missing> {
        self.artifact
            .is_in(self.slots.other(), &self.artifact.image)?;
        let (_, said) = self.process(true)?;
        self.read_back
            .push(said["read_back"].as_f64().unwrap_or(f64::NAN));
        Ok(())
    }

    fn more(&self) -> Vec<Beside> {
        vec![Beside {
            name: "then read back in".to_owned(),
            unit: Unit::Seconds,
            values: self.read_back.clone(),
        }]
    }
}

impl Ours<'_> {
    fn process(&self, read_back: bool) -> Result<(Cost, Value), Missing> {
        let own = std::env::current_exe().map_err(|e| Missing::Failed(e.to_string()))?;
        let from = match &self.from {
            From::Url(url) => json!({ "url": url }),
            From::File(path) => json!({ "file": path }),
            From::Ftps {
                port,
                user,
                password,
                path,
            } => {
                json!({ "port": port, "user": user, "password": password, "path": path })
            }
        };
        let order = json!({
            "dir": self.dir, "slots": [self.slots.running(), self.slots.other()], "from": from, "key": self.artifact.key,
            "size": self.artifact.described.size, "md5": self.artifact.described.md5, "read_back": read_back,
            "resumes": self.resumes && !read_back,
        });
        let (cost, said) = timed::run(&own, &["install", &order.to_string()], &self.dir)?;
        let said =
            serde_json::from_str(&said).map_err(|e| Missing::Failed(format!("{said:?}: {e}")))?;
        Ok((cost, said))
    }
}

/// The process: installs as it is ordered, and says on its standard output what only it knows.
///
/// # Errors
/// When it was not installed as ordered.
pub(crate) fn child(order: &str) -> Result<(), Failed> {
    let order: Value = serde_json::from_str(order)?;
    // As the agent's.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let said = runtime.block_on(install(&order))?;
    println!("{said}");
    Ok(())
}

async fn install(order: &Value) -> Result<Value, Failed> {
    let text = |value: &Value| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or("the order is incomplete")
    };
    let dir = PathBuf::from(text(&order["dir"])?);
    let size = order["size"].as_u64().ok_or("the order is incomplete")?;
    let source = source(&order["from"])?;
    let flasher = Arc::new(flasher(&dir, &order["slots"])?);
    let request = Request {
        expected_size: Some(size),
        digests: vec![Digest::parse(&format!("md5:{}", text(&order["md5"])?))?],
        trust: Trust::Minisign(TrustKeys::parse(&[text(&order["key"])?])?),
        compatible: None,
        min_rollback_index: 0,
        max_size: size,
        version: None,
        tuning: Tuning::default(),
    };
    let begun = flasher.clone();
    let stage = Seam::Threads.run(move || begun.begin(false)).await?;
    let staging: Arc<dyn Stage> = Arc::new(Staging(stage));
    let resumes = order["resumes"].as_bool().unwrap_or(false);
    let kept = Kept::default();
    let (verified, attempts) = transfer(&*source, staging, &request, &kept, resumes).await?;
    if verified.size != size || verified.claims.is_none() {
        return Err(format!(
            "{} of {size} bytes, header: {}",
            verified.size,
            verified.claims.is_some()
        )
        .into());
    }
    let finished = flasher.clone();
    let staged = Seam::Threads
        .run(move || finished.finish(verified.payload_len, &verified.payload_sha256))
        .await?;
    let mut said = json!({ "attempts": attempts });
    if order["read_back"].as_bool().unwrap_or(false) {
        let start = Instant::now();
        Seam::Threads.run(move || flasher.verify(&staged)).await?;
        said["read_back"] = json!(start.elapsed().as_secs_f64());
    }
    Ok(said)
}

/// One attempt, or as many as a line that breaks takes.
async fn transfer(
    source: &dyn otahost_transfer::Source,
    staging: Arc<dyn Stage>,
    request: &Request,
    kept: &Kept,
    resumes: bool,
) -> Result<(Verified, usize), Failed> {
    let mut attempts = 1;
    loop {
        let from = kept.last();
        let result =
            otahost_transfer::attempt(source, staging.clone(), request, from, kept, Seam::Threads)
                .await;
        match result {
            Ok(verified) if resumes && attempts == 1 => {
                return Err(format!(
                    "all {} bytes came at once; the line was to break",
                    verified.size
                )
                .into());
            }
            Ok(verified) => return Ok((verified, attempts)),
            Err(failure @ Failure::Source(_)) if resumes && attempts < ATTEMPTS => {
                let _ = failure;
                attempts += 1;
            }
            Err(failure) => return Err(failure.to_string().into()),
        }
    }
}

fn source(from: &Value) -> Result<Arc<dyn otahost_transfer::Source>, Failed> {
    let text = |name: &str| from[name].as_str().map(str::to_owned);
    let mut links = BTreeMap::new();
    let mut grants = Grants::default();
    let place = if let Some(url) = text("url") {
        grants.download.push(url.clone());
        ArtifactSource::Url(url)
    } else if let Some(path) = text("file") {
        ArtifactSource::File(path)
    } else {
        let secret = |name: &str| Secret::new(text(name).unwrap_or_default());
        let mut options = FtpsOptions::new("127.0.0.1", secret("user"), secret("password"));
        options.port = u16::try_from(from["port"].as_u64().unwrap_or_default())?;
        options.trust = ServerTrust::Ca(CA_PEM.as_bytes().to_vec());
        links.insert(
            LINK.to_owned(),
            Files::Ftps(Arc::new(FtpsLink::new(options)?)),
        );
        let files = LinkGrant {
            files: vec!["/".to_owned()],
            ..LinkGrant::default()
        };
        grants.links.insert(LINK.to_owned(), files);
        ArtifactSource::OnLink(LinkPath {
            link: LINK.to_owned(),
            path: text("path").ok_or("the order is incomplete")?,
        })
    };
    let install = Install {
        target: "bench".to_owned(),
        artifact: Artifact {
            source: place,
            size: None,
            digests: Vec::new(),
            identity: None,
        },
        version: "1.0".to_owned(),
    };
    let sources = RealSources {
        idle_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(10),
        links,
    };
    Ok(sources
        .source(&install, &grants)
        .map_err(|e| e.to_string())?)
}

/// Two slots of which the first runs.
fn flasher(dir: &Path, slots: &Value) -> Result<Slots, Failed> {
    let place = |n: usize| {
        let path = slots[n].as_str().ok_or("the order is incomplete")?;
        Ok::<_, Failed>(Place::operator(path))
    };
    let selector = dir.join("selector");
    std::fs::write(
        &selector,
        r#"{"booted":"a","primary":"a","slots":{"a":{"state":"good"},"b":{"state":"bad"}}}"#,
    )?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&dir.join("data"))?);
    let selector = Box::new(FileSelector::new(disk.clone(), Place::operator(selector)));
    let flasher = Slots::new(disk, [place(0)?, place(1)?], selector);
    flasher.inspect()?;
    Ok(flasher)
}

/// A flasher's staging area as the transfer engine wants it.
#[derive(Debug)]
struct Staging(Box<dyn otahost_flash::Stage>);

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

/// The last checkpoint, in memory: what the journal costs has rows of its own.
#[derive(Default)]
struct Kept(Mutex<Checkpoint>);

impl Kept {
    fn last(&self) -> Checkpoint {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Checkpoints for Kept {
    fn progress(&self, _received: u64, _total: Option<u64>) {}
    fn checkpoint(&self, checkpoint: Checkpoint) -> BoxFuture<'_, ()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = checkpoint;
        Box::pin(async {})
    }
}
