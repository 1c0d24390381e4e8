//! A target that takes a directory: an archive is unpacked beside what is there, takes its place in one step, and is handed over.
//!
//! The staging directory holds
//!
//! | name | what it is |
//! |---|---|
//! | `artifact` | the archive, as it is fetched |
//! | `a`, `b` | the unpacked directory and the one that is being unpacked |
//! | `current` | a symbolic link to the one that is whole |
//! | `delivered` | that the staged archive was handed over, or may have been |
//!
//! Whenever power goes, `current` leads to a whole directory, the old one or the new one. What a broken attempt left is cleared by the
//! next one. zip, tar, tar.gz and tar.zst are told apart by their first bytes, and nothing in them leads out of the directory.
//!
//! Delivering is before the point of no return, and there is no way back from it: the old directory is gone. What the target makes of
//! what it was given it decides itself, and its version tells; so `activate` has nothing to do.

mod child;
mod limits;
mod name;
mod reader;
mod tar;
mod tree;
mod zip;
mod zstd;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use otahost_disk::{Disk, Kind, Open, Place};
use serde::{Deserialize, Serialize};

use crate::operator::Program;
use crate::program::ProgramError;
use crate::staging::{Memory, StagingDir};
use crate::{Activation, FlashError, Flasher, Stage, Staged, Standing, Work};

pub use child::{child_main, unpack_in_child};
pub use limits::ArchiveLimits;
use reader::FileReader;
use tree::Tree;

const CURRENT: &str = "current";
const NEXT: &str = "current.new";
const TREES: [&str; 2] = ["a", "b"];

/// The stages that a failed delivery names.
const CLEAR: &str = "clear";
const UNPACK: &str = "unpack";
const DELIVER: &str = "deliver";

/// How a target takes an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveSetup {
    /// The staging directory; nothing else is in it.
    pub directory: Place,
    /// Hands the unpacked directory over; without it the directory itself is the target.
    pub deliver: Option<Program>,
    /// What an archive may hold.
    pub limits: ArchiveLimits,
}

/// The flasher of a target that takes an archive.
#[derive(Debug)]
pub struct Archive {
    staging: StagingDir,
    deliver: Option<Program>,
    limits: ArchiveLimits,
}

/// What was handed over since staging began.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Delivered {
    sha256: String,
    confirmed: bool,
    /// The tree that was current when the target could have it for the first time.
    #[serde(default)]
    tree: Option<String>,
    /// Handing over has ended. An agent before this field made its record then, and kept it over the next staging.
    #[serde(default)]
    ended: bool,
}

impl Delivered {
    fn is_had(&self) -> bool {
        self.ended || self.tree.is_none()
    }
}

impl Archive {
    /// Nothing is looked at before [`Flasher::inspect`].
    pub fn new(disk: Arc<dyn Disk>, setup: ArchiveSetup) -> Self {
        Archive {
            staging: StagingDir::new(disk, setup.directory),
            deliver: setup.deliver,
            limits: setup.limits,
        }
    }

    /// The whole directory, as whoever is handed it finds it.
    pub fn current(&self) -> Place {
        self.staging.place().join(CURRENT)
    }

