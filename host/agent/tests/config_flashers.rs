//! Targets that are not slots: what is sound is read whole, what is not is told at its place.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::time::Duration;

use otahost::config::{ArchiveLimits, Config, Faults, FlasherConfig};

const SOUND: &str = r#"[device]
id = "ems-1"
data_dir = "DIR/data"
reboot = ["true"]

[targets.ems]
flasher = "command"
directory = "DIR/ems"
program = ["DIR/tool", "-i"]
trust = "unsigned"
version = { command = ["DIR/tool", "-v"] }

[targets.emu-1]
flasher = "archive"
directory = "DIR/emu-1"
deliver = ["DIR/tool", "push"]
limits = { entries = 500, unpacked = "64MiB" }
timeout = "5m"
trust = "unsigned"
version = { command = ["DIR/tool", "-v"] }
parent = "ems"

[targets.emu-2]
flasher = "archive"
directory = "DIR/emu-2"
trust = "unsigned"
version = { command = ["DIR/tool", "-v"] }
parent = "ems"

[targets.drone]
flasher = "command"
directory = "DIR/drone"
program = ["DIR/tool"]
rollback = ["DIR/tool", "back"]
runs = "after-reboot"
trust = "unsigned"
version = { command = ["DIR/tool", "-v"] }

[transfer]
parallel = 16

[deadlines]
deliver = "10m"
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tool"), "#!/bin/sh\n").unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::create_dir(dir.path().join("emu-1")).unwrap();
        Place(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, text: &str) -> Result<Config, Faults> {
        let text = text.replace("DIR", &self.0.path().display().to_string());
        Config::from_text(&self.path("otahost.toml"), &text)
    }
}

#[test]
fn sound_targets_of_every_flasher_are_read_whole_with_their_defaults() {
    let place = Place::new();
    let config = place
        .read(SOUND)
        .unwrap_or_else(|faults| panic!("{faults}"));
    let tool = |more: &[&str]| {
        let mut command = vec![place.path("tool").display().to_string()];
        command.extend(more.iter().map(|word| (*word).to_owned()));
        command
    };
    let flasher = |name: &str| &config.target(name).unwrap().flasher;
    assert_eq!(
        *flasher("ems"),
        FlasherConfig::Command {
            directory: place.path("ems"),
            program: tool(&["-i"]),
            rollback: None,
            reboot: false,
            timeout: Duration::from_secs(1_200),
        }
    );
    assert_eq!(
        *flasher("emu-1"),
        FlasherConfig::Archive {
            directory: place.path("emu-1"),
            deliver: Some(tool(&["push"])),
            timeout: Duration::from_secs(300),
            limits: ArchiveLimits {
                entries: 500,
                unpacked: 64 << 20,
                ..ArchiveLimits::default()
            },
        }
    );
    assert_eq!(
        *flasher("emu-2"),
        FlasherConfig::Archive {
            directory: place.path("emu-2"),
            deliver: None,
            timeout: Duration::from_secs(1_200),
            limits: ArchiveLimits::default(),
        }
    );
    let FlasherConfig::Command {
        rollback, reboot, ..
    } = flasher("drone")
    else {
        panic!("the drone is written by a program")
    };
    assert_eq!((rollback, *reboot), (&Some(tool(&["back"])), true));
    assert_eq!(config.transfer.parallel, 16);
    assert_eq!(config.deadlines.deliver, Duration::from_secs(600));
}

/// The defaults that the reference names are those that a limit has when only another is written.
#[test]
fn a_limit_that_is_not_written_has_its_default() {
    let place = Place::new();
    let text = SOUND.replace(
        "limits = { entries = 500, unpacked = \"64MiB\" }",
        "limits = {}",
    );
    let config = place.read(&text).unwrap();
    let FlasherConfig::Archive { limits, .. } = config.target("emu-1").unwrap().flasher else {
        panic!("it is an archive")
    };
    assert_eq!(limits, ArchiveLimits::default());
}

