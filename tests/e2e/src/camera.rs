//! A camera of the Withnox cloud: a machine with a real agent, and the cloud with its object store. The counterpart of
//! [`crate::device`] for a device that polls.
//!
//! The agent logs at `debug` here, because every test ends with a look for secrets in all it has said.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use otahost_disk::{Place, RealDisk};
use otahost_journal::{Journal, Key};
use otahost_lab::image::Image;
use otahost_lab::machine::{Machine, MachineSpec, SlotState, built_adapter, built_program};
use otahost_lab::signing::{Claims, Publisher};
use otahost_lab::withnox::{Call, DEVICE, HARDWARE, Route, Tag, USER, Withnox};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::device::{PATIENCE, eventually};

/// What the factory installed, in slot `a`.
pub const OLD: &str = "1.0.0";
/// What most updates install.
pub const NEW: &str = "1.10.0";
/// Firmware id of [`NEW`] in most tests.
pub const ID: u64 = 7;
const KIB: u64 = 1024;
/// All but what the compiler of adapters says.
const LOG: &str =
    "OTAHOST_LOG=debug,cranelift_codegen=info,wasmtime=info,wasmtime_internal_cranelift=info";

/// The camera and its surroundings. Ends with its value; says what the agent logged when a test fails.
#[derive(Debug)]
pub struct Camera {
    /// The machine the agent runs in.
    pub machine: Machine,
    /// The vendor's cloud.
    pub cloud: Withnox,
    publisher: Publisher,
    factory: Vec<u8>,
    dir: TempDir,
}

/// Where a camera's tokens come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// The factory stored those of a session.
    Stored,
    /// It has to sign in.
    None,
}

impl Camera {
    /// A camera that is switched off, with these lines more in the configuration of its target.
    pub fn off(tokens: Tokens, target_lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cloud = Withnox::start();
        let publisher = Publisher::generate().unwrap();
        let configuration = configuration(&cloud, tokens, dir.path());
        let spec = MachineSpec {
            trust: vec![publisher.public_key()],
            compatible: "addnox-mp".into(),
            agent: [
                "/usr/bin/env",
                LOG,
                built_program("otahost").to_str().unwrap(),
            ]
            .map(str::to_owned)
            .to_vec(),
            ..MachineSpec::bare(
                "LAB0001",
                "cam",
                &format!("{target_lines}\n{configuration}"),
            )
        };
        let home = dir.path().join("machine");
        fs::create_dir(&home).unwrap();
        let machine = Machine::create(&home, spec, &Image::new(OLD, 4 * KIB)).unwrap();
        let factory = fs::read(machine.layout().slot("a")).unwrap();
        Camera {
            machine,
            cloud,
            publisher,
            factory,
            dir,
        }
    }

    /// Switches it on. Its first start ever asks the cloud at once.
    pub fn switch_on(&self) {
        self.machine.power_on().unwrap();
    }

    /// An image that boots as `version`, signed by the publisher the camera trusts.
    pub fn signed(&self, image: &Image, version: &str) -> Vec<u8> {
        let path = self.sign(image, version);
        fs::read(path).unwrap()
    }

    /// The same as a file on the device itself, as on a medium that was plugged in.
    pub fn medium(&self, version: &str) -> String {
        let path = self.sign(&Image::new(version, 64 * KIB), version);
        path.display().to_string()
    }

    fn sign(&self, image: &Image, version: &str) -> std::path::PathBuf {
        let (raw, signed) = (self.dir.path().join("raw"), self.dir.path().join(version));
        image.write(&raw).unwrap();
        let claims = Claims {
            compatible: "addnox-mp".into(),
            version: version.into(),
            rollback_index: 1,
        };
        self.publisher.sign(&raw, &signed, &claims).unwrap();
        signed
    }

