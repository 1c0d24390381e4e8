//! The machine's boot loader: which slot runs, and what happens when it does not come up.
//!
//! It shares nothing with the agent but the selector file, and it judges an image by reading it. So it finds the mistakes an agent
//! and its own flasher would agree on.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::MachineError;
use crate::image::{Image, ImageHeader};

/// The selector file, in the format of the agent's `file` boot selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// The slot that runs now, written by the boot loader.
    pub booted: String,
    /// The slot to try first, written by the agent.
    pub primary: String,
    /// What is known of each slot.
    pub slots: BTreeMap<String, Slot>,
}

/// What is known of a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Whether it may be booted.
    pub state: SlotState,
    /// Boots left to a slot on trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tries: Option<u8>,
}

/// Whether a slot may be booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotState {
    /// It has proved itself.
    Good,
    /// Never.
    Bad,
    /// As long as it has tries left; each boot takes one.
    Trial,
}

/// Why the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Power came.
    PowerOn,
    /// The agent asked for it.
    Reboot,
}

/// One attempt to boot a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// When.
    pub at: SystemTime,
    /// What started it. An attempt after one that failed has the same reason.
    pub why: Why,
    /// The slot that was tried.
    pub slot: String,
    /// The version of the image there, where there is an image.
    pub version: Option<String>,
    /// Why it did not come up; `None` when it runs.
    pub failure: Option<String>,
}

impl Boot {
    /// True when this boot came up.
    pub fn came_up(&self) -> bool {
        self.failure.is_none()
    }
}

impl Selector {
    /// The selector as the factory leaves it: `a` runs and is good, `b` was never written.
    pub fn factory() -> Self {
        let slot = |state| Slot { state, tries: None };
        Selector {
            booted: "a".to_owned(),
            primary: "a".to_owned(),
            slots: BTreeMap::from([
                ("a".to_owned(), slot(SlotState::Good)),
                ("b".to_owned(), slot(SlotState::Bad)),
            ]),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read or is not in the format: then this machine does not start any more, and a test should say so.
    pub fn read(path: &Path) -> Result<Self, MachineError> {
        let bytes =
            fs::read(path).map_err(|e| MachineError::io("read the boot selector", path, e))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| MachineError::io("understand the boot selector", path, e.into()))
    }

    /// Replaces it as a whole, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), MachineError> {
        let write = || -> io::Result<()> {
            let new = path.with_extension("boot-loader");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|e| MachineError::io("write the boot selector", path, e))
    }

    /// The slot to try next: the primary one, then the others by name. `failed` holds the slots that did not come up in this start
    /// though nothing counts their tries.
    fn candidate(&self, failed: &[String]) -> Option<String> {
        let may = |name: &str| match self.slots.get(name) {
            Some(Slot {
                state: SlotState::Good,
                ..
            }) => !failed.iter().any(|f| f == name),
            Some(Slot {
                state: SlotState::Trial,
                tries,
            }) => tries.is_some_and(|left| left > 0),
            Some(Slot {
                state: SlotState::Bad,
                ..
            })
            | None => false,
        };
        if may(&self.primary) {
            return Some(self.primary.clone());
        }
        self.slots.keys().find(|name| may(name)).cloned()
    }
}

