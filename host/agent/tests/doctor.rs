//! `otahost doctor` as a process: each thing that can be damaged on a device, the sentence that says so, what to do, and the exit code.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use otahost_core::job::{InstallState, Job, Staged};
use otahost_core::model::{Apply, Artifact, ArtifactSource, Dedupe, Install, JobPlan, Phase};
use otahost_disk::{Place, RealDisk};
use otahost_journal::{Change, Journal, Key, json};
use serde_json::{Value, json};

/// Exit code of a device on which something is not whole.
const NOT_WHOLE: i32 = 13;
/// What waits in slot b, or came in for it.
const IMAGE: [u8; 8_000] = [7; 8_000];

/// A device that nobody has switched on: two slots, a directory for a device behind it, a secret, and what an agent keeps.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Bench {
            dir: tempfile::tempdir().unwrap(),
        };
        let at = |name: &str| json!(bench.path(name)).to_string();
        let text = format!(
            r#"
[device]
id = "gw-7"
data_dir = {data}
socket = {socket}
reboot = ["true"]

[targets.dock]
flasher = "slots"
slots = [{a}, {b}]
boot = {{ file = {boot} }}
trust = "unsigned"
version = {{ file = {release}, key = "VERSION_ID" }}

[targets.emu]
flasher = "archive"
directory = {emu}
trust = "unsigned"
version = {{ command = ["echo", "1"] }}

[links.cloud]
kind = "mqtt"
url = "mqtt://127.0.0.1:9"
username = "gw-7"
password = {{ file = {secret} }}
"#,
            data = at("data"),
            socket = at("socket"),
            a = at("a"),
            b = at("b"),
            boot = at("boot.json"),
            release = at("os-release"),
            emu = at("emu"),
            secret = at("secret"),
        );
        bench.write("otahost.toml", text.as_bytes());
        bench.write("os-release", b"VERSION_ID=1\n");
        bench.write("a", b"what runs");
        bench.write("b", &IMAGE);
        bench.write("secret", b"Dock-Pass-7\n");
        bench.mode("secret", 0o600);
        fs::create_dir(bench.path("emu")).unwrap();
        bench.slots("a", "a", "good", "bad");
        bench.keep(&[(Key::Meta("of-the-test".into()), b"{}".to_vec())]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// What the boot selector says: which slot runs, which is next, and how they are.
    fn slots(&self, booted: &str, primary: &str, a: &str, b: &str) {
        let slot = |state: &str| match state {
            "trial" => json!({ "state": "trial", "tries": 2 }),
            state => json!({ "state": state }),
        };
        let state = json!({ "booted": booted, "primary": primary, "slots": { "a": slot(a), "b": slot(b) } });
        self.write("boot.json", state.to_string().as_bytes());
    }

    /// Rows of the journal.
    fn keep(&self, rows: &[(Key, Vec<u8>)]) {
        let disk = RealDisk::new(&self.path("data")).unwrap();
        let journal = Journal::open(Arc::new(disk), Place::data("journal.redb")).unwrap();
        let changes: Vec<Change> = rows
            .iter()
            .map(|(key, value)| Change::Put(key.clone(), value.clone()))
            .collect();
        journal.commit(&changes).unwrap();
    }

    fn keep_jobs(&self, jobs: &[Job]) {
        let rows: Vec<_> = jobs
            .iter()
            .map(|job| (Key::Job(job.id), json(job)))
            .collect();
        self.keep(&rows);
    }

    /// The exit code, what is said to programs, and what is said to people.
    fn doctor(&self) -> (Option<i32>, Value, String) {
        let ask = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_otahost"));
            command.arg("doctor").args(more);
            command.arg("--config").arg(self.path("otahost.toml"));
            command.output().unwrap()
        };
        let (people, programs) = (ask(&[]), ask(&["--json"]));
        assert_eq!(people.status.code(), programs.status.code());
        let report = serde_json::from_slice(&programs.stdout)
            .unwrap_or_else(|e| panic!("{e}: {programs:?}"));
        let text = String::from_utf8(people.stdout).unwrap();
        (people.status.code(), report, text)
    }
}

