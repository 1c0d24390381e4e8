//! The engine, the components compiled on it, and the one way a call is run.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use otahost_core::model::{Description, Event, MAX_CONTEXT, MAX_STATE, Requirements, Step};
use otahost_core::view::View;
use wasmtime::component::Component;
use wasmtime::{Config, Engine, Store, Trap, WasmBacktrace, WasmBacktraceDetails};

#[cfg(feature = "compiler")]
use crate::audit::audit;
#[cfg(feature = "compiler")]
use crate::compiled::{EngineId, id};
use crate::failure::{Failure, FailureKind, LoadError, SandboxError};
use crate::guest::{Guest, LogLine};
use crate::limits::Limits;
use crate::pool::{Places, pooled};
use crate::precompiled::Target;
use crate::shape;
use crate::text::plain;
use crate::ticker::Ticker;
use crate::worlds::{Served, Worlds};

/// Most bytes kept of a sentence from a guest: a refusal, a fault in a configuration.
const MAX_SENTENCE: usize = 1024;
/// Most faults kept of one configuration.
const MAX_FAULTS: usize = 100;
/// Most functions named in a trap, and most bytes of each name.
const TRAP_FRAMES: usize = 4;
const TRAP_NAME: usize = 100;

/// One engine with its clock thread. Cloning is cheap and shares both; the thread ends with the last clone and adapter.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) shared: Arc<Shared>,
    /// The engine that interprets, from when it was first needed.
    interpreter: Arc<OnceLock<Arc<Shared>>>,
}

pub(crate) struct Shared {
    pub(crate) engine: Engine,
    /// What native code has to be made by to run here.
    #[cfg(feature = "compiler")]
    pub(crate) id: EngineId,
    limits: Arc<Limits>,
    worlds: Worlds,
    places: Places,
    ticker: Ticker,
    /// Ticks until the backstop.
    deadline: u64,
}

/// A component that passed the audit, compiled and type-checked. Cloning is cheap.
#[derive(Clone)]
pub struct Adapter {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    digest: String,
    served: Served,
    shared: Arc<Shared>,
}

/// What a `handle` that ran to its end gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handled {
    /// The step, its shape checked; or the sentence with which the adapter refused the event. A refused event is consumed
    /// and the state stays.
    pub result: Result<Step, String>,
    /// What the adapter logged.
    pub log: Vec<LogLine>,
    /// The fuel it used: the same on every run with the same component, view, state and event.
    pub fuel: u64,
}

impl Sandbox {
    /// Starts the engine.
    ///
    /// # Errors
    /// When the engine refuses the settings or the machine, or no thread can be had.
    pub fn new(limits: Limits) -> Result<Sandbox, SandboxError> {
        Ok(Sandbox {
            shared: Arc::new(Shared::new(Arc::new(limits), None)?),
            interpreter: Arc::default(),
        })
    }

    /// What runs code that was made for this target, which is this processor or the interpreter.
    pub(crate) fn shared_for(&self, target: Target) -> Result<Arc<Shared>, SandboxError> {
        if target != Target::Pulley64 {
            return Ok(self.shared.clone());
        }
        if let Some(shared) = self.interpreter.get() {
            return Ok(shared.clone());
        }
        let shared = Arc::new(Shared::new(self.shared.limits.clone(), Some(target))?);
        Ok(self.interpreter.get_or_init(|| shared).clone())
    }
}

#[cfg(feature = "compiler")]
impl Sandbox {
    /// Audits, compiles and type-checks a component. No guest code runs. `name` is only used in messages.
    ///
    /// Compiling costs time and memory in proportion to the file, and nothing bounds it but the file's size.
    ///
    /// # Errors
    /// When the file is too large, no component, damaged, imports anything but the contract, or does not fit it.
    pub fn load(&self, name: &str, component: &[u8]) -> Result<Adapter, LoadError> {
        let digest = self.audit(name, component)?;
        let compiled = Component::from_binary(&self.shared.engine, component)
            .map_err(|e| invalid(name, &e))?;
        self.shared.bind(name, digest, &compiled)
    }

