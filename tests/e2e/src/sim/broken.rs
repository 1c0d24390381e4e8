//! Negative controls: one mechanism left out, so that a search shows that it would notice.
//!
//! Each is set on a [`super::Scenario`] and sits at a border that the agent has anyway: the disk, the flasher, a link. The orderings are the
//! engine's own, which has a hook for them that nothing but this calls.

use std::sync::{Arc, Mutex};

use otahost::engine::Early;
use otahost_disk::sim::{Controls, SimDisk};
use otahost_disk::{Disk, Open, Place};
use otahost_flash::{Activation, FlashError, Flasher, SlotLine, Stage, Staged, Standing, Work};
use otahost_transfer::HEADER_LEN;

use super::World;
use super::machine::SLOTS;

/// What is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    #[default]
    Nothing,
    /// The syncs of files at places in which this text stands.
    FileSync(&'static str),
    /// The syncs of this directory.
    DirSync(&'static str),
    /// The wait of this kind of effect for its commit.
    Order(Early),
    /// The wait of a captured secret until it is durable.
    SecretWait,
    /// The syncs of the dock's staging area before a checkpoint speaks of it; the one at its end is made.
    StagingSync,
    /// The mark on a slot before its first byte changes: it comes after.
    MarkFirst,
    /// The look at what is staged before a transfer goes on: what is read back is always right.
    ResumeCheck,
    /// The read-back of what is staged before it is tried or delivered.
    ReadBack,
    /// The look at the boot selector after a mark was set: it is taken to be what it was told.
    MarkReadBack,
    /// The look at what runs after a boot: it is always the new one.
    Standing,
    /// The comparison of one boot with another: they all have one name.
    BootId,
    /// The packet numbers by which a message that comes again is known: they are others.
    Redelivery,
}

impl Broken {
    /// The disk's part in it, beside what a search asks for.
    pub(super) fn disk(self, controls: Controls) -> Controls {
        match self {
            Broken::FileSync(text) => Controls {
                skip_file_sync_at: Some(text),
                ..controls
            },
            Broken::DirSync(text) => Controls {
                skip_dir_sync_at: Some(text),
                ..controls
            },
            _ => controls,
        }
    }

    /// A flasher without what it is to leave out.
    pub(super) fn flasher(
        self,
        whole: Arc<dyn Flasher>,
        world: &Arc<Mutex<World>>,
        disk: &SimDisk,
    ) -> Arc<dyn Flasher> {
        match self {
            Broken::StagingSync
            | Broken::MarkFirst
            | Broken::ResumeCheck
            | Broken::ReadBack
            | Broken::Standing => Arc::new(Careless {
                broken: self,
                whole,
                world: world.clone(),
                disk: disk.clone(),
            }),
            _ => whole,
        }
    }
}

/// A flasher that leaves something out.
#[derive(Debug)]
struct Careless {
    broken: Broken,
    whole: Arc<dyn Flasher>,
    world: Arc<Mutex<World>>,
    disk: SimDisk,
}

impl Flasher for Careless {
    fn inspect(&self) -> Result<(), FlashError> {
        self.whole.inspect()
    }
    fn begin(&self, resume: bool) -> Result<Box<dyn Stage>, FlashError> {
        if self.broken == Broken::MarkFirst {
            let idle = 1 - self.world.lock().unwrap().slot;
            let slot = self.disk.open(&Place::operator(SLOTS[idle]), Open::Write);
            slot.and_then(|slot| slot.write_at(&[0xff; 512], 0))
                .map_err(|error| FlashError::Io(error.to_string()))?;
        }
        let inner = self.whole.begin(resume)?;
        Ok(Box::new(CarelessStage {
            broken: self.broken,
            inner,
            world: self.world.clone(),
        }))
    }
    fn finish(&self, len: u64, sha256: &str) -> Result<Staged, FlashError> {
        self.whole.finish(len, sha256)
    }
    fn verify(&self, staged: &Staged) -> Result<(), FlashError> {
        match self.broken {
            Broken::ReadBack => Ok(()),
            _ => self.whole.verify(staged),
        }
    }
    fn activate(&self, staged: &Staged, work: &Work<'_>) -> Result<Activation, FlashError> {
        self.whole.activate(staged, work)
    }
    fn delivers(&self) -> bool {
        self.whole.delivers()
    }
    fn takes_its_time(&self) -> bool {
        self.whole.takes_its_time()
    }
    fn deliver(&self, staged: &Staged, work: &Work<'_>) -> Result<(), FlashError> {
        self.whole.deliver(staged, work)
    }
    fn standing(&self, staged: &Staged) -> Result<Standing, FlashError> {
        match self.broken {
            Broken::Standing => Ok(Standing::New { confirmed: false }),
            _ => self.whole.standing(staged),
        }
    }
    fn rearm(&self, staged: &Staged) -> Result<(), FlashError> {
        self.whole.rearm(staged)
    }
    fn on_trial(&self) -> Result<Option<Staged>, FlashError> {
        self.whole.on_trial()
    }
    fn confirm(&self, staged: &Staged) -> Result<(), FlashError> {
        self.whole.confirm(staged)
    }
    fn roll_back(&self, staged: &Staged, work: &Work<'_>) -> Result<Activation, FlashError> {
        self.whole.roll_back(staged, work)
    }
    fn slots(&self) -> Vec<SlotLine> {
        self.whole.slots()
    }
}

#[derive(Debug)]
struct CarelessStage {
    broken: Broken,
    inner: Box<dyn Stage>,
    world: Arc<Mutex<World>>,
}

impl Stage for CarelessStage {
    fn capacity(&self) -> Option<u64> {
        self.inner.capacity()
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), FlashError> {
        self.inner.write_at(bytes, offset)
    }
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> Result<(), FlashError> {
        if self.broken == Broken::ResumeCheck {
            // What should be there: the only file there is, behind its header.
            let world = self.world.lock().unwrap();
            let from = HEADER_LEN + usize::try_from(offset).unwrap();
            let mut files = world.files.values();
            if let Some(right) = files.find_map(|file| file.get(from..from + into.len())) {
                into.copy_from_slice(right);
                return Ok(());
            }
        }
        self.inner.read_exact_at(into, offset)
    }
    fn sync(&self) -> Result<(), FlashError> {
        match self.broken {
            Broken::StagingSync => Ok(()),
            _ => self.inner.sync(),
        }
    }
}
