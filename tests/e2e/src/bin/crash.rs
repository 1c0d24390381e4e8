//! `cargo xtask crash`: every story, with the power cut at every disk operation; and every control, which has to be found.
//!
//! The table it prints is the claim of the design's last budget: nothing lost, no bad slot booted, no job forgotten.
#![allow(clippy::unwrap_used, reason = "a test program")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use otahost_disk::sim::{Controls, Loss};
use otahost_e2e::sim::scenarios::{self, Entry, controls};
use otahost_e2e::sim::{Found, Scenario, Search, sample};

/// Stories of the short search.
const QUICK: [&str; 3] = ["ota_create, resumed", "two updates", "adapter update"];
/// Seeded disks of the short search.
const QUICK_SEEDED: usize = 500;
/// Second cuts in a recovery, of each story.
const TWICE: usize = 60;
/// What fails is shown so often.
const SHOWN: usize = 3;

#[derive(Debug, Parser)]
#[command(
    name = "crash",
    about = "Cuts the power of a simulated device at every disk operation"
)]
struct Arguments {
    /// All dropped and all kept on three stories, and 500 seeded disks.
    #[arg(long)]
    quick: bool,
    /// Only stories and controls in whose names this stands.
    #[arg(long, default_value = "")]
    only: String,
    /// Threads; otherwise one for each core.
    #[arg(long)]
    workers: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = arguments.workers.unwrap_or(cores).max(1);
    let start = Instant::now();
    let mut table = Table::new(workers);
    if arguments.quick {
        quick(&mut table);
    } else {
        for entry in &scenarios::ALL {
            if entry.name.contains(&arguments.only) {
                table.story(entry);
            }
        }
        table.sum();
        table.controls(&arguments.only);
    }
    println!("\n{:.0} s in all", start.elapsed().as_secs_f64());
    if table.failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn quick(table: &mut Table) {
    println!(
        "A part of `cargo xtask crash`: what was not synced all dropped and all kept, at every disk operation of {} stories, \
         and {QUICK_SEEDED} seeded disks.\n",
        QUICK.len()
    );
    table.head();
    let entries: Vec<&Entry> = scenarios::ALL
        .iter()
        .filter(|entry| QUICK.contains(&entry.name))
        .collect();
    let seeded = QUICK_SEEDED.div_ceil(entries.len());
    for (entry, seed) in entries.into_iter().zip(1..) {
        let began = Instant::now();
        let scenario = (entry.make)();
        let found = scenario.search(table.how(), |operations| {
            let mut points = every(operations, entry.stride, |_| {
                vec![Loss::AllDropped, Loss::AllKept]
            });
            points.extend(sample(operations, seeded, seed));
            points
        });
        table.line(&scenario, &found, 0, began);
    }
    table.sum();
}

/// Every `stride`-th operation, in these ways of losing.
fn every(
    operations: usize,
    stride: usize,
    losses: impl Fn(u64) -> Vec<Loss>,
) -> Vec<(usize, Loss)> {
    let cuts = (0..=operations).step_by(stride);
    cuts.flat_map(|cut| losses(cut as u64).into_iter().map(move |loss| (cut, loss)))
        .collect()
}

/// All the ways of losing.
fn modes(cut: u64) -> Vec<Loss> {
    vec![
        Loss::AllDropped,
        Loss::AllKept,
        Loss::NamesKept,
        Loss::Torn(cut),
        Loss::Seeded(2 * cut),
        Loss::Seeded(2 * cut + 1),
    ]
}

/// What was found, printed as it is found.
struct Table {
    workers: usize,
    failed: bool,
    head_is_there: bool,
    sums: [usize; 4],
    seconds: f64,
}

impl Table {
    fn new(workers: usize) -> Self {
        Table {
            workers,
            failed: false,
            head_is_there: false,
            sums: [0; 4],
            seconds: 0.0,
        }
    }

    fn how(&self) -> Search {
        Search {
            workers: self.workers,
            ..Search::default()
        }
    }

    fn head(&mut self) {
        self.head_is_there = true;
        println!(
            "{:<28} {:>10} {:>8} {:>8} {:>11} {:>8} {:>7}",
            "story", "cut points", "disks", "runs", "second cuts", "seconds", "failed"
        );
    }

    fn story(&mut self, entry: &Entry) {
        if !self.head_is_there {
            println!(
                "Ways of losing what was not synced: all dropped, all kept, names kept and contents dropped, the last write torn at a \
                 sector, two seeded subsets.\n"
            );
            self.head();
        }
        let began = Instant::now();
        let scenario = (entry.make)();
        self.check_course(&scenario);
        let mut found = scenario.search(self.how(), |operations| {
            every(operations, entry.stride, modes)
        });
        let twice = scenario.search_twice(self.workers, TWICE, 1);
        found.failures.extend(twice.failures);
        self.line(&scenario, &found, twice.runs, began);
    }

    /// The same story takes the same course.
    fn check_course(&mut self, scenario: &Scenario) {
        let [first, second] = [0, 1].map(|_| scenario.record(Controls::default()).0.disk.log());
        let differs = first.iter().zip(&second).position(|(a, b)| a != b);
        if differs.is_some() || first.len() != second.len() {
            self.failed = true;
            println!(
                "{}: two runs took different courses: operation {differs:?} of {} and {}",
                scenario.name,
                first.len(),
                second.len()
            );
        }
    }

    fn line(&mut self, scenario: &Scenario, found: &Found, twice: usize, began: Instant) {
        let seconds = began.elapsed().as_secs_f64();
        let failures = found.failures.len();
        println!(
            "{:<28} {:>10} {:>8} {:>8} {:>11} {:>8.1} {:>7}",
            scenario.name,
            found.operations + 1,
            found.images,
            found.runs,
            twice,
            seconds,
            failures
        );
        for failure in found.failures.iter().take(SHOWN) {
            println!("    {failure}");
        }
        self.failed |= failures > 0;
        let numbers = [found.operations + 1, found.images, found.runs, twice];
        for (sum, number) in self.sums.iter_mut().zip(numbers) {
            *sum += number;
        }
        self.seconds += seconds;
    }

    fn sum(&self) {
        let [cuts, images, runs, twice] = self.sums;
        println!(
            "{:<28} {cuts:>10} {images:>8} {runs:>8} {twice:>11} {:>8.1}",
            "in all", self.seconds
        );
    }

    fn controls(&mut self, only: &str) {
        println!(
            "\n{:<50} {:<28} {:>8} {:>8}",
            "left out on purpose", "story", "runs", "seconds"
        );
        let (mut caught, mut all) = (0, 0);
        for control in controls::ALL.iter().filter(|c| c.what.contains(only)) {
            let began = Instant::now();
            let whole = (control.story)();
            if let Err(error) = whole.play().verdict {
                self.failed = true;
                println!("{}: with nothing left out: {error}", whole.name);
                continue;
            }
            let scenario = Scenario {
                broken: control.broken,
                ..whole
            };
            let how = Search {
                until_found: true,
                ..self.how()
            };
            let found = scenario.search(how, |operations| every(operations, 1, modes));
            all += 1;
            let seconds = began.elapsed().as_secs_f64();
            println!(
                "{:<50} {:<28} {:>8} {:>8.1}",
                control.what, scenario.name, found.runs, seconds
            );
            match found.failures.first() {
                Some(failure) => {
                    caught += 1;
                    println!(
                        "    found: {}",
                        failure.chars().take(200).collect::<String>()
                    );
                }
                None => {
                    self.failed = true;
                    println!("    NOT FOUND");
                }
            }
        }
        println!("{caught} of {all} controls found");
    }
}