/// Boots: tries slots until one comes up, taking a try durably *before* each boot of a slot on trial. Every attempt is told to
/// `log`.
///
/// # Errors
/// When no slot comes up: [`MachineError::Bricked`].
pub fn boot(
    selector_path: &Path,
    slot_path: impl Fn(&str) -> PathBuf,
    why: Why,
    mut log: impl FnMut(Boot),
) -> Result<(String, ImageHeader), MachineError> {
    let mut selector = Selector::read(selector_path)?;
    let mut failed = Vec::new();
    // Each round takes a try or fails a good slot, so it ends.
    while let Some(name) = selector.candidate(&failed) {
        let slot = selector
            .slots
            .get_mut(&name)
            .expect("a candidate is one of the slots");
        if slot.state == SlotState::Trial {
            slot.tries = slot.tries.map(|left| left - 1);
            selector.write(selector_path)?;
        }
        let image = Image::verify(&slot_path(&name));
        let version = image.as_ref().ok().map(|header| header.version.clone());
        let failure = match &image {
            Ok(header) if header.boots => None,
            Ok(_) => Some("the image does not come up".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        log(Boot {
            at: SystemTime::now(),
            why,
            slot: name.clone(),
            version,
            failure: failure.clone(),
        });
        match image {
            Ok(header) if failure.is_none() => {
                selector.booted.clone_from(&name);
                selector.write(selector_path)?;
                return Ok((name, header));
            }
            _ => failed.push(name),
        }
    }
    Err(MachineError::Bricked)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new(a: &Image, b: &Image, trial: Slot) -> Self {
            let bench = Bench {
                dir: tempfile::tempdir().unwrap(),
            };
            a.write(&bench.slot("a")).unwrap();
            b.write(&bench.slot("b")).unwrap();
            let mut selector = Selector::factory();
            selector.primary = "b".to_owned();
            selector.slots.insert("b".to_owned(), trial);
            selector.write(&bench.selector()).unwrap();
            bench
        }

        fn selector(&self) -> PathBuf {
            self.dir.path().join("boot.json")
        }

        fn slot(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn boot(&self) -> (Result<String, MachineError>, Vec<Boot>) {
            let mut log = Vec::new();
            let booted = boot(
                &self.selector(),
                |name| self.slot(name),
                Why::PowerOn,
                |boot| log.push(boot),
            );
            (booted.map(|(slot, _)| slot), log)
        }
    }

    fn trial(tries: u8) -> Slot {
        Slot {
            state: SlotState::Trial,
            tries: Some(tries),
        }
    }

    #[test]
    fn a_trial_slot_that_comes_up_has_one_try_less() {
        let bench = Bench::new(&Image::new("1", 2_000), &Image::new("2", 2_000), trial(3));
        assert_eq!(bench.boot().0.unwrap(), "b");
        let selector = Selector::read(&bench.selector()).unwrap();
        assert_eq!(
            (selector.booted.as_str(), &selector.slots["b"]),
            ("b", &trial(2))
        );
    }

    #[test]
    fn three_failed_boots_fall_back_to_the_good_slot() {
        let bench = Bench::new(
            &Image::new("1", 2_000),
            &Image::new("2", 2_000).that_does_not_boot(),
            trial(3),
        );
        let (slot, log) = bench.boot();
        assert_eq!(slot.unwrap(), "a");
        assert_eq!(
            log.iter()
                .map(|boot| (boot.slot.as_str(), boot.came_up()))
                .collect::<Vec<_>>(),
            [("b", false), ("b", false), ("b", false), ("a", true)]
        );
        let selector = Selector::read(&bench.selector()).unwrap();
        assert_eq!(
            (selector.booted.as_str(), &selector.slots["b"]),
            ("a", &trial(0))
        );
    }

    #[test]
    fn a_slot_that_is_never_confirmed_is_left_after_its_tries() {
        let bench = Bench::new(&Image::new("1", 2_000), &Image::new("2", 2_000), trial(3));
        let slots: Vec<String> = (0..5).map(|_| bench.boot().0.unwrap()).collect();
        assert_eq!(slots, ["b", "b", "b", "a", "a"]);
    }

    #[test]
    fn half_an_image_is_not_booted() {
        let bench = Bench::new(
            &Image::new("1", 2_000),
            &Image::new("2", 9_000),
            Slot {
                state: SlotState::Good,
                tries: None,
            },
        );
        File::options()
            .write(true)
            .open(bench.slot("b"))
            .unwrap()
            .set_len(5_000)
            .unwrap();
        let (slot, log) = bench.boot();
        assert_eq!(slot.unwrap(), "a");
        assert_eq!(log.len(), 2);
    }

    #[test]
    fn a_bad_slot_is_not_tried_even_when_it_is_primary() {
        let bench = Bench::new(
            &Image::new("1", 2_000),
            &Image::new("2", 2_000),
            Slot {
                state: SlotState::Bad,
                tries: None,
            },
        );
        let (slot, log) = bench.boot();
        assert_eq!((slot.unwrap().as_str(), log.len()), ("a", 1));
    }

    #[test]
    fn a_machine_without_a_bootable_slot_is_bricked() {
        let dead = Image::new("1", 2_000).that_does_not_boot();
        let bench = Bench::new(&dead, &dead, trial(1));
        assert!(matches!(bench.boot().0, Err(MachineError::Bricked)));
    }
}
