//! SIGKILL and power cuts at seeded moments of the installation of an adapter's new version, in the real process and under steady
//! traffic: the next start runs the old version or the new one, whole, and every message is handled once. (Issue 7, "Must hold".)
//!
//! Cuts at every single disk operation are `adapter_versions.rs`' business; here it is the process, its child and its files.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::thread;
use std::time::Instant;

use otahost_e2e::kills;
use otahost_e2e::numbers::{BACK, NEXT, Numbers};
use otahost_lab::mosquitto::Mosquitto;

/// Moments are spread over so many parts of the time that an undisturbed installation took, and a quarter more.
const PARTS: u32 = 97;

#[test]
fn a_kill_at_any_moment_of_an_installation_finds_the_old_version_or_the_new_one_whole() {
    let broker = Mosquitto::start().unwrap();
    let device = Numbers::off(broker.port());
    device.switch_on();
    let (mut old, mut new) = (0, 0);
    device.while_told(|| {
        device.await_more(10);
        let began = Instant::now();
        let said = device.install(&device.release("rogue-next", 0)).end();
        assert!(said.status.success(), "{said:?}");
        let undisturbed = began.elapsed();
        for run in 1..=kills(8) {
            let before = device.version();
            let (name, after) = match before.as_str() {
                NEXT => ("rogue-back", BACK),
                _ => ("rogue-next", NEXT),
            };
            // Nobody has seen this build before: it is stored, compiled, asked, migrated to and swapped in.
            let component = device.release(name, run);
            let install = device.install(&component);
            // A stride that is prime to the parts spreads the moments evenly and in no order.
            let part = u32::try_from(run).unwrap() * 37 % PARTS;
            thread::sleep(undisturbed * 5 * part / (4 * PARTS));
            if run % 2 == 0 {
                device.machine.kill_agent().unwrap();
                device.machine.start_agent().unwrap();
            } else {
                device.machine.lose_power();
                device.machine.power_on().unwrap();
            }
            let said = install.end();
            device.await_new();
            let now = device.version();
            let what = format!("run {run}, at {part}/{PARTS}: from {before} to {after}");
            assert!(now == before || now == after, "{what}: {now} runs");
            if said.status.success() {
                assert_eq!(now, after, "{what}: it was said to run: {said:?}");
            }
            device.assert_store_is_whole();
            if now == before {
                old += 1;
                // Nothing is left behind that stands in its way.
                let again = device.install(&component).end();
                assert!(again.status.success(), "{what}: {again:?}");
                device.await_new();
                assert_eq!(device.version(), after, "{what}");
            } else {
                new += 1;
            }
        }
    });
    device.assert_each_handled_once();
    assert!(
        device.machine.crashes().is_empty(),
        "{:?}",
        device.machine.crashes()
    );
    println!(
        "{} messages; the old version ran after {old} kills, the new one after {new}",
        device.said()
    );
}
