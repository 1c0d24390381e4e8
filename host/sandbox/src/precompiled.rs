//! Native code that was made elsewhere, and signed by somebody whom the operator trusts with this device.
//!
//! A device with little room has no compiler: what it runs is compiled on a machine that has one, after the same audit. The file is
//! native code, and whoever could slip in another would own the device; so nothing of it is looked at, and nothing ever run, before
//! a trusted signature of all its bytes has been checked, here and nowhere else. What is signed covers the component's identity, so
//! that an adapter is known by the same digest on every device, and the release and settings of the engine that the code was made
//! for: only the very same may run it, because a step has to be the same everywhere.

mod format;
#[cfg(feature = "compiler")]
mod make;
mod signers;

use std::fmt;

use crate::compiled::{deserialize, engine_version};
use crate::failure::LoadError;
use crate::how::{How, Loaded};
use crate::sandbox::Sandbox;
use crate::text::plain;

use self::format::Head;
#[cfg(feature = "compiler")]
pub use self::make::precompile;
pub use self::signers::Signers;

/// What the engine's settings are known by in files that outlive a build of the host. Raised with every change of them, or a file that
/// was made before would run differently from one that is made now.
const SETTINGS: u32 = 1;
/// Most bytes of the engine's reason for refusing code.
const MAX_REASON: usize = 1024;

/// What native code can be made for. It uses what every such processor has, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Linux on 64-bit x86.
    X86_64,
    /// Linux on 64-bit ARM.
    Aarch64,
    /// The engine's interpreter on any 64-bit little-endian machine: one file for all, and much slower.
    Pulley64,
}

impl Target {
    /// All there are.
    pub const ALL: [Target; 3] = [Target::X86_64, Target::Aarch64, Target::Pulley64];

    /// The processor that this runs on; the interpreter where no code can be made for it.
    pub fn host() -> Target {
        if cfg!(target_arch = "x86_64") {
            Target::X86_64
        } else if cfg!(target_arch = "aarch64") {
            Target::Aarch64
        } else {
            Target::Pulley64
        }
    }

    /// A target by its word, or by a triple that begins with it: `aarch64-unknown-linux-musl`.
    pub fn parse(text: &str) -> Option<Target> {
        let word = text.split('-').next()?;
        Target::ALL.into_iter().find(|target| target.word() == word)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Target::X86_64 => "x86_64",
            Target::Aarch64 => "aarch64",
            Target::Pulley64 => "pulley64",
        }
    }

    /// True for what this build runs on this processor.
    fn runs_here(self) -> bool {
        match self {
            Target::Pulley64 => cfg!(feature = "interpreter"),
            other => other == Target::host(),
        }
    }

    /// As the engine names it.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Target::X86_64 => "x86_64-unknown-linux-gnu",
            Target::Aarch64 => "aarch64-unknown-linux-gnu",
            Target::Pulley64 => "pulley64",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why a file of native code is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodeFault {
    /// Nobody signed it.
    #[error(
        "it is native code that nobody has signed; sign it with `otahost sign`, and put the public key into `compiler.trust`"
    )]
    Unsigned,
    /// No key is trusted.
    #[error(
        "it is native code, signed by key {0}, and no key is trusted with native code; put the signer's into `compiler.trust`"
    )]
    NoSigners(String),
    /// Another key signed it.
    #[error(
        "it is native code, signed by key {0}, which is not among those trusted with it; have it signed by one in `compiler.trust`"
    )]
    Stranger(String),
    /// The signature is not of these bytes.
    #[error(
        "its signature by key {0} does not fit: the file was changed, or is not whole; fetch it again"
    )]
    Signature(String),
    /// The signature cannot be read.
    #[error("its signature cannot be read; sign it again with `otahost sign`")]
    NoSignature,
    /// What is signed is something else.
    #[error(
        "what is signed is no native code made by `otahost compile`; name an adapter's component, or sign what `otahost compile` makes"
    )]
    NotCode,
    /// The file's form is another release's, or it is not well made.
    #[error("it cannot be read ({0}); compile it again with this release of otahost")]
    Form(String),
    /// Another release of the engine made it.
    #[error(
        "it was made by wasmtime {made}, and this otahost has wasmtime {ours}; compile it again with this release of otahost"
    )]
    OtherEngine {
        /// What made it.
        made: String,
        /// What runs here.
        ours: String,
    },
    /// It was made with other settings.
    #[error(
        "it was made by a release of otahost whose engine has other settings; compile it again with this release"
    )]
    OtherSettings,
    /// It is for another processor.
    #[error(
        "it was made for {made}, and this device is {ours}; compile it with `otahost compile --for {ours}`"
    )]
    OtherTarget {
        /// What it was made for.
        made: String,
        /// What this is.
        ours: &'static str,
    },
    /// The engine does not take it.
    #[error("the engine refuses it: {0}; compile it again with this release of otahost")]
    Refused(String),
}

/// True for a file that `otahost compile` made, or that begins like one. Says nothing of who made it.
pub fn is_precompiled(file: &[u8]) -> bool {
    format::begins(file)
}

/// The digest of the component a file of native code says it was made from: `"sha256:<hex>"`. Not to be believed before
/// [`Sandbox::load_signed`].
pub fn precompiled_from(file: &[u8]) -> Option<String> {
    Head::split(file).ok().map(|(head, _)| head.component)
}

impl Sandbox {
    /// Checks the signature of a file that [`precompile`] made, a minisign signature text, and then loads and type-checks it. No guest
    /// code runs. `name` is only used in messages.
    ///
    /// # Errors
    /// When no trusted key signed exactly these bytes, when they were made for another engine or processor, or when the component does
    /// not fit the contract.
    pub fn load_signed(
        &self,
        name: &str,
        file: &[u8],
        signature: &str,
        signers: &Signers,
    ) -> Result<Loaded, LoadError> {
        let refused = |fault| LoadError::Precompiled {
            adapter: name.into(),
            fault,
        };
        // First, and before anything of the file is looked at.
        let key = signers.verify(file, signature).map_err(refused)?;
        if !format::begins(file) {
            return Err(refused(CodeFault::NotCode));
        }
        let (head, code) = Head::split(file).map_err(|what| refused(CodeFault::Form(what)))?;
        if head.engine != engine_version() {
            return Err(refused(CodeFault::OtherEngine {
                made: plain(&head.engine, 40),
                ours: engine_version(),
            }));
        }
        if head.settings != SETTINGS {
            return Err(refused(CodeFault::OtherSettings));
        }
        let target = match Target::parse(&head.target) {
            Some(target) if target.runs_here() => target,
            _ => {
                return Err(refused(CodeFault::OtherTarget {
                    made: plain(&head.target, 40),
                    ours: Target::host().word(),
                }));
            }
        };
        let taken = |e: String| refused(CodeFault::Refused(plain(&e, MAX_REASON)));
        let shared = self.shared_for(target).map_err(|e| taken(e.to_string()))?;
        let component = deserialize(&shared.engine, code).map_err(|e| taken(format!("{e:#}")))?;
        Ok(Loaded {
            adapter: shared.bind(name, head.component, &component)?,
            how: How::Signed { target, key },
            not_kept: None,
        })
    }
}

#[cfg(all(test, feature = "compiler"))]
mod tests;
