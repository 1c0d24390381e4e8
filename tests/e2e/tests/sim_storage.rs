//! A disk in trouble: full, read-only, failing, or with a damaged journal. What was begun ends, once; a version on trial is confirmed or
//! rolled back also by an agent that has no journal; and nothing wrong is booted (DESIGN §6).
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_disk::Place;
use otahost_disk::sim::{Controls, Image, Loss, SimDisk, Trouble, Where};
use otahost_e2e::sim::{
    Boot, NEW, OLD, Release, Run, Rung, Scenario, Sink, Story, World, check, ended, jobs,
};

const JOURNAL: &str = "journal.redb";
const SELECTOR: &str = "/device/boot.json";

/// One update of the dock, whose image is well some time after it came up.
fn update(name: &'static str) -> Story {
    let mut story = Story::new(name);
    story.command("bid-1", &Release::default());
    story.world().cuts = vec![20_000];
    story.world().ready_after = 15_000;
    story.world().well_after = 10_000;
    story.scenario.promises = |world, _| ended(world, &[("ok", 0)], 1, NEW);
    story
}

/// Plays the story with the disk in trouble from an operation on, until so many more have met it: for every `stride`-th operation.
fn trouble_everywhere(
    scenario: &Scenario,
    part: Where,
    trouble: Trouble,
    refusals: usize,
    stride: usize,
) -> Vec<(usize, Run)> {
    let (run, _) = scenario.record(Controls::default());
    run.verdict.unwrap();
    let troubled = (0..run.disk.operations()).step_by(stride).map(|nth| {
        let disk = SimDisk::from_image(scenario.image.clone());
        let shared = disk.clone();
        disk.on_operation(Box::new(move |index| {
            if index == nth {
                shared.set_trouble_for(part, trouble, refusals);
            }
        }));
        (nth, scenario.run(disk, scenario.world.clone()))
    });
    troubled.collect()
}

#[test]
fn a_data_directory_in_trouble_for_a_while_costs_no_update_and_the_end_is_told_once() {
    let story = update("data directory in trouble");
    for (trouble, refusals) in [
        (Trouble::Full, 20),
        (Trouble::ReadOnly, 20),
        (Trouble::Failing, 40),
        (Trouble::Unreadable, 40),
    ] {
        for (nth, run) in trouble_everywhere(&story.scenario, Where::Data, trouble, refusals, 7) {
            if let Err(error) = &run.verdict {
                panic!("{trouble:?} from operation {nth} on: {error}");
            }
            assert_eq!(
                jobs(&run.disk).len(),
                1,
                "{trouble:?} from operation {nth} on"
            );
        }
    }
}

#[test]
fn slots_in_trouble_for_a_while_boot_nothing_wrong_and_the_end_is_true() {
    let mut story = update("slots in trouble");
    story.scenario.promises = |world, _| match world.endings.as_slice() {
        [ending] if ending.status == "ok" => ended(world, &[("ok", 0)], 1, NEW),
        [ending] => ended(world, &[("failed", ending.result)], 0, OLD),
        other => Err(format!("told {other:?}")),
    };
    let mut succeeded = 0;
    for trouble in [Trouble::Full, Trouble::ReadOnly, Trouble::Failing] {
        for (nth, run) in trouble_everywhere(&story.scenario, Where::Operator, trouble, 3, 5) {
            if let Err(error) = &run.verdict {
                panic!("{trouble:?} from operation {nth} on: {error}");
            }
            let [job] = jobs(&run.disk).try_into().unwrap();
            succeeded += usize::from(job.reason.is_none());
            if trouble == Trouble::Full
                && let Some(reason) = job.reason
            {
                assert!(
                    matches!(reason.code.as_str(), "no-space" | "activate"),
                    "{reason:?}"
                );
            }
        }
    }
    assert!(succeeded > 20, "{succeeded}");
}

/// The disk and the world at the first start in the boot of this number.
fn at_boot(scenario: &Scenario, boot: u32) -> (Image, World) {
    let (run, worlds) = scenario.record(Controls::default());
    run.verdict.unwrap();
    let first = worlds
        .iter()
        .position(|world| world.boots == boot)
        .expect("a boot of this number");
    // Its boot loader's edit is part of the boot.
    let image = run.disk.record().image_after(first, Loss::AllKept);
    (image, worlds[first].clone())
}

/// A world in which nothing more is to be told: what the platform does not hear is part of what is lost.
fn quiet(world: &World) -> bool {
    world.is_quiet()
}

/// The update up to the start of the new version, and from there on with what `break_disk` makes of the disk.
fn go_on(story: &mut Story, boot: u32, break_disk: impl FnOnce(&SimDisk)) -> Run {
    let (image, world) = at_boot(&story.scenario, boot);
    story.scenario.told = quiet;
    story.scenario.promises = |_, _| Ok(());
    let disk = SimDisk::from_image(image);
    break_disk(&disk);
    story.scenario.run(disk, world)
}

fn selector(disk: &SimDisk) -> serde_json::Value {
    serde_json::from_slice(&disk.read_outside(&Place::operator(SELECTOR)).unwrap()).unwrap()
}

fn lose_journal(disk: &SimDisk) {
    disk.write_outside(&Place::data(JOURNAL), &[0x5a; 100_000]);
}

fn alerts(story: &mut Story) {
    story.world().sinks = vec![Sink::new("nurse")];
}

