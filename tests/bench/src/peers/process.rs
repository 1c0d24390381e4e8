//! Processes that end with the value that stands for them.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A process; it is killed when the value is dropped, and so is all it has started.
#[derive(Debug)]
pub(crate) struct Ended(Child);

impl Ended {
    /// Starts it in a group of its own.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        command.process_group(0).spawn().map(Ended)
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // The group, because a pipeline outlives its shell.
        let _ = Command::new("kill")
            .args(["-KILL", "--", &format!("-{}", self.0.id())])
            .stderr(Stdio::null())
            .status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
