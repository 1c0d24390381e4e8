//! What the agent has written to the disk, and how often it had the disk sync: when it does nothing but say that it is well, and for an
//! update, beside the bytes of the image itself. Flash memory dies of this.
//!
//! Both are counted by strace, call by call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use otahost_lab::cloud::Cloud;
use otahost_lab::files::Files;
use otahost_lab::image::Image;
use otahost_lab::machine::Machine;
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
    // A minute after its start the agent notes that it came up well.
    let (settled, quiet) = if quick { (1, 4) } else { (90, 600) };
    let [settled, quiet] = [settled, quiet].map(Duration::from_secs);
    eprintln!("  idle for {} s", (settled + quiet).as_secs());
    let idle = idle_agent(settled, quiet)?;
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

/// What an agent did to its files, over all its boots.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Worn {
    bytes: f64,
    syncs: f64,
}

impl Worn {
    fn line(self, what: String, budget: f64) -> Line {
        let sample = Sample::one(self.bytes).beside("syncs", Unit::Count, vec![self.syncs.round()]);
        Line::value(what, Unit::Bytes, sample).at_most(budget)
    }
}

/// Counts what the programs below it do to files, by strace.
///
/// Not by `/proc/PID/io`: its `wchar` is also what wakes other threads and what is said on sockets, and its `write_bytes` the whole piece
/// of the cache that a write makes dirty: on file systems with large folios (Linux 6.16 for ext4) up to 2 MiB for each 4 KiB.
struct Watch {
    /// A log of each boot: at its end the last line may be cut off in its middle, and nothing may follow on it.
    logs: PathBuf,
    runner: Vec<String>,
}

impl Watch {
    fn new(dir: &Path) -> Result<Self, Missing> {
        let logs = dir.join("calls");
        fs::create_dir(&logs).map_err(|e| Missing::Failed(format!("{}: {e}", word(&logs))))?;
        Ok(Watch {
            runner: runner(&logs)?,
            logs,
        })
    }

    /// So far, in the machine's files but for the agent's log, which is the system's to keep.
    fn so_far(&self, machine: &Machine) -> Result<Worn, Failed> {
        let dir = machine.layout().data().with_file_name("").canonicalize()?;
        let own_log = machine.layout().log().canonicalize()?;
        let mut worn = Worn::default();
        for of_boot in fs::read_dir(&self.logs)? {
            let log = fs::read_to_string(of_boot?.path())?;
            for line in whole_lines(&log).lines() {
                let Some(call) = call(line) else { continue };
                let path = Path::new(call.path);
                if !path.starts_with(&dir) || path == own_log {
                    continue;
                }
                match call.does {
                    Does::Sync => worn.syncs += 1.0,
                    Does::Write(bytes) => worn.bytes += bytes as f64,
                    Does::Unknown => return Err(format!("how much is written here? {line}").into()),
                }
            }
        }
        Ok(worn)
    }
}

/// What a call does to a file.
#[derive(Debug, PartialEq)]
enum Does {
    Sync,
    Write(u64),
    /// It writes, and how much is not known.
    Unknown,
}

#[derive(Debug, PartialEq)]
struct Call<'a> {
    path: &'a str,
    does: Does,
}

/// Without a line that is not at its end.
fn whole_lines(text: &str) -> &str {
    &text[..text.rfind('\n').map_or(0, |end| end + 1)]
}

/// The beginning of a call in strace's log; what is said of its end on another line has no parenthesis behind its name.
fn call(line: &str) -> Option<Call<'_>> {
    let (head, arguments) = line.split_once('(')?;
    let name = head.split_whitespace().last()?;
    let (_, path) = arguments.split_once('<')?;
    let (path, rest) = path.split_once('>')?;
    let does = match name {
        "fsync" | "fdatasync" | "sync_file_range" | "syncfs" => Does::Sync,
        "write" | "pwrite64" => {
            // The third argument, and then a fourth, the end, or that the end comes on another line.
            let asked = rest.split(", ").nth(2).unwrap_or_default();
            let digits = asked.split([')', ' ']).next().unwrap_or_default();
            let behind = &asked[digits.len()..];
            match digits.parse() {
                Ok(bytes)
                    if ["", " <unfinished ...>"].contains(&behind) || behind.starts_with(')') =>
                {
                    Does::Write(bytes)
                }
                _ => Does::Unknown,
            }
        }
        _ => Does::Unknown,
    };
    Some(Call { path, does })
}

/// Calls that write into files, and calls that have files written to the medium.
const CALLS: &str = "trace=write,pwrite64,writev,pwritev,pwritev2,copy_file_range,sendfile,splice,fsync,fdatasync,sync_file_range,syncfs";

