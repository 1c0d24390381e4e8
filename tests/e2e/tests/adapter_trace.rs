//! What an adapter did is on record: shown step by step, run again on the version that runs and on another build of it, and still there
//! after a kill as far as it was committed (DESIGN §1, §7).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;

use otahost_e2e::component_path;
use otahost_e2e::device::{Cli, PATIENCE, Said, eventually};
use otahost_e2e::numbers::{FIRST, NEXT, Numbers};
use otahost_lab::mosquitto::Mosquitto;
use serde_json::Value;

/// A device that is told these, each when the one before has its answer: the command, and what is published then.
fn told(broker: &Mosquitto, story: &[(&str, &str)]) -> Numbers {
    let device = Numbers::off(broker.port());
    device.switch_on();
    tell(&device, story);
    device
}

fn tell(device: &Numbers, story: &[(&str, &str)]) {
    for (command, answer) in story {
        let before = count(device, answer);
        device.peer.say("rogue/do", *command).unwrap();
        let there = device.peer.wait_for(PATIENCE, |heard| {
            heard.iter().filter(|(_, p)| p == answer.as_bytes()).count() > before
        });
        assert!(there, "{command}: {answer:?} in {:?}", device.peer.heard());
    }
}

fn count(device: &Numbers, answer: &str) -> usize {
    let heard = device.peer.heard();
    let same = |(_, payload): &&(String, Vec<u8>)| payload == answer.as_bytes();
    heard.iter().filter(same).count()
}

fn adapter(device: &Numbers, arguments: &[&str]) -> Said {
    Cli::on(&device.machine, &[&["adapter"], arguments].concat()).end()
}

/// The document that such a command gives with `--json`, and its exit code.
fn document(device: &Numbers, arguments: &[&str]) -> (Value, Option<i32>) {
    let said = adapter(device, &[arguments, &["--json"]].concat());
    let read = serde_json::from_str(&said.out);
    (
        read.unwrap_or_else(|e| panic!("{e}: {said:?}")),
        said.code(),
    )
}

fn logs(device: &Numbers) -> Vec<Value> {
    let (logs, code) = document(device, &["logs", "rogue", "--last", "1000"]);
    assert_eq!(code, Some(0), "{logs}");
    logs["steps"].as_array().unwrap().clone()
}

fn next() -> String {
    component_path("rogue-next").display().to_string()
}

/// The agent ends without a word and starts again.
fn kill(device: &Numbers) {
    device.machine.kill_agent().unwrap();
    device.machine.start_agent().unwrap();
    eventually("an answer of the agent", || {
        device.status()["links"][0]["up"] == true
    });
}

#[test]
fn what_an_adapter_did_is_shown_without_what_it_was_told_and_comes_back_after_a_kill() {
    let broker = Mosquitto::start().unwrap();
    let story = [
        ("echo cucumber", "cucumber"),
        ("count", "1"),
        ("log so it is", ""),
        ("refuse", ""),
        ("echo pumpkin", "pumpkin"),
    ];
    let device = Numbers::off(broker.port());
    device.switch_on();
    for (command, answer) in story {
        match answer {
            "" => device.peer.say("rogue/do", command).unwrap(),
            answer => tell(&device, &[(command, answer)]),
        }
    }
    let said = adapter(&device, &["logs", "rogue"]);
    assert_eq!(said.code(), Some(0), "{said:?}");
    for line in [
        "started Installed: step",
        "message on cloud rogue/do (13 bytes): step (",
        "message on cloud rogue/do (5 bytes): step, new state (",
        "    publish cloud rogue/out (8 bytes, QoS 1)\n",
        "    log info: so it is\n",
        "message on cloud rogue/do (6 bytes): refused: told to refuse (",
    ] {
        assert!(said.out.contains(line), "{line}: {}", said.out);
    }
    let before = logs(&device);
    for shown in [said.out, Value::from(before.clone()).to_string()] {
        assert!(
            !shown.contains("cucumber") && !shown.contains("pumpkin"),
            "{shown}"
        );
    }

    let (replay, code) = document(&device, &["replay", "rogue"]);
    assert_eq!(
        (
            code,
            &replay["same"],
            &replay["differing"],
            &replay["failed"],
            &replay["not_run"]
        ),
        (
            Some(0),
            &Value::from(before.len()),
            &Value::from(0),
            &Value::from(0),
            &Value::from(0)
        ),
        "{replay}"
    );
    let fuel = |step: &Value| step["fuel_recorded"] == step["fuel_now"];
    assert!(
        replay["steps"].as_array().unwrap().iter().all(fuel),
        "{replay}"
    );

    kill(&device);
    let after = logs(&device);
    let restarted = after
        .iter()
        .position(|step| step["event"] == "started Restarted")
        .unwrap_or_else(|| panic!("{after:#?}"));
    assert!(restarted >= 1, "the start was committed: {after:#?}");
    assert_eq!(after[..restarted], before[..restarted]);
    let (_, code) = document(&device, &["replay", "rogue"]);
    assert_eq!(code, Some(0));
}

