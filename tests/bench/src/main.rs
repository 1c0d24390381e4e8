//! Measures the budgets of the design as ratios to a floor, both sides in one run on one machine: `cargo xtask bench`.
//!
//! Times of one machine say nothing about another, and little about the same one tomorrow. So both contestants take turns, and what
//! is printed is the median of the ratios of neighbouring runs, with their spread. A contestant that fails gives no ratio.

mod emus;
mod floor;
mod glue;
mod ours;
mod ratio;
mod slot;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use otahost_lab::machine::target_dir;
use serde_json::json;

#[derive(Debug, Parser)]
#[command(
    name = "bench",
    about = "Measures the budgets of the design, side by side with the floor"
)]
struct Arguments {
    /// Smaller inputs, fewer runs: shows that it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Measures this row alone
    #[arg(long)]
    only: Option<Only>,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// An artifact into a slot.
    Slot,
    /// Many devices behind one.
    Emus,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let wanted = |row| arguments.only.is_none_or(|only| only == row);
    let mut rows = Vec::new();
    if wanted(Only::Slot) {
        let row = slot::measure(arguments.quick)?;
        println!("{}", row.text());
        rows.push(row.json());
    }
    if wanted(Only::Emus) {
        let row = emus::measure(arguments.quick)?;
        println!("{}", row.text());
        rows.push(row.json());
    }
    let path = target_dir().join("bench.json");
    std::fs::write(
        &path,
        serde_json::to_vec_pretty(&json!({ "quick": arguments.quick, "rows": rows }))?,
    )?;
    println!("written to {}", path.display());
    Ok(())
}
