//! The engine's platform, served by the simulated world.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use otahost::platform::{AdapterSetup, Outside, Platform, Workshop};
use otahost_core::model::{ClockQuality, Instant};
use otahost_disk::sim::SimDisk;
use otahost_disk::{Disk, Place};
use otahost_flash::Flasher;
use otahost_flash::slots::Slots;
use otahost_links::Link;

use super::alarm::SimAlarm;
use super::client::{SimClient, Vault};
use super::drone::DroneFlasher;
use super::emu::EmuFlasher;
use super::files::SimSources;
use super::folder::SimFolder;
use super::link::SimLink;
use super::machine::SLOTS;
use super::selector::SimSelector;
use super::web::SimWeb;
use super::{Broken, Scenario, World};

pub(super) type Shared = Arc<Mutex<World>>;

/// Virtual time, in one boot.
#[derive(Debug, Clone, Copy)]
pub(super) struct VirtualTime {
    began: tokio::time::Instant,
    past: u64,
}

impl VirtualTime {
    /// A boot begins now.
    pub(super) fn boot(world: &Shared) -> Self {
        VirtualTime {
            began: tokio::time::Instant::now(),
            past: world.lock().unwrap().past,
        }
    }

    /// Milliseconds since the boot.
    pub(super) fn uptime(self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since the story's beginning.
    pub(super) fn now(self) -> u64 {
        self.past + self.uptime()
    }

    /// The moment of a virtual time, for sleeping until then; now, where it has passed.
    pub(super) fn moment(self, at: u64) -> tokio::time::Instant {
        self.began + std::time::Duration::from_millis(at.saturating_sub(self.past))
    }

    /// Sleeps until then, or for ever.
    pub(super) async fn sleep_until(self, at: Option<u64>) {
        match at {
            Some(at) => tokio::time::sleep_until(self.moment(at)).await,
            None => std::future::pending().await,
        }
    }
}

/// What the engine stands on in one boot.
pub(super) fn platform(
    disk: &SimDisk,
    world: &Shared,
    time: VirtualTime,
    scenario: &Scenario,
) -> Platform {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let selector = SimSelector::new(world, disk, scenario.broken == Broken::MarkReadBack);
    let slots: Arc<dyn Flasher> = Arc::new(Slots::new(
        shared.clone(),
        SLOTS.map(Place::operator),
        Box::new(selector),
    ));
    let slots = scenario.broken.flasher(slots, world, disk);
    let drone: Arc<dyn Flasher> = Arc::new(DroneFlasher {
        world: world.clone(),
        disk: disk.clone(),
    });
    let vault = Vault::new(scenario.broken == Broken::SecretWait);
    let emu: Arc<dyn Flasher> = Arc::new(EmuFlasher::new(world.clone(), disk.clone()));
    let emu = scenario.broken.flasher(emu, world, disk);
    Platform {
        disk: shared,
        journal: Place::data("journal.redb"),
        seam: scenario.seam,
        links: links(world, time, &vault, scenario.broken),
        sources: Arc::new(SimSources {
            world: world.clone(),
            time,
            vault,
        }),
        flashers: BTreeMap::from([
            ("dock".to_owned(), slots),
            ("drone".to_owned(), drone),
            ("emu".to_owned(), emu),
        ]),
        workshop: Arc::new(Bench),
        alarm: Arc::new(SimAlarm {
            world: world.clone(),
            time,
        }),
        outside: Arc::new(SimOutside {
            world: world.clone(),
            time,
            boots_have_one_name: scenario.broken == Broken::BootId,
        }),
        process: String::new(),
        locks: Default::default(),
    }
}

/// A broker, somebody who calls, an API that is called, and a server with folders.
fn links(
    world: &Shared,
    time: VirtualTime,
    vault: &Vault,
    broken: Broken,
) -> BTreeMap<String, Arc<dyn Link>> {
    let cloud: Arc<dyn Link> = Arc::new(SimLink {
        world: world.clone(),
        time,
        renumbers: broken == Broken::Redelivery,
    });
    let web: Arc<dyn Link> = Arc::new(SimWeb {
        world: world.clone(),
        time,
    });
    let api: Arc<dyn Link> = Arc::new(SimClient {
        world: world.clone(),
        time,
        vault: vault.clone(),
    });
    let folder: Arc<dyn Link> = Arc::new(SimFolder {
        world: world.clone(),
        time,
    });
    let named = [
        ("cloud", cloud),
        ("web", web),
        ("api", api),
        ("folder", folder),
    ];
    named
        .into_iter()
        .map(|(name, link)| (name.to_owned(), link))
        .collect()
}

/// Knows both releases of the rogue, and keeps whatever it is given: that a store keeps is the store's own test.
#[derive(Debug)]
struct Bench;

impl Workshop for Bench {
    fn take(&self, adapter: &str, component: &[u8]) -> Result<AdapterSetup, String> {
        releases()
            .into_iter()
            .find(|(bytes, _)| bytes == component)
            .map(|(_, setup)| setup)
            .filter(|setup| setup.name == adapter)
            .ok_or_else(|| "it is no release of the rogue".into())
    }

