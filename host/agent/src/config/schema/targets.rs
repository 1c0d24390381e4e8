//! The tables below `[targets.<name>]`.

use super::{Table, key};

pub(in crate::config) static TARGET: Table = Table {
    path: "targets.<name>",
    keys: &[
        key(
            "flasher",
            "`\"slots\"`, `\"archive\"` or `\"command\"`",
            "required",
            "flasher = \"slots\"",
            "How the target is written: into one of two slots, by unpacking an archive, or by a program.",
        ),
        key(
            "slots",
            "two absolute paths",
            "-",
            "slots = [\"/dev/mmcblk0p2\", \"/dev/mmcblk0p3\"]",
            "`slots` requires it: the two places that hold a version, block devices or files. One runs while the other is written.",
        ),
        key(
            "boot",
            "table",
            "-",
            "boot = { command = [\"/usr/libexec/otahost-boot\"] }",
            "`slots` requires it: the boot selector; see `targets.<name>.boot`.",
        ),
        key(
            "directory",
            "absolute path",
            "-",
            "directory = \"/var/lib/otahost-emu-1\"",
            "`archive` and `command` require it: where an artifact is staged, and unpacked. It belongs to this target alone, and is made where only its last part is missing.",
        ),
        key(
            "deliver",
            "command",
            "-",
            "deliver = [\"/usr/libexec/emu-push\"]",
            "`archive`: hands the unpacked directory over. Without it `directory`/current is what the target reads.",
        ),
        key(
            "limits",
            "table",
            "-",
            "limits = { entries = 500 }",
            "`archive`: what an archive may hold; see `targets.<name>.limits`.",
        ),
        key(
            "program",
            "command",
            "-",
            "program = [\"/usr/libexec/drone-install\"]",
            "`command` requires it: installs the staged file.",
        ),
        key(
            "rollback",
            "command",
            "-",
            "rollback = [\"/usr/libexec/drone-restore\"]",
            "`command`: brings the old version back when the new one does not prove itself.",
        ),
        key(
            "runs",
            "`\"at-once\"` or `\"after-reboot\"`",
            "at-once",
            "runs = \"at-once\"",
            "`command`: when the new version runs: as soon as the program has ended, or after the device was rebooted.",
        ),
        key(
            "timeout",
            "time, 1s to 1d",
            "20m",
            "timeout = \"20m\"",
            "`archive` and `command`: how long each of these programs may take before it is killed with all it started.",
        ),
        key(
            "trust",
            "`\"unsigned\"` or table",
            "required",
            "trust = { minisign = [\"RWQ…\"], compatible = \"evonest-dock\" }",
            "Whose images may be installed; see `targets.<name>.trust`. `\"unsigned\"` says in so many words that anybody's may.",
        ),
        key(
            "version",
            "table",
            "required",
            "version = { file = \"/etc/os-release\", key = \"VERSION_ID\" }",
            "Where the running version is read; see `targets.<name>.version`. Without it nobody could tell whether an update worked.",
        ),
        key(
            "attributes",
            "table of strings",
            "-",
            "attributes = { sn = \"NM1923221021\" }",
            "Free attributes that adapters see.",
        ),
        key(
            "confirm_within",
            "time, 1s to 1d",
            "10m",
            "confirm_within = \"10m\"",
            "How long after its first boot a new version has to prove itself before the old one comes back.",
        ),
        key(
            "confirm",
            "`\"probe\"` or `\"adapter\"`",
            "probe",
            "confirm = \"probe\"",
            "What a new version has to pass: the probe, or the probe and the word of the adapter that asked for it.",
        ),
        key(
            "probe",
            "command",
            "-",
            "probe = [\"/usr/libexec/health\"]",
            "Exit status 0 says that the new version is well; it finds the target's name in `OTAHOST_TARGET`. Without it, running is proof enough.",
        ),
        key(
            "parent",
            "name of a target",
            "-",
            "parent = \"dock\"",
            "The target this one hangs on.",
        ),
        key(
            "ready",
            "table",
            "-",
            "ready = { command = [\"/usr/libexec/idle\"] }",
            "Whether the target can be done without for the time of an update; see `targets.<name>.ready`. Without it, it always can.",
        ),
        key(
            "policy",
            "table",
            "-",
            "policy = { window = [\"mon-fri 02:00-04:00\"] }",
            "When which updates are allowed; see `targets.<name>.policy`.",
        ),
        key(
            "authority",
            "list of names",
            "[]",
            "authority = [\"dji\"]",
            "Adapters in the order in which they go before each other on this target. The operator comes before them, adapters that are not listed after them.",
        ),
    ],
};

