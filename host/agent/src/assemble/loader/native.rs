//! Native code made on this device: in a process with limits, and only when the cache does not serve.

use std::ffi::OsString;
use std::sync::Arc;

use otahost_disk::{Disk, Place};
use otahost_sandbox::{Bounds, Cache, ChildLimits, Compile, LoadError, Loaded, Sandbox};

use crate::config::CompilerConfig;

/// Where native code lies in the data directory.
pub(crate) const COMPILED: &str = "compiled";
/// The command of the agent's executable that makes it the compiler.
pub(crate) const COMPILE_CHILD: &str = "compile-child";

#[derive(Debug, Clone)]
pub(super) struct Native {
    cache: Option<Arc<Cache>>,
    /// The compiler's program and arguments: see [`otahost_sandbox::child_main`].
    program: Arc<[OsString]>,
    limits: ChildLimits,
}

impl Native {
    /// Compiles in processes of the executable that runs now, even when its file was replaced meanwhile. It has to be the agent's.
    pub(super) fn new() -> Native {
        Native {
            cache: None,
            program: ["/proc/self/exe".into(), COMPILE_CHILD.into()].into(),
            limits: ChildLimits::default(),
        }
    }

    /// A cache that cannot be opened costs time at every start, and nothing else.
    pub(super) fn open_cache(&mut self, disk: &Arc<dyn Disk>) {
        match Cache::open(disk.clone(), Place::data(COMPILED), Bounds::default()) {
            Ok(cache) => self.cache = Some(Arc::new(cache)),
            Err(error) => {
                tracing::warn!(%error, "native code cannot be kept: every start compiles the adapters");
            }
        }
    }

    pub(super) fn limit(&mut self, config: &CompilerConfig) {
        self.limits.memory = config.memory;
        self.limits.cpu_seconds = config.cpu.as_secs();
        self.limits.wall = config.time;
    }

    pub(super) fn load(
        &self,
        sandbox: &Sandbox,
        adapter: &str,
        component: &[u8],
    ) -> Result<Loaded, LoadError> {
        let compile = Compile::InChild {
            program: &self.program,
            limits: &self.limits,
        };
        match &self.cache {
            Some(cache) => cache.load(sandbox, adapter, component, compile),
            None => sandbox.load_by(adapter, component, compile),
        }
    }

    pub(super) fn forget(&self, component: &str) {
        if let Some(cache) = &self.cache
            && let Err(error) = cache.forget(component)
        {
            tracing::warn!(%error, component, "native code that nobody needs cannot be removed");
        }
    }
}