    fn look(&self, adapter: &str, component: &[u8]) -> Result<AdapterSetup, String> {
        self.take(adapter, component)
    }

    fn prepare(&self, adapter: &str, digest: &str) -> Result<AdapterSetup, String> {
        releases()
            .into_iter()
            .map(|(_, setup)| setup)
            .find(|setup| setup.name == adapter && setup.component.digest() == digest)
            .ok_or_else(|| format!("{digest} is not kept"))
    }
}

fn releases() -> Vec<(Vec<u8>, AdapterSetup)> {
    ["rogue", "rogue-next"].map(super::story::release).into()
}

#[derive(Debug)]
struct SimOutside {
    world: Shared,
    time: VirtualTime,
    boots_have_one_name: bool,
}

impl SimOutside {
    fn shows(&self) -> (u64, bool) {
        let mut world = self.world.lock().unwrap();
        world.past = self.time.now();
        world.clock.shows(self.time.now(), self.time.uptime())
    }
}

impl Outside for SimOutside {
    fn boot_id(&self) -> String {
        if self.boots_have_one_name {
            return "boot".into();
        }
        format!("boot-{}", self.world.lock().unwrap().boots)
    }
    fn now(&self) -> Instant {
        self.shows().0
    }
    fn clock(&self) -> ClockQuality {
        match self.shows() {
            (_, true) => ClockQuality::Synced,
            (_, false) => ClockQuality::Unset,
        }
    }
    fn uptime(&self) -> u64 {
        self.time.uptime()
    }
    fn seed(&self) -> [u8; 32] {
        let mut world = self.world.lock().unwrap();
        world.seeds += 1;
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&world.seeds.to_be_bytes());
        seed
    }
    fn version(&self, target: &str) -> Result<String, String> {
        let world = self.world.lock().unwrap();
        Ok(match target {
            "drone" => world.drone.version(),
            "emu" => world.emu.version.clone(),
            _ => world.version.clone(),
        })
    }
    fn probe(&self, target: &str) -> Result<(), String> {
        let world = self.world.lock().unwrap();
        let is_well = match target {
            "drone" => world.drone.is_well(),
            "emu" => true,
            _ => self.time.uptime() >= world.well_after && !world.ill.contains(&world.version),
        };
        is_well
            .then_some(())
            .ok_or_else(|| "it does not answer".into())
    }
    fn locked(&self, _target: &str) -> Option<String> {
        let is_locked = self.world.lock().unwrap().is_locked(self.time.now());
        is_locked.then(|| "/run/no-update".to_owned())
    }
    fn ready(&self, _target: &str) -> Result<(), String> {
        let ready = self.world.lock().unwrap().is_ready(self.time.now());
        ready
            .then_some(())
            .ok_or_else(|| "the drone is in the air".into())
    }
    fn reboot(&self) -> Result<(), String> {
        let mut world = self.world.lock().unwrap();
        world.reboots += 1;
        if world.ready_after > self.time.now() || !world.ready_answers.is_empty() {
            let fault = "the dock was rebooted while it was not ready";
            world.faults.push(fault.into());
        }
        if world.is_locked(self.time.now()) {
            let fault = "the dock was rebooted while it was locked";
            world.faults.push(fault.into());
        }
        Ok(())
    }
}