    /// What can be told of a file without compiling it and without running it: that it is small enough, a component, and imports
    /// nothing but what this host serves. Gives its identity, `"sha256:<hex>"`.
    ///
    /// # Errors
    /// As for [`load`](Self::load), but for what only the compiler finds.
    pub fn audit(&self, name: &str, component: &[u8]) -> Result<String, LoadError> {
        let limit = self.shared.limits.component_bytes;
        if component.len() > limit {
            return Err(LoadError::TooLarge {
                adapter: name.into(),
                bytes: component.len(),
                limit,
            });
        }
        audit(name, component)?;
        Ok(sha256(component))
    }
}

impl Shared {
    fn new(limits: Arc<Limits>, target: Option<Target>) -> Result<Shared, SandboxError> {
        let engine = match target {
            None => running_engine(&limits)?,
            target => engine_for(&limits, target)?,
        };
        let worlds = Worlds::new(&engine).map_err(|e| SandboxError::Engine(format!("{e:#}")))?;
        let interval =
            (limits.backstop / 10).clamp(Duration::from_millis(1), Duration::from_millis(100));
        // One more: the first tick may come right after a call began.
        let deadline = limits
            .backstop
            .as_nanos()
            .div_ceil(interval.as_nanos())
            .saturating_add(1);
        let ticking = engine.clone();
        let ticker = Ticker::start(interval, move || ticking.increment_epoch())
            .map_err(SandboxError::Thread)?;
        Ok(Shared {
            #[cfg(feature = "compiler")]
            id: id(&engine),
            engine,
            limits,
            worlds,
            places: Places::new(),
            ticker,
            deadline: u64::try_from(deadline).unwrap_or(u64::MAX / 2),
        })
    }

    /// Type-checks a compiled component.
    pub(crate) fn bind(
        self: &Arc<Self>,
        name: &str,
        digest: String,
        compiled: &Component,
    ) -> Result<Adapter, LoadError> {
        Ok(Adapter {
            inner: Arc::new(Inner {
                name: name.into(),
                digest,
                served: self.worlds.serve(name, &self.engine, compiled)?,
                shared: self.clone(),
            }),
        })
    }
}

/// The compiler's refusal.
#[cfg(feature = "compiler")]
pub(crate) fn invalid(name: &str, error: &wasmtime::Error) -> LoadError {
    LoadError::Invalid {
        adapter: name.into(),
        reason: plain(&format!("{error:#}"), MAX_SENTENCE),
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adapter")
            .field("name", &self.inner.name)
            .field("digest", &self.inner.digest)
            .finish_non_exhaustive()
    }
}

impl Adapter {
    /// The name it was loaded under.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Identity of the component: `"sha256:<hex>"` of the file.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// What the adapter says of itself.
    ///
    /// # Errors
    /// A [`Failure`] when the guest trapped, broke a bound, asked the host, or described itself out of shape.
    pub fn describe(&self) -> Result<Description, Failure> {
        let (description, run) = self.other("describe", |served, store| served.describe(store))?;
        run.check(shape::description(&description))
            .map(|_| description)
    }

    /// What the adapter will ask for with this configuration (JSON), or what is wrong with the configuration.
    ///
    /// # Errors
    /// A [`Failure`] as for [`describe`](Self::describe).
    pub fn requirements(
        &self,
        config_json: &str,
    ) -> Result<Result<Requirements, Vec<String>>, Failure> {
        let (answer, run) = self.other("requirements", |served, store| {
            served.requirements(store, config_json)
        })?;
        match answer {
            Ok(requirements) => run
                .check(shape::requirements(&requirements))
                .map(|_| Ok(requirements)),
            Err(faults) => Ok(Err(faults
                .iter()
                .take(MAX_FAULTS)
                .map(|f| plain(f, MAX_SENTENCE))
                .collect())),
        }
    }

