//! The configuration, `otahost.toml`: what the operator decides, read once at start.
//!
//! A fault in it is found here or by `otahost check`, before anything starts, and all faults at once: an integrator at a device
//! without a screen mends a file once, not key by key.

mod adapters;
mod alerts;
mod compiler;
mod deadman;
mod device;
mod excerpt;
mod finding;
mod flashers;
mod links;
mod nearest;
mod places;
mod policy;
mod reader;
mod repositories;
mod same;
pub mod schema;
mod targets;
pub(crate) mod units;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use compiler::CompilerConfig;
pub use deadman::Watched;
pub use finding::{Faults, Finding, Location, Severity};
pub use links::{
    AuthConfig, CallersConfig, FtpsConfig, HttpClientConfig, HttpServerConfig, LinkConfig,
    MqttConfig, TlsIdentityConfig,
};
pub use otahost_core::grants::{CallGrant, Grants, LinkGrant, RouteGrant};
use otahost_core::model::Level;
pub use otahost_core::policy::Policy;
pub use otahost_core::secret::Secret;
pub use otahost_flash::ArchiveLimits;
pub(crate) use reader::is_name;
use reader::{Reader, Section};
pub use repositories::{RepositoryConfig, RepositoryPlace};
use toml::de::DeTable;

/// The largest configuration file.
const MAX_FILE: u64 = 1024 * 1024;

/// A whole configuration without faults.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// The device and this agent.
    pub device: Device,
    /// Links by name.
    pub links: BTreeMap<String, LinkConfig>,
    /// Targets by name, in the order of the file.
    pub targets: Vec<(String, TargetConfig)>,
    /// Adapters by name.
    pub adapters: BTreeMap<String, AdapterConfig>,
    /// Where new versions of them are looked for, by name.
    pub repositories: BTreeMap<String, RepositoryConfig>,
    /// Where alerts go, by name.
    pub alerts: BTreeMap<String, AlertConfig>,
    /// Where updates on media are looked for.
    pub offline: Option<OfflineConfig>,
    /// Budgets of every download.
    pub transfer: TransferConfig,
    /// How long a job may stay in each part of its way.
    pub deadlines: DeadlineConfig,
    /// What making native code of an adapter may cost, and whose is run that was made elsewhere.
    pub compiler: CompilerConfig,
}

/// The device and this agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Name of the device.
    pub id: String,
    /// Where the agent keeps what must survive. Absolute.
    pub data_dir: PathBuf,
    /// Program and arguments that restart the device.
    pub reboot: Vec<String>,
    /// File whose content changes with every boot.
    pub boot_id: PathBuf,
    /// Unix socket of the local API.
    pub socket: PathBuf,
    /// Where components of adapters lie under the adapters' names.
    pub adapters_dir: PathBuf,
}

/// Something that can be updated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetConfig {
    /// Where the target stands in the file.
    pub at: Location,
    /// How it is written.
    pub flasher: FlasherConfig,
    /// Whose images may be installed.
    pub trust: TrustConfig,
    /// Where the running version is read.
    pub version: VersionSource,
    /// Free attributes in the order of the file.
    pub attributes: Vec<(String, String)>,
    /// How long a new version has to prove itself after its first boot.
    pub confirm_within: Duration,
    /// The adapter that asked for a new version has to accept it, too.
    pub confirm_by_adapter: bool,
    /// Program whose exit status 0 says that the target is well.
    pub probe: Option<Vec<String>>,
    /// The target this one hangs on.
    pub parent: Option<String>,
    /// What says that it can be done without for the time of an update; `None`: it always can.
    pub ready: Option<Ready>,
    /// When which updates are allowed.
    pub policy: Policy,
    /// No update begins or is activated while one of these files exists. Absolute.
    pub lock: Vec<PathBuf>,
    /// Adapters in the order in which they go before each other; for [`otahost_core::policy::authority::outranks`].
    pub authority: Vec<String>,
}

/// What says that a target is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ready {
    /// It is while this file exists. Absolute.
    File(PathBuf),
    /// It is when this program exits with status 0: program and arguments.
    Command(Vec<String>),
}