    /// Offers [`NEW`] as firmware [`ID`], uploaded in one part. Its name in the store, and its bytes.
    pub fn offer(&self, size: u64) -> (String, Vec<u8>) {
        let bytes = self.signed(&Image::new(NEW, size), NEW);
        let name = self.cloud.offer(ID, NEW, &bytes, &Tag::Md5);
        (name, bytes)
    }

    /// Waits until this many requests of a route were answered.
    pub fn await_answers(&self, route: Route, count: usize) {
        let there = self
            .cloud
            .wait_for(PATIENCE, |calls| answers(calls, route) >= count);
        assert!(
            there,
            "{count} answers of {route:?}; {:#?}",
            self.cloud.calls()
        );
    }

    /// Waits until the cloud has accepted the report of this firmware.
    pub fn await_reported(&self, firmware: u64) {
        let is_it = |call: &Call| {
            (call.route, call.status, call.answered) == (Route::UpdateResult, 200, true)
                && call.path.contains(&format!("/{firmware}/"))
        };
        let reported = self
            .cloud
            .wait_for(PATIENCE, |calls| calls.iter().any(is_it));
        assert!(reported, "no report: {:#?}", self.cloud.calls());
        assert_eq!(self.cloud.now_firmware(), Some(firmware));
    }

    /// Waits for the end of the job of firmware [`ID`]: how it is shown then.
    pub fn await_end(&self) -> Value {
        self.await_end_of(&format!("withnox/{ID}"))
    }

    /// Waits for the end of a job.
    pub fn await_end_of(&self, key: &str) -> Value {
        let mut job = Value::Null;
        eventually("the end of the job", || {
            let said = self.machine.cli(&["jobs", key, "--json"]).unwrap();
            job = serde_json::from_slice(&said.stdout).unwrap_or_default();
            if let Some(newest) = job.get(0) {
                job = newest.clone();
            }
            const ENDS: [&str; 6] = [
                "succeeded",
                "rejected",
                "failed",
                "rolled-back",
                "rollback-failed",
                "cancelled",
            ];
            ENDS.iter().any(|end| job["phase"] == *end)
        });
        job
    }

    /// The alerts so far: level, code and text of each.
    pub fn alerts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("alerts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for an alert of this code.
    pub fn await_alert(&self, code: &str) -> String {
        let mut found = None;
        eventually(&format!("the alert {code}"), || {
            let mut alerts = self.alerts().into_iter();
            found = alerts.find(|alert| alert.split('|').nth(1) == Some(code));
            found.is_some()
        });
        found.unwrap()
    }

    /// How often a route was asked.
    pub fn asked(&self, route: Route) -> usize {
        self.cloud.calls_of(route).len()
    }

    /// Where each request to the store began, by its `Range`; 0 for the whole file.
    pub fn starts(&self) -> Vec<u64> {
        let requests = self.cloud.store().requests();
        let ranges = requests.iter().map(|request| match request.range() {
            None => 0,
            Some(range) => {
                let first = range.trim_start_matches("bytes=").trim_end_matches('-');
                first.parse().unwrap()
            }
        });
        ranges.collect()
    }

    /// Waits until the newest job is in this phase. (No agent answers while it restarts.)
    pub fn await_phase(&self, phase: &str) {
        eventually(&format!("a job that is {phase}"), || {
            let said = self.machine.cli(&["jobs", "--json"]).unwrap();
            let jobs: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
            jobs[0]["phase"] == phase
        });
    }

    /// The agent's answer to a command with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let said = self
            .machine
            .cli(&[arguments, &["--json"]].concat())
            .unwrap();
        assert!(said.status.success(), "{arguments:?}: {said:?}");
        serde_json::from_slice(&said.stdout).unwrap()
    }

    /// This version runs from this slot and is confirmed.
    pub fn assert_runs(&self, version: &str, slot: &str) {
        assert_eq!(self.machine.version().as_deref(), Some(version));
        assert_eq!(self.machine.slot().as_deref(), Some(slot));
        let selector = self.machine.selector().unwrap();
        assert_eq!(selector.primary, slot);
        assert_eq!(selector.slots[slot].state, SlotState::Good);
    }

