//! `otahost adapter`: which versions run, and how to have another one.

use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;

use super::offers::offers;
use super::record::{self, Wanted, absolute, trial};
use super::render::section;
use super::words::clean;
use super::{Cli, Failure, client, show, unexpected};
use crate::api::{AdapterHealth, AdapterView, Reply, Request, TakenView};
use crate::exit::Exit;

/// What can be done with adapters.
#[derive(Debug, Subcommand)]
pub enum AdapterCommand {
    /// List the adapters: version, whether it is the configured one, probation, and what it can return to
    List,
    /// Show all there is to say of one adapter: versions, what it asks for and is granted, timers, and what was set aside
    Inspect {
        /// The adapter's name
        adapter: String,
    },
    /// Show what an adapter did, step by step, and the events that failed for good
    Logs {
        /// The adapter's name
        adapter: String,
        /// So many steps, the newest
        #[arg(long, value_name = "N", default_value_t = 20)]
        last: u64,
        /// Stay and show each step to come
        #[arg(long)]
        follow: bool,
    },
    /// Run the steps on record again, on the version that runs or on another build; nothing is changed
    Replay {
        /// The adapter's name
        adapter: String,
        /// Run them on this component
        #[arg(long, value_name = "FILE")]
        with: Option<PathBuf>,
        /// Only this step
        #[arg(long, value_name = "N", conflicts_with = "dead")]
        step: Option<u64>,
        /// Only this dead letter
        #[arg(long, value_name = "N")]
        dead: Option<u64>,
    },
    /// Have an adapter run another version, live; what it knows goes along
    Install {
        /// The adapter's name
        adapter: String,
        /// The component
        file: PathBuf,
    },
    /// Have an adapter return to the version before, while the new one is on probation
    Rollback {
        /// The adapter's name
        adapter: String,
    },
}

pub(super) fn run(cli: &Cli, command: &AdapterCommand) -> Result<Exit, Failure> {
    match command {
        AdapterCommand::List => match client(cli)?.ask(&Request::Status)? {
            Reply::Status(status) => {
                show(cli, &status.adapters, || {
                    list(&status.adapters) + &offers(&status)
                });
                Ok(Exit::Ok)
            }
            other => Err(unexpected(other)),
        },
        AdapterCommand::Install { adapter, file } => {
            let request = Request::AdapterInstall {
                adapter: adapter.clone(),
                path: absolute(file)?,
            };
            match client(cli)?.ask(&request)? {
                Reply::Taken(taken) => {
                    show(cli, &*taken, || runs_now(&taken));
                    Ok(Exit::Ok)
                }
                other => Err(unexpected(other)),
            }
        }
        AdapterCommand::Inspect { adapter } => record::inspect(cli, adapter),
        AdapterCommand::Logs {
            adapter,
            last,
            follow,
        } => record::logs(cli, adapter, *last, *follow),
        AdapterCommand::Replay {
            adapter,
            with,
            step,
            dead,
        } => {
            let wanted = Wanted {
                adapter,
                with: with.as_deref(),
                step: *step,
                dead: *dead,
            };
            record::replay(cli, &wanted)
        }
        AdapterCommand::Rollback { adapter } => {
            let request = Request::AdapterRollback {
                adapter: adapter.clone(),
            };
            done(
                cli,
                adapter,
                &request,
                "is back at the version before; in safe mode it runs from the next start on",
            )
        }
    }
}

fn done(cli: &Cli, adapter: &str, request: &Request, says: &str) -> Result<Exit, Failure> {
    match client(cli)?.ask(request)? {
        Reply::Done => {
            let document = json!({ "ok": true, "adapter": adapter });
            show(cli, &document, || format!("{} {says}\n", clean(adapter)));
            Ok(Exit::Ok)
        }
        other => Err(unexpected(other)),
    }
}

/// What is said of a version that was taken.
fn runs_now(taken: &TakenView) -> String {
    let (name, version) = (clean(&taken.adapter), clean(&taken.version));
    match &taken.before {
        Some(before) => format!(
            "{name} runs version {version} in place of {}, on probation; `otahost adapter list` shows how it does\n{}",
            clean(before),
            trial(&taken.trial, &taken.adapter)
        ),
        None => format!("{name} was set aside, and runs version {version} now\n"),
    }
}

/// The adapters in a table.
fn list(adapters: &[AdapterView]) -> String {
    let rows: Vec<Vec<String>> = adapters
        .iter()
        .map(|adapter| {
            vec![
                clean(&adapter.name),
                clean(&adapter.version),
                clean(&adapter.digest).chars().take(19).collect(),
                standing(adapter),
            ]
        })
        .collect();
    section("adapters", &rows)
}

/// Where a version comes from, and how it does.
pub(super) fn standing(adapter: &AdapterView) -> String {
    let mut words = vec![match &adapter.origin {
        Some(origin) => format!("installed from {}", clean(&origin.to_string())),
        None if adapter.installed => "installed".to_owned(),
        None => "as configured".to_owned(),
    }];
    if let Some(strikes) = adapter.strikes {
        words.push(match strikes {
            0 => "on probation".to_owned(),
            1 => "on probation, one call failed".to_owned(),
            n => format!("on probation, {n} calls failed"),
        });
    }
    if let Some(previous) = &adapter.previous {
        words.push(format!("can return to {}", clean(previous)));
    }
    if let AdapterHealth::Failing { last_failure } = &adapter.health {
        words.push(format!("failing: {}", clean(last_failure)));
    }
    if let AdapterHealth::SetAside { why } = &adapter.health {
        words.push(format!("set aside: {}", clean(why)));
    }
    if let Some(fault) = &adapter.fault {
        words.push(format!("stands in for another: {}", clean(fault)));
    }
    words.join(", ")
}
