//! One kit of the 112 system as it stands in a vehicle: a machine with a real agent, the `kit112` adapter, and the centre that calls
//! it. Where its updates come from, a real vsftpd or the lab's strict server, is the test's.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::thread;
use std::time::Duration;

use otahost_lab::broker::free_port;
use otahost_lab::centre::Centre;
use otahost_lab::image::{Described, Image};
use otahost_lab::machine::{Machine, MachineSpec, SlotState, built_adapter, built_program};
use otahost_lab::signing::{Claims, Publisher};
use otahost_lab::tls::CA_PEM;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::device::eventually;

/// For everything that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Name of the device.
pub const DEVICE: &str = "kit-7";
/// The kit id of the vendor's page, which is no UUID.
pub const KIT_ID: &str = "d8110f9d-d5ce-4451-ab12-d5881d-dfe4d6";
/// The page's old version: what the factory installed, in slot `a`.
pub const OLD: &str = "0.0.21";
/// The page's new version.
pub const NEW: &str = "0.0.22";
/// What the kit's images must be signed as.
pub const COMPATIBLE: &str = "kit-model-1";
/// Who the centre says it is.
pub const CALLER: &str = "centre";
const KIB: u64 = 1024;

/// What a test decides before the kit is made.
#[derive(Debug, Clone)]
pub struct KitSpec {
    /// Port of the update server on 127.0.0.1.
    pub server: u16,
    /// The kit's user there.
    pub user: String,
    /// That user's password.
    pub password: String,
    /// What the centre's calls have to bring.
    pub call_password: String,
    /// More lines of the target.
    pub target_lines: String,
    /// More lines of the listener's link.
    pub listener_lines: String,
    /// More lines of the update server's link.
    pub server_lines: String,
    /// More lines of the adapter's configuration.
    pub config_lines: String,
    /// More tables.
    pub tables: String,
    /// What stands before `/updateDevice`.
    pub base_path: String,
    /// What the agent logs: `OTAHOST_LOG`.
    pub log: String,
    /// What the factory installed.
    pub factory: String,
}

impl KitSpec {
    /// A kit whose updates are on this server, with credentials that the test makes up.
    pub fn new(server: u16, user: &str, password: &str) -> Self {
        KitSpec {
            server,
            user: user.into(),
            password: password.into(),
            call_password: "Zil-Calar-0815".into(),
            target_lines: String::new(),
            listener_lines: String::new(),
            server_lines: String::new(),
            config_lines: String::new(),
            tables: String::new(),
            base_path: String::new(),
            log: "info".into(),
            factory: OLD.into(),
        }
    }
}

/// A signed file of the kit model's folder.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its name there.
    pub name: String,
    /// Its bytes, signed.
    pub bytes: Vec<u8>,
    /// What a slot holds of it.
    pub payload: Vec<u8>,
    /// Size and digests of the signed file.
    pub file: Described,
}

/// The kit and its centre. Ends with its value; says what the agent logged when a test fails.
#[derive(Debug)]
pub struct Kit {
    /// The machine the agent runs in.
    pub machine: Machine,
    /// The centre that calls it.
    pub centre: Centre,
    publisher: Publisher,
    factory: Vec<u8>,
    dir: TempDir,
}

