//! Another version of an adapter, taken in by a real agent again and again while messages come in without a pause: every message is
//! handled by exactly one committed step of exactly one version. (Issue 7, "Must hold".)
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_e2e::device::eventually;
use otahost_e2e::numbers::{BACK, FIRST, NEXT, Numbers};
use otahost_lab::broker::Broker;
use otahost_lab::mosquitto::Mosquitto;

/// Messages each version answers at least.
const SPELL: u64 = 20;

/// Swaps so many times, and does something more to each swap as soon as it is asked for.
fn swaps(device: &Numbers, swaps: u64, more: impl Fn(u64)) {
    device.switch_on();
    device.while_told(|| {
        for swap in 0..swaps {
            device.await_more(SPELL);
            let (name, version) = if swap % 2 == 0 {
                ("rogue-next", NEXT)
            } else {
                ("rogue-back", BACK)
            };
            // Every second pair is one that the agent has run before.
            let install = device.install(&device.release(name, swap / 4));
            more(swap);
            let said = install.end();
            assert!(said.status.success(), "swap {swap}: {said:?}");
            // The answers that come first may still be those of the version before.
            eventually("an answer of the version that was taken", || {
                device.version() == version
            });
        }
        device.await_more(SPELL);
    });
    device.assert_each_handled_once();
    let forth_and_back = [NEXT, BACK].into_iter().cycle().take(swaps as usize);
    let expected: Vec<&str> = [FIRST].into_iter().chain(forth_and_back).collect();
    assert_eq!(device.versions(), expected);
    device.assert_store_is_whole();
    assert!(
        device.machine.crashes().is_empty(),
        "{:?}",
        device.machine.crashes()
    );
    println!("{} messages over {swaps} swaps", device.said());
}

#[test]
fn swaps_under_steady_traffic_of_mosquitto_handle_every_message_once() {
    let broker = Mosquitto::start().unwrap();
    swaps(&Numbers::off(broker.port()), 20, |_| {});
}

#[test]
fn swaps_under_steady_traffic_of_rumqttd_handle_every_message_once() {
    let broker = Broker::start();
    swaps(&Numbers::off(broker.port()), 10, |_| {});
}

#[test]
fn swaps_while_the_line_breaks_handle_every_message_once() {
    let broker = Mosquitto::start().unwrap();
    let device = Numbers::off(broker.port());
    swaps(&device, 8, |swap| {
        // What is on its way is lost with the line: messages, acknowledgements, answers.
        for _ in 0..=swap % 3 {
            device.proxy.cut();
            device.await_more(1);
        }
    });
}
