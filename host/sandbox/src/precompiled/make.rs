//! The side that has the compiler.

use super::format::Head;
use super::{SETTINGS, Target};
use crate::compiled::engine_version;
use crate::failure::LoadError;
use crate::limits::Limits;
use crate::sandbox::{Sandbox, engine_for, invalid};

/// Audits and type-checks a component and makes the file for a host that has no compiler. The file proves nothing until it is signed: a
/// minisign signature of all its bytes, see [`Sandbox::load_signed`]. `name` is only used in messages.
///
/// Compiles twice, in this process, without limits: for machines of those who build adapters.
///
/// # Errors
/// As for [`Sandbox::load`], and when the engine cannot make code for the target.
pub fn precompile(name: &str, component: &[u8], target: Target) -> Result<Vec<u8>, LoadError> {
    let unable = |what: String| LoadError::Code {
        adapter: name.into(),
        reason: what,
    };
    if !cfg!(feature = "cross") && target != Target::host() && target != Target::Pulley64 {
        return Err(LoadError::NoBackend {
            adapter: name.into(),
            target,
        });
    }
    let limits = Limits::default();
    // What does not fit the contract is found here, and not on the device.
    let adapter = Sandbox::new(limits.clone())
        .map_err(|e| unable(e.to_string()))?
        .load(name, component)?;
    let engine = engine_for(&limits, Some(target)).map_err(|e| unable(e.to_string()))?;
    let code = engine
        .precompile_component(component)
        .map_err(|e| invalid(name, &e))?;
    let head = Head::of(
        adapter.digest().into(),
        engine_version(),
        SETTINGS,
        target.word().into(),
        &code,
    );
    Ok(head.join(&code))
}
