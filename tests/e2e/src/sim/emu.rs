//! A device behind the dock that is handed a directory, by the real `archive` flasher on the simulated disk.
//!
//! What a delivery program would do is done here in its place: it pushes the file `version` of the directory to the device, which runs
//! it from then on, or not.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use otahost_disk::sim::{Image, SimDisk};
use otahost_disk::{Disk, Place};
use otahost_flash::archive::ArchiveSetup;
use otahost_flash::{
    Activation, Archive, ArchiveLimits, FlashError, Flasher, Stage, Staged, Standing, Work,
};

use super::World;

/// Where its archives are staged and unpacked.
pub(super) const EMU_DIRECTORY: &str = "/device/emu";

/// The device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Emu {
    /// What it reports.
    pub version: String,
    /// How often it was given something.
    pub pushes: u32,
    /// It does not answer to so many pushes.
    pub away_for: u32,
    /// It goes on with its old version whatever it is given.
    pub stays_old: bool,
    /// In the middle of a push, wait until this was published, and has been twice after it. Only with a seam of threads.
    pub waits_for: Option<String>,
}

/// Real time after which nobody waits any more: the test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The files of the directory that is current on a disk, by name; nothing before the first delivery.
pub fn current(image: &Image) -> Option<Vec<(String, Vec<u8>)>> {
    let link = image.read_link(&Place::operator(EMU_DIRECTORY).join("current"))?;
    let tree = Place::operator(EMU_DIRECTORY).join(link);
    let files = image.files().filter_map(|place| {
        let name = place.path().strip_prefix(tree.path()).ok()?;
        Some((name.to_str()?.to_owned(), image.read(place)?))
    });
    Some(files.collect())
}

/// The device as the agent writes it.
#[derive(Debug)]
pub(super) struct EmuFlasher {
    world: Arc<Mutex<World>>,
    disk: SimDisk,
    archive: Archive,
}

impl EmuFlasher {
    pub(super) fn new(world: Arc<Mutex<World>>, disk: SimDisk) -> Self {
        let setup = ArchiveSetup {
            directory: Place::operator(EMU_DIRECTORY),
            deliver: None,
            limits: ArchiveLimits::default(),
        };
        let archive = Archive::new(Arc::new(disk.clone()), setup);
        EmuFlasher {
            world,
            disk,
            archive,
        }
    }

    fn push(&self, work: &Work<'_>) -> Result<(), FlashError> {
        let directory = Place::operator(EMU_DIRECTORY);
        let read = || {
            let tree = self.disk.read_link(&directory.join("current"))?;
            self.disk.read(&directory.join(tree).join("version"), 100)
        };
        let version = read().map_err(|error| FlashError::Program(error.to_string()))?;
        self.await_published(1);
        work.progress.at("push", 60, Some("board 1"));
        self.await_published(2);
        let emu = &mut self.world.lock().unwrap().emu;
        if emu.away_for > 0 {
            emu.away_for -= 1;
            return Err(FlashError::Program("the EMU does not answer".into()).at("deliver"));
        }
        emu.pushes += 1;
        if !emu.stays_old {
            emu.version = String::from_utf8_lossy(&version).into_owned();
        }
        Ok(())
    }
}

impl EmuFlasher {
    /// Waits until what it waits for has been published so many times.
    fn await_published(&self, times: usize) {
        let Some(wanted) = self.world.lock().unwrap().emu.waits_for.clone() else {
            return;
        };
        let published = || {
            let world = self.world.lock().unwrap();
            let all = world.received.iter();
            all.filter(|(_, payload)| *payload == wanted.as_bytes())
                .count()
        };
        let until = Instant::now() + PATIENCE;
        while published() < times {
            assert!(Instant::now() < until, "{wanted:?} is not published");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Flasher for EmuFlasher {
    fn inspect(&self) -> Result<(), FlashError> {
        self.archive.inspect()
    }
    fn begin(&self, resume: bool) -> Result<Box<dyn Stage>, FlashError> {
        self.archive.begin(resume)
    }
    fn finish(&self, len: u64, sha256: &str) -> Result<Staged, FlashError> {
        self.archive.finish(len, sha256)
    }
    fn verify(&self, staged: &Staged) -> Result<(), FlashError> {
        self.archive.verify(staged)
    }
    fn delivers(&self) -> bool {
        self.archive.delivers()
    }
    fn takes_its_time(&self) -> bool {
        self.archive.takes_its_time()
    }
    fn deliver(&self, staged: &Staged, work: &Work<'_>) -> Result<(), FlashError> {
        self.archive.deliver(staged, work)?;
        self.push(work)
    }
    fn activate(&self, staged: &Staged, work: &Work<'_>) -> Result<Activation, FlashError> {
        self.archive.activate(staged, work)
    }
    fn standing(&self, staged: &Staged) -> Result<Standing, FlashError> {
        self.archive.standing(staged)
    }
    fn confirm(&self, staged: &Staged) -> Result<(), FlashError> {
        self.archive.confirm(staged)
    }
    fn roll_back(&self, staged: &Staged, work: &Work<'_>) -> Result<Activation, FlashError> {
        self.archive.roll_back(staged, work)
    }
}
