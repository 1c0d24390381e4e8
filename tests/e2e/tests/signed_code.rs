//! Adapters as native code that was compiled elsewhere and signed: with the full agent, and with the one that has no compiler
//! (`cargo xtask slim`, which runs what is ignored here).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use otahost_e2e::component_path;
use otahost_e2e::device::eventually;
use otahost_lab::image::Image;
use otahost_lab::machine::{Machine, MachineSpec, built_program, target_dir};
use serde_json::Value;
use tempfile::TempDir;

/// Has keys of a vendor's, and makes files with the full build's command line.
struct Vendor {
    dir: TempDir,
    trust: String,
}

impl Vendor {
    fn new() -> Vendor {
        let dir = tempfile::tempdir().unwrap();
        let made = otahost(&["keygen", "vendor", "--json"], dir.path());
        let trust = json(&made)["public_key"].as_str().unwrap().to_owned();
        Vendor { dir, trust }
    }

    /// Native code of an adapter, unsigned.
    fn compiled(&self, adapter: &str, target: &[&str]) -> PathBuf {
        let component = component_path(adapter).display().to_string();
        let out = self.dir.path().join(format!("{adapter}.cwasm"));
        let arguments = ["compile", &component, "--out", out.to_str().unwrap()];
        let said = otahost(&[&arguments[..], target].concat(), self.dir.path());
        assert!(said.status.success(), "{said:?}");
        out
    }

    fn signed(&self, file: &Path) -> PathBuf {
        let out = file.with_extension("signed");
        let (file, out_text) = (file.display().to_string(), out.display().to_string());
        let arguments = ["sign", &file, "--key", "vendor.key", "--out", &out_text];
        let said = otahost(&arguments, self.dir.path());
        assert!(said.status.success(), "{said:?}");
        out
    }
}

fn otahost(arguments: &[&str], dir: &Path) -> Output {
    let mut command = Command::new(built_program("otahost"));
    command.args(arguments).current_dir(dir).output().unwrap()
}

fn json(said: &Output) -> Value {
    serde_json::from_slice(&said.stdout).unwrap_or_else(|e| panic!("{e}: {said:?}"))
}

struct Device {
    machine: Machine,
    _dir: TempDir,
}

impl Device {
    /// A dock with this agent that trusts these keys with native code.
    fn new(agent: &Path, component: &Path, trust: &[&str]) -> Device {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("machine");
        fs::create_dir(&home).unwrap();
        let publisher = otahost_lab::signing::Publisher::generate().unwrap();
        let spec = MachineSpec {
            trust: vec![publisher.public_key()],
            component: component.into(),
            agent: vec![agent.display().to_string()],
            more: format!("\n[compiler]\ntrust = {}\n", Value::from(trust)),
            // Nobody is there.
            ..MachineSpec::dock("NM1923221021", 9)
        };
        let machine = Machine::create(&home, spec, &Image::new("1.0.0", 4096)).unwrap();
        machine.power_on().unwrap();
        Device { machine, _dir: dir }
    }

    /// The one adapter, when the agent answers.
    fn adapter(&self) -> Value {
        let mut adapter = Value::Null;
        eventually("an answer of the agent", || {
            let log = fs::read_to_string(self.machine.layout().log()).unwrap_or_default();
            assert!(self.machine.agent_runs(), "{log}");
            let said = self.machine.cli(&["adapter", "list", "--json"]).unwrap();
            if said.status.success() {
                adapter = json(&said)[0].clone();
            }
            said.status.success()
        });
        adapter
    }

    /// What `check` says of the configuration.
    fn check(&self) -> String {
        let said = self.machine.cli(&["check"]).unwrap();
        assert_eq!(said.status.code(), Some(3), "{said:?}");
        String::from_utf8(said.stderr).unwrap()
    }
}

