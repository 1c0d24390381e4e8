//! The act of the adapter itself: its vendor publishes new releases, and the device takes them, and leaves a bad one, by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use otahost_lab::broker::Broker;
use otahost_lab::cloud::{Cloud, Ids, Status};
use otahost_lab::files::Files;
use otahost_lab::image::{Described, Image};
use otahost_lab::machine::{Machine, MachineSpec, built_program, target_dir};
use otahost_lab::signing::{Claims, Publisher};
use serde_json::{Value, json};

use crate::acts::check;
use crate::show;
use crate::world::{Failure, NEW, OLD, SMALL, World};

const SERIAL: &str = "NM1923221022";
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);
/// Between two commands of the cloud.
const PACE: Duration = Duration::from_millis(10);
/// What the agent says to a command that nobody knows: harmless, and answered by the adapter each time.
const UNKNOWN_METHOD: i64 = 314_000;

/// A dock whose adapter comes from a repository.
struct Dock {
    machine: Machine,
    cloud: Cloud,
    files: Files,
    publisher: Publisher,
    repository: PathBuf,
    keys: PathBuf,
    _broker: Broker,
}

/// `dji` 1.0.0 → 1.1.0 while commands come in; 1.2.0, which traps at them, is left again; and an update at the end.
pub(crate) fn act(world: &World) -> Result<(), Failure> {
    show::heading(
        "9. The adapter itself is updated while messages flow, and a release that fails is left",
    );
    let dir = world.path("adapters");
    fs::create_dir(&dir)?;
    let dock = Dock::build(&dir)?;
    dock.machine.power_on()?;
    dock.cloud.await_online(1, LIMIT)?;
    dock.await_version("1.0.0")?;
    show::line(&format!(
        "dji 1.0.0 runs; the device trusts {} and looks into the repository every second",
        "1.root.json"
    ));

    let (taken, first) = dock.while_commanded(|| {
        dock.publish("1.1.0")?;
        dock.await_version("1.1.0")
    })?;
    show::line(&format!(
        "dji 1.1.0 was published, verified, compiled in a process of its own and swapped in: {:.1} s, {} commands meanwhile",
        taken.as_secs_f64(),
        first.len()
    ));

    dock.publish("1.2.0")?;
    dock.await_version("1.2.0")?;
    show::line("dji 1.2.0 was published and taken too; it has a fault that only a command shows");
    let (back, second) = dock.while_commanded(|| dock.await_version("1.1.0"))?;
    let log = fs::read_to_string(dock.machine.layout().log())?;
    if !log.contains("version 1.2.0 was left for 1.1.0") {
        return Err("the log does not say why 1.2.0 was left".into());
    }
    show::line(&format!(
        "it trapped: {:.1} s later dji 1.1.0 is back with its state, and has answered what 1.2.0 could not",
        back.as_secs_f64()
    ));

    let mut answered = 0;
    for ids in first.iter().chain(&second) {
        dock.cloud.await_reply(ids, LIMIT)?;
        answered += 1;
    }
    for ids in first.iter().chain(&second) {
        let replies = dock.cloud.replies();
        let mut same = replies.iter().filter(|reply| reply.ids == *ids);
        let reply = same.next().ok_or("a reply is gone")?;
        check("the reply", reply.result, UNKNOWN_METHOD)?;
        if same.any(|copy| copy.message != reply.message) {
            return Err("a command was handled twice".into());
        }
    }
    dock.update()?;
    check("the version in the end", dock.version(), "1.1.0".to_owned())?;
    if let Some(crash) = dock.machine.crashes().first() {
        return Err(format!("the agent ended by itself: {crash}").into());
    }
    let violations = dock.cloud.violations();
    check("what the device did against the book", violations, vec![])?;
    show::held(&format!(
        "{answered} commands, {answered} answers, none twice; 1.2.0 is not taken again; 1.1.0 has updated the dock to {NEW}"
    ));
    Ok(())
}

