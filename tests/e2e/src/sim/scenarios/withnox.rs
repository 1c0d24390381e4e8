//! A camera of Withnox: tokens that expire and rotate, a transfer that is cut and resumed, the reboot, the report.

use otahost_core::model::Phase;
use otahost_disk::sim::SimDisk;

use crate::sim::{Boot, Release, SLOW, Scenario, Story, World, check, jobs};

/// The version on offer.
pub const NEXT: &str = "1.2.0";

/// The release on offer.
pub fn release(boot: Boot) -> Release {
    Release {
        version: NEXT,
        boot,
        ..Release::default()
    }
}

/// A camera that is updated, while its token expires and the connection breaks.
pub fn camera(name: &'static str) -> Story {
    let mut story = Story::withnox(name, &release(Boot::Up));
    let world = story.world();
    world.cuts = vec![20_000, 40_000];
    world.api.life = 2_500;
    story.scenario.promises = updated_once;
    story
}

/// The new version runs, the cloud knows, and nobody ever took the device for a thief.
///
/// # Errors
/// When it is otherwise.
pub fn updated_once(world: &World, disk: &SimDisk) -> Result<(), String> {
    let api = &world.api;
    check(world.faults.is_empty(), || format!("{:?}", world.faults))?;
    check((world.slot, world.version.as_str()) == (1, NEXT), || {
        format!("{} runs in slot {}", world.version, world.slot)
    })?;
    // A job that needs tokens while the hour after a sign-in is not over ends, and another one goes on with what is here.
    let phases: Vec<Phase> = jobs(disk).iter().map(|job| job.phase).collect();
    let is_waited_out = phases == [Phase::Failed, Phase::Succeeded] && api.sign_ins > 1;
    check(phases == [Phase::Succeeded] || is_waited_out, || {
        format!("{phases:?}, {} sign-ins", api.sign_ins)
    })?;
    check(
        !api.reports.is_empty() && api.reports.iter().all(|id| *id == 7),
        || format!("reported {:?}", api.reports),
    )?;
    // A refresh whose answer power has taken is not repeated: one sign-in mends it. Two boots belong to the story, every other is a cut.
    let mended = world.boots.saturating_sub(2).max(1);
    check(
        api.stale == 0 && api.sign_ins <= 1 + mended && api.logged_in,
        || format!("{} stale, {} sign-ins", api.stale, api.sign_ins),
    )
}

/// A camera is updated once and says so.
pub fn updated() -> Scenario {
    camera("withnox, tokens rotate").scenario
}

/// The same, beside another adapter that uses the same link all the time: whenever tokens are replaced, one of its requests waits for them.
pub fn neighbours(name: &'static str) -> Story {
    let mut story = camera(name);
    story.add_linked_rogue("rogue");
    for at in (1_000..9_000).step_by(250) {
        let guarded = format!(r#"fetch {{"tag":"{at}","path":"/guarded"}}"#);
        story.tell(at, "rogue", &guarded);
    }
    story
}

/// The neighbours on a disk that is slower than the way to the server, with tokens that live long enough for it.
pub fn beside_slowly() -> Scenario {
    let mut story = camera("withnox, two adapters, slow");
    story.add_linked_rogue("rogue");
    story.world().api.life = 20_000;
    for at in (1_000..60_000).step_by(2_000) {
        let guarded = format!(r#"fetch {{"tag":"{at}","path":"/guarded"}}"#);
        story.tell(at, "rogue", &guarded);
    }
    story.scenario.seam = SLOW;
    story.scenario
}
