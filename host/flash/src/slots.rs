//! Two slots and a boot selector: the payload is written into the slot that does not run.
//!
//! The order of the steps is what makes a power cut harmless at any moment: the slot is marked bad before its first byte changes,
//! it stays bad until all of it was verified, and the slot that runs is never touched until the new one has proved itself.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;

use otahost_disk::{Disk, DiskFile, Open, Place};

use crate::boot::{BootSelector, BootState, Slot, SlotState};
use crate::staging::{FileStage, read_back, room};
use crate::{Activation, FlashError, Flasher, SlotLine, Stage, Staged, Standing, Work};

/// Boots a new payload gets to prove itself. An agent that comes up gives them back ([`Flasher::rearm`]), so this is for what happens
/// before it can: power may go three times in a row without costing a good image, and one more boot is left.
pub const TRIES: u8 = 4;

/// The flasher of a target with two slots: files or block devices.
#[derive(Debug)]
pub struct Slots {
    disk: Arc<dyn Disk>,
    places: [Place; 2],
    selector: Box<dyn BootSelector>,
}

impl Slots {
    /// A flasher for these slots; the first is `a`, the second `b` for the selector. Nothing is looked at before
    /// [`Flasher::inspect`].
    pub fn new(disk: Arc<dyn Disk>, places: [Place; 2], selector: Box<dyn BootSelector>) -> Self {
        Slots {
            disk,
            places,
            selector,
        }
    }

    fn place(&self, slot: Slot) -> &Place {
        &self.places[slot.index()]
    }

    /// Two names of one medium would mean writing what runs.
    fn check_distinct(&self) -> Result<(), FlashError> {
        let [a, b] = &self.places;
        if a == b || identity(a).is_some_and(|one| Some(one) == identity(b)) {
            return Err(FlashError::Io(format!(
                "the slots {a} and {b} are one and the same; configure two"
            )));
        }
        Ok(())
    }

    /// The slot that may be written, after making sure that what runs is safe to come back to.
    fn idle_slot(&self, state: &BootState) -> Result<Slot, FlashError> {
        self.check_distinct()?;
        match state.of(state.booted) {
            SlotState::Good => Ok(state.booted.other()),
            other => Err(FlashError::Selector(format!(
                "slot {} runs but is {other}, not good: it has to be confirmed or rolled back before the other slot may be written",
                state.booted
            ))),
        }
    }

    /// The slot a journal entry speaks of.
    fn staged_slot(staged: &Staged) -> Result<Slot, FlashError> {
        Slot::of_name(&staged.place).ok_or_else(|| {
            FlashError::Selector(format!(
                "what is staged names the slot {:?}, but there are only a and b",
                staged.place
            ))
        })
    }

    fn open(&self, slot: Slot, how: Open) -> Result<Arc<dyn DiskFile>, FlashError> {
        self.disk
            .open(self.place(slot), how)
            .map_err(|error| FlashError::medium(&format!("cannot use slot {slot}"), &error))
    }

    /// Marks a slot unless it is so already, and reads back that it is.
    fn mark(&self, state: BootState, slot: Slot, want: SlotState) -> Result<BootState, FlashError> {
        if is_so(state.of(slot), want) {
            return Ok(state);
        }
        self.set(slot, want)
    }

    /// Marks a slot whatever it is now, and reads back that it is so.
    fn set(&self, slot: Slot, want: SlotState) -> Result<BootState, FlashError> {
        self.selector.set_state(slot, want)?;
        let now = self.selector.read()?;
        if is_so(now.of(slot), want) {
            Ok(now)
        } else {
            Err(FlashError::Selector(format!(
                "the boot selector was told that slot {slot} is {want}, but still says that it is {}",
                now.of(slot)
            )))
        }
    }

    /// Makes a slot the next to boot unless it is so already, and reads back that it is.
    fn point_at(&self, state: BootState, slot: Slot) -> Result<BootState, FlashError> {
        if state.primary == slot {
            return Ok(state);
        }
        self.selector.set_primary(slot)?;
        let now = self.selector.read()?;
        if now.primary == slot {
            Ok(now)
        } else {
            Err(FlashError::Selector(format!(
                "the boot selector was told to boot slot {slot} next, but still says {}",
                now.primary
            )))
        }
    }
}

/// True when a slot is what it shall be. Boot loaders count tries in their own way; what matters is that there are some.
fn is_so(now: SlotState, want: SlotState) -> bool {
    match (now, want) {
        (SlotState::Trial { tries }, SlotState::Trial { .. }) => tries > 0,
        (now, want) => now == want,
    }
}

/// What tells one medium from another under two names, where the system says it: for a block device its number, else the file's.
fn identity(place: &Place) -> Option<(bool, u64, u64)> {
    let Place::Operator(path) = place else {
        return None;
    };
    let found = std::fs::metadata(path).ok()?;
    Some(if found.file_type().is_block_device() {
        (true, found.rdev(), 0)
    } else {
        (false, found.dev(), found.ino())
    })
}

impl Flasher for Slots {
    fn inspect(&self) -> Result<(), FlashError> {
        self.check_distinct()?;
        for slot in [Slot::A, Slot::B] {
            self.open(slot, Open::Read)?;
        }
        self.selector.read().map(drop)
    }

