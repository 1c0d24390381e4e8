//! Native code of a component, and the one place where it is handed to the engine unseen.
//!
//! The engine runs native code as it is; whoever gives it other bytes than the compiler's has given up the sandbox. So native code is a
//! type of its own, which only this crate makes: from the compiler in this process, from the compiler in a process of our own
//! executable, and from a cache file whose digest and maker were checked. Code that was made elsewhere comes here only with a signature:
//! see `precompiled`.

#[cfg(feature = "compiler")]
use std::fmt;
use std::hash::{Hash, Hasher};

#[cfg(feature = "compiler")]
use aws_lc_rs::digest::{Context, SHA256};
use wasmtime::component::Component;
use wasmtime::{Engine, ModuleVersionStrategy};

#[cfg(feature = "compiler")]
use crate::failure::LoadError;
#[cfg(feature = "compiler")]
use crate::sandbox::{Adapter, Sandbox, invalid};
#[cfg(feature = "compiler")]
use crate::text::plain;

#[cfg(feature = "compiler")]
/// Most bytes of the engine's reason for refusing code.
const MAX_REASON: usize = 1024;

/// What native code depends on besides the component: the release of the engine, its settings, and the features of the processor as the
/// engine judges them. The same in two processes of one executable on one device.
#[cfg(feature = "compiler")]
pub(crate) type EngineId = [u8; 32];

/// Native code of one component for one engine.
#[cfg(feature = "compiler")]
#[derive(Clone, PartialEq, Eq)]
pub struct Compiled {
    pub(crate) component: String,
    pub(crate) engine: EngineId,
    pub(crate) code: Vec<u8>,
}

#[cfg(feature = "compiler")]
impl Compiled {
    /// Identity of the component it was made from: `"sha256:<hex>"`.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// The code, as the engine's own file format.
    pub fn code(&self) -> &[u8] {
        &self.code
    }
}

#[cfg(feature = "compiler")]
impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiled")
            .field("component", &self.component)
            .field("bytes", &self.code.len())
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "compiler")]
impl Sandbox {
    /// Audits a component and makes native code of it, in this process: nothing bounds the compiler but the file's size. No guest code
    /// runs, and whether the component fits the contract shows when it is loaded. For files nobody vouches for there is
    /// [`compile_in_child`](Self::compile_in_child).
    ///
    /// # Errors
    /// When the file is too large, no component, damaged, or imports anything but the contract.
    pub fn compile(&self, name: &str, component: &[u8]) -> Result<Compiled, LoadError> {
        let digest = self.audit(name, component)?;
        let code = self
            .shared
            .engine
            .precompile_component(component)
            .map_err(|e| invalid(name, &e))?;
        Ok(Compiled {
            component: digest,
            engine: self.shared.id,
            code,
        })
    }

    /// Loads and type-checks a component from its native code. No guest code runs. `name` is only used in messages.
    ///
    /// # Errors
    /// When another engine made the code, or the component does not fit the contract.
    pub fn load_compiled(&self, name: &str, compiled: &Compiled) -> Result<Adapter, LoadError> {
        let refused = |reason: String| LoadError::Code {
            adapter: name.into(),
            reason,
        };
        if compiled.engine != self.shared.id {
            return Err(refused(
                "another version of the engine made it, or one with other settings or for another processor".into(),
            ));
        }
        let component = deserialize(&self.shared.engine, &compiled.code)
            .map_err(|e| refused(plain(&format!("{e:#}"), MAX_REASON)))?;
        self.shared
            .bind(name, compiled.component.clone(), &component)
    }
}

#[allow(
    unsafe_code,
    reason = "the engine has no safe way to take native code that was compiled before; see above for what may come here"
)]
pub(crate) fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes have to be what `Engine::precompile_component` gave. There are two callers. One has a `Compiled`, which is only
    // made from that function's answer, here or in a process of this same executable, or from a cache file in the agent's own directory
    // that carries our header with the digest of every byte; its engine is this one, the ids were compared. The other has checked that
    // somebody whom the operator trusts with native code signed every byte, and that release and settings of the engine are these.
    unsafe { Component::deserialize(engine, code) }
}

/// The id of an engine.
#[cfg(feature = "compiler")]
pub(crate) fn id(engine: &Engine) -> EngineId {
    let mut bytes = Bytes(Context::new(&SHA256));
    engine.precompile_compatibility_hash().hash(&mut bytes);
    let digest = bytes.0.finish();
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The release of the engine, `48.0.8`. The engine tells it to a hasher only, as part of every engine's id.
pub(crate) fn engine_version() -> String {
    struct Text(Vec<u8>);
    impl Hasher for Text {
        fn write(&mut self, bytes: &[u8]) {
            self.0.extend(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut text = Text(Vec::new());
    ModuleVersionStrategy::WasmtimeVersion.hash(&mut text);
    // A string is hashed with an end mark that is no text.
    text.0.retain(u8::is_ascii_graphic);
    String::from_utf8_lossy(&text.0).into_owned()
}

/// What is hashed, into a digest that nobody can make collide.
#[cfg(feature = "compiler")]
struct Bytes(Context);

#[cfg(feature = "compiler")]
impl Hasher for Bytes {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Nobody asks: the digest is taken from within.
    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(all(test, feature = "compiler"))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use wasmtime::Config;

    use super::*;
    use crate::Limits;
    use crate::sandbox::engine;

    #[test]
    fn the_version_is_that_of_the_lock_file() {
        let lock = include_str!("../../../Cargo.lock");
        let entry = format!("name = \"wasmtime\"\nversion = \"{}\"", engine_version());
        assert!(lock.contains(&entry), "{entry}");
    }

    #[test]
    fn an_id_is_the_same_for_the_same_engine_and_another_for_other_settings_or_another_processor() {
        let ours = id(&engine(&Limits::default()).unwrap());
        assert_eq!(ours, id(&engine(&Limits::default()).unwrap()));
        let other = Engine::new(Config::new().consume_fuel(true)).unwrap();
        assert_ne!(ours, id(&other));

        let (plain, fewer) = (Config::new(), other_processor());
        assert_ne!(
            id(&Engine::new(&plain).unwrap()),
            id(&Engine::new(&fewer).unwrap()),
            "a processor without AVX2"
        );
    }

    /// The engine's settings for a processor that lacks something ours has.
    #[allow(unsafe_code, reason = "no code is compiled with it")]
    fn other_processor() -> Config {
        let mut config = Config::new();
        let flag = if cfg!(target_arch = "x86_64") {
            "has_avx2"
        } else {
            "has_lse"
        };
        // SAFETY: this could only make wrong code, and none is made.
        unsafe { config.cranelift_flag_set(flag, "false") };
        config
    }
}
