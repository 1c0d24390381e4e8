//! What the agent has written to the disk, and how often it had the disk sync: when it does nothing but say that it is well, and for an
//! update, beside the bytes of the image itself. Flash memory dies of this.
//!
//! Bytes are what the process gave to calls of `write`; syncs are counted by strace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use otahost_lab::cloud::Cloud;
use otahost_lab::files::Files;
use otahost_lab::image::Image;
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::signing::{Claims, Publisher};
use serde_json::json;

use crate::Failed;
use crate::agent::{Agent, COMPATIBLE, PATIENCE, SERIAL, Spec, component, link};
use crate::artifact::MIB;
use crate::client::Client;
use crate::devices::{ADAPTERS, Device};
use crate::peers::{find, word};
use crate::stats::{doubling, median};
use crate::table::{Line, Missing, Sample};
use crate::unit::Unit;

/// Of §10 of the design: a day, and an update.
const BUDGETS: [f64; 2] = [20e6, 50e6];
const DAY: f64 = 86_400.0;
/// The version that the update brings.
const NEW: &str = "2.0.0";
/// How often an agent that may be gone soon is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Measures it.
///
/// # Errors
/// When something does not run.
pub(crate) fn measure(quick: bool) -> Result<Vec<Line>, Failed> {
    let (settled, idle) = if quick { (1, 4) } else { (30, 300) };
    eprintln!("  idle for {idle} s");
    let idle = idle_agent(Duration::from_secs(settled), idle)?;
    // Slow enough for a transfer to be one that takes its time, with its checkpoints.
    let rate = 16 * MIB;
    eprintln!("  updates");
    if quick {
        return Ok(vec![idle, update(8 * MIB, rate)?]);
    }
    let sizes = [256 * MIB, 512 * MIB];
    let (small, large) = (update(sizes[0], rate)?, update(sizes[1], rate)?);
    let written =
        [&small, &large].map(|line| line.ours.as_ref().map_or(f64::NAN, |o| median(&o.values)));
    let grown = doubling(sizes.map(|size| size as f64), written);
    Ok(vec![idle, large.doubled(grown)])
}

/// Counts the syncs of all boots of an agent.
struct Syncs {
    log: PathBuf,
    /// What runs the agent.
    runner: Result<Vec<String>, Missing>,
}

impl Syncs {
    fn new(dir: &Path) -> Self {
        let log = dir.join("syncs");
        Syncs {
            runner: runner(&log),
            log,
        }
    }

    fn runner(&self) -> Vec<String> {
        self.runner.clone().unwrap_or_default()
    }

    fn so_far(&self) -> Result<f64, Missing> {
        self.runner.as_ref().map_err(Clone::clone)?;
        let text = fs::read_to_string(&self.log)
            .map_err(|e| Missing::Failed(format!("strace's log: {e}")))?;
        Ok(text.lines().filter(|line| is_sync(line)).count() as f64)
    }
}

/// A call begins on one line, and what is said of its end on another has no opening parenthesis behind its name.
fn is_sync(line: &str) -> bool {
    ["fsync(", "fdatasync(", "sync_file_range(", "syncfs("]
        .iter()
        .any(|call| line.contains(call))
}

