//! The pieces that stories are made of: a dock that speaks DJI's OTA, a drone in it, releases of firmware, and the commands that
//! install them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use md5::{Digest, Md5};
use otahost::platform::{AdapterSetup, Deadlines, Setup, TargetSetup, TransferSetup};
use otahost_core::backoff::Backoff;
use otahost_core::grants::{Grants, LinkGrant};
use otahost_core::model::Field;
use otahost_core::policy::Policy;
use otahost_disk::sim::Image;
use otahost_disk::{Place, Seam};
use otahost_lab::signing::{Claims, Publisher};
use otahost_sandbox::{Adapter, How, Limits, Sandbox, Why};
use otahost_transfer::{Trust, TrustKeys, Tuning};
use serde_json::json;

use super::drone::STAGE;
use super::emu::EMU_DIRECTORY;
use super::machine::{SELECTOR, SLOTS, factory_selector};
use super::{BOOT_TIME, Boot, Broken, Delivery, Drone, Scenario, When, World, ended, firmware};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// Serial number of the dock, which is the gateway.
pub const DOCK_SN: &str = "NM1923221021";
/// Serial number of the drone.
pub const DRONE_SN: &str = "NM1923221022";
/// Serial number of the device that is handed a directory.
pub const EMU_SN: &str = "NM1923221023";
/// The version the dock and the drone left the factory with.
pub const OLD: &str = "1.0.0";
/// The version most stories install.
pub const NEW: &str = "1.2.0.69";
/// What the adapters may download.
pub(super) const FILES: &str = "http://files.example/public/";
/// Bytes of a simulated image: enough for several marks and syncs, few enough for thousands of runs.
const IMAGE: usize = 48 * 1024;

/// A release of firmware.
#[derive(Debug, Clone, Copy)]
pub struct Release {
    /// Version in its signature, and the one it reports.
    pub version: &'static str,
    /// The kind of device it is signed for.
    pub compatible: &'static str,
    /// Rollback index in its signature.
    pub index: u64,
    /// Whether it comes up.
    pub boot: Boot,
    /// The version the cloud announces, where that is another one.
    pub announced: Option<&'static str>,
}

impl Default for Release {
    fn default() -> Self {
        Release {
            version: NEW,
            compatible: "dock",
            index: 1,
            boot: Boot::Up,
            announced: None,
        }
    }
}

/// A story that is being written.
pub struct Story {
    publisher: Publisher,
    /// What it has come to.
    pub scenario: Scenario,
}

impl Story {
    /// A dock with two slots on which nothing has happened yet. Its promises are to be written.
    pub fn new(name: &'static str) -> Self {
        let publisher = Publisher::generate().unwrap();
        let mut image = Image::new();
        image.write(&Place::operator(SELECTOR), &factory_selector());
        image.write(&Place::operator(SLOTS[0]), &firmware(OLD, Boot::Up, IMAGE));
        image.write(&Place::operator(SLOTS[1]), b"never used");
        image.write(&Place::operator(STAGE), b"");
        let scenario = Scenario {
            name,
            setup: Arc::new(setup(&publisher)),
            image,
            world: World {
                drone: Drone {
                    factory: OLD.into(),
                    ..Drone::default()
                },
                trusted: [OLD.to_owned()].into(),
                ..World::default()
            },
            told: is_told::<1>,
            patience: BOOT_TIME,
            seam: Seam::Inline,
            promises: |_, _| Ok(()),
            at_rest: |_| Ok(()),
            broken: Broken::Nothing,
        };
        Story {
            publisher,
            scenario,
        }
    }

    /// The set-up, to be changed.
    pub fn setup(&mut self) -> &mut Setup {
        Arc::make_mut(&mut self.scenario.setup)
    }

    /// The dock as a target, to be changed.
    pub fn target(&mut self) -> &mut TargetSetup {
        &mut self.setup().targets[0]
    }

    /// The outer world, to be changed.
    pub fn world(&mut self) -> &mut World {
        &mut self.scenario.world
    }

