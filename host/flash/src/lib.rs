//! How a target is written: the [`Flasher`] trait and its kinds.
//!
//! A flasher never decides *whether*: trust, policy and the job's phase are settled before it is called. It promises that what was
//! running stays bootable until `activate`, and that what it says about the outside world was read back from it.
//! Every call blocks; the agent runs it through the seam.

pub mod archive;
pub mod boot;
pub mod command;
mod operator;
pub mod program;
pub mod slots;
mod staging;
mod work;

pub use archive::{Archive, ArchiveLimits, ArchiveSetup};
pub use boot::{BootSelector, BootState, CommandSelector, FileSelector, Slot, SlotState};
pub use command::{CommandFlasher, CommandSetup};
pub use operator::Program;
pub use slots::Slots;
pub use work::{Progress, Quiet, Work};

use std::fmt::Debug;
use std::io;

use serde::{Deserialize, Serialize};

/// Why flashing failed. The text names what failed and why, outermost first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlashError {
    /// The staging area or the whole medium is too small.
    #[error("{0}")]
    NoSpace(String),
    /// What is on the medium is not what was written, or not what was verified.
    #[error("{0}")]
    Corrupt(String),
    /// The boot selector cannot be read, refused, or did not keep what it was told.
    #[error("{0}")]
    Selector(String),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(String),
    /// The payload is no archive that may be unpacked.
    #[error("{0}")]
    Refused(String),
    /// The operator's program did not do it.
    #[error("{0}")]
    Program(String),
    /// It was told to stop ([`Progress::is_stopped`]) and did. What it had begun can be begun anew.
    #[error("stopped before it was done")]
    Stopped,
    /// There is no way back to the old version that this flasher could go.
    #[error("{0}")]
    NoWayBack(String),
    /// The same, at a stage that is told apart from others: `clear`, `unpack`, `deliver`.
    #[error("{error}")]
    At {
        /// The stage's word.
        stage: &'static str,
        /// What failed there.
        error: Box<FlashError>,
    },
}

impl FlashError {
    /// Names the stage it happened at.
    #[must_use]
    pub fn at(self, stage: &'static str) -> Self {
        match self {
            // The innermost stage is the one that failed, and stopping is no failure of any.
            FlashError::At { .. } | FlashError::Stopped => self,
            error => FlashError::At {
                stage,
                error: Box::new(error),
            },
        }
    }

    /// The stage it names, if it does.
    pub fn stage(&self) -> Option<&'static str> {
        match self {
            FlashError::At { stage, .. } => Some(stage),
            _ => None,
        }
    }

    /// What failed, without its stage.
    pub fn cause(&self) -> &FlashError {
        match self {
            FlashError::At { error, .. } => error.cause(),
            cause => cause,
        }
    }

    /// An error of the medium in our words.
    fn medium(what: &str, error: &io::Error) -> Self {
        let text = format!("{what}: {error}");
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => FlashError::NoSpace(text),
            _ => FlashError::Io(text),
        }
    }
}

/// A seekable area that takes the payload of an artifact.
pub trait Stage: Debug + Send + Sync {
    /// Most bytes it can take, those that are there already included; `None` where nobody can say.
    fn capacity(&self) -> Option<u64>;
    /// Writes payload bytes.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), FlashError>;
    /// Reads payload bytes back. Where nothing was written it fails or gives what was there before: the content has to be checked.
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> Result<(), FlashError>;
    /// Makes all that was written durable.
    fn sync(&self) -> Result<(), FlashError>;
}

/// A verified payload in the staging area, as the journal remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Where it is, in the flasher's own word: a slot's name, a directory.
    pub place: String,
    /// Payload bytes.
    pub len: u64,
    /// SHA-256 of the payload, lower-case hex.
    pub sha256: String,
}

/// What activation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// The new version runs now.
    Now,
    /// The new version runs after a reboot, which the agent causes.
    NeedsReboot,
}

/// What the outside world says about an activation, read from the boot selector and never from memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The new payload is what runs. `confirmed` when it is already marked good.
    New {
        /// Already marked good and first in the boot order.
        confirmed: bool,
    },
    /// The old one runs and the new one was never made bootable.
    NotActivated,
    /// The old one runs; the new one is next, with this many tries left.
    Pending {
        /// Boots left.
        tries: u8,
    },
    /// The old one runs and the new one used up its tries or was marked bad.
    FellBack,
    /// The switch was begun and nobody saw its end: what runs now this flasher cannot say. `activate` does it once more.
    Unclear,
}

