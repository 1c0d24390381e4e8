//! What the `slots` flasher does in every state of the boot selector.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use otahost_disk::sim::SimDisk;
use otahost_disk::{Disk, DiskFile, Open, Place, RealDisk};
use otahost_flash::slots::TRIES;
use otahost_flash::{
    Activation, BootSelector, BootState, FileSelector, FlashError, Flasher, Slot, SlotState, Slots,
    Standing, Work,
};
use support::*;

type Step = fn(&Slots) -> Result<(), FlashError>;
type StepOf = fn(&Slots, Slot) -> Result<(), FlashError>;

const OLD: &[u8] = b"the old system";
const NEW: &[u8] = b"the new system, which is longer";

fn disk(state: BootState) -> Arc<SimDisk> {
    Arc::new(SimDisk::from_image(machine(OLD, state)))
}

fn now(disk: &SimDisk) -> BootState {
    BootState::parse(&disk.read_outside(&selector_place()).unwrap(), &"the test").unwrap()
}

fn reboot(disk: &SimDisk) {
    let state = now(disk).boot().unwrap();
    disk.write_outside(&selector_place(), state.to_json().as_bytes());
}

/// All states in which a slot of the machine can be.
fn all_states() -> impl Iterator<Item = BootState> {
    let slots = [GOOD, BAD, trial(0), trial(1), trial(TRIES)];
    let pairs = slots.map(|a| slots.map(|b| (a, b)));
    let both = [Slot::A, Slot::B];
    pairs.into_iter().flatten().flat_map(move |(a, b)| {
        both.into_iter().flat_map(move |booted| {
            both.into_iter()
                .map(move |primary| state(booted, primary, a, b))
        })
    })
}

#[test]
fn an_update_boots_is_confirmed_and_stays() {
    let disk = disk(state(Slot::A, Slot::A, GOOD, GOOD));
    let slots = slots(&disk);
    slots.inspect().unwrap();
    let staged = install(&slots, NEW).unwrap();
    assert_eq!(now(&disk), state(Slot::A, Slot::B, GOOD, trial(TRIES)));
    assert_eq!(
        slots.standing(&staged),
        Ok(Standing::Pending { tries: TRIES })
    );
    reboot(&disk);
    assert_eq!(
        slots.standing(&staged),
        Ok(Standing::New { confirmed: false })
    );
    slots.inspect().unwrap();
    slots.confirm(&staged).unwrap();
    assert_eq!(now(&disk), state(Slot::B, Slot::B, GOOD, GOOD));
    assert_eq!(
        slots.standing(&staged),
        Ok(Standing::New { confirmed: true })
    );
    reboot(&disk);
    assert_eq!(now(&disk).booted, Slot::B);
    assert_eq!(disk.read_outside(&slot_place(Slot::A)).unwrap(), OLD);
    assert_eq!(disk.read_outside(&slot_place(Slot::B)).unwrap(), NEW);
}

#[test]
fn an_update_that_is_never_confirmed_falls_back() {
    let disk = disk(state(Slot::A, Slot::A, GOOD, BAD));
    let slots = slots(&disk);
    let staged = install(&slots, NEW).unwrap();
    for _ in 0..TRIES {
        reboot(&disk);
        assert_eq!(
            slots.standing(&staged),
            Ok(Standing::New { confirmed: false })
        );
    }
    reboot(&disk);
    assert_eq!(now(&disk).booted, Slot::A);
    assert_eq!(slots.standing(&staged), Ok(Standing::FellBack));
    // The next one can be installed over it.
    install(&slots, b"the next").unwrap();
    assert_eq!(now(&disk), state(Slot::A, Slot::B, GOOD, trial(TRIES)));
    assert_eq!(
        disk.read_outside(&slot_place(Slot::B)).unwrap(),
        b"the next"
    );
}

#[test]
fn a_rollback_of_what_runs_needs_a_reboot_and_of_what_waits_does_not() {
    for boots in 0..3 {
        let disk = disk(state(Slot::A, Slot::A, GOOD, BAD));
        let slots = slots(&disk);
        let staged = install(&slots, NEW).unwrap();
        (0..boots).for_each(|_| reboot(&disk));
        let needs = slots.roll_back(&staged, &Work::quiet()).unwrap();
        assert_eq!(needs == Activation::NeedsReboot, boots > 0);
        reboot(&disk);
        assert_eq!(now(&disk), state(Slot::A, Slot::A, GOOD, BAD));
        let standing = slots.standing(&staged).unwrap();
        assert_eq!(standing, Standing::NotActivated);
        assert_eq!(standing.after_activation(), Standing::FellBack);
        assert_eq!(
            slots.roll_back(&staged, &Work::quiet()),
            Ok(Activation::Now),
            "once more"
        );
    }
}