    /// Nothing was installed: what the factory put into slot `a` runs since the first boot, byte for byte, the other slot does not
    /// boot, and the cloud was told of nothing.
    pub fn assert_unchanged(&self) {
        assert_eq!(self.machine.boots().len(), 1, "{:?}", self.machine.boots());
        self.assert_runs(OLD, "a");
        let other = self.machine.selector().unwrap().slots["b"].state;
        assert_eq!(other, SlotState::Bad);
        let slot = fs::read(self.machine.layout().slot("a")).unwrap();
        assert!(slot == self.factory, "the slot that runs was written to");
        assert_eq!(self.asked(Route::UpdateResult), 0);
    }

    /// The device did nothing that the cloud resents, the agent never ended by itself, no event of its adapter failed, and nothing
    /// secret was said.
    pub fn assert_well(&self) {
        assert_eq!(self.cloud.violations(), Vec::<String>::new());
        let crashes = self.machine.crashes();
        assert!(crashes.is_empty(), "{crashes:?}");
        assert!(self.machine.agent_runs());
        let status = self.json(&["status"]);
        let adapter = &status["adapters"][0];
        assert_eq!(
            (&adapter["health"], &adapter["dead_letters"]),
            (&json!("running"), &json!(0)),
            "{adapter}"
        );
        self.assert_nothing_secret_is_said();
    }

    /// No token, no account and nothing of a signed address is in the log, in an alert, or in what the command line shows.
    pub fn assert_nothing_secret_is_said(&self) {
        let log = fs::read_to_string(self.machine.layout().log()).unwrap();
        assert!(log.contains(" DEBUG "), "the log is not at debug: {log}");
        if !self.cloud.store().requests().is_empty() {
            // Where a secret would stand, if the log were careless.
            let place = format!("to={}/public/", self.cloud.store().origin());
            assert!(log.contains(&place), "no redirect is logged: {log}");
        }
        let mut said = vec![("the log", log), ("the alerts", self.alerts().join("\n"))];
        for (what, arguments) in [
            ("status", &["status"][..]),
            ("status --json", &["status", "--json"]),
            ("jobs", &["jobs"]),
            ("jobs --json", &["jobs", "--json"]),
        ] {
            let output = self.machine.cli(arguments).unwrap();
            let text = [output.stdout, output.stderr].concat();
            said.push((what, String::from_utf8_lossy(&text).into_owned()));
        }
        for (what, text) in said {
            for secret in self.all_secrets() {
                assert!(!text.contains(&secret), "{secret:?} is in {what}: {text}");
            }
        }
    }

    /// Tokens, account, signatures, and what every signed address has.
    fn all_secrets(&self) -> Vec<String> {
        let query = ["X-Amz-", "AKIALAB"].map(str::to_owned);
        [
            self.cloud.secrets(),
            self.cloud.signatures(),
            query.to_vec(),
        ]
        .concat()
    }

