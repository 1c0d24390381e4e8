//! Many devices behind one: what an agent with 1, 100 and 1,000 EMUs costs, idle, asked for all of them, and updating all at once.
//!
//! The real agent as a process of its own, with the real mosquitto. Times are told as ratios to the one with a single EMU, on the same
//! machine in the same run; memory is what the kernel says of the process.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use otahost_lab::files::Files;
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::wudun::site::{self, Site, SiteSpec};
use otahost_lab::wudun::{Kind, Platform, PlatformError, emu_upgrade, emu_version};
use serde_json::{Value, json};

use crate::ratio::median;

/// Of §10 of the design, in bytes: 1,000 updating at once.
const BUDGET: u64 = 100_000_000;
const UID: &str = "bench";
/// How long anything may take before the run counts as failed.
const PATIENCE: Duration = Duration::from_secs(600);
/// Every process of Linux counts its time in hundredths of a second (`USER_HZ`).
const TICK: f64 = 0.01;

/// What one number of EMUs costs.
#[derive(Debug)]
struct Cost {
    emus: usize,
    /// From the start of the process to its first answer.
    start: f64,
    /// From an `ota/emu_version` to its answer.
    asked: Vec<f64>,
    /// Time of the processor that one such answer takes the agent.
    asked_cpu: f64,
    /// All updates, from the first command to the last result.
    updated: f64,
    /// Time of the processor for all of them.
    updated_cpu: f64,
    /// Bytes that the agent had written for them, packages included.
    written: u64,
    /// Resident when idle, and at the most.
    idle: u64,
    peak: u64,
}

/// The row.
#[derive(Debug)]
pub(crate) struct Emus {
    costs: Vec<Cost>,
}

/// Measures it.
///
/// # Errors
/// When something does not run or an update fails: then there is no row.
pub(crate) fn measure(quick: bool) -> Result<Emus, Box<dyn Error>> {
    let sizes: &[usize] = if quick {
        &[1, 10, 100]
    } else {
        &[1, 100, 1_000]
    };
    let mut costs = Vec::new();
    for emus in sizes {
        let cost = cost(*emus, if quick { 10 } else { 50 })?;
        eprintln!("{}", cost.text());
        costs.push(cost);
    }
    Ok(Emus { costs })
}

fn cost(emus: usize, questions: usize) -> Result<Cost, Box<dyn Error>> {
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
    let agent = Process::of(&site.machine.layout().config())?;
    let idle = agent.status("VmRSS:")?;

    let before = agent.cpu()?;
    let mut asked = Vec::new();
    for _ in 0..questions {
        let start = Instant::now();
        platform.ask(&base, Kind::EmuVersion, &emu_version(), PATIENCE)?;
        asked.push(start.elapsed().as_secs_f64());
    }
    #[allow(clippy::cast_precision_loss, reason = "a few questions")]
    let asked_cpu = (agent.cpu()? - before) / questions as f64;

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
        peak: agent.status("VmHWM:")?,
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
    fn text(&self) -> String {
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let mb = |bytes: u64| bytes as f64 / 1e6;
        format!(
            "{:>5} EMUs: emu_version {:.2} ms ({:.2} ms of the processor); all updated in {:.2} s ({:.2} s of the processor, {:.1} MB \
             written); resident {:.1} MB idle, {:.1} MB at the most; first answer after {:.2} s",
            self.emus,
            median(&self.asked) * 1e3,
            self.asked_cpu * 1e3,
            self.updated,
            self.updated_cpu,
            mb(self.written),
            mb(self.idle),
            mb(self.peak),
            self.start,
        )
    }

    fn json(&self) -> Value {
        json!({
            "emus": self.emus,
            "start_seconds": self.start,
            "emu_version_seconds": self.asked,
            "emu_version_cpu_seconds": self.asked_cpu,
            "all_updated_seconds": self.updated,
            "all_updated_cpu_seconds": self.updated_cpu,
            "written_bytes": self.written,
            "idle_rss_bytes": self.idle,
            "peak_rss_bytes": self.peak,
        })
    }
}

impl Emus {
    fn peak(&self) -> u64 {
        self.costs
            .iter()
            .map(|cost| cost.peak)
            .max()
            .unwrap_or_default()
    }

    /// Times of a list against that of the first number of EMUs.
    fn ratios(&self) -> Vec<(usize, f64)> {
        let Some((one, more)) = self.costs.split_first() else {
            return Vec::new();
        };
        let ratio = |cost: &Cost| (cost.emus, median(&cost.asked) / median(&one.asked));
        more.iter().map(ratio).collect()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let sizes: Vec<String> = self.costs.iter().map(|c| c.emus.to_string()).collect();
        let mut text = format!("{} EMUs behind one EMS\n", sizes.join(", "));
        for cost in &self.costs {
            text.push_str(&cost.text());
            text.push('\n');
        }
        for (emus, ratio) in self.ratios() {
            text.push_str(&format!("  emu_version {emus}:1  {ratio:.2}\n"));
        }
        let peak = self.peak();
        let verdict = if peak <= BUDGET { "within" } else { "OVER" };
        #[allow(clippy::cast_precision_loss, reason = "for people")]
        let mb = peak as f64 / 1e6;
        text.push_str(&format!(
            "  resident at the most {mb:.1} MB: {verdict} the budget of {} MB",
            BUDGET / 1_000_000
        ));
        text
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let costs: Vec<Value> = self.costs.iter().map(Cost::json).collect();
        let ratios: Vec<Value> = self
            .ratios()
            .into_iter()
            .map(|(emus, ratio)| json!({ "emus": emus, "to_one": ratio }))
            .collect();
        json!({
            "name": "EMUs behind one EMS, updating all at once",
            "costs": costs,
            "emu_version_ratios": ratios,
            "peak_rss_bytes": self.peak(),
            "budget_bytes": BUDGET,
            "within": self.peak() <= BUDGET,
        })
    }
}

/// What the kernel says of a process.
struct Process(u32);

impl Process {
    /// The agent that runs with this configuration.
    fn of(config: &Path) -> Result<Self, Box<dyn Error>> {
        let wanted = config.display().to_string();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            // Processes come and go meanwhile.
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).collect();
            if words.contains(&wanted.as_bytes()) && words.contains(&&b"run"[..]) {
                return Ok(Process(id));
            }
        }
        Err(format!("no process runs with {wanted}").into())
    }

    fn read(&self, name: &str) -> Result<String, Box<dyn Error>> {
        Ok(fs::read_to_string(format!("/proc/{}/{name}", self.0))?)
    }

    /// Bytes that a line of `status` tells in KiB.
    fn status(&self, line: &str) -> Result<u64, Box<dyn Error>> {
        let text = self.read("status")?;
        let value = text
            .lines()
            .find_map(|found| found.strip_prefix(line)?.trim().strip_suffix(" kB"));
        Ok(value
            .ok_or("no such line in status")?
            .trim()
            .parse::<u64>()?
            * 1024)
    }

    /// Seconds of the processor, without those of programs it ran.
    fn cpu(&self) -> Result<f64, Box<dyn Error>> {
        let text = self.read("stat")?;
        // Behind the name, which may hold anything: state is the first, utime the 12th, stime the 13th.
        let rest = text.rsplit_once(") ").ok_or("no name in stat")?.1;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks * TICK)
    }

    /// Bytes it had written to the disk.
    fn written(&self) -> Result<u64, Box<dyn Error>> {
        let text = self.read("io")?;
        let value = text.lines().find_map(|l| l.strip_prefix("write_bytes: "));
        Ok(value.ok_or("no write_bytes in io")?.trim().parse()?)
    }
}
