//! Alerts: kept until every sink has taken them, merged, few, and from the host itself where a person has to look (DESIGN §3).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use otahost_disk::sim::{Controls, Loss, Replay, SimDisk};
use otahost_e2e::sim::{
    DRONE_SN, LOSSES, Manner, Release, Run, Rung, Sink, Story, WallClock, World, check, rows,
};
use otahost_journal::Key;
use serde_json::Value;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// A dock whose adapter is told these things at these times, and these sinks.
fn rogue(name: &'static str, sinks: &[Sink], commands: &[(u64, &str)]) -> Story {
    let mut story = Story::bare(name);
    story.add_linked_rogue("rogue");
    for (at, command) in commands {
        story.tell(*at, "rogue", command);
    }
    story.world().sinks = sinks.to_vec();
    story.scenario.patience = Duration::from_secs(30 * 24 * 3_600);
    story
}

fn away_until(name: &str, at: u64) -> Sink {
    Sink {
        takes_after: at,
        ..Sink::new(name)
    }
}

fn played(story: &Story) -> Run {
    let run = story.scenario.play();
    run.verdict.as_ref().unwrap();
    run
}

/// What this sink took: code and text.
fn taken<'a>(world: &'a World, sink: &str) -> Vec<(&'a str, &'a str)> {
    let taken = world.rung.iter().filter(|r| r.sink == sink && r.taken);
    taken.map(|r| (r.code.as_str(), r.text.as_str())).collect()
}

/// The alerts on a disk that a sink has not taken.
fn waiting(disk: &SimDisk) -> usize {
    let rows = rows(disk.image(Loss::AllKept));
    let waits = |(key, row): &&(Key, Vec<u8>)| {
        matches!(key, Key::Alert { .. })
            && serde_json::from_slice::<Value>(row).unwrap()["waiting"] != Value::Array(Vec::new())
    };
    rows.iter().filter(waits).count()
}

#[test]
fn an_alert_reaches_every_sink_whenever_power_is_cut() {
    let sinks = [Sink::new("now"), away_until("later", 3 * MINUTE)];
    let commands = [
        (1_000, "alert a error first"),
        (2_000, "alert b warn second"),
    ];
    let mut story = rogue("alerts", &sinks, &commands);
    fn all(world: &World) -> bool {
        ["now", "later"].iter().all(|sink| {
            let taken = taken(world, sink);
            taken.contains(&("a", "first")) && taken.contains(&("b", "second"))
        })
    }
    story.scenario.told = |world| world.is_quiet() && all(world);
    story.scenario.promises = |world, disk| {
        check(all(world), || format!("{:#?}", world.rung))?;
        check(waiting(disk) == 0, || "one still waits".into())
    };
    let run = played(&story);
    assert_eq!(taken(&run.world, "now").len(), 2, "undisturbed: each once");
    assert_eq!(
        taken(&run.world, "later").len(),
        2,
        "undisturbed: each once"
    );
    let found = story
        .scenario
        .cut_everywhere(Controls::default(), &LOSSES, 1);
    found.assert_none(story.scenario.name);
}

#[test]
fn the_same_alert_is_told_once_an_hour() {
    let commands = [
        (1_000, "alert a error first"),
        (2_000, "alert a error second"),
        (3_000, "alert other error another"),
        (59 * MINUTE, "alert a error third"),
        (62 * MINUTE, "alert a error fourth"),
    ];
    let run = played(&rogue("merged", &[Sink::new("s")], &commands));
    let expected = [("a", "first"), ("other", "another"), ("a", "fourth")];
    assert_eq!(taken(&run.world, "s"), expected);
}