    /// Puts a signed release on the file server, unless it is there already; gives its address.
    pub fn publish(&mut self, release: &Release) -> String {
        let url = format!(
            "{FILES}{}-{}-{}-{:?}.uav",
            release.compatible, release.version, release.index, release.boot
        );
        if self.scenario.world.files.contains_key(&url) {
            return url;
        }
        if release.compatible == "dock" {
            self.world().trusted.insert(release.version.to_owned());
        }
        let image = firmware(release.version, release.boot, IMAGE);
        let claims = Claims {
            compatible: release.compatible.into(),
            version: release.version.into(),
            rollback_index: release.index,
        };
        self.publish_payload(url.clone(), &image, &claims);
        url
    }

    fn publish_payload(&mut self, url: String, content: &[u8], claims: &Claims) {
        let dir = tempfile::tempdir().unwrap();
        let (payload, artifact) = (dir.path().join("payload"), dir.path().join("artifact"));
        std::fs::write(&payload, content).unwrap();
        self.publisher.sign(&payload, &artifact, claims).unwrap();
        let file = std::fs::read(&artifact).unwrap();
        self.world().files.insert(url, Arc::new(file));
    }

    /// Puts a release on a medium that is plugged in.
    pub fn plug_in(&mut self, release: &Release) {
        let url = self.publish(release);
        let file = self.world().files.remove(&url).unwrap();
        self.world().medium.insert("release.img".into(), file);
    }

    /// Adds a device behind the dock that is handed a directory.
    pub fn add_emu(&mut self) {
        let emu = target("emu", EMU_SN, Some("dock"), &self.publisher);
        self.setup().targets.push(emu);
        self.setup().adapters[0].grants.targets.push("emu".into());
        self.scenario
            .image
            .create_dir(&Place::operator(EMU_DIRECTORY));
        self.world().emu.version = OLD.into();
    }

    /// Puts this archive on the file server as a signed release for that device; gives its address.
    pub fn publish_archive(&mut self, archive: &[u8]) -> String {
        let url = format!("{FILES}emu.tar");
        let claims = Claims {
            compatible: "emu".into(),
            version: NEW.into(),
            rollback_index: 1,
        };
        self.publish_payload(url.clone(), archive, &claims);
        url
    }

    /// The same, and the cloud commands it as its very first words.
    pub fn command_emu(&mut self, bid: &str, archive: &[u8]) {
        let url = self.publish_archive(archive);
        let order = device(EMU_SN, NEW, &url, &self.world().files[&url]);
        let delivery = self.ordered(bid, &[order]);
        self.world().inbox.push(delivery);
    }

    /// Publishes a release, and has the cloud command it under this business, as its very first words.
    pub fn command(&mut self, bid: &str, release: &Release) {
        let delivery = self.order(bid, &[(DOCK_SN, *release)]);
        self.world().inbox.push(delivery);
    }

    /// The same, but later.
    pub fn command_later(&mut self, when: When, bid: &str, release: &Release) {
        let delivery = self.order(bid, &[(DOCK_SN, *release)]);
        self.world().later.push((when, delivery));
    }

    /// A message of the cloud that orders these releases for these devices; they are published.
    pub fn order(&mut self, bid: &str, orders: &[(&str, Release)]) -> Delivery {
        let devices: Vec<_> = orders
            .iter()
            .map(|(sn, release)| {
                let url = self.publish(release);
                let version = release.announced.unwrap_or(release.version);
                device(sn, version, &url, &self.world().files[&url])
            })
            .collect();
        self.ordered(bid, &devices)
    }

    fn ordered(&mut self, bid: &str, devices: &[serde_json::Value]) -> Delivery {
        let world = self.world();
        let packet = 1 + world.inbox.len() + world.later.len();
        Delivery {
            packet: u16::try_from(packet).unwrap(),
            topic: format!("thing/product/{DOCK_SN}/services"),
            payload: message(bid, &format!("tid-of-{bid}"), devices),
        }
    }