#[test]
fn in_every_state_nothing_ever_makes_the_running_slot_unsafe() {
    let steps: [(&str, StepOf); 7] = [
        ("begin", |slots, _| slots.begin(false).map(drop)),
        ("finish", |slots, _| slots.finish(0, "").map(drop)),
        ("activate", |slots, new| {
            slots.activate(&staged(new, b""), &Work::quiet()).map(drop)
        }),
        ("rearm", |slots, new| slots.rearm(&staged(new, b""))),
        ("confirm", |slots, new| slots.confirm(&staged(new, b""))),
        ("roll back", |slots, new| {
            slots.roll_back(&staged(new, b""), &Work::quiet()).map(drop)
        }),
        ("inspect", |slots, _| slots.inspect()),
    ];
    for before in all_states() {
        for new in [Slot::A, Slot::B] {
            for (name, step) in steps {
                let disk = disk(before);
                let flasher = slots(&disk);
                let first = step(&flasher, new);
                let after = now(&disk);
                let what = format!("{name} of {new} in {before:?}: {first:?}, {after:?}");
                assert_eq!(after.booted, before.booted, "{what}");
                // Whatever was refused changed nothing.
                assert!(first.is_ok() || after == before, "{what}");
                // What boots after it is good, or on trial with something good behind it, if it was so before.
                let safe = |state: BootState| {
                    state.of(state.primary) == GOOD || state.of(state.primary.other()) == GOOD
                };
                assert!(safe(after) || !safe(before), "{what}");
                // What runs is only given up by a rollback of itself.
                let running = before.booted;
                if before.of(running) == GOOD && after.of(running) != GOOD {
                    assert_eq!((name, new), ("roll back", running), "{what}");
                    assert_eq!(after.of(running.other()), GOOD, "{what}");
                }
                // Once more gives the same, and changes nothing.
                if first.is_ok() && name != "roll back" {
                    assert_eq!(step(&flasher, new), Ok(()), "{what}");
                    assert_eq!(now(&disk), after, "{what}");
                }
            }
        }
    }
}

#[test]
fn the_standing_in_every_state() {
    for state in all_states() {
        let disk = disk(state);
        let found = slots(&disk).standing(&staged(Slot::B, NEW)).unwrap();
        let wanted = match (state.booted, state.primary, state.slots.b) {
            (Slot::B, Slot::B, GOOD) => Standing::New { confirmed: true },
            (Slot::B, _, _) => Standing::New { confirmed: false },
            (Slot::A, _, SlotState::Trial { tries: 0 }) => Standing::FellBack,
            (Slot::A, Slot::B, SlotState::Trial { tries }) => Standing::Pending { tries },
            (Slot::A, Slot::B, GOOD) => Standing::Pending { tries: 255 },
            (Slot::A, _, _) => Standing::NotActivated,
        };
        assert_eq!(found, wanted, "{state:?}");
    }
}

#[test]
fn nothing_is_written_before_the_slot_is_marked_bad() {
    let disk = disk(state(Slot::A, Slot::B, GOOD, trial(2)));
    let flasher = slots(&disk);
    let stage = flasher.begin(true).unwrap();
    assert_eq!(now(&disk), state(Slot::A, Slot::A, GOOD, BAD));
    stage.write_at(NEW, 0).unwrap();
    let mut back = vec![0; NEW.len()];
    stage.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(back, NEW);
    let beyond = stage.read_exact_at(&mut back, 1).unwrap_err();
    assert!(matches!(beyond, FlashError::Io(_)), "{beyond:?}");
    assert_eq!(disk.read_outside(&slot_place(Slot::A)).unwrap(), OLD);
}

#[test]
fn the_running_slot_has_to_be_good_before_the_other_is_written() {
    for running in [BAD, trial(0), trial(2)] {
        let disk = disk(state(Slot::A, Slot::A, running, GOOD));
        let error = slots(&disk).begin(false).unwrap_err();
        assert!(
            error.to_string().contains("confirmed or rolled back"),
            "{error}"
        );
        assert_eq!(now(&disk), state(Slot::A, Slot::A, running, GOOD));
    }
}

