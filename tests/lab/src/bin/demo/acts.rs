//! The acts: what is done, and what has to hold afterwards.

use std::time::{Duration, Instant};

use otahost_lab::cloud::{Progress, Reply, Status};
use otahost_lab::files::Fault;
use otahost_lab::image::Image;
use otahost_lab::machine::SlotState;
use otahost_lab::signing::{Claims, Publisher};
use serde_json::Value;

use crate::adapters;
use crate::kit112;
use crate::show::{self, bytes};
use crate::withnox;
use crate::world::{Failure, LARGE, NEW, OLD, SMALL, World};
use crate::wudun;

/// How long one update may take, with reboots.
const UPDATE: Duration = Duration::from_secs(60);
const REPLY: Duration = Duration::from_secs(10);
/// The line of the main act, so that there is a download to look at.
const LINE_SPEED: u64 = 12 * 1024 * 1024;
/// Boots a new version gets from the agent (`host/flash/src/slots.rs`).
const BOOT_TRIES: usize = 4;
/// DJI error codes as `plugins/dji` uses them.
const VALIDATION_FAILED: i64 = 312_003;

/// All acts in order.
pub(crate) fn all(world: &mut World) -> Result<(), Failure> {
    main_act(world)?;
    wrong_md5(world)?;
    stranger(world)?;
    does_not_boot(world)?;
    three_times(world)?;
    kit112::act(world)?;
    wudun::act(world)?;
    withnox::act(world)?;
    adapters::act(world)?;
    println!("\nAll of it held. The same again: cargo xtask demo");
    Ok(())
}

fn main_act(world: &mut World) -> Result<(), Failure> {
    show::heading("1. The vendor's ota_create updates a device that reboots into the new version");
    const NAME: &str = "EvoNest-V1.2.0.69-20231215094829.Encrypt.uav";
    let file = world.publish(NAME, &Image::new(NEW, LARGE), NEW)?;
    world.machine.power_on()?;
    world.cloud.await_online(1, REPLY)?;
    world.cloud.await_firmware(OLD, REPLY)?;
    show::line(&format!(
        "the device is online and says it runs {OLD}, from slot {}",
        slot(world)
    ));

    world.files.throttle(Some(LINE_SPEED));
    world.files.fault(NAME, 1, Fault::CutAfter(file.size / 2));
    let start = Instant::now();
    let bar = show::Bar::follow(&world.cloud, &world.files);
    let reply = world
        .cloud
        .send_with_retries(&world.vendor_message(NAME, &file))?;
    check(
        "the reply",
        (reply.result, reply.status),
        (0, Some(Status::Sent)),
    )?;
    let end = world.cloud.await_terminal(&reply.ids.bid, UPDATE)?;
    drop(bar);
    let seconds = start.elapsed().as_secs_f64();
    world.files.throttle(None);

    check(
        "the last event's status and percent",
        (end.status, end.percent),
        (Status::Ok, 100),
    )?;
    runs(world, NEW)?;
    check("the slot that runs", slot(world), "b".to_owned())?;
    let selector = world.machine.selector()?;
    check("the first slot to boot", selector.primary.as_str(), "b")?;
    check(
        "the new slot's state",
        selector.slots.get("b").map(|slot| slot.state),
        Some(SlotState::Good),
    )?;
    check("the reboots", world.machine.boot_count(), 2)?;
    let requests = world.files.requests();
    check(
        "the downloads, the one that was cut included",
        requests.len(),
        2,
    )?;
    let fetched = world.files.bytes_sent();
    // The server counts what it gave to the network; what was on the way when the line broke is lost and fetched again.
    let again = fetched.saturating_sub(file.size);
    if fetched < file.size || again > file.size / 4 {
        return Err(format!(
            "{fetched} bytes were fetched for a file of {}: no resume",
            file.size
        )
        .into());
    }
    holds(world)?;

    let (received, sent) = world.cloud.messages();
    show::held(&format!(
        "{NEW} runs, and the cloud knows: {}, {} %",
        end.status, end.percent
    ));
    show::table(&[
        ("version", format!("{OLD} → {NEW}")),
        ("slot", "a → b".to_owned()),
        (
            "artifact",
            format!("{}, signed, MD5 {}", bytes(file.size), file.md5),
        ),
        (
            "fetched",
            format!(
                "{} in {} requests; the line was cut at {}",
                bytes(fetched),
                requests.len(),
                bytes(file.size / 2)
            ),
        ),
        (
            "resumed at",
            bytes(requests.last().map_or(0, |request| request.offset)),
        ),
        ("fetched again", bytes(again)),
        ("reboots", (world.machine.boot_count() - 1).to_string()),
        (
            "messages",
            format!("{received} from the device, {sent} from the cloud"),
        ),
        ("time", format!("{seconds:.1} s")),
    ]);
    Ok(())
}

fn wrong_md5(world: &mut World) -> Result<(), Failure> {
    show::heading("2. A wrong MD5 is refused, and the running version stays");
    let file = world.publish("wrong-md5", &Image::new("1.2.0.70", SMALL), "1.2.0.70")?;
    let mut message = world.message("wrong-md5", &file, "1.2.0.70");
    let other = if file.md5.starts_with('0') { "1" } else { "0" };
    message["data"]["devices"][0]["md5"] = Value::from(format!("{other}{}", &file.md5[1..]));
    refused(world, &message)
}

