//! Requests and listings of adapters: asked durably, answered once, over power cuts at every disk operation; and secrets that nobody
//! uses before they are durable (DESIGN §3).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use otahost_disk::sim::{Controls, Loss, Replay, SimDisk};
use otahost_e2e::sim::{Broken, LOSSES, Scenario, Story, World, check, output, rows};
use otahost_journal::Key;

/// A dock whose adapter is told these things, one second after the other.
fn rogue(name: &'static str, commands: &[&str]) -> Story {
    let mut story = Story::bare(name);
    story.add_linked_rogue("rogue");
    for (at, command) in (1..).zip(commands) {
        story.tell(at * 1_000, "rogue", command);
    }
    story
}

/// How the adapter was told that its requests and listings ended: what it published, each different line once.
fn ends(world: &World) -> BTreeSet<String> {
    let lines = output(world, "rogue").into_iter();
    lines.filter(|line| line.starts_with("answer ")).collect()
}

fn told<const ENDS: usize>(world: &World) -> bool {
    world.is_quiet() && ends(world).len() >= ENDS
}

/// Rows of this kind on a disk.
fn left(disk: &SimDisk, kind: fn(&Key) -> bool) -> usize {
    let rows = rows(disk.image(Loss::AllKept));
    rows.iter().filter(|(key, _)| kind(key)).count()
}

fn calls(disk: &SimDisk) -> usize {
    left(disk, |key| matches!(key, Key::Call { .. }))
}

fn dead_letters(disk: &SimDisk) -> usize {
    left(disk, |key| matches!(key, Key::Dead { .. }))
}

/// The only end there is, and no row is left of it.
fn only_end(world: &World, disk: &SimDisk) -> Result<String, String> {
    let ends = ends(world);
    check(calls(disk) == 0, || {
        format!("{} rows are left", calls(disk))
    })?;
    check(world.faults.is_empty(), || format!("{:?}", world.faults))?;
    match ends.iter().collect::<Vec<_>>().as_slice() {
        [end] => Ok((*end).clone()),
        _ => Err(format!("it ended as {ends:?}")),
    }
}

fn holds(scenario: &Scenario) {
    let found = scenario.cut_everywhere(Controls::default(), &LOSSES, 1);
    found.assert_none(scenario.name);
}

/// Plays one story, and from every disk operation on another one that has begun as this one.
fn becomes(first: &Scenario, second: &Scenario) {
    let (run, worlds) = first.record(Controls::default());
    run.verdict.unwrap();
    let record = run.disk.record();
    let mut replay = Replay::new(&record.start);
    for (cut, op) in record.ops.iter().enumerate() {
        for loss in LOSSES {
            let mut world = worlds[cut].clone();
            // Only what reaches the server from now on counts.
            world.api.asked.clear();
            let disk = SimDisk::from_image(replay.image(loss));
            if let Err(error) = second.run(disk, world).verdict {
                panic!("{}, cut {cut}, {loss:?}: {error}", second.name);
            }
        }
        replay.apply(op);
    }
}

const SAFE: &str = r#"fetch {"tag":"t","path":"/free/x"}"#;
const ONCE: &str = r#"fetch {"tag":"t","path":"/free/x","once":true}"#;

#[test]
fn a_request_that_may_be_repeated_is_sent_and_its_answer_taken_once_whenever_power_is_cut() {
    let mut story = rogue("safe request", &[SAFE]);
    story.scenario.told = told::<1>;
    story.scenario.promises = |world, disk| {
        let end = only_end(world, disk)?;
        let sent = world.api.count("/free/x");
        check(
            sent >= 1 && end.starts_with("answer 1 t 200 {\"n\":"),
            || format!("sent {sent} times: {end}"),
        )
    };
    let run = story.scenario.play();
    run.verdict.unwrap();
    assert_eq!(run.world.api.count("/free/x"), 1, "undisturbed");
    holds(&story.scenario);
}

#[test]
fn a_request_that_may_not_be_repeated_is_never_sent_twice_and_is_answered_or_interrupted_whenever_power_is_cut()
 {
    static INTERRUPTED: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
    static ANSWERED: AtomicUsize = AtomicUsize::new(0);
    let mut story = rogue("request once", &[ONCE]);
    story.scenario.told = told::<1>;
    story.scenario.promises = |world, disk| {
        let end = only_end(world, disk)?;
        match (world.api.count("/free/x"), end.as_str()) {
            (1, "answer 1 t 200 {\"n\":1}") => ANSWERED.fetch_add(1, Ordering::Relaxed),
            (sent @ ..=1, "answer 1 t interrupted") => {
                INTERRUPTED[sent].fetch_add(1, Ordering::Relaxed)
            }
            (sent, end) => return Err(format!("sent {sent} times: {end}")),
        };
        Ok(())
    };
    holds(&story.scenario);
    // Every case was met: interrupted before and after it was sent, and answered.
    let [before, after] = INTERRUPTED.each_ref().map(|n| n.load(Ordering::Relaxed));
    let answered = ANSWERED.load(Ordering::Relaxed);
    assert!(
        before > 0 && after > 0 && answered > 0,
        "{before}, {after}, {answered}"
    );
}

