//! A target that a program of the operator's installs: whatever the device is, a script that knows it is enough.
//!
//! The payload is staged as a file. `activate` runs the program with the file's path (how it is called and how it reports says
//! [`Program`]); it is past the point of no return, so what the program does is either done or undone. Its exit status says which:
//!
//! | status | meaning |
//! |---|---|
//! | 0 | installed |
//! | 10 | refused before anything was changed: the old version runs |
//! | 11 | failed, and the old version runs |
//! | any other, or a time-out | failed: what runs now nobody knows |
//!
//! After the last the `rollback` program brings the old version back, where there is one; it is called in the same way, and may be
//! called for an installation that was never begun. Without one, or when it fails, the version that the target reports decides.
//!
//! Power may go in the middle of either program: it is run again then, and has to cope with what the first run left.

use std::sync::Arc;

use otahost_disk::{Disk, Place};
use serde::{Deserialize, Serialize};

use crate::operator::Program;
use crate::program::ProgramError;
use crate::staging::{Memory, StagingDir};
use crate::{Activation, FlashError, Flasher, Stage, Staged, Standing, Work};

/// Exit status: refused before anything was changed.
pub const REFUSED: i32 = 10;
/// Exit status: failed, and the old version runs.
pub const OLD_RUNS: i32 = 11;

/// How a target is installed by a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSetup {
    /// Where the payload is staged; nothing else is in it.
    pub directory: Place,
    /// Installs the payload.
    pub program: Program,
    /// Brings the old version back.
    pub rollback: Option<Program>,
    /// The new version runs only after a reboot of this device.
    pub reboot: bool,
}

/// The flasher of a target that a program installs.
#[derive(Debug)]
pub struct CommandFlasher {
    staging: StagingDir,
    setup: CommandSetup,
}

/// What became of the payload that was staged last.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Course {
    sha256: String,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// The program was started, and how it ended is not known, or it said so itself.
    Begun,
    /// It said that it installed the payload.
    Installed,
    /// That is confirmed.
    Confirmed,
    /// The old version runs.
    Old,
}

impl CommandFlasher {
    /// Nothing is looked at before [`Flasher::inspect`].
    pub fn new(disk: Arc<dyn Disk>, setup: CommandSetup) -> Self {
        CommandFlasher {
            staging: StagingDir::new(disk, setup.directory.clone()),
            setup,
        }
    }

    fn memory(&self) -> Memory<'_> {
        Memory::new(&self.staging, "course")
    }

    /// How far this payload has come; nothing when it was not begun with.
    fn state(&self, staged: &Staged) -> Result<Option<State>, FlashError> {
        let course: Option<Course> = self.memory().read()?;
        Ok(course
            .filter(|course| course.sha256 == staged.sha256)
            .map(|course| course.state))
    }

    fn note(&self, staged: &Staged, state: State) -> Result<(), FlashError> {
        self.memory().write(&Course {
            sha256: staged.sha256.clone(),
            state,
        })
    }

    fn needs(&self) -> Activation {
        if self.setup.reboot {
            Activation::NeedsReboot
        } else {
            Activation::Now
        }
    }

    fn path(&self) -> String {
        self.staging.payload().path().display().to_string()
    }
}

impl Flasher for CommandFlasher {
    fn inspect(&self) -> Result<(), FlashError> {
        self.staging.open().map(drop)
    }

    fn begin(&self, _resume: bool) -> Result<Box<dyn Stage>, FlashError> {
        // Whatever was installed before is the old version from now on.
        self.memory().forget()?;
        Ok(Box::new(self.staging.begin()?))
    }

    fn finish(&self, len: u64, sha256: &str) -> Result<Staged, FlashError> {
        self.staging.finish(len, sha256)
    }

    fn verify(&self, staged: &Staged) -> Result<(), FlashError> {
        self.staging.verify(staged)
    }

    fn takes_its_time(&self) -> bool {
        !self.setup.reboot
    }

    fn activate(&self, staged: &Staged, work: &Work<'_>) -> Result<Activation, FlashError> {
        if let Some(State::Installed | State::Confirmed) = self.state(staged)? {
            return Ok(self.needs());
        }
        self.note(staged, State::Begun)?;
        match self.setup.program.run(&self.path(), work, 0) {
            Ok(()) => {
                self.note(staged, State::Installed)?;
                Ok(self.needs())
            }
            Err(ProgramError::Stopped { .. }) => Err(FlashError::Stopped),
            Err(error) => {
                let old_runs = match &error {
                    ProgramError::Failed { status, .. } => {
                        matches!(status.code(), Some(REFUSED | OLD_RUNS))
                    }
                    // It did nothing at all.
                    ProgramError::NotStarted { .. } | ProgramError::Empty => true,
                    _ => false,
                };
                if old_runs {
                    self.note(staged, State::Old)?;
                }
                Err(FlashError::Program(error.to_string()))
            }
        }
    }

    fn standing(&self, staged: &Staged) -> Result<Standing, FlashError> {
        Ok(match self.state(staged)? {
            None | Some(State::Old) => Standing::NotActivated,
            Some(State::Begun) => Standing::Unclear,
            Some(State::Installed) => Standing::New { confirmed: false },
            Some(State::Confirmed) => Standing::New { confirmed: true },
        })
    }

    fn confirm(&self, staged: &Staged) -> Result<(), FlashError> {
        match self.state(staged)? {
            Some(State::Confirmed) => {}
            Some(State::Installed) => self.note(staged, State::Confirmed)?,
            None | Some(State::Begun | State::Old) => {
                return Err(FlashError::Selector(
                    "it cannot be confirmed: it was not installed".into(),
                ));
            }
        }
        self.staging.discard()
    }

    fn roll_back(&self, staged: &Staged, work: &Work<'_>) -> Result<Activation, FlashError> {
        let state = self.state(staged)?;
        let (None | Some(State::Old)) = state else {
            let Some(rollback) = &self.setup.rollback else {
                return Err(FlashError::NoWayBack(
                    "there is no way back to the old version: no `rollback` program is configured"
                        .into(),
                ));
            };
            return match rollback.run(&self.path(), work, 0) {
                Ok(()) => {
                    self.note(staged, State::Old)?;
                    // What was never installed whole needs no reboot to be gone.
                    Ok(match state {
                        Some(State::Begun) => Activation::Now,
                        _ => self.needs(),
                    })
                }
                Err(ProgramError::Stopped { .. }) => Err(FlashError::Stopped),
                Err(error) => Err(FlashError::NoWayBack(format!(
                    "the way back to the old version failed: {error}"
                ))),
            };
        };
        Ok(Activation::Now)
    }
}
