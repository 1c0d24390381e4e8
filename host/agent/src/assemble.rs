//! From the configuration to what the engine stands on: links, flashers, adapters compared with their grants.
//!
//! `otahost check` and `otahost run` go the same way here, so that what the one finds is what stops the other.

pub(crate) mod drop_in;
mod links;
mod loader;
mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use otahost_adapters::RepositorySource;
use otahost_core::backoff::Backoff;
use otahost_core::model::Field;
use otahost_disk::{Disk, Place, RealDisk, Seam};
use otahost_flash::boot::{BootSelector, CommandSelector, FileSelector};
use otahost_flash::slots::Slots;
use otahost_flash::{
    Archive, ArchiveSetup, CommandFlasher, CommandSetup, FlashError, Flasher, Program,
};
use otahost_transfer::{Trust, TrustKeys, Tuning};

use crate::alerts::Sink;
use crate::config::{
    AdapterConfig, BootConfig, Config, Finding, FlasherConfig, RepositoryPlace, TargetConfig,
    TrustConfig,
};
use crate::offline::{Offline, OfflineTarget};
use crate::outside::{Device, TargetQuestions};
use crate::platform::{
    AdapterSetup, Deadlines, FaultyAdapter, Locks, Platform, Setup, TargetSetup, TransferSetup,
};
use crate::repository::Followed;
use crate::sources::RealSources;

#[cfg(feature = "compiler")]
pub(crate) use self::loader::COMPILE_CHILD;
#[cfg(feature = "compiler")]
pub(crate) use self::loader::COMPILED;
pub use self::loader::Loader;
use self::store::Store;
pub(crate) use self::store::digest_of;

/// The largest component file.
pub(crate) const MAX_COMPONENT: u64 = 32 * 1024 * 1024;
/// Time for a connection to a file server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a process has once, whatever its configuration becomes. Cloning is cheap and shares everything.
#[derive(Debug, Clone)]
pub struct Base {
    /// The data directory, locked.
    pub disk: Arc<dyn Disk>,
    /// Makes adapters of components, with the native code in the data directory.
    pub loader: Loader,
    process: String,
    locks: Locks,
}

impl Base {
    /// Opens and locks the data directory.
    ///
    /// # Errors
    /// It cannot be used, or this host runs no WebAssembly.
    pub fn open(config: &Config) -> Result<Base, Vec<Finding>> {
        let disk: Arc<dyn Disk> =
            Arc::new(RealDisk::new(&config.device.data_dir).map_err(|e| {
                let what = format!("the data directory cannot be used: {e}");
                vec![Finding::error(
                    None,
                    "device.data_dir",
                    what,
                    "give a directory of its own that the agent can write; one agent at a time",
                )]
            })?);
        Ok(Base {
            loader: loader()?.with_cache(&disk),
            disk,
            process: format!("{} {:?}", std::process::id(), std::time::SystemTime::now()),
            locks: Locks::default(),
        })
    }
}

/// Makes adapters of files, with processes of this executable, which has to be the agent's. It keeps nothing.
///
/// # Errors
/// This host runs no WebAssembly.
pub fn loader() -> Result<Loader, Vec<Finding>> {
    Loader::new().map_err(|error| {
        let advice = "this host cannot run WebAssembly; is it a supported processor?";
        let what = format!("the sandbox does not start: {error}");
        vec![Finding::error(None, "", what, advice)]
    })
}

/// Everything the configuration says, ready to run.
#[derive(Debug)]
pub struct Assembled {
    /// What the engine is told.
    pub setup: Setup,
    /// What stands against adapters. It is no reason not to start: the engine sets those aside that cannot run.
    pub faults: Vec<Finding>,
    made: links::Links,
    sinks: Vec<Sink>,
    loader: Loader,
    /// Where updates on media are looked for.
    pub offline: Option<Offline>,
    /// Where new versions of adapters are looked for.
    pub repositories: Vec<Followed>,
}

