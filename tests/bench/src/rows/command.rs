//! A command over MQTT: the step, the durable commit, the reply. Beside the same handler written natively on the same journal, and
//! beside the usual home-made one.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use otahost_lab::mosquitto::Mosquitto;
use serde_json::json;

use crate::Failed;
use crate::agent::Agent;
use crate::client::Client;
use crate::peers::process::Ended;
use crate::peers::{shell, word};
use crate::stats::{doubling, median};
use crate::table::{Line, Missing, Sample};
use crate::unit::Unit;

/// Of §10 of the design.
const BUDGET: f64 = 1.2;
/// For one reply.
const PATIENCE: Duration = Duration::from_secs(20);
/// For somebody to come up.
const START: Duration = Duration::from_secs(120);
/// Bytes of long commands, one twice the other.
const LONG: [usize; 2] = [2_048, 4_096];
/// Who answers, by the first part of their topics.
const NAMES: [&str; 3] = ["rogue0", "native", "shell"];

/// Measures it.
///
/// # Errors
/// When ours fails, or the surroundings do.
pub(crate) fn measure(quick: bool) -> Result<Vec<Line>, Failed> {
    // Whoever starts a program for each reply needs fewer for a steady median.
    let (rounds, commands) = if quick {
        (1, [10, 10, 5])
    } else {
        (9, [100, 100, 25])
    };
    let broker = Mosquitto::start()?;
    let dir = tempfile::Builder::new()
        .prefix("otahost-bench-")
        .tempdir()?;
    let agent = Agent::rogues(1, broker.port())?;
    agent.start()?;
    let native = native(dir.path(), broker.port())?;
    let shell = shell::start(dir.path(), broker.port(), "shell");
    let mut clients: Vec<Result<Client, Missing>> = Vec::new();
    let there = [Ok(()), Ok(()), shell.as_ref().map(|_| ())];
    for (name, there) in NAMES.into_iter().zip(there) {
        if let Err(missing) = there {
            clients.push(Err(missing.clone()));
            continue;
        }
        let client = Client::connect(broker.port(), &[format!("{name}/out")])?;
        let listens = client
            .await_listener(&format!("{name}/do"), "count", START)
            .map_err(|e| Missing::Failed(format!("{name}: {e}")));
        clients.push(listens.map(|()| client));
    }
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 0..=rounds {
        for turn in 0..NAMES.len() {
            let who = (turn + round) % NAMES.len();
            let Ok(client) = &clients[who] else {
                continue;
            };
            match round_trips(client, NAMES[who], "count", commands[who]) {
                // The first round warms up.
                Ok(time) if round > 0 => times[who].push(time),
                Ok(_) => {}
                Err(error) => clients[who] = Err(Missing::Failed(error.to_string())),
            }
        }
    }
    let grown = match &clients[0] {
        Ok(client) => grown(client, rounds.min(3), commands[0])?,
        Err(_) => None,
    };
    drop(native);
    let sides = clients.into_iter().zip(times.map(Sample::new));
    let mut sides = sides.map(|(client, sample)| client.map(|_| sample));
    let mut next = || sides.next().ok_or("somebody took no part");
    let what = "from the command to its reply";
    let line = Line::of(what, Unit::Seconds, next()?)
        .against("native", next()?)
        .ratio_at_most(BUDGET)
        .against("shell", next()?);
    Ok(vec![line.doubled(grown)])
}

/// What becomes of the time when commands have twice the bytes.
fn grown(client: &Client, rounds: usize, commands: usize) -> Result<Option<f64>, Failed> {
    let mut times: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        for (bytes, times) in LONG.iter().zip(&mut times) {
            let command = format!("count {}", "x".repeat(*bytes));
            times.push(round_trips(client, NAMES[0], &command, commands)?);
        }
    }
    let work = LONG.map(|bytes| bytes as f64);
    Ok(doubling(work, times.map(|times| median(&times))))
}

/// Starts the native handler, as prefix `native`.
pub(crate) fn native(dir: &std::path::Path, broker: u16) -> Result<Ended, Failed> {
    let data = dir.join("native");
    std::fs::create_dir(&data)?;
    let order = json!({ "dir": word(&data), "url": format!("mqtt://127.0.0.1:{broker}"), "prefix": "native" });
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["native", &order.to_string()])
        .stdin(Stdio::null());
    Ok(Ended::spawn(&mut command)?)
}

/// The median time of so many commands, one after another.
fn round_trips(client: &Client, name: &str, command: &str, commands: usize) -> Result<f64, Failed> {
    let topic = format!("{name}/do");
    let mut times = Vec::new();
    for _ in 0..commands {
        let start = Instant::now();
        client.publish(&topic, command)?;
        let heard = client.next(PATIENCE)?;
        times.push((heard.at - start).as_secs_f64());
    }
    Ok(median(&times))
}
