//! What the sandbox promises, against a guest that misbehaves on command (`rogue.wat`).
#![allow(clippy::unwrap_used, reason = "tests")]

mod caching;
mod components;
mod loading;
mod migrating;
mod real;
mod running;
mod tracing;

use std::sync::{Arc, OnceLock};

use otahost_core::admit::Judge;
use otahost_core::model::{ClockQuality, Event, Health, Step, Target};
use otahost_core::view::View;
use otahost_sandbox::{Adapter, Failure, FailureKind, Handled, Limits, Sandbox};

use components::rogue_component;

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
        targets: Arc::new(vec![Target {
            id: "dock".into(),
            parent: None,
            version: None,
            health: Health::Unknown,
            observed: None,
            attributes: vec![],
            busy: None,
        }]),
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
