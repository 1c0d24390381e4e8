//! A person at the device, beside the cloud: what the command line of the real program shows and does while the vendor's protocol
//! goes on.
#![allow(clippy::unwrap_used, reason = "tests")]

use otahost_e2e::device::{Device, NEW, OLD, PATIENCE, SERIAL, eventually, ota_create};
use otahost_lab::cloud::Status;
use otahost_lab::files::Fault;
use otahost_lab::image::Image;
use serde_json::{Value, json};

const KIB: u64 = 1024;

/// The names of an object's fields, sorted.
fn fields(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names
}

const JOB: [&str; 21] = [
    "activation",
    "allowed_attempts",
    "awaits_owner",
    "created",
    "current",
    "failed_attempts",
    "gate",
    "history",
    "id",
    "installs",
    "key",
    "owner",
    "paused",
    "phase",
    "rate",
    "reason",
    "rolling_back",
    "time_left",
    "until",
    "updated",
    "when_told",
];

#[test]
fn status_and_jobs_show_an_update_while_it_runs_and_after_it() {
    let device = Device::online();
    let idle = device.json(&["status"]);
    let parts = [
        "adapters",
        "boot_id",
        "clock",
        "device",
        "drop_ins",
        "jobs",
        "journal",
        "links",
        "now",
        "problem",
        "repositories",
        "safe_mode",
        "targets",
        "uptime_ms",
        "version",
    ];
    assert_eq!(fields(&idle), parts);
    assert_eq!(idle["device"], json!(SERIAL));
    assert_eq!(idle["jobs"], json!([]));
    assert_eq!(device.json(&["jobs"]), json!([]));
    let link = &idle["links"][0];
    assert_eq!(
        fields(link),
        ["kind", "name", "reason", "since", "up", "waiting"]
    );
    assert_eq!(
        (&link["name"], &link["kind"], &link["up"]),
        (&json!("cloud"), &json!("mqtt"), &json!(true))
    );
    let target = &idle["targets"][0];
    let parts = [
        "busy",
        "health",
        "id",
        "memory",
        "observed",
        "slots",
        "version",
        "version_fault",
    ];
    assert_eq!(fields(target), parts);
    assert_eq!(
        (&target["id"], &target["version"], &target["busy"]),
        (&json!("dock"), &json!(OLD), &Value::Null)
    );
    assert_eq!(
        target["slots"],
        json!([
            { "name": "a", "state": "good", "running": true },
            { "name": "b", "state": "bad", "running": false },
        ])
    );
    let adapter = &idle["adapters"][0];
    let parts = [
        "dead_letters",
        "digest",
        "fault",
        "health",
        "inbox",
        "installed",
        "loaded",
        "name",
        "origin",
        "previous",
        "protocol",
        "rejected",
        "strikes",
        "version",
        "waiting",
    ];
    assert_eq!(fields(adapter), parts);
    assert!(adapter["digest"].as_str().unwrap().starts_with("sha256:"));

    let release = device.release(NEW, 256 * KIB);
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(128 * KIB));
    let ids = device.command(&device.order(&release));
    device.await_sent(128 * KIB);
    let busy = device.json(&["status"]);
    let job = &busy["jobs"][0];
    assert_eq!(fields(job), JOB);
    assert_eq!(
        (&job["owner"], &job["phase"], &job["paused"]),
        (&json!("dji"), &json!("downloading"), &json!(false))
    );
    assert_eq!(busy["targets"][0]["busy"], job["key"]);
    let install = &job["installs"][0];
    let parts = [
        "new_version",
        "old_version",
        "percent",
        "phase",
        "reason",
        "received",
        "target",
        "total",
    ];
    assert_eq!(fields(install), parts);
    assert_eq!(
        (&install["old_version"], &install["new_version"]),
        (&json!(OLD), &json!(NEW))
    );
    assert_eq!(install["total"], json!(release.file.size));
    assert!(install["received"].as_u64().unwrap() <= 128 * KIB);
    let key = job["key"].as_str().unwrap().to_owned();

    device.files.release();
    device.assert_ok(&ids);
    let jobs = device.json(&["jobs", &key]);
    let [job] = &jobs.as_array().unwrap()[..] else {
        panic!("{jobs}")
    };
    assert_eq!(fields(job), JOB);
    assert_eq!(
        (&job["phase"], &job["reason"]),
        (&json!("succeeded"), &Value::Null)
    );
    assert_eq!(job["installs"][0]["percent"], json!(100));
    let history = job["history"].as_array().unwrap();
    assert_eq!(fields(&history[0]), ["at", "phase", "text"]);
    let phases: Vec<&str> = history
        .iter()
        .map(|line| line["phase"].as_str().unwrap())
        .collect();
    assert!(
        phases.starts_with(&["queued", "downloading"])
            && phases.ends_with(&["confirming", "succeeded"]),
        "{phases:?}"
    );
    let after = device.json(&["status"]);
    assert_eq!(after["jobs"], json!([]));
    assert_eq!(after["targets"][0]["version"], json!(NEW));
    assert_ne!(after["boot_id"], idle["boot_id"]);

    // The same for people.
    let said = device.cli(&["jobs", &key]).end();
    assert!(
        said.status.success() && said.out.contains("succeeded"),
        "{said:?}"
    );
    let said = device.cli(&["status"]).end();
    assert!(
        said.status.success() && said.out.contains(SERIAL) && said.out.contains(NEW),
        "{said:?}"
    );
    let said = device.cli(&["jobs", "no-such-job"]).end();
    assert_eq!(said.code(), Some(5), "{said:?}");
    device.assert_well();
}