#[test]
fn while_a_sink_is_away_the_newest_words_wait_for_it() {
    let commands = [
        (1_000, "alert a error first"),
        (MINUTE, "alert a error second"),
        (100 * MINUTE, "alert a error third"),
    ];
    let sinks = [away_until("s", 5 * HOUR)];
    let mut story = rogue("newest", &sinks, &commands);
    story.scenario.told = |world| world.is_quiet() && !taken(world, "s").is_empty();
    let run = played(&story);
    assert_eq!(taken(&run.world, "s"), [("a", "third")]);
}

#[test]
fn what_becomes_worse_is_told_to_those_who_want_to_hear_only_that() {
    let pager = Sink {
        errors_only: true,
        ..Sink::new("pager")
    };
    let commands = [
        (1_000, "alert a warn smoke"),
        (MINUTE, "alert a error fire"),
        (2 * MINUTE, "alert a warn smoke"),
    ];
    let run = played(&rogue("worse", &[Sink::new("log"), pager], &commands));
    assert_eq!(taken(&run.world, "pager"), [("a", "fire")]);
    assert_eq!(taken(&run.world, "log"), [("a", "smoke"), ("a", "fire")]);
}

#[test]
fn a_flood_is_cut_off_and_drowns_nobody_elses_alert() {
    let mut story = rogue("flood", &[Sink::new("s")], &[]);
    story.add_linked_rogue("other");
    for n in 0..40 {
        story.tell(1_000, "rogue", &format!("alert c{n} error no {n}"));
    }
    story.tell(MINUTE, "other", "alert mine error hear me");
    let run = played(&story);
    let taken = taken(&run.world, "s");
    assert_eq!(taken.len(), 31, "{taken:?}");
    assert!(taken.contains(&("mine", "hear me")));
    assert!(taken.contains(&("c29", "no 29")));
}

#[test]
fn a_sink_that_fails_is_tried_again_ever_more_slowly() {
    let sinks = [away_until("s", 40 * MINUTE)];
    let mut story = rogue("back-off", &sinks, &[(0, "alert a error words")]);
    story.scenario.told = |world| world.is_quiet() && !taken(world, "s").is_empty();
    let run = played(&story);
    let at: Vec<u64> = run.world.rung.iter().map(|r| r.at).collect();
    let waits: Vec<u64> = at.windows(2).map(|two| (two[1] - two[0]) / 1_000).collect();
    // Each is told for 0.3 s too.
    assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1_920]);
}

#[test]
fn a_sink_that_never_takes_an_alert_is_given_up_after_a_week_and_the_others_are_not_held_up() {
    let sinks = [away_until("dead", u64::MAX), Sink::new("s")];
    let mut story = rogue("given up", &sinks, &[(0, "alert a error words")]);
    fn tries(world: &World) -> Vec<&Rung> {
        world.rung.iter().filter(|r| r.sink == "dead").collect()
    }
    story.scenario.told = |world| {
        let last = tries(world).last().map_or(0, |r| r.at);
        last > 7 * 24 * HOUR + HOUR && world.is_quiet()
    };
    story.scenario.promises = |world, disk| {
        let (count, last) = (tries(world).len(), tries(world).last().unwrap().at);
        check(last < 7 * 24 * HOUR + 2 * HOUR && count < 200, || {
            format!("{count} tries, the last at {last}")
        })?;
        check(waiting(disk) == 0, || "it still waits".into())?;
        check(taken(world, "s").len() == 1, || "not once".into())
    };
    played(&story);
}

#[test]
fn an_alert_from_before_the_clock_was_set_is_not_given_up_because_it_looks_old() {
    let sinks = [away_until("s", HOUR)];
    let mut story = rogue("1970", &sinks, &[(1_000, "alert a error words")]);
    story.world().clock = WallClock {
        set_after: Some(10 * MINUTE),
        ..WallClock::default()
    };
    story.scenario.told = |world| world.is_quiet() && !taken(world, "s").is_empty();
    story.scenario.patience = Duration::from_secs(4 * 3_600);
    assert_eq!(taken(&played(&story).world, "s"), [("a", "words")]);
}

