//! One device that speaks four protocols to four platforms, for four targets: a dock that reboots, a kit and a camera that a program
//! installs, an EMU that an archive is unpacked for. And a fifth adapter that traps at whatever it is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use otahost_lab::broker::free_port;
use otahost_lab::centre::Centre;
use otahost_lab::cloud::Cloud;
use otahost_lab::files::Files;
use otahost_lab::ftps::Ftps;
use otahost_lab::image::{Described, Image};
use otahost_lab::machine::{Machine, MachineSpec, built_adapter};
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::signing::{Claims, Publisher};
use otahost_lab::tls::CA_PEM;
use otahost_lab::withnox::{DEVICE, Tag, USER, Withnox};
use otahost_lab::wudun::Platform;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::camera::GRANTS;

/// Serial number of the dock.
pub const SERIAL: &str = "NM1923221021";
/// The kit's id at the centre.
pub const KIT_ID: &str = "kit-of-the-gateway";
/// The device of the wudun platform.
pub const DEVICE_UID: &str = "EMS1";
/// What stands before the wudun topics.
pub const BASE: &str = "v1/user/acme/EMS1";
/// The EMU behind it.
pub const EMU: i64 = 2;
/// What all four leave the factory with.
pub const OLD: &str = "1.0.0";
/// What all four are updated to.
pub const NEW: &str = "1.10.0";
/// Firmware id of [`NEW`] at Withnox.
pub const ID: u64 = 7;
const KIB: u64 = 1024;

/// The device and everybody it talks to. Ends with its value; says what the agent logged when a test fails.
#[derive(Debug)]
pub struct Gateway {
    /// The machine the agent runs in; its slots are the dock's.
    pub machine: Machine,
    /// DJI's side of the cloud.
    pub cloud: Cloud,
    /// The 112 centre.
    pub centre: Centre,
    /// The wudun platform.
    pub platform: Platform,
    /// The Withnox cloud.
    pub withnox: Withnox,
    /// Where dock and EMU download from.
    pub files: Files,
    /// Where the kit downloads from.
    pub server: Ftps,
    /// One broker for all that speaks MQTT.
    pub broker: Mosquitto,
    publisher: Publisher,
    dir: TempDir,
}

impl Gateway {
    /// Off, with the four targets at [`OLD`].
    pub fn off() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start().unwrap();
        let (files, withnox) = (Files::start(), Withnox::start());
        let server = Ftps::start("kit-user", "Kit-Pass-31");
        let publisher = Publisher::generate().unwrap();
        let port = free_port();
        for name in ["kit", "cam"] {
            fs::create_dir(dir.path().join(name)).unwrap();
            let installed = dir.path().join(name).join("installed");
            Image::new(OLD, 2 * KIB).write(&installed).unwrap();
        }
        let tables = tables(&Tables {
            dir: dir.path(),
            key: &publisher.public_key(),
            port,
            server: server.port(),
            files: &files.url(""),
            withnox: &withnox,
        });
        let spec = MachineSpec {
            trust: vec![publisher.public_key()],
            downloads: vec![files.url("")],
            more: tables,
            ..MachineSpec::dock(SERIAL, broker.port())
        };
        let home = dir.path().join("machine");
        fs::create_dir(&home).unwrap();
        let machine = Machine::create(&home, spec, &Image::new(OLD, 4 * KIB)).unwrap();
        Gateway {
            machine,
            cloud: Cloud::connect(broker.port(), SERIAL).unwrap(),
            centre: Centre::new(port, KIT_ID, "centre", "Call-Pass-32"),
            platform: Platform::connect(broker.port(), DEVICE_UID).unwrap(),
            withnox,
            files,
            server,
            broker,
            publisher,
            dir,
        }
    }

    /// An image of [`NEW`], signed for this kind of device.
    pub fn image(&self, compatible: &str, size: u64) -> (Vec<u8>, Described) {
        let raw = self.dir.path().join("raw");
        Image::new(NEW, size).write(&raw).unwrap();
        self.sign(&raw, compatible)
    }

    /// A tar of [`NEW`] for the EMU, signed.
    pub fn archive(&self, size: usize) -> (Vec<u8>, Described) {
        let content = self.dir.path().join("content");
        fs::create_dir(&content).unwrap();
        fs::write(content.join("version"), NEW).unwrap();
        // What does not compress and repeats nothing is not needed: the file is a tar.
        fs::write(content.join("board"), vec![7; size]).unwrap();
        let raw = self.dir.path().join("tar");
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&raw).arg("-C").arg(&content);
        assert!(tar.args(["version", "board"]).status().unwrap().success());
        self.sign(&raw, "emu")
    }

    fn sign(&self, raw: &Path, compatible: &str) -> (Vec<u8>, Described) {
        let signed = self.dir.path().join("signed");
        let claims = Claims {
            compatible: compatible.into(),
            version: NEW.into(),
            rollback_index: 1,
        };
        let described = self.publisher.sign(raw, &signed, &claims).unwrap();
        (fs::read(signed).unwrap(), described)
    }

    /// Offers the camera's image; its name in the store.
    pub fn offer(&self, size: u64) -> String {
        let (bytes, _) = self.image("cam", size);
        self.withnox.offer(ID, NEW, &bytes, &Tag::Md5)
    }

    /// The jobs as the command line shows them; none while no agent answers.
    pub fn jobs(&self) -> Vec<Value> {
        let said = self.machine.cli(&["jobs", "--json"]).unwrap();
        serde_json::from_slice(&said.stdout).unwrap_or_default()
    }

    /// How an adapter stands; null while no agent answers.
    pub fn adapter(&self, name: &str) -> Value {
        let said = self.machine.cli(&["status", "--json"]).unwrap();
        let status: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        let adapters = status["adapters"].as_array().cloned().unwrap_or_default();
        let found = adapters.into_iter().find(|adapter| adapter["name"] == name);
        found.unwrap_or_default()
    }

    /// What a target's program installed last.
    pub fn installed(&self, target: &str) -> PathBuf {
        self.dir.path().join(target).join("installed")
    }

    /// What the EMU reads.
    pub fn emu(&self) -> PathBuf {
        self.dir.path().join("emu/current")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = fs::read_to_string(self.machine.layout().log()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().filter(|l| !l.contains("rogue")).collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("the agent's log, without rogue:\n{}", last.join("\n"));
            eprintln!("jobs: {:#}", Value::from(self.jobs()));
        }
    }
}