    /// Turns a state of an older state version into today's (at most [`MAX_STATE`] bytes), or says why that is impossible. The
    /// caller's bytes are a copy to the guest: nothing is changed.
    ///
    /// # Errors
    /// A [`Failure`] as for [`describe`](Self::describe), and when what comes out is too large.
    pub fn migrate(&self, from: u32, state: &[u8]) -> Result<Result<Vec<u8>, String>, Failure> {
        self.migrate_within("state", MAX_STATE, from, state)
    }

    /// The same for the context of a job (at most [`MAX_CONTEXT`] bytes).
    ///
    /// # Errors
    /// As for [`migrate`](Self::migrate).
    pub fn migrate_context(
        &self,
        from: u32,
        context: &[u8],
    ) -> Result<Result<Vec<u8>, String>, Failure> {
        self.migrate_within("job context", MAX_CONTEXT, from, context)
    }

    fn migrate_within(
        &self,
        what: &str,
        most: usize,
        from: u32,
        bytes: &[u8],
    ) -> Result<Result<Vec<u8>, String>, Failure> {
        let (answer, run) = self.other("migrate", |served, store| {
            served.migrate(store, from, bytes)
        })?;
        match answer {
            Ok(made) if made.len() > most => run
                .check(Err(format!(
                    "the migrated {what} has {} bytes, more than {most}",
                    made.len()
                )))
                .map(|_| Ok(made)),
            Ok(made) => Ok(Ok(made)),
            Err(sentence) => Ok(Err(plain(&sentence, MAX_SENTENCE))),
        }
    }

    /// One step: what the adapter makes of this event. The state is empty at the very first.
    ///
    /// # Errors
    /// A [`Failure`] when the guest trapped, broke a bound, or answered out of shape. An adapter that refuses the event is
    /// no failure: see [`Handled::result`].
    pub fn handle(
        &self,
        view: &Arc<View>,
        state: &[u8],
        event: &Event,
    ) -> Result<Handled, Failure> {
        let fuel = self.inner.shared.limits.handle_fuel;
        let (answer, run) = self.run("handle", Some(view.clone()), fuel, |served, store| {
            served.handle(store, state, event)
        })?;
        let result = match answer {
            Ok(step) => {
                let checked = shape::step(&step);
                return run.check(checked).map(|run| Handled {
                    result: Ok(step),
                    log: run.log,
                    fuel: run.fuel,
                });
            }
            Err(sentence) => Err(plain(&sentence, MAX_SENTENCE)),
        };
        Ok(Handled {
            result,
            log: run.log,
            fuel: run.fuel,
        })
    }