impl Kit {
    /// A kit that is switched off.
    pub fn off(spec: &KitSpec) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("machine");
        fs::create_dir(&home).unwrap();
        let publisher = Publisher::generate().unwrap();
        let port = free_port();
        let agent = built_program("otahost").display().to_string();
        let log = format!("OTAHOST_LOG={}", spec.log);
        let machine_spec = MachineSpec {
            compatible: COMPATIBLE.into(),
            trust: vec![publisher.public_key()],
            agent: vec!["/usr/bin/env".into(), log, agent],
            ..MachineSpec::bare(DEVICE, "kit", &tables(spec, port, dir.path()))
        };
        let image = Image::new(&spec.factory, 4 * KIB);
        let machine = Machine::create(&home, machine_spec, &image).unwrap();
        let factory = fs::read(machine.layout().slot("a")).unwrap();
        let mut centre = Centre::new(port, KIT_ID, CALLER, &spec.call_password);
        centre.base_path.clone_from(&spec.base_path);
        let kit = Kit {
            machine,
            centre,
            publisher,
            factory,
            dir,
        };
        if !spec.target_lines.is_empty() {
            let path = kit.machine.layout().config();
            let text = fs::read_to_string(&path).unwrap();
            let head = "[targets.kit]\n";
            assert!(text.contains(head), "{text}");
            let with = format!("{head}{}\n", spec.target_lines);
            fs::write(path, text.replace(head, &with)).unwrap();
        }
        kit
    }

    /// A kit that runs what the factory installed, and says so.
    pub fn on(spec: &KitSpec) -> Self {
        let kit = Kit::off(spec);
        kit.machine.power_on().unwrap();
        kit.await_version(&spec.factory);
        kit
    }

    /// A path of the test's own beside the machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An image that boots as `version`, signed by the publisher that the kit trusts.
    pub fn release(&self, version: &str, size: u64) -> Release {
        self.release_image(&Image::new(version, size), version)
    }

    /// The same for any image.
    pub fn release_image(&self, image: &Image, version: &str) -> Release {
        self.sign(&self.publisher, COMPATIBLE, image, version)
    }

    /// The same for another model.
    pub fn release_for(&self, compatible: &str, image: &Image, version: &str) -> Release {
        self.sign(&self.publisher, compatible, image, version)
    }

    /// The same by somebody else.
    pub fn release_by(&self, publisher: &Publisher, image: &Image, version: &str) -> Release {
        self.sign(publisher, COMPATIBLE, image, version)
    }

    fn sign(
        &self,
        publisher: &Publisher,
        compatible: &str,
        image: &Image,
        version: &str,
    ) -> Release {
        let (raw, signed) = (self.path("raw"), self.path("signed"));
        image.write(&raw).unwrap();
        let claims = Claims {
            compatible: compatible.into(),
            version: version.into(),
            rollback_index: 1,
        };
        let file = publisher.sign(&raw, &signed, &claims).unwrap();
        Release {
            name: format!("kit-{version}.img"),
            bytes: fs::read(&signed).unwrap(),
            payload: fs::read(&raw).unwrap(),
            file,
        }
    }

    /// The centre's call, which has to be accepted; gives `data`.
    pub fn update(&self) -> Value {
        let answer = self.centre.update_device().unwrap();
        let mut envelope = answer.envelope().unwrap();
        assert_eq!(answer.status, 200, "{envelope}");
        envelope["data"].take()
    }

    /// The centre's call, which has to be answered with this status and the page's envelope.
    pub fn refused(&self, status: u16) -> Value {
        let answer = self.centre.update_device().unwrap();
        let envelope = answer.envelope().unwrap();
        assert_eq!(answer.status, status, "{envelope}");
        envelope
    }

    /// What `healthCheck` says.
    pub fn health(&self) -> Value {
        self.centre.ask("/healthCheck").unwrap()
    }

    /// Waits until `getDeviceInfo` says this version.
    pub fn await_version(&self, version: &str) {
        self.centre.await_version(version, PATIENCE).unwrap();
    }

    /// Waits until no update runs. Before an update is over the kit says no other version.
    pub fn await_idle(&self) -> Value {
        let mut health = Value::Null;
        eventually("a kit that is not updating", || {
            health = self.centre.ask("/healthCheck").unwrap_or_default();
            health["updating"] == json!(false)
        });
        health
    }

    /// Waits until `healthCheck` tells of an update that ended so; gives `lastUpdate`.
    pub fn await_last_update(&self, outcome: &str) -> Value {
        let mut last = Value::Null;
        eventually(&format!("an update that ended {outcome}"), || {
            let health = self.centre.ask("/healthCheck").unwrap_or_default();
            last = health["lastUpdate"].clone();
            last["outcome"] == json!(outcome)
        });
        last
    }

    /// The answer of a command line with `--json`, which has to succeed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let said = self.cli(&[arguments, &["--json"]].concat());
        assert!(said.status.success(), "{arguments:?}: {said:?}");
        serde_json::from_slice(&said.stdout).unwrap()
    }

    /// Runs the command line to its end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.machine.cli(arguments).unwrap()
    }

    /// The newest job.
    pub fn job(&self) -> Value {
        self.json(&["jobs"])[0].clone()
    }

    /// Waits until the newest job is in this phase.
    pub fn await_job(&self, phase: &str) -> Value {
        let mut job = Value::Null;
        eventually(&format!("a job that is {phase}"), || {
            let said = self.cli(&["jobs", "--json"]);
            let jobs: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
            job = jobs[0].clone();
            job["phase"] == json!(phase)
        });
        job
    }

    /// What the agent logged, all boots.
    pub fn log(&self) -> String {
        fs::read_to_string(self.machine.layout().log()).unwrap_or_default()
    }

    /// Waits until the agent has logged this so many times.
    pub fn await_log(&self, text: &str, times: usize) {
        eventually(&format!("{text:?} in the log, {times} times"), || {
            self.log().matches(text).count() >= times
        });
    }

    /// Everything that was decided before is durable when this returns: commits keep their order.
    pub fn settle(&self) {
        let said = self.cli(&["clear", "kit", "no-such-image"]);
        assert!(said.status.success(), "{said:?}");
    }

    /// Ends the agent as a crash does, and starts it again in the same boot.
    pub fn crash(&self) {
        self.machine.kill_agent().unwrap();
        self.machine.start_agent().unwrap();
    }

    /// This version runs from this slot and is confirmed; the kit says so, and updates no more.
    pub fn assert_runs(&self, version: &str, slot: &str) {
        self.await_version(version);
        self.await_idle();
        assert_eq!(self.centre.version().as_deref(), Some(version));
        assert_eq!(self.machine.version().as_deref(), Some(version));
        assert_eq!(self.machine.slot().as_deref(), Some(slot));
        let selector = self.machine.selector().unwrap();
        assert_eq!(selector.primary, slot);
        assert_eq!(selector.slots[slot].state, SlotState::Good);
    }

    /// The slot holds this release, byte for byte.
    pub fn assert_holds(&self, slot: &str, release: &Release) {
        let held = fs::read(self.machine.layout().slot(slot)).unwrap();
        let same = held.get(..release.payload.len()) == Some(&release.payload[..]);
        assert!(same, "slot {slot} does not hold {}", release.name);
    }

    /// Nothing was installed, and what the factory installed still runs in its first boot.
    pub fn assert_unchanged(&self) {
        assert_eq!(self.machine.boots().len(), 1, "{:?}", self.machine.boots());
        let selector = self.machine.selector().unwrap();
        assert_eq!(selector.primary, "a");
        assert_eq!(selector.slots["b"].state, SlotState::Bad);
        assert!(
            fs::read(self.machine.layout().slot("a")).unwrap() == self.factory,
            "the slot that runs was written to"
        );
    }

    /// The agent never ended by itself, and no event of its adapter failed.
    pub fn assert_well(&self) {
        let crashes = self.machine.crashes();
        assert!(crashes.is_empty(), "{crashes:?}");
        let adapter = &self.json(&["status"])["adapters"][0];
        assert_eq!(
            (&adapter["health"], &adapter["dead_letters"]),
            (&json!("running"), &json!(0)),
            "{adapter}"
        );
    }
}

