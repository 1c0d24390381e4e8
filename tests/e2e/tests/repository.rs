//! New versions of an adapter come by themselves from the repository its vendor signed, over https or on a medium; what is refused
//! changes nothing and is named; what misbehaves goes back by itself and stays away (DESIGN §7).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use otahost_e2e::component_path;
use otahost_e2e::device::eventually;
use otahost_e2e::station::{Station, Vendor};
use otahost_lab::files::{Fault, Files};
use otahost_lab::tls::CA_PEM;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A device that follows a directory in which nothing is yet.
struct Field {
    station: Station,
    vendor: Vendor,
    medium: PathBuf,
    _dir: TempDir,
}

impl Field {
    fn new() -> Self {
        let (dir, vendor) = (tempfile::tempdir().unwrap(), Vendor::new());
        // Its root is what the device comes with.
        vendor.publish(&["rogue"]);
        let medium = dir.path().join("medium");
        let tables = format!(
            "[repositories.vendor]\ndirectory = {}\nroot = {}\nevery = \"1s\"\n",
            json!(medium),
            json!(vendor.root()),
        );
        let station = Station::off("repository = \"vendor\"", &tables).on();
        Field {
            station,
            vendor,
            medium,
            _dir: dir,
        }
    }

    fn offer(&self, components: &[&str]) {
        self.vendor.publish(components);
        self.vendor.plug_in(&self.medium);
    }
}

#[test]
fn a_version_on_a_medium_is_taken_by_itself_and_left_for_good_when_it_traps() {
    let field = Field::new();
    let station = &field.station;
    assert_eq!(["1", "2", "3"], ["count"; 3].map(|c| station.tell(c)));
    station.await_words("nothing is at");
    field.offer(&["rogue-next"]);
    station.await_version("0.2.0");
    assert_eq!(station.tell("count"), "1004");
    let adapter = station.adapter();
    assert_eq!(adapter["origin"], json!({ "repository": "vendor" }));
    let shown = station.cli(&["adapter", "list"]).out;
    assert!(
        shown.contains("installed from repository vendor"),
        "{shown}"
    );
    assert!(shown.contains("version 0.2.0 was taken"), "{shown}");

    // It traps at this, twice, and the version before answers.
    assert_eq!(station.tell("stumble"), "steady");
    assert_eq!(station.version(), "0.1.0");
    assert_eq!(station.tell("count"), "4");
    // Signed again, it is looked at again.
    field.offer(&[]);
    station.await_words("version 0.2.0 was left");
    assert_eq!(station.version(), "0.1.0");
    // So it is after a restart.
    station.restart();
    station.await_words("version 0.2.0 was left");
    assert_eq!(station.version(), "0.1.0");
    field.offer(&["rogue-back"]);
    station.await_version("0.3.0");
    assert_eq!(station.tell("count"), "5");
    assert!(station.machine.crashes().is_empty());
}

#[test]
fn what_the_operator_took_back_stays_away_until_something_newer_comes_or_he_installs_it() {
    let field = Field::new();
    let station = &field.station;
    field.offer(&["rogue-next"]);
    station.await_version("0.2.0");
    station.await_answer();
    let said = station.cli(&["adapter", "rollback", "rogue"]);
    assert!(said.status.success(), "{said:?}");
    assert_eq!(station.version(), "0.1.0");
    field.offer(&[]);
    station.await_words("version 0.2.0 was left");
    assert_eq!(station.version(), "0.1.0");
    let file = component_path("rogue-next").display().to_string();
    let said = station.cli(&["adapter", "install", "rogue", &file]);
    assert!(said.status.success(), "{said:?}");
    let adapter = station.adapter();
    assert_eq!(
        (
            &adapter["version"],
            &adapter["origin"],
            &adapter["rejected"]
        ),
        (&json!("0.2.0"), &json!("operator"), &json!([]))
    );
}