    /// A command that has the misbehaving adapter start a job for the dock.
    pub fn rogue_order(&mut self, key: &str, release: &Release) -> String {
        let url = self.publish(release);
        let size = self.world().files[&url].len();
        let job = json!({
            "key": key, "target": "dock", "version": release.version, "url": url, "size": size,
        });
        format!("start-job {job}")
    }

    /// Adds the misbehaving adapter, which may do everything to the dock that `dji` may.
    pub fn add_rogue(&mut self) {
        let grants = Grants {
            download: vec![FILES.into()],
            targets: vec!["dock".into()],
            ..rogue_grants()
        };
        add_rogue(&mut self.scenario, grants);
    }

    /// Tells the misbehaving adapter something.
    pub fn tell_rogue(&mut self, when: When, command: &str) {
        let world = self.world();
        let packet = 1000 + u16::try_from(world.later.len()).unwrap();
        world.later.push((when, rogue_delivery(packet, command)));
    }
}

fn device(sn: &str, version: &str, url: &str, file: &[u8]) -> serde_json::Value {
    let md5: String = Md5::digest(file)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    json!({
        "file_name": "EvoNest.uav", "file_size": file.len(), "file_url": url, "firmware_upgrade_type": 3,
        "md5": md5, "product_version": version, "sn": sn,
    })
}

fn message(bid: &str, tid: &str, devices: &[serde_json::Value]) -> Vec<u8> {
    json!({ "bid": bid, "tid": tid, "timestamp": 1_654_070_968_655_u64, "method": "ota_create", "data": { "devices": devices } })
        .to_string()
        .into_bytes()
}

/// A dock with two slots whose cloud has just sent one `ota_create`. The new image comes up, or not; the file server cuts the
/// connection at each of these offsets.
pub fn dock(name: &'static str, boot: Boot, cuts: &[u64]) -> Scenario {
    let mut story = Story::new(name);
    let release = Release {
        boot,
        ..Release::default()
    };
    story.command("bid-1", &release);
    story.world().cuts = cuts.to_vec();
    story.scenario.promises = match boot {
        Boot::Up => |world, _| ended(world, &[("ok", 0)], 1, NEW),
        Boot::Dead | Boot::NoAgent => |world, _| ended(world, &[("failed", 312_028)], 0, OLD),
    };
    story.scenario
}

/// Adds the adapter that misbehaves on command, and what it is told, before the command for the dock.
pub fn with_rogue(mut scenario: Scenario, commands: &[&str]) -> Scenario {
    add_rogue(&mut scenario, rogue_grants());
    let told = commands
        .iter()
        .zip(100..)
        .map(|(command, packet)| rogue_delivery(packet, command));
    scenario.world.inbox.splice(0..0, told);
    scenario
}

/// The same device with nothing to do but what the rogue is told, a command each second.
pub fn told_later(mut scenario: Scenario, commands: &[&str]) -> Scenario {
    add_rogue(&mut scenario, rogue_grants());
    scenario.world.inbox.clear();
    scenario.world.later = commands
        .iter()
        .zip(1..)
        .map(|(command, n)| {
            let at = When::At(u64::from(n) * 1_000);
            (at, rogue_delivery(n, command))
        })
        .collect();
    scenario
}

fn add_rogue(scenario: &mut Scenario, grants: Grants) {
    let config = json!({ "link": "cloud", "prefix": "rogue" });
    let rogue = adapter("rogue", "rogue", &config, grants);
    Arc::make_mut(&mut scenario.setup).adapters.push(rogue);
}

fn rogue_grants() -> Grants {
    let grants = LinkGrant {
        subscribe: vec!["rogue/do".into()],
        publish: vec!["rogue/out".into()],
        ..LinkGrant::default()
    };
    Grants {
        links: [("cloud".to_owned(), grants)].into(),
        download: vec![],
        targets: vec![],
    }
}

fn rogue_delivery(packet: u16, command: &str) -> Delivery {
    Delivery {
        packet,
        topic: "rogue/do".into(),
        payload: command.as_bytes().to_vec(),
    }
}