fn runs_signed_code(agent: &Path, targets: &[&[&str]]) {
    let vendor = Vendor::new();
    for target in targets {
        let file = vendor.signed(&vendor.compiled("dji", target));
        let adapter = Device::new(agent, &file, &[&vendor.trust]).adapter();
        let loaded = adapter["loaded"].as_str().unwrap();
        assert!(loaded.contains("compiled elsewhere for"), "{adapter}");
        assert!(
            target
                .iter()
                .all(|word| word.starts_with("--") || loaded.contains(word)),
            "{loaded}"
        );
        let component = fs::read(component_path("dji")).unwrap();
        let path = vendor.dir.path().join("component");
        fs::write(&path, component).unwrap();
        let digest = otahost_lab::image::Described::of(&path).unwrap().sha256;
        assert_eq!(
            adapter["digest"],
            format!("sha256:{digest}"),
            "as with the component itself"
        );
    }
}

fn refuses_what_nobody_trusted_signed(agent: &Path) {
    let (vendor, stranger) = (Vendor::new(), Vendor::new());
    let unsigned = vendor.compiled("dji", &[]);
    let signed = vendor.signed(&unsigned);
    let said = Device::new(agent, &unsigned, &[&vendor.trust]).check();
    assert!(
        said.contains("nobody has signed; sign it with `otahost sign`"),
        "{said}"
    );
    let said = Device::new(agent, &signed, &[]).check();
    assert!(
        said.contains("no key is trusted with native code"),
        "{said}"
    );
    let said = Device::new(agent, &signed, &[&stranger.trust]).check();
    assert!(said.contains("which is not among those trusted"), "{said}");
    let mut bytes = fs::read(&signed).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&signed, &bytes).unwrap();
    let said = Device::new(agent, &signed, &[&vendor.trust]).check();
    assert!(said.contains("the file was changed"), "{said}");
}

#[test]
fn the_agent_runs_native_code_that_a_trusted_key_signed() {
    runs_signed_code(&built_program("otahost"), &[&[], &["--for", "pulley64"]]);
}

#[test]
fn the_agent_refuses_native_code_that_no_trusted_key_signed() {
    refuses_what_nobody_trusted_signed(&built_program("otahost"));
}

#[test]
fn a_version_that_is_signed_native_code_is_installed_and_kept() {
    let vendor = Vendor::new();
    let first = vendor.signed(&vendor.compiled("dji-1.0.0", &[]));
    let next = vendor.signed(&vendor.compiled("dji-1.1.0", &[]));
    let device = Device::new(&built_program("otahost"), &first, &[&vendor.trust]);
    assert_eq!(device.adapter()["version"], "1.0.0");
    let next = next.display().to_string();
    let said = device
        .machine
        .cli(&["adapter", "install", "dji", &next])
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    assert_eq!(device.adapter()["version"], "1.1.0");
    device.machine.lose_power();
    device.machine.power_on().unwrap();
    let adapter = device.adapter();
    assert_eq!(
        adapter["version"], "1.1.0",
        "kept over a power cut: {adapter}"
    );
    assert!(
        adapter["loaded"]
            .as_str()
            .unwrap()
            .contains("compiled elsewhere"),
        "{adapter}"
    );
}

/// The agent without a compiler, where `cargo xtask slim` puts it.
fn slim() -> PathBuf {
    target_dir().join("slim/slim/otahost")
}

#[test]
#[ignore = "needs the build without a compiler: `cargo xtask slim`"]
fn the_agent_without_a_compiler_runs_native_code_that_a_trusted_key_signed() {
    runs_signed_code(&slim(), &[&[]]);
}

#[test]
#[ignore = "needs the build without a compiler: `cargo xtask slim`"]
fn the_agent_without_a_compiler_refuses_native_code_that_no_trusted_key_signed() {
    refuses_what_nobody_trusted_signed(&slim());
}

#[test]
#[ignore = "needs the build without a compiler: `cargo xtask slim`"]
fn the_agent_without_a_compiler_says_how_to_have_a_component_compiled() {
    let said = Device::new(&slim(), &component_path("dji"), &[]).check();
    assert!(
        said.contains("this build of otahost has no compiler"),
        "{said}"
    );
    assert!(said.contains("`otahost compile FILE --for"), "{said}");
    let compile = Command::new(slim())
        .args(["compile", "x", "--out", "y"])
        .output()
        .unwrap();
    assert_eq!(compile.status.code(), Some(2), "{compile:?}");
}
