//! The boot selector's file, of a boot loader that may be deaf.

use std::sync::{Arc, Mutex, PoisonError};

use otahost_disk::Place;
use otahost_disk::sim::SimDisk;
use otahost_flash::{BootSelector, BootState, FileSelector, FlashError, Slot, SlotState};

use super::machine::SELECTOR;
use super::outer::Shared;

/// Says that it did, and where the world says so did not.
#[derive(Debug)]
pub(super) struct SimSelector {
    world: Shared,
    file: FileSelector,
    /// What was told last is what the next look sees.
    believes: bool,
    told: Mutex<Option<(Slot, SlotState)>>,
}

impl SimSelector {
    pub(super) fn new(world: &Shared, disk: &SimDisk, believes: bool) -> Self {
        SimSelector {
            world: world.clone(),
            file: FileSelector::new(Arc::new(disk.clone()), Place::operator(SELECTOR)),
            believes,
            told: Mutex::default(),
        }
    }

    fn last_told(&self) -> std::sync::MutexGuard<'_, Option<(Slot, SlotState)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BootSelector for SimSelector {
    fn read(&self) -> Result<BootState, FlashError> {
        let mut state = self.file.read()?;
        if let Some((slot, told)) = self.last_told().take() {
            state.set(slot, told);
        }
        Ok(state)
    }

    fn set_state(&self, slot: Slot, state: SlotState) -> Result<(), FlashError> {
        *self.last_told() = self.believes.then_some((slot, state));
        {
            let deaf = &mut self.world.lock().unwrap().deaf_to_bad;
            if *deaf && state == SlotState::Bad {
                *deaf = false;
                return Ok(());
            }
        }
        self.file.set_state(slot, state)
    }

    fn set_primary(&self, slot: Slot) -> Result<(), FlashError> {
        self.file.set_primary(slot)
    }
}
