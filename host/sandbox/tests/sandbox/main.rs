//! What the sandbox promises, against a guest that misbehaves on command (`rogue.wat`).
#![allow(clippy::unwrap_used, reason = "tests")]

mod loading;
mod running;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use otahost_core::admit::Judge;
use otahost_core::model::{ClockQuality, Event, Health, Step, Target};
use otahost_core::view::View;
use otahost_sandbox::{Adapter, Failure, FailureKind, Handled, Limits, Sandbox};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const ROGUE: &str = include_str!("rogue.wat");

fn contract() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/update-adapter.wit");
    std::fs::read_to_string(path).unwrap()
}

/// Encodes a core module as a component of a world of this WIT text.
fn encode(wat: &str, packages: &[&str], world: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let mut resolve = Resolve::default();
    let mut last = None;
    for (i, package) in packages.iter().enumerate() {
        last = Some(resolve.push_str(format!("{i}.wit"), package).unwrap());
    }
    let world = resolve.select_world(&[last.unwrap()], Some(world)).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    // Not validated: some of these are broken on purpose, and telling so is the sandbox's task.
    ComponentEncoder::default()
        .module(&module)
        .unwrap()
        .validate(false)
        .encode()
        .unwrap()
}

fn rogue_component() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| encode(ROGUE, &[&contract()], "update-adapter"))
}

fn rogue_with(limits: Limits) -> Adapter {
    Sandbox::new(limits)
        .unwrap()
        .load("rogue", rogue_component())
        .unwrap()
}

/// Compiled once for all tests that keep the default limits.
fn rogue() -> Adapter {
    static ADAPTER: OnceLock<Adapter> = OnceLock::new();
    ADAPTER
        .get_or_init(|| rogue_with(Limits::default()))
        .clone()
}

fn view() -> Arc<View> {
    Arc::new(View {
        now: 1_700_000_000_123,
        clock: ClockQuality::Synced,
        uptime: 5,
        boot_id: "boot".into(),
        seed: [7; 32],
        config: "{}".into(),
        features: vec![],
        targets: vec![Target {
            id: "dock".into(),
            parent: None,
            version: None,
            health: Health::Unknown,
            observed: None,
            attributes: vec![],
            busy: None,
        }],
        jobs: vec![],
        judge: Judge::of_nobody(),
    })
}

fn command(adapter: &Adapter, command: &str) -> Result<Handled, Failure> {
    adapter.handle(&view(), b"before", &Event::Timer(command.into()))
}

fn step(adapter: &Adapter, name: &str) -> Step {
    command(adapter, name).unwrap().result.unwrap()
}

fn failure(adapter: &Adapter, name: &str) -> FailureKind {
    command(adapter, name).expect_err(name).kind
}
