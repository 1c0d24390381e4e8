//! Rounds: the version and health of every target, looked at now and then, so that what changes by itself is noticed: a device that
//! becomes unwell after an update, one behind this that goes away or comes back with another version.

use std::time::Duration;

use otahost_core::model::Health;

use super::jobs::observed;
use super::{Done, Engine};

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_secs(30);

impl Engine {
    /// Goes round as long as this engine lives: one target after the other, because each may be a program of the operator's.
    pub(super) fn go_round(&self) {
        let (outside, seam) = (self.platform.outside.clone(), self.platform.seam);
        let (tell, targets) = (self.tell.clone(), self.setup.targets.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PAUSE).await;
                for target in &targets {
                    let (outside, id) = (outside.clone(), target.id.clone());
                    let (version, health) = seam.run(move || observed(outside.as_ref(), &id)).await;
                    let seen = Done::Seen(target.id.clone(), version, health);
                    if tell.send(seen).is_err() {
                        return;
                    }
                }
            }
        });
    }

    /// What a round has seen. A target that is worked on may be anything; it is asked when the job has ended.
    pub(super) fn on_seen(
        &mut self,
        target: &str,
        version: Result<String, String>,
        health: Health,
    ) {
        let at_work = self
            .jobs
            .values()
            .any(|job| !job.phase.is_final() && job.targets().any(|t| t == target));
        if !at_work {
            self.on_observed(target, version, health);
        }
    }
}