#[test]
fn finish_cuts_a_file_and_verify_finds_every_other_byte() {
    let disk = disk(state(Slot::A, Slot::A, GOOD, BAD));
    disk.write_outside(&slot_place(Slot::B), &[7; 5000]);
    let flasher = slots(&disk);
    let stage = flasher.begin(false).unwrap();
    stage.write_at(NEW, 0).unwrap();
    let good = flasher.finish(NEW.len() as u64, &sha256(NEW)).unwrap();
    assert_eq!(good, staged(Slot::B, NEW));
    assert_eq!(disk.read_outside(&slot_place(Slot::B)).unwrap(), NEW);
    flasher.verify(&good).unwrap();
    for at in 0..NEW.len() {
        let mut rotten = NEW.to_vec();
        rotten[at] ^= 0x20;
        disk.write_outside(&slot_place(Slot::B), &rotten);
        let error = flasher.verify(&good).unwrap_err();
        assert!(matches!(error, FlashError::Corrupt(_)), "{error:?}");
    }
    for other in [&NEW[1..], &[NEW, b"!"].concat()] {
        disk.write_outside(&slot_place(Slot::B), other);
        assert!(matches!(flasher.verify(&good), Err(FlashError::Corrupt(_))));
    }
    let error = flasher.finish(9999, "").unwrap_err();
    assert!(matches!(error, FlashError::Corrupt(_)), "{error:?}");
}

#[test]
fn a_large_payload_is_read_back_to_its_last_byte() {
    let disk = disk(state(Slot::A, Slot::A, GOOD, BAD));
    let flasher = slots(&disk);
    let content: Vec<u8> = (0..(2 << 20) + 77_u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    let staged = install(&flasher, &content).unwrap();
    let mut rotten = content.clone();
    *rotten.last_mut().unwrap() ^= 1;
    disk.write_outside(&slot_place(Slot::B), &rotten);
    assert!(matches!(
        flasher.verify(&staged),
        Err(FlashError::Corrupt(_))
    ));
}

#[test]
fn a_device_has_its_own_size_and_is_not_cut() {
    let mut image = machine(OLD, state(Slot::A, Slot::A, GOOD, BAD));
    image.device(&slot_place(Slot::B), 4096);
    let disk = Arc::new(SimDisk::from_image(image));
    let flasher = slots(&disk);
    assert_eq!(flasher.begin(false).unwrap().capacity(), Some(4096));
    let staged = install(&flasher, NEW).unwrap();
    assert_eq!(disk.read_outside(&slot_place(Slot::B)).unwrap().len(), 4096);
    flasher.verify(&staged).unwrap();
    let stage = slots(&disk).begin(false).unwrap();
    assert!(stage.write_at(NEW, 4090).is_err());
}

#[test]
fn a_file_has_room_for_what_is_free_and_what_it_holds() {
    let disk = disk(state(Slot::A, Slot::A, GOOD, BAD));
    assert_eq!(slots(&disk).begin(false).unwrap().capacity(), None);
    disk.write_outside(&slot_place(Slot::B), &[0; 200]);
    // But for what the device itself may need.
    for (free, room) in [((4 << 20) + 1000, 1200), (1000, 200)] {
        disk.set_free_space(Some(free));
        assert_eq!(slots(&disk).begin(false).unwrap().capacity(), Some(room));
    }
}

#[test]
fn a_slot_that_is_missing_is_said_at_the_start() {
    let disk = disk(state(Slot::A, Slot::A, GOOD, BAD));
    disk.remove(&slot_place(Slot::B)).unwrap();
    let error = slots(&disk).inspect().unwrap_err().to_string();
    assert!(
        error.contains("slot b") && error.contains("/machine/slot-b"),
        "{error}"
    );
    assert!(
        slots(&disk).begin(false).is_err(),
        "and it is not made by mistake"
    );
    assert_eq!(disk.read_outside(&slot_place(Slot::B)), None);
}

#[test]
fn one_medium_under_two_names_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    std::fs::write(at("one"), OLD).unwrap();
    std::fs::write(at("two"), OLD).unwrap();
    std::os::unix::fs::symlink(at("one"), at("link")).unwrap();
    std::fs::hard_link(at("one"), at("hard")).unwrap();
    let boot = state(Slot::A, Slot::A, GOOD, BAD).to_json();
    std::fs::write(at("boot"), boot).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(&at("data")).unwrap());
    for (name, fine) in [
        ("one", false),
        ("link", false),
        ("hard", false),
        ("two", true),
    ] {
        let places = [Place::operator(at("one")), Place::operator(at(name))];
        let selector = FileSelector::new(Arc::clone(&disk), Place::operator(at("boot")));
        let slots = Slots::new(Arc::clone(&disk), places, Box::new(selector));
        assert_eq!(slots.inspect().is_ok(), fine, "{name}");
        assert_eq!(slots.begin(false).is_ok(), fine, "{name}");
    }
}

