//! An EMS with its EMUs as it stands in the field, and everything around it.

use std::fs;
use std::thread;

use otahost_e2e::device::{PATIENCE, eventually};
use otahost_lab::files::{Files, Request};
use otahost_lab::image::{Described, Image};
use otahost_lab::machine::SlotState;
use otahost_lab::mosquitto::Mosquitto;
use otahost_lab::proxy::Proxy;
use otahost_lab::signing::{Claims, Publisher};
use otahost_lab::wudun::site::{self, COMPATIBLE, EMS_OLD, SOURCE, Site, SiteSpec};
use otahost_lab::wudun::{
    Answer, Kind, Platform, Sent, emu_upgrade, emu_upgrade_result, emu_version, ota_upgrade,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The mark of the vendor's examples.
pub(crate) const UID: &str = "test";
/// What the updates of the EMS install: the version of the vendor's example.
pub(crate) const EMS_NEW: &str = "0.9.1";
pub(crate) const KIB: u64 = 1024;

/// The site and its surroundings. Says what the agent logged when a test fails.
pub(crate) struct Ems {
    pub(crate) site: Site,
    pub(crate) platform: Platform,
    pub(crate) proxy: Proxy,
    pub(crate) files: Files,
    pub(crate) publisher: Publisher,
    pub(crate) broker: Mosquitto,
    /// Where commands are sent.
    pub(crate) base: String,
    dir: TempDir,
}

/// A file on the file server.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) md5: String,
}

impl Ems {
    /// A site with these EMUs, on and reachable by commands.
    pub(crate) fn online(emus: &[i64]) -> Self {
        let ems = Self::off(emus, |_| {});
        ems.switch_on();
        ems
    }

    /// A site that is switched off.
    pub(crate) fn off(emus: &[i64], change: impl FnOnce(&mut SiteSpec)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start().unwrap();
        let proxy = Proxy::to_port(broker.port());
        let files = Files::start();
        let publisher = Publisher::generate().unwrap();
        let mut spec = SiteSpec {
            downloads: vec![files.url("")],
            trust: vec![publisher.public_key()],
            ..SiteSpec::new(UID, proxy.port(), emus)
        };
        change(&mut spec);
        let home = dir.path().join("site");
        fs::create_dir(&home).unwrap();
        Ems {
            site: Site::create(&home, &spec).unwrap(),
            platform: Platform::connect(broker.port(), UID).unwrap(),
            proxy,
            files,
            publisher,
            broker,
            base: site::bases(UID)[0].clone(),
            dir,
        }
    }

    /// Switches it on and waits until it hears commands.
    pub(crate) fn switch_on(&self) {
        self.site.machine.power_on().unwrap();
        // The platform's own client has another name.
        let heard = format!("Sending SUBACK to otahost-{UID}-cloud");
        eventually("the agent's subscriptions", || {
            self.broker.log().contains(&heard)
        });
        self.ping();
    }

    /// A question that changes nothing. What was sent before it has been handled when this returns, and what was said to that has come.
    pub(crate) fn ping(&self) -> Answer {
        self.ask(Kind::EmuVersion, &emu_version())
    }

    /// Sends a command and waits for its first result.
    pub(crate) fn ask(&self, kind: Kind, message: &Value) -> Answer {
        self.platform
            .ask(&self.base, kind, message, PATIENCE)
            .unwrap()
    }

    /// Serves these bytes.
    pub(crate) fn serve(&self, name: &str, bytes: &[u8]) -> Package {
        self.files.put(name, bytes);
        Package {
            name: name.to_owned(),
            url: self.files.url(name),
            md5: site::md5_of(bytes),
        }
    }

    /// Serves an image of the EMS, signed by the publisher it trusts.
    pub(crate) fn release(&self, image: &Image, version: &str) -> Package {
        let raw = self.dir.path().join("raw");
        image.write(&raw).unwrap();
        self.sign(&fs::read(raw).unwrap(), COMPATIBLE, version)
    }

    /// Serves these bytes with a signature of the publisher that the EMS trusts.
    pub(crate) fn sign(&self, payload: &[u8], compatible: &str, version: &str) -> Package {
        let (raw, signed) = (self.dir.path().join("raw"), self.dir.path().join(version));
        fs::write(&raw, payload).unwrap();
        let claims = Claims {
            compatible: compatible.into(),
            version: version.into(),
            rollback_index: 1,
        };
        let Described { md5, .. } = self.publisher.sign(&raw, &signed, &claims).unwrap();
        let name = format!("{compatible}-{version}");
        self.files.put(&name, fs::read(&signed).unwrap());
        Package {
            url: self.files.url(&name),
            name,
            md5,
        }
    }