fn runner(log: &Path) -> Result<Vec<String>, Missing> {
    let program = find("strace")?;
    let works = Command::new(&program)
        .args(["-qq", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !works.is_ok_and(|status| status.success()) {
        return Err(Missing::Absent("strace may not trace here".to_owned()));
    }
    // Every boot adds to the same log. Calls that are not asked for cost nothing with a filter in the kernel.
    let program = word(&program);
    let calls = "trace=fsync,fdatasync,sync_file_range,syncfs";
    let words = [
        &program,
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-e",
        calls,
        "-A",
        "-o",
        &word(log),
    ];
    Ok(words.map(str::to_owned).to_vec())
}

/// Four adapters with their platforms there, telemetry on, nobody who asks for anything.
fn idle_agent(settled: Duration, seconds: u64) -> Result<Line, Failed> {
    let dir = tempfile::tempdir()?;
    let syncs = Syncs::new(dir.path());
    let spec = Spec {
        runner: syncs.runner(),
        ..Spec::of(ADAPTERS.len())
    };
    let device = Device::new(spec, None)?;
    let cloud = Cloud::connect(device.broker.port(), SERIAL)?;
    device.agent.start()?;
    cloud.await_online(1, PATIENCE)?;
    thread::sleep(settled);
    let process = device.agent.process()?;
    let (before, synced) = (process.written()?, syncs.so_far());
    let said = cloud.messages().0;
    let half = Duration::from_secs(seconds) / 2;
    thread::sleep(half);
    let middle = process.written()?;
    thread::sleep(half);
    let after = process.written()?;
    if cloud.messages().0 == said {
        return Err("the idle agent's telemetry is off".into());
    }
    device.agent.all_run("")?;
    let written = [middle, after].map(|written| (written - before) as f64);
    let times = DAY / seconds as f64;
    let synced = synced.and_then(|before| Ok(syncs.so_far()? - before));
    let sample = with_syncs(written[1] * times, synced.map(|synced| synced * times));
    let what = format!("an idle day, four adapters, telemetry on: {seconds} s, times {times:.0}");
    Ok(Line::value(what, Unit::Bytes, sample)
        .at_most(BUDGETS[0])
        .doubled(doubling([1.0, 2.0], written)))
}

/// Bytes, and beside them the syncs, or why they were not counted.
fn with_syncs(written: f64, syncs: Result<f64, Missing>) -> Sample {
    let sample = Sample::one(written);
    match syncs {
        Ok(syncs) => sample.beside("syncs", Unit::Count, vec![syncs.round()]),
        Err(missing) => sample.beside(&format!("syncs {}:", missing.text()), Unit::Count, vec![]),
    }
}

/// One image into the other slot, with the reboot and the confirmation; at a pace at which the transfer takes its time.
fn update(size: u64, rate: u64) -> Result<Line, Failed> {
    let dir = tempfile::Builder::new()
        .prefix("otahost-bench-")
        .tempdir()?;
    let syncs = Syncs::new(dir.path());
    let (broker, files) = (Mosquitto::start()?, Files::start());
    let publisher = Publisher::generate()?;
    let (raw, signed) = (dir.path().join("raw"), dir.path().join("signed"));
    Image::new(NEW, size).write(&raw)?;
    let claims = Claims {
        compatible: COMPATIBLE.to_owned(),
        version: NEW.to_owned(),
        rollback_index: 1,
    };
    let described = publisher.sign(&raw, &signed, &claims)?;
    files.put_file("image", &signed)?;
    let spec = Spec {
        trust: publisher.public_key(),
        runner: syncs.runner(),
        ..Spec::of(1)
    };
    let agent = Agent::new(spec, |_| {
        Ok(format!(
            "{}\n[adapters.rogue]\ncomponent = {}\nconfig = {{ link = \"cloud\", prefix = \"rogue\" }}\n[adapters.rogue.grants]\n\
             links.cloud.subscribe = [\"rogue/do\"]\nlinks.cloud.publish = [\"rogue/out\"]\ndownload = [{}]\ntargets = [\"dock\"]\n",
            link(broker.port()),
            json!(component("rogue")),
            json!(files.url("")),
        ))
    })?;
    agent.start()?;
    let client = Client::connect(broker.port(), &["rogue/out".to_owned()])?;
    client.await_listener("rogue/do", "count", PATIENCE)?;
    files.throttle(Some(rate));

    let process = agent.process()?;
    let (before, synced) = (process.written()?, syncs.so_far());
    let order = json!({
        "key": "k", "target": "dock", "version": NEW, "url": files.url("image"), "size": described.size,
        "digests": [format!("md5:{}", described.md5)],
    });
    client.publish("rogue/do", format!("start-job {order}"))?;
    // Until the reboot takes the process away: it is looked at all the time, because nobody can ask it afterwards.
    let until = Instant::now() + PATIENCE;
    let mut first = before;
    let mut said = Vec::new();
    while !said.iter().any(|word| word == "job k succeeded") {
        if agent.machine.boot_count() < 2
            && let Ok(written) = process.written()
        {
            first = first.max(written);
        }
        while let Some(heard) = client.at_hand() {
            said.push(String::from_utf8_lossy(&heard.payload).into_owned());
        }
        let ended = |word: &String| {
            ["job k failed", "job k rejected", "job k rolled-back"].contains(&word.as_str())
        };
        if Instant::now() > until || said.iter().any(ended) {
            return Err(format!("the update does not succeed: {said:?}").into());
        }
        thread::sleep(LOOK);
    }
    // The confirmation's own rows go with it.
    thread::sleep(Duration::from_secs(1));
    let second = agent.process()?.written()?;
    let written = (first - before + second) as f64 - size as f64;
    let synced = synced.and_then(|before| Ok(syncs.so_far()? - before));
    let what = format!(
        "an update of {} MiB with its reboot, beside the image",
        size / MIB
    );
    Ok(Line::value(what, Unit::Bytes, with_syncs(written, synced)).at_most(BUDGETS[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_was_interrupted_in_the_log_counts_once() {
        let log = "7 fdatasync(9 <unfinished ...>\n8 fsync(4) = 0\n7 <... fdatasync resumed>) = 0\n8 +++ exited with 0 +++\n";
        assert_eq!(log.lines().filter(|line| is_sync(line)).count(), 2);
    }
}