    fn other<T>(
        &self,
        function: &'static str,
        call: impl FnOnce(&Served, &mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<(T, Run), Failure> {
        let (answer, run) = self.run(function, None, self.inner.shared.limits.other_fuel, call)?;
        for line in &run.log {
            tracing::debug!(adapter = self.inner.name, function, level = ?line.level, "{}", line.text);
        }
        Ok((answer, run))
    }

    /// Runs one call in a store of its own, which is dropped whatever happens.
    fn run<T>(
        &self,
        function: &'static str,
        view: Option<Arc<View>>,
        fuel: u64,
        call: impl FnOnce(&Served, &mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<(T, Run), Failure> {
        let shared = &*self.inner.shared;
        let limits = &shared.limits;
        // Free again when the store is gone.
        let _place = shared.places.take();
        let mut store = Store::new(&shared.engine, Guest::new(function, view, limits.clone()));
        store.limiter(|guest| guest);
        store.set_hostcall_fuel(limits.passed_bytes);
        store.set_max_component_handles(limits.handles);
        store.set_epoch_deadline(shared.deadline);
        let outcome = store.set_fuel(fuel).and_then(|()| {
            let _running = shared.ticker.running();
            call(&self.inner.served, &mut store)
        });
        let used = fuel.saturating_sub(store.get_fuel().unwrap_or(fuel));
        let mut guest = store.into_data();
        match outcome {
            Ok(answer) => Ok((
                answer,
                Run {
                    log: guest.into_log(),
                    fuel: used,
                },
            )),
            Err(error) => {
                let kind = match guest.broken.take() {
                    Some(broken) => broken,
                    None => classify(&error, guest.entered, fuel, limits),
                };
                Err(Failure {
                    kind,
                    log: guest.into_log(),
                    fuel: used,
                })
            }
        }
    }
}

/// What is left of a call besides its answer.
struct Run {
    log: Vec<LogLine>,
    fuel: u64,
}

impl Run {
    /// Makes an answer that is out of shape a failure.
    fn check(self, shape: Result<(), String>) -> Result<Run, Failure> {
        match shape {
            Ok(()) => Ok(self),
            Err(fault) => Err(Failure {
                kind: FailureKind::Malformed(plain(&fault, MAX_SENTENCE)),
                log: self.log,
                fuel: self.fuel,
            }),
        }
    }
}

/// The kind of an error that no bound of ours explains.
fn classify(error: &wasmtime::Error, entered: bool, fuel: u64, limits: &Limits) -> FailureKind {
    let root = plain(&error.root_cause().to_string(), MAX_SENTENCE);
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => FailureKind::OutOfFuel(fuel),
        Some(Trap::Interrupt) => {
            FailureKind::Timeout(u64::try_from(limits.backstop.as_millis()).unwrap_or(u64::MAX))
        }
        Some(_) => FailureKind::Trap(trap_text(&root, error)),
        // While a function is called, what remains is a value that cannot be passed over the border.
        None if entered => {
            FailureKind::Malformed(format!("a value cannot be passed over the border: {root}"))
        }
        None if root.starts_with("resource limit exceeded") => FailureKind::Limit(root),
        None => FailureKind::Engine(plain(&format!("{error:#}"), MAX_SENTENCE)),
    }
}

/// The trap and the innermost functions, for the adapter's author.
fn trap_text(root: &str, error: &wasmtime::Error) -> String {
    let mut text = root.strip_prefix("wasm trap: ").unwrap_or(root).to_owned();
    let frames = error
        .downcast_ref::<WasmBacktrace>()
        .map(WasmBacktrace::frames)
        .unwrap_or_default();
    let names = frames
        .iter()
        .filter_map(|frame| frame.func_name())
        .take(TRAP_FRAMES);
    for (depth, name) in names.enumerate() {
        text.push_str(if depth == 0 { " in " } else { ", called by " });
        text.push_str(&plain(name, TRAP_NAME));
    }
    text
}

/// `"sha256:<hex>"` of these bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(digest(&SHA256, bytes).as_ref()))
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    text
}

/// The engine that calls run in.
fn running_engine(limits: &Limits) -> Result<Engine, SandboxError> {
    let mut config = config(limits);
    pooled(&mut config, limits);
    Engine::new(&config).or_else(|error| {
        let engine = engine_for(limits, None)?;
        tracing::warn!(%error, "each call maps memory of its own, which takes longer: the places for calls cannot be had");
        Ok(engine)
    })
}

/// An engine with our settings, in the agent and in the compiler's process alike.
#[cfg(feature = "compiler")]
pub(crate) fn engine(limits: &Limits) -> Result<Engine, SandboxError> {
    engine_for(limits, None)
}

/// The same for another target than what this processor is at its best.
pub(crate) fn engine_for(limits: &Limits, target: Option<Target>) -> Result<Engine, SandboxError> {
    let refused = |e: wasmtime::Error| SandboxError::Engine(format!("{e:#}"));
    let mut config = config(limits);
    if let Some(target) = target {
        config.target(target.triple()).map_err(refused)?;
    }
    Engine::new(&config).map_err(refused)
}

/// Settings that make a step the same on every run and device, and a guest unable to hold the host. With every change of what they make
/// of a component the number in `precompiled` is raised.
pub(crate) fn config(limits: &Limits) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(limits.stack_bytes)
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .gc_support(false)
        .concurrency_support(false)
        // Names of functions are enough in a trap; the map from code to file offsets only costs memory.
        .generate_address_map(false)
        .native_unwind_info(false)
        // The environment must not change what a failure says.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    #[cfg(feature = "compiler")]
    config.cranelift_nan_canonicalization(true);
    // Threads and exceptions are not built into the engine, see the features of `wasmtime` in the workspace.
    config
}
