//! Steps in a second when much comes at once, each in a fresh instance and durable before its reply; what a step costs in time of the
//! processor and in bytes written. With one adapter and with four, beside the native handler.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use otahost_lab::mosquitto::Mosquitto;

use crate::Failed;
use crate::agent::Agent;
use crate::client::Client;
use crate::proc::Process;
use crate::rows::command::native;
use crate::stats::{doubling, median};
use crate::table::{Line, Sample};
use crate::unit::Unit;

/// Messages on their way at once for each adapter: enough that none waits, few enough that the broker drops none.
const WINDOW: usize = 50;
/// For one reply.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one flood came to.
struct Flood {
    per_second: f64,
    cpu: f64,
    written: f64,
}

/// Measures it.
///
/// # Errors
/// When something does not run, or a reply is lost.
pub(crate) fn measure(quick: bool) -> Result<Vec<Line>, Failed> {
    let (rounds, messages) = if quick { (1, 200) } else { (5, 4_000) };
    let (one, four) = (ours(1, rounds, messages)?, ours(4, rounds, messages)?);
    let native = {
        let broker = Mosquitto::start()?;
        let dir = tempfile::Builder::new()
            .prefix("otahost-bench-")
            .tempdir()?;
        let handler = native(dir.path(), broker.port())?;
        floods(
            Process(handler.id()),
            &broker,
            &["native".to_owned()],
            rounds,
            messages,
        )?
    };
    let sample = |floods: &[Flood]| {
        let each = |pick: fn(&Flood) -> f64| floods.iter().map(pick).collect::<Vec<f64>>();
        Sample::new(each(|flood| flood.per_second))
            .beside("each: CPU", Unit::Seconds, each(|flood| flood.cpu))
            .beside("written", Unit::Bytes, each(|flood| flood.written))
    };
    let (one, four, native) = (sample(&one), sample(&four), sample(&native));
    let grown = doubling([1.0, 4.0], [median(&one.values), median(&four.values)]);
    Ok(vec![
        Line::value("1 adapter", Unit::PerSecond, one).against("native", Ok(native)),
        Line::value("4 adapters, together", Unit::PerSecond, four).doubled(grown),
    ])
}

fn ours(adapters: usize, rounds: usize, messages: usize) -> Result<Vec<Flood>, Failed> {
    let broker = Mosquitto::start()?;
    let agent = Agent::rogues(adapters, broker.port())?;
    agent.start()?;
    let prefixes: Vec<String> = (0..adapters).map(|n| format!("rogue{n}")).collect();
    floods(agent.process()?, &broker, &prefixes, rounds, messages)
}

fn floods(
    process: Process,
    broker: &Mosquitto,
    prefixes: &[String],
    rounds: usize,
    messages: usize,
) -> Result<Vec<Flood>, Failed> {
    let answers: Vec<String> = prefixes
        .iter()
        .map(|prefix| format!("{prefix}/out"))
        .collect();
    let client = Client::connect(broker.port(), &answers)?;
    client.await_listener(&format!("{}/do", prefixes[0]), "count", PATIENCE)?;
    let mut floods = Vec::new();
    for round in 0..=rounds {
        let flood = flood(process, &client, prefixes, messages)?;
        // The first warms up.
        if round > 0 {
            floods.push(flood);
        }
    }
    Ok(floods)
}

/// So many messages, spread over the adapters, each answered.
fn flood(
    process: Process,
    client: &Client,
    prefixes: &[String],
    messages: usize,
) -> Result<Flood, Failed> {
    let (cpu, written) = (process.cpu()?, process.written()?);
    let each = messages / prefixes.len();
    let mut left: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let start = Instant::now();
    for prefix in prefixes {
        let first = WINDOW.min(each);
        for _ in 0..first {
            client.publish(&format!("{prefix}/do"), "count")?;
        }
        left.insert(format!("{prefix}/out"), (each - first, each));
    }
    let mut last = start;
    while left.values().any(|(_, answers)| *answers > 0) {
        let heard = client.next(PATIENCE)?;
        let (unsent, unanswered) = left
            .get_mut(&heard.topic)
            .ok_or_else(|| format!("a message on {}", heard.topic))?;
        *unanswered = unanswered
            .checked_sub(1)
            .ok_or("more answers than messages")?;
        if *unsent > 0 {
            *unsent -= 1;
            client.publish(&heard.topic.replace("/out", "/do"), "count")?;
        }
        last = heard.at;
    }
    let steps = (each * prefixes.len()) as f64;
    Ok(Flood {
        per_second: steps / (last - start).as_secs_f64(),
        cpu: (process.cpu()? - cpu) / steps,
        written: (process.written()? - written) as f64 / steps,
    })
}