struct Tables<'a> {
    dir: &'a Path,
    key: &'a str,
    port: u16,
    server: u16,
    files: &'a str,
    withnox: &'a Withnox,
}

fn tables(of: &Tables<'_>) -> String {
    let secret = |name: &str, value: &str| {
        let path = of.dir.join(name);
        fs::write(&path, format!("{value}\n")).unwrap();
        format!("{{ file = {} }}", json!(path))
    };
    // A program installs by copying; the version is what the installed image says of itself.
    let program = |target: &str| {
        let dir = of.dir.join(target);
        let installed = dir.join("installed");
        let install = json!([
            "/bin/sh",
            "-c",
            "cp \"$1\" \"$0.new\" && mv \"$0.new\" \"$0\"",
            installed
        ]);
        let version = json!([
            "/bin/sh",
            "-c",
            "grep -a -m1 ^version= \"$0\" | cut -d= -f2",
            installed
        ]);
        format!(
            "[targets.{target}]\nflasher = \"command\"\ndirectory = {}\nprogram = {install}\n\
             version = {{ command = {version} }}\ntrust = {{ minisign = [{}], compatible = \"{target}\" }}\n",
            json!(dir.join("staged")),
            json!(of.key),
        )
    };
    let emu = of.dir.join("emu");
    let emu_version = json!([
        "/bin/sh",
        "-c",
        "cat \"$0\" 2>/dev/null || echo 1.0.0",
        emu.join("current/version")
    ]);
    let component = |name: &str| json!(built_adapter(name));
    let ca = of.dir.join("ca.pem");
    fs::write(&ca, CA_PEM).unwrap();
    let (username, password) = of.withnox.account();
    format!(
        r#"
{kit}
{cam}
[targets.emu]
flasher = "archive"
directory = {emu}
version = {{ command = {emu_version} }}
trust = {{ minisign = [{key}], compatible = "emu" }}
attributes = {{ device_id = "{EMU}" }}

[links.calls]
kind = "http_server"
listen = "127.0.0.1:{port}"
per_minute = 100000
users = {{ centre = {call} }}

[links.centre]
kind = "ftps"
host = "127.0.0.1"
port = {server}
username = {ftps_user}
password = {ftps_password}
ca = {ca}

[links.withnox]
kind = "http_client"
url = "{api}"
auth = {{ bearer = "access_token" }}
secrets = {{ account_user = {account_user}, account_password = {account_password} }}
redirects = ["{store}/"]

[adapters.kit112]
component = {kit112}
config = {{ kit_id = "{KIT_ID}", link = "calls" }}

[adapters.kit112.grants]
links.calls.serve = ["POST /updateDevice", "GET /getDeviceInfo", "POST /getDeviceInfo", "GET /healthCheck", "POST /healthCheck"]
links.centre.files = ["/"]
targets = ["kit"]

[adapters.wudun]
component = {wudun}
config = {{ device_uid = "{DEVICE_UID}", tenant = "acme" }}

[adapters.wudun.grants]
links.cloud.subscribe = ["{BASE}/ota/+/command"]
links.cloud.publish = ["{BASE}/ota/+/result"]
download = ["{files}"]
targets = ["emu"]

[adapters.withnox]
component = {withnox}
config = {{ target = "cam", device_id = {DEVICE}, user_id = {USER} }}

{GRANTS}

[adapters.rogue]
component = {rogue}
config = {{ link = "cloud", prefix = "rogue" }}

[adapters.rogue.grants]
links.cloud.subscribe = ["rogue/do"]
links.cloud.publish = ["rogue/out"]
"#,
        kit = program("kit"),
        cam = program("cam"),
        emu = json!(emu),
        key = json!(of.key),
        port = of.port,
        call = secret("call", "Call-Pass-32"),
        server = of.server,
        ftps_user = secret("ftps-user", "kit-user"),
        ftps_password = secret("ftps-password", "Kit-Pass-31"),
        ca = json!(ca),
        api = of.withnox.url(),
        store = of.withnox.store().origin(),
        account_user = secret("account-user", &username),
        account_password = secret("account-password", &password),
        kit112 = component("kit112"),
        wudun = component("wudun"),
        withnox = component("withnox"),
        rogue = component("rogue"),
        files = of.files,
    )
}
