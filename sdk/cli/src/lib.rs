//! Builds adapters: finds a compiler that can, runs it, encodes the component and audits what it imports. Publishes them: makes the
//! signed repository that devices take new versions from.
//!
//! It is a library too, so that xtask and tests build adapters without starting another program. Only they and the `adapter` tool
//! may: a nested cargo that is started from a build script waits for ever for the target directory that its parent holds.

mod compile;
mod component;
mod error;
mod project;
pub mod publish;
mod toolchain;

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

pub use error::Error;
pub use toolchain::Choice;

/// What to build, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// The folder of the adapter's `Cargo.toml`.
    pub dir: PathBuf,
    /// Where the component goes; `None`: `adapters/<crate>.wasm` in the workspace's target directory.
    pub out: Option<PathBuf>,
    /// Which toolchain may be taken.
    pub toolchain: Choice,
    /// True keeps cargo's own output back; it is then shown only as part of an error.
    pub quiet: bool,
}

impl Request {
    /// Builds the adapter in this folder with whatever toolchain is found, to the usual place, with cargo's output shown.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Request {
            dir: dir.into(),
            out: None,
            toolchain: Choice::Auto,
            quiet: false,
        }
    }
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Built {
    /// Name of the crate.
    pub adapter: String,
    /// Version of the crate.
    pub version: String,
    /// The component.
    pub component: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its identity: `sha256:` and 64 lower-case hexadecimal digits.
    pub digest: String,
    /// The interfaces it imports, all of them `otahost:adapter/...`.
    pub imports: Vec<String>,
    /// The interfaces it exports.
    pub exports: Vec<String>,
    /// The toolchain that was taken, in words.
    pub toolchain: String,
    /// The compiler's version line.
    pub compiler: String,
    /// Where cargo keeps what it built on the way, by compiler.
    pub cache: PathBuf,
    /// Wall-clock time in seconds.
    pub seconds: f64,
}

/// Builds one adapter. `progress` is given a line for people whenever something begins.
///
/// # Errors
/// See [`Error`]; each says what failed, why and what to do. The component of a former build stays untouched then.
pub fn build(request: &Request, progress: &mut dyn FnMut(&str)) -> Result<Built, Error> {
    let begin = Instant::now();
    let project = project::find(&request.dir)?;
    let adapters = project.target_dir.join("adapters");
    let toolchain = toolchain::find(request.toolchain, &project.dir, &adapters, progress)?;
    progress(&format!("toolchain: {toolchain}"));
    let cache = adapters.join(toolchain.key());
    progress(&format!("cache: {}", cache.display()));
    let module = compile::compile(&project, &toolchain, &cache, request.quiet)?;
    let encoded = component::encode(&module)?;
    let out = request
        .out
        .clone()
        .unwrap_or_else(|| adapters.join(format!("{}.wasm", project.name)));
    component::write(&out, &encoded.bytes)?;
    Ok(Built {
        adapter: project.name,
        version: project.version,
        size: encoded.bytes.len() as u64,
        digest: component::digest(&encoded.bytes),
        component: out,
        imports: encoded.imports,
        exports: encoded.exports,
        toolchain: toolchain.to_string(),
        compiler: toolchain.compiler().to_owned(),
        cache,
        seconds: begin.elapsed().as_secs_f64(),
    })
}