/// Loads every adapter and compares what it asks for with what it is granted; makes the links. Nothing is started or written.
///
/// # Errors
/// Everything that is wrong with the configuration, each with its place, when the agent cannot start with it. What stands against
/// adapters alone is no error: a device whose adapter has a bad file must still confirm its firmware.
pub fn assemble(config: &Config, loader: &Loader) -> Result<Assembled, Vec<Finding>> {
    let (mut findings, mut faults) = (Vec::new(), Vec::new());
    let loader = loader.within(&config.compiler);
    let (mut adapters, mut faulty) = (Vec::new(), Vec::new());
    for (name, adapter) in &config.adapters {
        match load(&loader, name, adapter) {
            Ok(setup) => {
                for denial in adapter.grants.denials(&setup.requirements) {
                    faults.push(Finding::error(
                        Some(adapter.at),
                        format!("adapters.{name}.grants"),
                        format!("the adapter asks to {}, which is not granted", denial.asked),
                        format!("add {}", denial.missing),
                    ));
                }
                adapters.push(setup);
            }
            Err(found) => {
                let texts: Vec<&str> = found.iter().map(|finding| finding.what.as_str()).collect();
                faulty.push(FaultyAdapter {
                    name: name.clone(),
                    config: adapter.config.to_string(),
                    grants: adapter.grants.clone(),
                    why: texts.join("; "),
                });
                faults.extend(found);
            }
        }
    }
    let made = links::make(config, &mut findings);
    let at = |name: &str| config.adapters.get(name).map(|a| a.at);
    links::check(&adapters, at, &made, &mut faults);
    let sinks = links::sinks(config, &mut findings);
    let mut targets = Vec::new();
    for (id, target) in &config.targets {
        match trust(&target.trust) {
            Ok(trust) => targets.push(TargetSetup {
                id: id.clone(),
                parent: target.parent.clone(),
                attributes: target
                    .attributes
                    .iter()
                    .map(|(n, v)| Field {
                        name: n.clone(),
                        value: v.clone(),
                    })
                    .collect(),
                trust,
                compatible: match &target.trust {
                    TrustConfig::Minisign { compatible, .. } => compatible.clone(),
                    TrustConfig::Unsigned => None,
                },
                confirm_within: target.confirm_within,
                confirm_by_adapter: target.confirm_by_adapter,
                policy: target.policy.clone(),
                authority: target.authority.clone(),
            }),
            Err(what) => {
                let key = format!("targets.{id}.trust");
                findings.push(Finding::error(
                    Some(target.at),
                    key,
                    what,
                    "give minisign public keys; `otahost keygen` makes a pair",
                ));
            }
        }
    }
    let repositories = followed(config, &mut findings);
    if !findings.is_empty() {
        faults.extend(findings);
        return Err(faults);
    }
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let transfer = TransferSetup {
        attempts: config.transfer.attempts,
        backoff: Backoff {
            first: millis(config.transfer.backoff_first),
            max: millis(config.transfer.backoff_max),
        },
        max_size: config.transfer.max_size,
        parallel: config.transfer.parallel as usize,
        tuning: Tuning::default(),
    };
    let setup = Setup {
        device: config.device.id.clone(),
        adapters,
        faulty,
        targets,
        transfer,
        deadlines: Deadlines {
            waiting: config.deadlines.waiting,
            download: config.deadlines.download,
            prepared: config.deadlines.prepared,
            install: config.deadlines.install,
            deliver: config.deadlines.deliver,
            activate: config.deadlines.activate,
        },
    };
    let offline = config.offline.as_ref().map(|offline| Offline {
        device: config.device.id.clone(),
        path: offline.path.clone(),
        every: offline.every,
        progress: offline.progress.clone(),
        targets: setup.targets.iter().filter_map(offline_target).collect(),
        seam: Seam::Threads,
    });
    Ok(Assembled {
        setup,
        faults,
        made,
        sinks,
        loader,
        offline,
        repositories,
    })
}

