//! One thing after another, with the time each took; the first that fails ends the run and is named.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The stage that failed, and why.
#[derive(Debug)]
pub(crate) struct Failed {
    stage: String,
    why: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage \"{}\" failed: {}", self.stage, self.why)
    }
}

/// What of a program's output is for the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// All.
    All,
    /// Standard error only.
    Problems,
}

/// The stages of a run.
#[derive(Debug)]
pub(crate) struct Stages {
    root: PathBuf,
    programs: PathBuf,
    done: Vec<(String, Duration, bool)>,
}

impl Stages {
    pub(crate) fn new() -> Self {
        // Cargo sets the variable for what it runs; without it we were started by hand, in the repository.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let root = manifest
            .as_deref()
            .and_then(|dir| dir.ancestors().nth(2))
            .unwrap_or(Path::new("."))
            .to_path_buf();
        let exe = std::env::current_exe().unwrap_or_default();
        let programs = exe
            .parent()
            .unwrap_or(Path::new("target/debug"))
            .to_path_buf();
        Stages {
            root,
            programs,
            done: Vec::new(),
        }
    }

    /// The repository.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Does one thing.
    pub(crate) fn run(
        &mut self,
        stage: &str,
        work: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), Failed> {
        eprintln!("\n=== {stage}");
        let start = Instant::now();
        let result = work();
        self.done
            .push((stage.to_owned(), start.elapsed(), result.is_ok()));
        result.map_err(|why| Failed {
            stage: stage.to_owned(),
            why,
        })
    }

    /// Runs cargo.
    pub(crate) fn cargo(
        &mut self,
        stage: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<(), Failed> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(arguments)
            .current_dir(&self.root)
            .envs(environment.iter().copied());
        self.run(stage, || finish(command))
    }

    /// Runs a program that was built before.
    pub(crate) fn program(
        &mut self,
        stage: &str,
        name: &str,
        arguments: &[&str],
        show: Show,
    ) -> Result<(), Failed> {
        let mut command = Command::new(self.programs.join(name));
        command.args(arguments).current_dir(&self.root);
        if show == Show::Problems {
            command.stdout(Stdio::null());
        }
        self.run(stage, || finish(command))
    }

    /// The same with these variables in its environment.
    pub(crate) fn program_with(
        &mut self,
        stage: &str,
        name: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
        show: Show,
    ) -> Result<(), Failed> {
        let mut command = Command::new(self.programs.join(name));
        command
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(&self.root);
        if show == Show::Problems {
            command.stdout(Stdio::null());
        }
        self.run(stage, || finish(command))
    }

    /// Prints what each stage took.
    pub(crate) fn summary(&self) {
        eprintln!();
        for (stage, took, good) in &self.done {
            eprintln!(
                "{:>8.1} s  {}{stage}",
                took.as_secs_f64(),
                if *good { "" } else { "FAILED " }
            );
        }
        let total: Duration = self.done.iter().map(|(_, took, _)| *took).sum();
        eprintln!("{:>8.1} s  in all", total.as_secs_f64());
    }
}

/// Runs a command to its end with our own input and output.
fn finish(mut command: Command) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("cannot start {}: {error}", command.get_program().display()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!(
            "{} ended with {status}",
            command.get_program().display()
        ))
    }
}
