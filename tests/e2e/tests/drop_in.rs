//! A running agent takes in what an integrator changes on the device: a component that is replaced or dropped in, an edited
//! configuration; and it says what is wrong where it does not (issue 7: "Drop-in for integrators").
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use otahost_e2e::component;
use otahost_e2e::device::eventually;
use otahost_e2e::station::{GRANTS, Station};
use serde_json::json;

/// Puts a file in place as careful people do: under its name it is whole.
fn put(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn a_component_that_is_replaced_takes_over_while_messages_flow_and_none_is_lost() {
    let station = Station::off("", "").on();
    let over = AtomicBool::new(false);
    let counts = thread::scope(|scope| {
        let told = scope.spawn(|| {
            let mut counts: Vec<u64> = Vec::new();
            while !over.load(Ordering::Relaxed) {
                counts.push(station.tell("count").parse().unwrap());
            }
            // The last one before may have been answered before the other version took over.
            counts.push(station.tell("count").parse().unwrap());
            counts
        });
        put(&station.component(), &component("rogue-next"));
        station.await_version("0.2.0");
        over.store(true, Ordering::Relaxed);
        told.join().unwrap()
    });
    // Its migration adds a thousand, once; each request has one answer of its own.
    let steps: Vec<u64> = counts.windows(2).map(|w| w[1] - w[0]).collect();
    assert!(steps.iter().all(|s| *s == 1 || *s == 1_001), "{counts:?}");
    assert_eq!(
        steps.iter().filter(|s| **s == 1_001).count(),
        1,
        "{counts:?}"
    );
    assert_eq!(station.adapter()["origin"], json!("drop-in"));
    // It is the configured one from now on, also for the next start.
    station.restart();
    assert_eq!(station.version(), "0.2.0");
    let last: u64 = station.tell("count").parse().unwrap();
    assert_eq!(last, counts.last().unwrap() + 1);
    // And on probation still, with a way back.
    assert_eq!(station.tell("stumble"), "steady");
    assert_eq!(station.version(), "0.1.0");
    station.restart();
    assert_eq!(station.version(), "0.1.0", "what was left stays away");
    assert!(station.machine.crashes().is_empty());
}

#[test]
fn a_file_that_is_no_component_is_named_and_the_old_version_goes_on() {
    let station = Station::off("", "").on();
    assert_eq!(station.tell("count"), "1");
    put(&station.component(), b"this is a text and no component");
    eventually("word of the file", || {
        station.adapter()["waiting"][0]["source"] == json!("its file")
    });
    let shown = station.cli(&["adapter", "list"]).out;
    assert!(shown.contains("cannot run"), "{shown}");
    assert_eq!(station.version(), "0.1.0");
    assert_eq!(station.tell("count"), "2");
    let said = station.cli(&["reload"]);
    assert_eq!(
        (said.code(), said.out.trim()),
        (Some(0), "nothing was changed")
    );
    put(&station.component(), &component("rogue-back"));
    station.await_version("0.3.0");
    assert_eq!(station.adapter()["waiting"], json!([]));
    assert_eq!(station.tell("count"), "3");
}

#[test]
fn edited_grants_apply_to_the_running_agent_and_a_broken_edit_to_nothing() {
    let station = Station::off("", "").on();
    assert_eq!(station.tell("count"), "1");
    put(&station.component(), &component("rogue-greedy"));
    eventually("a version that waits", || {
        station.adapter()["waiting"][0]["version"] == json!("0.4.0")
    });
    // A line of the file is broken.
    station.configure("[adapters.rogue.grants]", "[adapters.rogue.grants");
    eventually("word of the fault", || {
        station.status()["problem"]
            .as_str()
            .is_some_and(|problem| problem.contains("otahost.toml:"))
    });
    let shown = station.cli(&["status"]).out;
    assert!(
        shown.contains("is not taken in, and what ran before goes on"),
        "{shown}"
    );
    let said = station.cli(&["reload"]);
    assert_eq!(said.code(), Some(3), "{said:?}");
    assert_eq!(station.tell("count"), "2");
    station.configure("[adapters.rogue.grants\n", "[adapters.rogue.grants]\n");
    station.configure(
        "publish = [\"rogue/out\"]",
        "publish = [\"rogue/out\", \"rogue/more\"]",
    );
    station.await_version("0.4.0");
    station.await_answer();
    assert_eq!(station.tell("count"), "3");
    let status = station.status();
    assert_eq!(
        (&status["problem"], &status["adapters"][0]["waiting"]),
        (&json!(null), &json!([]))
    );
    // Another process would have another start.
    let starts = fs::read_to_string(station.machine.layout().log()).unwrap();
    assert_eq!(starts.matches("== ").count(), 1, "it is the same process");
}

#[test]
fn what_cannot_change_at_run_time_is_said_and_nothing_of_the_edit_is_taken_in() {
    let station = Station::off("", "").on();
    let data = json!(station.machine.layout().data()).to_string();
    let other = json!(station.dir().join("elsewhere")).to_string();
    station.configure(
        &format!("data_dir = {data}"),
        &format!("data_dir = {other}"),
    );
    let said = station.cli(&["reload"]);
    assert_eq!(said.code(), Some(3), "{said:?}");
    assert!(
        said.err
            .contains("`device.data_dir` cannot be changed while the agent runs"),
        "{said:?}"
    );
    assert_eq!(station.tell("count"), "1");
}

#[test]
fn a_component_without_a_table_is_shown_with_the_lines_it_needs_and_runs_with_them() {
    let station = Station::off("", "").on();
    let directory = station.machine.layout().config().with_file_name("adapters");
    fs::create_dir(&directory).unwrap();
    put(&directory.join("second.wasm"), &component("rogue"));
    put(&directory.join("broken.wasm"), b"no component");
    eventually("both files", || {
        station.status()["drop_ins"]
            .as_array()
            .is_some_and(|found| found.len() == 2)
    });
    let shown = station.cli(&["adapter", "list"]).out;
    for words in [
        "[adapters.second]",
        "config = { link = \"…\", prefix = \"…\" }",
        "it is refused",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let grants = GRANTS
        .replace("rogue", "second")
        .replace("links.web.serve = [\"POST /second/do\"]", "");
    station.configure(
        "[adapters.rogue]\n",
        &format!("[adapters.second]\nconfig = {{ link = \"cloud\", prefix = \"second\" }}\n{grants}\n[adapters.rogue]\n"),
    );
    eventually("the second adapter", || {
        let status = station.status();
        status["adapters"]
            .as_array()
            .is_some_and(|all| all.len() == 2)
            && status["drop_ins"]
                .as_array()
                .is_some_and(|found| found.len() == 1)
    });
    station.await_answer();
    assert_eq!(station.tell("count"), "1");
}
