//! The contract versions this host serves: one frozen module each, none is ever changed once published.
//!
//! A component says by the names of its imports and exports which version it was built against. Within a served version
//! (`0.1`) later patch releases only add functions, so that a component built against one of them runs here as long as it
//! uses nothing new.

mod v0_1;

use otahost_core::model::{Description, Event, Requirements, Step};
use wasmtime::component::Component;
use wasmtime::{Engine, Store};

use crate::failure::LoadError;
use crate::guest::Guest;
use crate::text::plain;

/// What is served, for messages.
pub(crate) const SERVED: &str = "otahost:adapter@0.1";

#[cfg(feature = "compiler")]
/// The newest release of it that this host knows.
const PATCH: u32 = 0;

/// True for a version of the package that is served: `0.1.` and a number.
pub(crate) fn serves(version: &str) -> bool {
    version
        .strip_prefix("0.1.")
        .is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(feature = "compiler")]
/// True for the release of the contract that is served, and those before it.
pub(crate) fn is_current(version: &str) -> bool {
    version
        .strip_prefix("0.1.")
        .and_then(|patch| patch.parse::<u32>().ok())
        .is_some_and(|patch| (0..=PATCH).contains(&patch))
}

#[cfg(feature = "compiler")]
/// True for a function that `host` has here.
pub(crate) fn has_function(function: &str) -> bool {
    v0_1::FUNCTIONS.contains(&function)
}

/// The host sides of all versions, prepared once for an engine.
pub(crate) struct Worlds {
    v0_1: v0_1::World,
}

/// A component bound to the version it was built against.
pub(crate) enum Served {
    V0_1(v0_1::Served),
}

impl Worlds {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        Ok(Worlds {
            v0_1: v0_1::World::new(engine)?,
        })
    }

    /// Binds a component that passed the audit, and type-checks it against its version.
    pub(crate) fn serve(
        &self,
        adapter: &str,
        engine: &Engine,
        component: &Component,
    ) -> Result<Served, LoadError> {
        let ty = component.component_type();
        let exported: Vec<_> = ty
            .exports(engine)
            .filter_map(|(name, _)| name.strip_prefix("otahost:adapter/adapter@"))
            .collect();
        if let (false, Some(version)) = (exported.iter().any(|v| serves(v)), exported.first()) {
            return Err(LoadError::OtherContract {
                adapter: adapter.into(),
                interface: format!("otahost:adapter/adapter@{version}"),
                served: SERVED,
                missing: Vec::new(),
            });
        }
        self.v0_1
            .serve(component)
            .map(Served::V0_1)
            .map_err(|e| LoadError::Contract {
                adapter: adapter.into(),
                reason: plain(&format!("{e:#}"), 2048),
            })
    }
}

impl Served {
    pub(crate) fn describe(&self, store: &mut Store<Guest>) -> wasmtime::Result<Description> {
        match self {
            Served::V0_1(served) => served.describe(store),
        }
    }

    pub(crate) fn requirements(
        &self,
        store: &mut Store<Guest>,
        config: &str,
    ) -> wasmtime::Result<Result<Requirements, Vec<String>>> {
        match self {
            Served::V0_1(served) => served.requirements(store, config),
        }
    }

    pub(crate) fn migrate(
        &self,
        store: &mut Store<Guest>,
        from: u32,
        state: &[u8],
    ) -> wasmtime::Result<Result<Vec<u8>, String>> {
        match self {
            Served::V0_1(served) => served.migrate(store, from, state),
        }
    }

    pub(crate) fn handle(
        &self,
        store: &mut Store<Guest>,
        state: &[u8],
        event: &Event,
    ) -> wasmtime::Result<Result<Step, String>> {
        match self {
            Served::V0_1(served) => served.handle(store, state, event),
        }
    }
}
