//! Who goes first on a device: the operator, then the adapters in the order the operator wrote down (DESIGN §6).
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_e2e::sim::{
    EPOCH, NEW, OLD, Release, Story, When, World, check, ended, history, is_told, rogue_output,
};

const OTHER: Release = Release {
    version: "1.3.0",
    compatible: "dock",
    index: 1,
    boot: otahost_e2e::sim::Boot::Up,
    announced: None,
};

/// Two adapters that may both update the dock, in this order.
fn shared(name: &'static str, order: &[&str]) -> Story {
    let mut story = Story::new(name);
    story.add_rogue();
    story.target().authority = order.iter().map(|&name| name.to_owned()).collect();
    story
}

/// The dock's update that the cloud has just commanded, and at some time another adapter's.
fn dji_then_rogue(name: &'static str, order: &[&str], at: u64) -> Story {
    let mut story = shared(name, order);
    story.command("bid-1", &Release::default());
    let job = story.rogue_order("urgent", &OTHER);
    story.tell_rogue(When::At(at), &job);
    story
}

/// After a power cut it may hear it again, as with every durable publication.
fn rogue_heard(world: &World, phase: &str) -> Result<(), String> {
    let heard = rogue_output(world);
    check(heard.contains(&format!("job urgent {phase}")), || {
        format!("not {phase}: {heard:?}")
    })
}

fn answer(world: &World, bid: &str) -> Vec<(String, i64)> {
    let answers = world.answers().into_iter().filter(|a| a.bid == bid);
    answers.map(|a| (a.status, a.result)).collect()
}

#[test]
fn the_adapter_that_goes_first_takes_over_a_download_whenever_power_is_cut() {
    let mut story = dji_then_rogue("takes over", &["rogue", "dji"], 1_000);
    story.scenario.promises = |world, _| {
        ended(world, &[("canceled", 312_013)], 1, "1.3.0")?;
        rogue_heard(world, "succeeded")
    };
    story.scenario.told = |world| is_told::<1>(world) && rogue_heard(world, "succeeded").is_ok();
    story.scenario.holds(7);
}

#[test]
fn the_adapter_that_goes_first_takes_over_a_job_that_waits_for_readiness() {
    let mut story = dji_then_rogue("takes over a waiting job", &["rogue", "dji"], 30_000);
    story.world().ready_after = 60_000;
    story.scenario.promises = |world, _| {
        ended(world, &[("canceled", 312_013)], 1, "1.3.0")?;
        rogue_heard(world, "succeeded")
    };
    story.scenario.told = |world| is_told::<1>(world) && rogue_heard(world, "succeeded").is_ok();
    story.scenario.play().verdict.unwrap();
}

#[test]
fn behind_the_point_of_no_return_nobody_takes_over() {
    let mut story = dji_then_rogue("too late", &["rogue", "dji"], 20_000);
    story.world().well_after = 60_000;
    story.scenario.promises = |world, _| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        rogue_heard(world, "rejected")
    };
    story.scenario.play().verdict.unwrap();
}

#[test]
fn an_adapter_that_goes_behind_is_told_that_the_device_is_busy() {
    for order in [&["dji", "rogue"][..], &["dji"], &[]] {
        let mut story = dji_then_rogue("busy", order, 1_000);
        story.scenario.promises = |world, _| {
            ended(world, &[("ok", 0)], 1, NEW)?;
            rogue_heard(world, "rejected")
        };
        story.scenario.play().verdict.unwrap();
    }
}

#[test]
fn a_cloud_that_goes_behind_is_answered_312014_and_the_running_job_goes_on() {
    let mut story = shared("the cloud is behind", &["rogue", "dji"]);
    let job = story.rogue_order("urgent", &OTHER);
    story.tell_rogue(When::At(0), &job);
    story.command_later(When::At(1_000), "bid-1", &Release::default());
    story.scenario.told = |world| is_told::<0>(world) && rogue_heard(world, "succeeded").is_ok();
    story.scenario.promises = |world, _| {
        ended(world, &[], 1, "1.3.0")?;
        let answer = answer(world, "bid-1");
        check(answer == [("rejected".to_owned(), 312_014)], || {
            format!("{answer:?}")
        })
    };
    story.scenario.play().verdict.unwrap();
}

#[test]
fn a_cloud_that_goes_first_takes_over_and_the_other_adapter_hears_that_its_job_is_cancelled() {
    let mut story = shared("the cloud is first", &["dji", "rogue"]);
    let job = story.rogue_order("urgent", &OTHER);
    story.tell_rogue(When::At(0), &job);
    story.command_later(When::At(1_000), "bid-1", &Release::default());
    story.scenario.promises = |world, _| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        rogue_heard(world, "cancelled")
    };
    story.scenario.play().verdict.unwrap();
}