#[test]
fn a_file_that_is_installed_here_is_followed_over_the_reboot_and_the_cloud_hears_of_no_update_of_its_own()
 {
    let device = Device::online();
    let release = device.release(NEW, 256 * KIB);
    let said = device
        .cli(&["install", &device.medium(&release), "--target", "dock"])
        .end();
    assert_eq!(said.code(), Some(0), "{said:?}");
    assert!(
        said.out.contains("dock 1.0.0 → 1.2.0.69: succeeded"),
        "{said:?}"
    );
    device.assert_runs(NEW, "b");
    assert_eq!(device.machine.boot_count(), 2);
    let jobs = device.json(&["jobs"]);
    assert_eq!(
        (&jobs[0]["owner"], &jobs[0]["phase"]),
        (&json!("operator"), &json!("succeeded"))
    );

    // The cloud's own update goes as ever afterwards.
    assert!(device.cloud.events().is_empty());
    device.update(&device.order(&device.release("1.3.0", 64 * KIB)));
    device.assert_runs("1.3.0", "a");
    assert_eq!(device.cloud.results().len(), 1);
    device.assert_well();
}

/// Waits until the osd says this.
fn await_mode(device: &Device, mode: i64) {
    eventually("the mode of the osd", || {
        device
            .cloud
            .osd()
            .is_some_and(|osd| osd["mode_code"] == json!(mode))
    });
}

#[test]
fn while_a_file_is_installed_here_the_cloud_sees_an_upgrade_and_its_own_command_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let well = dir.path().join("well");
    let probe = format!("probe = [\"/usr/bin/test\", \"-e\", {:?}]", well);
    let device = Device::off(&probe);
    std::fs::write(&well, []).unwrap();
    device.switch_on();
    std::fs::remove_file(&well).unwrap();
    let release = device.release(NEW, 64 * KIB);
    let mut install = device.cli(&["install", &device.medium(&release), "--target", "dock"]);
    device.machine.await_boots(2, PATIENCE).unwrap();
    device.cloud.await_firmware(NEW, PATIENCE).unwrap();
    // It runs, but it has not proved itself.
    await_mode(&device, 3);
    let other = device.release("1.3.0", 64 * KIB);
    let reply = device.send(&ota_create(&[&device.order(&other)]));
    assert_eq!(
        (reply.result, reply.status),
        (312_014, Some(Status::Rejected))
    );
    let key = device.json(&["jobs"])[0]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let said = device.cli(&["cancel", &key]).end();
    assert_eq!(
        said.code(),
        Some(9),
        "past the point of no return: {said:?}"
    );
    assert!(install.runs());

    std::fs::write(&well, []).unwrap();
    let said = install.end();
    assert_eq!(said.code(), Some(0), "{said:?}");
    device.assert_runs(NEW, "b");
    await_mode(&device, 0);
    assert!(device.cloud.events().is_empty());
    assert!(device.files.requests().is_empty());
    device.assert_well();
}

#[test]
fn the_operator_goes_first_and_the_cloud_is_told_that_its_update_was_cancelled() {
    let device = Device::online();
    let release = device.release(NEW, 256 * KIB);
    let mine = device.release("1.3.0", 64 * KIB);
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(64 * KIB));
    let ids = device.command(&device.order(&release));
    device.await_sent(64 * KIB);
    let said = device
        .cli(&["install", &device.medium(&mine), "--target", "deck"])
        .end();
    assert_eq!(said.code(), Some(5), "{said:?}");

    let said = device
        .cli(&["install", &device.medium(&mine), "--target", "dock"])
        .end();
    assert_eq!(said.code(), Some(0), "{said:?}");
    device.files.release();
    let end = device.end_of(&ids);
    assert_eq!(
        (end.status, end.result),
        (Status::Canceled, 312_013),
        "{}",
        end.message
    );
    device.assert_runs("1.3.0", "b");
    device.assert_well();
}

#[test]
fn a_file_nobody_signed_is_refused_here_too() {
    let device = Device::online();
    let release = device.release_unsigned(NEW, 64 * KIB);
    let said = device
        .cli(&["install", &device.medium(&release), "--target", "dock"])
        .end();
    assert_eq!(said.code(), Some(7), "{said:?}");
    assert!(said.out.contains("not signed"), "{said:?}");
    assert!(device.files.requests().is_empty());
    assert!(device.cloud.events().is_empty());
    device.assert_unchanged();
    device.assert_well();
}

