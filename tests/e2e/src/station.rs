//! A device whose one adapter is `rogue`, with a real agent, and a publisher of new versions of that adapter. The adapter is told over
//! HTTP, so that every command has its answer: one that is lost shows at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use otahost_adapter_cli::publish::{Publish, Published, keygen, publish};
use otahost_lab::broker::free_port;
use otahost_lab::centre::Centre;
use otahost_lab::image::Image;
use otahost_lab::machine::{Machine, MachineSpec};
use otahost_lab::mosquitto::Mosquitto;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::device::{Cli, Said, eventually};
use crate::{component, component_path};

/// What the adapter may do.
pub const GRANTS: &str = r#"
[adapters.rogue.grants]
links.cloud.subscribe = ["rogue/do"]
links.cloud.publish = ["rogue/out"]
links.web.serve = ["POST /rogue/do"]
"#;

/// The device and its broker. Ends with its value; says what the agent logged when a test fails.
#[derive(Debug)]
pub struct Station {
    /// The machine the agent runs in.
    pub machine: Machine,
    caller: Centre,
    _broker: Mosquitto,
    dir: TempDir,
}

impl Station {
    /// A device that is off. `more` stands in the adapter's table, `tables` behind all others; the adapter's component is a copy that
    /// belongs to this device.
    pub fn off(more: &str, tables: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start().unwrap();
        let port = free_port();
        fs::write(dir.path().join("rogue.wasm"), component("rogue")).unwrap();
        let text = format!(
            r#"
[links.cloud]
kind = "mqtt"
url = "mqtt://127.0.0.1:{broker}"
backoff_first = "100ms"
backoff_max = "1s"

[links.web]
kind = "http_server"
listen = "127.0.0.1:{port}"
anonymous = true
per_minute = 100000

[adapters.rogue]
component = {rogue}
config = {{ link = "cloud", prefix = "rogue", web = "web" }}
{more}
{GRANTS}
{tables}
"#,
            broker = broker.port(),
            rogue = json!(dir.path().join("rogue.wasm")),
        );
        let home = dir.path().join("machine");
        fs::create_dir(&home).unwrap();
        // Its image is never updated here.
        let spec = MachineSpec {
            trust: vec!["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".into()],
            ..MachineSpec::bare("station-1", "dock", &text)
        };
        let machine = Machine::create(&home, spec, &Image::new("1.0.0", 4096)).unwrap();
        Station {
            machine,
            caller: Centre::new(port, "", "", ""),
            _broker: broker,
            dir,
        }
    }

    /// Switches it on and waits until its adapter answers.
    pub fn on(self) -> Self {
        self.machine.power_on().unwrap();
        self.await_answer();
        self
    }

    /// Waits until the adapter answers.
    pub fn await_answer(&self) {
        eventually("an answer", || {
            self.caller
                .call("POST", "/rogue/do", b"echo there")
                .is_ok_and(|answer| answer.status == 200)
        });
    }

    /// A place for the test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configured component.
    pub fn component(&self) -> PathBuf {
        self.dir.path().join("rogue.wasm")
    }

    /// Tells the adapter something; what it answers.
    pub fn tell(&self, command: &str) -> String {
        let answer = self
            .caller
            .call("POST", "/rogue/do", command.as_bytes())
            .unwrap();
        let body = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 200, "{command}: {body}");
        body
    }

    /// Replaces a part of the configuration, which must be there.
    pub fn configure(&self, part: &str, by: &str) {
        let path = self.machine.layout().config();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(part), "{part:?} is not in {text}");
        fs::write(path, text.replace(part, by)).unwrap();
    }

    /// Starts the agent anew in the same boot.
    pub fn restart(&self) {
        self.machine.kill_agent().unwrap();
        self.machine.start_agent().unwrap();
        self.await_answer();
    }

    /// A command line and how it ended. It finds the agent whatever the configuration says by now.
    pub fn cli(&self, arguments: &[&str]) -> Said {
        let socket = self.machine.layout().data().join("otahost.sock");
        let socket = socket.display().to_string();
        let arguments = [&["--socket", socket.as_str()][..], arguments].concat();
        Cli::on(&self.machine, &arguments).end()
    }

    /// The status; null while no agent answers.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.cli(&["status", "--json"]).out).unwrap_or_default()
    }

    /// How the adapter stands.
    pub fn adapter(&self) -> Value {
        self.status()["adapters"][0].clone()
    }

    /// The adapter's version.
    pub fn version(&self) -> String {
        self.adapter()["version"]
            .as_str()
            .unwrap_or_default()
            .into()
    }

    /// Waits until this version of the adapter runs.
    pub fn await_version(&self, version: &str) {
        eventually(&format!("version {version}"), || self.version() == version);
    }

    /// Waits until the one repository says this of its last look.
    pub fn await_words(&self, words: &str) {
        let mut said = String::new();
        eventually(&format!("{words:?} of the repository"), || {
            let now = self.status()["repositories"][0]["text"].to_string();
            if now != said {
                eprintln!("repository: {now}");
                said = now;
            }
            said.contains(words)
        });
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = fs::read_to_string(self.machine.layout().log()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("the agent's log:\n{}", last.join("\n"));
        }
    }
}

/// Who publishes versions of `rogue`. Its repository is a directory of its own.
#[derive(Debug)]
pub struct Vendor {
    dir: TempDir,
    /// How long what it publishes from now on is valid, and when it was signed.
    pub valid: (Duration, SystemTime),
}

impl Vendor {
    /// A publisher with keys of its own, and nothing published.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        keygen(&dir.path().join("keys")).unwrap();
        Vendor {
            dir,
            valid: (Duration::from_secs(3_600), SystemTime::now()),
        }
    }

    /// Publishes these components as versions of `rogue`; without any it signs again what is there.
    pub fn publish(&self, components: &[&str]) {
        let mut published = None;
        for component in components {
            let path = component_path(component);
            published = Some(self.sign(vec![path], Some("rogue")));
        }
        published.unwrap_or_else(|| self.sign(Vec::new(), None));
    }

    fn sign(&self, components: Vec<PathBuf>, name: Option<&str>) -> Published {
        let request = Publish {
            components,
            name: name.map(str::to_owned),
            expires: self.valid.0,
            now: self.valid.1,
            ..Publish::new(self.repository(), self.dir.path().join("keys"))
        };
        publish(&request, &mut |_| ()).unwrap()
    }

    /// The repository.
    pub fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    /// The first root of it, for devices to trust.
    pub fn root(&self) -> PathBuf {
        self.repository().join("metadata/1.root.json")
    }

    /// Path below the repository and content of every file.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(self.repository().join(&folder)).unwrap() {
                let name = folder.join(entry.unwrap().file_name());
                let path = self.repository().join(&name);
                if path.is_dir() {
                    folders.push(name);
                } else {
                    files.push((name.display().to_string(), fs::read(path).unwrap()));
                }
            }
        }
        // As they are published: the one that says what is newest comes last.
        files.sort_by_key(|(name, _)| (name.ends_with("timestamp.json"), name.clone()));
        files
    }

    /// Makes a directory a copy of the repository, as on a medium that is plugged in: at once.
    pub fn plug_in(&self, directory: &Path) {
        let copy = directory.with_extension("copy");
        for (name, bytes) in self.files() {
            let path = copy.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let old = directory.with_extension("old");
        if directory.exists() {
            fs::rename(directory, &old).unwrap();
            fs::remove_dir_all(old).unwrap();
        }
        fs::rename(copy, directory).unwrap();
    }
}

impl Default for Vendor {
    fn default() -> Self {
        Self::new()
    }
}