#[test]
fn a_slot_that_fell_back_is_given_up_for_good() {
    // As the boot loader leaves it when the tries ran out, and as one does that marks what fails as bad.
    for left in [trial(0), BAD] {
        let disk = disk(state(Slot::A, Slot::B, GOOD, left));
        let slots = slots(&disk);
        let staged = staged(Slot::B, NEW);
        let standing = slots.standing(&staged).unwrap();
        assert_eq!(standing.after_activation(), Standing::FellBack, "{left}");
        assert_eq!(
            slots.roll_back(&staged, &Work::quiet()),
            Ok(Activation::Now),
            "{left}"
        );
        assert_eq!(now(&disk), state(Slot::A, Slot::A, GOOD, BAD), "{left}");
        reboot(&disk);
        assert_eq!(now(&disk), state(Slot::A, Slot::A, GOOD, BAD), "{left}");
        install(&slots, b"the next").unwrap();
    }
}

#[test]
fn power_cuts_in_the_first_boots_do_not_use_up_the_tries_of_an_image_that_comes_up() {
    let disk = disk(state(Slot::A, Slot::A, GOOD, BAD));
    let slots = slots(&disk);
    let staged = install(&slots, NEW).unwrap();
    for _ in 0..10 {
        reboot(&disk);
        assert_eq!(now(&disk).booted, Slot::B);
        slots.rearm(&staged).unwrap();
        assert_eq!(now(&disk), state(Slot::B, Slot::B, GOOD, trial(TRIES)));
    }
    slots.confirm(&staged).unwrap();
    slots.rearm(&staged).unwrap();
    assert_eq!(now(&disk), state(Slot::B, Slot::B, GOOD, GOOD));
}

#[test]
fn tries_are_given_back_to_a_trial_that_runs_and_to_nothing_else() {
    for before in all_states() {
        for new in [Slot::A, Slot::B] {
            let disk = disk(before);
            slots(&disk).rearm(&staged(new, NEW)).unwrap();
            let mut wanted = before;
            if before.booted == new && matches!(before.of(new), SlotState::Trial { .. }) {
                wanted.set(new, trial(TRIES));
            }
            assert_eq!(now(&disk), wanted, "{new} in {before:?}");
        }
    }
}

/// A disk whose memory of a file hides what the medium made of it, until it is told to forget.
#[derive(Debug)]
struct FailingMedium {
    disk: Arc<SimDisk>,
    /// What is really at this place.
    rotten: (Place, Vec<u8>),
}

impl Disk for FailingMedium {
    fn open(&self, place: &Place, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(place, how)?;
        if *place != self.rotten.0 {
            return Ok(file);
        }
        Ok(Arc::new(Remembered {
            file,
            rotten: self.rotten.1.clone(),
            forgotten: AtomicBool::new(false),
        }))
    }
    fn rename(&self, from: &Place, to: &Place) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, place: &Place) -> io::Result<()> {
        self.disk.remove(place)
    }
    fn create_dir(&self, place: &Place) -> io::Result<()> {
        self.disk.create_dir(place)
    }
    fn sync_dir(&self, place: &Place) -> io::Result<()> {
        self.disk.sync_dir(place)
    }
    fn list(&self, place: &Place) -> io::Result<Vec<String>> {
        self.disk.list(place)
    }
    fn free_space(&self, place: &Place) -> io::Result<Option<u64>> {
        self.disk.free_space(place)
    }
}

#[derive(Debug)]
struct Remembered {
    file: Arc<dyn DiskFile>,
    rotten: Vec<u8>,
    forgotten: AtomicBool,
}

