//! Requests that come in: each is answered exactly once, and not before what its step did is durable (DESIGN §1).
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_disk::sim::{Controls, Loss, SimDisk};
use otahost_e2e::sim::{Caller, LOSSES, Run, Story, World, check, output, rows};
use otahost_journal::Key;

fn rogue(name: &'static str, callers: Vec<Caller>) -> Story {
    let mut story = Story::bare(name);
    story.add_linked_rogue("rogue");
    story.world().web.callers = callers;
    story
}

fn ask(at: u64, command: &str) -> Caller {
    Caller::new(at, "POST", "/rogue/do", command)
}

fn played(story: &Story) -> Run {
    let run = story.scenario.play();
    run.verdict.as_ref().unwrap();
    run
}

/// Everything that was heard: status and body.
fn heard(world: &World) -> Vec<(u16, &str)> {
    let heard = world.web.heard.iter();
    heard
        .map(|heard| (heard.status, heard.body.as_str()))
        .collect()
}

fn dead_letters(disk: &SimDisk) -> usize {
    let rows = rows(disk.image(Loss::AllKept));
    let dead = |(key, _): &&(Key, Vec<u8>)| matches!(key, Key::Dead { .. });
    rows.iter().filter(dead).count()
}

#[test]
fn an_answer_is_given_once_and_what_it_says_is_durable_whenever_power_is_cut() {
    let callers = [1_000, 1_000, 4_000].map(|at| ask(at, "count").until(700, &["200 "]));
    let mut story = rogue("counting", callers.into());
    story.scenario.promises = |world, _| {
        // A count that was told and forgotten would be told again.
        let counts = world.web.bodies(200);
        let mut numbers: Vec<u32> = counts.iter().filter_map(|n| n.parse().ok()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        check(counts.len() == 3 && numbers.len() == 3, || {
            format!("{counts:?}")
        })?;
        check(world.web.unheard == 0, || {
            format!("{} answers to nobody", world.web.unheard)
        })
    };
    let run = played(&story);
    assert_eq!(heard(&run.world), [(200, "1"), (200, "2"), (200, "3")]);
    let found = story
        .scenario
        .cut_everywhere(Controls::default(), &LOSSES, 1);
    found.assert_none(story.scenario.name);
}

#[test]
fn a_step_that_comes_to_nothing_is_answered_with_500() {
    let callers = vec![
        ask(1_000, "trap"),
        ask(2_000, "refuse"),
        ask(3_000, "undeclared"),
        ask(4_000, "echo fine"),
    ];
    let run = played(&rogue("failing steps", callers));
    let statuses: Vec<u16> = heard(&run.world)
        .iter()
        .map(|(status, _)| *status)
        .collect();
    assert_eq!(statuses, [500, 500, 500, 200]);
    assert_eq!(
        dead_letters(&run.disk),
        2,
        "what failed is kept, what was refused is not"
    );
    assert_eq!(run.world.web.unheard, 0);
}

#[test]
fn an_own_answer_says_what_it_is_to_programs() {
    let run = played(&rogue("own answer", vec![ask(1_000, "trap")]));
    let body: serde_json::Value = serde_json::from_str(heard(&run.world)[0].1).unwrap();
    assert_eq!(body["status"], 500);
    assert!(body["message"].is_string());
}

#[test]
fn what_no_adapter_serves_is_answered_with_404() {
    let callers = vec![
        Caller::new(1_000, "POST", "/elsewhere", "count"),
        Caller::new(2_000, "GET", "/rogue/do", "count"),
        Caller::new(3_000, "POST", "/rogue/do/", "count"),
    ];
    let run = played(&rogue("unknown routes", callers));
    let statuses: Vec<u16> = heard(&run.world)
        .iter()
        .map(|(status, _)| *status)
        .collect();
    assert_eq!(statuses, [404, 404, 404]);
}

#[test]
fn the_65th_that_waits_is_answered_with_503_and_there_is_room_when_others_gave_up() {
    let mut callers = vec![ask(1_000, "silence"); 64];
    callers.push(ask(2_000, "count"));
    // Those who waited have been answered by the link by then.
    callers.push(ask(20_000, "count"));
    let run = played(&rogue("crowd", callers));
    let heard = heard(&run.world);
    assert_eq!(heard[0].0, 503);
    assert!(heard[1..65].iter().all(|(status, _)| *status == 504));
    assert_eq!(heard[65], (200, "1"));
    assert_eq!(heard.len(), 66);
}

#[test]
fn a_crowd_at_one_adapter_leaves_the_other_its_room() {
    let mut story = rogue("two crowds", vec![ask(1_000, "silence"); 64]);
    story.add_linked_rogue("other");
    let other = Caller::new(2_000, "POST", "/other/do", "count");
    story.world().web.callers.push(other);
    let run = played(&story);
    assert_eq!(run.world.web.bodies(200), ["1"]);
}

#[test]
fn an_answer_may_take_many_steps_whenever_power_is_cut() {
    let caller = ask(1_000, "hold a 3").until(2_000, &["200 "]);
    let mut story = rogue("deferred", vec![caller]);
    story.scenario.promises = |world, _| {
        let heard = world.web.bodies(200);
        check(heard == ["a at last"] && world.web.unheard == 0, || {
            format!("{:?}", world.web)
        })
    };
    let run = played(&story);
    assert_eq!(heard(&run.world), [(200, "a at last")]);
    let found = story
        .scenario
        .cut_everywhere(Controls::default(), &LOSSES, 1);
    found.assert_none(story.scenario.name);
}

#[test]
fn an_answer_that_comes_after_a_restart_is_dropped_and_the_rest_of_its_step_stands() {
    let mut held = ask(1_000, "hold a");
    held.patience = 3_600_000;
    let mut story = rogue("late", vec![held]);
    story.world().power_cuts = vec![(1, 5_000)];
    story.tell(20_000, "rogue", "release a too late");
    story.tell(21_000, "rogue", "release a again");
    story.tell(22_000, "rogue", "count");
    let run = played(&story);
    assert_eq!(heard(&run.world), [(0, "")]);
    assert_eq!(run.world.web.unheard, 0, "the link was told nothing");
    // `release` forgets whom it answers: the second time it is refused, which is no failure.
    assert_eq!(dead_letters(&run.disk), 0);
    assert_eq!(output(&run.world, "rogue").last().unwrap(), "1");
}

#[test]
fn an_adapter_answers_its_own_requests_only() {
    let story = |stolen: Option<&str>| {
        let mut story = rogue("thief", Vec::new());
        story.add_linked_rogue("thief");
        story.world().web.callers = vec![ask(1_000, "hold a")];
        if let Some(id) = stolen {
            let respond = format!("respond {id} 200 stolen");
            story.tell(3_000, "thief", &respond);
        }
        story.tell(5_000, "rogue", "release a mine");
        story
    };
    let run = played(&story(None));
    let held = output(&run.world, "rogue");
    let id = held.iter().find_map(|line| line.strip_prefix("held a "));
    let run = played(&story(id));
    assert!(
        output(&run.world, "rogue").contains(&format!("held a {}", id.unwrap())),
        "the same id"
    );
    assert_eq!(heard(&run.world), [(200, "mine")]);
    assert_eq!(run.world.web.unheard, 0);
}

#[test]
fn only_the_first_answer_counts_and_one_to_nobody_harms_nobody() {
    let mut story = rogue("twice", vec![ask(1_000, "hold a 1")]);
    story.tell(500, "rogue", "respond nobody 200 hello");
    story.tell(5_000, "rogue", "respond nobody 200 hello");
    let run = played(&story);
    assert_eq!(heard(&run.world), [(200, "a at last")]);
    assert_eq!((run.world.web.unheard, dead_letters(&run.disk)), (0, 0));
}
