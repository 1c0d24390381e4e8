//! The project's own commands: `cargo xtask demo` and `cargo xtask test` do everything on a fresh machine, set-up included.
//!
//! It knows no crate of the workspace, so that it builds in seconds and can build the others.

mod setup;
mod slim;
mod stage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use stage::{Failed, Show, Stages};

/// The rows of `bench` that look at the builds of `slim`.
const SLIM_ROWS: [&str; 2] = ["memory", "sizes"];
/// How often `crash` kills the real agent.
const KILLS: &str = "200";

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
    /// Cut the power of a simulated device at every disk operation of every story, then kill the real agent two hundred times.
    Crash {
        /// Only stories and negative controls in whose names this stands; the real agent is left alone.
        #[arg(long)]
        only: Option<String>,
    },
    /// Build the agent without the compiler, look at its size, and run on it what applies.
    Slim {
        /// Only build it, and one with the interpreter alone, as `bench` measures them.
        #[arg(long)]
        build_only: bool,
    },
    /// Measure against the budgets of the design, side by side with the floor.
    Bench {
        /// Smaller inputs, single runs, programs as they are built for tests: shows that every row runs, not how fast.
        #[arg(long)]
        quick: bool,
        /// Put the table into README.md.
        #[arg(long, conflicts_with_all = ["quick", "only"])]
        readme: bool,
        /// Only this row; may be given more than once.
        #[arg(long, value_name = "ROW")]
        only: Vec<String>,
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
            build_adapters(stages, Show::All)
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
            stages.program("crash, a part", "crash", &["--quick"], Show::All)?;
            // Whether every row of the table runs, and not how fast.
            stages.run("peers", setup::peers)?;
            stages.program("bench, quick", "bench", &["--quick"], Show::All)?;
            // Last, so that cargo's own summary lines stand near the end.
            stages.cargo("tests", &["test", "--workspace"], &[])?;
            stages.summary();
            Ok(())
        }
        Action::Crash { only } => {
            build_programs(stages)?;
            let arguments: Vec<&str> = only.iter().flat_map(|only| ["--only", only]).collect();
            stages.program("crash", "crash", &arguments, Show::All)?;
            if only.is_none() {
                // Of the whole workspace, so that its dependencies have the features that they were built with just now.
                stages.cargo(
                    "the real agent, killed",
                    &[
                        "test",
                        "--workspace",
                        "--test",
                        "kills",
                        "--",
                        "--nocapture",
                    ],
                    &[("OTAHOST_KILLS", KILLS)],
                )?;
            }
            stages.summary();
            Ok(())
        }
        Action::Slim { build_only: true } => slim::builds(stages),
        Action::Slim { build_only: false } => {
            build_programs(stages)?;
            slim::all(stages)
        }
        Action::Bench {
            quick,
            readme,
            only,
        } => bench(stages, *quick, *readme, only),
    }
}

/// Measures: programs as they are shipped, or in a quick run, which is about no number, as they are built for tests.
fn bench(stages: &mut Stages, quick: bool, readme: bool, only: &[String]) -> Result<(), Failed> {
    let mut arguments = Vec::new();
    if quick {
        arguments.push("--quick");
    }
    if readme {
        arguments.push("--readme");
    }
    for row in only {
        arguments.extend(["--only", row]);
    }
    stages.run("peers", setup::peers)?;
    if quick {
        build_programs(stages)?;
        return stages.program("bench", "bench", &arguments, Show::All);
    }
    stages.run("setup", setup::all)?;
    build_adapters(stages, Show::Problems)?;
    stages.cargo(
        "build for release",
        &[
            "build",
            "--release",
            "--package",
            "otahost",
            "--package",
            "otahost-bench",
        ],
        &[],
    )?;
    if only.is_empty() || only.iter().any(|row| SLIM_ROWS.contains(&&**row)) {
        // Without them these rows say what was not measured, and the others are as good.
        if let Err(failed) = slim::builds(stages) {
            eprintln!("\nxtask: {failed}; measuring without it");
        }
    }
    stages.program("bench", "../release/bench", &arguments, Show::All)
}

/// What the demo and the quick benchmarks run. All targets and not only the programs: features are unified over what is built together,
/// and another set would build some dependencies, and all that hangs on them, a second time.
fn build_programs(stages: &mut Stages) -> Result<(), Failed> {
    stages.run("setup", setup::all)?;
    stages.cargo("build", &["build", "--workspace", "--all-targets"], &[])?;
    adapters(stages, Show::Problems)
}

/// Builds the tool that builds adapters, and them.
fn build_adapters(stages: &mut Stages, show: Show) -> Result<(), Failed> {
    // Of the whole workspace, so that its dependencies have the features that the other commands build them with.
    stages.cargo(
        "build the adapter tool",
        &["build", "--workspace", "--bin", "adapter"],
        &[],
    )?;
    adapters(stages, show)
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
    // Further releases of the same adapters, for tests and the demo: they are taken while another one runs.
    type Variables<'a> = &'a [(&'a str, &'a str)];
    let releases: [(&str, &str, Variables<'_>); 6] = [
        ("tests/guest", "rogue-next", &[("ROGUE_NEXT", "1")]),
        ("tests/guest", "rogue-back", &[("ROGUE_NEXT", "back")]),
        ("tests/guest", "rogue-greedy", &[("ROGUE_NEXT", "greedy")]),
        ("tests/guest-dji", "dji-1.0.0", &[("DJI_RELEASE", "1.0.0")]),
        ("tests/guest-dji", "dji-1.1.0", &[("DJI_RELEASE", "1.1.0")]),
        (
            "tests/guest-dji",
            "dji-1.2.0",
            &[("DJI_RELEASE", "1.2.0"), ("DJI_TRAPS", "1")],
        ),
    ];
    for (folder, name, variables) in releases {
        let out = format!("target/adapters/{name}.wasm");
        let stage = format!("adapter {folder}, release {name}");
        let arguments = ["build", folder, "--out", &out];
        stages.program_with(&stage, "adapter", &arguments, variables, show)?;
    }
    Ok(())
}