fn runner(logs: &Path) -> Result<Vec<String>, Missing> {
    let program = find("strace")?;
    let works = Command::new(&program)
        .args(["-qq", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !works.is_ok_and(|status| status.success()) {
        return Err(Missing::Absent("strace may not trace here".to_owned()));
    }
    // Calls that are not asked for cost nothing with a filter in the kernel. With the paths of files, and without what is written.
    let script =
        format!("exec \"$0\" -f -qq --seccomp-bpf -y -s 0 -e {CALLS} -o \"$1/$$\" \"${{@:2}}\"");
    let words = ["/bin/bash", "-c", &script, &word(&program), &word(logs)];
    Ok(words.map(str::to_owned).to_vec())
}

/// Four adapters with their platforms there, telemetry on, nobody who asks for anything. What a start writes, it writes once on that day.
fn idle_agent(settled: Duration, quiet: Duration) -> Result<Line, Failed> {
    let times = DAY / quiet.as_secs_f64();
    let what = format!(
        "an idle day, four adapters, telemetry on: a start with its first {} s, and {} s times {times:.0}",
        settled.as_secs(),
        quiet.as_secs(),
    );
    let dir = tempfile::tempdir()?;
    let watch = match Watch::new(dir.path()) {
        Ok(watch) => watch,
        Err(missing) => return Ok(Line::of(what, Unit::Bytes, Err(missing))),
    };
    let spec = Spec {
        runner: watch.runner.clone(),
        ..Spec::of(ADAPTERS.len())
    };
    let device = Device::new(spec, None)?;
    let cloud = Cloud::connect(device.broker.port(), SERIAL)?;
    // The very first start copies the adapters.
    device.agent.start()?;
    cloud.await_online(1, PATIENCE)?;
    device.agent.machine.lose_power();
    let so_far = || watch.so_far(&device.agent.machine);
    let before = so_far()?;
    device.agent.start()?;
    cloud.await_online(2, PATIENCE)?;
    thread::sleep(settled);
    let started = so_far()?;
    let said = cloud.messages().0;
    thread::sleep(quiet);
    let after = so_far()?;
    if cloud.messages().0 == said {
        return Err("the idle agent's telemetry is off".into());
    }
    device.agent.all_run("")?;
    let day =
        |of: fn(&Worn) -> f64| of(&started) - of(&before) + (of(&after) - of(&started)) * times;
    let worn = Worn {
        bytes: day(|worn| worn.bytes),
        syncs: day(|worn| worn.syncs),
    };
    Ok(worn.line(what, BUDGETS[0]))
}

/// One image into the other slot, with the reboot and the confirmation; at a pace at which the transfer takes its time.
fn update(size: u64, rate: u64) -> Result<Line, Failed> {
    let what = format!(
        "an update of {} MiB with its reboot, beside the image",
        size / MIB
    );
    let dir = tempfile::Builder::new()
        .prefix("otahost-bench-")
        .tempdir()?;
    let watch = match Watch::new(dir.path()) {
        Ok(watch) => watch,
        Err(missing) => return Ok(Line::of(what, Unit::Bytes, Err(missing))),
    };
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
        runner: watch.runner.clone(),
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

    let before = watch.so_far(&agent.machine)?;
    let order = json!({
        "key": "k", "target": "dock", "version": NEW, "url": files.url("image"), "size": described.size,
        "digests": [format!("md5:{}", described.md5)],
    });
    client.publish("rogue/do", format!("start-job {order}"))?;
    let until = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    while !said.iter().any(|word| word == "job k succeeded") {
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
    let after = watch.so_far(&agent.machine)?;
    let worn = Worn {
        bytes: after.bytes - before.bytes - size as f64,
        syncs: after.syncs - before.syncs,
    };
    Ok(worn.line(what, BUDGETS[1]))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_call_is_counted_where_it_begins_by_what_it_asks_for() {
        let table = [
            (
                "7 pwrite64(9</m/data/j>, \"\"..., 4096, 8192) = 4096",
                Does::Write(4096),
            ),
            (
                "7 pwrite64(9</m/data/j>, \"\"..., 4096, 8192 <unfinished ...>",
                Does::Write(4096),
            ),
            (
                "7 write(9</m/data/j>(deleted), \"\"..., 17) = 17",
                Does::Write(17),
            ),
            ("7 write(9</m/data/j>, \"\", 0) = 0", Does::Write(0)),
            (
                "7 writev(9</m/data/j>, [{iov_base=\"\"..., iov_len=3}], 1) = 3",
                Does::Unknown,
            ),
            ("7 fdatasync(9</m/data/j> <unfinished ...>", Does::Sync),
            ("8 fsync(4</m/data/j>) = 0", Does::Sync),
            // A process that ended here, and what another one began.
            (
                "7 write(9</m/data/j>, \"\"..., 378 write(2</m/log>, \"\"..., 5) = 5",
                Does::Unknown,
            ),
        ];
        for (line, does) in table {
            let path = "/m/data/j";
            assert_eq!(call(line), Some(Call { path, does }), "{line}");
        }
        for line in [
            "7 <... fdatasync resumed>) = 0",
            "8 +++ exited with 0 +++",
            "7 --- SIGCHLD {si_signo=SIGCHLD} ---",
        ] {
            assert_eq!(call(line), None, "{line}");
        }
        assert_eq!(whole_lines("a\nb\nc"), "a\nb\n");
        assert_eq!(whole_lines("c"), "");
    }
}
