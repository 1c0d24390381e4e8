//! Every kind of fault in a configuration is found, at its place, with what to do.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use otahost::config::{Config, Faults};

const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

/// A device that has every file the configuration below names.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("dji.wasm", "component"),
            ("password", "hunter2\n"),
            ("empty", ""),
            ("two-lines", "a\nb\n"),
            ("os-release", "VERSION_ID=1\n"),
            ("ca.pem", "-----BEGIN CERTIFICATE-----\n"),
            ("tool", "#!/bin/sh\n"),
        ] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::create_dir(dir.path().join("slots")).unwrap();
        std::fs::write(dir.path().join("slots/a"), "image").unwrap();
        std::os::unix::fs::symlink(dir.path().join("slots/a"), dir.path().join("slots/alias"))
            .unwrap();
        Place { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// `DIR` stands for the place's directory.
    fn read(&self, text: &str) -> Result<Config, Faults> {
        let text = text
            .replace("DIR", &self.dir.path().display().to_string())
            .replace("KEY", KEY);
        Config::from_text(&self.dir.path().join("otahost.toml"), &text)
    }
}

/// Line numbers count in what follows: `[device]` is line 1.
const SOUND: &str = r#"[device]
id = "gw-7"
data_dir = "DIR/data"
reboot = ["true"]

[links.cloud]
kind = "mqtt"
url = "mqtts://broker.example:8883"
username = "gw"
password = { file = "password" }
ca = "ca.pem"

[targets.dock]
flasher = "slots"
slots = ["DIR/slots/a", "DIR/slots/b"]
boot = { file = "DIR/selector" }
trust = { minisign = ["KEY"], compatible = "evonest-dock" }
version = { file = "DIR/os-release", key = "VERSION_ID" }
attributes = { sn = "NM19", area = "north" }

[targets.axis]
flasher = "slots"
slots = ["DIR/slots/c", "DIR/slots/d"]
boot = { command = ["true", "x"] }
trust = "unsigned"
version = { command = ["DIR/tool", "-v"] }
parent = "dock"
probe = ["true"]
confirm_within = "90s"

[adapters.dji]
component = "dji.wasm"
config = { gateway_sn = "NM19", dialect = "autel", n = 0x10, deep = { list = [1, 2.5, true] } }

[adapters.dji.grants]
links.cloud.subscribe = ["thing/product/+/services"]
links.cloud.publish = ["thing/product/#"]
download = ["http://192.168.1.1:9000/public/", "https://files.example"]
targets = ["dock"]

[transfer]
max_size = "64MiB"
"#;

#[test]
fn a_sound_configuration_is_read_whole_with_its_defaults() {
    use otahost::config::*;
    use std::time::Duration;
    let place = Place::new();
    let config = place
        .read(SOUND)
        .unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.device.id, "gw-7");
    assert_eq!(
        config.device.boot_id,
        PathBuf::from("/proc/sys/kernel/random/boot_id")
    );
    assert_eq!(
        config.device.socket,
        PathBuf::from(place.path("data/otahost.sock"))
    );
    let LinkConfig::Mqtt(link) = &config.links["cloud"] else {
        panic!("it is another kind of link");
    };
    assert_eq!(link.client_id, "otahost-gw-7-cloud");
    assert_eq!(link.username.as_deref(), Some("gw"));
    assert_eq!(link.password.as_ref().map(Secret::reveal), Some("hunter2"));
    assert_eq!(link.ca, Some(PathBuf::from(place.path("ca.pem"))));
    let seconds = Duration::from_secs;
    assert_eq!(
        (link.keep_alive, link.backoff_first, link.backoff_max),
        (seconds(30), seconds(1), seconds(120))
    );
    assert!(
        !format!("{config:?}").contains("hunter2"),
        "a secret is never shown"
    );

    assert_eq!(
        config
            .targets
            .iter()
            .map(|(n, _)| n.as_str())
            .collect::<Vec<_>>(),
        ["dock", "axis"],
        "in the order of the file"
    );
    let dock = config.target("dock").unwrap();
    assert_eq!(
        dock.trust,
        TrustConfig::Minisign {
            keys: vec![KEY.into()],
            compatible: Some("evonest-dock".into())
        }
    );
    assert_eq!(dock.confirm_within, seconds(600));
    assert_eq!(
        dock.attributes,
        [
            ("sn".into(), "NM19".into()),
            ("area".into(), "north".into())
        ]
    );
    let axis = config.target("axis").unwrap();
    assert_eq!(
        (axis.confirm_within, axis.parent.as_deref()),
        (seconds(90), Some("dock"))
    );
    assert_eq!(
        axis.version,
        VersionSource::Command(vec![place.path("tool"), "-v".into()])
    );

    let dji = &config.adapters["dji"];
    assert_eq!(
        dji.at,
        Location {
            line: 35,
            column: 15
        }
    );
    assert_eq!(
        dji.config,
        serde_json::json!({ "gateway_sn": "NM19", "dialect": "autel", "n": 16, "deep": { "list": [1, 2.5, true] } })
    );
    assert_eq!(dji.grants.links["cloud"].publish, ["thing/product/#"]);
    assert_eq!(
        dji.grants.download,
        ["http://192.168.1.1:9000/public/", "https://files.example/"]
    );
    let expected = TransferConfig {
        max_size: 64 << 20,
        ..TransferConfig::default()
    };
    assert_eq!(config.transfer, expected);
    assert_eq!(TransferConfig::default().attempts, 8);
}

