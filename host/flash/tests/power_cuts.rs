//! Power cuts at every write: there is always something good to boot, and repeating the steps gets to the end.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;

use otahost_disk::sim::{Controls, Image, Loss, SimDisk};
use otahost_flash::{Flasher, Slot, Standing, Work};
use support::*;

fn old() -> Vec<u8> {
    (0..3000u32).map(|n| (n % 251) as u8).collect()
}

fn new() -> Vec<u8> {
    (0..4000u32).map(|n| (n % 241) as u8).collect()
}

fn losses() -> impl Iterator<Item = Loss> {
    [Loss::AllDropped, Loss::AllKept]
        .into_iter()
        .chain((0..4).map(Loss::Seeded))
}

/// What a machine with this disk does when power returns: it has to run a whole system. Gives which.
fn power_on(image: &Image) -> Result<(Image, Slot), String> {
    let state = boot_state(image)?.boot().ok_or("no slot may boot")?;
    let content = image
        .read(&slot_place(state.booted))
        .ok_or("the slot is gone")?;
    if content != old() && content != new() {
        return Err(format!(
            "slot {} holds neither the old system nor the new one",
            state.booted
        ));
    }
    let mut after = image.clone();
    after.write(&selector_place(), state.to_json().as_bytes());
    Ok((after, state.booted))
}

/// The agent's part after a start, in short: go on with whatever is missing, until the new system is confirmed.
fn go_on(disk: &Arc<SimDisk>) {
    let flasher = slots(disk);
    let wanted = staged(Slot::B, &new());
    match flasher.standing(&wanted).unwrap() {
        Standing::New { confirmed: true } => {}
        Standing::New { confirmed: false } => flasher.confirm(&wanted).unwrap(),
        Standing::Pending { .. } => {}
        Standing::Unclear => panic!("slots are never unclear"),
        Standing::NotActivated | Standing::FellBack => drop(install(&flasher, &new()).unwrap()),
    }
}

/// Runs an update over two boots and gives the image of every cut on the way.
fn update(controls: Controls) -> (usize, Vec<String>) {
    let mut start = machine(&old(), state(Slot::A, Slot::A, GOOD, GOOD));
    start.write(&slot_place(Slot::B), &[9; 3500]);
    let (mut cuts, mut broken) = (0, Vec::new());
    let mut boots = vec![start];
    for boot in 0..2 {
        let disk = Arc::new(SimDisk::from_image(boots[boot].clone()));
        disk.set_controls(controls);
        go_on(&disk);
        let record = disk.record();
        for cut in 0..=record.ops.len() {
            for loss in losses() {
                cuts += 1;
                if let Err(why) = survives(record.image_after(cut, loss)) {
                    broken.push(format!("boot {boot}, cut {cut}, {loss:?}: {why}"));
                }
            }
        }
        boots.push(power_on(&disk.image(Loss::AllKept)).unwrap().0);
    }
    (cuts, broken)
}

/// From this disk the machine boots, and gets to the confirmed new system within a few boots.
fn survives(image: Image) -> Result<(), String> {
    let mut image = image;
    for _ in 0..4 {
        let (booted, _) = power_on(&image)?;
        let disk = Arc::new(SimDisk::from_image(booted));
        go_on(&disk);
        image = disk.image(Loss::AllDropped);
        if boot_state(&image)? == state(Slot::B, Slot::B, GOOD, GOOD) {
            let whole = image.read(&slot_place(Slot::B)).unwrap() == new();
            let kept = image.read(&slot_place(Slot::A)).unwrap() == old();
            return if whole && kept {
                Ok(())
            } else {
                Err("a slot holds something else".into())
            };
        }
    }
    Err("it never gets there".into())
}

#[test]
fn after_any_cut_a_whole_system_boots_and_the_update_gets_to_its_end() {
    let (cuts, broken) = update(Controls::default());
    assert_eq!(broken, [] as [String; 0], "{} of {cuts}", broken.len());
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn without_syncs_it_would_not() {
    let (_, broken) = update(Controls {
        skip_file_sync: true,
        ..Controls::default()
    });
    assert!(
        !broken.is_empty(),
        "the test cannot see what it is there for"
    );
}

#[test]
fn after_any_cut_in_a_rollback_the_old_system_boots() {
    let mut start = machine(&old(), state(Slot::B, Slot::B, GOOD, trial(2)));
    start.write(&slot_place(Slot::B), &new());
    let disk = Arc::new(SimDisk::from_image(start));
    let wanted = staged(Slot::B, &new());
    slots(&disk).roll_back(&wanted, &Work::quiet()).unwrap();
    let record = disk.record();
    for cut in 0..=record.ops.len() {
        for loss in losses() {
            let (image, _) = power_on(&record.image_after(cut, loss)).unwrap();
            // The agent goes on with what it had begun.
            let disk = Arc::new(SimDisk::from_image(image));
            slots(&disk).roll_back(&wanted, &Work::quiet()).unwrap();
            let (after, booted) = power_on(&disk.image(Loss::AllDropped)).unwrap();
            assert_eq!(booted, Slot::A, "cut {cut}, {loss:?}");
            assert_eq!(
                boot_state(&after).unwrap(),
                state(Slot::A, Slot::A, GOOD, BAD)
            );
        }
    }
}
