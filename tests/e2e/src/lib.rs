//! What the tests of the whole share: the simulated device of [`sim`], the real one of [`device`], and where the built adapters are.
#![allow(
    clippy::unwrap_used,
    reason = "test support: a broken set-up ends the test"
)]

pub mod camera;
pub mod device;
pub mod gateway;
pub mod kit;
pub mod numbers;
pub mod sim;
pub mod station;
pub mod volume;

use std::path::PathBuf;

/// The component of an adapter, built by `cargo xtask adapters`.
///
/// # Panics
/// When it was not built: says how to.
pub fn component(name: &str) -> Vec<u8> {
    let path = component_path(name);
    std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; run `cargo xtask adapters` first", path.display()))
}

/// Where xtask puts a component.
pub fn component_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/adapters")
        .join(format!("{name}.wasm"))
}

/// How many runs a test with kills makes: so many, or what `OTAHOST_KILLS` says.
///
/// # Panics
/// When the variable is no number.
pub fn kills(default: u64) -> u64 {
    match std::env::var("OTAHOST_KILLS") {
        Ok(number) => number
            .parse()
            .unwrap_or_else(|e| panic!("OTAHOST_KILLS={number}: {e}")),
        Err(_) => default,
    }
}