impl Dock {
    fn build(dir: &Path) -> Result<Self, Failure> {
        let (repository, keys) = (dir.join("repository"), dir.join("keys"));
        adapter(&["keygen".as_ref(), keys.as_os_str()])?;
        let (broker, files) = (Broker::start(), Files::start());
        let publisher = Publisher::generate()?;
        let home = dir.join("machine");
        fs::create_dir(&home)?;
        let quoted = |path: &Path| Value::from(path.display().to_string());
        let root = repository.join("metadata/1.root.json");
        let spec = MachineSpec {
            trust: vec![publisher.public_key()],
            downloads: vec![files.url("")],
            component: release("1.0.0"),
            adapter_lines: "repository = \"vendor\"\n".to_owned(),
            more: format!(
                "\n[repositories.vendor]\ndirectory = {}\nroot = {}\nevery = \"1s\"\n",
                quoted(&repository),
                quoted(&root)
            ),
            ..MachineSpec::dock(SERIAL, broker.port())
        };
        let machine = Machine::create(&home, spec, &Image::new(OLD, SMALL))?;
        let dock = Dock {
            machine,
            cloud: Cloud::connect(broker.port(), SERIAL)?,
            files,
            publisher,
            repository,
            keys,
            _broker: broker,
        };
        // What runs already, so that there is a repository to trust.
        dock.publish("1.0.0")?;
        Ok(dock)
    }

    /// What the vendor does.
    fn publish(&self, version: &str) -> Result<(), Failure> {
        let component = release(version);
        adapter(&[
            "publish".as_ref(),
            self.repository.as_os_str(),
            component.as_os_str(),
            "--name".as_ref(),
            "dji".as_ref(),
            "--keys".as_ref(),
            self.keys.as_os_str(),
        ])?;
        let file = component.file_name().unwrap_or_default();
        show::line(&format!(
            "$ adapter publish repository {} --name dji --keys keys",
            file.display()
        ));
        Ok(())
    }

    /// The version of the adapter that runs; empty while no agent answers.
    fn version(&self) -> String {
        let said = self.machine.cli(&["adapter", "list", "--json"]);
        let list: Value = said
            .ok()
            .and_then(|said| serde_json::from_slice(&said.stdout).ok())
            .unwrap_or_default();
        list[0]["version"].as_str().unwrap_or_default().to_owned()
    }

    fn await_version(&self, version: &str) -> Result<(), Failure> {
        let until = Instant::now() + LIMIT;
        loop {
            let found = self.version();
            if found == version {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(
                    format!("dji {version} did not run within {LIMIT:?}; {found} does").into(),
                );
            }
            thread::sleep(LOOK);
        }
    }

    /// Does something while the cloud sends one command after another. Gives the time it took, and what was sent.
    fn while_commanded(
        &self,
        deed: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(Duration, Vec<Ids>), Failure> {
        let (over, began) = (AtomicBool::new(false), Instant::now());
        let message = json!({ "method": "no_such_method", "data": {} });
        thread::scope(|scope| {
            let teller = scope.spawn(|| {
                let mut sent = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    match self.cloud.send_ota_create(&message) {
                        Ok(ids) => sent.push(ids),
                        Err(error) => return Err(error.to_string()),
                    }
                    thread::sleep(PACE);
                }
                Ok(sent)
            });
            let done = deed();
            let took = began.elapsed();
            over.store(true, Ordering::Relaxed);
            let sent = teller.join().map_err(|_| "the teller ended")??;
            done.map(|()| (took, sent))
        })
    }

    /// An update of the dock, by the adapter that went through all this.
    fn update(&self) -> Result<(), Failure> {
        let (raw, signed) = (
            self.repository.with_file_name("raw"),
            self.repository.with_file_name("signed"),
        );
        Image::new(NEW, SMALL).write(&raw)?;
        let claims = Claims {
            compatible: "evonest-dock".to_owned(),
            version: NEW.to_owned(),
            rollback_index: 1,
        };
        let Described { size, md5, .. } = self.publisher.sign(&raw, &signed, &claims)?;
        self.files.put_file("dock", &signed)?;
        let order = json!({
            "sn": SERIAL, "product_version": NEW, "file_url": self.files.url("dock"), "file_size": size, "md5": md5,
            "file_name": "dock", "firmware_upgrade_type": 3,
        });
        let message = json!({ "method": "ota_create", "data": { "devices": [order] } });
        let reply = self.cloud.send_with_retries(&message)?;
        let end = self.cloud.await_terminal(&reply.ids.bid, LIMIT)?;
        check("the update", (end.status, end.percent), (Status::Ok, 100))?;
        let version = self.machine.version();
        check("the dock's version", version.as_deref(), Some(NEW))
    }
}

/// A release of the adapter, as xtask has built it.
fn release(version: &str) -> PathBuf {
    target_dir().join(format!("adapters/dji-{version}.wasm"))
}

/// Runs the vendor's tool.
fn adapter(arguments: &[&std::ffi::OsStr]) -> Result<(), Failure> {
    let output = Command::new(built_program("adapter"))
        .args(arguments)
        .output()
        .map_err(|e| format!("`adapter` cannot be run: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`adapter` failed: {}", said.trim()).into())
}