impl DiskFile for Remembered {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        if !self.forgotten.load(Ordering::SeqCst) {
            return self.file.read_exact_at(into, offset);
        }
        let start = usize::try_from(offset).unwrap();
        into.copy_from_slice(&self.rotten[start..start + into.len()]);
        Ok(())
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn is_device(&self) -> bool {
        self.file.is_device()
    }
    fn forget_cached(&self) -> io::Result<()> {
        self.forgotten.store(true, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn what_is_verified_is_what_the_medium_kept_and_not_what_memory_says() {
    let disk = disk(state(Slot::A, Slot::A, GOOD, BAD));
    let staged = install(&slots(&disk), NEW).unwrap();
    let verify = |kept: &[u8]| {
        let rotten = (slot_place(Slot::B), kept.to_vec());
        let medium: Arc<dyn Disk> = Arc::new(FailingMedium {
            disk: Arc::clone(&disk),
            rotten,
        });
        let selector = FileSelector::new(Arc::clone(&medium), selector_place());
        let places = [slot_place(Slot::A), slot_place(Slot::B)];
        Slots::new(medium, places, Box::new(selector)).verify(&staged)
    };
    verify(NEW).unwrap();
    let mut kept = NEW.to_vec();
    kept[5] ^= 1;
    assert!(matches!(verify(&kept), Err(FlashError::Corrupt(_))));
}

/// Says yes to everything and keeps nothing.
#[derive(Debug)]
struct Forgetful(BootState);

impl BootSelector for Forgetful {
    fn read(&self) -> Result<BootState, FlashError> {
        Ok(self.0)
    }
    fn set_state(&self, _: Slot, _: SlotState) -> Result<(), FlashError> {
        Ok(())
    }
    fn set_primary(&self, _: Slot) -> Result<(), FlashError> {
        Ok(())
    }
}

#[test]
fn a_selector_that_does_not_keep_what_it_is_told_is_found_out() {
    let steps: [(BootState, Step); 7] = [
        (state(Slot::B, Slot::B, GOOD, trial(0)), |slots| {
            slots.rearm(&staged(Slot::B, NEW))
        }),
        (state(Slot::A, Slot::A, GOOD, GOOD), |slots| {
            slots.begin(false).map(drop)
        }),
        (state(Slot::A, Slot::B, GOOD, BAD), |slots| {
            slots.begin(false).map(drop)
        }),
        (state(Slot::A, Slot::A, GOOD, BAD), |slots| {
            slots
                .activate(&staged(Slot::B, NEW), &Work::quiet())
                .map(drop)
        }),
        (state(Slot::A, Slot::A, GOOD, trial(TRIES)), |slots| {
            slots
                .activate(&staged(Slot::B, NEW), &Work::quiet())
                .map(drop)
        }),
        (state(Slot::B, Slot::B, GOOD, trial(2)), |slots| {
            slots.confirm(&staged(Slot::B, NEW))
        }),
        (state(Slot::B, Slot::B, GOOD, trial(2)), |slots| {
            slots
                .roll_back(&staged(Slot::B, NEW), &Work::quiet())
                .map(drop)
        }),
    ];
    for (before, step) in steps {
        let disk: Arc<dyn Disk> = disk(before);
        let places = [slot_place(Slot::A), slot_place(Slot::B)];
        let error = step(&Slots::new(disk, places, Box::new(Forgetful(before)))).unwrap_err();
        assert!(
            error.to_string().contains("still says"),
            "{before:?}: {error}"
        );
    }
}

/// A boot loader that knows one try only.
#[derive(Debug)]
struct OneTry(Mutex<BootState>);

impl BootSelector for OneTry {
    fn read(&self) -> Result<BootState, FlashError> {
        Ok(*self.0.lock().unwrap())
    }
    fn set_state(&self, slot: Slot, state: SlotState) -> Result<(), FlashError> {
        let kept = if state == trial(TRIES) {
            trial(1)
        } else {
            state
        };
        self.0.lock().unwrap().set(slot, kept);
        Ok(())
    }
    fn set_primary(&self, slot: Slot) -> Result<(), FlashError> {
        self.0.lock().unwrap().primary = slot;
        Ok(())
    }
}

#[test]
fn a_boot_loader_may_count_tries_in_its_own_way() {
    let before = state(Slot::A, Slot::A, GOOD, BAD);
    let places = [slot_place(Slot::A), slot_place(Slot::B)];
    let slots = Slots::new(disk(before), places, Box::new(OneTry(Mutex::new(before))));
    let staged = install(&slots, NEW).unwrap();
    assert_eq!(slots.standing(&staged), Ok(Standing::Pending { tries: 1 }));
}