/// Every repository, with the adapters that are updated from it.
fn followed(config: &Config, findings: &mut Vec<Finding>) -> Vec<Followed> {
    let mut all = Vec::new();
    for (name, repository) in &config.repositories {
        let (source, directory) = match &repository.place {
            RepositoryPlace::Directory(path) => {
                (RepositorySource::directory(path), Some(path.clone()))
            }
            RepositoryPlace::Https { url, ca } => {
                (RepositorySource::https(url.as_str(), ca.clone()), None)
            }
        };
        let adapters = config.adapters.iter().filter_map(|(adapter, config)| {
            let follows = config.follows.as_ref().filter(|f| f.repository == *name)?;
            Some((adapter.clone(), follows.name.clone()))
        });
        match source {
            Ok(source) => all.push(Followed {
                name: name.clone(),
                source,
                directory,
                root: repository.root.clone(),
                every: repository.every,
                adapters: adapters.collect(),
            }),
            Err(error) => findings.push(Finding::error(
                Some(repository.at),
                format!("repositories.{name}"),
                error.to_string(),
                "",
            )),
        }
    }
    all
}

/// Only a target that says whose files it takes, and which, is updated without a person's word.
fn offline_target(target: &TargetSetup) -> Option<OfflineTarget> {
    match (&target.trust, &target.compatible) {
        (Trust::Minisign(keys), Some(compatible)) => Some(OfflineTarget {
            id: target.id.clone(),
            compatible: compatible.clone(),
            keys: keys.clone(),
        }),
        _ => None,
    }
}

fn trust(config: &TrustConfig) -> Result<Trust, String> {
    match config {
        TrustConfig::Unsigned => Ok(Trust::Unsigned),
        TrustConfig::Minisign { keys, .. } => TrustKeys::parse(keys)
            .map(Trust::Minisign)
            .map_err(|e| e.to_string()),
    }
}

fn load(loader: &Loader, name: &str, config: &AdapterConfig) -> Result<AdapterSetup, Vec<Finding>> {
    let bytes = read_component(&config.component).map_err(|what| {
        vec![Finding::error(
            Some(config.component_at),
            format!("adapters.{name}.component"),
            format!("the component {what}"),
            "put the file there, or correct the path (relative paths start at the directory of this file)",
        )]
    })?;
    let file = config.component.display().to_string();
    make_ready(loader, name, config, &file, &bytes)
}

/// A component's file.
///
/// # Errors
/// It is too large or cannot be read.
pub(crate) fn read_component(path: &Path) -> Result<Vec<u8>, String> {
    let file = path.display();
    if std::fs::metadata(path).is_ok_and(|m| m.len() > MAX_COMPONENT) {
        return Err(format!("{file} is larger than 32 MiB"));
    }
    std::fs::read(path).map_err(|e| format!("{file} cannot be read: {e}"))
}

/// Loads a component as this adapter and asks it what it wants.
fn make_ready(
    loader: &Loader,
    name: &str,
    config: &AdapterConfig,
    file: &str,
    bytes: &[u8],
) -> Result<AdapterSetup, Vec<Finding>> {
    let fault = |key: &str, what: String, advice: &str| {
        vec![Finding::error(
            Some(config.at),
            format!("adapters.{name}.{key}"),
            what,
            advice,
        )]
    };
    let loaded = loader.load(name, bytes).map_err(|e| {
        fault(
            "component",
            format!("{file} is refused: {e}"),
            loader::advice(&e),
        )
    })?;
    let (component, how) = (loaded.adapter, loaded.how);
    let broken = |what: &str, e: String| {
        fault(
            "component",
            format!("{file} fails at `{what}`: {e}"),
            "this is a fault of the adapter",
        )
    };
    let description = component
        .describe()
        .map_err(|e| broken("describe", e.to_string()))?;
    let text = config.config.to_string();
    let requirements = component
        .requirements(&text)
        .map_err(|e| broken("requirements", e.to_string()))?
        .map_err(|faults| {
            let advice = format!("`adapters.{name}.config` is explained in the adapter's README");
            faults
                .into_iter()
                .flat_map(|f| fault("config", f, &advice))
                .collect::<Vec<_>>()
        })?;
    Ok(AdapterSetup {
        name: name.to_owned(),
        component,
        how,
        description,
        requirements,
        config: text,
        grants: config.grants.clone(),
    })
}

/// The boot selector of a target.
///
/// # Errors
/// What makes it impossible.
pub fn selector(
    disk: Arc<dyn Disk>,
    boot: &BootConfig,
) -> Result<Box<dyn BootSelector>, FlashError> {
    Ok(match boot {
        BootConfig::File(path) => Box::new(FileSelector::new(disk, Place::operator(path))),
        BootConfig::Command(command) => Box::new(CommandSelector::new(command.clone())?),
    })
}