/// What the misbehaving adapter published.
pub fn rogue_output(world: &World) -> Vec<String> {
    let out = world
        .received
        .iter()
        .filter(|(topic, _)| topic == "rogue/out");
    out.map(|(_, payload)| String::from_utf8_lossy(payload).into_owned())
        .collect()
}

/// A release of the rogue: its file, and how it runs here.
pub(super) fn release(name: &str) -> (Vec<u8>, AdapterSetup) {
    let config = json!({ "link": "cloud", "prefix": "rogue" });
    let setup = adapter("rogue", name, &config, rogue_grants());
    (crate::component(name), setup)
}

/// A component takes longer to compile than most stories to run.
fn component(name: &str) -> Adapter {
    static LOADED: OnceLock<Mutex<BTreeMap<String, Adapter>>> = OnceLock::new();
    let mut loaded = LOADED.get_or_init(Mutex::default).lock().unwrap();
    let load = || {
        let sandbox = Sandbox::new(Limits::default()).unwrap();
        sandbox.load(name, &crate::component(name)).unwrap()
    };
    loaded.entry(name.to_owned()).or_insert_with(load).clone()
}

pub(super) fn adapter(
    name: &str,
    component_name: &str,
    config: &serde_json::Value,
    grants: Grants,
) -> AdapterSetup {
    let component = component(component_name);
    let config = config.to_string();
    let requirements = component.requirements(&config).unwrap().unwrap();
    assert_eq!(grants.denials(&requirements), [], "{name}");
    AdapterSetup {
        name: name.to_owned(),
        description: component.describe().unwrap(),
        component,
        how: How::Compiled { why: Why::NoCache },
        requirements,
        config,
        grants,
    }
}

/// So many results, and nobody outside has anything left to do.
pub fn is_told<const RESULTS: usize>(world: &World) -> bool {
    world.is_quiet() && world.endings.len() >= RESULTS
}

fn target(id: &str, sn: &str, parent: Option<&str>, publisher: &Publisher) -> TargetSetup {
    TargetSetup {
        id: id.into(),
        parent: parent.map(Into::into),
        attributes: vec![Field {
            name: "sn".into(),
            value: sn.into(),
        }],
        trust: Trust::Minisign(TrustKeys::parse(&[publisher.public_key()]).unwrap()),
        compatible: Some(id.into()),
        confirm_within: Duration::from_secs(600),
        confirm_by_adapter: false,
        policy: Policy::default(),
        authority: vec![],
    }
}

fn setup(publisher: &Publisher) -> Setup {
    let config =
        json!({ "link": "cloud", "gateway_sn": DOCK_SN, "dialect": "autel", "presence": "none" });
    let grants = Grants {
        links: [(
            "cloud".to_owned(),
            LinkGrant {
                subscribe: vec!["#".into()],
                publish: vec!["#".into()],
                ..LinkGrant::default()
            },
        )]
        .into(),
        download: vec![FILES.into()],
        targets: vec!["dock".into(), "drone".into()],
    };
    let tuning = Tuning {
        block: 4 * 1024,
        chunk: 8 * 1024,
        sync_every: 8 * 1024,
        checkpoint_every: Duration::from_secs(1),
        checkpoint_bytes: 0,
        checkpoint_at_last: Duration::from_secs(10),
    };
    Setup {
        device: "sim".into(),
        adapters: vec![adapter("dji", "dji", &config, grants)],
        faulty: vec![],
        targets: vec![
            target("dock", DOCK_SN, None, publisher),
            target("drone", DRONE_SN, Some("dock"), publisher),
        ],
        transfer: TransferSetup {
            attempts: 5,
            backoff: Backoff {
                first: 1_000,
                max: 8_000,
            },
            max_size: 1 << 20,
            parallel: 4,
            tuning,
        },
        deadlines: Deadlines {
            waiting: DAY,
            download: DAY,
            prepared: DAY,
            install: HOUR,
            deliver: HOUR,
            activate: HOUR,
        },
    }
}
