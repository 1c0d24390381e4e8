//! The simulated machine: two slots, a boot selector file, a boot loader that tries and falls back.

use otahost_disk::Place;
use otahost_disk::sim::SimDisk;
use serde_json::{Value, json};

use super::{World, newer};

/// The slots.
pub const SLOTS: [&str; 2] = ["/device/slot-a", "/device/slot-b"];
/// The boot selector's file.
pub(super) const SELECTOR: &str = "/device/boot.json";
/// Their names in the boot selector.
pub(super) const NAMES: [&str; 2] = ["a", "b"];
/// Virtual milliseconds after which the dead-man reboots a system in which no agent confirms.
const DEAD_MAN: u64 = 900_000;

/// A byte that a medium loses while the device is off: once, and in a slot only while that must not boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Damage {
    /// The slot, or another file that something is staged in.
    pub place: &'static str,
    /// Which byte of it.
    pub offset: usize,
    /// How many bytes the file server had sent when it happened.
    pub at_served: Option<u64>,
}

/// Whether an image comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// It does.
    Up,
    /// It does not.
    Dead,
    /// The system does, but the agent in it never starts; the dead-man reboots.
    NoAgent,
}

impl Boot {
    fn word(self) -> &'static str {
        match self {
            Boot::Up => "up",
            Boot::Dead => "dead",
            Boot::NoAgent => "no-agent",
        }
    }

    fn of_word(word: &str) -> Option<Boot> {
        [Boot::Up, Boot::Dead, Boot::NoAgent]
            .into_iter()
            .find(|boot| boot.word() == word)
    }
}

/// An image whose first line names version and behaviour and whose last 8 bytes prove that it is whole.
pub fn firmware(version: &str, boot: Boot, len: usize) -> Vec<u8> {
    let mut bytes = format!("firmware {version} {}\n", boot.word()).into_bytes();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ len as u64;
    while bytes.len() < len - 8 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.push((state >> 56) as u8);
    }
    let sum = sum(&bytes);
    bytes.extend(sum.to_be_bytes());
    bytes
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Version and behaviour of a whole image; `None` for anything else.
pub(super) fn inspect(bytes: &[u8]) -> Option<(String, Boot)> {
    let (body, tail) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
    if tail != sum(body).to_be_bytes() {
        return None;
    }
    let line = body.split(|b| *b == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (magic, version, boot) = (words.next()?, words.next()?, words.next()?);
    Some((version.to_owned(), Boot::of_word(boot)?)).filter(|_| magic == "firmware")
}

/// A selector as a factory leaves it: slot a runs and is good.
pub(super) fn factory_selector() -> Vec<u8> {
    json!({ "booted": "a", "primary": "a", "slots": { "a": { "state": "good" }, "b": { "state": "bad" } } }).to_string().into_bytes()
}

/// Starts the machine. `Err` when nothing boots, or when a bad slot would.
pub(super) fn boot(disk: &SimDisk, world: &mut World) -> Result<(), String> {
    world.boots += 1;
    let place = Place::operator(SELECTOR);
    loop {
        let bytes = disk
            .read_outside(&place)
            .ok_or("the boot selector is gone")?;
        let mut selector: Value = serde_json::from_slice(&bytes)
            .map_err(|e| format!("the boot selector is torn: {e}"))?;
        let primary = NAMES
            .iter()
            .position(|n| selector["primary"] == *n)
            .ok_or("no primary slot")?;
        let states = NAMES.map(|name| {
            selector["slots"][name]["state"]
                .as_str()
                .unwrap_or("")
                .to_owned()
        });
        let tries = selector["slots"][NAMES[primary]]["tries"]
            .as_u64()
            .unwrap_or(0);
        let slot = match states[primary].as_str() {
            "good" => primary,
            "trial" if tries > 0 => {
                selector["slots"][NAMES[primary]]["tries"] = json!(tries - 1);
                primary
            }
            _ => 1 - primary,
        };
        let good = states[slot] == "good";
        if slot != primary && !good {
            return Err(format!("bricked: neither slot may boot: {selector}"));
        }
        selector["booted"] = json!(NAMES[slot]);
        disk.write_outside(&place, selector.to_string().as_bytes());
        let image = disk
            .read_outside(&Place::operator(SLOTS[slot]))
            .unwrap_or_default();
        match inspect(&image) {
            Some((version, Boot::Up)) => {
                world.slot = slot;
                if !world.version.is_empty() && world.version != version {
                    world.switches.push(version.clone());
                }
                world.version = version;
                spoil(disk, world, &selector);
                if world.newer_agents.contains(&world.version) {
                    newer::leaves_its_rows(disk);
                }
                return Ok(());
            }
            Some((version, Boot::Dead)) if !good => {
                world.fails_to_boot(version, tries);
            }
            Some((version, Boot::NoAgent)) if !good => {
                world.fails_to_boot(version, tries);
                world.boots += 1;
                world.past += DEAD_MAN;
            }
            Some((version, boot)) => {
                return Err(format!(
                    "bricked: version {version} is marked good and is {}",
                    boot.word()
                ));
            }
            None => {
                return Err(format!(
                    "slot {} boots, and its image is not whole: {selector}",
                    NAMES[slot]
                ));
            }
        }
    }
}

/// The medium loses its byte, if there is one to lose that was written since the factory.
fn spoil(disk: &SimDisk, world: &mut World, selector: &Value) {
    let Some(damage) = &mut world.damage else {
        return;
    };
    let slot = SLOTS.iter().position(|slot| *slot == damage.place);
    let idle = slot.is_none_or(|slot| selector["slots"][NAMES[slot]]["state"] == "bad");
    let place = Place::operator(damage.place);
    let mut bytes = disk.read_outside(&place).unwrap_or_default();
    if damage.at_served.is_none()
        && idle
        && let Some(byte) = bytes.get_mut(damage.offset)
    {
        *byte ^= 0x40;
        damage.at_served = Some(world.served);
        disk.write_outside(&place, &bytes);
    }
}
