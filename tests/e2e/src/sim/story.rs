//! The pieces that stories are made of: a dock that speaks DJI's OTA, and the command that updates it.

use std::sync::Arc;
use std::time::Duration;

use md5::{Digest, Md5};
use otahost::platform::{AdapterSetup, Setup, TargetSetup, TransferSetup};
use otahost_core::backoff::Backoff;
use otahost_core::grants::{Grants, TopicGrant};
use otahost_core::model::Field;
use otahost_disk::Place;
use otahost_disk::sim::Image;
use otahost_lab::signing::{Claims, Publisher};
use otahost_sandbox::{Limits, Sandbox};
use otahost_transfer::{Trust, TrustKeys, Tuning};
use serde_json::json;

use super::machine::{SELECTOR, SLOTS, factory_selector};
use super::{Delivery, Scenario, World, firmware};
use crate::sim::Boot;

const SN: &str = "NM1923221021";
const OLD: &str = "1.0.0";
const NEW: &str = "1.2.0.69";
const URL: &str = "http://files.example/public/image.uav";
/// Bytes of a simulated image: enough for several marks and syncs, few enough for thousands of runs.
const IMAGE: usize = 48 * 1024;

/// The command of the vendor's page, for this file.
pub fn ota_create(bid: &str, tid: &str, file: &[u8]) -> Vec<u8> {
    let md5: String = Md5::digest(file)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let device = json!({
        "file_name": "EvoNest.uav", "file_size": file.len(), "file_url": URL, "firmware_upgrade_type": 3,
        "md5": md5, "product_version": NEW, "sn": SN,
    });
    json!({ "bid": bid, "tid": tid, "timestamp": 1_654_070_968_655_u64, "method": "ota_create", "data": { "devices": [device] } })
        .to_string()
        .into_bytes()
}

/// A dock with two slots whose cloud has just sent one `ota_create`. The new image comes up, or not; the file server cuts the
/// connection at each of these offsets.
pub fn dock(name: &'static str, boot: Boot, cuts: &[u64]) -> Scenario {
    let dir = tempfile::tempdir().unwrap();
    let (payload, artifact) = (dir.path().join("payload"), dir.path().join("artifact"));
    std::fs::write(&payload, firmware(NEW, boot, IMAGE)).unwrap();
    let publisher = Publisher::generate().unwrap();
    let claims = Claims {
        compatible: "dock".into(),
        version: NEW.into(),
        rollback_index: 1,
    };
    publisher.sign(&payload, &artifact, &claims).unwrap();
    let file = std::fs::read(&artifact).unwrap();

    let mut image = Image::new();
    image.write(&Place::operator(SELECTOR), &factory_selector());
    image.write(&Place::operator(SLOTS[0]), &firmware(OLD, Boot::Up, IMAGE));
    image.write(&Place::operator(SLOTS[1]), b"never used");
    let command = Delivery {
        packet: 1,
        topic: format!("thing/product/{SN}/services"),
        payload: ota_create("bid-1", "tid-1", &file),
    };
    let world = World {
        inbox: vec![command],
        files: [(URL.to_owned(), Arc::new(file))].into(),
        cuts: cuts.to_vec(),
        ..World::default()
    };
    Scenario {
        name,
        setup: Arc::new(setup(&publisher)),
        image,
        world,
        told: |world| !world.results(&events()).is_empty() && world.inbox.is_empty(),
        promises: match boot {
            Boot::Up => |world, _| ended(world, "ok", 1, NEW),
            Boot::Dead => |world, _| ended(world, "failed", 0, OLD),
        },
    }
}

/// Adds the adapter that misbehaves on command, and what it is told, before the command for the dock.
pub fn with_rogue(mut scenario: Scenario, commands: &[&str]) -> Scenario {
    let sandbox = Sandbox::new(Limits::default()).unwrap();
    let grants = TopicGrant {
        subscribe: vec!["rogue/do".into()],
        publish: vec!["rogue/out".into()],
    };
    let grants = Grants {
        links: [("cloud".to_owned(), grants)].into(),
        download: vec![],
        targets: vec![],
    };
    let config = json!({ "link": "cloud", "prefix": "rogue" });
    let mut setup = (*scenario.setup).clone();
    setup
        .adapters
        .push(adapter(&sandbox, "rogue", &config, grants));
    scenario.setup = Arc::new(setup);
    let told = commands
        .iter()
        .zip(100..)
        .map(|(command, packet)| Delivery {
            packet,
            topic: "rogue/do".into(),
            payload: command.as_bytes().to_vec(),
        });
    scenario.world.inbox.splice(0..0, told);
    scenario
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

fn adapter(
    sandbox: &Sandbox,
    name: &str,
    config: &serde_json::Value,
    grants: Grants,
) -> AdapterSetup {
    let component = sandbox.load(name, &crate::component(name)).unwrap();
    let config = config.to_string();
    let requirements = component.requirements(&config).unwrap().unwrap();
    assert_eq!(grants.denials(&requirements), [], "{name}");
    AdapterSetup {
        name: name.to_owned(),
        description: component.describe().unwrap(),
        component,
        requirements,
        config,
        grants,
    }
}

fn events() -> String {
    format!("thing/product/{SN}/events")
}

/// One result, of this kind, and this version in this slot.
fn ended(world: &World, status: &str, slot: usize, version: &str) -> Result<(), String> {
    let results = world.results(&events());
    let [(got, code)] = results.as_slice() else {
        return Err(format!("not one result but {results:?}"));
    };
    if got != status || (status == "ok") != (*code == 0) {
        return Err(format!("the result is {got} {code}, not {status}"));
    }
    if (world.slot, world.version.as_str()) != (slot, version) {
        return Err(format!(
            "version {} runs in slot {}",
            world.version, world.slot
        ));
    }
    Ok(())
}

fn setup(publisher: &Publisher) -> Setup {
    let sandbox = Sandbox::new(Limits::default()).unwrap();
    let config =
        json!({ "link": "cloud", "gateway_sn": SN, "dialect": "autel", "presence": "none" });
    let grants = Grants {
        links: [(
            "cloud".to_owned(),
            TopicGrant {
                subscribe: vec!["#".into()],
                publish: vec!["#".into()],
            },
        )]
        .into(),
        download: vec!["http://files.example/public/".into()],
        targets: vec!["dock".into()],
    };
    let target = TargetSetup {
        id: "dock".into(),
        parent: None,
        attributes: vec![Field {
            name: "sn".into(),
            value: SN.into(),
        }],
        trust: Trust::Minisign(TrustKeys::parse(&[publisher.public_key()]).unwrap()),
        confirm_within: Duration::from_secs(600),
    };
    let tuning = Tuning {
        block: 4 * 1024,
        chunk: 8 * 1024,
        sync_every: 8 * 1024,
        checkpoint_every: Duration::from_secs(1),
    };
    Setup {
        device: "sim".into(),
        adapters: vec![adapter(&sandbox, "dji", &config, grants)],
        targets: vec![target],
        transfer: TransferSetup {
            attempts: 5,
            backoff: Backoff {
                first: 1_000,
                max: 8_000,
            },
            max_size: 1 << 20,
            tuning,
        },
    }
}