    fn begin(&self, _resume: bool) -> Result<Box<dyn Stage>, FlashError> {
        let state = self.selector.read()?;
        let slot = self.idle_slot(&state)?;
        let file = self.open(slot, Open::Write)?;
        let length = file
            .len()
            .map_err(|error| FlashError::medium(&format!("cannot measure slot {slot}"), &error))?;
        let capacity = if file.is_device() {
            Some(length)
        } else {
            // A file that is cut first would have to find its space anew.
            let free = self.disk.free_space(self.place(slot));
            free.map_err(|error| {
                FlashError::medium(
                    &format!("cannot find out the space for slot {slot}"),
                    &error,
                )
            })?
            .map(|free| room(free, length))
        };
        // The running slot first: at no moment may the next to boot be a slot that is bad.
        let state = self.point_at(state, state.booted)?;
        self.mark(state, slot, SlotState::Bad)?;
        let name = format!("slot {slot}");
        Ok(Box::new(FileStage::new(name, file, capacity)))
    }

    fn finish(&self, len: u64, sha256: &str) -> Result<Staged, FlashError> {
        let state = self.selector.read()?;
        let slot = self.idle_slot(&state)?;
        if state.of(slot).is_bootable() {
            return Err(FlashError::Selector(format!(
                "slot {slot} is {} in the middle of being written; somebody else changed it",
                state.of(slot)
            )));
        }
        let file = self.open(slot, Open::Write)?;
        let found = file
            .len()
            .map_err(|error| FlashError::medium(&format!("cannot measure slot {slot}"), &error))?;
        if found < len {
            return Err(FlashError::Corrupt(format!(
                "slot {slot} holds {found} bytes, but {len} were written"
            )));
        }
        if !file.is_device() {
            file.set_len(len).map_err(|error| {
                FlashError::medium(&format!("cannot cut slot {slot} to its content"), &error)
            })?;
        }
        file.sync()
            .map_err(|error| FlashError::medium(&format!("cannot sync slot {slot}"), &error))?;
        Ok(Staged {
            place: slot.name().to_owned(),
            len,
            sha256: sha256.to_owned(),
        })
    }

    fn verify(&self, staged: &Staged) -> Result<(), FlashError> {
        let slot = Self::staged_slot(staged)?;
        let file = self.open(slot, Open::Read)?;
        read_back(&format!("slot {slot}"), file.as_ref(), staged)
    }

    fn activate(&self, staged: &Staged, _work: &Work<'_>) -> Result<Activation, FlashError> {
        let slot = Self::staged_slot(staged)?;
        let state = self.selector.read()?;
        if state.booted == slot {
            return Ok(Activation::Now);
        }
        self.idle_slot(&state)?;
        // Trial first: at no moment may the next to boot be a slot that is bad.
        let state = self.mark(state, slot, SlotState::Trial { tries: TRIES })?;
        self.point_at(state, slot)?;
        Ok(Activation::NeedsReboot)
    }

    fn standing(&self, staged: &Staged) -> Result<Standing, FlashError> {
        let slot = Self::staged_slot(staged)?;
        let state = self.selector.read()?;
        let first = state.primary == slot;
        Ok(match state.of(slot) {
            own if state.booted == slot => Standing::New {
                confirmed: own == SlotState::Good && first,
            },
            SlotState::Trial { tries: 0 } => Standing::FellBack,
            SlotState::Trial { tries } if first => Standing::Pending { tries },
            // Good and first, but the other runs: somebody booted by hand. It needs no tries to boot again.
            SlotState::Good if first => Standing::Pending { tries: u8::MAX },
            SlotState::Bad | SlotState::Good | SlotState::Trial { .. } => Standing::NotActivated,
        })
    }

    fn rearm(&self, staged: &Staged) -> Result<(), FlashError> {
        let slot = Self::staged_slot(staged)?;
        let state = self.selector.read()?;
        let SlotState::Trial { tries: ..TRIES } = state.of(slot) else {
            return Ok(());
        };
        if state.booted != slot {
            return Ok(());
        }
        self.set(slot, SlotState::Trial { tries: TRIES }).map(drop)
    }

    fn on_trial(&self) -> Result<Option<Staged>, FlashError> {
        let state = self.selector.read()?;
        let runs = state.booted;
        Ok(match state.of(runs) {
            SlotState::Trial { .. } => Some(Staged {
                place: runs.name().to_owned(),
                len: 0,
                sha256: String::new(),
            }),
            SlotState::Good | SlotState::Bad => None,
        })
    }

    fn confirm(&self, staged: &Staged) -> Result<(), FlashError> {
        let slot = Self::staged_slot(staged)?;
        let state = self.selector.read()?;
        if state.booted != slot {
            return Err(FlashError::Selector(format!(
                "slot {slot} cannot be confirmed: slot {} runs",
                state.booted
            )));
        }
        let state = self.mark(state, slot, SlotState::Good)?;
        self.point_at(state, slot).map(drop)
    }

    fn roll_back(&self, staged: &Staged, _work: &Work<'_>) -> Result<Activation, FlashError> {
        let slot = Self::staged_slot(staged)?;
        let old = slot.other();
        let state = self.selector.read()?;
        if state.of(old) != SlotState::Good {
            return Err(FlashError::Selector(format!(
                "slot {slot} cannot be rolled back: the slot to go back to, {old}, is {}, not good",
                state.of(old)
            )));
        }
        let running = state.booted == slot;
        // The old slot first, so that going back does not hang on what the boot loader does with a bad primary.
        let state = self.point_at(state, old)?;
        self.mark(state, slot, SlotState::Bad)?;
        Ok(if running {
            Activation::NeedsReboot
        } else {
            Activation::Now
        })
    }

    fn slots(&self) -> Vec<SlotLine> {
        let Ok(state) = self.selector.read() else {
            return Vec::new();
        };
        [Slot::A, Slot::B]
            .map(|slot| SlotLine {
                name: slot.to_string(),
                state: state.of(slot).to_string(),
                running: state.booted == slot,
            })
            .to_vec()
    }
}
