//! Keeps what a flasher tells, and stops it where a test wants.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "tests; not every file uses all of it"
)]

use std::sync::Mutex;

use otahost_flash::Progress;

type Step = (String, u8, Option<String>);

#[derive(Debug, Default)]
pub struct Followed {
    steps: Mutex<Vec<Step>>,
    lines: Mutex<Vec<String>>,
    stop_at: Option<u8>,
}

impl Followed {
    /// Tells the work to stop once it has done so much.
    pub fn stopping_at(percent: u8) -> Self {
        Followed {
            stop_at: Some(percent),
            ..Followed::default()
        }
    }

    /// Stage, percentage and device, each change once.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = self.steps.lock().unwrap().clone();
        steps.dedup();
        steps
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Progress for Followed {
    fn at(&self, stage: &str, percent: u8, device: Option<&str>) {
        let step = (stage.to_owned(), percent, device.map(str::to_owned));
        self.steps.lock().unwrap().push(step);
    }
    fn log(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }
    fn is_stopped(&self) -> bool {
        let steps = self.steps.lock().unwrap();
        self.stop_at
            .is_some_and(|at| steps.last().is_some_and(|(_, percent, _)| *percent >= at))
    }
}