#[test]
fn readiness_policy_authority_and_deadlines_are_read_with_their_defaults() {
    use otahost::config::*;
    use otahost_core::policy::{Downgrade, Outside};
    use std::time::Duration;
    let place = Place::new();
    let read = |text: &str| place.read(text).unwrap_or_else(|faults| panic!("{faults}"));

    let config = read(SOUND);
    let dock = config.target("dock").unwrap();
    assert_eq!((&dock.ready, &dock.policy), (&None, &Policy::default()));
    assert_eq!((dock.lock.len(), dock.authority.len()), (0, 0));
    let hours = |n: u64| Duration::from_secs(n * 3600);
    let defaults = DeadlineConfig {
        download: hours(24),
        waiting: hours(30 * 24),
        prepared: hours(7 * 24),
        install: hours(1),
        deliver: hours(2),
        activate: hours(1) / 2,
    };
    assert_eq!(config.deadlines, defaults);

    let config = read(&SOUND.replace(
        "parent = \"dock\"\n",
        r#"parent = "dock"
ready = { command = ["DIR/tool", "-q"] }
authority = ["kit", "dji"]
[targets.axis.policy]
lock = ["/run/otahost.lock", "/run//./other"]
window = ["mon-fri 02:00-04:00", "Sat 22:00-06:00"]
outside = "refuse"
downgrade = "refuse"
activations_per_day = 2
[deadlines]
install = "90s"
[adapters.kit]
component = "dji.wasm"
[targets.box]
flasher = "slots"
slots = ["DIR/slots/e", "DIR/slots/f"]
boot = { command = ["true"] }
trust = "unsigned"
version = { command = ["DIR/tool", "-v"] }
ready = { file = "/run/no-call" }
policy = { window = ["02:00-04:00"] }
"#,
    ));
    let axis = config.target("axis").unwrap();
    assert_eq!(
        axis.ready,
        Some(Ready::Command(vec![place.path("tool"), "-q".into()]))
    );
    assert_eq!(axis.authority, ["kit", "dji"]);
    assert_eq!(
        axis.lock,
        ["/run/otahost.lock", "/run/other"].map(PathBuf::from)
    );
    let expected = Policy {
        windows: ["mon-fri 02:00-04:00", "sat 22:00-06:00"]
            .map(|w| w.parse().unwrap())
            .to_vec(),
        outside: Outside::Refuse,
        downgrade: Downgrade::Refuse,
        max_activations_per_day: 2,
    };
    assert_eq!(axis.policy, expected);
    let other = config.target("box").unwrap();
    assert_eq!(other.ready, Some(Ready::File("/run/no-call".into())));
    assert_eq!(other.policy.outside, Outside::Defer);
    let changed = DeadlineConfig {
        install: Duration::from_secs(90),
        ..defaults
    };
    assert_eq!(config.deadlines, changed);
}

#[test]
fn more_windows_than_are_looked_at_are_a_fault() {
    let place = Place::new();
    let windows = |n: usize| {
        let list = vec!["\"02:00-04:00\""; n].join(", ");
        place.read(&SOUND.replace(C, &format!("policy = {{ window = [{list}] }}")))
    };
    assert!(windows(32).is_ok());
    let faults = windows(33).unwrap_err().to_string();
    assert!(faults.contains("has 33 windows, may have 32"), "{faults}");
}

