//! The real process on real file systems that are full or whose files are damaged: it says what is wrong and what it needs, goes on with what it
//! can, and ends what was begun. (DESIGN §6; issue 8.)
//!
//! The file systems are loop-mounted, which needs root; without it these tests say so and pass.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use otahost_e2e::device::{Device, NEW, OLD, eventually};
use serde_json::Value;
use tempfile::TempDir;

const MIB: u64 = 1024 * 1024;

/// A small file system of its own. Gone with its value.
struct Volume {
    at: PathBuf,
    _dir: TempDir,
}

impl Volume {
    /// Of so many MiB at this place, which is made; `None` where this machine does not let us.
    fn mount(at: &Path, mib: u64) -> Option<Volume> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image)
            .unwrap()
            .set_len(mib * MIB)
            .unwrap();
        fs::create_dir_all(at).unwrap();
        let made = run("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image]);
        if !made || !run("mount", &["-o", "loop"], &[&image, at]) {
            eprintln!(
                "skipped: no file system can be mounted here; it needs root and loop devices"
            );
            return None;
        }
        Some(Volume {
            at: at.to_owned(),
            _dir: dir,
        })
    }

    /// Takes all its space, but for so many MiB.
    fn fill(&self, leave_mib: u64) {
        let mut file = fs::File::create(self.at.join("ballast")).unwrap();
        let block = [1; 4096];
        // The space is taken when it is synced.
        while file
            .write_all(&block)
            .and_then(|()| file.sync_all())
            .is_ok()
        {}
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_sub(leave_mib * MIB)).unwrap();
        file.sync_all().unwrap();
    }

    fn free(&self) {
        fs::remove_file(self.at.join("ballast")).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        run("umount", &["-l"], &[&self.at]);
    }
}

fn run(program: &str, arguments: &[&str], paths: &[&Path]) -> bool {
    let done = Command::new(program).args(arguments).args(paths).output();
    done.is_ok_and(|done| done.status.success())
}

/// A device whose data directory is a file system of its own, and whose socket is elsewhere.
fn device(mib: u64) -> Option<(Device, Volume)> {
    let device = Device::off("");
    let data = device.machine.layout().data();
    let volume = Volume::mount(&data, mib)?;
    let socket = data.with_file_name("otahost.sock");
    device.configure(
        "[device]\n",
        &format!("[device]\nsocket = {:?}\n", socket.display().to_string()),
    );
    Some((device, volume))
}

fn status(device: &Device) -> Option<Value> {
    let said = device.cli(&["status", "--json"]).end();
    serde_json::from_str(&said.out)
        .ok()
        .filter(|_| said.status.success())
}

/// Waits until the agent says this of its missing journal, or that none is missing.
fn await_missing(device: &Device, text: Option<&str>) {
    eventually(&format!("the journal: {text:?}"), || {
        let Some(status) = status(device) else {
            return false;
        };
        let missing = status["journal"]["missing"].as_str();
        match text {
            None => missing.is_none() && status["safe_mode"] == false,
            Some(text) => missing.is_some_and(|missing| missing.contains(text)),
        }
    });
}

/// What `doctor` says, and its exit code.
fn doctor(device: &Device) -> (Value, Option<i32>) {
    let said = device.cli(&["doctor", "--json"]).end();
    (serde_json::from_str(&said.out).unwrap(), said.code())
}

fn broken(report: &Value) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["state"] == "broken")
        .map(|check| check["area"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_agent_without_space_for_its_journal_says_how_much_it_needs_and_goes_on_once_it_is_there() {
    let Some((device, volume)) = device(32) else {
        return;
    };
    volume.fill(3);
    device.machine.power_on().unwrap();
    await_missing(&device, Some("MiB more"));
    let (report, code) = doctor(&device);
    assert_eq!(code, Some(13), "{report}");
    volume.free();
    device
        .cloud
        .await_firmware(OLD, otahost_e2e::device::PATIENCE)
        .unwrap();
    await_missing(&device, None);
    // With a journal a full disk is no reason to stop, nor for an agent that was killed on it.
    volume.fill(0);
    let release = device.release(NEW, 64 * 1024);
    let ids = device.command(&device.order(&release));
    device.machine.kill_agent().ok();
    device.machine.start_agent().ok();
    device.assert_ok(&ids);
    device.assert_runs(NEW, "b");
}

#[test]
fn a_damaged_page_of_the_journal_is_told_by_doctor_and_status_and_the_device_goes_on() {
    let device = Device::online();
    device.machine.lose_power();
    assert_eq!(doctor(&device).1, Some(0));
    let path = device.machine.layout().data().join("journal.redb");
    let journal = fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let bytes = fs::read(&path).unwrap();
    // A page that holds the adapter's row.
    let row = b"\"state_version\"";
    let at = bytes.windows(row.len()).rposition(|w| w == row).unwrap();
    for spot in bytes
        .windows(row.len())
        .enumerate()
        .filter(|(_, w)| w == row)
    {
        journal.write_all_at(b"\"STATE", spot.0 as u64).unwrap();
    }
    assert!(at > 4096);
    let (report, code) = doctor(&device);
    assert_eq!(
        (broken(&report), code),
        (vec!["journal".to_owned()], Some(13)),
        "{report}"
    );
    device.machine.power_on().unwrap();
    eventually("the agent tells of the damage", || {
        status(&device)
            .is_some_and(|status| status["journal"]["damaged"]["kept"] == "journal.redb.damaged")
    });
    let text = device.cli(&["status"]).end().out;
    assert!(text.contains("the journal was damaged"), "{text}");
    let ids = device.command(&device.order(&device.release(NEW, 64 * 1024)));
    device.assert_ok(&ids);
    device.assert_runs(NEW, "b");
    assert!(path.with_file_name("journal.redb.damaged").is_file());
    // Taken away, it is no matter any more.
    fs::remove_file(path.with_file_name("journal.redb.damaged")).unwrap();
    device.machine.lose_power();
    device.machine.power_on().unwrap();
    eventually("nothing is said any more", || {
        status(&device).is_some_and(|status| status["journal"]["damaged"].is_null())
    });
    assert_eq!(doctor(&device).1, Some(0));
}
