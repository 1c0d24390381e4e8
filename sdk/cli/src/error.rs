//! Why a build came to nothing, and the exit code that says so to scripts.

use std::path::PathBuf;

/// Why an adapter was not built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or program of this machine refused.
    #[error("cannot {what}")]
    Machine {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The folder holds no `Cargo.toml`.
    #[error("{} has no Cargo.toml; name the folder of an adapter's crate", .0.display())]
    NoManifest(PathBuf),
    /// cargo cannot read the manifest.
    #[error("cargo cannot read {}: {said}", manifest.display())]
    BadManifest {
        /// The file.
        manifest: PathBuf,
        /// What cargo said.
        said: String,
    },
    /// The manifest is that of a workspace, without a package of its own.
    #[error("{} is a workspace, not a crate; name one of its adapters: {}", manifest.display(), .adapters.join(", "))]
    Workspace {
        /// The file.
        manifest: PathBuf,
        /// Folders of members that build a `cdylib`.
        adapters: Vec<String>,
    },
    /// The crate is no dynamic library.
    #[error("crate {name} is no `cdylib`, so no component comes of it; add to {}:\n\n    [lib]\n    crate-type = [\"rlib\", \"cdylib\"]\n", manifest.display())]
    NotCdylib {
        /// Name of the crate.
        name: String,
        /// The file to change.
        manifest: PathBuf,
    },
    /// The crate compiles and exports no adapter.
    #[error(
        "the crate registers no adapter; write `otahost_adapter::register!(YourType);` once, at the top level of its lib.rs"
    )]
    NoAdapter,
    /// No toolchain can compile to WebAssembly.
    #[error("no compiler here can build for wasm32-unknown-unknown{}\n\nDo one of these:\n    rustup target add wasm32-unknown-unknown\n    apt-get install rustc-web rust-web-src     (Debian 12 or newer, as root)", list(.0))]
    NoToolchain(
        /// What was tried, and why it did not do.
        Vec<String>,
    ),
    /// cargo ended with an error.
    #[error("crate {name} does not compile for WebAssembly{}", tail(.said))]
    Compile {
        /// Name of the crate.
        name: String,
        /// The end of what cargo said, where it was kept back.
        said: String,
    },
    /// The module imports something that no host will ever give.
    #[error("it imports {}, and a component may import `otahost:adapter/*` and nothing else; find the dependency that needs it (often one made for browsers or WASI) and switch that part off", .0.join(", "))]
    ForeignImports(
        /// The imports beyond the contract.
        Vec<String>,
    ),
    /// The module is no WebAssembly, or not of the shape the contract asks for.
    #[error("the compiled module cannot be made a component: {0}")]
    Encode(String),
}

impl Error {
    /// The exit code of the `adapter` tool: 1 machine, 3 project, 4 toolchain, 5 compiler, 6 imports. (2 is a wrong command line.)
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Machine { .. } | Error::Encode(_) => 1,
            Error::NoManifest(_)
            | Error::BadManifest { .. }
            | Error::Workspace { .. }
            | Error::NotCdylib { .. }
            | Error::NoAdapter => 3,
            Error::NoToolchain(_) => 4,
            Error::Compile { .. } => 5,
            Error::ForeignImports(_) => 6,
        }
    }

    /// An error of the machine.
    pub(crate) fn machine(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Machine { what, source }
    }
}

fn list(tried: &[String]) -> String {
    tried.iter().map(|line| format!("\n  - {line}")).collect()
}

fn tail(said: &str) -> String {
    if said.is_empty() {
        "; cargo says above why".to_owned()
    } else {
        format!(":\n{said}")
    }
}
