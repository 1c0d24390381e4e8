//! A boot selector in a small file, for tests, for the demo, and for boot loaders that can read one.

use std::sync::Arc;

use otahost_disk::{Disk, Place};

use super::{BootSelector, BootState, Slot, SlotState};
use crate::FlashError;

/// Far more than the state ever needs.
const LIMIT: u64 = 4096;

/// A JSON file in the form of [`BootState`], replaced as a whole and durably.
#[derive(Debug)]
pub struct FileSelector {
    disk: Arc<dyn Disk>,
    place: Place,
}

impl FileSelector {
    /// A selector in the file at this place. The boot loader, or whoever provisions the device, makes it.
    pub fn new(disk: Arc<dyn Disk>, place: Place) -> Self {
        FileSelector { disk, place }
    }

    fn change(&self, change: impl FnOnce(&mut BootState)) -> Result<(), FlashError> {
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
