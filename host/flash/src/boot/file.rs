//! A boot selector in a small file, for tests, for the demo, and for boot loaders that can read one.

use std::sync::{Arc, Mutex, PoisonError};

use otahost_disk::{Disk, Place};

use super::{BootSelector, BootState, Slot, SlotState};
use crate::FlashError;

/// Far more than the state ever needs.
const LIMIT: u64 = 4096;

/// A JSON file in the form of [`BootState`], replaced as a whole and durably. Changes by several threads come one after the other;
/// while a selector lives, nobody else may change its file.
#[derive(Debug)]
pub struct FileSelector {
    disk: Arc<dyn Disk>,
    place: Place,
    /// Held from reading to replacing: two changes at once would lose one, and both write the same temporary file, so that one
    /// could put the other's half-written one in place.
    changing: Mutex<()>,
}

impl FileSelector {
    /// A selector in the file at this place. The boot loader, or whoever provisions the device, makes it.
    pub fn new(disk: Arc<dyn Disk>, place: Place) -> Self {
        FileSelector {
            disk,
            place,
            changing: Mutex::default(),
        }
    }

    fn change(&self, change: impl FnOnce(&mut BootState)) -> Result<(), FlashError> {
        // A change that panicked has replaced the whole file or left it alone.
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.read()?;
        change(&mut state);
        self.disk
            .replace(&self.place, state.to_json().as_bytes())
            .map_err(|error| {
                FlashError::Selector(format!("cannot write the boot selector's file: {error}"))
            })
    }
}

impl BootSelector for FileSelector {
    fn read(&self) -> Result<BootState, FlashError> {
        let json = self.disk.read(&self.place, LIMIT).map_err(|error| {
            FlashError::Selector(format!("cannot read the boot selector's file: {error}"))
        })?;
        BootState::parse(&json, &self.place)
    }

    fn set_state(&self, slot: Slot, state: SlotState) -> Result<(), FlashError> {
        self.change(|all| all.set(slot, state))
    }

    fn set_primary(&self, slot: Slot) -> Result<(), FlashError> {
        self.change(|all| all.primary = slot)
    }
}
