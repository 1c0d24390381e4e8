//! The seam between an author's type and the component's exports.

use std::marker::PhantomData;

/// Carries an [`Adapter`](crate::Adapter) to the generated exports. Made by [`register!`](crate::register) alone.
pub struct Registered<A>(PhantomData<A>);

/// Makes a type that implements [`Adapter`](crate::Adapter) the adapter of this crate. Write it once, at the top level.
///
/// In a component it becomes the exported interface. Natively it checks the type and runs nothing, so that the same crate is
/// tested with `cargo test`.
#[macro_export]
macro_rules! register {
    ($adapter:ty) => {
        const _: () = {
            #[allow(dead_code, reason = "natively nobody calls it")]
            type Registered = $crate::registration::Registered<$adapter>;

            #[cfg(target_arch = "wasm32")]
    $crate::registration::export!(Registered with_types_in $crate::registration);

            #[cfg(not(target_arch = "wasm32"))]
            const fn is_adapter<A: $crate::Adapter>() {}
            #[cfg(not(target_arch = "wasm32"))]
            const _: () = is_adapter::<$adapter>();
        };
    };
}

#[cfg(target_arch = "wasm32")]
mod component {
    use super::Registered;
    use crate::guest::exports::otahost::adapter::adapter::Guest;
    use crate::guest::otahost::adapter::host;
    use crate::{
        Adapter, ClockQuality, Description, Event, JobPlan, JobReport, JobSummary, Level,
        Requirements, Step, Target, Verdict, View, step,
    };

    /// The host's own answers.
    struct HostView;

    impl View for HostView {
        fn now(&self) -> u64 {
            host::now()
        }
        fn clock(&self) -> ClockQuality {
            host::clock()
        }
        fn uptime(&self) -> u64 {
            host::uptime()
        }
        fn boot_id(&self) -> String {
            host::boot_id()
        }
        fn random(&self, length: u32) -> Vec<u8> {
            host::random(length)
        }
        fn features(&self) -> Vec<String> {
            host::features()
        }
        fn targets(&self) -> Vec<Target> {
            host::targets()
        }
        fn job(&self, key: &str) -> Option<JobReport> {
            host::job(key)
        }
        fn active_jobs(&self) -> Vec<JobSummary> {
            host::active_jobs()
        }
        fn check_job(&self, plan: &JobPlan) -> Verdict {
            host::check_job(plan)
        }
        fn estimate_seconds(&self, target: &str, bytes: u64) -> u64 {
            host::estimate_seconds(target, bytes)
        }
        fn log(&self, level: Level, message: &str) {
            host::log(level, message);
        }
    }

    /// A panic ends as a bare trap; this line before it is what tells the operator where and why.
    fn log_panics() {
        std::panic::set_hook(Box::new(|panic| {
            host::log(Level::Error, &panic.to_string())
        }));
    }

    impl<A: Adapter> Guest for Registered<A> {
        fn describe() -> Description {
            A::describe()
        }

        fn requirements(config: String) -> Result<Requirements, Vec<String>> {
            step::requirements::<A>(&config)
        }

        fn migrate(from_version: u32, state: Vec<u8>) -> Result<Vec<u8>, String> {
            log_panics();
            A::migrate(from_version, state)
        }

        fn handle(state: Vec<u8>, event: Event) -> Result<Step, String> {
            log_panics();
            let (state, effects) = step::handle::<A>(&state, event, &host::config(), &HostView)?;
            Ok(Step { state, effects })
        }
    }
}
