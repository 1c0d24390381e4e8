//! A component that does not fit is refused in words that say what it wants, before anything of it runs: at the start, by `check`, and
//! while the agent runs, by `adapter install`. (Issue 7: "A component that imports anything else than the contract …".)
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use otahost_e2e::numbers::{FIRST, Numbers};
use otahost_lab::image::Described;
use otahost_lab::mosquitto::Mosquitto;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// An adapter by hand; there is a place in it for more imports.
const GUEST: &str = include_str!("../../../host/sandbox/tests/sandbox/rogue.wat");
const CONTRACT: &str = include_str!("../../../wit/update-adapter.wit");
/// Exit codes of the command line.
const CONFIGURATION: Option<i32> = Some(3);
const REFUSED: Option<i32> = Some(6);

/// The guest with this import more, as a component of the world `name` of the last of these packages.
fn component(guest: &str, import: &str, packages: &[&str], world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(guest.replace(";;IMPORTS", import)).unwrap();
    let mut resolve = Resolve::default();
    let mut last = None;
    for (n, package) in packages.iter().enumerate() {
        last = Some(resolve.push_str(format!("{n}.wit"), package).unwrap());
    }
    let world = resolve.select_world(&[last.unwrap()], Some(world)).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let mut encoder = ComponentEncoder::default().module(&module).unwrap();
    encoder.encode().unwrap()
}

/// It wants a clock of its own beside the contract.
fn with_a_clock() -> Vec<u8> {
    let clock = "package acme:clock; interface ticks { tick: func() -> u64; } \
                 world thief { include otahost:adapter/update-adapter@0.1.0; import ticks; }";
    let import = r#"(import "acme:clock/ticks" "tick" (func $tick (result i64)))"#;
    component(GUEST, import, &[CONTRACT, clock], "thief")
}

/// It was built against a later release of the contract, and calls what is new there.
fn of_tomorrow() -> Vec<u8> {
    let later = CONTRACT
        .replace("@0.1.0", "@0.1.9")
        .replace("now: func()", "moon-phase: func() -> u64; now: func()");
    let guest = GUEST.replace("@0.1.0", "@0.1.9");
    let import = r#"(import "otahost:adapter/host@0.1.9" "moon-phase" (func $moon (result i64)))"#;
    component(&guest, import, &[&later], "update-adapter")
}

/// It was built against another contract altogether.
fn of_another_contract() -> Vec<u8> {
    let other = CONTRACT
        .replace("@0.1.0", "@0.7.0")
        .replace("now: func()", "moon-phase: func() -> u64; now: func()");
    let guest = GUEST.replace("@0.1.0", "@0.7.0");
    let import = r#"(import "otahost:adapter/host@0.7.0" "moon-phase" (func $moon (result i64)))"#;
    component(&guest, import, &[&other], "update-adapter")
}

/// What each is refused for.
fn strangers() -> [(&'static str, Vec<u8>, &'static [&'static str]); 3] {
    [
        ("clock", with_a_clock(), &["it imports `acme:clock/ticks`"]),
        (
            "tomorrow",
            of_tomorrow(),
            &["`moon-phase`", "`otahost:adapter/host@0.1.9`", "later"],
        ),
        (
            "other",
            of_another_contract(),
            &["`moon-phase`", "`otahost:adapter/host@0.7.0`"],
        ),
    ]
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(format!("{name}.wasm"));
    fs::write(&path, bytes).unwrap();
    path
}

/// Off again, with the files that a boot makes.
fn booted(broker: u16) -> Numbers {
    let device = Numbers::off(broker);
    device.switch_on();
    device.machine.lose_power();
    device
}

#[test]
fn the_guest_without_what_makes_it_a_stranger_is_taken() {
    let broker = Mosquitto::start().unwrap();
    let device = booted(broker.port());
    let dir = tempfile::tempdir().unwrap();
    let plain = component(GUEST, "", &[CONTRACT], "update-adapter");
    let plain = put(dir.path(), "plain", &plain);
    device.configure_component(&plain);
    let said = device.check();
    assert!(said.status.success(), "{said:?}");
}

#[test]
fn check_names_what_a_component_wants_that_this_host_does_not_give() {
    let broker = Mosquitto::start().unwrap();
    let device = booted(broker.port());
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes, words) in strangers() {
        device.configure_component(&put(dir.path(), name, &bytes));
        let said = device.check();
        assert_eq!(said.code(), CONFIGURATION, "{name}: {said:?}");
        for word in words {
            assert!(said.err.contains(word), "{name}, {word}: {}", said.err);
        }
        assert!(said.err.contains("adapters.rogue"), "{}", said.err);
    }
}

#[test]
fn an_agent_that_runs_refuses_them_and_the_version_that_runs_goes_on() {
    let broker = Mosquitto::start().unwrap();
    let device = Numbers::off(broker.port());
    device.switch_on();
    let dir = tempfile::tempdir().unwrap();
    let store = device.machine.layout().data().join("adapters");
    for (name, bytes, words) in strangers() {
        let stranger = put(dir.path(), name, &bytes);
        let said = device.install(&stranger).end();
        assert_eq!(said.code(), REFUSED, "{name}: {said:?}");
        for word in words {
            assert!(said.err.contains(word), "{name}, {word}: {}", said.err);
        }
        let digest = Described::of(&stranger).unwrap().sha256;
        assert!(
            !store.join(format!("{digest}.wasm")).exists(),
            "{name} was kept"
        );
        device.say();
        device.await_answers(device.said());
    }
    assert_eq!(device.versions(), [FIRST]);
    device.assert_each_handled_once();
}
