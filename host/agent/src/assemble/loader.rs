//! From an adapter's file to an adapter that can run: a component, of which native code is made here, or native code that was made
//! elsewhere and signed.
//!
//! Compiling takes a second on a fast machine and a minute on a slow one, and works on a file somebody else made. So it happens in a
//! process of its own, with limits, and only when the cache does not serve; whichever it was is logged and shown. A build without the
//! compiler takes signed native code alone.

#[cfg(feature = "compiler")]
mod native;

use std::sync::Arc;

use otahost_disk::Disk;
#[cfg(feature = "compiler")]
use otahost_sandbox::ChildFault;
#[cfg(not(feature = "compiler"))]
use otahost_sandbox::Target;
use otahost_sandbox::{
    CodeFault, Limits, LoadError, Loaded, Sandbox, SandboxError, Signers, is_precompiled,
    precompiled_from,
};
use otahost_transfer::header::{HEADER_LEN, Header, HeaderError};

use crate::config::CompilerConfig;

#[cfg(feature = "compiler")]
pub(crate) use native::{COMPILE_CHILD, COMPILED};

/// What an operator can do about a file that does not load.
pub(super) fn advice(error: &LoadError) -> &'static str {
    match error {
        #[cfg(feature = "compiler")]
        LoadError::Compiler { fault, .. } => match fault {
            ChildFault::Memory(_) => "`compiler.memory` sets this limit",
            ChildFault::CpuTime(_) => "`compiler.cpu` sets this limit",
            ChildFault::WallClock(_) => "`compiler.time` sets this limit",
            fault if fault.may_pass() => "try again",
            _ => "build it anew with `adapter build`",
        },
        // They say it themselves.
        LoadError::NoCompiler { .. } | LoadError::Precompiled { .. } => {
            "host/agent/README.md has the steps, below \"Without a compiler\""
        }
        _ => "build it anew with `adapter build`",
    }
}

/// Loads adapters. Cloning is cheap and shares everything.
#[derive(Debug, Clone)]
pub struct Loader {
    sandbox: Sandbox,
    signers: Signers,
    #[cfg(feature = "compiler")]
    native: native::Native,
    /// What is loaded is to run, so where its code came from is worth a line.
    tells: bool,
}

impl Loader {
    /// Starts the sandbox. Components are compiled in processes of this executable, which has to be the agent's, and nothing is kept.
    ///
    /// # Errors
    /// This host cannot run WebAssembly.
    pub fn new() -> Result<Loader, SandboxError> {
        Ok(Loader {
            sandbox: Sandbox::new(Limits::default())?,
            signers: Signers::default(),
            #[cfg(feature = "compiler")]
            native: native::Native::new(),
            tells: false,
        })
    }

    /// The same for an agent that runs: with the native code that is kept in this data directory, if it can be opened.
    #[must_use]
    pub fn with_cache(mut self, disk: &Arc<dyn Disk>) -> Loader {
        self.tells = true;
        #[cfg(feature = "compiler")]
        self.native.open_cache(disk);
        #[cfg(not(feature = "compiler"))]
        let _ = disk;
        self
    }

    /// The same with the limits and the trust of this configuration.
    #[must_use]
    pub(super) fn within(&self, config: &CompilerConfig) -> Loader {
        let mut loader = self.clone();
        loader.signers = Signers::new(&config.trust);
        #[cfg(feature = "compiler")]
        loader.native.limit(config);
        loader
    }

    /// Loads a file as this adapter. Blocks: it may have to be compiled.
    ///
    /// # Errors
    /// What makes it no adapter, why nobody trusted has signed it, or the limit that its compilation broke.
    pub(super) fn load(&self, adapter: &str, file: &[u8]) -> Result<Loaded, LoadError> {
        let refused = |fault| LoadError::Precompiled {
            adapter: adapter.into(),
            fault,
        };
        let loaded = match Form::of(file) {
            Ok(Form::Component) => self.load_component(adapter, file)?,
            Ok(Form::Signed { signature, payload }) => {
                self.sandbox
                    .load_signed(adapter, payload, &signature, &self.signers)?
            }
            Ok(Form::Unsigned) => return Err(refused(CodeFault::Unsigned)),
            Err(_) => return Err(refused(CodeFault::NoSignature)),
        };
        if self.tells {
            let digest = loaded.adapter.digest();
            tracing::info!(digest, "adapter {adapter}: {}", loaded.how);
        }
        if let Some(why) = &loaded.not_kept {
            tracing::warn!("adapter {adapter}: the next start compiles it again: {why}");
        }
        Ok(loaded)
    }

    #[cfg(feature = "compiler")]
    fn load_component(&self, adapter: &str, component: &[u8]) -> Result<Loaded, LoadError> {
        self.native.load(&self.sandbox, adapter, component)
    }

    #[cfg(not(feature = "compiler"))]
    fn load_component(&self, adapter: &str, _: &[u8]) -> Result<Loaded, LoadError> {
        Err(LoadError::NoCompiler {
            adapter: adapter.into(),
            target: Target::host().word(),
        })
    }

    /// Removes the native code of a component that nobody needs any more.
    pub(super) fn forget(&self, component: &str) {
        #[cfg(feature = "compiler")]
        self.native.forget(component);
        #[cfg(not(feature = "compiler"))]
        let _ = component;
    }
}

/// What an adapter's file is.
enum Form<'a> {
    /// Anything that is no native code: the audit tells what is no component either.
    Component,
    /// Native code that nobody signed.
    Unsigned,
    /// Something signed.
    Signed {
        signature: String,
        payload: &'a [u8],
    },
}

impl Form<'_> {
    fn of(file: &[u8]) -> Result<Form<'_>, HeaderError> {
        if is_precompiled(file) {
            return Ok(Form::Unsigned);
        }
        let Some((head, payload)) = file.split_first_chunk::<HEADER_LEN>() else {
            return Ok(Form::Component);
        };
        Ok(match Header::parse(head)? {
            None => Form::Component,
            Some(header) => Form::Signed {
                signature: header.signature().text().to_owned(),
                payload,
            },
        })
    }
}

/// The digest of the component that signed native code says it was made from. To be compared with that of the adapter once it is loaded.
/// `None`: the file is no native code, and is known by its own digest.
pub(super) fn made_from(file: &[u8]) -> Option<String> {
    let payload = file.get(HEADER_LEN..)?;
    match Form::of(file) {
        Ok(Form::Signed { .. }) => precompiled_from(payload),
        _ => None,
    }
}
