//! The `adapter` tool.

use std::error::Error as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use otahost_adapter_cli::{Built, Choice, Error, Request, build};

/// Builds adapters of otahost.
#[derive(Parser)]
#[command(name = "adapter", version, about, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile a crate to a component that the agent can load
    #[command(after_help = EXIT_CODES)]
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

const EXIT_CODES: &str = "\
Exit codes:
  0  the component was built
  1  the machine refused: a file, a program
  2  the command line is wrong
  3  the project is wrong: no Cargo.toml, no cdylib, no register!
  4  no toolchain can build for WebAssembly
  5  the crate does not compile
  6  it imports something beyond otahost:adapter/*";

fn main() -> ExitCode {
    let Command::Build {
        dir,
        out,
        toolchain,
        json,
    } = Arguments::parse().command;
    let toolchain = match toolchain {
        Toolchain::Auto => Choice::Auto,
        Toolchain::Installed => Choice::Installed,
        Toolchain::Rustup => Choice::Rustup,
        Toolchain::Distribution => Choice::Distribution,
    };
    let request = Request {
        out,
        toolchain,
        ..Request::new(dir)
    };
    match build(&request, &mut |line| eprintln!("{line}")) {
        Ok(built) if json => match serde_json::to_string(&built) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: the result cannot be written as JSON: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(built) => {
            show(&built);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn show(built: &Built) {
    println!("built      {} {}", built.adapter, built.version);
    println!("component  {}", built.component.display());
    println!("size       {} bytes", built.size);
    println!("digest     {}", built.digest);
    println!("imports    {}", built.imports.join(", "));
    println!("exports    {}", built.exports.join(", "));
    println!("toolchain  {}", built.toolchain);
    println!("time       {:.1} s", built.seconds);
}

/// Outermost first, each cause on a line of its own.
fn tell(error: &Error) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        eprintln!("  because: {inner}");
        cause = inner.source();
    }
}
