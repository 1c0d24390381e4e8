//! What decides which slot boots: the [`BootSelector`] trait, its kinds, and the convention they share with the boot loader.
//!
//! Slots are called `a` and `b`, in the order of the configuration. A slot is
//!
//! - **good**: it booted and was confirmed;
//! - **bad**: it must not boot: it is being written, or was given up;
//! - **trial** with so many tries: it may boot that many times more without being confirmed.
//!
//! What a boot loader has to do is [`BootState::boot`]: boot the primary slot when it is good or has tries left, taking one try
//! off *before* it boots; otherwise boot the other slot when that is good. A slot whose tries ran out is reported as trial with 0
//! tries, or as bad where the boot loader marks it so. Apart from that `bad` is only ever set by the agent.

mod command;
mod file;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use command::CommandSelector;
pub use file::FileSelector;

use crate::FlashError;

/// One of the two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first of the configuration.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The other one.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// `a` or `b`.
    pub fn name(self) -> &'static str {
        match self {
            Slot::A => "a",
            Slot::B => "b",
        }
    }

    /// The slot of this name.
    pub fn of_name(name: &str) -> Option<Slot> {
        [Slot::A, Slot::B]
            .into_iter()
            .find(|slot| slot.name() == name)
    }

    /// Its place in a pair.
    pub fn index(self) -> usize {
        match self {
            Slot::A => 0,
            Slot::B => 1,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the boot loader may do with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase", deny_unknown_fields)]
pub enum SlotState {
    /// Boot it.
    Good,
    /// Do not boot it.
    Bad,
    /// Boot it so many times more.
    Trial {
        /// Boots left.
        tries: u8,
    },
}

impl SlotState {
    /// True when the boot loader may boot it.
    pub fn is_bootable(self) -> bool {
        !matches!(self, SlotState::Bad | SlotState::Trial { tries: 0 })
    }
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SlotState::Good => f.write_str("good"),
            SlotState::Bad => f.write_str("bad"),
            SlotState::Trial { tries } => write!(f, "trial with {tries} tries"),
        }
    }
}

/// The states of both slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotStates {
    /// Of slot `a`.
    pub a: SlotState,
    /// Of slot `b`.
    pub b: SlotState,
}

/// All that a boot selector knows. As JSON:
///
/// ```json
/// {"booted":"a","primary":"a","slots":{"a":{"state":"good"},"b":{"state":"trial","tries":3}}}
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootState {
    /// The slot that runs. Only the boot loader sets it.
    pub booted: Slot,
    /// The slot that is to boot next.
    pub primary: Slot,
    /// The states of both.
    pub slots: SlotStates,
}

impl BootState {
    /// Reads the JSON form; `origin` names where it comes from in the error.
    pub fn parse(json: &[u8], origin: &dyn fmt::Display) -> Result<Self, FlashError> {
        serde_json::from_slice(json).map_err(|error| {
            FlashError::Selector(format!(
                "cannot understand the boot selector's state from {origin}: {error}; expected is, for one, \
                 {{\"booted\":\"a\",\"primary\":\"a\",\"slots\":{{\"a\":{{\"state\":\"good\"}},\"b\":{{\"state\":\"trial\",\"tries\":3}}}}}}"
            ))
        })
    }

    /// The JSON form, with a newline at the end.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string(self)
            .expect("a struct of words and numbers always has a JSON form");
        json + "\n"
    }

    /// The state of one slot.
    pub fn of(&self, slot: Slot) -> SlotState {
        match slot {
            Slot::A => self.slots.a,
            Slot::B => self.slots.b,
        }
    }

    /// Changes the state of one slot.
    pub fn set(&mut self, slot: Slot, state: SlotState) {
        match slot {
            Slot::A => self.slots.a = state,
            Slot::B => self.slots.b = state,
        }
    }

    /// The convention in code: what a boot loader makes of this state when the machine starts. `None` when nothing may boot. It has
    /// to store the new state before it gives control to the slot.
    pub fn boot(mut self) -> Option<Self> {
        let other = self.primary.other();
        match self.of(self.primary) {
            SlotState::Trial { tries: tries @ 1.. } => {
                self.set(self.primary, SlotState::Trial { tries: tries - 1 });
                self.booted = self.primary;
            }
            SlotState::Good => self.booted = self.primary,
            SlotState::Bad | SlotState::Trial { tries: 0 } if self.of(other) == SlotState::Good => {
                self.booted = other
            }
            SlotState::Bad | SlotState::Trial { tries: 0 } => return None,
        }
        Some(self)
    }
}

/// The boot loader's memory. Calls block; a change is durable when the call returns.
pub trait BootSelector: fmt::Debug + Send + Sync {
    /// What it says now.
    fn read(&self) -> Result<BootState, FlashError>;
    /// Changes the state of one slot and nothing else.
    fn set_state(&self, slot: Slot, state: SlotState) -> Result<(), FlashError>;
    /// Changes which slot is to boot next and nothing else.
    fn set_primary(&self, slot: Slot) -> Result<(), FlashError>;
}
