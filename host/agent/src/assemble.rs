//! From the configuration to what the engine stands on: links, flashers, adapters compared with their grants.
//!
//! `otahost check` and `otahost run` go the same way here, so that what the one finds is what stops the other.

mod links;
mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use otahost_core::backoff::Backoff;
use otahost_core::model::Field;
use otahost_disk::{Disk, Place, RealDisk, Seam};
use otahost_flash::boot::{BootSelector, CommandSelector, FileSelector};
use otahost_flash::slots::Slots;
use otahost_flash::{
    Archive, ArchiveSetup, CommandFlasher, CommandSetup, FlashError, Flasher, Program,
};
use otahost_sandbox::{Limits, Sandbox};
use otahost_transfer::{Trust, TrustKeys, Tuning};

use crate::alerts::Sink;
use crate::config::{
    AdapterConfig, BootConfig, Config, Finding, FlasherConfig, TargetConfig, TrustConfig,
};
use crate::offline::{Offline, OfflineTarget};
use crate::outside::{Device, TargetQuestions};
use crate::platform::{
    AdapterSetup, Deadlines, Locks, Platform, Setup, TargetSetup, TransferSetup,
};
use crate::sources::RealSources;

use self::store::Store;

/// The largest component file.
const MAX_COMPONENT: u64 = 32 * 1024 * 1024;
/// Time for a connection to a file server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything the configuration says, ready to run.
#[derive(Debug)]
pub struct Assembled {
    /// What the engine is told.
    pub setup: Setup,
    made: links::Links,
    sinks: Vec<Sink>,
    sandbox: Sandbox,
    /// Where updates on media are looked for.
    pub offline: Option<Offline>,
}

/// Loads every adapter and compares what it asks for with what it is granted; makes the links. Nothing is started or written.
///
/// # Errors
/// Everything that stands against a start, each with the place in the configuration.
pub fn assemble(config: &Config) -> Result<Assembled, Vec<Finding>> {
    let mut findings = Vec::new();
    let sandbox = match Sandbox::new(Limits::default()) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            let advice = "this host cannot run WebAssembly; is it a supported processor?";
            return Err(vec![Finding::error(
                None,
                "",
                format!("the sandbox does not start: {error}"),
                advice,
            )]);
        }
    };
    let mut adapters = Vec::new();
    for (name, adapter) in &config.adapters {
        match load(&sandbox, name, adapter) {
            Ok(setup) => {
                for denial in adapter.grants.denials(&setup.requirements) {
                    findings.push(Finding::error(
                        Some(adapter.at),
                        format!("adapters.{name}.grants"),
                        format!("the adapter asks to {}, which is not granted", denial.asked),
                        format!("add {}", denial.missing),
                    ));
                }
                adapters.push(setup);
            }
            Err(more) => findings.extend(more),
        }
    }
    let made = links::make(config, &mut findings);
    let at = |name: &str| config.adapters.get(name).map(|a| a.at);
    links::check(&adapters, at, &made, &mut findings);
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
    if !findings.is_empty() {
        return Err(findings);
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
    });
    Ok(Assembled {
        setup,
        made,
        sinks,
        sandbox,
        offline,
    })
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

fn load(
    sandbox: &Sandbox,
    name: &str,
    config: &AdapterConfig,
) -> Result<AdapterSetup, Vec<Finding>> {
    let fault = |key: &str, what: String, advice: &str| {
        vec![Finding::error(
            Some(config.at),
            format!("adapters.{name}.{key}"),
            what,
            advice,
        )]
    };
    let bytes = read_component(&config.component)
        .map_err(|what| fault("component", what, "build it with `adapter build`"))?;
    let file = config.component.display().to_string();
    make_ready(sandbox, name, config, &file, &bytes)
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
    sandbox: &Sandbox,
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
    let component = sandbox.load(name, bytes).map_err(|e| {
        fault(
            "component",
            format!("{file} is refused: {e}"),
            "build it anew with `adapter build`",
        )
    })?;
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

/// Opens the data directory and joins everything for [`crate::engine::Engine::start`].
///
/// # Errors
/// The data directory cannot be used, the boot id cannot be read, or a target cannot be flashed.
pub fn platform(config: &Config, assembled: &Assembled) -> Result<Platform, Vec<Finding>> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&config.device.data_dir).map_err(|e| {
        let what = format!("the data directory cannot be used: {e}");
        vec![Finding::error(
            None,
            "device.data_dir",
            what,
            "give a directory of its own that the agent can write; one agent at a time",
        )]
    })?);
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
        assembled.sandbox.clone(),
        config.adapters.clone(),
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
        process: format!("{} {:?}", std::process::id(), std::time::SystemTime::now()),
        locks: Locks::default(),
    })
}