const STICK: &str = "/media/stick/other.uav";

/// The operator puts the other release on the device, and installs it at this time.
fn operator_installs(story: &mut Story, at: u64) {
    let url = story.publish(&OTHER);
    let file = story.world().files[&url].clone();
    story.world().files.insert(STICK.into(), file);
    story.world().operator.push((at, STICK.into()));
}

#[test]
fn the_operator_goes_before_every_adapter() {
    let mut story = shared("operator", &["dji", "rogue"]);
    story.command("bid-1", &Release::default());
    operator_installs(&mut story, 1_000);
    story.scenario.told = |world| is_told::<1>(world) && world.version != OLD;
    story.scenario.promises = |world, _| {
        ended(world, &[("canceled", 312_013)], 1, "1.3.0")?;
        let heard = &world.operator_heard;
        check(heard[0].starts_with("Accepted"), || format!("{heard:?}"))
    };
    story.scenario.play().verdict.unwrap();
}

#[test]
fn no_adapter_goes_before_the_operator() {
    let mut story = shared("behind the operator", &["dji", "rogue"]);
    operator_installs(&mut story, 0);
    story.command_later(When::At(1_000), "bid-1", &Release::default());
    story.scenario.told = |world| is_told::<0>(world) && world.version != OLD;
    story.scenario.promises = |world, _| {
        ended(world, &[], 1, "1.3.0")?;
        let answer = answer(world, "bid-1");
        check(answer == [("rejected".to_owned(), 312_014)], || {
            format!("{answer:?}")
        })
    };
    story.scenario.play().verdict.unwrap();
}

#[test]
fn behind_the_point_of_no_return_the_operator_is_told_that_the_device_is_busy() {
    let mut story = shared("the operator is late", &[]);
    story.command("bid-1", &Release::default());
    story.world().well_after = 60_000;
    operator_installs(&mut story, 20_000);
    story.scenario.promises = |world, _| {
        ended(world, &[("ok", 0)], 1, NEW)?;
        let heard = &world.operator_heard;
        check(heard[0].contains("Busy"), || format!("{heard:?}"))
    };
    story.scenario.play().verdict.unwrap();
}

/// The misbehaving adapter's own job, and what it says of it later.
fn rogue_job(name: &'static str, when_told: bool, at: u64, command: &str) -> Story {
    let mut story = shared(name, &[]);
    let mut job = story.rogue_order("urgent", &OTHER);
    if when_told {
        job = format!("{},\"when_told\":true}}", job.trim_end_matches('}'));
    }
    story.tell_rogue(When::At(0), &job);
    story.tell_rogue(When::At(at), command);
    story
}

#[test]
fn a_job_that_waits_to_be_told_is_prepared_and_not_switched_to_before_whenever_power_is_cut() {
    let mut story = rogue_job("when told", true, 20_000, "apply urgent");
    story.scenario.told = |world| is_told::<0>(world) && rogue_heard(world, "succeeded").is_ok();
    story.scenario.promises = |world, disk| {
        ended(world, &[], 1, "1.3.0")?;
        rogue_heard(world, "prepared")?;
        let switches = history(disk, "switching")?;
        check(switches.at >= EPOCH + 20_000, || format!("{switches:?}"))
    };
    story.scenario.holds(5);
}

#[test]
fn a_cancel_before_the_point_of_no_return_leaves_the_old_version_whenever_power_is_cut() {
    let mut story = rogue_job("cancelled", false, 10_000, "cancel urgent");
    story.world().ready_after = 20_000;
    story.scenario.told = |world| is_told::<0>(world) && rogue_heard(world, "cancelled").is_ok();
    story.scenario.promises = |world, _| {
        ended(world, &[], 0, OLD)?;
        check(world.reboots == 0, || "it was rebooted".into())
    };
    story.scenario.holds(5);
}

#[test]
fn a_cancel_behind_the_point_of_no_return_is_too_late() {
    let mut story = rogue_job("cancelled too late", false, 10_000, "cancel urgent");
    story.world().well_after = 20_000;
    story.scenario.told = |world| is_told::<0>(world) && rogue_heard(world, "succeeded").is_ok();
    story.scenario.promises = |world, _| ended(world, &[], 1, "1.3.0");
    story.scenario.play().verdict.unwrap();
}
