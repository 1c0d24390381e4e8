//! What a story came to: said by the outer world, and read from the agent's disk.

use std::sync::Arc;

use otahost_core::job::{HistoryLine, Job};
use otahost_core::policy::memory::TargetMemory;
use otahost_disk::Place;
use otahost_disk::sim::{Image, Loss, SimDisk};
use otahost_journal::{Journal, Key, from_json};

use super::World;

/// These results were told, each once and in this order; this version runs in this slot; and the device broke no rule.
pub fn ended(
    world: &World,
    outcomes: &[(&str, i64)],
    slot: usize,
    version: &str,
) -> Result<(), String> {
    let endings = &world.endings;
    let told = endings.iter().map(|e| (e.status.as_str(), e.result));
    if !told.eq(outcomes.iter().copied()) {
        return Err(format!("told {endings:?} and not {outcomes:?}"));
    }
    if (world.slot, world.version.as_str()) != (slot, version) {
        return Err(format!(
            "version {} runs in slot {}",
            world.version, world.slot
        ));
    }
    match world.faults.first() {
        Some(fault) => Err(fault.clone()),
        None => Ok(()),
    }
}

/// `Err` with a text that is only made when it is needed.
pub fn check(holds: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    holds.then_some(()).ok_or_else(text)
}

/// The first line in the history of the newest job that holds this text.
pub fn history(disk: &SimDisk, text: &str) -> Result<HistoryLine, String> {
    let jobs = jobs(disk);
    let lines = jobs
        .last()
        .map(|job| job.history.clone())
        .unwrap_or_default();
    let found = lines.iter().find(|line| line.text.contains(text)).cloned();
    found.ok_or_else(|| format!("no line says {text:?} in {lines:#?}"))
}

/// The rows of the journal on a disk, which stays as it is; none where there is no journal yet.
pub fn rows(image: Image) -> Vec<(Key, Vec<u8>)> {
    let place = Place::data("journal.redb");
    if !image.files().any(|file| *file == place) {
        return Vec::new();
    }
    let journal = Journal::open(Arc::new(SimDisk::from_image(image)), place).unwrap();
    journal.load().unwrap()
}

/// The jobs on a disk, oldest first.
pub fn jobs(disk: &SimDisk) -> Vec<Job> {
    let rows = rows(disk.image(Loss::AllKept));
    let jobs = rows.iter().filter(|(key, _)| matches!(key, Key::Job(_)));
    jobs.map(|(key, value)| from_json(key, value).unwrap())
        .collect()
}

/// What is remembered of a target on a disk.
pub fn memory(image: Image, target: &str) -> TargetMemory {
    let rows = rows(image);
    let row = rows
        .iter()
        .find(|(key, _)| matches!(key, Key::Target(name) if name == target));
    row.map(|(key, value)| from_json(key, value).unwrap())
        .unwrap_or_default()
}
