//! Two slots on a simulated disk and a boot loader by the book.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "tests; not every file uses all of it"
)]

use std::sync::Arc;

use otahost_disk::sim::{Image, SimDisk};
use otahost_disk::{Disk, Place};
use otahost_flash::boot::SlotStates;
use otahost_flash::{BootState, FileSelector, Flasher, Slot, SlotState, Slots, Staged, Work};

pub const GOOD: SlotState = SlotState::Good;
pub const BAD: SlotState = SlotState::Bad;

pub const fn trial(tries: u8) -> SlotState {
    SlotState::Trial { tries }
}

pub const fn state(booted: Slot, primary: Slot, a: SlotState, b: SlotState) -> BootState {
    BootState {
        booted,
        primary,
        slots: SlotStates { a, b },
    }
}

pub fn slot_place(slot: Slot) -> Place {
    Place::operator(format!("/machine/slot-{slot}"))
}

pub fn selector_place() -> Place {
    Place::operator("/machine/boot.json")
}

/// A machine that runs what is in slot a.
pub fn machine(running: &[u8], state: BootState) -> Image {
    let mut image = Image::new();
    image.write(&slot_place(Slot::A), running);
    image.write(&slot_place(Slot::B), b"");
    image.write(&selector_place(), state.to_json().as_bytes());
    image
}

pub fn slots(disk: &Arc<SimDisk>) -> Slots {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    let selector = FileSelector::new(Arc::clone(&disk), selector_place());
    Slots::new(
        disk,
        [slot_place(Slot::A), slot_place(Slot::B)],
        Box::new(selector),
    )
}

pub fn boot_state(image: &Image) -> Result<BootState, String> {
    let json = image
        .read(&selector_place())
        .ok_or("the boot selector is gone")?;
    BootState::parse(&json, &"the test").map_err(|error| error.to_string())
}

pub fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub fn staged(slot: Slot, content: &[u8]) -> Staged {
    Staged {
        place: slot.name().into(),
        len: content.len() as u64,
        sha256: sha256(content),
    }
}

/// Everything up to the reboot.
pub fn install(slots: &Slots, content: &[u8]) -> Result<Staged, otahost_flash::FlashError> {
    let stage = slots.begin(false)?;
    for (index, part) in content.chunks(1000).enumerate() {
        stage.write_at(part, index as u64 * 1000)?;
    }
    stage.sync()?;
    let staged = slots.finish(content.len() as u64, &sha256(content))?;
    slots.verify(&staged)?;
    slots.activate(&staged, &Work::quiet())?;
    Ok(staged)
}
