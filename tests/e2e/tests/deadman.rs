//! A new version in which the agent never comes up: the dead-man's reboots use up its tries, the boot loader goes back, and the old
//! agent reports it. With the real processes. (Issue "a session"; DESIGN §6.)
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use otahost_flash::slots::TRIES;
use otahost_lab::cloud::{Cloud, Status};
use otahost_lab::files::Files;
use otahost_lab::image::Image;
use otahost_lab::machine::{Machine, MachineSpec, SlotState};
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::signing::{Claims, Publisher};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const SERIAL: &str = "DEADMAN1";
const OLD: &str = "1.0.0";
const NEW: &str = "1.2.0.69";
const MIB: u64 = 1024 * 1024;

/// A machine that runs the old version, its cloud, and what they hang on.
struct Stage {
    machine: Machine,
    cloud: Cloud,
    files: Files,
    publisher: Publisher,
    _broker: Mosquitto,
}

impl Stage {
    fn new(dir: &Path) -> Self {
        let broker = Mosquitto::start().unwrap();
        let files = Files::start();
        let publisher = Publisher::generate().unwrap();
        let spec = MachineSpec {
            trust: vec![publisher.public_key()],
            downloads: vec![files.url("")],
            ..MachineSpec::dock(SERIAL, broker.port())
        };
        let home = dir.join("machine");
        std::fs::create_dir(&home).unwrap();
        let machine = Machine::create(&home, spec, &Image::new(OLD, 4 * 1024)).unwrap();
        let cloud = Cloud::connect(broker.port(), SERIAL).unwrap();
        machine.power_on().unwrap();
        let stage = Stage {
            machine,
            cloud,
            files,
            publisher,
            _broker: broker,
        };
        stage.expect(stage.cloud.await_online(1, PATIENCE));
        stage
    }

    /// Shows the end of the agent's log when something did not happen.
    fn expect<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> T {
        result.unwrap_or_else(|e| {
            let log = std::fs::read_to_string(self.machine.layout().log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(30)..].join("\n");
            panic!("{e}; the agent's log ends:\n{end}")
        })
    }

    /// Has the cloud command an update to this image; gives the command's id.
    fn command(&self, dir: &Path, image: &Image) -> String {
        let (payload, signed) = (dir.join("payload"), dir.join("signed"));
        image.write(&payload).unwrap();
        let claims = Claims {
            compatible: "evonest-dock".into(),
            version: NEW.into(),
            rollback_index: 1,
        };
        let file = self.publisher.sign(&payload, &signed, &claims).unwrap();
        self.files.put_file("image", &signed).unwrap();
        let device = json!({
            "sn": SERIAL, "product_version": NEW, "file_url": self.files.url("image"), "file_size": file.size,
            "md5": file.md5, "file_name": "image", "firmware_upgrade_type": 3,
        });
        let message = json!({ "method": "ota_create", "data": { "devices": [device] } });
        self.cloud.send_ota_create(&message).unwrap().bid
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn an_agent_that_never_comes_up_in_the_new_version_brings_the_old_one_back() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(dir.path());
    let machine = &stage.machine;
    let before = said(&machine.run_deadman().unwrap());
    assert!(before.contains("nothing is on trial"), "{before}");

    let bid = stage.command(dir.path(), &Image::new(NEW, MIB).without_agent());
    // The new version comes up, and nobody in it does anything.
    for tries_left in (0..usize::from(TRIES)).rev() {
        let boots = 1 + usize::from(TRIES) - tries_left;
        stage.expect(machine.await_boots(boots, PATIENCE));
        assert_eq!(machine.version().as_deref(), Some(NEW));
        assert!(!machine.agent_runs());
        let slot = &machine.selector().unwrap().slots["b"];
        assert_eq!(
            (slot.state, slot.tries),
            (SlotState::Trial, u8::try_from(tries_left).ok())
        );
        let output = machine.run_deadman().unwrap();
        assert!(
            output.status.success() && said(&output).contains("slot b runs on trial"),
            "{}",
            said(&output)
        );
    }
    stage.expect(machine.await_boots(2 + usize::from(TRIES), PATIENCE));
    assert_eq!(
        (machine.version().as_deref(), machine.slot().as_deref()),
        (Some(OLD), Some("a"))
    );

    let end = stage.expect(stage.cloud.await_terminal(&bid, PATIENCE));
    assert_eq!(end.status, Status::Failed);
    assert_ne!(end.result, 0);
    assert_eq!(
        stage.cloud.results().len(),
        1,
        "{:?}",
        stage.cloud.results()
    );
    assert_eq!(stage.cloud.violations(), Vec::<String>::new());
    let jobs = machine.cli(&["jobs", "--json"]).unwrap();
    let jobs: Value = serde_json::from_slice(&jobs.stdout).unwrap();
    assert_eq!(jobs[0]["phase"], "rolled-back", "{jobs:#}");
    // The slot that failed is given up, and there is nothing left for the dead-man.
    let selector = machine.selector().unwrap();
    assert_eq!(
        (selector.primary.as_str(), selector.slots["b"].state),
        ("a", SlotState::Bad)
    );
    let after = said(&machine.run_deadman().unwrap());
    assert!(after.contains("nothing is on trial"), "{after}");
    assert_eq!(
        (machine.boot_count(), machine.crashes().len()),
        (2 + usize::from(TRIES), 0)
    );
}

#[test]
fn a_version_that_was_confirmed_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let stage = Stage::new(dir.path());
    let bid = stage.command(dir.path(), &Image::new(NEW, MIB));
    let end = stage.expect(stage.cloud.await_terminal(&bid, PATIENCE));
    assert_eq!(end.status, Status::Ok);
    let output = stage.machine.run_deadman().unwrap();
    assert!(
        output.status.success() && said(&output).contains("nothing is on trial"),
        "{}",
        said(&output)
    );
    assert_eq!(stage.machine.boot_count(), 2);
}
