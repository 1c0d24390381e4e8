//! What the engine stands on: everything outside it, behind traits, so that the same engine runs on a device and in the
//! simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use otahost_core::backoff::Backoff;
use otahost_core::grants::Grants;
use otahost_core::model::{ClockQuality, Field, Install, Instant, Requirements};
use otahost_core::policy::Policy;
use otahost_disk::{Disk, Place, Seam};
use otahost_flash::Flasher;
use otahost_links::Link;
use otahost_transfer::{Source, SourceError, Trust, Tuning};

use crate::alerts::Alarm;

/// The device around the agent. Calls may block; the engine makes those that ask a program or a file through the seam.
pub trait Outside: Debug + Send + Sync {
    /// Changes with every boot.
    fn boot_id(&self) -> String;
    /// Wall-clock time.
    fn now(&self) -> Instant;
    /// How far the wall clock can be trusted.
    fn clock(&self) -> ClockQuality;
    /// Milliseconds since boot, suspend included.
    fn uptime(&self) -> u64;
    /// Fresh random bytes for one step.
    fn seed(&self) -> [u8; 32];
    /// The version a target reports now. The error says what failed.
    fn version(&self, target: &str) -> Result<String, String>;
    /// Asks the target's probe; without one it is well.
    fn probe(&self, target: &str) -> Result<(), String>;
    /// The lock file that forbids updates of a target now, if there is one.
    fn locked(&self, target: &str) -> Option<String>;
    /// Whether a target can be done without for the time of an update, or why not.
    fn ready(&self, target: &str) -> Result<(), String>;
    /// Asks for a reboot; returns when the request was taken.
    fn reboot(&self) -> Result<(), String>;
}

/// Keeps versions of adapters and makes them ready to run.
pub trait Workshop: Debug + Send + Sync {
    /// Loads a component as this adapter with its configuration and grants, and keeps it durably once it could run. To take it again
    /// changes nothing. Blocks: it is compiled.
    fn take(&self, adapter: &str, component: &[u8]) -> Result<AdapterSetup, String>;
    /// The same, and nothing is kept: the component is only to be tried. Blocks: it is compiled.
    fn look(&self, adapter: &str, component: &[u8]) -> Result<AdapterSetup, String>;
    /// A kept component, loaded as this adapter with its configuration and grants. Blocks: it may have to be compiled.
    fn prepare(&self, adapter: &str, digest: &str) -> Result<AdapterSetup, String>;
    /// Keeps a copy of each configured component, so that there is a way back when its file is replaced. Blocks.
    fn keep_configured(&self) {}
    /// Forgets every kept component but these. What cannot be removed stays. Blocks.
    fn tidy(&self, needed: &BTreeSet<String>) {
        let _ = needed;
    }
}

/// A workshop that has kept nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoWorkshop;

impl Workshop for NoWorkshop {
    fn take(&self, _: &str, _: &[u8]) -> Result<AdapterSetup, String> {
        Err("this agent keeps no versions of adapters".into())
    }

    fn look(&self, _: &str, _: &[u8]) -> Result<AdapterSetup, String> {
        Err("this agent loads no versions of adapters".into())
    }

    fn prepare(&self, adapter: &str, digest: &str) -> Result<AdapterSetup, String> {
        Err(format!("no version {digest} of `{adapter}` is kept"))
    }
}

/// Makes the source of an artifact.
pub trait Sources: Debug + Send + Sync {
    /// The source of this install, with what the owner's grants allow.
    fn source(&self, install: &Install, grants: &Grants) -> Result<Arc<dyn Source>, SourceError>;
}

