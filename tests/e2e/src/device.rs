//! One device as it stands in the field, and everything around it: a machine with a real agent, a real broker, the vendor's cloud and
//! a file server. A test says what happens and what has to hold; here is what every such test would otherwise repeat.
//!
//! Each device has a broker of its own: the cloud of the lab listens to every gateway on its broker, and a test may kill it.

use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use otahost_lab::cloud::{Cloud, Ids, Progress, Reply, Status};
use otahost_lab::files::Files;
use otahost_lab::image::{Described, Image};
use otahost_lab::machine::{Machine, MachineSpec, SlotState, built_program};
use otahost_lab::mosquitto::{Mosquitto, MosquittoOptions};
use otahost_lab::proxy::Proxy;
use otahost_lab::signing::{Claims, Publisher};
use serde_json::{Value, json};
use tempfile::TempDir;

/// For everything that has to happen: far longer than it takes, also on a machine that does much else, so that only what never
/// happens runs into it.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// Serial number of the gateway and of its one target: that of the vendor's example.
pub const SERIAL: &str = "NM1923221021";
/// What the factory installed, in slot `a`.
pub const OLD: &str = "1.0.0";
/// What the updates install: the version of the vendor's example.
pub const NEW: &str = "1.2.0.69";
/// Attempts without progress after which a download is given up, as the lab's machines are configured.
pub const ATTEMPTS: usize = 6;
const KIB: u64 = 1024;
/// How often something without an event of its own is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The device and its surroundings. Ends with its value; says what the agent logged when a test fails.
#[derive(Debug)]
pub struct Device {
    /// The machine the agent runs in.
    pub machine: Machine,
    /// The vendor's cloud.
    pub cloud: Cloud,
    /// Between the agent and the broker; the cloud is connected directly.
    pub proxy: Proxy,
    /// Where the images are. The device may download from it and from nowhere else.
    pub files: Files,
    /// The broker.
    pub broker: Mosquitto,
    publisher: Publisher,
    factory: Vec<u8>,
    dir: TempDir,
}

/// A file on the file server, as the platform describes it.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its name on the server.
    pub name: String,
    /// The version it is said to be.
    pub version: String,
    /// Its size and digests.
    pub file: Described,
}

impl Device {
    /// A device that runs [`OLD`] and is online.
    pub fn online() -> Self {
        let device = Self::off("");
        device.switch_on();
        device
    }

    /// A device that is switched off, with these lines more in the configuration of its target.
    pub fn off(target_lines: &str) -> Self {
        Self::off_at(MosquittoOptions::default(), target_lines)
    }

    /// The same at a broker of one's choice.
    pub fn off_at(options: MosquittoOptions, target_lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start_with(options).unwrap();
        let proxy = Proxy::to_port(broker.port());
        let files = Files::start();
        let publisher = Publisher::generate().unwrap();
        let spec = MachineSpec {
            trust: vec![publisher.public_key()],
            downloads: vec![files.url("")],
            ..MachineSpec::dock(SERIAL, proxy.port())
        };
        let home = dir.path().join("machine");
        fs::create_dir(&home).unwrap();
        let machine = Machine::create(&home, spec, &Image::new(OLD, 4 * KIB)).unwrap();
        let factory = fs::read(machine.layout().slot("a")).unwrap();
        let cloud = Cloud::connect(broker.port(), SERIAL).unwrap();
        let device = Device {
            machine,
            cloud,
            proxy,
            files,
            broker,
            publisher,
            factory,
            dir,
        };
        if !target_lines.is_empty() {
            device.configure(
                "[targets.dock]\n",
                &format!("[targets.dock]\n{target_lines}\n"),
            );
        }
        device
    }

