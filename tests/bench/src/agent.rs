//! Real agents for the rows: how they are configured, when they are ready.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
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

/// An agent in a machine of its own.
pub(crate) struct Agent {
    /// The machine. It is off at first.
    pub(crate) machine: Machine,
    adapters: usize,
    dir: TempDir,
}

impl Agent {
    /// With the adapters that these lines of configuration name.
    pub(crate) fn new(
        adapters: usize,
        make: impl FnOnce(&Path) -> Result<String, Failed>,
    ) -> Result<Self, Failed> {
        Self::with(adapters, NOBODY.to_owned(), Vec::new(), make)
    }

    /// The same with a key that it trusts, run by this program where one is named.
    pub(crate) fn with(
        adapters: usize,
        trust: String,
        runner: Vec<String>,
        make: impl FnOnce(&Path) -> Result<String, Failed>,
    ) -> Result<Self, Failed> {
        let dir = tempfile::Builder::new()
            .prefix("otahost-bench-")
            .tempdir()?;
        let socket = format!("socket = {}\n", json!(dir.path().join("socket")));
        let more = make(dir.path())?;
        let home = dir.path().join("machine");
        fs::create_dir(&home)?;
        let bare = MachineSpec::bare(SERIAL, "dock", &more);
        let spec = MachineSpec {
            trust: vec![trust],
            compatible: COMPATIBLE.to_owned(),
            agent: runner.into_iter().chain(bare.agent.clone()).collect(),
            ..bare
        };
        let machine = Machine::create(&home, spec, &Image::new("1.0.0", 4096))?;
        let config = machine.layout().config();
        let text = fs::read_to_string(&config)?;
        fs::write(
            &config,
            text.replacen("[device]\n", &format!("[device]\n{socket}"), 1),
        )?;
        Ok(Agent {
            machine,
            adapters,
            dir,
        })
    }

    /// With so many rogues (the adapter of the tests), which listen on `rogueN/do` and answer on `rogueN/out`.
    pub(crate) fn rogues(adapters: usize, broker: u16) -> Result<Self, Failed> {
        Self::new(adapters, |_| {
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
    pub(crate) fn start(&self) -> Result<f64, Failed> {
        let start = Instant::now();
        self.machine.power_on()?;
        self.await_ready(start)
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
                if reply["reply"] == "status" && self.is_ready(&reply["value"]) {
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

    fn is_ready(&self, status: &Value) -> bool {
        let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
        // One that was set aside was loaded from nowhere.
        let runs = |adapter: &&Value| {
            adapter["loaded"]
                .as_str()
                .is_some_and(|how| !how.is_empty())
        };
        list("adapters").iter().filter(runs).count() == self.adapters
            && list("links").iter().all(|link| link["up"] == true)
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
        Process::find(&built_program("otahost"), &[&config, "run"])
    }

    /// How its adapters were loaded: `cached`, or why they were compiled.
    pub(crate) fn loaded(&self) -> Result<Vec<String>, Failed> {
        let reply = self.ask(&json!({ "request": "status" }))?;
        let adapters = reply["value"]["adapters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let word = |adapter: &Value| adapter["loaded"].as_str().unwrap_or_default().to_owned();
        Ok(adapters.iter().map(word).collect())
    }
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

/// A port that was free just now.
pub(crate) fn free_port() -> Result<u16, Failed> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