/// One change to the sound configuration, and the fault it makes: `line:column`, key, words of the fault, words of the advice.
struct Case {
    from: &'static str,
    to: &'static str,
    at: &'static str,
    key: &'static str,
    what: &'static str,
    advice: &'static str,
}

const fn case(
    from: &'static str,
    to: &'static str,
    at: &'static str,
    key: &'static str,
    what: &'static str,
    advice: &'static str,
) -> Case {
    Case {
        from,
        to,
        at,
        key,
        what,
        advice,
    }
}

/// Stands alone in its line, the last of `axis`.
const C: &str = "confirm_within = \"90s\"";

#[rustfmt::skip]
const CASES: &[Case] = &[
    // Keys.
    case("flasher = \"slots\"\nslots = [\"DIR/slots/a\"", "flasher = \"slots\"\ncolour = 1\nslots = [\"DIR/slots/a\"",
        "15:1", "targets.dock.colour", "is no key of [targets.dock]", "known here: flasher, slots"),
    case("probe = [\"true\"]", "prob = [\"true\"]", "28:1", "targets.axis.prob", "is no key", "did you mean `probe`?"),
    case("[transfer]", "[transfers]", "41:2", "transfers", "is no key of this file", "did you mean `transfer`?"),
    case("username = \"gw\"", "pasword = \"hunter3\"", "9:1", "links.cloud.pasword", "is no key", "did you mean `password`?"),
    case("id = \"gw-7\"\n", "", "1:2", "device.id", "is missing", "add `id = \"gw-7\"`"),
    case("trust = \"unsigned\"\n", "", "21:10", "targets.axis.trust", "MD5 over HTTP authenticates nobody", "add `trust = { minisign"),
    case("version = { command = [\"DIR/tool\", \"-v\"] }\n", "", "21:10", "targets.axis.version", "only when the target itself reports", "add `version = {"),
    case("boot = { command = [\"true\", \"x\"] }\n", "", "21:10", "targets.axis.boot", "which slot boots", "add `boot = {"),
    // Types and forms.
    case("id = \"gw-7\"", "id = 7", "2:6", "device.id", "must be a string, is an integer", "id = \"gw-7\""),
    case("id = \"gw-7\"", "id = \"gw 7\"", "2:6", "device.id", "letters, digits", "id = \"gw-7\""),
    case("reboot = [\"true\"]", "reboot = []", "4:10", "device.reboot", "nothing to run", "reboot = ["),
    case("reboot = [\"true\"]", "reboot = \"reboot\"", "4:10", "device.reboot", "must be a list, is a string", "reboot = ["),
    case("reboot = [\"true\"]", "reboot = [\"/no/such/program\"]", "4:11", "device.reboot[0]", "does not exist", "install it"),
    case("reboot = [\"true\"]", "reboot = [\"./reboot\"]", "4:11", "device.reboot[0]", "relative path", "absolute path"),
    case("confirm_within = \"90s\"", "confirm_within = 90", "29:18", "targets.axis.confirm_within", "a time with its unit, is an integer", "confirm_within = \"10m\""),
    case("confirm_within = \"90s\"", "confirm_within = \"9 lives\"", "29:18", "targets.axis.confirm_within", "no span of time", "`30s`"),
    case("confirm_within = \"90s\"", "confirm_within = \"2d\"", "29:18", "targets.axis.confirm_within", "out of range", "from 1s to 1d"),
    case("max_size = \"64MiB\"", "max_size = \"4GB\"", "42:12", "transfer.max_size", "is no size", "`4GiB`"),
    case("max_size = \"64MiB\"", "max_size = 0", "42:12", "transfer.max_size", "is 0", "above 0"),
    case("max_size = \"64MiB\"", "attempts = 0", "42:12", "transfer.attempts", "out of range", "from 1 to 1000"),
    case("max_size = \"64MiB\"", "backoff_first = \"2m\"", "42:17", "transfer.backoff_first", "shorter than the first", "at least as long"),
    // Files.
    case("component = \"dji.wasm\"", "component = 7", "32:13", "adapters.dji.component", "must be a string, is an integer", "component = \"dji.wasm\""),
    case("{ file = \"password\" }", "{ file = \"secret\" }", "10:21", "links.cloud.password.file", "secret does not exist", "put the file there"),
    case("{ file = \"password\" }", "{ file = \"empty\" }", "10:21", "links.cloud.password.file", "is empty", "only line"),
    case("{ file = \"password\" }", "{ file = \"two-lines\" }", "10:21", "links.cloud.password.file", "more than one line", "only line"),
    case("{ file = \"password\" }", "{ file = \"slots\" }", "10:21", "links.cloud.password.file", "is a directory", "correct the path"),
    case("ca = \"ca.pem\"", "ca = \"none.pem\"", "11:6", "links.cloud.ca", "none.pem does not exist", "put the file there"),
    case("DIR/os-release", "DIR/none", "18:20", "targets.dock.version.file", "none does not exist", "correct the path"),
    case("id = \"gw-7\"", "id = \"gw-7\"\nboot_id = \"/no/boot_id\"", "3:11", "device.boot_id", "does not exist", "leave the key out"),
    // Links.
    case("kind = \"mqtt\"", "kind = \"amqp\"", "7:8", "links.cloud.kind", "not known", "knows `mqtt`"),
    case("mqtts://broker.example:8883", "https://broker.example", "8:7", "links.cloud.url", "`https` is not the scheme of a broker", "mqtts://host:port"),
    case("mqtts://broker.example:8883", "mqtts://me:hunter3@broker.example", "8:7", "links.cloud.url", "holds a user or password", "keys `username` and `password`"),
    case("mqtts://broker.example:8883", "mqtts://broker.example/x", "8:7", "links.cloud.url", "more than host and port", "mqtts://host:port"),
    case("mqtts://broker.example:8883", "broker", "8:7", "links.cloud.url", "is no URL", "mqtts://host:port"),
    case("mqtts://broker.example:8883", "mqtt://broker.example", "11:6", "links.cloud.ca", "not encrypted", "use `mqtts://`"),
    case("password = { file = \"password\" }", "password = \"hunter3\"", "10:12", "links.cloud.password", "does not belong in this file", "password = { file ="),
    case("[targets.dock]", "[links.twin]\nkind = \"mqtt\"\nurl = \"mqtts://broker.example:8883\"\nclient_id = \"otahost-gw-7-cloud\"\n[targets.dock]",
        "13:8", "links.twin", "close one connection for the other", "another `client_id`"),
    case("[links.cloud]", "[links.\"a b\"]\nkind = \"mqtt\"\nurl = \"mqtt://a\"\n[links.cloud]", "6:8", "links.a b", "this name must have", "[links.cloud]"),
    // Slots.
    case("\"DIR/slots/b\"", "\"DIR/slots/a\"", "15:0", "targets.dock.slots[1]", "same place as the other slot", "a place of its own"),
    case("\"DIR/slots/b\"", "\"DIR/slots/alias\"", "15:0", "targets.dock.slots[1]", "same place as the other slot", "a place of its own"),
    case("\"DIR/slots/c\"", "\"DIR/slots//./b\"", "23:10", "targets.axis.slots[0]", "a slot of target `dock` too", "a place of its own"),
    case("\"DIR/slots/c\"", "\"slots/c\"", "23:10", "targets.axis.slots[0]", "is not an absolute path", "from the root on"),
    case("\"DIR/slots/c\"", "\"DIR/x/../c\"", "23:10", "targets.axis.slots[0]", "contains `..`", "without it"),
    case("\"DIR/slots/c\"", "\"/dev/otahost-none\"", "23:10", "targets.axis.slots[0]", "device does not exist", "lsblk"),
    case("\"DIR/slots/c\"", "\"/dev/null\"", "23:10", "targets.axis.slots[0]", "not a block device", "partition"),
    case("\"DIR/slots/c\"", "\"DIR/slots\"", "23:10", "targets.axis.slots[0]", "is a directory", "block device or a file"),
    case("\"DIR/slots/c\"", "\"DIR/none/c\"", "23:10", "targets.axis.slots[0]", "neither it nor its directory exists", "make the directory"),
    case("\"DIR/slots/c\"", "\"DIR/data/c\"", "23:10", "targets.axis.slots[0]", "inside `device.data_dir`", "outside the data directory"),
    case("data_dir = \"DIR/data\"", "data_dir = \"DIR/slots/b/data\"", "3:12", "device.data_dir", "is on the slot", "partition that no update writes"),
    case("slots = [\"DIR/slots/c\", \"DIR/slots/d\"]", "slots = [\"DIR/slots/c\"]", "23:9", "targets.axis.slots", "has 1 entries, must have two", "slots = ["),
    case("data_dir = \"DIR/data\"", "data_dir = \"DIR/tool\"", "3:12", "device.data_dir", "is not a directory", "made when it is missing"),
    case("data_dir = \"DIR/data\"", "data_dir = \"data\"", "3:12", "device.data_dir", "not an absolute path", "from the root on"),
    case("boot = { file = \"DIR/selector\" }", "boot = { file = \"DIR/none/selector\" }", "16:17", "targets.dock.boot.file", "its directory does not exist", "make the directory"),
    case("boot = { command = [\"true\", \"x\"] }", "boot = {}", "24:1", "targets.axis.boot", "neither `file` nor `command`", "one of them"),
    case("boot = { command = [\"true\", \"x\"] }", "boot = { file = \"/x\", command = [\"true\"] }", "24:23", "targets.axis.boot.command", "stands beside `file`", "remove one"),
    // Trust.
    case("\"unsigned\"", "\"none\"", "25:9", "targets.axis.trust", "not a word that is known", "trust = \"unsigned\""),
    case("\"unsigned\"", "true", "25:9", "targets.axis.trust", "is a boolean", "minisign"),
    case("[\"KEY\"]", "[]", "17:22", "targets.dock.trust.minisign", "no image could ever be installed", "RWQ"),
    case("[\"KEY\"]", "[\"RWQ\"]", "17:23", "targets.dock.trust.minisign[0]", "no minisign public key", "second line of the `.pub` file"),
    // Relations.
    case("parent = \"dock\"", "parent = \"dokc\"", "27:1", "targets.axis.parent", "no target `dokc`", "did you mean `dock`?"),
    case("parent = \"dock\"", "parent = \"axis\"", "27:10", "targets.axis.parent", "hangs on itself", "no `parent`"),
    case("links.cloud.publish", "links.clod.publish", "37:7", "adapters.dji.grants.links.clod", "no link `clod`", "did you mean `cloud`?"),
    case("targets = [\"dock\"]", "targets = [\"dock\", \"mower\"]", "39:20", "adapters.dji.grants.targets[1]", "no target `mower`", "there is: dock, axis"),
    case("thing/product/#", "thing/#/x", "37:24", "adapters.dji.grants.links.cloud.publish[0]", "stands alone in the last level", "thing/#"),
    case("thing/product/+/services", "thing/a+/x", "36:26", "adapters.dji.grants.links.cloud.subscribe[0]", "`+` stands alone", "thing/#"),
    case("https://files.example", "ftp://files.example", "38:0", "adapters.dji.grants.download[1]", "`ftp` is not a scheme", "`http://` or `https://`"),
    case("https://files.example", "https://me@files.example", "38:0", "adapters.dji.grants.download[1]", "holds a user", "before `@`"),
    case("https://files.example", "https://files.example/?a", "38:0", "adapters.dji.grants.download[1]", "a query", "`?`"),
    case("https://files.example", "https://*.example/", "38:0", "adapters.dji.grants.download[1]", "", "folder"),
    case("https://files.example", "files.example", "38:0", "adapters.dji.grants.download[1]", "is no URL", "`http://` or `https://`"),
    case("n = 0x10", "n = nan", "33:0", "adapters.dji.config.n", "JSON has no such number", "finite"),
    // Readiness, policy, authority; the line of `confirm_within` takes what is tried.
    case(C, "ready = {}", "29:1", "targets.axis.ready", "neither `file` nor `command`", "one of them"),
    case(C, "ready = true", "29:9", "targets.axis.ready", "must be a table", "ready = { command ="),
    case(C, "ready = { file = \"/run/r\", command = [\"true\"] }", "29:28", "targets.axis.ready.command", "stands beside `file`", "remove one"),
    case(C, "ready = { file = \"run/r\" }", "29:18", "targets.axis.ready.file", "not an absolute path", "from the root on"),
    case(C, "ready = { command = [\"/no/such\"] }", "29:22", "targets.axis.ready.command[0]", "does not exist", "install it"),
    case(C, "policy = { windows = [] }", "29:12", "targets.axis.policy.windows", "is no key", "did you mean `window`?"),
    case(C, "policy = { window = \"02:00-04:00\" }", "29:21", "targets.axis.policy.window", "must be a list, is a string", "window = [\"mon-fri"),
    case(C, "policy = { window = [] }", "29:21", "targets.axis.policy.window", "always or never", "leave the key out"),
    case(C, "policy = { window = [\"02:00-04:00\", \"mo 02:00-04:00\"] }", "29:37", "targets.axis.policy.window[1]", "is no window: `mo` is no day", "`mon-fri 02:00-04:00`"),
    case(C, "policy = { window = [\"2-4\"] }", "29:22", "targets.axis.policy.window[0]", "`2` is no time of day", "in UTC"),
    case(C, "policy = { window = [\"01:00-02:00\"], outside = \"wait\" }", "29:48", "targets.axis.policy.outside", "not a word that is known", "\"defer\" or \"refuse\""),
    case(C, "policy = { outside = \"refuse\" }", "29:12", "targets.axis.policy.outside", "no effect without `window`", "remove it"),
    case(C, "policy = { downgrade = false }", "29:24", "targets.axis.policy.downgrade", "must be a string, is a boolean", "downgrade = \"refuse\""),
    case(C, "policy = { downgrade = \"never\" }", "29:24", "targets.axis.policy.downgrade", "not a word that is known", "\"allow\" or \"refuse\""),
    case(C, "policy = { activations_per_day = 33 }", "29:34", "targets.axis.policy.activations_per_day", "out of range", "from 1 to 32"),
    case(C, "policy = { lock = [\"/run/a\", \"otahost.lock\"] }", "29:30", "targets.axis.policy.lock[1]", "not an absolute path", "from the root on"),
    case(C, "authority = [\"dij\"]", "29:14", "targets.axis.authority[0]", "no adapter `dij`", "did you mean `dji`?"),
    case(C, "authority = [\"dji\", \"dji\"]", "29:21", "targets.axis.authority[1]", "twice", "remove one"),
    case(C, "authority = [\"operator\"]", "29:14", "targets.axis.authority[0]", "comes first without being named", "remove it"),
    case("[adapters.dji]\n", "[adapters.operator]\ncomponent = \"dji.wasm\"\n[adapters.dji]\n", "31:11", "adapters.operator", "the operator's own", "choose another"),
    case("[transfer]", "[deadlines]\nprepared = \"2y\"\n[transfer]", "42:12", "deadlines.prepared", "no span of time", "`1d`"),
    case("[transfer]", "[deadlines]\nwaiting = \"500d\"\n[transfer]", "42:11", "deadlines.waiting", "out of range", "from 1s to 365d"),
    // Syntax.
    case("id = \"gw-7\"", "id = gw-7", "2:6", "", "this is no TOML", "toml.io"),
    case("id = \"gw-7\"", "id = \"a\"\nid = \"b\"", "3:1", "", "duplicate key", "mend the line"),
];

