//! Whether what a program started is gone.

use std::path::Path;
use std::time::{Duration, Instant};

/// True when the process whose id is in this file does not run: gone, or a zombie where nobody reaps orphans. Killed is not yet
/// gone: its state follows when it is scheduled. One that was killed before it could say its id does not run either.
pub(crate) fn ends(pid: &Path) -> bool {
    let pid = std::fs::read_to_string(pid).unwrap_or_default();
    let runs = || match std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())) {
        Ok(stat) => !pid.trim().is_empty() && !stat.contains(") Z "),
        Err(_) => false,
    };
    let until = Instant::now() + Duration::from_secs(30);
    while runs() && Instant::now() < until {
        std::thread::yield_now();
    }
    !runs()
}