#[test]
fn alerts_from_a_clock_that_was_years_ahead_silence_nothing() {
    let years = 10 * 365 * 24 * 3_600_000;
    let mut story = rogue("years ahead", &[Sink::new("s")], &[]);
    for n in 0..30 {
        story.tell(1_000, "rogue", &format!("alert c{n} error no {n}"));
    }
    story.tell(5 * MINUTE, "rogue", "alert c0 error again");
    story.tell(6 * MINUTE, "rogue", "alert new error news");
    story.world().clock.steps = vec![(0, years), (3 * MINUTE, 0)];
    let run = played(&story);
    let taken = taken(&run.world, "s");
    assert!(taken.contains(&("c0", "again")), "{taken:?}");
    assert!(taken.contains(&("new", "news")), "{taken:?}");
}

#[test]
fn a_sink_that_is_not_configured_any_more_is_not_waited_for() {
    let gone = away_until("gone", u64::MAX);
    let commands = [(1_000, "alert a error words")];
    let mut before = rogue("configured", &[gone, Sink::new("s")], &commands);
    before.scenario.told = |world| world.is_quiet() && !taken(world, "s").is_empty();
    let (run, worlds) = before.scenario.record(Controls::default());
    run.verdict.unwrap();
    let mut after = rogue("not configured any more", &[], &[]);
    after.scenario.told = |world| world.is_quiet() && !taken(world, "s").is_empty();
    after.scenario.promises = |world, _| {
        let asked = world.rung.iter().filter(|r| r.sink == "gone").count();
        check(asked == 0, || format!("asked {asked} times"))
    };
    let record = run.disk.record();
    let mut replay = Replay::new(&record.start);
    for (cut, op) in record.ops.iter().enumerate() {
        let mut world = worlds[cut].clone();
        world.sinks = vec![Sink::new("s")];
        world.rung.retain(|r| r.sink != "gone");
        let disk = SimDisk::from_image(replay.image(Loss::AllKept));
        if let Err(error) = after.scenario.run(disk, world).verdict {
            panic!("cut {cut}: {error}");
        }
        replay.apply(op);
    }
}

#[test]
fn without_sinks_an_alert_is_only_logged() {
    let run = played(&rogue("no sinks", &[], &[(1_000, "alert a error words")]));
    let rows = rows(run.disk.image(Loss::AllKept));
    assert!(!rows.iter().any(|(key, _)| matches!(key, Key::Alert { .. })));
}

#[test]
fn the_host_says_itself_that_a_way_back_failed_whenever_power_is_cut() {
    let mut story = Story::new("no way back");
    let drone = Release {
        compatible: "drone",
        ..Release::default()
    };
    let order = story.order("bid-1", &[(DRONE_SN, drone)]);
    let world = story.world();
    world.inbox.push(order);
    world.drone.manner = Manner::StaysIll;
    world.drone.alone = true;
    world.sinks = vec![Sink::new("s")];
    story.setup().targets[1].confirm_within = Duration::from_secs(60);
    fn host(world: &World) -> Vec<&Rung> {
        let own = |r: &&Rung| r.source == "otahost" && r.taken;
        world.rung.iter().filter(own).collect()
    }
    story.scenario.told = |world| world.is_quiet() && !host(world).is_empty();
    story.scenario.promises = |world, disk| {
        let told = host(world);
        let words: Vec<_> = told.iter().map(|r| (&r.code, &r.text)).collect();
        let same = words.iter().all(|word| *word == words[0]);
        check(
            same && told[0].code == "rollback-failed" && told[0].text.contains("drone"),
            || format!("{:#?}", world.rung),
        )?;
        check(world.reboots == 0 && world.switches.is_empty(), || {
            format!("{} reboots, {:?}", world.reboots, world.switches)
        })?;
        check(waiting(disk) == 0, || "it still waits".into())
    };
    assert_eq!(host(&played(&story).world).len(), 1);
    story.scenario.holds(5);
}