/// How a slot is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotLine {
    /// Its name.
    pub name: String,
    /// `good`, `bad`, or `trial` with the boots that are left.
    pub state: String,
    /// It is what runs.
    pub running: bool,
}

impl Standing {
    /// The same for a caller whose journal says that `activate` had *returned*: what is not activated any more was given up, by
    /// the boot loader or by hand. A selector alone cannot tell the two apart where a boot loader marks what fails as bad.
    pub fn after_activation(self) -> Self {
        match self {
            Standing::NotActivated => Standing::FellBack,
            other => other,
        }
    }
}

/// A way to write a target.
///
/// Every step may be repeated, after a power cut in its middle too: it looks first, and does only what is missing.
pub trait Flasher: Debug + Send + Sync {
    /// Checks at start that the target can be flashed at all; the error says what to mend.
    fn inspect(&self) -> Result<(), FlashError>;
    /// Makes the staging area ready for a payload. After this what it held before is not bootable any more, durably.
    /// With `resume` the bytes of an earlier, unfinished attempt are kept; without, they may be.
    fn begin(&self, resume: bool) -> Result<Box<dyn Stage>, FlashError>;
    /// Ends staging: cuts what is too long, syncs, and names the place.
    fn finish(&self, len: u64, sha256: &str) -> Result<Staged, FlashError>;
    /// Reads the staged payload back and compares it with what was verified; a target that was handed it already has it, whatever
    /// became of the staged bytes since.
    fn verify(&self, staged: &Staged) -> Result<(), FlashError>;
    /// True when the payload is handed over before it can be activated ([`Flasher::deliver`]): to a device behind this one, or into a
    /// directory.
    fn delivers(&self) -> bool {
        false
    }
    /// Hands the verified payload over. What the target runs may change by it only in so far as the target itself decides so. What an
    /// earlier call left half done begins from the start; what it ended is not done again before staging begins anew. It stops when it
    /// is told to.
    fn deliver(&self, staged: &Staged, work: &Work<'_>) -> Result<(), FlashError> {
        let _ = (staged, work);
        Ok(())
    }
    /// True when the target may go on to report its old version for a while after it was activated without a reboot of this device, so
    /// that the old version is no verdict before the time is over.
    fn takes_its_time(&self) -> bool {
        false
    }
    /// Makes the staged payload the next to run, and reads back that it is. `Now` when it runs already.
    fn activate(&self, staged: &Staged, work: &Work<'_>) -> Result<Activation, FlashError>;
    /// Where an activation stands.
    fn standing(&self, staged: &Staged) -> Result<Standing, FlashError>;
    /// Gives a new payload that runs, and is not confirmed yet, all its tries again, and reads back that it has some; otherwise it
    /// does nothing. An image that came up must not lose its tries to power cuts before it could prove itself. Called once for each
    /// boot, and not without a bound: the tries are what gets the device back from an image that comes up and fails later.
    fn rearm(&self, staged: &Staged) -> Result<(), FlashError> {
        let _ = staged;
        Ok(())
    }
    /// What runs without having been confirmed, for an agent that has lost its memory of it: enough of it to confirm it or to roll it
    /// back. `None` for a flasher that keeps nothing of the kind outside of its own files.
    fn on_trial(&self) -> Result<Option<Staged>, FlashError> {
        Ok(None)
    }
    /// Makes the new payload permanent, and reads back that it is. Fails when another one runs.
    fn confirm(&self, staged: &Staged) -> Result<(), FlashError>;
    /// Makes the old one the next to run and the new one bad, and reads back that it is. [`FlashError::NoWayBack`] when it cannot: then
    /// only the target's own version can tell what became of it.
    fn roll_back(&self, staged: &Staged, work: &Work<'_>) -> Result<Activation, FlashError>;
    /// Its slots for `otahost status`; empty for a flasher without, or when they cannot be read.
    fn slots(&self) -> Vec<SlotLine> {
        Vec::new()
    }
}
