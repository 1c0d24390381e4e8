//! Real agents for the rows: how they are configured, when they are ready.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use otahost_lab::image::Image;
use otahost_lab::machine::{Machine, MachineSpec, built_program, target_dir};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Failed;
use crate::proc::Process;

/// For a start, compilation of all adapters included.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// How often a start is looked at.
const LOOK: Duration = Duration::from_millis(2);
/// The device's name.
pub(crate) const SERIAL: &str = "NM1923221021";
/// The key of nobody, for agents on which nobody installs anything.
pub(crate) const NOBODY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
/// What its images must be signed as.
pub(crate) const COMPATIBLE: &str = "bench";

/// Where native code that this run's agents have made is kept for the next ones.
static CACHE: OnceLock<PathBuf> = OnceLock::new();
/// Where an agent keeps it, below its data directory.
const COMPILED: &str = "compiled";

/// Keeps what agents compile until the value is dropped, so that each adapter is compiled once in a run and not in every row.
///
/// # Errors
/// When there is no place for it.
pub(crate) fn keep_cache() -> Result<TempDir, Failed> {
    let dir = tempfile::Builder::new()
        .prefix("otahost-bench-")
        .tempdir()?;
    // Nobody makes a second one.
    let _ = CACHE.set(dir.path().to_owned());
    Ok(dir)
}

/// An agent that is to be.
#[derive(Debug)]
pub(crate) struct Spec {
    /// How many adapters its configuration will name.
    pub(crate) adapters: usize,
    /// The key that it trusts with images.
    pub(crate) trust: String,
    /// A program that runs it, with arguments; none: it runs by itself.
    pub(crate) runner: Vec<String>,
    /// Its own program.
    pub(crate) program: PathBuf,
    /// It finds nothing of this run's in its cache, and leaves nothing there.
    pub(crate) cold: bool,
}

impl Spec {
    /// The agent of this workspace, which trusts nobody.
    pub(crate) fn of(adapters: usize) -> Self {
        Spec {
            adapters,
            trust: NOBODY.to_owned(),
            runner: Vec::new(),
            program: built_program("otahost"),
            cold: false,
        }
    }
}

/// An agent in a machine of its own.
pub(crate) struct Agent {
    /// The machine. It is off at first.
    pub(crate) machine: Machine,
    spec: Spec,
    dir: TempDir,
}

impl Agent {
    /// With these lines of configuration, which may speak of files in the directory.
    pub(crate) fn new(
        spec: Spec,
        make: impl FnOnce(&Path) -> Result<String, Failed>,
    ) -> Result<Self, Failed> {
        let dir = tempfile::Builder::new()
            .prefix("otahost-bench-")
            .tempdir()?;
        let socket = format!("socket = {}\n", json!(dir.path().join("socket")));
        let more = make(dir.path())?;
        let home = dir.path().join("machine");
        fs::create_dir(&home)?;
        let program = spec.program.display().to_string();
        let of_machine = MachineSpec {
            trust: vec![spec.trust.clone()],
            compatible: COMPATIBLE.to_owned(),
            agent: spec.runner.iter().cloned().chain([program]).collect(),
            ..MachineSpec::bare(SERIAL, "dock", &more)
        };
        let machine = Machine::create(&home, of_machine, &Image::new("1.0.0", 4096))?;
        let config = machine.layout().config();
        let text = fs::read_to_string(&config)?;
        fs::write(
            &config,
            text.replacen("[device]\n", &format!("[device]\n{socket}"), 1),
        )?;
        let agent = Agent { machine, spec, dir };
        if let Some(kept) = agent.kept() {
            let own = agent.compiled();
            fs::create_dir_all(&own)?;
            copy_files(kept, &own)?;
        }
        Ok(agent)
    }