#[test]
fn every_kind_of_fault_is_found_at_its_place_with_what_to_do() {
    let mut wrong = Vec::new();
    for case in CASES {
        let place = Place::new();
        let count = SOUND.matches(case.from).count();
        assert_eq!(count, 1, "{} stands once in the sound file", case.from);
        let faults = match place.read(&SOUND.replace(case.from, case.to)) {
            Ok(_) => panic!("{} was accepted", case.to),
            Err(faults) => faults,
        };
        let found = &faults.findings[0];
        let at = found.at.unwrap();
        let at_place = match case.at.strip_suffix(":0") {
            // The column depends on the length of the temporary directory's name.
            Some(line) => at.line.to_string() == line,
            None => at.to_string() == case.at,
        };
        let secret = format!("{faults}{}", faults.to_json()).contains("hunter");
        if !at_place
            || secret
            || faults.findings.len() != 1
            || found.key != case.key
            || !found.what.contains(case.what)
            || !found.advice.contains(case.advice)
        {
            let Case {
                to,
                at,
                key,
                what,
                advice,
                ..
            } = case;
            wrong.push(format!(
                "{to}\nexpected {at} {key}: {what}; {advice}\n{faults}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_faults_are_found_at_once_in_the_order_of_the_file() {
    let place = Place::new();
    let text = SOUND
        .replace("max_size = \"64MiB\"", "max_size = true")
        .replace("id = \"gw-7\"\n", "id = 1\nserial = 2\n")
        .replace("DIR/data", "DIR/slots/b/data")
        .replace("trust = \"unsigned\"\n", "")
        .replace("\"dji.wasm\"", "1");
    let faults = place.read(&text).unwrap_err();
    let keys: Vec<_> = faults.findings.iter().map(|f| f.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "device.id",
            "device.serial",
            "device.data_dir",
            "targets.axis.trust",
            "adapters.dji.component",
            "transfer.max_size"
        ]
    );
}

#[test]
fn a_fault_is_shown_with_its_line_and_a_caret_and_as_data() {
    let place = Place::new();
    let faults = place
        .read(&SOUND.replace("kind = \"mqtt\"", "kind = \"amqp\""))
        .unwrap_err();
    let file = place.path("otahost.toml");
    assert_eq!(
        faults.to_string(),
        format!(
            "error: `links.cloud.kind`: this kind of link is not known\n --> {file}:7:8\n  |\n7 | kind = \"amqp\"\n  |        ^^^^^^\n   \
             = help: this version of otahost knows `mqtt`, `http_server`, `http_client` and `ftps`\n"
        )
    );
    assert_eq!(
        faults.to_json(),
        serde_json::json!({ "file": file, "findings": [{
            "severity": "error", "line": 7, "column": 8, "key": "links.cloud.kind",
            "what": "this kind of link is not known", "advice": "this version of otahost knows `mqtt`, `http_server`, `http_client` and `ftps`",
        }]})
    );
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_too() {
    let place = Place::new();
    let path = place.dir.path().join("otahost.toml");
    let read = || Config::load(&path).unwrap_err().to_string();
    assert!(read().contains("cannot read the configuration"));
    std::fs::write(&path, b"[device]\nid = \"\xff\"\n").unwrap();
    assert!(read().contains("line 2 is not UTF-8"));
    std::fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).unwrap();
    assert!(read().contains("larger than 1 MiB"));
    std::fs::write(&path, b"").unwrap();
    assert!(read().contains("`device` is missing"));
}

#[test]
fn a_client_finds_the_socket_without_the_right_to_read_secrets() {
    let place = Place::new();
    let path = place.dir.path().join("otahost.toml");
    let broken = SOUND
        .replace("DIR", &place.path(""))
        .replace("{ file = \"password\" }", "{ file = \"/root/none\" }");
    std::fs::write(&path, &broken).unwrap();
    assert!(Config::load(&path).is_err());
    assert_eq!(
        Config::socket_of(&path).unwrap(),
        PathBuf::from(place.path("data/otahost.sock"))
    );
    std::fs::write(
        &path,
        broken.replace("id = \"gw-7\"", "socket = \"/run/o.sock\""),
    )
    .unwrap();
    assert_eq!(
        Config::socket_of(&path).unwrap(),
        PathBuf::from("/run/o.sock")
    );
    std::fs::write(&path, "[device]\n").unwrap();
    assert!(
        Config::socket_of(&path)
            .unwrap_err()
            .to_string()
            .contains("data_dir")
    );
    let long = format!("[device]\nsocket = \"/{}\"\n", "x".repeat(100));
    std::fs::write(&path, long).unwrap();
    assert!(
        Config::socket_of(&path)
            .unwrap_err()
            .to_string()
            .contains("more than 100 bytes")
    );
}

#[test]
fn no_text_makes_the_reader_panic() {
    // Every prefix of the sound file, and every byte of it replaced by one that means something to TOML.
    let place = Place::new();
    for cut in 0..SOUND.len() {
        let _ = place
            .read(&SOUND[..cut])
            .map_err(|faults| (faults.to_string(), faults.to_json()));
    }
    for (i, other) in (0..SOUND.len()).zip("[]{}\"'=.,#\n\\é\t0".chars().cycle()) {
        let text = format!("{}{other}{}", &SOUND[..i], &SOUND[i + 1..]);
        let _ = place
            .read(&text)
            .map_err(|faults| (faults.to_string(), faults.to_json()));
    }
}

/// An agent that did not start for that could not even say that the device is away.
#[test]
fn a_device_behind_this_one_that_is_away_with_its_version_file_is_no_fault() {
    let place = Place::new();
    let with = |file: &str| {
        SOUND.replace(
            "{ command = [\"DIR/tool\", \"-v\"] }",
            &format!("{{ file = \"DIR/{file}\" }}"),
        )
    };
    place.read(&with("slots/version")).unwrap();
    let faults = place.read(&with("nowhere/version")).unwrap_err();
    assert!(
        faults
            .to_string()
            .contains("nowhere/version does not exist"),
        "{faults}"
    );
    let faults = place.read(&with("slots")).unwrap_err();
    assert!(faults.to_string().contains("is a directory"), "{faults}");
}