fn rang(world: &World, code: &str) -> bool {
    world.rung.iter().any(|rung: &Rung| rung.code == code)
}

#[test]
fn a_version_on_trial_is_confirmed_by_an_agent_that_has_lost_its_journal() {
    let mut story = update("journal lost");
    alerts(&mut story);
    let run = go_on(&mut story, 2, lose_journal);
    run.verdict.unwrap();
    assert_eq!(run.world.version, NEW);
    let state = selector(&run.disk);
    assert_eq!(
        (&state["primary"], &state["slots"]["b"]["state"]),
        (&"b".into(), &"good".into())
    );
    assert_eq!(jobs(&run.disk), []);
    assert!(rang(&run.world, "journal-damaged") && rang(&run.world, "trial-confirmed"));
    let kept = run.disk.read_outside(&Place::data("journal.redb.damaged"));
    assert_eq!(kept.unwrap(), [0x5a; 100_000]);
}

#[test]
fn a_version_on_trial_that_is_not_well_is_rolled_back_by_an_agent_that_has_lost_its_journal() {
    let mut story = update("journal lost, unwell");
    alerts(&mut story);
    let (image, mut world) = at_boot(&story.scenario, 2);
    world.well_after = 100_000_000;
    story.scenario.told = |world| world.is_quiet() && world.version == OLD;
    story.scenario.promises = |world, _| check(world.reboots == 2, || format!("{world:?}"));
    let disk = SimDisk::from_image(image);
    lose_journal(&disk);
    let run = story.scenario.run(disk, world);
    run.verdict.unwrap();
    let state = selector(&run.disk);
    assert_eq!(
        (&state["booted"], &state["slots"]["b"]["state"]),
        (&"a".into(), &"bad".into())
    );
    assert!(rang(&run.world, "trial-rolled-back"));
}

#[test]
fn a_version_on_trial_is_confirmed_by_an_agent_whose_journal_cannot_be_used_and_the_end_is_told_when_it_can()
 {
    for trouble in [Trouble::ReadOnly, Trouble::Failing, Trouble::Unreadable] {
        let mut story = update("journal out of reach");
        let run = go_on(&mut story, 2, |disk| {
            disk.set_trouble(Some((Where::Data, trouble)));
        });
        run.verdict.unwrap();
        assert_eq!(
            selector(&run.disk)["slots"]["b"]["state"],
            "good",
            "{trouble:?}"
        );
        assert_eq!(run.world.endings, [], "{trouble:?}");
        // Once it can be used the agent finds what was done, and says so.
        let mut story = update("journal out of reach for a while");
        let (image, world) = at_boot(&story.scenario, 2);
        let disk = SimDisk::from_image(image);
        disk.set_trouble_for(Where::Data, trouble, 60);
        let run = story.scenario.run(disk, world);
        run.verdict.unwrap();
        assert_eq!(story.world().endings, []);
    }
}

#[test]
fn an_agent_without_a_journal_brings_back_the_old_version_of_an_update_it_can_still_read_about() {
    let mut story = Story::new("read-only, dead image");
    let dead = Release {
        boot: Boot::Dead,
        ..Release::default()
    };
    story.command("bid-1", &dead);
    story.scenario.promises = |world, _| ended(world, &[("failed", 312_028)], 0, OLD);
    let (run, worlds) = story.scenario.record(Controls::default());
    run.verdict.unwrap();
    let last = worlds.last().unwrap().boots;
    let run = go_on(&mut story, last, |disk| {
        disk.set_trouble(Some((Where::Data, Trouble::ReadOnly)));
    });
    run.verdict.unwrap();
    assert_eq!(run.world.version, OLD);
    assert_eq!(selector(&run.disk)["primary"], "a");
}

/// A journal of which one page is damaged, in every page: whatever of it can be read goes on, and the update ends or is forgotten, but no
/// slot is booted that is not whole, and no other version than the two.
#[test]
fn a_damaged_page_of_the_journal_never_makes_the_device_boot_what_is_not_whole() {
    let mut story = update("one damaged page");
    let (image, world) = at_boot(&story.scenario, 2);
    story.scenario.told = quiet;
    story.scenario.promises = |world, _| {
        check(world.faults.is_empty(), || format!("{:?}", world.faults))?;
        let versions = [OLD, NEW];
        check(versions.contains(&world.version.as_str()), || {
            format!("version {} runs", world.version)
        })
    };
    let bytes = image.read(&Place::data(JOURNAL)).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let (mut told, mut confirmed) = (0, 0);
    let spots: Vec<usize> = (4_096..end).step_by(4_096 + 512).collect();
    for spot in &spots {
        let disk = SimDisk::from_image(image.clone());
        let mut damaged = bytes.clone();
        damaged[*spot..*spot + 16]
            .iter_mut()
            .for_each(|b| *b ^= 0xa5);
        disk.write_outside(&Place::data(JOURNAL), &damaged);
        let run = story.scenario.run(disk, world.clone());
        if let Err(error) = &run.verdict {
            panic!("byte {spot}: {error}");
        }
        told += usize::from(!run.world.endings.is_empty());
        confirmed += usize::from(selector(&run.disk)["slots"]["b"]["state"] == "good");
    }
    println!(
        "{} damaged pages: {told} times the end was told, {confirmed} times the new version stays",
        spots.len()
    );
    assert_eq!(confirmed, spots.len());
}