pub(in crate::config) static ATTRIBUTES: Table = Table {
    path: "targets.<name>.attributes",
    keys: &[],
};

pub(in crate::config) static BOOT: Table = Table {
    path: "targets.<name>.boot",
    keys: &[
        key(
            "file",
            "absolute path",
            "-",
            "boot = { file = \"/boot/otahost-slots\" }",
            "A selector kept in a file, for boot loaders that read one (and for tests).",
        ),
        key(
            "command",
            "command",
            "-",
            "boot = { command = [\"/usr/libexec/otahost-boot\"] }",
            "A program that gets, sets and marks slots: fits any boot loader. Exactly one of `file` and `command`.",
        ),
    ],
};

pub(in crate::config) static LIMITS: Table = Table {
    path: "targets.<name>.limits",
    keys: &[
        key(
            "entries",
            "number, 1 to 100000",
            "10000",
            "limits = { entries = 500 }",
            "Most entries, directories included.",
        ),
        key(
            "unpacked",
            "size",
            "4GiB",
            "limits = { unpacked = \"64MiB\" }",
            "Most bytes of all files together.",
        ),
        key(
            "ratio",
            "number, 1 to 10000",
            "200",
            "limits = { ratio = 50 }",
            "So many times its own size an archive may unpack to, once that is more than 16 MiB.",
        ),
        key(
            "depth",
            "number, 0 to 100",
            "32",
            "limits = { depth = 8 }",
            "Most directories above an entry.",
        ),
    ],
};

pub(in crate::config) static TRUST: Table = Table {
    path: "targets.<name>.trust",
    keys: &[
        key(
            "minisign",
            "list of public keys",
            "required",
            "minisign = [\"RWQ…\"]",
            "Minisign public keys; an image must be signed by one of them. `otahost keygen` makes a pair.",
        ),
        key(
            "compatible",
            "string",
            "-",
            "compatible = \"evonest-dock\"",
            "The signed image must name exactly this in `compatible`.",
        ),
    ],
};

pub(in crate::config) static VERSION: Table = Table {
    path: "targets.<name>.version",
    keys: &[
        key(
            "file",
            "absolute path",
            "-",
            "version = { file = \"/etc/os-release\", key = \"VERSION_ID\" }",
            "File that holds the version. Of a target with a `parent` it may be missing while that is away.",
        ),
        key(
            "key",
            "string",
            "-",
            "version = { file = \"/etc/os-release\", key = \"VERSION_ID\" }",
            "The file has lines `KEY=value`; take this key's. Without it the whole file, trimmed, is the version.",
        ),
        key(
            "command",
            "command",
            "-",
            "version = { command = [\"/usr/libexec/dock-version\"] }",
            "Program that prints the version; it finds the target's name in `OTAHOST_TARGET`. Exactly one of `file` and `command`.",
        ),
    ],
};

pub(in crate::config) static READY: Table = Table {
    path: "targets.<name>.ready",
    keys: &[
        key(
            "file",
            "absolute path",
            "-",
            "ready = { file = \"/run/ready\" }",
            "The target is ready while this file exists.",
        ),
        key(
            "command",
            "command",
            "-",
            "ready = { command = [\"/usr/libexec/idle\"] }",
            "Exit status 0 says that the target is ready; otherwise what it prints is shown as the reason. Exactly one of `file` and `command`.",
        ),
    ],
};

pub(in crate::config) static POLICY: Table = Table {
    path: "targets.<name>.policy",
    keys: &[
        key(
            "lock",
            "list of absolute paths",
            "[]",
            "lock = [\"/run/otahost.lock\"]",
            "While one of these files exists no update begins, is installed or is activated.",
        ),
        key(
            "window",
            "list of windows, at most 32",
            "-",
            "window = [\"mon-fri 02:00-04:00\"]",
            "Maintenance windows in UTC: an update begins, is installed and is activated only in one of them. Without it any time is right.",
        ),
        key(
            "outside",
            "`\"defer\"` or `\"refuse\"`",
            "defer",
            "outside = \"refuse\"",
            "A request that comes outside the windows waits, or is refused. A job that has begun always waits.",
        ),
        key(
            "downgrade",
            "`\"allow\"` or `\"refuse\"`",
            "allow",
            "downgrade = \"refuse\"",
            "Whether a version may be replaced by an older one.",
        ),
        key(
            "activations_per_day",
            "number, 1 to 32",
            "4",
            "activations_per_day = 4",
            "Most activations in 24 hours; further ones wait.",
        ),
    ],
};
