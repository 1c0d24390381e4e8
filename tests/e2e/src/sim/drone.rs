//! The drone in the dock: a second device that takes its new version at once, without a reboot, and is not always obedient.
//!
//! What is staged for it lies on the dock's disk; what it runs is its own, and a power cut of the dock takes nothing from it.

use std::sync::{Arc, Mutex};

use otahost_disk::sim::SimDisk;
use otahost_disk::{Disk, DiskFile, Open, Place};
use otahost_flash::{Activation, FlashError, Flasher, Stage, Staged, Standing, Work};

use super::World;
use super::machine::{SELECTOR, SLOTS, inspect};

/// Where its images wait. There from the start, so that its name is durable.
pub(super) const STAGE: &str = "/device/for-the-drone";

/// What the drone does with a new version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Manner {
    /// It takes it.
    #[default]
    Takes,
    /// It refuses it.
    Refuses,
    /// It takes it, and goes on to report the old version.
    StaysOld,
    /// It takes it and is never well again.
    FallsIll,
    /// It takes it, is never well again, and cannot be given the old version back.
    StaysIll,
}

/// The drone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Drone {
    /// What it does with a new version.
    pub manner: Manner,
    /// The version it left the factory with.
    pub factory: String,
    /// SHA-256 and version of what it was given and runs; nothing: what it left the factory with.
    pub runs: Option<(String, String)>,
    /// What it runs is permanent.
    pub confirmed: bool,
    /// SHA-256 of what it was given and taken away from.
    pub taken_back: Option<String>,
    /// How often it was given a new version.
    pub activations: u32,
    /// It is ordered alone: no image for the dock has to be here before it is given its own.
    pub alone: bool,
}

impl Drone {
    /// What it reports.
    pub fn version(&self) -> String {
        match &self.runs {
            Some((_, version)) if self.manner != Manner::StaysOld => version.clone(),
            _ => self.factory.clone(),
        }
    }

    /// Whether it is well.
    pub fn is_well(&self) -> bool {
        !matches!(self.manner, Manner::FallsIll | Manner::StaysIll) || self.runs.is_none()
    }

    fn is_given(&self, staged: &Staged) -> bool {
        self.runs
            .as_ref()
            .is_some_and(|(sha256, _)| *sha256 == staged.sha256)
    }
}

/// The drone as the agent writes it.
#[derive(Debug)]
pub(super) struct DroneFlasher {
    pub world: Arc<Mutex<World>>,
    pub disk: SimDisk,
}

fn io_error(error: std::io::Error) -> FlashError {
    FlashError::Io(error.to_string())
}

impl DroneFlasher {
    fn staged(&self, staged: &Staged) -> Result<String, FlashError> {
        let bytes = self
            .disk
            .read_outside(&Place::operator(STAGE))
            .unwrap_or_default();
        match inspect(&bytes) {
            Some((version, _)) if bytes.len() as u64 == staged.len => Ok(version),
            _ => Err(FlashError::Corrupt(
                "what is staged for the drone is not whole".into(),
            )),
        }
    }

    /// Every image that was ordered has to be here and verified before the first is used, and the dock's own has to wait.
    fn check_order(&self, world: &mut World) {
        let dock = self
            .disk
            .read_outside(&Place::operator(SLOTS[1 - world.slot]))
            .unwrap_or_default();
        if !world.drone.alone && inspect(&dock).is_none() {
            let fault = "the drone was given its version before the dock's was here";
            world.faults.push(fault.into());
        }
        let selector = self
            .disk
            .read_outside(&Place::operator(SELECTOR))
            .unwrap_or_default();
        // A dock that was switched first has been asked to reboot, or is about to be.
        if world.reboots > 0 || String::from_utf8_lossy(&selector).contains("trial") {
            let fault = "the dock was switched before the drone";
            world.faults.push(fault.into());
        }
    }
}

#[derive(Debug)]
struct DroneStage(Arc<dyn DiskFile>);

impl Stage for DroneStage {
    fn capacity(&self) -> Option<u64> {
        None
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), FlashError> {
        self.0.write_at(bytes, offset).map_err(io_error)
    }
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> Result<(), FlashError> {
        self.0.read_exact_at(into, offset).map_err(io_error)
    }
    fn sync(&self) -> Result<(), FlashError> {
        self.0.sync().map_err(io_error)
    }
}

impl Flasher for DroneFlasher {
    fn inspect(&self) -> Result<(), FlashError> {
        Ok(())
    }

    fn begin(&self, _resume: bool) -> Result<Box<dyn Stage>, FlashError> {
        let place = Place::operator(STAGE);
        let file = self.disk.open(&place, Open::Write).map_err(io_error)?;
        Ok(Box::new(DroneStage(file)))
    }

    fn finish(&self, len: u64, sha256: &str) -> Result<Staged, FlashError> {
        let place = Place::operator(STAGE);
        let file = self.disk.open(&place, Open::Write).map_err(io_error)?;
        file.set_len(len).map_err(io_error)?;
        file.sync().map_err(io_error)?;
        Ok(Staged {
            place: "drone".into(),
            len,
            sha256: sha256.to_owned(),
        })
    }

    fn verify(&self, staged: &Staged) -> Result<(), FlashError> {
        self.staged(staged).map(drop)
    }

    fn activate(&self, staged: &Staged, _work: &Work<'_>) -> Result<Activation, FlashError> {
        let version = self.staged(staged)?;
        let mut world = self.world.lock().unwrap();
        if world.drone.is_given(staged) {
            return Ok(Activation::Now);
        }
        self.check_order(&mut world);
        if world.drone.manner == Manner::Refuses {
            return Err(FlashError::Io("the drone refuses the file".into()));
        }
        world.drone.activations += 1;
        world.drone.confirmed = false;
        world.drone.runs = Some((staged.sha256.clone(), version));
        Ok(Activation::Now)
    }

    fn standing(&self, staged: &Staged) -> Result<Standing, FlashError> {
        let drone = self.world.lock().unwrap().drone.clone();
        Ok(if drone.is_given(staged) {
            Standing::New {
                confirmed: drone.confirmed,
            }
        } else if drone.taken_back.as_ref() == Some(&staged.sha256) {
            Standing::FellBack
        } else {
            Standing::NotActivated
        })
    }

    fn confirm(&self, staged: &Staged) -> Result<(), FlashError> {
        let drone = &mut self.world.lock().unwrap().drone;
        if !drone.is_given(staged) {
            return Err(FlashError::Selector("the drone runs something else".into()));
        }
        drone.confirmed = true;
        Ok(())
    }

    fn roll_back(&self, staged: &Staged, _work: &Work<'_>) -> Result<Activation, FlashError> {
        let drone = &mut self.world.lock().unwrap().drone;
        if drone.manner == Manner::StaysIll {
            return Err(FlashError::Io("the drone takes nothing any more".into()));
        }
        if drone.is_given(staged) {
            drone.runs = None;
            drone.taken_back = Some(staged.sha256.clone());
        }
        Ok(Activation::Now)
    }
}
