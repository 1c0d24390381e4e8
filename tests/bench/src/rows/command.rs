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
use crate::stats::median;
use crate::table::{Budget, Line, Missing, Row, Sample, Unit};

/// Of §10 of the design.
const BUDGET: f64 = 1.2;
/// For one reply.
const PATIENCE: Duration = Duration::from_secs(20);
/// For somebody to come up.
const START: Duration = Duration::from_secs(120);
/// Who answers, by the first part of their topics.
const NAMES: [&str; 3] = ["rogue0", "native", "shell"];

/// Measures it.
///
/// # Errors
/// When ours fails, or the surroundings do.
pub(crate) fn measure(quick: bool) -> Result<Row, Failed> {
    let (rounds, commands) = if quick { (2, 10) } else { (9, 100) };
    let broker = Mosquitto::start()?;
    let dir = tempfile::Builder::new()
        .prefix("otahost-bench-")
        .tempdir()?;
    let agent = Agent::rogues(1, broker.port())?;
    agent.start()?;
    let native = native(dir.path(), broker.port())?;
    let shell = shell::start(dir.path(), broker.port(), "shell");
    let mut clients: Vec<Result<Client, Missing>> = Vec::new();
    for name in NAMES {
        let client = Client::connect(broker.port(), &[format!("{name}/out")])?;
        let listens = client
            .await_listener(&format!("{name}/do"), "count", START)
            .map_err(|e| Missing::Failed(format!("{name}: {e}")));
        clients.push(listens.map(|()| client));
    }
    if let Err(missing) = &shell {
        clients[2] = Err(missing.clone());
    }
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 0..=rounds {
        for turn in 0..NAMES.len() {
            let who = (turn + round) % NAMES.len();
            let Ok(client) = &clients[who] else {
                continue;
            };
            match round_trips(client, NAMES[who], commands) {
                // The first round warms up.
                Ok(time) if round > 0 => times[who].push(time),
                Ok(_) => {}
                Err(error) => clients[who] = Err(Missing::Failed(error.to_string())),
            }
        }
    }
    drop(native);
    let [ours, native, shell] = times.map(Sample::new);
    let mut clients = clients.into_iter();
    let mut taken = |sample| match clients.next() {
        Some(Ok(_)) => Ok(sample),
        Some(Err(missing)) => Err(missing),
        None => Err(Missing::Failed("it took no part".into())),
    };
    let ours = taken(ours).map_err(|missing| format!("ours: {missing:?}"))?;
    let line = |name: &str, theirs| {
        let what = "command to reply, with a durable commit between";
        Line::value(what, Unit::Seconds, ours.clone()).against(name, theirs)
    };
    Ok(Row {
        name: "command",
        title: "MQTT command, commit, reply",
        lines: vec![
            line(
                "the same handler, native, on the same journal",
                taken(native),
            )
            .within(Budget::Ratio(BUDGET)),
            line("mosquitto_sub, bash, sync, mosquitto_pub", taken(shell)),
        ],
    })
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
fn round_trips(client: &Client, name: &str, commands: usize) -> Result<f64, Failed> {
    let topic = format!("{name}/do");
    let mut times = Vec::new();
    for _ in 0..commands {
        let start = Instant::now();
        client.publish(&topic, "count")?;
        let heard = client.next(PATIENCE)?;
        times.push((heard.at - start).as_secs_f64());
    }
    Ok(median(&times))
}