#[test]
fn a_download_that_is_cancelled_here_ends_as_canceled_and_the_next_command_is_a_new_attempt() {
    let device = Device::online();
    let release = device.release(NEW, 512 * KIB);
    device
        .files
        .fault(&release.name, 1, Fault::StallAfter(64 * KIB));
    let ids = device.command(&device.order(&release));
    device.await_sent(64 * KIB);
    let key = device.json(&["jobs"])[0]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let said = device.cli(&["cancel", &key]).end();
    assert_eq!(said.code(), Some(0), "{said:?}");
    let end = device.end_of(&ids);
    assert_eq!(end.status, Status::Canceled, "{}", end.message);
    assert_eq!(device.json(&["jobs", &key])[0]["phase"], json!("cancelled"));
    assert!(device.files.bytes_sent() < release.file.size);
    device.assert_unchanged();
    let said = device.cli(&["cancel", &key]).end();
    assert_eq!(said.code(), Some(6), "it has ended: {said:?}");
    let said = device.cli(&["cancel", "no-such-job"]).end();
    assert_eq!(said.code(), Some(5), "{said:?}");

    device.update(&device.order(&release));
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn a_second_agent_on_the_same_data_directory_ends_with_a_clear_error_and_harms_nothing() {
    let device = Device::online();
    let connections = device.proxy.connections();
    let said = device.cli(&["run"]).end();
    assert_eq!(said.code(), Some(3), "{said:?}");
    assert!(
        said.err.contains("data_dir") && said.err.contains("one agent at a time"),
        "{said:?}"
    );
    assert_eq!(device.proxy.connections(), connections);
    device.update(&device.order(&device.release(NEW, 64 * KIB)));
    device.assert_runs(NEW, "b");
    device.assert_well();
}

#[test]
fn without_an_agent_the_command_line_says_so() {
    let device = Device::off("");
    for command in [&["status"][..], &["jobs"], &["cancel", "x"]] {
        let said = device.cli(command).end();
        assert_eq!(said.code(), Some(4), "{command:?}: {said:?}");
        assert!(said.err.contains("otahost run"), "{command:?}: {said:?}");
    }
}

#[test]
fn after_two_rollbacks_an_image_is_refused_until_the_operator_clears_it() {
    let device = Device::online();
    // It does not say of itself what it is announced as.
    let release = device.release_image(&Image::new("1.1.9", 64 * KIB), NEW);
    for _ in 0..2 {
        let ids = device.command(&device.order(&release));
        device.assert_failed(&ids, 312_017, "UPGRADE_FAIL");
    }
    let reply = device.send(&ota_create(&[&device.order(&release)]));
    assert_eq!(
        (reply.result, reply.status),
        (312_003, Some(Status::Rejected))
    );

    let memory = &device.json(&["status"])["targets"][0]["memory"];
    assert_eq!(
        (&memory["last_failed"]["phase"], &memory["activations"]),
        (&json!("rolled-back"), &json!(2))
    );
    assert_eq!(memory["bad"][0]["refused_always"], json!(true));
    let said = device.cli(&["status"]).end();
    for part in [
        "known bad: version 1.2.0.69",
        "rolled back 2 times, refused to every adapter",
        "version 1.2.0.69 was rolled back: version 1.1.9 runs, but 1.2.0.69 was installed",
        "`otahost clear dock 1.2.0.69` allows it again",
    ] {
        assert!(said.out.contains(part), "{part}: {said:?}");
    }

    let said = device.cli(&["clear", "dock", NEW]).end();
    assert_eq!(said.code(), Some(0), "{said:?}");
    assert!(said.out.contains("1 image is allowed again"), "{said:?}");
    let ids = device.command(&device.order(&release));
    device.assert_failed(&ids, 312_017, "UPGRADE_FAIL");
    device.assert_runs(OLD, "a");
    device.assert_well();
}

#[test]
fn a_download_that_is_paused_here_goes_on_where_it_was_when_it_is_resumed() {
    let device = Device::online();
    let release = device.release(NEW, 12 * 1024 * KIB);
    // An attempt that ends notes all of what it has; the next one hangs until it is paused.
    let had = 9 * 1024 * KIB;
    device.files.fault(&release.name, 1, Fault::CutAfter(had));
    device.files.fault(&release.name, 1, Fault::StallAfter(0));
    let ids = device.command(&device.order(&release));
    device.await_requests(&release, 2);
    let key = device.json(&["jobs"])[0]["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let said = device.cli(&["pause", &key]).end();
    assert_eq!(said.code(), Some(0), "{said:?}");
    let said = device.cli(&["jobs"]).end();
    assert!(said.out.contains("paused with "), "{said:?}");
    let said = device.cli(&["resume", &key]).end();
    assert_eq!(said.code(), Some(0), "{said:?}");
    device.assert_ok(&ids);
    device.assert_runs(NEW, "b");
    let requests = device.files.requests().into_iter();
    let offsets: Vec<u64> = requests.map(|request| request.offset).collect();
    assert_eq!(offsets, [0, had, had]);
    device.assert_well();
}