    /// Orders an update of the EMS.
    pub(crate) fn upgrade(&self, package: &Package) -> Sent {
        let message = ota_upgrade(SOURCE, &package.url, &package.md5);
        self.send(Kind::Upgrade, &message)
    }

    /// Orders an update of an EMU.
    pub(crate) fn emu_upgrade(&self, id: i64, package: &Package) -> Sent {
        let message = emu_upgrade(id, &package.url, &package.md5);
        self.send(Kind::EmuUpgrade, &message)
    }

    pub(crate) fn send(&self, kind: Kind, message: &Value) -> Sent {
        self.platform.send(&self.base, kind, message).unwrap()
    }

    /// How the update of an EMU stands.
    pub(crate) fn standing(&self, id: i64) -> Value {
        let answer = self.ask(Kind::EmuUpgradeResult, &emu_upgrade_result(id));
        answer.data
    }

    /// Waits for this many results, and gives the numbers that they say.
    pub(crate) fn numbers(&self, to: &Sent, count: usize) -> Vec<u64> {
        let answers = self.platform.await_answers(to, count, PATIENCE).unwrap();
        numbers(&answers)
    }

    /// All results to a command, when nothing more can come of what was sent before.
    pub(crate) fn all_numbers(&self, to: &Sent) -> Vec<u64> {
        self.ping();
        numbers(&self.platform.answers(to))
    }

    /// The requests for a package.
    pub(crate) fn requests(&self, package: &Package) -> Vec<Request> {
        let path = format!("/public/{}", package.name);
        let mut requests = self.files.requests();
        requests.retain(|request| request.path == path);
        requests
    }

    /// Waits until the package is being fetched.
    pub(crate) fn await_fetching(&self, package: &Package) {
        let path = format!("/public/{}", package.name);
        let fetching = self.files.wait_for(PATIENCE, |requests| {
            requests.iter().any(|r| r.path == path && r.status != 0)
        });
        assert!(fetching, "{:?}", self.files.requests());
    }

    /// The jobs as the agent's command line tells them; none while it does not run.
    pub(crate) fn jobs(&self) -> Vec<Value> {
        let said = self.site.machine.cli(&["jobs", "--json"]).unwrap();
        let value: Value = serde_json::from_slice(&said.stdout).unwrap();
        value.as_array().cloned().unwrap_or_default()
    }

    /// Waits until the newest job has ended well; asks nothing over the broker.
    pub(crate) fn await_success(&self) {
        eventually("the end of the job", || {
            self.jobs()
                .first()
                .is_some_and(|job| job["phase"] == json!("succeeded"))
        });
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.site.machine.layout().log()).unwrap_or_default()
    }

    /// This version of the EMS runs from this slot and is confirmed.
    pub(crate) fn assert_runs(&self, version: &str, slot: &str) {
        let machine = &self.site.machine;
        assert_eq!(machine.version().as_deref(), Some(version));
        assert_eq!(machine.slot().as_deref(), Some(slot));
        let selector = machine.selector().unwrap();
        assert_eq!(selector.primary, slot);
        assert_eq!(selector.slots[slot].state, SlotState::Good);
    }

    /// What the factory installed runs since the first boot.
    pub(crate) fn assert_unchanged(&self) {
        assert_eq!(self.site.machine.boots().len(), 1);
        self.assert_runs(EMS_OLD, "a");
    }

    /// The device kept to the protocol, the agent never ended by itself, and no event of its adapter failed.
    pub(crate) fn assert_well(&self) {
        self.ping();
        assert_eq!(self.platform.violations(), Vec::<String>::new());
        let machine = &self.site.machine;
        assert!(machine.crashes().is_empty(), "{:?}", machine.crashes());
        assert!(machine.agent_runs());
        let said = machine.cli(&["status", "--json"]).unwrap();
        let status: Value = serde_json::from_slice(&said.stdout).unwrap();
        let adapter = &status["adapters"][0];
        assert_eq!(
            (&adapter["health"], &adapter["dead_letters"]),
            (&json!("running"), &json!(0)),
            "{adapter}"
        );
    }
}

impl Drop for Ems {
    fn drop(&mut self) {
        if thread::panicking() {
            let text = self.log();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("the agent's log:\n{}", last.join("\n"));
            eprintln!("requests: {:#?}", self.files.requests());
            eprintln!("violations: {:#?}", self.platform.violations());
        }
    }
}

/// `status` or `download_status` of each.
fn numbers(answers: &[Answer]) -> Vec<u64> {
    let number = |answer: &Answer| answer.number("status").or(answer.number("download_status"));
    answers.iter().filter_map(number).collect()
}
