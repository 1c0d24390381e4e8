//! Adapters that were built once and are kept as files: whatever this host becomes, it loads them, understands what they say of
//! themselves, and runs them. (DESIGN §9; `tests/e2e/golden/INDEX.md`.)
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use otahost_core::admit::{Judge, JudgedTarget};
use otahost_core::model::{ClockQuality, Effect, Event, Field, Health, Message, Target};
use otahost_core::view::View;
use otahost_lab::image::Described;
use otahost_sandbox::{Limits, Sandbox};
use serde_json::{Value, json};

const SERIAL: &str = "NM1923221021";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

#[test]
fn every_golden_adapter_is_what_the_index_says() {
    let index = fs::read_to_string(directory().join("INDEX.md")).unwrap();
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(line) = index
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")))
        {
            let digest = Described::of(&path).unwrap().sha256;
            assert!(line.contains(&digest), "{name} was changed: {digest}");
            files.insert(name);
        } else {
            assert_eq!(name, "INDEX.md", "it is not in the index");
        }
    }
    let rows = index.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, files.len(), "{files:?}");
}

#[test]
fn dji_0_1_0_is_loaded_described_and_carries_out_a_command() {
    let bytes = fs::read(directory().join("dji-0.1.0.wasm")).unwrap();
    let adapter = Sandbox::new(Limits::default())
        .unwrap()
        .load("dji", &bytes)
        .unwrap();
    let description = adapter.describe().unwrap();
    assert_eq!(
        (description.version.as_str(), description.state_version),
        ("0.1.0", 1)
    );
    let config = json!({ "gateway_sn": SERIAL, "dialect": "autel" }).to_string();
    let needs = adapter.requirements(&config).unwrap().unwrap();
    let services = format!("thing/product/{SERIAL}/services");
    assert!(needs.topics[0].subscribe.contains(&services), "{needs:?}");

    let command = Event::Message(Message {
        link: "cloud".into(),
        topic: services,
        payload: fs::read(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../plugins/dji/fixtures/autel_page_ota_create.json"),
        )
        .unwrap(),
        duplicate: false,
        retained: false,
    });
    let step = adapter.handle(&view(config), b"", &command).unwrap();
    let effects = step.result.unwrap().effects;
    let reply = effects.iter().find_map(|effect| match effect {
        Effect::Publish(reply) => Some(reply),
        _ => None,
    });
    let reply = reply.unwrap_or_else(|| panic!("no reply in {effects:?}"));
    assert_eq!(
        reply.topic,
        format!("thing/product/{SERIAL}/services_reply")
    );
    let said: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(
        (&said["method"], &said["data"]["result"]),
        (&json!("ota_create"), &json!(0))
    );
    let jobs = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::StartJob(_)));
    assert_eq!(jobs.count(), 1, "{effects:?}");
}

/// A dock that may download what the vendor's example names.
fn view(config: String) -> Arc<View> {
    Arc::new(View {
        now: 1_700_000_000_000,
        clock: ClockQuality::Synced,
        uptime: 5_000,
        boot_id: "boot".into(),
        seed: [7; 32],
        config,
        features: vec![],
        targets: Arc::new(vec![Target {
            id: "dock".into(),
            parent: None,
            version: Some("1.2.0.58".into()),
            health: Health::Healthy,
            observed: None,
            attributes: vec![Field {
                name: "sn".into(),
                value: SERIAL.into(),
            }],
            busy: None,
        }]),
        jobs: vec![],
        judge: Judge {
            targets: Arc::new([("dock".to_owned(), JudgedTarget::default())].into()),
            downloads: Some(vec!["http://192.168.1.1:9000/public/".into()]),
            ..Judge::of_nobody()
        },
    })
}
