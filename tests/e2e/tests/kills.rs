//! SIGKILL at twenty seeded moments of an update by the real process, with a real broker and a real file server: each time the
//! new version ends up installed once, and the cloud has one final result. (M03, D09, D15; issue "The spine".)
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use otahost_lab::cloud::{Cloud, Status};
use otahost_lab::files::{Fault, Files};
use otahost_lab::image::Image;
use otahost_lab::machine::{Machine, MachineSpec, SlotState};
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::signing::{Claims, Publisher};
use serde_json::json;

const RUNS: u64 = 20;
/// The undisturbed flow takes about this long; kills fall anywhere in it.
const FLOW_MS: u64 = 4_000;
const PATIENCE: Duration = Duration::from_secs(60);
const OLD: &str = "1.0.0";
const NEW: &str = "1.2.0.69";

/// The moment of a run, in milliseconds after the command, and whether the whole machine loses power.
fn moment(run: u64) -> (u64, bool) {
    // A fixed stride that is prime to the length spreads the moments evenly and in no order.
    ((run * 1_237 + 150) % FLOW_MS, run % 2 == 1)
}

#[test]
fn a_kill_at_any_moment_leaves_one_installed_update_and_one_result() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Mosquitto::start().unwrap();
    let files = Files::start();
    let publisher = Publisher::generate().unwrap();
    let (payload, signed) = (dir.path().join("payload"), dir.path().join("signed"));
    Image::new(NEW, 1024 * 1024).write(&payload).unwrap();
    let claims = Claims {
        compatible: "evonest-dock".into(),
        version: NEW.into(),
        rollback_index: 1,
    };
    let file = publisher.sign(&payload, &signed, &claims).unwrap();
    // So that the download is a good part of the flow.
    files.throttle(Some(1024 * 1024));
    for run in 0..RUNS {
        let (after_ms, power) = moment(run);
        let serial = format!("KILL{run:04}");
        let name = format!("image-{run}");
        files.put_file(&name, &signed).unwrap();
        files.fault(&name, 1, Fault::CutAfter(file.size / 2));
        let spec = MachineSpec {
            trust: vec![publisher.public_key()],
            downloads: vec![files.url("")],
            ..MachineSpec::dock(&serial, broker.port())
        };
        let home = dir.path().join(&serial);
        std::fs::create_dir(&home).unwrap();
        let machine = Machine::create(&home, spec, &Image::new(OLD, 4 * 1024)).unwrap();
        let cloud = Cloud::connect(broker.port(), &serial).unwrap();
        machine.power_on().unwrap();
        cloud.await_online(1, PATIENCE).unwrap();

        let device = json!({
            "sn": serial, "product_version": NEW, "file_url": files.url(&name), "file_size": file.size,
            "md5": file.md5, "file_name": name, "firmware_upgrade_type": 3,
        });
        let ids = cloud
            .send_ota_create(&json!({ "method": "ota_create", "data": { "devices": [device] } }))
            .unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        if power {
            machine.lose_power();
            machine.power_on().unwrap();
        } else if machine.kill_agent().is_ok() {
            // A reboot that was asked for just before may have started it already.
            let _ = machine.start_agent();
        }

        let said = format!(
            "run {run}: {} after {after_ms} ms",
            if power { "power cut" } else { "kill" }
        );
        let end = cloud
            .await_terminal(&ids.bid, PATIENCE)
            .unwrap_or_else(|e| panic!("{said}: {e}; log: {}", tail(&machine)));
        assert_eq!((end.status, end.percent), (Status::Ok, 100), "{said}");
        assert_eq!(cloud.results().len(), 1, "{said}: {:?}", cloud.results());
        assert_eq!(machine.version().as_deref(), Some(NEW), "{said}");
        assert_eq!(machine.slot().as_deref(), Some("b"), "{said}");
        let selector = machine.selector().unwrap();
        assert_eq!(selector.primary, "b", "{said}");
        assert_eq!(selector.slots["b"].state, SlotState::Good, "{said}");
        assert_eq!(cloud.violations(), Vec::<String>::new(), "{said}");
        let into_new = machine
            .boots()
            .iter()
            .filter(|boot| boot.version.as_deref() == Some(NEW))
            .count();
        assert!(
            into_new <= if power { 2 } else { 1 },
            "{said}: booted into the new version {into_new} times"
        );
    }
}

fn tail(machine: &Machine) -> String {
    let text = std::fs::read_to_string(machine.layout().log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(30).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