    fn memory(&self) -> Memory<'_> {
        Memory::new(&self.staging, "delivered")
    }

    fn delivered(&self, staged: &Staged) -> Result<Option<Delivered>, FlashError> {
        let delivered: Option<Delivered> = self.memory().read()?;
        Ok(delivered.filter(|delivered| delivered.sha256 == staged.sha256))
    }

    fn note(&self, staged: &Staged, tree: &str, ended: bool) -> Result<(), FlashError> {
        self.memory().write(&Delivered {
            sha256: staged.sha256.clone(),
            confirmed: false,
            tree: Some(tree.to_owned()),
            ended,
        })
    }

    /// The tree `current` leads to; nothing before the first delivery.
    fn current_tree(&self, disk: &dyn Disk) -> Result<Option<&'static str>, FlashError> {
        let place = Place::data(CURRENT);
        let read = || match disk.kind(&place)? {
            None => Ok(None),
            Some(Kind::Link) => disk.read_link(&place).map(Some),
            Some(_) => Ok(Some(Path::new("").to_path_buf())),
        };
        let found = read().map_err(|error: std::io::Error| {
            FlashError::medium("cannot find the current directory", &error)
        })?;
        let Some(found) = found else {
            return Ok(None);
        };
        match TREES.iter().find(|tree| Path::new(tree) == found) {
            Some(tree) => Ok(Some(tree)),
            None => Err(FlashError::Io(format!(
                "{} is no link that this agent made; move it away",
                self.current()
            ))),
        }
    }

    /// An empty directory beside the current one. Gives it, and the one it will replace.
    fn clear(&self, disk: &dyn Disk) -> Result<(&'static str, Option<&'static str>), FlashError> {
        let old = self.current_tree(disk)?;
        let fresh = if old == Some(TREES[0]) {
            TREES[1]
        } else {
            TREES[0]
        };
        let clear = || {
            disk.remove(&Place::data(NEXT))?;
            disk.remove_tree(&Place::data(fresh))?;
            disk.create_dir(&Place::data(fresh))?;
            disk.sync_dir(&Place::data(""))
        };
        clear().map_err(|error| {
            FlashError::medium("cannot clear the directory to unpack into", &error)
        })?;
        Ok((fresh, old))
    }

    fn unpack(&self, disk: &dyn Disk, into: &str, work: &Work<'_>) -> Result<(), FlashError> {
        let share = if self.deliver.is_some() { 50 } else { 100 };
        let staging = self.staging.place();
        match (child::program(), staging) {
            (Some(program), Place::Operator(_)) => {
                child::unpack(program, staging, into, (self.limits, share), work)
            }
            _ => self.unpack_here(disk, into, share, work),
        }
    }

    /// Unpacks in this process; the whole of it is `share` of a hundred.
    fn unpack_here(
        &self,
        disk: &dyn Disk,
        into: &str,
        share: u8,
        work: &Work<'_>,
    ) -> Result<(), FlashError> {
        let file = self.staging.file(Open::Read)?;
        let read = Cell::new(0);
        let reader = FileReader::new(file, &read)
            .map_err(|error| FlashError::medium("cannot read what is staged", &error))?;
        let mut tree = Tree::new(disk, Place::data(into), self.limits, reader.len(), work);
        tree.report_to(&read, share);
        // The decoders are made for hostile input; should one of them give up by a panic after all, the archive is to blame.
        let unpacked = {
            let _decoding = Decoding::begin();
            catch_unwind(AssertUnwindSafe(|| reader::unpack(reader, &mut tree)))
        };
        unpacked.unwrap_or_else(|_| Err(gave_up()))?;
        tree.finish()
    }

    /// From the old directory to the new one in one step.
    fn switch(&self, disk: &dyn Disk, to: &str) -> Result<(), FlashError> {
        let switch = || {
            disk.make_link(&Place::data(NEXT), Path::new(to))?;
            disk.rename(&Place::data(NEXT), &Place::data(CURRENT))?;
            disk.sync_dir(&Place::data(""))
        };
        switch().map_err(|error| FlashError::medium("cannot switch to the new directory", &error))
    }

    fn hand_over(&self, work: &Work<'_>) -> Result<(), FlashError> {
        let Some(program) = &self.deliver else {
            return Ok(());
        };
        let path = self.current();
        match program.run(&path.path().display().to_string(), work, 50) {
            Ok(()) => Ok(()),
            Err(ProgramError::Stopped { .. }) => Err(FlashError::Stopped),
            Err(error) => Err(FlashError::Program(error.to_string())),
        }
    }
}

fn gave_up() -> FlashError {
    FlashError::Refused("the archive cannot be read: its decoder gave up".into())
}

/// Stops between two steps when it was told to.
fn goes_on(work: &Work<'_>, stage: &str, percent: u8) -> Result<(), FlashError> {
    if work.progress.is_stopped() {
        return Err(FlashError::Stopped);
    }
    work.progress.at(stage, percent, None);
    Ok(())
}

impl Flasher for Archive {
    fn inspect(&self) -> Result<(), FlashError> {
        let disk = self.staging.open()?;
        self.current_tree(disk.as_ref()).map(drop)
    }

    fn begin(&self, _resume: bool) -> Result<Box<dyn Stage>, FlashError> {
        // The same archive once more is delivered once more.
        self.memory().forget()?;
        Ok(Box::new(self.staging.begin()?))
    }

    fn finish(&self, len: u64, sha256: &str) -> Result<Staged, FlashError> {
        self.staging.finish(len, sha256)
    }