/// Everything the engine stands on.
#[derive(Debug, Clone)]
pub struct Platform {
    /// Storage.
    pub disk: Arc<dyn Disk>,
    /// Where the journal is.
    pub journal: Place,
    /// Where blocking work happens.
    pub seam: Seam,
    /// Connections by name.
    pub links: BTreeMap<String, Arc<dyn Link>>,
    /// Artifact sources.
    pub sources: Arc<dyn Sources>,
    /// Flashers by target.
    pub flashers: BTreeMap<String, Arc<dyn Flasher>>,
    /// Versions of adapters.
    pub workshop: Arc<dyn Workshop>,
    /// Where alerts go.
    pub alarm: Arc<dyn Alarm>,
    /// The device.
    pub outside: Arc<dyn Outside>,
    /// Names this process: a start by another one in the same boot, soon after the last, is a crash. Starts within one process are not.
    pub process: String,
    /// One writer at a time for each target. Kept here and not in the engine, because work of an engine that ended may still run when
    /// the next one starts.
    pub locks: Locks,
}

/// The write locks of the targets.
pub type Locks = Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>>;

impl Platform {
    /// The write lock of a target.
    pub fn lock_of(&self, target: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(target.to_owned()).or_default().clone()
    }
}

/// An adapter, loaded and compared with its grants.
#[derive(Debug, Clone)]
pub struct AdapterSetup {
    /// Its name in the configuration.
    pub name: String,
    /// The loaded component.
    pub component: otahost_sandbox::Adapter,
    /// Where its native code came from.
    pub how: otahost_sandbox::How,
    /// What it says of itself.
    pub description: otahost_core::model::Description,
    /// What it asks for with this configuration.
    pub requirements: Requirements,
    /// Its configuration as JSON.
    pub config: String,
    /// What it may touch.
    pub grants: Grants,
}

/// An adapter of the configuration whose component cannot be loaded.
#[derive(Debug, Clone)]
pub struct FaultyAdapter {
    /// Its name in the configuration.
    pub name: String,
    /// Its configuration as JSON.
    pub config: String,
    /// What it may touch.
    pub grants: Grants,
    /// What is wrong with its component, or what its component says is wrong with its configuration.
    pub why: String,
}

/// A target as the engine needs it.
#[derive(Debug, Clone)]
pub struct TargetSetup {
    /// Its id.
    pub id: String,
    /// The device it hangs on.
    pub parent: Option<String>,
    /// The operator's attributes.
    pub attributes: Vec<Field>,
    /// Whose images it takes.
    pub trust: Trust,
    /// What a signed image must name as `compatible`.
    pub compatible: Option<String>,
    /// Time a new version has to prove itself.
    pub confirm_within: Duration,
    /// The adapter that asked has to accept the new version too.
    pub confirm_by_adapter: bool,
    /// When which updates are allowed.
    pub policy: Policy,
    /// Adapters in the order in which they go before each other.
    pub authority: Vec<String>,
}

/// Budgets of transfers.
#[derive(Debug, Clone)]
pub struct TransferSetup {
    /// Attempts in a row without progress.
    pub attempts: u32,
    /// Waits between them.
    pub backoff: Backoff,
    /// Most jobs that transfer or hand over at the same time.
    pub parallel: usize,
    /// Largest artifact.
    pub max_size: u64,
    /// Sizes and times of the transfer engine.
    pub tuning: Tuning,
}

/// How long a job may be in a phase.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// Queued or waiting for policy and readiness.
    pub waiting: Duration,
    /// Downloading and verifying.
    pub download: Duration,
    /// Prepared, until it is told to go on.
    pub prepared: Duration,
    /// Reading back what is staged.
    pub install: Duration,
    /// Handing it over to one target.
    pub deliver: Duration,
    /// Switching, reboot included.
    pub activate: Duration,
}

/// The configuration as the engine needs it.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Id of the device.
    pub device: String,
    /// Adapters whose configured component was loaded. Whether they run is the engine's to say.
    pub adapters: Vec<AdapterSetup>,
    /// The others.
    pub faulty: Vec<FaultyAdapter>,
    /// Targets in the order of the configuration.
    pub targets: Vec<TargetSetup>,
    /// Budgets.
    pub transfer: TransferSetup,
    /// Deadlines.
    pub deadlines: Deadlines,
}
