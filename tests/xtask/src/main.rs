//! The project's own commands: `cargo xtask demo` and `cargo xtask test` do everything on a fresh machine, set-up included.
//!
//! It knows no crate of the workspace, so that it builds in seconds and can build the others.

mod setup;
mod stage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use stage::{Failed, Show, Stages};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Set-up, demo, tests and benchmarks of otahost"
)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Install what the other commands need, or say exactly what to install.
    Setup,
    /// Build the adapters into target/adapters.
    Adapters,
    /// Update a machine that reboots into the new version, before your eyes.
    Demo,
    /// Everything that has to hold: format, build, lints, documentation, tests.
    Test,
    /// Measure against the budgets of the design, side by side with the floor.
    Bench {
        /// Smaller inputs, fewer runs: shows that it works, not how fast it is.
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut stages = Stages::new();
    match run(&arguments.command, &mut stages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            stages.summary();
            eprintln!("\nxtask: {failed}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: &Action, stages: &mut Stages) -> Result<(), Failed> {
    match action {
        Action::Setup => stages.run("setup", setup::all),
        Action::Adapters => {
            stages.run("setup", setup::adapters)?;
            // Of the whole workspace, so that its dependencies have the features that the other commands build them with.
            stages.cargo(
                "build the adapter tool",
                &["build", "--workspace", "--bin", "adapter"],
                &[],
            )?;
            adapters(stages, Show::All)
        }
        Action::Demo => {
            build_programs(stages)?;
            stages.program("demo", "demo", &[], Show::All)
        }
        Action::Test => {
            stages.run("setup", setup::all)?;
            stages.cargo("format", &["fmt", "--all", "--check"], &[])?;
            stages.cargo("build", &["build", "--workspace", "--all-targets"], &[])?;
            adapters(stages, Show::All)?;
            stages.cargo(
                "lints",
                &[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--",
                    "-D",
                    "warnings",
                ],
                &[],
            )?;
            stages.cargo(
                "documentation",
                &["doc", "--workspace", "--no-deps"],
                &[("RUSTDOCFLAGS", "-D warnings")],
            )?;
            // The demo is the main job on real input: it must hold wherever the tests do.
            stages.program("demo", "demo", &[], Show::All)?;
            // Last, so that cargo's own summary lines stand near the end.
            stages.cargo("tests", &["test", "--workspace"], &[])?;
            stages.summary();
            Ok(())
        }
        Action::Bench { quick } => {
            build_programs(stages)?;
            let arguments: &[&str] = if *quick { &["--quick"] } else { &[] };
            stages.program("bench", "bench", arguments, Show::All)
        }
    }
}

/// What the demo and the benchmarks run. All targets and not only the programs: features are unified over what is built together,
/// and another set would build some dependencies, and all that hangs on them, a second time.
fn build_programs(stages: &mut Stages) -> Result<(), Failed> {
    stages.run("setup", setup::all)?;
    stages.cargo("build", &["build", "--workspace", "--all-targets"], &[])?;
    adapters(stages, Show::Problems)
}

/// Builds the shipped adapter and the one that tests break things with.
fn adapters(stages: &mut Stages, show: Show) -> Result<(), Failed> {
    for folder in [
        "plugins/dji",
        "plugins/kit112",
        "plugins/withnox",
        "plugins/wudun",
        "tests/guest",
    ] {
        let stage = format!("adapter {folder}");
        stages.program(&stage, "adapter", &["build", folder], show)?;
    }
    // The next release of the same adapter, for tests that take it while the first one runs.
    let next = [
        "build",
        "tests/guest",
        "--out",
        "target/adapters/rogue-next.wasm",
    ];
    stages.program_with(
        "adapter tests/guest, next release",
        "adapter",
        &next,
        &[("ROGUE_NEXT", "1")],
        show,
    )
}