    fn verify(&self, staged: &Staged) -> Result<(), FlashError> {
        let delivered = self.delivered(staged)?;
        if delivered.as_ref().is_some_and(|delivered| delivered.ended) {
            return Ok(());
        }
        let begun = delivered.and_then(|delivered| delivered.tree);
        match (self.staging.verify(staged), begun) {
            // It cannot be handed over again, and to call it failed would be a lie where the target has it: its version tells.
            (Err(error @ FlashError::Corrupt(_)), Some(tree)) => {
                let disk = self.staging.open()?;
                match self.current_tree(disk.as_ref())? {
                    Some(current) if current == tree => self.note(staged, &tree, true),
                    _ => Err(error),
                }
            }
            (result, _) => result,
        }
    }

    fn delivers(&self) -> bool {
        true
    }

    fn deliver(&self, staged: &Staged, work: &Work<'_>) -> Result<(), FlashError> {
        let delivered = self.delivered(staged)?;
        if delivered.is_some_and(|delivered| delivered.ended) {
            return Ok(());
        }
        let disk = self.staging.open().map_err(|error| error.at(CLEAR))?;
        let disk = disk.as_ref();
        goes_on(work, CLEAR, 0)?;
        let (fresh, old) = self.clear(disk).map_err(|error| error.at(CLEAR))?;
        goes_on(work, UNPACK, 0)?;
        self.unpack(disk, fresh, work)
            .and_then(|()| match self.deliver {
                Some(_) => Ok(()),
                None => self.note(staged, fresh, false),
            })
            .and_then(|()| self.switch(disk, fresh))
            .map_err(|error| error.at(UNPACK))?;
        if let Some(old) = old
            && let Err(error) = disk
                .remove_tree(&Place::data(old))
                .and_then(|()| disk.sync_dir(&Place::data("")))
        {
            // It costs space until the next delivery clears it, and nothing else.
            work.progress
                .log(&format!("the old directory is not removed yet: {error}"));
        }
        if self.deliver.is_some() {
            goes_on(work, DELIVER, 50)?;
            self.note(staged, fresh, false)
                .map_err(|error| error.at(DELIVER))?;
        }
        self.hand_over(work)
            .inspect_err(|error| {
                // Stopped in its middle it may have done its work; what it says itself is that it has not.
                if *error != FlashError::Stopped
                    && let Err(error) = self.memory().forget()
                {
                    work.progress
                        .log(&format!("the record of it stays: {error}"));
                }
            })
            .and_then(|()| self.note(staged, fresh, true))
            .map_err(|error| error.at(DELIVER))
    }

    fn takes_its_time(&self) -> bool {
        true
    }

    fn activate(&self, staged: &Staged, _work: &Work<'_>) -> Result<Activation, FlashError> {
        match self.delivered(staged)? {
            Some(delivered) if delivered.is_had() => Ok(Activation::Now),
            _ => Err(FlashError::Selector(
                "it was not delivered: something else was, or its record is gone".into(),
            )),
        }
    }

    fn standing(&self, staged: &Staged) -> Result<Standing, FlashError> {
        Ok(match self.delivered(staged)? {
            Some(delivered) if delivered.is_had() => Standing::New {
                confirmed: delivered.confirmed,
            },
            _ => Standing::NotActivated,
        })
    }

    fn confirm(&self, staged: &Staged) -> Result<(), FlashError> {
        let Some(delivered) = self.delivered(staged)? else {
            return Err(FlashError::Selector(
                "it cannot be confirmed: something else was delivered since".into(),
            ));
        };
        if !delivered.confirmed {
            self.memory().write(&Delivered {
                confirmed: true,
                ..delivered
            })?;
        }
        self.staging.discard()
    }

    fn roll_back(&self, staged: &Staged, _work: &Work<'_>) -> Result<Activation, FlashError> {
        match self.delivered(staged)? {
            None => Ok(Activation::Now),
            Some(_) => Err(FlashError::NoWayBack(
                "what was delivered cannot be taken back; only the target itself can go back to its old version"
                    .into(),
            )),
        }
    }
}

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// True while this thread runs a decoder on bytes of a stranger: a panic there is caught and blamed on the archive. A panic hook that
/// ends the process must let it pass, or one bad archive ends it again after every start.
pub fn is_decoding() -> bool {
    DECODING.with(Cell::get)
}

struct Decoding;

impl Decoding {
    fn begin() -> Self {
        DECODING.with(|decoding| decoding.set(true));
        Decoding
    }
}

impl Drop for Decoding {
    fn drop(&mut self) {
        DECODING.with(|decoding| decoding.set(false));
    }
}
