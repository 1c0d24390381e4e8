//! The command line: people at a device, integrators and scripts.
//!
//! Answers go to standard output, everything said about the way there to standard error. With `--json` standard output holds
//! one JSON document, or one for each step of `install`.

mod adapters;
mod allocator;
mod args;
#[cfg(feature = "compiler")]
mod compile;
mod doctor;
mod follow;
mod hints;
mod isolation;
mod log;
mod offers;
mod outlook;
mod record;
mod render;
#[cfg(test)]
mod samples;
mod sign;
mod status;
mod words;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::json;

use crate::api::{CallError, Client, ErrorCode, Reply, Request};
use crate::config::{Config, Faults};
use crate::exit::{Exit, ExitError};

pub use args::{Cli, Command};

/// Runs the command this process was started with, and says how it ended.
pub fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are no errors: clap prints them to standard output and counts them as success.
            let _ = e.print();
            return if e.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
        }
    };
    // Before anything is set up.
    #[cfg(feature = "compiler")]
    if let Command::CompileChild = cli.command {
        return compile::child();
    }
    match &cli.command {
        Command::UnpackChild { arguments } => return isolation::unpack(arguments),
        Command::SalvageChild { from } => return isolation::salvage(*from),
        _ => isolation::begin(),
    }
    allocator::begin();
    log::start();
    let json = cli.json;
    match execute(&cli) {
        Ok(exit) => exit,
        Err(Failure::Faults(faults)) => {
            if json {
                let mut document = faults.to_json();
                document["ok"] = json!(false);
                print_json(&document);
            } else {
                eprint!("{faults}");
                let errors = faults.findings.iter().filter(|f| f.is_error()).count();
                eprintln!("\n{}", words::count(errors, "fault", "faults"));
            }
            Exit::Configuration
        }
        Err(Failure::Error(error)) => {
            if json {
                let about = json!({ "code": error.exit.word(), "exit": error.exit.code(), "message": error.what, "advice": error.advice });
                print_json(&json!({ "ok": false, "error": about }));
            } else if error.exit == Exit::Configuration {
                // Findings, which say themselves that they are errors.
                eprintln!("{}", error.to_string().trim_end());
            } else {
                eprintln!("error: {error}");
            }
            error.exit
        }
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
enum Failure {
    Error(ExitError),
    Faults(Faults),
}

impl From<ExitError> for Failure {
    fn from(error: ExitError) -> Self {
        Failure::Error(error)
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Failure::Faults(faults)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let advice = match &error {
            CallError::Unreachable { source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                "the socket belongs to the agent's user: run this command as that user, or as root"
            }
            CallError::Unreachable { .. } => {
                "start the agent with `otahost run` (or its service); if it runs with another configuration, name that with --config"
            }
            CallError::Broken(_) => {
                "the agent may have stopped, or the device restarts: look at its log, then ask again"
            }
            CallError::Malformed(_) => "is the agent of another version than this command?",
        };
        ExitError::new(Exit::Unreachable, error.to_string(), advice).into()
    }
}

fn execute(cli: &Cli) -> Result<Exit, Failure> {
    match &cli.command {
        #[cfg(feature = "compiler")]
        Command::CompileChild => Ok(compile::child()),
        #[cfg(feature = "compiler")]
        Command::Compile(arguments) => compile::compile(cli, arguments),
        Command::UnpackChild { arguments } => Ok(isolation::unpack(arguments)),
        Command::SalvageChild { from } => Ok(isolation::salvage(*from)),
        Command::Run => {
            // The rest of what `check` looks at is looked at by `run` itself: adapters are compiled once, not twice.
            crate::run::run(Config::load(&cli.config)?)?;
            Ok(Exit::Ok)
        }
        Command::Check => {
            let config = load_and_check(&cli.config)?;
            if cli.json {
                print_json(
                    &json!({ "ok": true, "file": config.path.display().to_string(), "findings": [] }),
                );
            } else {
                print_text(&render::sound(&config));
            }
            Ok(Exit::Ok)
        }
        Command::Status => match client(cli)?.ask(&Request::Status)? {
            Reply::Status(status) => {
                show(cli, &*status, || status::status(&status));
                Ok(Exit::Ok)
            }
            other => Err(unexpected(other)),
        },
        Command::Jobs { key } => match client(cli)?.ask(&Request::Jobs { key: key.clone() })? {
            Reply::Jobs(jobs) => {
                if let Some(key) = key.as_ref().filter(|_| jobs.is_empty()) {
                    return Err(unknown_job(key));
                }
                show(cli, &jobs, || {
                    if key.is_some() {
                        render::job_details(&jobs)
                    } else {
                        render::jobs(&jobs)
                    }
                });
                Ok(Exit::Ok)
            }
            other => Err(unexpected(other)),
        },
        Command::Cancel { key } => match client(cli)?.ask(&Request::Cancel { key: key.clone() })? {
            Reply::Done => {
                show(cli, &json!({ "ok": true, "key": key }), || {
                    let key = words::argument(key);
                    format!("cancelling {key}; `otahost jobs {key}` shows how it ended\n")
                });
                Ok(Exit::Ok)
            }
            other => Err(unexpected(other)),
        },
        Command::Pause { key } => match client(cli)?.ask(&Request::Pause { key: key.clone() })? {
            Reply::Done => {
                show(cli, &json!({ "ok": true, "key": key }), || {
                    let key = words::argument(key);
                    format!("{key} is paused; `otahost resume {key}` lets it go on where it was\n")
                });
                Ok(Exit::Ok)
            }
            other => Err(unexpected(other)),
        },
        Command::Resume { key } => match client(cli)?.ask(&Request::Resume { key: key.clone() })? {
            Reply::Done => {
                show(cli, &json!({ "ok": true, "key": key }), || {
                    let key = words::argument(key);
                    format!("{key} goes on; `otahost jobs {key}` shows how\n")
                });
                Ok(Exit::Ok)
            }
            other => Err(unexpected(other)),
        },
        Command::Clear { target, image } => {
            let request = Request::Clear {
                target: target.clone(),
                image: image.clone(),
            };
            match client(cli)?.ask(&request)? {
                Reply::Cleared { images } => {
                    let document = json!({ "ok": true, "target": target, "cleared": images });
                    show(cli, &document, || cleared(target, image.as_deref(), images));
                    Ok(Exit::Ok)
                }
                other => Err(unexpected(other)),
            }
        }
        Command::Adapter { command } => adapters::run(cli, command),
        Command::Reload => reload(cli),
        Command::Install(install) => follow::install(&client(cli)?, install, cli.json),
        Command::Doctor => {
            let config = Config::load(&cli.config)?;
            let report = crate::doctor::examine(&config, &client(cli)?);
            show(cli, &report.to_json(), || doctor::table(&report));
            Ok(if report.is_whole() {
                Exit::Ok
            } else {
                Exit::NotWhole
            })
        }
        Command::Deadman => {
            let watched = Config::watched(&cli.config)?;
            let report = crate::deadman::run(&watched)?;
            match watched.faults {
                // What the file hides may be what is on trial.
                Some(faults) if !report.rebooting => Err(faults.into()),
                Some(_) | None => {
                    show(cli, &report, || report.to_string());
                    Ok(Exit::Ok)
                }
            }
        }
        Command::Sign(arguments) => sign::sign(arguments, cli.json),
        Command::Keygen {
            prefix,
            password_file,
        } => sign::keygen(prefix, password_file.as_deref(), cli.json),
    }
}

/// The configuration without faults; warnings go to standard error.
fn load_and_check(path: &Path) -> Result<Config, Failure> {
    let config = Config::load(path)?;
    let findings = crate::check::check(&config);
    if !findings.is_empty() {
        let faults = Faults::about(path, findings);
        if faults.any_error() {
            return Err(faults.into());
        }
        eprint!("{faults}");
    }
    Ok(config)
}

fn client(cli: &Cli) -> Result<Client, Failure> {
    let socket: PathBuf = match &cli.socket {
        Some(socket) => socket.clone(),
        None => Config::socket_of(&cli.config)?,
    };
    Ok(Client::new(&socket))
}

/// An answer that ends the command: an error of the agent's, or one that does not belong to the question.
fn unexpected(reply: Reply) -> Failure {
    let Reply::Error { code, message } = reply else {
        return CallError::Malformed("it belongs to another question".into()).into();
    };
    let (exit, advice) = match code {
        ErrorCode::UnknownJob => (Exit::Unknown, "`otahost jobs` lists those there are"),
        ErrorCode::UnknownAdapter => (
            Exit::Unknown,
            "`otahost adapter list` lists those there are",
        ),
        ErrorCode::UnknownStep => (
            Exit::Unknown,
            "`otahost adapter logs NAME` lists those on record",
        ),
        ErrorCode::UnknownTarget => (Exit::Unknown, "`otahost status` lists those there are"),
        ErrorCode::Busy | ErrorCode::Refused => (Exit::Refused, ""),
        ErrorCode::Configuration => (
            Exit::Configuration,
            "what ran before goes on; mend it, and it is taken in by itself",
        ),
        ErrorCode::TooLate => (
            Exit::TooLate,
            "wait for the end: `otahost jobs KEY` shows it",
        ),
        ErrorCode::Unavailable => (Exit::Unreachable, ""),
        ErrorCode::Invalid | ErrorCode::Failed => (Exit::Failure, ""),
    };
    ExitError::new(exit, words::clean(&message), advice).into()
}

fn reload(cli: &Cli) -> Result<Exit, Failure> {
    match client(cli)?.ask(&Request::Reload)? {
        Reply::Reloaded { changed, wrong } => {
            let document = json!({ "ok": wrong.is_empty(), "changed": changed, "wrong": wrong });
            show(cli, &document, || {
                if changed.is_empty() && wrong.is_empty() {
                    return "nothing was changed\n".to_owned();
                }
                let lines = changed.iter().chain(&wrong);
                lines.map(|line| words::clean(line) + "\n").collect()
            });
            Ok(if wrong.is_empty() {
                Exit::Ok
            } else {
                Exit::Refused
            })
        }
        other => Err(unexpected(other)),
    }
}

fn cleared(target: &str, image: Option<&str>, images: u64) -> String {
    let (target, image) = (words::clean(target), image.map(words::clean));
    match (images, image) {
        (0, None) => format!("{target}: no image is known to be bad; nothing to clear\n"),
        (0, Some(image)) => format!(
            "{target}: no image `{image}` is known to be bad; `otahost status` lists those that are\n"
        ),
        (n, _) => {
            let n = words::count(
                usize::try_from(n).unwrap_or(usize::MAX),
                "image is",
                "images are",
            );
            format!("{target}: {n} allowed again\n")
        }
    }
}

fn unknown_job(key: &str) -> Failure {
    ExitError::new(
        Exit::Unknown,
        format!("there is no job `{}`", words::clean(key)),
        "`otahost jobs` lists those there are",
    )
    .into()
}

fn show(cli: &Cli, value: &impl serde::Serialize, text: impl FnOnce() -> String) {
    if cli.json {
        print_json(value)
    } else {
        print_text(&text())
    }
}

fn print_json(value: &impl serde::Serialize) {
    print_text(&(serde_json::to_string(value).expect("what is shown has string keys only") + "\n"));
}

/// To standard output. A reader who has enough and closes it is no error.
fn print_text(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