fn stranger(world: &mut World) -> Result<(), Failure> {
    show::heading("3. An image signed by a stranger is refused");
    let (raw, signed) = (world.path("raw"), world.path("stranger"));
    Image::new("1.2.0.70", SMALL).write(&raw)?;
    let claims = Claims {
        compatible: "evonest-dock".to_owned(),
        version: "1.2.0.70".to_owned(),
        rollback_index: 1,
    };
    Publisher::generate()?.sign(&raw, &signed, &claims)?;
    let file = world.serve("stranger", &signed)?;
    refused(world, &world.message("stranger", &file, "1.2.0.70"))
}

fn does_not_boot(world: &mut World) -> Result<(), Failure> {
    show::heading("4. An image that does not boot is rolled back and reported");
    let before = world.machine.boots().len();
    let file = world.publish(
        "dead",
        &Image::new("1.2.0.71", SMALL).that_does_not_boot(),
        "1.2.0.71",
    )?;
    let (_, end) = update(world, &world.message("dead", &file, "1.2.0.71"))?;
    check(
        "the result",
        (end.status, end.result != 0),
        (Status::Failed, true),
    )?;
    runs(world, NEW)?;
    let boots = world.machine.boots();
    let failures = boots[before..]
        .iter()
        .filter(|boot| !boot.came_up())
        .count();
    check("the boots that failed", failures, BOOT_TRIES)?;
    show::line(&format!(
        "the boot loader tried 1.2.0.71 {failures} times and went back to slot {}",
        slot(world)
    ));
    holds(world)?;
    show::held(&format!(
        "the cloud got {} {} {}; {NEW} runs",
        end.status, end.result, end.sub_status
    ));
    Ok(())
}

fn three_times(world: &mut World) -> Result<(), Failure> {
    show::heading("5. The same command three times, with new ids, makes one job");
    const VERSION: &str = "1.2.0.72";
    let file = world.publish("thrice", &Image::new(VERSION, SMALL), VERSION)?;
    let message = world.message("thrice", &file, VERSION);
    let (boots, results) = (world.machine.boot_count(), world.cloud.results().len());
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.cloud.send_ota_create(&message)?);
    }
    for ids in &ids {
        let reply = world.cloud.await_reply(ids, REPLY)?;
        check("each reply", reply.result, 0)?;
    }
    let last = ids.last().expect("three were sent");
    let end = world.cloud.await_terminal(&last.bid, UPDATE)?;
    check("the result", (end.status, end.percent), (Status::Ok, 100))?;
    runs(world, VERSION)?;
    let downloads = world
        .files
        .requests()
        .iter()
        .filter(|request| request.path.ends_with("/thrice"))
        .count();
    check("the downloads", downloads, 1)?;
    check("the reboots", world.machine.boot_count() - boots, 1)?;
    check("the results", world.cloud.results().len() - results, 1)?;
    holds(world)?;
    show::held("3 replies, 1 download, 1 reboot, 1 result, under the ids of the last command");
    Ok(())
}

/// A command whose file must not be installed: it fails in verification, and nothing else changes.
fn refused(world: &World, message: &Value) -> Result<(), Failure> {
    let boots = world.machine.boots().len();
    let (_, end) = update(world, message)?;
    check(
        "the result",
        (end.status, end.result),
        (Status::Failed, VALIDATION_FAILED),
    )?;
    check(
        "the vendor's word",
        end.sub_status.as_str(),
        "VERIFY_FAILED",
    )?;
    runs(world, NEW)?;
    check("the boots", world.machine.boots().len(), boots)?;
    let selector = world.machine.selector()?;
    let slot = slot(world);
    check("the slot to boot", &selector.primary, &slot)?;
    let other = selector
        .slots
        .iter()
        .find(|(name, _)| **name != slot)
        .map(|(_, other)| other.state);
    check("the other slot's state", other, Some(SlotState::Bad))?;
    holds(world)?;
    show::held(&format!(
        "the cloud got {} {} {}; {NEW} runs on",
        end.status, end.result, end.sub_status
    ));
    Ok(())
}

/// Sends a command and waits for its end.
fn update(world: &World, message: &Value) -> Result<(Reply, Progress), Failure> {
    let reply = world.cloud.send_with_retries(message)?;
    check("the reply", reply.result, 0)?;
    let end = world.cloud.await_terminal(&reply.ids.bid, UPDATE)?;
    Ok((reply, end))
}

/// This version runs, and the device says so.
fn runs(world: &World, version: &str) -> Result<(), Failure> {
    check(
        "the version that runs",
        world.machine.version().as_deref(),
        Some(version),
    )?;
    world.cloud.await_firmware(version, REPLY)?;
    Ok(())
}

/// What has to hold after every act.
fn holds(world: &World) -> Result<(), Failure> {
    let violations = world.cloud.violations();
    if !violations.is_empty() {
        return Err(format!(
            "the device broke the protocol:\n    {}",
            violations.join("\n    ")
        )
        .into());
    }
    let crashes = world.machine.crashes();
    if let Some(crash) = crashes.first() {
        return Err(format!("the agent ended by itself: {crash}").into());
    }
    Ok(())
}

fn slot(world: &World) -> String {
    world.machine.slot().unwrap_or_else(|| "none".to_owned())
}

pub(crate) fn check<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: T,
    expected: T,
) -> Result<(), Failure> {
    if found == expected {
        Ok(())
    } else {
        Err(format!("{what}: expected {expected:?}, found {found:?}").into())
    }
}
