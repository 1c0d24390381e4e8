//! SIGKILL at seeded moments of the flow: each time the kit ends up updated, once, and knows it.

use std::thread;
use std::time::Duration;

use otahost_e2e::kit::{Kit, KitSpec, NEW, OLD, PATIENCE};
use otahost_lab::ftps::{Answer, Fault};
use serde_json::json;

use super::{KIB, MIB, PASSWORD, USER, strict};

/// Kills, from the answer on; the undisturbed flow takes about [`FLOW_MS`].
const KILLS: u64 = 6;
const FLOW_MS: u64 = 3_000;

#[test]
fn a_kill_at_any_moment_leaves_one_update() {
    let (server, _) = strict();
    // So that the download is a good part of the flow.
    server.throttle(Some(MIB));
    thread::scope(|scope| {
        for run in 0..KILLS {
            let server = &server;
            scope.spawn(move || {
                // A fixed stride that is prime to the length spreads the moments evenly.
                let after = Duration::from_millis((run * 1_237 + 90) % FLOW_MS);
                let mut spec = KitSpec::new(server.port(), USER, PASSWORD);
                spec.config_lines = format!("directory = \"/run-{run}\"");
                let kit = Kit::on(&spec);
                let release = kit.release(NEW, MIB);
                let path = format!("run-{run}/{}", release.name);
                server.put(&path, release.bytes.clone());
                server.fault(&path, 1, Fault::CutAfter(release.file.size * 37 / 100));
                kit.update();
                thread::sleep(after);
                // A reboot that was asked for just before may have started it already.
                if kit.machine.kill_agent().is_ok() {
                    let _ = kit.machine.start_agent();
                }
                kit.machine.await_boots(2, PATIENCE).unwrap();
                kit.assert_runs(NEW, "b");
                kit.assert_holds("b", &release);
                let last = kit.await_last_update("succeeded");
                assert_eq!(
                    (&last["oldVersion"], &last["requestedBy"]),
                    (&json!(OLD), &json!("centre")),
                    "run {run}, {after:?}"
                );
                assert_eq!(kit.machine.boot_count(), 2, "run {run}, {after:?}");
                let jobs = kit.json(&["jobs"]);
                assert_eq!(jobs.as_array().unwrap().len(), 1, "run {run}: {jobs}");
                kit.assert_well();
            });
        }
    });
}

/// The caller's connection is gone with the process, so nobody was told of an update: none begins.
#[test]
fn a_kill_while_the_folder_is_read_starts_nothing_and_the_next_call_works() {
    let (server, spec) = strict();
    let kit = Kit::on(&spec);
    let release = kit.release(NEW, 64 * KIB);
    server.put(&release.name, release.bytes.clone());
    server.answer("CONNECT", 1, Answer::Silence);
    let centre = kit.centre.clone();
    let call = thread::spawn(move || centre.update_device());
    assert!(server.wait_for(PATIENCE, |all| all.iter().any(|c| c.silent)));
    kit.crash();
    assert!(call.join().unwrap().is_err(), "nobody was left to answer");
    server.release();
    kit.await_version(OLD);
    // The listing is asked for again, because the adapter asked for it; what it says starts nothing.
    assert!(server.wait_for(PATIENCE, |all| {
        all.iter().any(|c| c.verbs().contains(&"MLSD") && c.closed)
    }));
    kit.settle();
    assert_eq!(kit.json(&["jobs"]), json!([]));
    kit.update();
    kit.assert_runs(NEW, "b");
    assert_eq!(kit.machine.boot_count(), 2);
    kit.assert_well();
}