#[test]
fn a_fault_of_a_flasher_is_told_at_its_place() {
    // What is written, what instead, the faulty key, words of the fault.
    let cases = [
        (
            "flasher = \"command\"\ndirectory = \"DIR/ems\"",
            "flasher = \"raid\"\ndirectory = \"DIR/ems\"",
            "targets.ems.flasher",
            "not known",
        ),
        (
            "directory = \"DIR/ems\"\n",
            "",
            "targets.ems.directory",
            "has to be staged somewhere",
        ),
        (
            "program = [\"DIR/tool\", \"-i\"]\n",
            "",
            "targets.ems.program",
            "what installs",
        ),
        (
            "program = [\"DIR/tool\", \"-i\"]",
            "program = [\"DIR/nothing\"]",
            "targets.ems.program[0]",
            "does not exist",
        ),
        (
            "directory = \"DIR/ems\"",
            "directory = \"ems\"",
            "targets.ems.directory",
            "not an absolute path",
        ),
        (
            "directory = \"DIR/ems\"",
            "directory = \"/\"",
            "targets.ems.directory",
            "root of the file system",
        ),
        (
            "directory = \"DIR/ems\"",
            "directory = \"DIR/tool\"",
            "targets.ems.directory",
            "is no directory",
        ),
        (
            "directory = \"DIR/ems\"",
            "directory = \"DIR/not/there\"",
            "targets.ems.directory",
            "neither it nor",
        ),
        (
            "directory = \"DIR/ems\"",
            "directory = \"DIR/data/ems\"",
            "targets.ems.directory",
            "device.data_dir",
        ),
        (
            "directory = \"DIR/ems\"",
            "directory = \"DIR/data\"",
            "targets.ems.directory",
            "device.data_dir",
        ),
        (
            "directory = \"DIR/emu-2\"",
            "directory = \"DIR/emu-1\"",
            "targets.emu-2.directory",
            "target `emu-1`",
        ),
        (
            "directory = \"DIR/emu-2\"",
            "directory = \"DIR/emu-1/deeper\"",
            "targets.emu-2.directory",
            "target `emu-1`",
        ),
        (
            "timeout = \"5m\"",
            "timeout = \"2d\"",
            "targets.emu-1.timeout",
            "out of range",
        ),
        (
            "timeout = \"5m\"",
            "timeout = \"5m\"\nprogram = [\"true\"]",
            "targets.emu-1.program",
            "no effect with the flasher `archive`",
        ),
        (
            "timeout = \"5m\"",
            "timeout = \"5m\"\nslots = [\"/a\", \"/b\"]",
            "targets.emu-1.slots",
            "no effect with the flasher `archive`",
        ),
        (
            "runs = \"after-reboot\"",
            "deliver = [\"true\"]",
            "targets.drone.deliver",
            "no effect with the flasher `command`",
        ),
        (
            "runs = \"after-reboot\"",
            "runs = \"soon\"",
            "targets.drone.runs",
            "not a word that is known",
        ),
        (
            "entries = 500",
            "entries = 0",
            "targets.emu-1.limits.entries",
            "out of range",
        ),
        (
            "entries = 500",
            "ratio = 20000",
            "targets.emu-1.limits.ratio",
            "out of range",
        ),
        (
            "entries = 500",
            "depth = 101",
            "targets.emu-1.limits.depth",
            "out of range",
        ),
        (
            "entries = 500",
            "entrys = 5",
            "targets.emu-1.limits.entrys",
            "is no key",
        ),
        (
            "unpacked = \"64MiB\"",
            "unpacked = 0",
            "targets.emu-1.limits.unpacked",
            "is 0",
        ),
        (
            "deliver = [\"DIR/tool\", \"push\"]",
            "deliver = []",
            "targets.emu-1.deliver",
            "nothing to run",
        ),
        (
            "parallel = 16",
            "parallel = 65",
            "transfer.parallel",
            "out of range",
        ),
        (
            "deliver = \"10m\"",
            "deliver = \"0s\"",
            "deadlines.deliver",
            "out of range",
        ),
    ];
    let place = Place::new();
    for (from, to, key, what) in cases {
        assert!(SOUND.contains(from), "{from}");
        let faults = place.read(&SOUND.replacen(from, to, 1)).unwrap_err();
        let found: Vec<_> = faults
            .findings
            .iter()
            .map(|finding| (finding.key.as_str(), finding.what.as_str()))
            .collect();
        assert_eq!(found.len(), 1, "{to}: {found:?}");
        assert!(
            found[0].0 == key && found[0].1.contains(what),
            "{to}: {found:?}"
        );
    }
}