#[test]
fn many_requests_are_each_answered_once_whenever_power_is_cut() {
    let mut story = rogue("many requests", &["fetches 9", ONCE, "fetches 9"]);
    story.scenario.told = told::<19>;
    story.scenario.promises = |world, disk| {
        let ends = ends(world);
        let numbers: BTreeSet<&str> = ends.iter().filter_map(|l| l.split(' ').nth(1)).collect();
        check(ends.len() == 19 && numbers.len() == 19, || {
            format!("{ends:#?}")
        })?;
        check(calls(disk) == 0, || "rows are left".into())
    };
    story.scenario.holds(3);
}

/// Gets a pair of tokens, and uses one of them at once and later.
fn tokens() -> Story {
    let tokens = r#"{"tag":"tokens","method":"POST","path":"/tokens","once":true,
        "captures":[["/access_token","access_token"],["/refresh_token","refresh_token"]]}"#;
    let mut story = Story::bare("tokens");
    story.add_linked_rogue("rogue");
    story.tell(1_000, "rogue", &format!("fetch {tokens}"));
    for (at, tag) in [(1_000, "now"), (9_000, "later")] {
        let guarded = format!(r#"fetch {{"tag":"{tag}","path":"/guarded"}}"#);
        story.tell(at, "rogue", &guarded);
    }
    story.scenario.told = told::<3>;
    story.scenario.promises = |world, disk| {
        check(world.faults.is_empty(), || format!("{:?}", world.faults))?;
        let ends = ends(world);
        let end = |tag: &str| {
            let mut ends = ends
                .iter()
                .filter_map(|l| l.split_once(&format!(" {tag} ")));
            ends.next().map_or("", |(_, end)| end)
        };
        let is_new = end("tokens").starts_with("200 ");
        check(ends.len() == 3 && calls(disk) == 0, || format!("{ends:#?}"))?;
        check(
            !output(world, "rogue").concat().contains("access-1"),
            || "the adapter was shown a token".into(),
        )?;
        for tag in ["now", "later"] {
            let as_expected = if is_new {
                end(tag).starts_with("200 ")
            } else {
                end("tokens") == "interrupted"
                    && end(tag) == "failed no-secret: access_token is not known on this link"
            };
            check(as_expected, || format!("{ends:#?}"))?;
        }
        Ok(())
    };
    story
}

#[test]
fn a_captured_secret_is_durable_before_anybody_uses_it_whenever_power_is_cut() {
    holds(&tokens().scenario);
}

#[test]
fn a_link_that_does_not_wait_for_the_secret_to_be_durable_is_found_so_the_search_can_fail() {
    let mut story = tokens();
    story.scenario.broken = Broken::SecretWait;
    let found = story
        .scenario
        .cut_everywhere(Controls::default(), &[Loss::AllDropped], 1);
    println!("{} of {} runs failed", found.failures.len(), found.runs);
    assert!(
        found
            .failures
            .iter()
            .any(|f| f.contains("was used before it was durable")),
        "{:#?}",
        found.failures
    );
}