/// How a target is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlasherConfig {
    /// Two places and a boot selector.
    Slots {
        /// Block devices or files. Absolute.
        slots: [PathBuf; 2],
        /// What selects the one that boots.
        boot: BootConfig,
    },
    /// A directory that an archive is unpacked into.
    Archive {
        /// The staging directory. Absolute.
        directory: PathBuf,
        /// Hands the directory over: program and first arguments.
        deliver: Option<Vec<String>>,
        /// How long it may take.
        timeout: Duration,
        /// What an archive may hold.
        limits: ArchiveLimits,
    },
    /// A program that installs.
    Command {
        /// The staging directory. Absolute.
        directory: PathBuf,
        /// Installs: program and first arguments.
        program: Vec<String>,
        /// Brings the old version back: program and first arguments.
        rollback: Option<Vec<String>>,
        /// The new version runs after a reboot only.
        reboot: bool,
        /// How long each of the two may take.
        timeout: Duration,
    },
}

/// A boot selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootConfig {
    /// Kept in this file. Absolute.
    File(PathBuf),
    /// Program and first arguments.
    Command(Vec<String>),
}

/// Whose images may be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustConfig {
    /// Anybody's: the operator said so in so many words.
    Unsigned,
    /// Those signed by one of these keys.
    Minisign {
        /// Public keys in base64; at least one, each of them valid.
        keys: Vec<String>,
        /// What the signed image must name as `compatible`.
        compatible: Option<String>,
    },
}

/// Where the running version is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionSource {
    /// In a file.
    File {
        /// The file. Absolute.
        file: PathBuf,
        /// Its lines are `KEY=value`, and this is the key; otherwise the whole file is the version.
        key: Option<String>,
    },
    /// Printed by a program: program and arguments.
    Command(Vec<String>),
}

/// A vendor protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Where its grants stand in the file; where the adapter stands when it has none.
    pub at: Location,
    /// Where its component is named in the file.
    pub component_at: Location,
    /// The component's file. It may be missing.
    pub component: PathBuf,
    /// Its own configuration; always an object.
    pub config: serde_json::Value,
    /// What it may do.
    pub grants: Grants,
    /// Where new versions of it come from.
    pub follows: Option<Follows>,
}

/// What an adapter is updated from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follows {
    /// Name of the repository.
    pub repository: String,
    /// What the adapter is called there.
    pub name: String,
}

/// Where updates on media are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineConfig {
    /// The directory a medium is mounted at. Absolute.
    pub path: PathBuf,
    /// Pause between two looks.
    pub every: Duration,
    /// Program that is told how it goes.
    pub progress: Option<Vec<String>>,
}

/// A sink of alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertConfig {
    /// Where it stands in the file.
    pub at: Location,
    /// The least level it wants.
    pub level: Level,
    /// How it is told.
    pub way: AlertWay,
}

/// How a sink is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlertWay {
    /// Program and first arguments.
    Command(Vec<String>),
    /// POST to this path of an API.
    Webhook {
        /// The API.
        client: Box<HttpClientConfig>,
        /// Path and query below its base.
        path: String,
    },
}

/// Budgets of every download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferConfig {
    /// Attempts before a download is given up.
    pub attempts: u32,
    /// Pause after the first failed attempt.
    pub backoff_first: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// An attempt fails when no byte came for so long.
    pub idle_timeout: Duration,
    /// Largest artifact in bytes.
    pub max_size: u64,
    /// Most jobs that transfer or hand over at the same time.
    pub parallel: u32,
}

impl Default for TransferConfig {
    fn default() -> Self {
        let reader = Reader::new(Path::new(""), "");
        read_transfer(&Section::new(
            &reader,
            &schema::TRANSFER,
            String::new(),
            0..0,
            &DeTable::new(),
        ))
    }
}

/// How long a job may stay in each part of its way, by a clock that does not jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadlineConfig {
    /// From the start of the download to the verified image.
    pub download: Duration,
    /// Waiting before it begins.
    pub waiting: Duration,
    /// Verified, and waiting to be applied.
    pub prepared: Duration,
    /// Reading back.
    pub install: Duration,
    /// Handing over to one target.
    pub deliver: Duration,
    /// Switching, up to the start of the new version.
    pub activate: Duration,
}

