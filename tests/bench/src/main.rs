//! Measures the budgets of the design: the agent beside the floor and beside others, in one run on one machine: `cargo xtask bench`.
//!
//! Times of one machine say nothing about another, and little about the same one tomorrow. So all contestants take turns, and what
//! counts is the median of the ratios of neighbouring runs, with their spread. A contestant that fails gives no ratio, and the run
//! ends with an error. What is no time (bytes, memory, fuel) is told as it is.
#![allow(
    clippy::cast_precision_loss,
    reason = "counts of a measurement, far below 2^53, become numbers for people"
)]

mod agent;
mod artifact;
mod client;
mod contest;
mod devices;
mod machine;
mod peers;
mod proc;
mod readme;
mod rows;
mod stats;
mod table;
mod timed;

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand, ValueEnum};
use otahost_lab::machine::target_dir;
use serde_json::json;

use machine::Machine;
use table::Row;

/// Why there is no row.
pub(crate) type Failed = Box<dyn Error>;

#[derive(Debug, Parser)]
#[command(
    name = "bench",
    about = "Measures the budgets of the design, side by side with the floor and with others"
)]
struct Arguments {
    /// Smaller inputs, one run of each: shows that every row runs, not how fast
    #[arg(long)]
    quick: bool,
    /// Measures these rows alone
    #[arg(long, value_name = "ROW")]
    only: Vec<Which>,
    /// Puts the table into README.md; only of a whole run
    #[arg(long, conflicts_with_all = ["quick", "only"])]
    readme: bool,
    #[command(subcommand)]
    contestant: Option<Contestant>,
}

/// What the harness runs as processes of their own.
#[derive(Debug, Subcommand)]
enum Contestant {
    /// Our side of an installation.
    #[command(hide = true)]
    Install {
        /// What to do, as JSON.
        order: String,
    },
    /// The handler without a sandbox.
    #[command(hide = true)]
    Native {
        /// What to do, as JSON.
        order: String,
    },
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// An image into a slot, beside others.
    Install,
    /// A transfer that is cut and goes on.
    Resume,
    /// One step of each adapter.
    Step,
    /// Command, commit, reply.
    Command,
    /// As many steps as go.
    Rate,
    /// Another version of an adapter under load.
    Swap,
    /// From start to ready.
    Start,
    /// Memory when idle.
    Memory,
    /// Many devices behind one.
    Emus,
    /// Bytes and syncs to the disk.
    Wear,
    /// The binary.
    Sizes,
}

impl Which {
    fn measure(self, quick: bool) -> Result<Row, Failed> {
        let row = match self {
            Which::Install => rows::install::measure,
            Which::Resume => rows::resume::measure,
            Which::Step => rows::step::measure,
            Which::Command => rows::command::measure,
            Which::Rate => rows::rate::measure,
            Which::Swap => rows::swap::measure,
            Which::Start => rows::start::measure,
            Which::Memory => rows::memory::measure,
            Which::Emus => rows::emus::measure,
            Which::Wear => rows::wear::measure,
            Which::Sizes => rows::sizes::measure,
        };
        row(quick)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.contestant {
        Some(Contestant::Install { order }) => peers::ours::child(order),
        Some(Contestant::Native { order }) => peers::native::child(order),
        None => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failed> {
    let machine = Machine::this();
    println!("{}\n", machine.text());
    let mut rows = Vec::new();
    let mut broken = Vec::new();
    for which in Which::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(which) {
            continue;
        }
        let start = Instant::now();
        eprintln!("{which:?}");
        match which.measure(arguments.quick) {
            Ok(row) => {
                if row.failed() {
                    broken.push(format!("{which:?}: a contestant failed"));
                }
                println!("{}", row.text());
                rows.push(row);
            }
            // The others shall be seen all the same.
            Err(error) => broken.push(format!("{which:?}: {error}")),
        }
        eprintln!("  {:.1} s\n", start.elapsed().as_secs_f64());
    }
    let path = target_dir().join("bench.json");
    let all: Vec<_> = rows.iter().map(Row::json).collect();
    let report = json!({ "quick": arguments.quick, "machine": machine.json(), "rows": all, "broken": broken });
    std::fs::write(&path, serde_json::to_vec_pretty(&report)?)?;
    println!("written to {}", path.display());
    if !broken.is_empty() {
        return Err(format!("not everything ran:\n  {}", broken.join("\n  ")).into());
    }
    if arguments.readme {
        readme::write(&machine, &rows)?;
    }
    Ok(())
}
