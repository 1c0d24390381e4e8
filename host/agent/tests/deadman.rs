//! `otahost deadman` as a process: what it says, its exit codes, and that it needs nothing of the agent's.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::process::{Command, Output};

use otahost_disk::RealDisk;

struct Device {
    dir: tempfile::TempDir,
}

impl Device {
    /// A device whose slot b runs in this state, with more configuration behind what the dead-man needs.
    fn new(b: &str, more: &str) -> Self {
        let device = Device {
            dir: tempfile::tempdir().unwrap(),
        };
        let state =
            format!(r#"{{"booted":"b","primary":"b","slots":{{"a":{{"state":"good"}},"b":{b}}}}}"#);
        std::fs::write(device.path("boot.json"), state).unwrap();
        let text = format!(
            "[device]\nid = \"gw\"\ndata_dir = \"{}\"\nreboot = [\"touch\", \"{}\"]\n\
             [targets.dock]\nflasher = \"slots\"\nboot = {{ file = \"{}\" }}\n{more}",
            device.path("data").display(),
            device.path("rebooted").display(),
            device.path("boot.json").display(),
        );
        std::fs::write(device.path("otahost.toml"), text).unwrap();
        device
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn deadman(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_otahost"))
            .args(["--config", self.path("otahost.toml").to_str().unwrap()])
            .arg("deadman")
            .args(arguments)
            .output()
            .unwrap()
    }

    fn rebooted(&self) -> bool {
        self.path("rebooted").exists()
    }
}

fn said(output: &Output) -> (i32, String) {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output.status.code().unwrap(), text)
}

const TRIAL: &str = r#"{"state":"trial","tries":2}"#;
const GOOD: &str = r#"{"state":"good"}"#;

#[test]
fn an_unconfirmed_version_is_rebooted_though_an_agent_holds_the_data_directory() {
    let device = Device::new(TRIAL, "");
    let _agent = RealDisk::new(&device.path("data")).unwrap();
    let (code, text) = said(&device.deadman(&[]));
    assert_eq!(code, 0);
    assert!(
        text.contains("dock: slot b runs on trial") && text.contains("asked for a reboot"),
        "{text}"
    );
    assert!(device.rebooted());
}

#[test]
fn a_confirmed_version_is_left_alone() {
    let device = Device::new(GOOD, "");
    assert_eq!(
        said(&device.deadman(&[])),
        (0, "nothing is on trial\n".into())
    );
    assert_eq!(
        said(&device.deadman(&["--json"])),
        (0, "{\"rebooting\":false,\"on_trial\":[]}\n".into())
    );
    assert!(!device.rebooted());
}

#[test]
fn faults_of_the_configuration_count_only_where_something_may_hide_behind_them() {
    let more = "[targets.drone]\nflasher = \"slots\"\n[adapters.dji]\ncomponent = \"missing\"\n";
    let device = Device::new(TRIAL, more);
    assert_eq!(said(&device.deadman(&[])).0, 0);
    assert!(device.rebooted());
    let device = Device::new(GOOD, more);
    let output = device.deadman(&[]);
    assert_eq!(said(&output).0, 3);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("targets.drone.boot"), "{text}");
    let device = Device::new(GOOD, "[adapters.dji]\ncomponent = \"missing\"\n");
    assert_eq!(said(&device.deadman(&[])).0, 0);
}

#[test]
fn a_boot_selector_that_cannot_be_read_is_a_failure() {
    let device = Device::new(TRIAL, "");
    std::fs::write(device.path("boot.json"), "").unwrap();
    let (code, text) = said(&device.deadman(&["--json"]));
    assert_eq!(code, 1);
    assert!(
        text.contains("`dock`") && text.contains("boot.json"),
        "{text}"
    );
    assert!(!device.rebooted());
}
