//! Measures the budgets of the design: the agent beside the floor and beside others, in one run on one machine: `cargo xtask bench`.
//!
//! Times of one machine say nothing about another, and little about the same one tomorrow. So all contestants take turns, and what
//! counts is the median of the ratios of neighbouring runs, with their spread. A contestant that fails gives no ratio, and the run
//! ends with an error; the other rows are measured and told all the same. What is no time (bytes, memory, fuel) is told as it is.
#![allow(
    clippy::cast_precision_loss,
    reason = "counts of a measurement, far below 2^53, become numbers for people"
)]

mod agent;
mod artifact;
mod client;
mod code;
mod contest;
mod devices;
mod machine;
mod peers;
mod proc;
mod readme;
mod rows;
mod show;
mod stats;
mod table;
mod timed;
mod unit;

use std::any::Any;
use std::error::Error;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand, ValueEnum};
use otahost_lab::machine::target_dir;
use serde_json::json;

use machine::Machine;
use table::{Line, Missing, Row};
use unit::Unit;

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
    /// Its heading in the table.
    fn title(self) -> &'static str {
        match self {
            Which::Install => "A signed image into a slot, verified and synced",
            Which::Resume => "A line that breaks half-way",
            Which::Step => "One step in a fresh instance",
            Which::Command => "MQTT command, durable commit, reply",
            Which::Rate => "Steps with durable commits, as many as go",
            Which::Swap => "Another version of an adapter at 1,000 messages a second",
            Which::Start => "From start to ready",
            Which::Memory => "Idle memory, adapters from the cache",
            Which::Emus => "Many devices behind one",
            Which::Wear => "Wear of the flash",
            Which::Sizes => "The program, stripped",
        }
    }

    /// The word that `--only` takes.
    fn word(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn measure(self, quick: bool) -> Result<Vec<Line>, Failed> {
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

    /// The row, whatever becomes of it: what ends one loses no other.
    fn row(self, quick: bool) -> Row {
        let start = Instant::now();
        let measured = catch_unwind(AssertUnwindSafe(|| {
            self.measure(quick).map_err(|e| e.to_string())
        }))
        .unwrap_or_else(|panic| Err(said(&*panic)));
        let lines = measured.unwrap_or_else(|why| {
            let failed = Err(Missing::Failed(why));
            vec![Line::of("the whole row", Unit::Count, failed)]
        });
        Row {
            name: self.word(),
            title: self.title(),
            lines,
            took: start.elapsed().as_secs_f64(),
        }
    }
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("a panic: {}", text.unwrap_or_default())
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
    // Gone at the end of the run, as every other temporary directory.
    let _cache = agent::keep_cache()?;
    let asked = |which: &&Which| arguments.only.is_empty() || arguments.only.contains(which);
    let asked: Vec<&Which> = Which::value_variants().iter().filter(asked).collect();
    let (start, count) = (Instant::now(), asked.len());
    let mut rows = Vec::new();
    for (n, which) in (1..).zip(asked) {
        let so_far = start.elapsed().as_secs_f64();
        eprintln!("{n} of {count}: {}, after {so_far:.0} s", which.word());
        rows.push(which.row(arguments.quick));
        if let Some(row) = rows.last() {
            println!("{}", show::text(row));
        }
        // After every row, so that a run that does not come to its end was not for nothing.
        write_json(arguments.quick, &machine, &rows)?;
    }
    let table = readme::table(&machine, &rows);
    fs::write(json_path().with_extension("md"), &table)?;
    println!(
        "{:.0} s in all; everything is in {}, the table beside it in bench.md",
        start.elapsed().as_secs_f64(),
        json_path().display()
    );
    if arguments.readme {
        readme::write(&table)?;
    }
    let broken: Vec<&str> = rows
        .iter()
        .filter(|r| r.failed())
        .map(|r| &*r.name)
        .collect();
    if !broken.is_empty() {
        return Err(format!(
            "not everything ran: see what FAILED in {}",
            broken.join(", ")
        )
        .into());
    }
    Ok(())
}

fn json_path() -> PathBuf {
    target_dir().join("bench.json")
}

fn write_json(quick: bool, machine: &Machine, rows: &[Row]) -> Result<(), Failed> {
    let rows: Vec<_> = rows.iter().map(Row::json).collect();
    let report = json!({ "quick": quick, "machine": machine.json(), "rows": rows });
    fs::write(json_path(), serde_json::to_vec_pretty(&report)?)?;
    Ok(())
}
