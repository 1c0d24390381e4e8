//! `otahost install`: asks for a job and follows it to its end, across the reboot if there is one.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use otahost_core::model::Phase;

use super::args::Install;
use super::outlook::outlook;
use super::{Failure, print_json, print_text, render, unexpected, unknown_job, words};
use crate::api::{CallError, Client, ErrorCode, JobView, Reply, Request};
use crate::exit::{Exit, ExitError};

/// An agent that restarts is asked again this often, this many times: six minutes.
const PATIENCE: u32 = 720;
const PAUSE: Duration = Duration::from_millis(500);

pub(super) fn install(client: &Client, arguments: &Install, json: bool) -> Result<Exit, Failure> {
    let file = arguments.file.canonicalize().map_err(|e| {
        ExitError::failure(
            format!("cannot read {}: {e}", arguments.file.display()),
            "name the artifact that `otahost sign` made",
        )
    })?;
    let Some(path) = file.to_str() else {
        return Err(ExitError::failure(
            format!("the path {} is not UTF-8", file.display()),
            "rename the file",
        )
        .into());
    };
    let request = Request::Install {
        path: path.into(),
        target: arguments.target.clone(),
        version: arguments.version.clone(),
        key: None,
    };
    let key = match client.ask(&request)? {
        Reply::Accepted { key } => key,
        other => return Err(unexpected(other)),
    };
    if arguments.no_wait {
        if json {
            print_json(&serde_json::json!({ "ok": true, "key": key }));
        } else {
            print_text(&format!(
                "{}: `otahost jobs {0}` shows how it goes\n",
                words::clean(&key)
            ));
        }
        return Ok(Exit::Ok);
    }
    follow(client, &key, &mut Display::new(json), PATIENCE, PAUSE)
}

/// Follows a job to its end. While the agent is away (the device restarts into the new version) it is asked again.
fn follow(
    client: &Client,
    key: &str,
    display: &mut Display,
    patience: u32,
    pause: Duration,
) -> Result<Exit, Failure> {
    let mut left = patience;
    loop {
        let replies = match client.call(&Request::Job {
            key: key.into(),
            follow: true,
        }) {
            Ok(replies) => Some(replies),
            Err(CallError::Unreachable { .. } | CallError::Broken(_)) => None,
            Err(e) => return Err(e.into()),
        };
        for reply in replies.into_iter().flatten() {
            match reply {
                Ok(Reply::Job(job)) => {
                    left = patience;
                    display.show(&job);
                    if job.phase.is_final() {
                        display.end(&job);
                        return Ok(words::exit_of(job.phase));
                    }
                }
                Ok(Reply::Error {
                    code: ErrorCode::UnknownJob,
                    ..
                }) => return Err(unknown_job(key)),
                // Starting or stopping: it is worth another try.
                Ok(Reply::Error {
                    code: ErrorCode::Unavailable,
                    ..
                })
                | Err(CallError::Broken(_)) => break,
                Ok(other) => return Err(unexpected(other)),
                Err(e) => return Err(e.into()),
            }
        }
        if left == 0 {
            let what = format!(
                "the agent at {} has gone and did not come back",
                client.path().display()
            );
            let advice =
                format!("when it runs again, `otahost jobs {key}` shows how the update ended");
            return Err(ExitError::new(Exit::Unreachable, what, advice).into());
        }
        left -= 1;
        display.away();
        std::thread::sleep(pause);
    }
}

/// Progress: a bar on a terminal, a line for each phase elsewhere, JSON lines with `--json`.
struct Display {
    json: bool,
    bar: ProgressBar,
    last: Option<(Phase, Option<String>)>,
    away: bool,
}

impl Display {
    fn new(json: bool) -> Self {
        let bar = ProgressBar::new(0);
        if json || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = ProgressStyle::with_template(
            "{msg:14} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec}",
        )
        .expect("the template is constant")
        .progress_chars("=> ");
        bar.set_style(style);
        Display {
            json,
            bar,
            last: None,
            away: false,
        }
    }

    fn show(&mut self, job: &JobView) {
        self.away = false;
        if self.json {
            print_json(job);
            return;
        }
        if let Some(install) = job
            .installs
            .iter()
            .find(|i| !i.phase.is_final())
            .or(job.installs.last())
        {
            self.bar.set_length(install.total.unwrap_or(0));
            self.bar.set_position(install.received);
        }
        self.bar.set_message(job.phase.word());
        let now = (job.phase, job.reason.as_ref().map(|r| r.text.clone()));
        if self.last.as_ref() != Some(&now) && !job.phase.is_final() {
            self.say(&outlook(job));
        }
        self.last = Some(now);
    }

    fn away(&mut self) {
        if !self.away && !self.json {
            self.say("the agent is away (the device restarts, as a rule); waiting for it");
        }
        self.away = true;
    }

    /// Above the bar where there is one.
    fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}")
        } else {
            self.bar.println(line)
        }
    }

    fn end(&self, job: &JobView) {
        self.bar.finish_and_clear();
        if !self.json {
            let targets: Vec<_> = job.installs.iter().map(render::versions).collect();
            print_text(&format!("{}: {}\n", targets.join(", "), outlook(job)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_never_comes_back_ends_the_wait() {
        let client = Client::new(std::path::Path::new("/nonexistent/otahost.sock"));
        let ended = follow(&client, "k", &mut Display::new(true), 2, Duration::ZERO);
        let Err(Failure::Error(error)) = ended else {
            panic!("{ended:?}")
        };
        assert_eq!(error.exit, Exit::Unreachable);
        assert!(error.advice.contains("otahost jobs k"));
    }
}
