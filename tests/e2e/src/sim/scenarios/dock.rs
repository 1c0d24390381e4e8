//! A dock and its drone, commanded by DJI's `ota_create`.

use otahost_core::job::Job;
use otahost_core::model::Phase;
use otahost_disk::sim::SimDisk;
use serde_json::Value;

use crate::sim::{
    Boot, DOCK_SN, DRONE_SN, Damage, Manner, NEW, OLD, Release, SLOTS, SLOW, Scenario, Story, When,
    World, check, dock, ended, is_told, jobs,
};

/// What may be fetched again after a cut: what came since the last checkpoint that is durable, a second and a commit ago.
const FETCHED_AGAIN: u64 = 32 * 1024;

/// An update whose download is cut off once, on a disk that is slower than the network.
pub fn resumed() -> Scenario {
    let mut scenario = dock("ota_create, resumed", Boot::Up, &[20_000]);
    scenario.seam = SLOW;
    scenario.promises = |world, _| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        let once = world.offered();
        // Two boots belong to the story, every other one is a cut.
        let again = FETCHED_AGAIN * u64::from(world.boots.saturating_sub(2));
        check(world.served <= once + again, || {
            format!("{} bytes were fetched for {once}", world.served)
        })
    };
    scenario
}

/// An update to a version that does not come up.
pub fn rolled_back() -> Scenario {
    let mut scenario = dock("rollback", Boot::Dead, &[]);
    scenario.seam = SLOW;
    scenario
}

/// Two updates: by the second both slots hold what may boot.
pub fn two_updates() -> Scenario {
    let mut story = Story::new("two updates");
    story.command("bid-1", &Release::default());
    let next = Release {
        version: "1.3.0",
        index: 2,
        ..Release::default()
    };
    story.command_later(When::Results(1), "bid-2", &next);
    story.scenario.told = is_told::<2>;
    story.scenario.promises = |world, _| ended(world, &[("ok", 0), ("ok", 0)], 0, "1.3.0");
    story.scenario
}

/// The same with a boot loader that does not hear that the slot of the second update is bad.
pub fn deaf() -> Scenario {
    let mut scenario = two_updates();
    scenario.name = "deaf boot loader";
    scenario.world.deaf_to_bad = true;
    scenario.promises = |world, _| match world.endings.get(1) {
        // Before a byte of what may boot has changed.
        Some(second) if second.status == "failed" => {
            let told = ("failed", second.result);
            ended(world, &[("ok", 0), told], 1, NEW)
        }
        _ => ended(world, &[("ok", 0), ("ok", 0)], 0, "1.3.0"),
    };
    scenario
}

/// A dock and its drone, for which the cloud has ordered an update.
pub fn dock_and_drone(name: &'static str, manner: Manner, dock: Release) -> Story {
    let mut story = Story::new(name);
    let drone = Release {
        compatible: "drone",
        ..Release::default()
    };
    let order = story.order("bid-1", &[(DOCK_SN, dock), (DRONE_SN, drone)]);
    story.world().inbox.push(order);
    story.world().drone.manner = manner;
    story
}

/// The only job on a disk.
///
/// # Errors
/// When there is not one.
pub fn only_job(disk: &SimDisk) -> Result<Job, String> {
    let [job] = jobs(disk)
        .try_into()
        .map_err(|jobs: Vec<Job>| format!("{} jobs", jobs.len()))?;
    Ok(job)
}

/// Both are verified, then the drone is updated, then the dock.
pub fn two_devices() -> Scenario {
    let mut story = dock_and_drone("two devices", Manner::Takes, Release::default());
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        let drone = &world.drone;
        let taken = drone.version() == NEW && drone.activations == 1 && drone.confirmed;
        check(taken, || format!("{drone:?}"))?;
        let job = only_job(disk)?;
        check(job.phase == Phase::Succeeded, || format!("{}", job.phase))
    };
    story.scenario
}

/// Somebody at the device cancels the update while it is being fetched, and asks again until he is answered.
pub fn cancelled() -> Scenario {
    let mut story = Story::new("operator cancel");
    story.command("bid-1", &Release::default());
    story.world().operator = vec![(5_000, "cancel".into())];
    story.scenario.seam = SLOW;
    story.scenario.told = |world| is_told::<1>(world) && !world.operator_heard.is_empty();
    story.scenario.promises = |world, disk| {
        let heard = &world.operator_heard;
        let is_done = heard.iter().any(|reply| reply == "Done");
        // Power may have gone for so long that there was nothing left to cancel.
        if !is_done && only_job(disk)?.phase == Phase::Succeeded {
            return ended(world, &[("ok", 0)], 1, NEW);
        }
        ended(world, &[("canceled", 312_013)], 0, OLD)?;
        check(only_job(disk)?.phase == Phase::Cancelled, || {
            format!("{heard:?}")
        })
    };
    story.scenario
}

/// A signed file on a medium that somebody plugs in; nobody else wants anything.
pub fn offline() -> Scenario {
    let mut story = Story::bare("offline medium");
    story.plug_in(&Release::default());
    story.scenario.seam = SLOW;
    story.scenario.told = |world| world.is_quiet() && result(world).is_some();
    story.scenario.promises = |world, disk| {
        let left = result(world).unwrap_or_default();
        check(
            left["outcome"] == "succeeded" && left["version"] == NEW,
            || format!("{left}"),
        )?;
        check(only_job(disk)?.phase == Phase::Succeeded, || {
            "another end".into()
        })?;
        check((world.slot, world.version.as_str()) == (1, NEW), || {
            format!("{} runs in slot {}", world.version, world.slot)
        })
    };
    story.scenario
}

/// What the agent has left on the medium.
fn result(world: &World) -> Option<Value> {
    let mut files = world.medium.iter();
    let (_, text) = files.find(|(name, _)| name.ends_with(".result.json"))?;
    serde_json::from_slice(text).ok()
}

/// A medium that spoils a byte of what is staged while the device is off.
pub fn damaged() -> Scenario {
    let mut story = Story::new("damaged medium");
    story.command("bid-1", &Release::default());
    story.world().ready_after = 20_000;
    story.world().damage = Some(Damage {
        place: SLOTS[1],
        offset: 5_000,
        at_served: None,
    });
    story.scenario.seam = SLOW;
    story.scenario.promises = |world, _| {
        let spoilt = world.damage.and_then(|damage| damage.at_served);
        // What was fetched whole is not fetched again; the read-back before the switch says no.
        match world.endings.first().map(|ending| ending.status.as_str()) {
            Some("failed") if spoilt == Some(world.offered()) => {
                let told = (world.endings[0].status.as_str(), world.endings[0].result);
                ended(world, &[told], 0, OLD)
            }
            _ => ended(world, &[("ok", 0)], 1, NEW),
        }
    };
    story.scenario
}

/// How each device ended, the drone first.
///
/// # Errors
/// When there is not one job.
pub fn each(disk: &SimDisk) -> Result<Vec<(String, Phase)>, String> {
    let job = only_job(disk)?;
    let outcomes = job
        .plan
        .installs
        .iter()
        .zip(&job.installs)
        .map(|(asked, i)| {
            let phase = i.outcome.as_ref().map(|outcome| outcome.phase);
            (asked.target.clone(), phase.unwrap_or(Phase::Queued))
        });
    Ok(outcomes.collect())
}

/// The drone runs this, and was given something so often.
///
/// # Errors
/// When it does not, or was not.
pub fn drone_runs(world: &World, version: &str, activations: u32) -> Result<(), String> {
    let drone = &world.drone;
    check(
        drone.version() == version && drone.activations == activations,
        || format!("{drone:?}"),
    )
}