/// The flasher of a target.
///
/// # Errors
/// What makes the boot selector impossible.
pub fn flasher(disk: Arc<dyn Disk>, target: &TargetConfig) -> Result<Arc<dyn Flasher>, FlashError> {
    let within = |command: &Vec<String>, timeout: &Duration| Program {
        command: command.clone(),
        timeout: *timeout,
    };
    Ok(match &target.flasher {
        FlasherConfig::Slots { slots, boot } => {
            let selector = selector(disk.clone(), boot)?;
            Arc::new(Slots::new(
                disk,
                slots.clone().map(Place::operator),
                selector,
            ))
        }
        FlasherConfig::Archive {
            directory,
            deliver,
            timeout,
            limits,
        } => Arc::new(Archive::new(
            disk,
            ArchiveSetup {
                directory: Place::operator(directory),
                deliver: deliver.as_ref().map(|command| within(command, timeout)),
                limits: *limits,
            },
        )),
        FlasherConfig::Command {
            directory,
            program,
            rollback,
            reboot,
            timeout,
        } => Arc::new(CommandFlasher::new(
            disk,
            CommandSetup {
                directory: Place::operator(directory),
                program: within(program, timeout),
                rollback: rollback.as_ref().map(|command| within(command, timeout)),
                reboot: *reboot,
            },
        )),
    })
}

/// The flashers of all targets, each looked at.
///
/// # Errors
/// What stands against flashing them.
pub fn flashers(
    disk: &Arc<dyn Disk>,
    config: &Config,
) -> Result<BTreeMap<String, Arc<dyn Flasher>>, Vec<Finding>> {
    let mut flashers = BTreeMap::new();
    let mut findings = Vec::new();
    for (id, target) in &config.targets {
        match flasher(disk.clone(), target).and_then(|f| f.inspect().map(|()| f)) {
            Ok(flasher) => {
                flashers.insert(id.clone(), flasher);
            }
            Err(error) => {
                let what = format!("the target cannot be flashed: {error}");
                let advice = "mend the slots, the boot selector or the staging directory";
                findings.push(Finding::error(
                    Some(target.at),
                    format!("targets.{id}"),
                    what,
                    advice,
                ));
            }
        }
    }
    if findings.is_empty() {
        Ok(flashers)
    } else {
        Err(findings)
    }
}

/// Joins everything for [`crate::engine::Engine::start`].
///
/// # Errors
/// The boot id cannot be read, or a target cannot be flashed.
pub fn platform(
    config: &Config,
    assembled: &Assembled,
    base: &Base,
) -> Result<Platform, Vec<Finding>> {
    let disk = base.disk.clone();
    let questions: BTreeMap<String, TargetQuestions> = config
        .targets
        .iter()
        .map(|(id, t)| {
            (
                id.clone(),
                TargetQuestions {
                    version: t.version.clone(),
                    probe: t.probe.clone(),
                    ready: t.ready.clone(),
                    lock: t.lock.clone(),
                },
            )
        })
        .collect();
    let outside = Device::new(
        &config.device.boot_id,
        config.device.reboot.clone(),
        questions,
    )
    .map_err(|e| {
        vec![Finding::error(
            None,
            "device.boot_id",
            e.to_string(),
            "name a file whose content changes with every boot",
        )]
    })?;
    let flashers = flashers(&disk, config)?;
    let store = Store::new(
        disk.clone(),
        assembled.loader.clone(),
        config.adapters.clone(),
        assembled
            .setup
            .adapters
            .iter()
            .map(|adapter| adapter.component.digest().to_owned())
            .collect(),
    );
    Ok(Platform {
        disk,
        journal: Place::data("journal.redb"),
        seam: Seam::Threads,
        links: assembled.made.links.clone(),
        sources: Arc::new(RealSources {
            idle_timeout: config.transfer.idle_timeout,
            connect_timeout: CONNECT_TIMEOUT,
            links: assembled.made.files.clone(),
        }),
        flashers,
        workshop: Arc::new(store),
        alarm: crate::alerts::shared(assembled.sinks.clone()),
        outside: Arc::new(outside),
        process: base.process.clone(),
        locks: base.locks.clone(),
    })
}