#[test]
fn what_is_not_granted_is_not_sent_and_ends_so_once_whenever_power_is_cut() {
    let captures =
        r#"fetch {"tag":"t","method":"POST","path":"/free/x","captures":[["/n","access_token"]]}"#;
    let once = captures.replace(r#""tag""#, r#""once":true,"tag""#);
    for (command, may_be_interrupted) in [
        (captures, false),
        (once.as_str(), true),
        ("list t /other", false),
    ] {
        let mut story = rogue("not granted", &[command]);
        story.scenario.told = told::<1>;
        story.scenario.promises = |world, disk| {
            let end = only_end(world, disk)?;
            check(
                world.api.asked.is_empty() && world.listings.is_empty(),
                || format!("sent: {end}"),
            )?;
            check(
                end.starts_with("answer 1 t failed not-granted: ") || end.ends_with("interrupted"),
                || end.clone(),
            )
        };
        let run = story.scenario.play();
        run.verdict.unwrap();
        let said: String = ends(&run.world).into_iter().collect();
        assert!(said.contains("not-granted"), "undisturbed: {said}");
        holds(&story.scenario);
        if !may_be_interrupted {
            story.scenario.promises = |world, disk| {
                let end = only_end(world, disk)?;
                check(!end.ends_with("interrupted"), || end)
            };
            story.scenario.holds(1);
        }
    }
}

#[test]
fn what_is_not_granted_any_more_after_a_restart_is_not_sent() {
    for command in [SAFE, "list t /model"] {
        let mut before = rogue("granted", &[command]);
        before.scenario.told = told::<1>;
        let mut after = rogue("not granted any more", &[command]);
        let grants = &mut after.setup().adapters[0].grants;
        grants.links.get_mut("api").unwrap().call.clear();
        grants.links.get_mut("folder").unwrap().files = vec!["/elsewhere".into()];
        // The adapter asks for more than it has: it is set aside, and what it asked for waits with it.
        after.scenario.told = |world| world.inbox.is_empty() && world.later.is_empty();
        after.scenario.promises =
            |world, _| check(world.api.asked.is_empty(), || "it was sent".into());
        becomes(&before.scenario, &after.scenario);
    }
}

#[test]
fn nothing_is_left_of_the_requests_of_an_adapter_that_is_gone() {
    let mut before = rogue("configured", &[SAFE, ONCE, "list t /model"]);
    before.scenario.told = told::<3>;
    let mut after = Story::bare("not configured any more");
    // What nobody takes is acknowledged all the same.
    after.scenario.told = |world| world.inbox.is_empty() && world.later.is_empty();
    after.scenario.promises = |world, disk| {
        check(calls(disk) == 0, || "rows are left".into())?;
        check(world.api.asked.is_empty(), || "it was sent".into())
    };
    becomes(&before.scenario, &after.scenario);
}

#[test]
fn an_adapter_that_fails_on_an_answer_has_it_set_aside_whenever_power_is_cut() {
    let trap = r#"fetch {"tag":"trap","path":"/free/x","once":true}"#;
    let mut story = rogue("trap on the answer", &[trap, "echo still here"]);
    story.scenario.told =
        |world| world.is_quiet() && output(world, "rogue").contains(&"still here".to_owned());
    story.scenario.promises = |world, disk| {
        check(calls(disk) == 0, || "the row is left".into())?;
        check(dead_letters(disk) == 1, || {
            format!("{} dead letters", dead_letters(disk))
        })?;
        check(world.api.count("/free/x") <= 1, || "sent twice".into())
    };
    holds(&story.scenario);
}

#[test]
fn more_than_64_requests_at_a_time_are_refused_whole_and_64_are_not() {
    let mut story = rogue("too many", &["fetches 65", "fetches 64", "echo still here"]);
    story.scenario.told = told::<64>;
    story.scenario.promises = |world, disk| {
        check(ends(world).len() == 64, || format!("{:?}", ends(world)))?;
        check(dead_letters(disk) == 1 && calls(disk) == 0, || {
            format!("{} dead letters, {} rows", dead_letters(disk), calls(disk))
        })?;
        check(world.api.asked.len() == 64, || "not 64 were sent".into())
    };
    story.scenario.play().verdict.unwrap();
}

#[test]
fn the_answer_that_an_adapter_takes_makes_room_for_what_it_asks_then() {
    let again = r#"fetch {"tag":"again","path":"/free/x"}"#;
    let mut story = rogue("full", &[]);
    // All 64 are asked before the first is answered.
    story.tell(1_000, "rogue", again);
    story.tell(1_000, "rogue", "fetches 63");
    story.scenario.told = told::<65>;
    story.scenario.promises = |world, disk| {
        check(ends(world).len() == 65 && dead_letters(disk) == 0, || {
            format!("{} dead letters, {:?}", dead_letters(disk), ends(world))
        })
    };
    story.scenario.play().verdict.unwrap();
}

#[test]
fn a_directory_is_listed_and_told_once_whenever_power_is_cut() {
    let mut story = rogue("listing", &["list t /model"]);
    for name in ["a.img", "b.img"] {
        let place = format!("folder:/model/{name}");
        story.world().files.insert(place, Vec::new().into());
    }
    story.scenario.told = told::<1>;
    story.scenario.promises = |world, disk| {
        let end = only_end(world, disk)?;
        check(end == "answer 1 t listing a.img,b.img", || end.clone())
    };
    holds(&story.scenario);
}

#[test]
fn a_server_that_never_answers_ends_the_request_with_its_time() {
    let silent = r#"fetch {"tag":"t","path":"/free/silent","timeout":2000}"#;
    let mut story = rogue("silent server", &[silent]);
    story.scenario.told = told::<1>;
    story.scenario.promises = |world, disk| {
        let end = only_end(world, disk)?;
        check(end == "answer 1 t failed no answer in time", || end.clone())
    };
    story.scenario.play().verdict.unwrap();
}
