//! The real process on real file systems that are full or whose files are damaged: it says what is wrong and what it needs, goes on with what it
//! can, and ends what was begun. (DESIGN §6; issue 8.)
//!
//! The file systems are loop-mounted; see [`Volume`].
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::FileExt;

use otahost_e2e::device::{Device, NEW, OLD, PATIENCE, eventually};
use otahost_e2e::volume::Volume;
use otahost_lab::files::Fault;
use otahost_lab::image::Image;
use otahost_lab::machine::{SlotState, built_adapter};
use serde_json::{Value, json};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// Of a signed file, before its payload.
const HEADER: u64 = 4 * KIB;

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
    device.cloud.await_firmware(OLD, PATIENCE).unwrap();
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

#[test]
fn a_file_system_that_turns_read_only_is_told_and_when_it_is_mended_what_was_begun_ends_once() {
    let Some((device, volume)) = device(32) else {
        return;
    };
    device.switch_on();
    let release = device.release(NEW, 512 * KIB);
    let half = release.file.size / 2;
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(half));
    let ids = device.command(&device.order(&release));
    device.await_sent(half);
    volume.fail();
    device.files.release();
    await_missing(&device, Some("ead-only"));
    let (report, code) = doctor(&device);
    assert_eq!(code, Some(13), "{report}");
    assert!(broken(&report).contains(&"disk".to_owned()), "{report}");
    assert!(report.to_string().contains("its file system is read-only"));
    // Nothing was promised that could not be kept, and nothing is booted meanwhile.
    assert!(device.cloud.results().is_empty());
    assert_eq!(device.machine.boot_count(), 1);

    device.machine.lose_power();
    volume.unmount();
    volume.mend();
    device.machine.power_on().unwrap();
    device.assert_ok(&ids);
    await_missing(&device, None);
    assert_eq!(device.cloud.results().len(), 1);
    assert_eq!(device.json(&["jobs"]).as_array().map(Vec::len), Some(1));
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn one_flipped_bit_of_a_download_is_told_by_doctor_and_the_download_goes_on_before_it() {
    let device = Device::online();
    let release = device.release(NEW, 12 * MIB);
    // An attempt that ends notes what is there.
    device
        .files
        .fault(&release.name, 1, Fault::CutAfter(10 * MIB));
    device.files.fault(&release.name, 1, Fault::StallAfter(0));
    let ids = device.command(&device.order(&release));
    device.await_requests(&release, 2);
    device.machine.lose_power();
    flip_bit(&device, 6 * MIB);
    let (report, code) = doctor(&device);
    assert_eq!(
        (broken(&report), code),
        (vec!["staged".to_owned()], Some(13)),
        "{report}"
    );
    let good = 4 * MIB + HEADER;
    let said = format!("only the first {good} are whole");
    assert!(report.to_string().contains(&said), "{report}");
    device.files.release();
    device.machine.power_on().unwrap();
    device.assert_ok(&ids);
    let requests = device.files.requests();
    let offsets: Vec<u64> = requests.iter().map(|request| request.offset).collect();
    assert!(
        matches!(offsets[..], [0, again, last] if again > 8 * MIB && last == good),
        "{offsets:?}"
    );
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn one_flipped_bit_of_an_image_that_waits_to_be_installed_keeps_it_from_ever_being_booted() {
    let device = Device::off("");
    let ready = device.machine.layout().data().with_file_name("ready");
    device.configure(
        "[targets.dock]\n",
        &format!("[targets.dock]\nready = {{ file = {} }}\n", json!(ready)),
    );
    device.switch_on();
    let order = device.order(&device.release(NEW, 256 * KIB));
    let ids = device.command(&order);
    eventually("an image that waits", || {
        device.json(&["jobs"])[0]["phase"] == "waiting"
    });
    device.machine.lose_power();
    assert_eq!(doctor(&device).1, Some(0));
    flip_bit(&device, 100 * KIB);
    let (report, code) = doctor(&device);
    assert_eq!(
        (broken(&report), code),
        (vec!["staged".to_owned()], Some(13)),
        "{report}"
    );
    device.machine.power_on().unwrap();
    fs::write(&ready, "").unwrap();
    let end = device.end_of(&ids);
    assert!(end.status.is_terminal() && end.percent < 100, "{end:?}");
    let job = &device.json(&["jobs"])[0];
    assert_eq!(job["phase"], "failed", "{job}");
    let reason = job["reason"]["text"].as_str().unwrap();
    assert!(reason.contains("is not what was verified"), "{reason}");
    let selector = device.machine.selector().unwrap();
    assert_eq!(
        (selector.primary.as_str(), selector.slots["b"].state),
        ("a", SlotState::Bad)
    );
    assert_eq!(device.machine.version().as_deref(), Some(OLD));
    // The same image, asked for again, is fetched where it is damaged and installed.
    device.update(&order);
    device.assert_runs(NEW, "b");
    device.assert_well();
}

/// Flips one bit of what was written into the slot that does not run.
fn flip_bit(device: &Device, at: u64) {
    let path = device.machine.layout().slot("b");
    let slot = fs::File::options().read(true).write(true).open(path);
    let slot = slot.unwrap();
    let mut byte = [0];
    slot.read_exact_at(&mut byte, at).unwrap();
    slot.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_version_on_trial_is_confirmed_over_a_bit_that_flipped_in_the_page_of_its_job() {
    let Some((device, volume)) = device(48) else {
        return;
    };
    let well = device.machine.layout().data().with_file_name("well");
    device.configure(
        "[targets.dock]\n",
        &format!(
            "[targets.dock]\nprobe = [\"/bin/test\", \"-e\", {}]\n",
            json!(well)
        ),
    );
    device.switch_on();
    device.command(&device.order(&device.release(NEW, 64 * KIB)));
    device.machine.await_boots(2, PATIENCE).unwrap();
    eventually("a version on trial", || {
        let said = device.cli(&["jobs", "--json"]).end();
        said.out.contains("\"confirming\"")
    });
    // What only the last commit holds is, damaged, nothing but a commit that was cut off: the store goes on from the one before.
    device.ping();
    device.ping();
    device.machine.lose_power();
    volume.unmount();
    // On the medium, behind the back of the file system.
    volume.flip_bit_in(b"\"confirming\"", 3);
    let (report, code) = doctor(&device);
    assert_eq!(
        (broken(&report), code),
        (vec!["journal".to_owned()], Some(13)),
        "{report}"
    );
    fs::write(&well, "").unwrap();
    device.machine.power_on().unwrap();
    eventually("the confirm", || {
        device.machine.selector().unwrap().slots["b"].state == SlotState::Good
    });
    device.assert_runs(NEW, "b");
    eventually("the agent tells of the damage", || {
        status(&device)
            .is_some_and(|status| status["journal"]["damaged"]["kept"] == "journal.redb.damaged")
    });
    // And it is what installs the next one.
    device.update(&device.order(&device.release("1.3.0", 64 * KIB)));
    device.assert_runs("1.3.0", "a");
    device.assert_well();
}

#[test]
fn without_space_for_another_version_of_an_adapter_the_old_one_goes_on_and_the_operator_is_told() {
    let Some((device, volume)) = device(32) else {
        return;
    };
    let built = |name: &str| built_adapter(name).display().to_string();
    device.configure(&built("dji"), &built("dji-1.0.0"));
    device.switch_on();
    volume.fill(0);
    let next = built("dji-1.1.0");
    let install = ["adapter", "install", "dji", &next];
    let said = device.cli(&install).end();
    assert_ne!(said.code(), Some(0), "{said:?}");
    assert!(
        said.err.contains("KiB more in the data directory"),
        "{said:?}"
    );
    let adapter = || device.json(&["status"])["adapters"][0].clone();
    assert_eq!(adapter()["version"], "1.0.0");
    device.ping();
    volume.free();
    let said = device.cli(&install).end();
    assert_eq!(said.code(), Some(0), "{said:?}");
    assert_eq!(adapter()["version"], "1.1.0");
    device.ping();
    device.assert_well();
}

#[test]
fn an_adapter_runs_also_where_there_is_no_space_for_its_native_code() {
    let Some((device, volume)) = device(32) else {
        return;
    };
    device.switch_on();
    device.machine.lose_power();
    let cache = volume.at().join("compiled");
    fs::remove_dir_all(&cache).unwrap();
    volume.fill(0);
    let loaded = || device.json(&["status"])["adapters"][0]["loaded"].clone();
    let start = |count| {
        device.machine.power_on().unwrap();
        device.cloud.await_online(count, PATIENCE).unwrap();
        device.ping();
        loaded()
    };
    assert_ne!(start(2), "cached");
    let log = fs::read_to_string(device.machine.layout().log()).unwrap();
    assert!(log.contains("No space left on device"), "{log}");
    let (report, code) = doctor(&device);
    assert_eq!(
        (broken(&report), code),
        (vec!["disk".to_owned()], Some(13)),
        "{report}"
    );
    assert!(report.to_string().contains("MiB more on its file system"));
    device.machine.lose_power();
    volume.free();
    assert_ne!(start(3), "cached");
    device.machine.lose_power();
    assert_eq!(start(4), "cached");
    device.assert_well();
}

#[test]
fn an_image_for_which_there_is_no_space_is_refused_before_it_is_copied_and_fits_when_there_is() {
    let device = Device::off("");
    let kit = device.machine.layout().data().with_file_name("kit");
    let Some(volume) = Volume::mount(&kit, 32) else {
        return;
    };
    let installed = kit.with_file_name("kit-installed");
    Image::new(OLD, KIB).write(&installed).unwrap();
    let install = json!(["/bin/sh", "-c", "cp \"$1\" \"$0\"", installed]);
    let version = json!([
        "/bin/sh",
        "-c",
        "grep -a -m1 ^version= \"$0\" | cut -d= -f2",
        installed
    ]);
    device.configure(
        "[targets.dock]\n",
        &format!(
            "[targets.kit]\nflasher = \"command\"\ndirectory = {}\nprogram = {install}\nversion = {{ command = {version} }}\n\
             trust = \"unsigned\"\n\n[targets.dock]\n",
            json!(kit.join("staged"))
        ),
    );
    device.switch_on();
    volume.fill(4);
    let release = device.release_unsigned(NEW, 8 * MIB);
    let path = device.medium(&release);
    let install = ["install", &path, "--target", "kit", "--version", NEW];
    let said = device.cli(&install).end();
    assert_eq!(said.code(), Some(7), "{said:?}");
    let job = &device.json(&["jobs"])[0];
    assert_eq!(job["reason"]["code"], "no-space", "{job}");
    assert_eq!(job["installs"][0]["received"], 0, "{job}");
    volume.free();
    let said = device.cli(&install).end();
    assert_eq!(said.code(), Some(0), "{said:?}");
    assert_eq!(Image::verify(&installed).unwrap().version, NEW);
    device.assert_unchanged();
    device.assert_well();
}