impl Default for DeadlineConfig {
    fn default() -> Self {
        let reader = Reader::new(Path::new(""), "");
        read_deadlines(&Section::new(
            &reader,
            &schema::DEADLINES,
            String::new(),
            0..0,
            &DeTable::new(),
        ))
    }
}

impl Config {
    /// Reads a configuration file. Files it names are looked at, secrets among them are read.
    ///
    /// # Errors
    /// All faults, in the order of the file.
    pub fn load(path: &Path) -> Result<Config, Faults> {
        Self::from_text(path, &read_file(path)?)
    }

    /// The same for a text that is at hand; `path` is where it would be.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn from_text(path: &Path, text: &str) -> Result<Config, Faults> {
        let reader = Reader::new(path, text);
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            syntax_faults(&reader, &errors);
            return Err(Faults::new(path, text, reader.into_findings()));
        }
        let root = Section::new(
            &reader,
            &schema::ROOT,
            String::new(),
            0..0,
            document.get_ref(),
        );
        let config = read(&root, path);
        let findings = reader.into_findings();
        match config {
            Some(config) if findings.is_empty() => Ok(config),
            _ => Err(Faults::new(path, text, findings)),
        }
    }

    /// Only the socket of the local API: what a client needs, who may not be allowed to read the secrets that a whole configuration
    /// names. Faults elsewhere in the file do not matter.
    ///
    /// # Errors
    /// The faults of the `[device]` table.
    pub fn socket_of(path: &Path) -> Result<PathBuf, Faults> {
        let text = read_file(path)?;
        let (document, errors) = DeTable::parse_recoverable(&text);
        let reader = Reader::new(path, &text);
        if !errors.is_empty() {
            syntax_faults(&reader, &errors);
            return Err(Faults::new(path, &text, reader.into_findings()));
        }
        let root = Section::new(
            &reader,
            &schema::ROOT,
            String::new(),
            0..0,
            document.get_ref(),
        );
        match device::read_socket(&root) {
            Some(socket) => Ok(socket),
            None => Err(Faults::new(path, &text, reader.into_findings())),
        }
    }

    /// The target with this name.
    pub fn target(&self, name: &str) -> Option<&TargetConfig> {
        self.targets.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }
}

fn read_file(path: &Path) -> Result<String, Faults> {
    let fault = |what: String, advice: &str| {
        Faults::new(path, "", vec![Finding::error(None, "", what, advice)])
    };
    let read = std::fs::metadata(path).and_then(|m| {
        if m.len() > MAX_FILE {
            Ok(None)
        } else {
            std::fs::read(path).map(Some)
        }
    });
    match read {
        Ok(Some(bytes)) => String::from_utf8(bytes).map_err(|e| {
            let line = e.as_bytes()[..e.utf8_error().valid_up_to()]
                .iter()
                .filter(|b| **b == b'\n')
                .count()
                + 1;
            fault(
                format!("line {line} is not UTF-8"),
                "save the file as UTF-8",
            )
        }),
        Ok(None) => Err(fault(
            "the file is larger than 1 MiB".into(),
            "is this the configuration at all? Name it with --config FILE",
        )),
        Err(e) => Err(fault(
            format!("cannot read the configuration: {e}"),
            "name the file with --config FILE; host/agent/README.md explains what is in it",
        )),
    }
}

fn syntax_faults(reader: &Reader, errors: &[toml::de::Error]) {
    // One slip can make the parser stumble many times; the first stumbles are the telling ones.
    for error in errors.iter().take(5) {
        let span = error.span().unwrap_or(0..0);
        let what = format!("this is no TOML: {}", error.message().replace('\n', "; "));
        reader.fault_showing(
            finding::Show::BeforeMark,
            &span,
            "",
            what,
            "mend the line; https://toml.io shows the format",
        );
    }
}

