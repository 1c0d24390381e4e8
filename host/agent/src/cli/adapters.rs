//! `otahost adapter`: which versions run, and how to have another one.

use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;

use super::render::section;
use super::words::clean;
use super::{Cli, Failure, client, show, unexpected};
use crate::api::{AdapterHealth, AdapterView, Reply, Request};
use crate::exit::{Exit, ExitError};

/// What can be done with adapters.
#[derive(Debug, Subcommand)]
pub enum AdapterCommand {
    /// List the adapters: version, whether it is the configured one, probation, and what it can return to
    List,
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
                show(cli, &status.adapters, || list(&status.adapters));
                Ok(Exit::Ok)
            }
            other => Err(unexpected(other)),
        },
        AdapterCommand::Install { adapter, file } => {
            let path = std::path::absolute(file).map_err(|e| {
                let what = format!("{} cannot be found: {e}", file.display());
                ExitError::new(Exit::Usage, what, "name the component's file")
            })?;
            let request = Request::AdapterInstall {
                adapter: adapter.clone(),
                path: path.display().to_string(),
            };
            done(
                cli,
                adapter,
                &request,
                "runs the new version, on probation; `otahost adapter list` shows how it does",
            )
        }
        AdapterCommand::Rollback { adapter } => {
            let request = Request::AdapterRollback {
                adapter: adapter.clone(),
            };
            done(cli, adapter, &request, "runs the version before")
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
    let mut words = vec![if adapter.installed {
        "installed".to_owned()
    } else {
        "as configured".to_owned()
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
    words.join(", ")
}
