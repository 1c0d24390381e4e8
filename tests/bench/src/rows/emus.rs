//! Many devices behind one: what an agent with 1, 100 and 1,000 EMUs costs, idle, asked for all of them, and updating all at once.
//!
//! The real agent as a process of its own, with the real mosquitto. Memory is what the kernel says of the process.

use std::thread;
use std::time::{Duration, Instant};

use otahost_lab::files::Files;
use otahost_lab::machine::built_program;
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::wudun::site::{self, Site, SiteSpec};
use otahost_lab::wudun::{Kind, Platform, PlatformError, emu_upgrade, emu_version};
use serde_json::Value;

use crate::Failed;
use crate::proc::Process;
use crate::stats::doubling;
use crate::table::{Line, Sample};
use crate::unit::Unit;

/// Of §10 of the design, in bytes: 1,000 updating at once.
const BUDGET: f64 = 100e6;
const BUDGET_EMUS: usize = 1_000;
const UID: &str = "bench";
/// How long anything may take before the run counts as failed.
const PATIENCE: Duration = Duration::from_secs(600);

/// What one number of EMUs costs.
#[derive(Debug)]
struct Cost {
    emus: usize,
    /// From the start of the process to its first answer.
    start: f64,
    /// From an `ota/emu_version` to its answer.
    asked: Vec<f64>,
    /// Time of the processor that they take the agent.
    asked_cpu: f64,
    /// All updates, from the first command to the last result.
    updated: f64,
    /// Time of the processor for all of them.
    updated_cpu: f64,
    /// Bytes that the agent had written for them, packages included.
    written: u64,
    /// Resident when idle, and at the most.
    idle: f64,
    peak: f64,
}

/// Measures it.
///
/// # Errors
/// When something does not run or an update fails: then there is no row.
pub(crate) fn measure(quick: bool) -> Result<Vec<Line>, Failed> {
    let (sizes, questions): (&[usize], usize) = if quick {
        (&[1, 10], 5)
    } else {
        (&[1, 100, 1_000], 200)
    };
    let mut costs = Vec::new();
    for emus in sizes {
        eprintln!("  {emus} EMUs");
        costs.push(cost(*emus, questions)?);
    }
    let mut lines = Vec::new();
    for (n, cost) in costs.iter().enumerate() {
        let smaller = n.checked_sub(1).and_then(|before| costs.get(before));
        lines.extend(cost.lines(questions, smaller));
    }
    Ok(lines)
}

fn cost(emus: usize, questions: usize) -> Result<Cost, Failed> {
    let dir = tempfile::Builder::new()
        .prefix("otahost-bench-")
        .tempdir()?;
    let broker = Mosquitto::start()?;
    let files = Files::start();
    let ids: Vec<i64> = (1..).take(emus).collect();
    let spec = SiteSpec {
        downloads: vec![files.url("")],
        // The EMS itself is not updated; any key will do.
        trust: vec!["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".to_owned()],
        ..SiteSpec::new(UID, broker.port(), &ids)
    };
    let site = Site::create(dir.path(), &spec)?;
    let platform = Platform::connect(broker.port(), UID)?;
    let base = site::bases(UID)[0].clone();

    let start = Instant::now();
    site.machine.power_on()?;
    let list = first_answer(&platform, &base)?;
    let answers_after = start.elapsed().as_secs_f64();
    if list.as_array().map(Vec::len) != Some(emus) {
        return Err(format!("{emus} EMUs, and the agent tells {list}").into());
    }
    let config = site.machine.layout().config().display().to_string();
    let agent = Process::find(&built_program("otahost"), &[&config, "run"])?;
    let idle = agent.memory()?.rss as f64;

    let before = agent.cpu()?;
    let mut asked = Vec::new();
    for _ in 0..questions {
        let start = Instant::now();
        platform.ask(&base, Kind::EmuVersion, &emu_version(), PATIENCE)?;
        asked.push(start.elapsed().as_secs_f64());
    }
    let asked_cpu = agent.cpu()? - before;

    files.put("emu.zip", site::ZIP);
    let (url, md5) = (files.url("emu.zip"), site::md5_of(site::ZIP));
    let (before, wrote) = (agent.cpu()?, agent.written()?);
    let start = Instant::now();
    for id in &ids {
        platform.send(&base, Kind::EmuUpgrade, &emu_upgrade(*id, &url, &md5))?;
    }
    platform.await_count(Kind::EmuUpgrade, emus, PATIENCE)?;
    let updated = start.elapsed().as_secs_f64();
    let not_new = site.emus().filter(|emu| !emu.is_new()).count();
    if not_new > 0 || !platform.violations().is_empty() {
        let violations = platform.violations();
        return Err(format!("{not_new} of {emus} EMUs are not updated; {violations:?}").into());
    }
    Ok(Cost {
        emus,
        start: answers_after,
        asked,
        asked_cpu,
        updated,
        updated_cpu: agent.cpu()? - before,
        written: agent.written()? - wrote,
        idle,
        peak: agent.peak()? as f64,
    })
}

/// Asks until the agent hears.
fn first_answer(platform: &Platform, base: &str) -> Result<Value, PlatformError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let short = Duration::from_millis(500);
        match platform.ask(base, Kind::EmuVersion, &emu_version(), short) {
            Err(PlatformError::Timeout { .. }) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return Ok(result?.data),
        }
    }
}

impl Cost {
    fn lines(&self, questions: usize, smaller: Option<&Cost>) -> Vec<Line> {
        let emus = self.emus as f64;
        let grown = |pick: fn(&Cost) -> f64| {
            let smaller = smaller?;
            doubling([smaller.emus as f64, emus], [pick(smaller), pick(self)])
        };
        let what = |what: &str| match self.emus {
            1 => format!("1 EMU: {what}"),
            many => format!("{many} EMUs: {what}"),
        };
        let asked = Sample::new(self.asked.clone()).beside(
            "CPU",
            Unit::Seconds,
            vec![self.asked_cpu / questions as f64],
        );
        let updated = Sample::one(self.updated)
            .beside("CPU", Unit::Seconds, vec![self.updated_cpu])
            .beside("written", Unit::Bytes, vec![self.written as f64])
            .beside("for each", Unit::Bytes, vec![self.written as f64 / emus]);
        let peak = Sample::one(self.peak)
            .beside("idle", Unit::Bytes, vec![self.idle])
            .beside("first answer after", Unit::Seconds, vec![self.start]);
        let memory = Line::value(what("peak RSS meanwhile"), Unit::Bytes, peak)
            .doubled(grown(|cost| cost.peak));
        vec![
            Line::value(what("`emu_version` answered"), Unit::Seconds, asked)
                .doubled(grown(|cost| cost.asked_cpu)),
            Line::value(what("all updated at once"), Unit::Seconds, updated)
                .doubled(grown(|cost| cost.updated)),
            match self.emus {
                BUDGET_EMUS => memory.at_most(BUDGET),
                _ => memory,
            },
        ]
    }
}