fn job(id: u64, phase: Phase) -> Job {
    let plan = JobPlan {
        key: format!("job-{id}"),
        dedupe: Dedupe::WhileActive,
        context: Vec::new(),
        installs: vec![Install {
            target: "dock".into(),
            artifact: Artifact {
                source: ArtifactSource::Url("http://files.example/b".into()),
                size: None,
                digests: Vec::new(),
                identity: None,
            },
            version: "2".into(),
        }],
        apply: Apply::Immediately,
    };
    let mut job = Job::new(id, "operator", plan, vec![None], &[true], 1);
    job.phase = phase;
    job
}

/// A job that waits with this in slot b.
fn with_staged(bytes: &[u8]) -> Job {
    let mut job = job(1, Phase::Waiting);
    job.installs[0] = InstallState {
        staged: Some(Staged {
            place: "b".into(),
            len: bytes.len() as u64,
            sha256: sha256(bytes),
        }),
        ..InstallState::default()
    };
    job
}

fn sha256(bytes: &[u8]) -> String {
    let sum = digest(&SHA256, bytes);
    sum.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// A download of which so much came, with a mark after each 2,000 bytes.
fn partial(received: usize) -> (Key, Vec<u8>) {
    let marks: Vec<Value> = (1..=received / 2_000)
        .map(|n| json!({ "at": n * 2_000, "sha256": &sha256(&IMAGE[..n * 2_000])[..32] }))
        .collect();
    let row = json!({
        "target": "dock",
        "checkpoint": { "validator": null, "total": 10_000, "header": "", "received": received, "marks": marks },
    });
    (Key::Partial("of-dock".into()), row.to_string().into_bytes())
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_whole_device_is_said_to_be_whole() {
    let bench = Bench::new();
    let (code, report, text) = bench.doctor();
    assert_eq!((code, &report["ok"]), (Some(0), &json!(true)), "{report:#}");
    assert!(
        text.ends_with("everything that was looked at is whole\n"),
        "{text}"
    );
    for part in [
        "none runs",
        "every page is whole",
        "slot a runs; a is good, b is bad; a is next",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    // And nothing was changed by looking.
    let before = fs::read(bench.path("data/journal.redb")).unwrap();
    bench.doctor();
    assert_eq!(before, fs::read(bench.path("data/journal.redb")).unwrap());
}

/// One kind of damage: what is done, the area that says so, what is found and what is advised, in part.
struct Damage {
    what: &'static str,
    does: fn(&Bench),
    area: &'static str,
    found: &'static str,
    advice: &'static str,
}

/// Everything that is no longer whole.
const BROKEN: [Damage; 14] = [
    Damage {
        what: "the data directory is not there",
        does: |bench| fs::remove_dir_all(bench.path("data")).unwrap(),
        area: "disk",
        found: "cannot look at the data directory",
        advice: "is its file system mounted?",
    },
    Damage {
        what: "the journal's file is something else",
        does: |bench| bench.write("data/journal.redb", &[0x5a; 10_000]),
        area: "journal",
        found: "data/journal.redb is damaged",
        advice: "puts the file aside and goes on with what can be read",
    },
    Damage {
        what: "one bit of a page of the journal",
        does: |bench| {
            let path = bench.path("data/journal.redb");
            let bytes = fs::read(&path).unwrap();
            let row = b"of-the-test";
            let at = bytes.windows(row.len()).position(|w| w == row).unwrap();
            flip(&path, at);
        },
        area: "journal",
        found: "is damaged",
        advice: "look at the medium",
    },
    Damage {
        what: "a row nobody can read",
        does: |bench| bench.keep(&[(Key::Job(3), b"{ no job".to_vec())]),
        area: "journal",
        found: "job 3",
        advice: "the agent passes it over and keeps it",
    },
    Damage {
        what: "two jobs at work on one target",
        does: |bench| bench.keep_jobs(&[job(1, Phase::Downloading), job(2, Phase::Installing)]),
        area: "jobs",
        found: "another job is at work on the same target",
        advice: "`otahost cancel` ends it",
    },
    Damage {
        what: "a job whose parts were lost",
        does: |bench| {
            let mut job = job(1, Phase::Downloading);
            job.installs.clear();
            bench.keep_jobs(&[job]);
        },
        area: "jobs",
        found: "its parts do not belong together",
        advice: "have the update asked for again",
    },
    Damage {
        what: "the boot selector is torn",
        does: |bench| bench.write("boot.json", b"{ \"booted\": \"a\""),
        area: "slots",
        found: "boot.json",
        advice: "without it nothing can be installed, confirmed or rolled back",
    },
    Damage {
        what: "no slot boots",
        does: |bench| bench.slots("a", "a", "bad", "bad"),
        area: "slots",
        found: "a is bad, b is bad",
        advice: "do not switch the device off",
    },
    Damage {
        what: "the slot that runs is bad",
        does: |bench| bench.slots("a", "b", "bad", "good"),
        area: "slots",
        found: "slot a runs; a is bad",
        advice: "somebody else has changed the boot selector",
    },
    Damage {
        what: "a trial of which no job speaks",
        does: |bench| bench.slots("b", "b", "good", "trial"),
        area: "slots",
        found: "slot b runs",
        advice: "the agent judges it by its version and its probe when it starts",
    },
    Damage {
        what: "one bit of a part of a download",
        does: |bench| {
            bench.keep(&[partial(6_000)]);
            flip(&bench.path("b"), 5_000);
        },
        area: "staged",
        found: "of 6000 bytes of a download only the first 4000 are whole",
        advice: "the download goes on there",
    },
    Damage {
        what: "one bit of an image that waits",
        does: |bench| {
            bench.keep_jobs(&[with_staged(&IMAGE)]);
            bench.keep(&[partial(8_000)]);
            flip(&bench.path("b"), 100);
        },
        area: "staged",
        found: "is not what was verified",
        advice: "have the update asked for again",
    },
    Damage {
        what: "a version of an adapter that was changed",
        does: |bench| {
            let name = sha256(b"an adapter");
            bench.write(&format!("data/adapters/{name}.wasm"), b"an Adapter");
        },
        area: "adapters",
        found: "its content is not what its name says",
        advice: "install it again",
    },
    Damage {
        what: "native code that nobody made",
        does: |bench| {
            bench.write(
                &format!("data/compiled/{}.cwasm", "0".repeat(64)),
                &[1; 500],
            )
        },
        area: "cache",
        found: "",
        advice: "compiled anew at the next start",
    },
];

#[test]
fn each_thing_that_is_damaged_is_named_with_what_to_do_and_nothing_else_is() {
    for damage in &BROKEN {
        let bench = Bench::new();
        (damage.does)(&bench);
        let (code, report, text) = bench.doctor();
        let checks = report["checks"].as_array().unwrap();
        let broken: Vec<&Value> = checks.iter().filter(|c| c["state"] == "broken").collect();
        let [check] = broken.as_slice() else {
            panic!("{}: {broken:#?}\n{text}", damage.what);
        };
        assert_eq!(
            (code, &report["ok"]),
            (Some(NOT_WHOLE), &json!(false)),
            "{}",
            damage.what
        );
        let said = |field: &str| check[field].as_str().unwrap().to_owned();
        assert!(
            said("area") == damage.area
                && said("found").contains(damage.found)
                && said("advice").contains(damage.advice)
                && said("advice").is_empty() == damage.advice.is_empty(),
            "{}: {check:#}",
            damage.what
        );
        // People are told the same, and never in words that only we know.
        assert!(
            text.contains("BROKEN")
                && text.contains(&said("found"))
                && text.contains(&said("advice")),
            "{}: {text}",
            damage.what
        );
        assert!(
            text.ends_with("1 thing is not whole\n"),
            "{}: {text}",
            damage.what
        );
        assert!(!text.contains("{data}"), "{}: {text}", damage.what);
    }
}

/// What is worth knowing and no damage.
const NOTES: [Damage; 5] = [
    Damage {
        what: "a journal that was never made",
        does: |bench| fs::remove_file(bench.path("data/journal.redb")).unwrap(),
        area: "journal",
        found: "there is none yet",
        advice: "",
    },
    Damage {
        what: "a journal that was replaced once",
        does: |bench| bench.write("data/journal.redb.damaged", b"what it was"),
        area: "journal",
        found: "a journal was damaged once and replaced",
        advice: "take the file away",
    },
    Damage {
        what: "a secret that others can read",
        does: |bench| bench.mode("secret", 0o644),
        area: "secrets",
        found: "its mode is 644",
        advice: "chmod 600",
    },
    Damage {
        what: "a version that is being proved",
        does: |bench| {
            bench.slots("b", "b", "good", "trial");
            bench.keep_jobs(&[job(1, Phase::Confirming)]);
        },
        area: "slots",
        found: "b is next",
        advice: "the agent confirms it, or brings the old one back",
    },
    Damage {
        what: "a directory that no update has made yet",
        does: |bench| fs::remove_dir(bench.path("emu")).unwrap(),
        area: "staged",
        found: "is made with the first update",
        advice: "",
    },
];

#[test]
fn what_is_worth_knowing_is_said_and_is_no_failure() {
    for note in &NOTES {
        let bench = Bench::new();
        (note.does)(&bench);
        let (code, report, _) = bench.doctor();
        assert_eq!(code, Some(0), "{}: {report:#}", note.what);
        let checks = report["checks"].as_array().unwrap();
        let is_said = checks.iter().any(|check| {
            let has = |field: &str, text: &str| check[field].as_str().unwrap().contains(text);
            check["state"] == "note"
                && check["area"] == note.area
                && has("found", note.found)
                && has("advice", note.advice)
        });
        assert!(is_said, "{}: {report:#}", note.what);
    }
}

#[test]
fn what_came_in_and_what_waits_is_looked_at_byte_by_byte_and_is_whole() {
    let bench = Bench::new();
    bench.keep(&[partial(6_000)]);
    let (code, _, text) = bench.doctor();
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("6000 bytes of a download are there and whole"),
        "{text}"
    );
    bench.keep_jobs(&[with_staged(&IMAGE)]);
    let (code, _, text) = bench.doctor();
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("8000 bytes wait in slot b and are whole"),
        "{text}"
    );
    assert!(!text.contains("of a download"), "{text}");
}

#[test]
fn an_agent_that_has_the_data_directory_and_does_not_answer_is_told() {
    let bench = Bench::new();
    let _held = RealDisk::new(&bench.path("data")).unwrap();
    let (code, report, _) = bench.doctor();
    assert_eq!(code, Some(NOT_WHOLE), "{report:#}");
    let agent = &report["checks"][0];
    assert_eq!(
        (&agent["area"], &agent["state"], &agent["found"]),
        (
            &json!("agent"),
            &json!("broken"),
            &json!("one has the data directory and does not answer")
        )
    );
}

#[test]
fn a_configuration_with_faults_is_no_damage_of_the_device_and_has_its_own_code() {
    let bench = Bench::new();
    bench.write("otahost.toml", b"[device]\nid = 7\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_otahost"));
    command
        .arg("doctor")
        .arg("--config")
        .arg(bench.path("otahost.toml"));
    let said: io::Result<_> = command.output();
    assert_eq!(said.unwrap().status.code(), Some(3));
}
