//! A real agent keeps the native code of its adapters over restarts, runs none that is not what it wrote itself, and says each time where
//! the code came from.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use otahost_e2e::device::eventually;
use otahost_lab::image::{Described, Image};
use otahost_lab::machine::{Machine, MachineSpec};
use serde_json::Value;
use tempfile::TempDir;

/// Bytes of a file of native code before the code; the last 32 are the digest of those before.
const HEADER: usize = 192;
/// Where the engine's id is in it.
const ENGINE: usize = 56;

/// A machine whose agent speaks to a broker that is not there.
struct Device {
    machine: Machine,
    dir: TempDir,
}

impl Device {
    fn new() -> Self {
        Self::with("dji")
    }

    fn with(component: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("machine");
        fs::create_dir(&home).unwrap();
        let spec = MachineSpec {
            trust: vec![
                otahost_lab::signing::Publisher::generate()
                    .unwrap()
                    .public_key(),
            ],
            component: otahost_e2e::component_path(component),
            ..MachineSpec::dock("NM1923221021", 9)
        };
        let machine = Machine::create(&home, spec, &Image::new("1.0.0", 4096)).unwrap();
        Device { machine, dir }
    }

    /// Starts it, waits until the agent answers, and says how its adapter was loaded.
    fn start(&self) -> String {
        self.machine.power_on().unwrap();
        self.loaded()
    }

    fn loaded(&self) -> String {
        let mut loaded = String::new();
        eventually("an answer of the agent", || {
            assert!(self.machine.agent_runs(), "{}", self.log());
            let said = self.machine.cli(&["adapter", "list", "--json"]).unwrap();
            let Ok(list) = serde_json::from_slice::<Value>(&said.stdout) else {
                return false;
            };
            loaded = list[0]["loaded"].as_str().unwrap_or_default().to_owned();
            said.status.success()
        });
        loaded
    }

    fn log(&self) -> String {
        fs::read_to_string(self.machine.layout().log()).unwrap_or_default()
    }

    /// The one file of native code.
    fn code(&self) -> PathBuf {
        let files = self.all_code();
        assert_eq!(files.len(), 1, "{files:?}");
        files.into_iter().next().unwrap()
    }

    fn all_code(&self) -> Vec<PathBuf> {
        let directory = self.machine.layout().data().join("compiled");
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Stops the agent, changes the file of native code, and starts it again. It has to say this, compile, and replace the file.
    fn changed(&self, change: impl FnOnce(&mut Vec<u8>), says: &str) {
        self.machine.lose_power();
        let before = self.log().len();
        let file = self.code();
        let mut bytes = fs::read(&file).unwrap();
        let sound = bytes.clone();
        change(&mut bytes);
        assert!(bytes != sound);
        fs::write(&file, &bytes).unwrap();
        let loaded = self.start();
        assert!(
            loaded.starts_with("compiled: ") && loaded.contains(says),
            "{loaded}"
        );
        let log = &self.log()[before..];
        assert!(log.contains(&format!("adapter dji: {loaded}")), "{log}");
        // All of it, but for the number that counts up.
        assert!(
            fs::read(&file).unwrap()[HEADER..] == sound[HEADER..],
            "replaced"
        );
    }

    fn sha256(&self, bytes: &[u8]) -> Vec<u8> {
        let path = self.dir.path().join("digested");
        fs::write(&path, bytes).unwrap();
        let hex = Described::of(&path).unwrap().sha256;
        (0..32)
            .map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap())
            .collect()
    }
}

#[test]
fn native_code_is_made_once_and_never_run_when_it_is_not_what_was_written() {
    let device = Device::new();
    let first = device.start();
    assert!(
        first.contains("the cache has no native code of it"),
        "{first}"
    );
    assert!(
        device.log().contains(&format!("adapter dji: {first}")),
        "{}",
        device.log()
    );
    device.machine.lose_power();
    assert_eq!(device.start(), "cached");
    assert!(
        device.log().contains("adapter dji: cached"),
        "{}",
        device.log()
    );

    device.changed(
        |bytes| bytes[HEADER + 1000] ^= 1,
        "damaged (its code was changed)",
    );
    device.changed(|bytes| bytes[20] ^= 1, "damaged (its header was changed)");
    device.changed(
        |bytes| bytes.truncate(bytes.len() / 2),
        "bytes of code and was made with",
    );
    device.changed(
        |bytes| {
            bytes[ENGINE] ^= 1;
            let seal = device.sha256(&bytes[..HEADER - 32]);
            bytes[HEADER - 32..HEADER].copy_from_slice(&seal);
        },
        "with other settings, for another processor, or by another release",
    );
}

#[test]
fn a_limit_that_a_compilation_breaks_is_named_with_what_to_do() {
    let device = Device::new();
    device.start();
    device.machine.lose_power();
    let path = device.machine.layout().config();
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config + "\n[compiler]\nmemory = \"32MiB\"\n").unwrap();
    let said = device.machine.cli(&["check"]).unwrap();
    let text = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(3), "{text}");
    assert!(text.contains("adapters.dji.component"), "{text}");
    assert!(
        text.contains("takes more than the 32 MiB of memory allowed"),
        "{text}"
    );
    assert!(text.contains("`compiler.memory`"), "{text}");
    assert_eq!(
        device.start(),
        "cached",
        "code that is there needs no compiler"
    );
}

#[test]
fn the_native_code_of_a_version_that_is_forgotten_is_forgotten_too() {
    let device = Device::with("dji-1.0.0");
    device.start();
    let kept = device.all_code();
    assert_eq!(kept.len(), 1);
    let next = otahost_e2e::component_path("dji-1.1.0")
        .display()
        .to_string();
    let install = ["adapter", "install", "dji", &next];
    let said = device.machine.cli(&install).unwrap();
    assert!(said.status.success(), "{said:?}");
    assert_eq!(device.all_code().len(), 2);
    let said = device.machine.cli(&["adapter", "rollback", "dji"]).unwrap();
    assert!(said.status.success(), "{said:?}");
    device.machine.lose_power();
    assert_eq!(device.start(), "cached");
    eventually("the end of what nobody needs", || device.all_code() == kept);
}