    /// Switches it off and looks into its journal: which tokens are in which rows. Nothing of a signed address is in the file, nor
    /// the account, and a token is in no row but its own of the vault.
    pub fn tokens_in_the_journal(&self) -> Vec<(String, String)> {
        self.machine.lose_power();
        let file = self.machine.layout().data().join("journal.redb");
        let bytes = fs::read(&file).unwrap();
        let holds = |bytes: &[u8], text: &str| {
            let text = text.as_bytes();
            bytes.windows(text.len()).any(|window| window == text)
        };
        let (username, password) = self.cloud.account();
        let never = [
            self.cloud.signatures(),
            vec!["X-Amz-".into(), "AKIALAB".into(), username, password],
        ];
        for secret in never.concat() {
            assert!(
                !holds(&bytes, &secret),
                "{secret:?} is in the journal's file"
            );
        }
        let disk = RealDisk::new(&self.machine.layout().data()).unwrap();
        let journal = Journal::open(Arc::new(disk), Place::data("journal.redb")).unwrap();
        let mut vault = Vec::new();
        for (key, value) in journal.load().unwrap() {
            let found: Vec<String> = self.cloud.secrets();
            let mut found = found.into_iter().filter(|secret| holds(&value, secret));
            match &key {
                Key::Secret { name, .. } => {
                    let token = found.next().unwrap();
                    vault.push((name.clone(), token));
                    assert_eq!(found.next(), None, "{key:?}");
                }
                _ => assert_eq!(found.next(), None, "a token is in {key:?}"),
            }
        }
        for (name, token) in &vault {
            assert!(holds(&bytes, token), "{name} is not found in the file");
        }
        vault
    }
}

/// Requests of a route whose answers have gone out.
fn answers(calls: &[Call], route: Route) -> usize {
    let answered = |call: &&Call| call.route == route && call.answered;
    calls.iter().filter(answered).count()
}

/// Link, adapter and alerts, as the README of the plugin shows them.
fn configuration(cloud: &Withnox, tokens: Tokens, dir: &Path) -> String {
    let secret = |name: &str, value: &str| {
        let path = dir.join(name);
        fs::write(&path, format!("{value}\n")).unwrap();
        format!("{name} = {{ file = {:?} }}", path.display().to_string())
    };
    let (username, password) = cloud.account();
    let mut secrets = vec![
        secret("account_user", &username),
        secret("account_password", &password),
    ];
    if tokens == Tokens::Stored {
        let session = cloud.session();
        secrets.push(secret("access_token", &session.access));
        secrets.push(secret("refresh_token", &session.refresh));
    }
    let tell = r#"printf '%s|%s|%s\n' "$1" "$2" "$3" >> "$0""#;
    let alerts = json!(["/bin/sh", "-c", tell, dir.join("alerts")]);
    let component = built_adapter("withnox");
    format!(
        r#"
[links.withnox]
kind = "http_client"
url = "{url}"
auth = {{ bearer = "access_token" }}
secrets = {{ {secrets} }}
redirects = ["{store}/"]

[adapters.withnox]
component = {component:?}
config = {{ target = "cam", device_id = {DEVICE}, user_id = {USER}, hardware_id = {HARDWARE} }}

{grants}

[alerts.book]
command = {alerts}
"#,
        url = cloud.url(),
        store = cloud.store().origin(),
        secrets = secrets.join(", "),
        component = component.display().to_string(),
        grants = GRANTS,
    )
}

/// What the adapter may do, for a target `cam`.
pub const GRANTS: &str = r#"[adapters.withnox.grants]
targets = ["cam"]
links.withnox.files = ["/api/v1/addnox/firmware/file/"]
links.withnox.call = [
  { method = "GET", path = "/api/v1/addnox/firmware/latest/*/*" },
  { method = "PATCH", path = "/api/v1/addnox/firmware/update-result/*/*/*" },
  { method = "POST", path = "/api/v1/addnox/auth/refresh-token", secrets = { refresh_token = "body" }, capture = { access_token = "/access_token", refresh_token = "/refresh_token" } },
  { method = "POST", path = "/api/v1/addnox/auth/email/signin", secrets = { account_user = "body", account_password = "body" }, capture = { access_token = "/access_token", refresh_token = "/refresh_token" } },
]"#;

impl Drop for Camera {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = fs::read_to_string(self.machine.layout().log()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!(
                "the agent's log:\n{}",
                lines[lines.len().saturating_sub(60)..].join("\n")
            );
            eprintln!("calls: {:#?}", self.cloud.calls());
            eprintln!(
                "requests to the store: {:#?}",
                self.cloud.store().requests()
            );
            eprintln!("alerts: {:#?}", self.alerts());
        }
    }
}