    /// Replaces a part of the configuration, which must be there.
    pub fn configure(&self, part: &str, by: &str) {
        let path = self.machine.layout().config();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(part), "{part:?} is not in {text}");
        fs::write(path, text.replace(part, by)).unwrap();
    }

    /// Switches it on and waits until the cloud knows which version runs.
    pub fn switch_on(&self) {
        self.machine.power_on().unwrap();
        self.cloud.await_online(1, PATIENCE).unwrap();
        self.cloud.await_firmware(OLD, PATIENCE).unwrap();
    }

    /// Publishes an image that boots as `version`, signed by the publisher the device trusts.
    pub fn release(&self, version: &str, size: u64) -> Release {
        self.release_image(&Image::new(version, size), version)
    }

    /// The same for any image.
    pub fn release_image(&self, image: &Image, version: &str) -> Release {
        self.release_by(&self.publisher, image, version)
    }

    /// The same by any publisher.
    pub fn release_by(&self, publisher: &Publisher, image: &Image, version: &str) -> Release {
        let (raw, signed) = (self.dir.path().join("raw"), self.dir.path().join(version));
        image.write(&raw).unwrap();
        let claims = Claims {
            compatible: "evonest-dock".into(),
            version: version.into(),
            rollback_index: 1,
        };
        let file = publisher.sign(&raw, &signed, &claims).unwrap();
        self.serve(version, &fs::read(&signed).unwrap(), file)
    }

    /// Publishes an image that nobody has signed.
    pub fn release_unsigned(&self, version: &str, size: u64) -> Release {
        let path = self.dir.path().join(version);
        Image::new(version, size).write(&path).unwrap();
        let file = Described::of(&path).unwrap();
        self.serve(version, &fs::read(&path).unwrap(), file)
    }

    fn serve(&self, version: &str, bytes: &[u8], file: Described) -> Release {
        let name = format!("dock-{version}.img");
        self.files.put(&name, bytes);
        Release {
            name,
            version: version.into(),
            file,
        }
    }

    /// The file of a release on the device itself, as on a medium that was plugged in.
    pub fn medium(&self, release: &Release) -> String {
        self.dir.path().join(&release.version).display().to_string()
    }

    /// Starts the broker again, which has forgotten every session, and lets the agent connect only when the cloud is back: what is
    /// said while nobody subscribes is lost.
    pub fn restart_broker(&mut self) {
        let subscribed =
            |broker: &Mosquitto| broker.log().matches("Sending SUBACK to lab-cloud").count();
        self.proxy.refuse(true);
        self.broker.kill();
        let before = subscribed(&self.broker);
        self.broker.restart().unwrap();
        eventually("the cloud's subscriptions", || {
            subscribed(&self.broker) > before
        });
        self.proxy.refuse(false);
    }

    /// The entry of `ota_create` that orders this release for the device, with a signed address as platforms give it.
    pub fn order(&self, release: &Release) -> Value {
        json!({
            "sn": SERIAL, "product_version": release.version, "file_name": release.name, "file_size": release.file.size,
            "file_url": format!("{}?X-Signature=abc", self.files.url(&release.name)), "md5": release.file.md5, "firmware_upgrade_type": 3,
        })
    }

    /// Sends a command and waits for its reply.
    pub fn send(&self, message: &Value) -> Reply {
        let ids = self.cloud.send_ota_create(message).unwrap();
        self.cloud.await_reply(&ids, PATIENCE).unwrap()
    }

    /// Sends an order that has to be accepted; gives the ids.
    pub fn command(&self, order: &Value) -> Ids {
        let reply = self.send(&ota_create(&[order]));
        assert_eq!(reply.result, 0, "{}", reply.message);
        reply.ids
    }

    /// Waits for the last event of a business.
    pub fn end_of(&self, ids: &Ids) -> Progress {
        self.cloud.await_terminal(&ids.bid, PATIENCE).unwrap()
    }

    /// Sends an order and waits for its end, which has to be `ok`.
    pub fn update(&self, order: &Value) -> Ids {
        let ids = self.command(order);
        self.assert_ok(&ids);
        ids
    }

    /// The replies to these ids as they came, copies included.
    pub fn replies(&self, ids: &Ids) -> Vec<Value> {
        let replies = self.cloud.replies().into_iter();
        replies
            .filter(|reply| reply.ids == *ids)
            .map(|reply| reply.message)
            .collect()
    }

    /// A command on the same topic that gets an answer and does nothing else. What was sent before it has been handled when this
    /// returns: messages of one topic keep their order.
    pub fn ping(&self) {
        let reply = self.send(&json!({ "method": "no_such_method", "data": {} }));
        assert_eq!(reply.result, 314_000, "{}", reply.message);
    }

    /// Waits until this many requests for the release have been answered with a header.
    pub fn await_requests(&self, release: &Release, count: usize) {
        let path = format!("/public/{}", release.name);
        let there = self.files.wait_for(PATIENCE, |requests| {
            requests
                .iter()
                .filter(|r| r.path == path && r.status != 0)
                .count()
                >= count
        });
        assert!(
            there,
            "{count} requests for {path}; there were {:?}",
            self.files.requests()
        );
    }

    /// Waits until the server has sent this many bytes of files in all.
    pub fn await_sent(&self, bytes: u64) {
        let sent = self.files.wait_for(PATIENCE, |requests| {
            requests.iter().map(|r| r.sent).sum::<u64>() >= bytes
        });
        assert!(
            sent,
            "{bytes} bytes; there were {:?}",
            self.files.requests()
        );
    }

    /// Starts the agent's program with other arguments and the machine's configuration.
    pub fn cli(&self, arguments: &[&str]) -> Cli {
        Cli::on(&self.machine, arguments)
    }

    /// The answer of a command line to the end of which `--json` is put. It has to succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let said = self.cli(&[arguments, &["--json"]].concat()).end();
        assert!(said.status.success(), "{arguments:?}: {said:?}");
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {said:?}"))
    }

    /// The update has ended with `ok`, 100 and result 0.
    pub fn assert_ok(&self, ids: &Ids) {
        let end = self.end_of(ids);
        assert_eq!(
            (end.status, end.percent, end.result),
            (Status::Ok, 100, 0),
            "{}",
            end.message
        );
    }

    /// The update has failed with this code and this word.
    pub fn assert_failed(&self, ids: &Ids, code: i64, sub_status: &str) {
        let end = self.end_of(ids);
        assert_eq!(
            (end.status, end.result, end.sub_status.as_str()),
            (Status::Failed, code, sub_status),
            "{}",
            end.message
        );
    }

    /// This version runs from this slot, is confirmed, and the device says so.
    pub fn assert_runs(&self, version: &str, slot: &str) {
        self.cloud.await_firmware(version, PATIENCE).unwrap();
        assert_eq!(self.machine.version().as_deref(), Some(version));
        assert_eq!(self.machine.slot().as_deref(), Some(slot));
        let selector = self.machine.selector().unwrap();
        assert_eq!(selector.primary, slot);
        assert_eq!(selector.slots[slot].state, SlotState::Good);
    }

    /// Nothing was installed: what the factory put into slot `a` runs since the first boot and is what boots next, byte for byte;
    /// the other slot does not boot; and the cloud still hears the old version.
    pub fn assert_unchanged(&self) {
        assert_eq!(self.machine.boots().len(), 1, "{:?}", self.machine.boots());
        self.assert_runs(OLD, "a");
        assert_eq!(self.cloud.firmware_version().as_deref(), Some(OLD));
        assert_eq!(
            self.machine.selector().unwrap().slots["b"].state,
            SlotState::Bad
        );
        assert!(
            fs::read(self.machine.layout().slot("a")).unwrap() == self.factory,
            "the slot that runs was written to"
        );
    }

    /// The device kept to the protocol, the agent never ended by itself, and no event of its adapter failed.
    pub fn assert_well(&self) {
        assert_eq!(self.cloud.violations(), Vec::<String>::new());
        assert!(
            self.machine.crashes().is_empty(),
            "{:?}",
            self.machine.crashes()
        );
        assert!(self.machine.agent_runs());
        let adapter = &self.json(&["status"])["adapters"][0];
        assert_eq!(
            (&adapter["health"], &adapter["dead_letters"]),
            (&json!("running"), &json!(0)),
            "{adapter}"
        );
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if thread::panicking() {
            let text = fs::read_to_string(self.machine.layout().log()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!(
                "the agent's log:\n{}",
                lines[lines.len().saturating_sub(60)..].join("\n")
            );
            eprintln!("requests: {:#?}", self.files.requests());
        }
    }
}