#[test]
fn the_next_release_shows_on_the_record_what_it_does_otherwise_and_changes_nothing() {
    let broker = Mosquitto::start().unwrap();
    let device = told(
        &broker,
        &[
            ("echo x", "x"),
            ("count", "1"),
            ("stumble", "steady"),
            ("count", "2"),
        ],
    );
    let said = adapter(&device, &["replay", "rogue", "--with", &next()]);
    assert_eq!(said.code(), Some(12), "{said:?}");
    for line in [
        "effect 1 (publish cloud rogue/out), payload: \"2\" -> \"1002\"",
        "outcome: a step with 1 effects -> failed (the adapter trapped",
        "on version 0.2.0: ",
    ] {
        assert!(said.out.contains(line), "{line}: {}", said.out);
    }
    let (report, code) = document(&device, &["replay", "rogue", "--with", &next()]);
    // Both counts and what it stumbles at; and the start, which had no state before it that a thousand could have been added to.
    assert_eq!(
        (code, &report["differing"], &report["failed"]),
        (Some(12), &Value::from(4), &Value::from(0)),
        "{report}"
    );
    let n = report["steps"].as_array().unwrap().last().unwrap()["n"].to_string();
    let one = adapter(&device, &["replay", "rogue", "--step", &n]);
    assert_eq!(one.code(), Some(0), "{one:?}");
    assert!(one.out.starts_with(&format!(
        "step {n} (message on cloud rogue/do (5 bytes)): the same"
    )));

    // It was only tried.
    assert_eq!(device.status()["adapters"][0]["version"], FIRST);
    tell(&device, &[("count", "3")]);

    // Now it is taken, and says the same of itself; and it is not refused for it.
    let (taken, code) = document(&device, &["install", "rogue", &next()]);
    assert_eq!(
        (code, &taken["version"]),
        (Some(0), &Value::from(NEXT)),
        "{taken}"
    );
    assert_eq!(taken["trial"]["differing"], 5, "{taken}");
    // Before a restart and after it; the next one would bring the version before back.
    for restarts in [true, false] {
        let (details, _) = document(&device, &["inspect", "rogue"]);
        let (kept, whole) = (&details["trial"], &taken["trial"]);
        for number in ["same", "differing", "failed", "not_run"] {
            assert_eq!(kept[number], whole[number], "{details}");
        }
        assert_eq!(
            kept["steps"].as_array().map(Vec::len),
            whole["differing"]
                .as_u64()
                .map(|n| usize::try_from(n).unwrap()),
            "{details}"
        );
        if restarts {
            kill(&device);
        }
    }
    let said = adapter(&device, &["inspect", "rogue"]);
    for line in [
        "rogue: rogue 0.2.0, installed from ",
        "on probation",
        "subscribe cloud  rogue/do",
        "the record of the version before: ",
        "-> failed (the adapter trapped",
    ] {
        assert!(said.out.contains(line), "{line}: {}", said.out);
    }
}

#[test]
fn a_dead_letter_is_shown_and_replayed_also_after_a_restart() {
    let broker = Mosquitto::start().unwrap();
    let device = told(&broker, &[("count", "1")]);
    device.peer.say("rogue/do", "trap").unwrap();
    tell(&device, &[("count", "2")]);
    for _ in 0..2 {
        let said = adapter(&device, &["logs", "rogue"]);
        let shown = "message on cloud rogue/do (4 bytes): the adapter trapped";
        assert!(
            said.out.contains("dead letters\n") && said.out.contains(shown),
            "{}",
            said.out
        );
        let (details, _) = document(&device, &["inspect", "rogue"]);
        let dead = &details["dead"][0];
        assert_eq!(
            (&dead["n"], &dead["replayable"]),
            (&Value::from(0), &Value::from(true)),
            "{details}"
        );
        let (report, code) = document(&device, &["replay", "rogue", "--dead", "0"]);
        assert_eq!(
            (code, &report["same"]),
            (Some(0), &Value::from(1)),
            "{report}"
        );
        kill(&device);
    }
}

#[test]
fn what_cannot_be_shown_or_replayed_is_said() {
    let broker = Mosquitto::start().unwrap();
    let device = told(&broker, &[("echo x", "x")]);
    let text = device.machine.layout().data().with_file_name("text.wasm");
    fs::write(&text, "this is no component\n").unwrap();
    let (text, missing) = (text.display().to_string(), "/nonexistent/x.wasm");
    for (arguments, code, says) in [
        (&["inspect", "dji"][..], 5, "there are: rogue"),
        (&["logs", "dji"], 5, "there are: rogue"),
        (&["replay", "dji"], 5, "there are: rogue"),
        (&["replay", "rogue", "--with", &text], 6, "component"),
        (&["replay", "rogue", "--with", missing], 6, "cannot be read"),
        (
            &["replay", "rogue", "--step", "999999"],
            5,
            "there is no step 999999",
        ),
        (
            &["replay", "rogue", "--dead", "7"],
            5,
            "there is no dead letter 7",
        ),
        (
            &["replay", "rogue", "--step", "1", "--dead", "1"],
            2,
            "--dead",
        ),
        (&["replay", "rogue", "--step", "one"], 2, "--step"),
    ] {
        let said = adapter(&device, arguments);
        assert_eq!(said.code(), Some(code), "{arguments:?}: {said:?}");
        assert!(said.err.contains(says), "{arguments:?}: {said:?}");
    }
    assert_eq!(device.status()["adapters"][0]["health"], "running");
}

#[test]
fn who_follows_the_logs_reads_each_step_as_it_happens() {
    let broker = Mosquitto::start().unwrap();
    let device = told(&broker, &[("echo x", "x")]);
    let mut follower = Cli::on(&device.machine, &["adapter", "logs", "rogue", "--follow"]);
    eventually("the steps so far", || {
        follower.out().contains("rogue/do (6 bytes): step")
    });
    let changed = |out: &str| out.matches("new state").count();
    assert_eq!(changed(&follower.out()), 1, "{}", follower.out());
    tell(&device, &[("count", "1")]);
    eventually("the next step", || changed(&follower.out()) == 2);
    assert!(follower.runs());
}
