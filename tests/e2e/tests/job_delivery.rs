//! A device behind the dock that is handed an archive: whenever power goes, what is current is whole and the job ends with one result
//! (DESIGN §6; issue 5).
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_core::model::Phase;
use otahost_disk::Seam;
use otahost_disk::sim::Controls;
use otahost_e2e::sim::scenarios::emu::{delivered, job_ended, release, runs, story, tar};
use otahost_e2e::sim::{LOSSES, NEW, OLD, Story, When, check, ended, is_told, jobs, rogue_output};

#[test]
fn an_archive_is_delivered_once_before_the_switch() {
    let mut story = story("emu", &release());
    story.scenario.promises = |world, disk| {
        ended(world, &[("ok", 0)], 0, OLD)?;
        runs(world, NEW)?;
        check(world.emu.pushes == 1, || format!("{:?}", world.emu))?;
        job_ended(disk, Phase::Succeeded, "")
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    let [job] = jobs(&run.disk).try_into().unwrap();
    let phases: Vec<Phase> = job.history.iter().map(|line| line.phase).collect();
    let at = |phase| phases.iter().position(|p| *p == phase).unwrap();
    assert!(at(Phase::Installing) < at(Phase::Delivering));
    assert!(at(Phase::Delivering) < at(Phase::Delivered));
    assert!(at(Phase::Delivered) < at(Phase::Activating));
}

#[test]
fn an_adapter_hears_of_a_delivery_in_its_middle() {
    let mut story = Story::new("heard");
    story.add_emu();
    story.add_rogue();
    story.setup().adapters[1].grants.targets = vec!["emu".into()];
    let url = story.publish_archive(&release());
    let plan = format!(r#"{{"key":"mine","target":"emu","version":"{NEW}","url":"{url}"}}"#);
    story.tell_rogue(When::At(0), &format!("start-job {plan}"));
    // One report when it begins, one for what it has done so far; the push waits until the adapter has heard each.
    story.world().emu.waits_for = Some("job mine delivering".into());
    story.scenario.seam = Seam::Threads;
    story.scenario.told = |world| {
        let output = rogue_output(world);
        is_told::<0>(world) && output.iter().any(|line| line == "job mine succeeded")
    };
    story.scenario.promises = |world, _| runs(world, NEW);
    story.scenario.play().verdict.unwrap();
}

#[test]
fn a_delivery_survives_a_power_cut_at_every_disk_operation() {
    // And what is current is whole at every moment.
    let found = delivered().cut_everywhere(Controls::default(), &LOSSES, 1);
    found.assert_none("a delivery");
}

#[test]
fn an_archive_that_leads_out_fails_at_unpacking_whenever_power_is_cut() {
    let mut story = story("hostile", &tar(&[("../slot-a", b"gotcha")]));
    story.scenario.promises = |world, disk| {
        check(world.endings.len() == 1, || format!("{:?}", world.endings))?;
        runs(world, OLD)?;
        job_ended(disk, Phase::Failed, "unpack")
    };
    story.scenario.holds(5);
}

#[test]
fn a_device_that_is_away_fails_the_delivery_and_the_same_command_later_needs_no_second_download() {
    let archive = release();
    let mut story = story("away", &archive);
    story.world().emu.away_for = 1;
    let again = story.world().inbox[0].clone();
    let payload = String::from_utf8(again.payload)
        .unwrap()
        .replace("bid-1", "bid-2");
    let again = otahost_e2e::sim::Delivery {
        packet: 50,
        payload: payload.into_bytes(),
        ..again
    };
    story.world().later.push((When::Results(1), again));
    story.scenario.told = is_told::<2>;
    story.scenario.promises = |world, disk| {
        let told: Vec<&str> = world.endings.iter().map(|e| e.status.as_str()).collect();
        check(told == ["failed", "ok"], || {
            format!(
                "{told:?}: {:#?}",
                jobs(disk).last().map(|job| job.history.clone())
            )
        })?;
        runs(world, NEW)?;
        check(
            jobs(disk)[0].reason.as_ref().unwrap().stage == "deliver",
            || "another stage".into(),
        )
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!(run.world.served, run.world.offered());
}

#[test]
fn a_device_that_stays_with_its_old_version_is_told_as_rolled_back_whenever_power_is_cut() {
    let mut story = story("stays old", &release());
    story.world().emu.stays_old = true;
    story.scenario.promises = |world, disk| {
        runs(world, OLD)?;
        check(world.endings.len() == 1, || format!("{:?}", world.endings))?;
        job_ended(disk, Phase::RolledBack, "confirm")
    };
    story.scenario.holds(9);
}