/// An `ota_create` with these entries.
pub fn ota_create(orders: &[&Value]) -> Value {
    json!({ "method": "ota_create", "data": { "devices": orders } })
}

/// Looks until something without an event of its own is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        thread::sleep(LOOK);
    }
}

/// A command line that runs. It is killed when dropped.
#[derive(Debug)]
pub struct Cli {
    child: Child,
    output: TempDir,
}

/// How a command line ended.
#[derive(Debug)]
pub struct Said {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Said {
    /// The exit code.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

impl Cli {
    /// Starts the agent's program with these arguments and a machine's configuration.
    pub fn on(machine: &Machine, arguments: &[&str]) -> Self {
        let output = tempfile::tempdir().unwrap();
        // Into files: a pipe that nobody reads could hold it up.
        let file = |name| File::create(output.path().join(name)).unwrap();
        let child = Command::new(built_program("otahost"))
            .args(arguments)
            .arg("--config")
            .arg(machine.layout().config())
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap();
        Cli { child, output }
    }

    /// True while it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has printed so far.
    pub fn out(&self) -> String {
        fs::read_to_string(self.output.path().join("out")).unwrap()
    }

    /// Waits for its end.
    pub fn end(mut self) -> Said {
        let mut status = None;
        eventually("the end of a command line", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let read = |name| fs::read_to_string(self.output.path().join(name)).unwrap();
        Said {
            status: status.unwrap(),
            out: read("out"),
            err: read("err"),
        }
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
