//! The `adapter` tool.

mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use otahost_adapter_cli::publish::{Publish, keygen, publish};
use otahost_adapter_cli::{Choice, Request, build};

/// Builds and publishes adapters of otahost.
#[derive(Parser)]
#[command(name = "adapter", version, about, after_help = BUILD_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile a crate to a component that the agent can load
    #[command(after_help = BUILD_CODES)]
    Build {
        /// Folder of the adapter's Cargo.toml
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Where the component goes [default: adapters/CRATE.wasm in the target directory]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Which toolchain may be taken
        #[arg(long, value_enum, default_value_t = Toolchain::Auto)]
        toolchain: Toolchain,
        /// Print the result as JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// Make the four keys of a repository of adapters
    #[command(after_help = PUBLISH_CODES)]
    Keygen {
        /// Folder for the keys; made where it does not exist
        dir: PathBuf,
        /// Print the result as JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// Sign components into a repository that devices take new versions from
    ///
    /// Serve the folder over https or copy it to a medium. Devices trust one of its metadata/N.root.json, which is shipped with them.
    /// Without components everything there are keys for is signed anew: do that before it expires.
    #[command(after_help = PUBLISH_CODES)]
    Publish {
        /// Folder of the repository; made where it does not exist
        repository: PathBuf,
        /// Components, named as the adapters are on devices: dji.wasm
        #[arg(value_name = "COMPONENT")]
        components: Vec<PathBuf>,
        /// Folder of the keys (`adapter keygen`)
        #[arg(long, value_name = "DIR")]
        keys: PathBuf,
        /// Name of the adapter on devices, where its file is named otherwise; for one component
        #[arg(long)]
        name: Option<String>,
        /// Days until devices stop taking the repository, unless it is published again
        #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        expires: u32,
        /// The same for a root that is made now
        #[arg(long, value_name = "DAYS", default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        root_expires: u32,
        /// The keys of --keys take over from those in this folder; the same folder renews the root alone
        #[arg(long, value_name = "OLD_DIR")]
        root_rotate: Option<PathBuf>,
        /// Print the result as JSON on standard output
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Toolchain {
    /// The first that works, in the order below
    Auto,
    /// The active one, which has the library for WebAssembly already
    Installed,
    /// The active one, after `rustup target add`
    Rustup,
    /// Debian's rustc-web, which builds the library from rust-web-src
    Distribution,
}

impl From<Toolchain> for Choice {
    fn from(toolchain: Toolchain) -> Choice {
        match toolchain {
            Toolchain::Auto => Choice::Auto,
            Toolchain::Installed => Choice::Installed,
            Toolchain::Rustup => Choice::Rustup,
            Toolchain::Distribution => Choice::Distribution,
        }
    }
}

const BUILD_CODES: &str = "\
Exit codes:
  0  the component was built
  1  the machine refused: a file, a program
  2  the command line is wrong
  3  the project is wrong: no Cargo.toml, no cdylib, no register!
  4  no toolchain can build for WebAssembly
  5  the crate does not compile
  6  it imports something beyond otahost:adapter/*
Those of keygen and publish: see their help.";

const PUBLISH_CODES: &str = "\
Exit codes:
  0  done
  1  the machine refused: a file, a folder
  2  the command line is wrong
  7  a component cannot be published: no device would run it
  8  the keys: missing, not those of this repository, or there already
  9  the repository: this version with other content, damaged, full, busy";

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Build {
            dir,
            out,
            toolchain,
            json,
        } => {
            let request = Request {
                out,
                toolchain: toolchain.into(),
                ..Request::new(dir)
            };
            let result = build(&request, &mut progress);
            show::end(result, json, show::built, |e| e.exit_code())
        }
        Command::Keygen { dir, json } => {
            show::end(keygen(&dir), json, show::generated, |e| e.exit_code())
        }
        Command::Publish {
            repository,
            components,
            keys,
            name,
            expires,
            root_expires,
            root_rotate,
            json,
        } => {
            let request = Publish {
                components,
                name,
                expires: days(expires),
                root_expires: days(root_expires),
                rotate_from: root_rotate,
                ..Publish::new(repository, keys)
            };
            let result = publish(&request, &mut progress);
            show::end(result, json, show::published, |e| e.exit_code())
        }
    }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 3600)
}

fn progress(line: &str) {
    eprintln!("{line}");
}
