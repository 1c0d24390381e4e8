//! `otahost:adapter@0.1`: its generated bindings, the host side of its `host` interface, and its calls.

mod bindings;
mod from_guest;
mod to_guest;

use otahost_core::model;
use otahost_core::view::View;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store};

use self::bindings::otahost::adapter::{host, types as wit};
use self::bindings::{UpdateAdapter, UpdateAdapterPre};
use crate::guest::Guest;
use crate::shape;

#[cfg(feature = "compiler")]
/// The functions of `host` in the release of this contract that is served.
pub(super) const FUNCTIONS: &[&str] = &[
    "now",
    "clock",
    "uptime",
    "boot-id",
    "random",
    "config",
    "features",
    "targets",
    "job",
    "active-jobs",
    "check-job",
    "estimate-seconds",
    "log",
];

pub(super) struct World {
    linker: Linker<Guest>,
}

pub(crate) struct Served {
    pre: UpdateAdapterPre<Guest>,
}

impl World {
    pub(super) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(engine);
        UpdateAdapter::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
        Ok(World { linker })
    }

    pub(super) fn serve(&self, component: &Component) -> wasmtime::Result<Served> {
        Ok(Served {
            pre: UpdateAdapterPre::new(self.linker.instantiate_pre(component)?)?,
        })
    }
}

impl Served {
    fn enter(&self, store: &mut Store<Guest>) -> wasmtime::Result<UpdateAdapter> {
        let instance = self.pre.instantiate(&mut *store)?;
        store.data_mut().entered = true;
        Ok(instance)
    }

    pub(super) fn describe(
        &self,
        store: &mut Store<Guest>,
    ) -> wasmtime::Result<model::Description> {
        let instance = self.enter(store)?;
        Ok(instance
            .otahost_adapter_adapter()
            .call_describe(store)?
            .into())
    }

    pub(super) fn requirements(
        &self,
        store: &mut Store<Guest>,
        config: &str,
    ) -> wasmtime::Result<Result<model::Requirements, Vec<String>>> {
        let instance = self.enter(store)?;
        Ok(instance
            .otahost_adapter_adapter()
            .call_requirements(store, config)?
            .map(Into::into))
    }

    pub(super) fn migrate(
        &self,
        store: &mut Store<Guest>,
        from: u32,
        state: &[u8],
    ) -> wasmtime::Result<Result<Vec<u8>, String>> {
        let instance = self.enter(store)?;
        instance
            .otahost_adapter_adapter()
            .call_migrate(store, from, state)
    }

    pub(super) fn handle(
        &self,
        store: &mut Store<Guest>,
        state: &[u8],
        event: &model::Event,
    ) -> wasmtime::Result<Result<model::Step, String>> {
        let event = event.into();
        let instance = self.enter(store)?;
        Ok(instance
            .otahost_adapter_adapter()
            .call_handle(store, state, &event)?
            .map(Into::into))
    }
}

impl wit::Host for Guest {}

impl host::Host for Guest {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.ask("now", 0)?.now)
    }

    fn clock(&mut self) -> wasmtime::Result<wit::ClockQuality> {
        Ok(self.ask("clock", 0)?.clock.into())
    }

    fn uptime(&mut self) -> wasmtime::Result<u64> {
        Ok(self.ask("uptime", 0)?.uptime)
    }

    fn boot_id(&mut self) -> wasmtime::Result<String> {
        Ok(self.ask("boot-id", 0)?.boot_id.clone())
    }

    fn random(&mut self, length: u32) -> wasmtime::Result<Vec<u8>> {
        Guest::random(self, length)
    }

    fn config(&mut self) -> wasmtime::Result<String> {
        Ok(self.ask("config", 0)?.config.clone())
    }

    fn features(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.ask("features", 0)?.features.clone())
    }

    fn targets(&mut self) -> wasmtime::Result<Vec<wit::Target>> {
        Ok(self
            .ask("targets", 0)?
            .targets
            .iter()
            .map(Into::into)
            .collect())
    }

    fn job(&mut self, key: String) -> wasmtime::Result<Option<wit::JobReport>> {
        Ok(self.ask("job", key.len())?.job(&key).map(Into::into))
    }

    fn active_jobs(&mut self) -> wasmtime::Result<Vec<wit::JobSummary>> {
        Ok(self
            .ask("active-jobs", 0)?
            .active_jobs()
            .into_iter()
            .map(Into::into)
            .collect())
    }

    fn check_job(&mut self, plan: wit::JobPlan) -> wasmtime::Result<wit::Verdict> {
        let plan = model::JobPlan::from(plan);
        let view = self.ask("check-job", shape::plan_bytes(&plan))?;
        Ok(verdict(view, &plan).into())
    }

    fn estimate_seconds(&mut self, target: String, bytes: u64) -> wasmtime::Result<u64> {
        let view = self.ask("estimate-seconds", target.len())?;
        Ok(view.estimate_seconds(&target, bytes).min(shape::MAX_WHOLE))
    }

    fn log(&mut self, level: wit::Level, message: String) -> wasmtime::Result<()> {
        self.write_log(level.into(), &message)
    }
}

/// A plan that would make the step malformed is refused here, so that an adapter can find out without failing.
fn verdict(view: &View, plan: &model::JobPlan) -> model::Verdict {
    match shape::plan(plan) {
        Ok(()) => view.check_job(plan),
        Err(fault) => model::Verdict::Refuse(model::Reason::new("invalid-plan", "admit", fault)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_core::model::{Apply, Dedupe, JobPlan, Verdict};

    use super::*;

    #[test]
    fn the_list_of_functions_is_that_of_the_contract() {
        let mut resolve = wit_parser::Resolve::default();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let (package, _) = resolve.push_path(path).unwrap();
        let host = resolve.packages[package].interfaces["host"];
        let functions: Vec<_> = resolve.interfaces[host]
            .functions
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(functions, FUNCTIONS);
    }

    #[test]
    fn a_plan_out_of_shape_is_refused_in_advance_and_not_a_failure() {
        let view = View {
            now: 0,
            clock: model::ClockQuality::Unset,
            uptime: 0,
            boot_id: String::new(),
            seed: [0; 32],
            config: String::new(),
            features: vec![],
            targets: Default::default(),
            jobs: vec![],
            judge: otahost_core::admit::Judge::of_nobody(),
        };
        let plan = JobPlan {
            key: String::new(),
            dedupe: Dedupe::WhileActive,
            context: vec![],
            installs: vec![],
            apply: Apply::Immediately,
        };
        let Verdict::Refuse(reason) = verdict(&view, &plan) else {
            panic!("allowed")
        };
        assert_eq!(
            (reason.code.as_str(), reason.stage.as_str()),
            ("invalid-plan", "admit")
        );
        assert!(reason.text.contains("key"), "{reason}");
    }
}