impl Drop for Kit {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("the agent's log:\n{}", last.join("\n"));
        }
    }
}

/// The links, the adapter and its grants; the secrets are files in `dir`.
fn tables(spec: &KitSpec, port: u16, dir: &Path) -> String {
    let secret = |name: &str, value: &str| {
        let path = dir.join(name);
        fs::write(&path, format!("{value}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        format!("{{ file = {} }}", quoted(&path))
    };
    let ca = dir.join("ca.pem");
    fs::write(&ca, CA_PEM).unwrap();
    let base = &spec.base_path;
    let routes: Vec<String> = [
        "POST /updateDevice",
        "GET /getDeviceInfo",
        "POST /getDeviceInfo",
        "GET /healthCheck",
        "POST /healthCheck",
    ]
    .iter()
    .map(|route| json!(route.replace(" /", &format!(" {base}/"))).to_string())
    .collect();
    format!(
        r#"
[links.kit]
kind = "http_server"
listen = "127.0.0.1:{port}"
users = {{ {CALLER} = {call} }}
per_minute = 100000
{listener_lines}

[links.centre]
kind = "ftps"
host = "127.0.0.1"
port = {server}
username = {user}
password = {password}
ca = {ca}
{server_lines}

[adapters.kit112]
component = {component}

[adapters.kit112.config]
kit_id = "{KIT_ID}"
vehicle = "34 XX 000"
device_info = {{ brand = "Example", model = "K1" }}
base_path = "{base}"
{config_lines}

[adapters.kit112.grants]
links.kit.serve = [{routes}]
links.centre.files = ["/"]
targets = ["kit"]
{tables}
"#,
        call = secret("kit-call", &spec.call_password),
        user = secret("ftps-user", &spec.user),
        password = secret("ftps-password", &spec.password),
        server = spec.server,
        ca = quoted(&ca),
        component = quoted(&built_adapter("kit112")),
        routes = routes.join(", "),
        listener_lines = spec.listener_lines,
        server_lines = spec.server_lines,
        config_lines = spec.config_lines,
        tables = spec.tables,
    )
}

/// A path as a TOML string. JSON's escapes are a subset of TOML's.
pub fn quoted(path: &Path) -> String {
    json!(path.display().to_string()).to_string()
}
