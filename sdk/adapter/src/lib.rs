//! What an adapter author needs: one trait, the contract's types, and a bench to test on.
//!
//! An adapter teaches otahost one vendor protocol. It is a pure function: it is shown an event and a frozen [`View`] of the
//! device, changes its own state and returns the [`Effect`]s it wants. It has no clock, socket, file or secret; all that is the
//! host's. So an adapter is tested natively on the [bench](mod@bench), and built once for every device as a WebAssembly component.
//!
//! The example `acme` beside this crate is a whole adapter with its tests; `README.md` goes from an empty folder to a built
//! component.

#[cfg(not(target_arch = "wasm32"))]
pub mod bench;
mod config;
mod contract;
pub mod effects;
mod guest;
#[cfg(not(target_arch = "wasm32"))]
mod limits;
mod random;
mod register;
mod step;
#[cfg(not(target_arch = "wasm32"))]
mod topic;

/// The types of the contract, generated from `wit/update-adapter.wit` with its documentation.
pub use guest::otahost::adapter::types::*;
pub use random::uuid;

/// What [`register!`] expands to needs these; nobody else does.
#[doc(hidden)]
pub mod registration {
    #[cfg(target_arch = "wasm32")]
    pub use crate::guest::{export, exports};
    pub use crate::register::Registered;
}

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What an adapter may ask while it handles an event.
///
/// Inside the agent the answers come from the host; on the [bench](mod@bench) from the test. Every answer is frozen for one step.
pub trait View {
    /// Wall-clock time in milliseconds since the Unix epoch. Never below the host's build date or the last journalled time;
    /// may jump between steps.
    fn now(&self) -> u64;
    /// How far `now` can be trusted.
    fn clock(&self) -> ClockQuality;
    /// Milliseconds since boot, time in suspend included.
    fn uptime(&self) -> u64;
    /// Changes with every boot.
    fn boot_id(&self) -> String;
    /// The next bytes drawn from the step's seed: the same in a replay, different in every step. At most 4,096 in one call; more
    /// gives 4,096. For an id see [`uuid`].
    fn random(&self, length: u32) -> Vec<u8>;
    /// Names of optional things this host can do.
    fn features(&self) -> Vec<String>;
    /// The targets granted to this adapter, in the order of the host's configuration.
    fn targets(&self) -> Vec<Target>;
    /// The newest report of a job of this adapter, for as long as the host remembers it.
    fn job(&self, key: &str) -> Option<JobReport>;
    /// The jobs on granted targets that have not ended.
    fn active_jobs(&self) -> Vec<JobSummary>;
    /// The verdict a `start-job` with this plan will get when this step is committed.
    fn check_job(&self, plan: &JobPlan) -> Verdict;
    /// How many seconds an update of this target with so many bytes will take, reboot included, from what was observed so far.
    fn estimate_seconds(&self, target: &str, bytes: u64) -> u64;
    /// Writes a line to the adapter's log. At most 64 KiB in one step; the rest is cut.
    fn log(&self, level: Level, message: &str);
}

/// A vendor protocol.
///
/// Nothing lives in memory between two events: each runs in a fresh instance, and what must survive is in `State`.
pub trait Adapter {
    /// The operator's configuration of this adapter; unknown keys are refused where it says `deny_unknown_fields`.
    type Config: DeserializeOwned;
    /// What it remembers between events, as JSON, at most 60,000 bytes. `Default` is the state before the first event.
    type State: Serialize + DeserializeOwned + Default;

    /// What this adapter is. The same on every call.
    fn describe() -> Description;

    /// What it will ask for with this configuration.
    ///
    /// The operator sees it and grants it; an effect outside it is discarded as undeclared, and the step with it.
    ///
    /// # Errors
    /// What is wrong with the configuration: one sentence for each fault, each naming its key.
    fn requirements(config: &Self::Config) -> Result<Requirements, Vec<String>>;

    /// One step: changes the state and returns the effects in order.
    ///
    /// State and effects are committed together or not at all.
    ///
    /// # Errors
    /// A sentence refuses the event: it is consumed and logged, and the state stays as it was.
    fn handle(
        state: &mut Self::State,
        event: Event,
        config: &Self::Config,
        view: &dyn View,
    ) -> Result<Vec<Effect>, String>;

    /// Turns a state (or a job's context) of an older `state-version` into today's. Runs on a copy, before the first event that
    /// the new code sees.
    ///
    /// # Errors
    /// Why that version cannot be read; the update of the adapter is then refused and the old version stays.
    fn migrate(from_version: u32, _state: Vec<u8>) -> Result<Vec<u8>, String> {
        Err(format!("no migration from state version {from_version}"))
    }
}