fn read(root: &Section<'_>, path: &Path) -> Option<Config> {
    let device::ReadDevice { device, data_dir } = device::read(root);
    let id = device.as_ref().map_or("", |d| d.id.as_str());
    let links = links::read(root, id);
    let (targets, places) = targets::read(root);
    places::check(root.reader, data_dir.as_ref(), &places);
    let adapters_dir = device.as_ref().map(|d| d.adapters_dir.as_path());
    let adapters = adapters::read(root, adapters_dir);
    let repositories = repositories::read(root);
    let alerts = alerts::read(root);
    let offline = match root.get("offline").map(|o| o.section(&schema::OFFLINE)) {
        None => None,
        Some(section) => Some(read_offline(&section?)),
    };
    let transfer = match root.get("transfer").map(|t| t.section(&schema::TRANSFER)) {
        None => TransferConfig::default(),
        Some(section) => read_transfer(&section?),
    };
    let deadlines = match root.get("deadlines").map(|d| d.section(&schema::DEADLINES)) {
        None => DeadlineConfig::default(),
        Some(section) => read_deadlines(&section?),
    };
    Some(Config {
        path: path.into(),
        device: device?,
        links,
        targets,
        adapters,
        repositories,
        alerts,
        offline: links::lift(offline)?,
        transfer,
        deadlines,
        compiler: compiler::read(root)?,
    })
}

fn read_offline(section: &Section<'_>) -> Option<OfflineConfig> {
    let path = section.require("path", "").and_then(|i| i.absolute_path());
    let progress = section.get("progress").map(|i| i.command());
    Some(OfflineConfig {
        every: section.duration("every", Duration::from_secs(1)..=Duration::from_secs(3_600)),
        path: path?,
        progress: links::lift(progress)?,
    })
}

fn read_transfer(section: &Section<'_>) -> TransferConfig {
    let (backoff_first, backoff_max) = backoff(section);
    TransferConfig {
        attempts: section.count("attempts", 1..=1000),
        backoff_first,
        backoff_max,
        idle_timeout: section.duration(
            "idle_timeout",
            Duration::from_secs(1)..=Duration::from_secs(3600),
        ),
        max_size: section.size("max_size"),
        parallel: section.count("parallel", 1..=64),
    }
}

fn read_deadlines(section: &Section<'_>) -> DeadlineConfig {
    let deadline = |name| {
        section.duration(
            name,
            Duration::from_secs(1)..=Duration::from_secs(365 * 86_400),
        )
    };
    DeadlineConfig {
        download: deadline("download"),
        waiting: deadline("waiting"),
        prepared: deadline("prepared"),
        install: deadline("install"),
        deliver: deadline("deliver"),
        activate: deadline("activate"),
    }
}

/// Names of a table of named things as they are written, so that one that is faulty itself does not make a second fault of every
/// mention.
fn written_names<'t>(root: &Section<'t>, kind: &str) -> Vec<&'t str> {
    let table = root.get(kind).filter(|i| i.value.is_table());
    let entries = table.map(|t| t.entries("")).unwrap_or_default();
    entries.into_iter().map(|(name, _)| name).collect()
}

/// `backoff_first` and `backoff_max` of a table that has both.
fn backoff(section: &Section<'_>) -> (Duration, Duration) {
    let range = Duration::from_millis(10)..=Duration::from_secs(86_400);
    let first = section.duration("backoff_first", range.clone());
    let max = section.duration("backoff_max", range);
    if first > max {
        let item = section
            .get("backoff_max")
            .or_else(|| section.get("backoff_first"));
        if let Some(item) = item {
            item.fault(
                "the longest pause is shorter than the first one",
                "make `backoff_max` at least as long as `backoff_first`",
            );
        }
    }
    (first, max)
}

/// The name of a link, target or adapter that is referred to, if there is one; otherwise a fault at `item`.
fn known<'a>(
    item: &reader::Item<'_>,
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> bool {
    if known.clone().any(|k| k == name) {
        return true;
    }
    let names: Vec<_> = known.collect();
    let kinds = match kind {
        "repository" => "repositories".to_owned(),
        kind => format!("{kind}s"),
    };
    let advice = match nearest::nearest(name, names.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if names.is_empty() => {
            format!("this file has no {kind} yet: add a table [{kinds}.{name}]")
        }
        None => format!("there is: {}", names.join(", ")),
    };
    item.reader.fault(
        &item.key_at,
        &item.path,
        format!("there is no {kind} `{name}`"),
        advice,
    );
    false
}