#[test]
fn a_version_that_asks_for_more_waits_with_the_line_it_needs_and_is_taken_once_that_is_there() {
    let field = Field::new();
    let station = &field.station;
    field.offer(&["rogue-greedy"]);
    eventually("a version that waits", || {
        station.adapter()["waiting"][0]["version"] == json!("0.4.0")
    });
    let adapter = station.adapter();
    assert_eq!(adapter["version"], json!("0.1.0"));
    let waiting = &adapter["waiting"][0];
    assert_eq!(waiting["source"], json!("repository vendor"));
    let missing = waiting["missing"][0].as_str().unwrap();
    let line = "add \"rogue/more\" to grants.links.cloud.publish";
    assert!(missing.contains(line), "{missing}");
    for command in [&["status"][..], &["adapter", "list"]] {
        let shown = station.cli(command).out;
        assert!(shown.contains(line), "{command:?}: {shown}");
    }
    assert_eq!(station.tell("count"), "1");
    station.configure(
        "publish = [\"rogue/out\"]",
        "publish = [\"rogue/out\", \"rogue/more\"]",
    );
    station.restart();
    station.await_version("0.4.0");
    assert_eq!(station.tell("count"), "2");
    assert_eq!(station.adapter()["waiting"], json!([]));
}

#[test]
fn a_repository_that_is_expired_rolled_back_or_signed_by_others_changes_nothing_and_says_so() {
    let mut field = Field::new();
    // As it was before a newer version came.
    let old = field.vendor.files();
    let stranger = Vendor::new();
    stranger.publish(&["rogue-next"]);
    stranger.plug_in(&field.medium);
    field.station.await_words("not signed by a key");

    let day = Duration::from_secs(24 * 3_600);
    field.vendor.valid = (day, SystemTime::now() - 30 * day);
    field.offer(&["rogue-next"]);
    field.station.await_words("expired on");

    field.vendor.valid = (day, SystemTime::now());
    fs::remove_file(field.vendor.repository().join("metadata/timestamp.json")).unwrap();
    for (name, bytes) in &old {
        fs::write(field.vendor.repository().join(name), bytes).unwrap();
    }
    field.offer(&[]);
    field.station.await_words("nothing newer than 0.1.0");
    for (name, bytes) in &old {
        fs::write(field.vendor.repository().join(name), bytes).unwrap();
    }
    field.vendor.plug_in(&field.medium);
    field.station.await_words("rolled back");
    let status = field.station.status();
    assert_eq!(status["repositories"][0]["outcome"], json!("failed"));
    let shown = field.station.cli(&["status"]).out;
    assert!(
        shown.contains("repository vendor: the repository was rolled back"),
        "{shown}"
    );
    // A restart forgets nothing of it.
    field.station.restart();
    field.station.await_words("rolled back");
    assert_eq!(field.station.version(), "0.1.0");
    assert_eq!(field.station.tell("count"), "1");
}

#[test]
fn a_version_behind_https_is_taken_and_a_server_out_of_order_is_named_and_asked_again() {
    let (vendor, server) = (Vendor::new(), Files::start_tls());
    vendor.publish(&["rogue", "rogue-next"]);
    for (name, bytes) in vendor.files() {
        server.put(&name, bytes);
    }
    let status = Fault::Status {
        status: 503,
        headers: Vec::new(),
        body: b"no".to_vec(),
    };
    server.fault_always("metadata/timestamp.json", status);
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, CA_PEM).unwrap();
    let tables = format!(
        "[repositories.vendor]\nurl = {}\nca = {}\nroot = {}\nevery = \"1s\"\n",
        json!(server.url("")),
        json!(ca),
        json!(vendor.root()),
    );
    let station = Station::off("repository = \"vendor\"", &tables).on();
    station.await_words("503");
    let shown = station.status();
    assert_eq!(shown["repositories"][0]["outcome"], json!("failed"));
    assert_ne!(shown["repositories"][0]["looked"], Value::Null);
    assert_eq!(station.version(), "0.1.0");
    server.heal("metadata/timestamp.json");
    station.await_version("0.2.0");
    assert_eq!(station.tell("count"), "1001");
}
