//! SIGKILL at seeded moments of an update by the real process, with a real broker and a real file server: each time the new version
//! ends up installed once, and the cloud has one final result. (M03, D09, D15; issues "The spine" and "Nothing lost".)
//!
//! Twenty moments here; `OTAHOST_KILLS=200` makes so many.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use otahost_e2e::device::PATIENCE;
use otahost_e2e::kills;
use otahost_lab::cloud::{Cloud, Status};
use otahost_lab::files::{Fault, Files};
use otahost_lab::image::{Described, Image};
use otahost_lab::machine::{Machine, MachineSpec, SlotState};
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::signing::{Claims, Publisher};
use serde_json::json;

/// Runs at the same time: they wait most of theirs.
const LANES: u64 = 4;
/// After so many runs it is said how many there were: two hundred take minutes.
const SAID_EVERY: u64 = 20;
/// The undisturbed flow takes about this long; kills fall anywhere in it.
const FLOW_MS: u64 = 4_000;
const OLD: &str = "1.0.0";
const NEW: &str = "1.2.0.69";

/// The moment of a run, in milliseconds after the command, and whether the whole machine loses power.
fn moment(run: u64) -> (u64, bool) {
    // A fixed stride that is prime to the length spreads the moments evenly and in no order.
    ((run * 1_237 + 150) % FLOW_MS, run % 2 == 1)
}

#[test]
fn a_kill_at_any_moment_leaves_one_installed_update_and_one_result() {
    let runs = kills(20);
    let (began, done) = (Instant::now(), &AtomicU64::new(0));
    thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || {
                let lane_of = Lane::new();
                for run in (lane..runs).step_by(LANES as usize) {
                    lane_of.run(run);
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done % SAID_EVERY == 0 {
                        let seconds = began.elapsed().as_secs();
                        println!("{done} of {runs} after {seconds} s");
                    }
                }
            });
        }
    });
    println!("{runs} kills and power cuts, {runs} updates, {runs} results");
}

/// A broker, a file server and a signed image, for one run after another.
struct Lane {
    broker: Mosquitto,
    files: Files,
    publisher: Publisher,
    file: Described,
    dir: tempfile::TempDir,
}

impl Lane {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let publisher = Publisher::generate().unwrap();
        let payload = dir.path().join("payload");
        Image::new(NEW, 1024 * 1024).write(&payload).unwrap();
        let claims = Claims {
            compatible: "evonest-dock".into(),
            version: NEW.into(),
            rollback_index: 1,
        };
        let signed = dir.path().join("signed");
        let file = publisher.sign(&payload, &signed, &claims).unwrap();
        let files = Files::start();
        // So that the download is a good part of the flow.
        files.throttle(Some(1024 * 1024));
        Lane {
            broker: Mosquitto::start().unwrap(),
            files,
            publisher,
            file,
            dir,
        }
    }

    fn machine(&self, serial: &str, home: &Path) -> Machine {
        let spec = MachineSpec {
            trust: vec![self.publisher.public_key()],
            downloads: vec![self.files.url("")],
            ..MachineSpec::dock(serial, self.broker.port())
        };
        std::fs::create_dir(home).unwrap();
        Machine::create(home, spec, &Image::new(OLD, 4 * 1024)).unwrap()
    }

    fn run(&self, run: u64) {
        let (after_ms, power) = moment(run);
        let (files, file) = (&self.files, &self.file);
        let serial = format!("KILL{run:04}");
        let name = format!("image-{run}");
        files
            .put_file(&name, &self.dir.path().join("signed"))
            .unwrap();
        files.fault(&name, 1, Fault::CutAfter(file.size / 2));
        let machine = self.machine(&serial, &self.dir.path().join(&serial));
        let cloud = Cloud::connect(self.broker.port(), &serial).unwrap();
        machine.power_on().unwrap();
        cloud.await_online(1, PATIENCE).unwrap();

        let device = json!({
            "sn": serial, "product_version": NEW, "file_url": files.url(&name), "file_size": file.size,
            "md5": file.md5, "file_name": name, "firmware_upgrade_type": 3,
        });
        let ids = cloud
            .send_ota_create(&json!({ "method": "ota_create", "data": { "devices": [device] } }))
            .unwrap();
        thread::sleep(Duration::from_millis(after_ms));
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
        // Two hundred machines would fill a small disk.
        let home = self.dir.path().join(&serial);
        drop(machine);
        std::fs::remove_dir_all(home).unwrap();
    }
}

fn tail(machine: &Machine) -> String {
    let text = std::fs::read_to_string(machine.layout().log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(30).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