    /// What this run's agents have compiled, where it may know.
    fn kept(&self) -> Option<&'static Path> {
        let kept = CACHE.get()?;
        (!self.spec.cold).then_some(kept)
    }

    fn compiled(&self) -> PathBuf {
        self.machine.layout().data().join(COMPILED)
    }

    /// With so many rogues (the adapter of the tests), which listen on `rogueN/do` and answer on `rogueN/out`.
    pub(crate) fn rogues(adapters: usize, broker: u16) -> Result<Self, Failed> {
        Self::new(Spec::of(adapters), |_| {
            let mut text = link(broker);
            for n in 0..adapters {
                text.push_str(&format!(
                    "\n[adapters.rogue{n}]\ncomponent = {}\nconfig = {{ link = \"cloud\", prefix = \"rogue{n}\" }}\n\
                     [adapters.rogue{n}.grants]\nlinks.cloud.subscribe = [\"rogue{n}/do\"]\nlinks.cloud.publish = [\"rogue{n}/out\"]\n",
                    json!(component("rogue"))
                ));
            }
            Ok(text)
        })
    }

    /// Switches it on and waits until it answers with all adapters and links there; gives the seconds that took.
    ///
    /// # Errors
    /// When it does not come up, or an adapter does not run in it.
    pub(crate) fn start(&self) -> Result<f64, Failed> {
        let start = Instant::now();
        self.machine.power_on()?;
        let took = self.await_ready(start)?;
        if let Some(kept) = self.kept() {
            copy_files(&self.compiled(), kept)?;
        }
        Ok(took)
    }

    /// The same after a power cut.
    pub(crate) fn restart(&self) -> Result<f64, Failed> {
        self.machine.lose_power();
        self.start()
    }

    fn await_ready(&self, start: Instant) -> Result<f64, Failed> {
        let mut last = Value::Null;
        while start.elapsed() < PATIENCE {
            if let Ok(reply) = self.ask(&json!({ "request": "status" })) {
                if reply["reply"] == "status" && is_ready(&reply["value"], self.spec.adapters)? {
                    return Ok(start.elapsed().as_secs_f64());
                }
                last = reply;
            }
            thread::sleep(LOOK);
        }
        let log = fs::read_to_string(self.machine.layout().log()).unwrap_or_default();
        let log: Vec<&str> = log.lines().rev().take(5).collect();
        Err(format!(
            "the agent is not ready: {last}; its log ends (last first): {}",
            log.join(" | ")
        )
        .into())
    }

    /// Looks once more, after what was measured: all adapters run, and were loaded as `how` begins.
    ///
    /// # Errors
    /// When one does not run, or was loaded otherwise.
    pub(crate) fn all_run(&self, how: &str) -> Result<(), Failed> {
        let reply = self.ask(&json!({ "request": "status" }))?;
        if !is_ready(&reply["value"], self.spec.adapters)? {
            return Err(format!("not all adapters and links are there: {reply}").into());
        }
        for adapter in list(&reply["value"], "adapters") {
            let (name, loaded) = (word(adapter, "name"), word(adapter, "loaded"));
            if !loaded.starts_with(how) {
                return Err(format!("adapter {name} was loaded otherwise: {loaded}").into());
            }
        }
        Ok(())
    }

    /// One request to its local API; the first answer.
    pub(crate) fn ask(&self, request: &Value) -> Result<Value, Failed> {
        let mut stream = UnixStream::connect(self.dir.path().join("socket"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("{request}\n").as_bytes())?;
        for line in BufReader::new(stream).lines() {
            let line = line?;
            if !line.is_empty() {
                return Ok(serde_json::from_str(&line)?);
            }
        }
        Err("the agent hung up".into())
    }

    /// Its process.
    pub(crate) fn process(&self) -> Result<Process, Failed> {
        let config = self.machine.layout().config().display().to_string();
        Process::find(&self.spec.program, &[&config, "run"])
    }
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// From the answer to `status`: so many adapters run, and all links are up.
///
/// # Errors
/// When an adapter is set aside: it will not run, however long one waits.
fn is_ready(status: &Value, adapters: usize) -> Result<bool, Failed> {
    let mut running = 0;
    for adapter in list(status, "adapters") {
        if let Some(why) = adapter["health"]["set-aside"]["why"].as_str() {
            let name = word(adapter, "name");
            return Err(format!("adapter {name} does not run: {why}").into());
        }
        running +=
            usize::from(adapter["health"] == "running" && !word(adapter, "loaded").is_empty());
    }
    Ok(running == adapters && list(status, "links").iter().all(|link| link["up"] == true))
}

/// Copies files that are not there yet.
fn copy_files(from: &Path, to: &Path) -> Result<(), Failed> {
    let Ok(entries) = fs::read_dir(from) else {
        // An agent without adapters has compiled nothing.
        return Ok(());
    };
    for entry in entries {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if !copy.exists() {
            fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}

/// The MQTT link `cloud`.
pub(crate) fn link(broker: u16) -> String {
    format!(
        "\n[links.cloud]\nkind = \"mqtt\"\nurl = \"mqtt://127.0.0.1:{broker}\"\nbackoff_first = \"100ms\"\nbackoff_max = \"1s\"\n"
    )
}

/// A component that `cargo xtask adapters` has built.
pub(crate) fn component(name: &str) -> PathBuf {
    target_dir().join(format!("adapters/{name}.wasm"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn status(healths: &[Value]) -> Value {
        let adapters: Vec<Value> = healths
            .iter()
            .map(|health| json!({ "name": "a", "loaded": "cached", "health": health }))
            .collect();
        json!({ "adapters": adapters, "links": [{ "up": true }] })
    }

    #[test]
    fn an_agent_is_ready_when_all_its_adapters_run_and_its_links_are_up() {
        let two = status(&[json!("running"), json!("running")]);
        assert!(is_ready(&two, 2).unwrap());
        assert!(!is_ready(&two, 3).unwrap());
        let failing = json!({ "failing": { "last-failure": "x" } });
        assert!(!is_ready(&status(&[json!("running"), failing]), 2).unwrap());
        let mut down = two;
        down["links"][0]["up"] = json!(false);
        assert!(!is_ready(&down, 2).unwrap());
    }

    #[test]
    fn an_adapter_that_is_set_aside_fails_the_row_with_the_reason() {
        let aside = json!({ "set-aside": { "why": "its configuration is wrong" } });
        let error = is_ready(&status(&[json!("running"), aside]), 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "adapter a does not run: its configuration is wrong"
        );
    }
}
