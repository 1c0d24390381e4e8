//! Four protocols in one agent: four updates at once to four targets, while a fifth adapter traps at everything it is told. None
//! disturbs another; all four end up installed and told to their platforms. (Issue 6: "Proof that adapters are independent".)
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use otahost_e2e::device::{PATIENCE, eventually, ota_create};
use otahost_e2e::gateway::{BASE, EMU, Gateway, ID, KIT_ID, NEW, OLD, SERIAL};
use otahost_lab::cloud::Status;
use otahost_lab::files::{Fault, Request};
use otahost_lab::ftps;
use otahost_lab::image::Image;
use otahost_lab::withnox::{Call, Route};
use otahost_lab::wudun::{Kind, emu_upgrade};
use serde_json::{Value, json};

const KIB: u64 = 1024;
/// Of each image.
const SIZE: u64 = 512 * KIB;
/// Where each download waits for the others.
const HALF: u64 = SIZE / 2;

/// Ends what runs beside the test, however the test ends.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The phases of the jobs, by the adapter they belong to.
fn phases(gateway: &Gateway) -> BTreeMap<String, String> {
    let word = |job: &Value, field: &str| job[field].as_str().unwrap_or_default().to_owned();
    let jobs = gateway.jobs();
    jobs.iter()
        .map(|job| (word(job, "owner"), word(job, "phase")))
        .collect()
}

fn all(phase: &str) -> BTreeMap<String, String> {
    let owners = ["dji", "kit112", "withnox", "wudun"];
    owners
        .map(|owner| (owner.to_owned(), phase.to_owned()))
        .into()
}

#[test]
fn four_updates_at_once_finish_while_a_fifth_adapter_traps_at_every_event() {
    let gateway = Gateway::off();
    // Every file waits at its half.
    let (dock, described) = gateway.image("evonest-dock", SIZE);
    gateway.files.put("dock.img", dock);
    let (emu, package) = gateway.archive(usize::try_from(SIZE).unwrap());
    gateway.files.put("emu.tar", emu);
    let (kit, _) = gateway.image("kit", SIZE);
    let kit_name = format!("kit-{NEW}.img");
    gateway.server.put(&kit_name, kit);
    let cam = gateway.offer(SIZE);
    for name in ["dock.img", "emu.tar"] {
        gateway.files.fault(name, 1, Fault::StallAfter(HALF));
    }
    gateway
        .server
        .fault(&kit_name, 1, ftps::Fault::StallAfter(HALF));
    gateway
        .withnox
        .store()
        .fault(&cam, 1, Fault::StallAfter(HALF));

    gateway.machine.power_on().unwrap();
    gateway.cloud.await_firmware(OLD, PATIENCE).unwrap();
    gateway.centre.await_version(OLD, PATIENCE).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let until = Until(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                gateway.cloud.publish("rogue/do", b"trap").unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });

        // The four ask for their updates; Withnox has been polled already.
        let order = json!({
            "sn": SERIAL, "product_version": NEW, "file_name": "dock.img", "file_size": described.size,
            "file_url": gateway.files.url("dock.img"), "md5": described.md5, "firmware_upgrade_type": 3,
        });
        let ids = gateway
            .cloud
            .send_ota_create(&ota_create(&[&order]))
            .unwrap();
        let reply = gateway.cloud.await_reply(&ids, PATIENCE).unwrap();
        assert_eq!(reply.result, 0, "{}", reply.message);
        let answer = gateway.centre.update_device().unwrap();
        assert_eq!(answer.status, 200, "{:?}", answer.envelope());
        let command = emu_upgrade(EMU, &gateway.files.url("emu.tar"), &package.md5);
        let sent = gateway
            .platform
            .send(BASE, Kind::EmuUpgrade, &command)
            .unwrap();

        // All four at their half, at the same time.
        let half = |requests: &[Request]| requests.iter().filter(|r| r.sent >= HALF).count();
        assert!(
            gateway
                .files
                .wait_for(PATIENCE, |requests| half(requests) == 2)
        );
        assert!(
            gateway
                .withnox
                .store()
                .wait_for(PATIENCE, |requests| half(requests) == 1)
        );
        assert!(gateway.server.wait_for(PATIENCE, |connections| {
            let mut all = connections.iter().flat_map(|c| &c.retrievals);
            all.any(|r| r.sent >= HALF)
        }));
        eventually("four downloads at once", || {
            phases(&gateway) == all("downloading")
        });
        eventually("the fifth adapter to have failed often", || {
            gateway.adapter("rogue")["dead_letters"]
                .as_u64()
                .unwrap_or_default()
                >= 5
        });
        for name in ["dji", "kit112", "withnox", "wudun"] {
            let adapter = gateway.adapter(name);
            assert_eq!(
                (&adapter["health"], &adapter["dead_letters"]),
                (&json!("running"), &json!(0)),
                "{adapter}"
            );
        }
        gateway.files.release();
        gateway.server.release();
        gateway.withnox.store().release();

        // Each is told to its platform in its own words.
        let end = gateway.cloud.await_terminal(&ids.bid, PATIENCE).unwrap();
        assert_eq!(
            (end.status, end.percent),
            (Status::Ok, 100),
            "{}",
            end.message
        );
        let told = gateway.platform.await_answers(&sent, 1, PATIENCE).unwrap();
        assert_eq!(told[0].number("download_status"), Some(1), "{told:?}");
        let accepted = |call: &Call| call.route == Route::UpdateResult && call.status == 200;
        assert!(
            gateway
                .withnox
                .wait_for(PATIENCE, |calls| calls.iter().any(accepted))
        );
        gateway.centre.await_version(NEW, PATIENCE).unwrap();
        eventually("the end of all four", || {
            phases(&gateway) == all("succeeded")
        });
        drop(until);
    });

    assert_eq!(
        (
            gateway.machine.version().as_deref(),
            gateway.machine.boot_count()
        ),
        (Some(NEW), 2)
    );
    for target in ["kit", "cam"] {
        let header = Image::verify(&gateway.installed(target)).unwrap();
        assert_eq!(header.version, NEW, "{target}");
    }
    assert_eq!(
        fs::read_to_string(gateway.emu().join("version")).unwrap(),
        NEW
    );
    let health = gateway.centre.ask("/healthCheck").unwrap();
    assert_eq!(
        (&health["kitId"], &health["lastUpdate"]["outcome"]),
        (&json!(KIT_ID), &json!("succeeded"))
    );
    assert_eq!(gateway.withnox.now_firmware(), Some(ID));
    assert_eq!(
        gateway.jobs().len(),
        4,
        "one job each: {:#?}",
        gateway.jobs()
    );

    // Nobody was disturbed: no rule broken, no event lost, no crash.
    assert_eq!(gateway.cloud.violations(), Vec::<String>::new());
    // The platform hears everything on the broker; what is not its device's is others'.
    let mut heard = gateway.platform.violations();
    heard.retain(|violation| violation.starts_with(BASE));
    assert_eq!(heard, Vec::<String>::new());
    assert_eq!(gateway.withnox.violations(), Vec::<String>::new());
    assert!(
        gateway.machine.crashes().is_empty(),
        "{:?}",
        gateway.machine.crashes()
    );
    for name in ["dji", "kit112", "withnox", "wudun"] {
        let adapter = gateway.adapter(name);
        assert_eq!(
            (&adapter["health"], &adapter["dead_letters"]),
            (&json!("running"), &json!(0)),
            "{adapter}"
        );
    }
    let rogue = gateway.adapter("rogue");
    assert!(rogue["health"]["failing"].is_object(), "{rogue}");
}
