//! What holds in every story, whatever it tells.

use std::collections::BTreeMap;

use otahost_disk::Place;
use otahost_disk::sim::Image;
use serde_json::Value;

use super::World;
use super::facts::Facts;
use super::machine::{NAMES, SELECTOR, SLOTS, inspect};

/// A disk at any moment: whatever may boot is a whole image that somebody trusted has signed.
pub(super) fn at_rest(world: &World, image: &Image) -> Result<(), String> {
    let bytes = image.read(&Place::operator(SELECTOR));
    let bytes = bytes.ok_or("the boot selector is gone")?;
    let selector: Value =
        serde_json::from_slice(&bytes).map_err(|e| format!("the boot selector is torn: {e}"))?;
    for (slot, name) in SLOTS.iter().zip(NAMES) {
        let entry = &selector["slots"][name];
        let may_boot = match entry["state"].as_str() {
            Some("good") => true,
            Some("trial") => entry["tries"].as_u64().unwrap_or_default() > 0,
            _ => false,
        };
        if !may_boot {
            continue;
        }
        let content = image.read(&Place::operator(slot)).unwrap_or_default();
        match inspect(&content) {
            None => {
                return Err(format!("slot {name} may boot and is not whole: {selector}"));
            }
            Some((version, _)) if !world.trusted.contains(&version) => {
                return Err(format!(
                    "slot {name} may boot, and nobody has signed version {version} for it"
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The world at the end of a story: nothing was done twice, and nothing was told in two ways.
pub(super) fn at_the_end(world: &World, facts: &Facts) -> Result<(), String> {
    if let Some(fault) = world.faults.first() {
        return Err(fault.clone());
    }
    let mut switches: BTreeMap<&str, usize> = BTreeMap::new();
    for version in world.switches.iter().chain(&world.tried) {
        *switches.entry(version).or_default() += 1;
    }
    for (version, times) in switches {
        let asked = facts.asked_for("dock", version);
        if asked > 0 && times > asked {
            return Err(format!(
                "version {version} was asked for {asked} times and activated {times} times"
            ));
        }
    }
    let (asked, given) = (facts.asked("drone"), world.drone.activations as usize);
    if given > asked {
        return Err(format!(
            "the drone was given {given} versions, and {asked} were asked for"
        ));
    }
    for (at, ending) in world.endings.iter().enumerate() {
        if let Some(other) = world.endings[..at].iter().find(|e| e.bid == ending.bid) {
            return Err(format!("two ends were told: {other:?} and {ending:?}"));
        }
    }
    Ok(())
}
