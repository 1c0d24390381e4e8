//! A boot selector behind a command of the operator's, which fits any boot loader.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{BootSelector, BootState, Slot, SlotState};
use crate::FlashError;
use crate::program::{self, Limits};

/// A program and its first arguments. It is called as
///
/// - `… get`: prints the JSON form of [`BootState`];
/// - `… set SLOT trial TRIES`: this slot may boot so many times more. A boot loader that counts otherwise may keep another number
///   above 0;
/// - `… mark SLOT good` and `… mark SLOT bad`;
/// - `… primary SLOT`: this slot is to boot next;
///
/// where SLOT is `a` or `b`. It has to be done, durably, before it exits, and exits with 0 unless something failed; then what it
/// says on standard error is shown. It gets 30 s and may say 64 KiB; it is killed, with whatever it started, when it takes more.
/// One selector never runs it twice at the same time.
#[derive(Debug)]
pub struct CommandSelector {
    argv: Vec<String>,
    limits: Limits,
    /// Few boot loaders' tools can run twice at once.
    one_at_a_time: Mutex<()>,
}

impl CommandSelector {
    /// A selector behind this program. Without a `/` in its name it is looked for in `PATH`.
    ///
    /// # Errors
    ///
    /// `Selector` when there is no program's name.
    pub fn new(argv: Vec<String>) -> Result<Self, FlashError> {
        if argv.first().is_none_or(String::is_empty) {
            return Err(FlashError::Selector(
                "the boot selector's command is empty; give a program and its arguments".to_owned(),
            ));
        }
        Ok(CommandSelector {
            argv,
            limits: Limits::default(),
            one_at_a_time: Mutex::default(),
        })
    }

    /// The same with another time-out.
    #[must_use]
    pub fn with_time_out(mut self, time_out: Duration) -> Self {
        self.limits.time = time_out;
        self
    }

    fn run(&self, arguments: &[&str]) -> Result<String, FlashError> {
        let argv: Vec<String> = self
            .argv
            .iter()
            .map(String::as_str)
            .chain(arguments.iter().copied())
            .map(str::to_owned)
            .collect();
        // Whoever panicked with it has left nothing half done.
        let _alone = self
            .one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        program::run(&argv, self.limits)
            .map_err(|error| FlashError::Selector(format!("the boot selector's command {error}")))
    }
}

impl BootSelector for CommandSelector {
    fn read(&self) -> Result<BootState, FlashError> {
        BootState::parse(
            self.run(&["get"])?.as_bytes(),
            &format_args!("`{} get`", self.argv.join(" ")),
        )
    }

    fn set_state(&self, slot: Slot, state: SlotState) -> Result<(), FlashError> {
        match state {
            SlotState::Good => self.run(&["mark", slot.name(), "good"]),
            SlotState::Bad => self.run(&["mark", slot.name(), "bad"]),
            SlotState::Trial { tries } => {
                self.run(&["set", slot.name(), "trial", &tries.to_string()])
            }
        }
        .map(drop)
    }

    fn set_primary(&self, slot: Slot) -> Result<(), FlashError> {
        self.run(&["primary", slot.name()]).map(drop)
    }
}
