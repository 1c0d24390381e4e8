//! What a disk says of the past, and may never take back: read from the journal on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use otahost_core::job::Job;
use otahost_core::model::Phase;
use otahost_core::policy::memory::TargetMemory;
use otahost_disk::Place;
use otahost_disk::sim::{Image, SimDisk};
use otahost_journal::{Journal, Key, from_json};
use serde_json::Value;

use super::World;

/// The link whose tokens the outer world counts.
const API: &str = "api";
/// Virtual milliseconds for which an alert is kept at least, delivered or not.
const ALERT_KEPT: u64 = 3_600_000;

/// What is known for good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Each job's phase, and the version for each of its targets.
    jobs: BTreeMap<u64, (Phase, Vec<(String, String)>)>,
    /// Rollback indexes by target.
    indexes: BTreeMap<String, u64>,
    /// Rollbacks by target and image.
    rollbacks: BTreeMap<(String, String), u32>,
    /// Each adapter's version, and how many were left.
    adapters: BTreeMap<String, (String, usize)>,
    /// Numbers of tokens by link and name.
    tokens: BTreeMap<(String, String), u64>,
    /// Who raised an alert, and its word.
    alerts: BTreeSet<(String, String)>,
}

impl Facts {
    /// What is on a disk, which stays as it is.
    pub(super) fn of(image: &Image) -> Result<Facts, String> {
        let place = Place::data("journal.redb");
        let mut facts = Facts::default();
        if !image.files().any(|file| *file == place) {
            return Ok(facts);
        }
        let disk = SimDisk::from_image(image.clone());
        let rows = Journal::open(Arc::new(disk), place)
            .and_then(|journal| journal.load())
            .map_err(|error| format!("the journal is not whole: {error}"))?;
        for (key, value) in rows {
            facts.note(&key, &value);
        }
        Ok(facts)
    }

    /// What cannot be read is another agent's.
    fn note(&mut self, key: &Key, value: &[u8]) {
        let json = || serde_json::from_slice::<Value>(value).unwrap_or_default();
        match key {
            Key::Job(id) => {
                if let Ok(job) = from_json::<Job>(key, value) {
                    let installs = job.plan.installs.into_iter();
                    let installs = installs.map(|i| (i.target, i.version)).collect();
                    self.jobs.insert(*id, (job.phase, installs));
                }
            }
            Key::Target(target) => {
                if let Ok(memory) = from_json::<TargetMemory>(key, value) {
                    self.indexes.insert(target.clone(), memory.rollback_index);
                    for bad in memory.bad {
                        let image = (target.clone(), bad.sha256);
                        self.rollbacks.insert(image, bad.rollbacks);
                    }
                }
            }
            Key::Adapter(name) => {
                let row = json();
                let version = row["version"].as_str().unwrap_or_default().to_owned();
                let left = row["versions"]["rejected"].as_array().map_or(0, Vec::len);
                self.adapters.insert(name.clone(), (version, left));
            }
            Key::Secret { link, name } => {
                let row = json();
                let value = row["value"].as_str().unwrap_or_default();
                let number = value.rsplit('-').next().and_then(|n| n.parse().ok());
                let number = number.unwrap_or_default();
                self.tokens.insert((link.clone(), name.clone()), number);
            }
            Key::Alert { .. } => {
                let row = json();
                let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let alert = (word(&row["source"]), word(&row["alert"]["code"]));
                self.alerts.insert(alert);
            }
            _ => {}
        }
    }

    /// Whatever somebody outside has seen of the device is known here.
    pub(super) fn stand_behind(&self, world: &World) -> Result<(), String> {
        let pair = ["access_token", "refresh_token"].map(|name| {
            let token = self.tokens.get(&(API.to_owned(), name.to_owned()));
            token.copied().unwrap_or_default()
        });
        let [access, refresh] = pair;
        if access.min(refresh) < world.api.used {
            return Err(format!(
                "pair {} of the tokens was used before it was durable: the journal holds {access} and {refresh}",
                world.api.used
            ));
        }
        for rung in &world.rung {
            let alert = (rung.source.clone(), rung.code.clone());
            let is_recent = world.past < rung.at + ALERT_KEPT;
            if is_recent && !self.alerts.contains(&alert) {
                return Err(format!(
                    "{} was told of the alert {:?} of {} before it was durable",
                    rung.sink, rung.code, rung.source
                ));
            }
        }
        Ok(())
    }

    /// What is known later contains all of this, and nothing has gone back.
    pub(super) fn stand_in(&self, later: &Facts) -> Result<(), String> {
        for (id, (phase, _)) in &self.jobs {
            match later.jobs.get(id) {
                Some((now, _)) if phase.is_final() && now != phase => {
                    return Err(format!("job {id} was {phase} and is {now} now"));
                }
                None if !phase.is_final() => {
                    return Err(format!("job {id} was {phase} and is forgotten"));
                }
                _ => {}
            }
        }
        for (target, index) in &self.indexes {
            let now = later.indexes.get(target).copied().unwrap_or_default();
            if now < *index {
                return Err(format!(
                    "the rollback index of {target} was {index} and is {now} now"
                ));
            }
        }
        for (image, times) in &self.rollbacks {
            let now = later.rollbacks.get(image).copied().unwrap_or_default();
            if now < *times {
                return Err(format!(
                    "{image:?} was rolled back {times} times, not {now}"
                ));
            }
        }
        for (name, (version, left)) in &self.adapters {
            let Some((now, left_now)) = later.adapters.get(name) else {
                return Err(format!("adapter {name} is forgotten"));
            };
            if now < version && left_now <= left {
                return Err(format!(
                    "adapter {name} had version {version}, was not left, and has {now} now"
                ));
            }
        }
        for ((link, name), number) in &self.tokens {
            let now = later.tokens.get(&(link.clone(), name.clone()));
            if now.is_none_or(|now| now < number) {
                return Err(format!(
                    "{name} of {link} was number {number} and is {now:?} now"
                ));
            }
        }
        Ok(())
    }

    /// Jobs that had this version for this target.
    pub(super) fn asked_for(&self, target: &str, version: &str) -> usize {
        let installs = self.jobs.values().flat_map(|(_, installs)| installs);
        installs
            .filter(|(t, v)| t == target && v == version)
            .count()
    }

    /// Jobs that named this target.
    pub(super) fn asked(&self, target: &str) -> usize {
        let installs = self.jobs.values().flat_map(|(_, installs)| installs);
        installs.filter(|(t, _)| t == target).count()
    }
}
