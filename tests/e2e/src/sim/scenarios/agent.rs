//! The agent itself is part of the image: a newer one runs, leaves rows of its own in the journal, and is rolled back.
//!
//! There is one binary to test with. So the newer agent is this one, and what another one would add is put there after its boot by
//! `crate::sim::newer`: rows of kinds this agent has no use for, a job in a phase it does not know, fields it does not know in rows it
//! does. After the rollback the old agent has to get along with all of it and leave the rows alone that are not its own. (A field that it
//! does not know in a row that it writes itself is lost with that write: what must last has to be a row.)

use std::time::Duration;

use otahost_disk::sim::Loss;

use crate::sim::{NEW, OLD, Release, SLOW, Scenario, Story, check, ended, newer, rows};

/// A newer agent comes up, is never well, and is rolled back.
pub fn rolled_back() -> Scenario {
    let mut story = Story::new("agent rolled back");
    story.command("bid-1", &Release::default());
    story.target().confirm_within = Duration::from_secs(60);
    story.world().ill = vec![NEW.into()];
    story.world().newer_agents = vec![NEW.into()];
    story.scenario.seam = SLOW;
    story.scenario.promises = |world, disk| {
        ended(world, &[("failed", 312_017)], 0, OLD)?;
        let left = newer::left(&rows(disk.image(Loss::AllKept)));
        check(left.len() == newer::ROWS, || {
            format!("of a newer agent's rows only {left:?} are left")
        })
    };
    story.scenario
}
