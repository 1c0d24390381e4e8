//! Everything outside the device's disk, as one value that can be noted at any moment and gone on from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use otahost_flash::slots::TRIES;

use super::alarm::{Rung, Sink};
use super::api::Api;
use super::drone::Drone;
use super::emu::Emu;
use super::machine::Damage;
use super::web::Web;

/// 2026-06-01, a Monday, midnight: what the wall clock shows when a story begins.
pub const EPOCH: u64 = 1_780_272_000_000;

/// Virtual milliseconds from a boot until the operator asks again.
const ASKS_AGAIN: u64 = 1_000;

/// Packet id of the answer to an announcement.
const GREETING: u16 = 30_000;

/// Bytes of a publication that are kept.
const KEPT: usize = 16_000;

/// A message the cloud has sent and the device has not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// MQTT packet id: the same when it is delivered again.
    pub packet: u16,
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
}

/// When somebody outside does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum When {
    /// At this virtual time.
    At(u64),
    /// Once the cloud has got so many results.
    Results(usize),
}

/// The wall clock of the device. Virtual time is what it would show if it were right.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct WallClock {
    /// There is no battery: every boot begins in 1970, and after so much uptime the network sets the clock.
    pub set_after: Option<u64>,
    /// From these virtual times on it is wrong by so many milliseconds; the last one counts.
    pub steps: Vec<(u64, i64)>,
}

impl WallClock {
    /// What it shows, and whether somebody has set it.
    pub fn shows(&self, virtual_now: u64, uptime: u64) -> (u64, bool) {
        if self.set_after.is_some_and(|after| uptime < after) {
            return (uptime, false);
        }
        let wrong = self
            .steps
            .iter()
            .rev()
            .find(|(from, _)| *from <= virtual_now)
            .map_or(0, |(_, by)| *by);
        ((EPOCH + virtual_now).saturating_add_signed(wrong), true)
    }
}

/// Cloud, broker, file server, operator and machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct World {
    /// Virtual milliseconds that have passed in all boots before this one.
    pub past: u64,
    /// Boots so far.
    pub boots: u32,
    /// The slot that runs.
    pub slot: usize,
    /// What the running image says its version is.
    pub version: String,
    /// Versions that did not come up, once for each time that they were given all their tries.
    pub tried: Vec<String>,
    /// Versions that came up where another one had run before, oldest first.
    pub switches: Vec<String>,
    /// Versions that somebody trusted has signed for the dock.
    pub trusted: BTreeSet<String>,
    /// Boots of a trial slot that did not come up.
    pub failed_boots: u32,
    /// Reboots the agent asked for.
    pub reboots: u32,
    /// Steps so far: the seed of randomness.
    pub seeds: u64,
    /// MQTT connections so far.
    pub connections: u64,
    /// The broker's session: messages that wait for their acknowledgement.
    pub inbox: Vec<Delivery>,
    /// What will be sent later.
    pub later: Vec<(When, Delivery)>,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// The cloud accepts the topology that a gateway announces, so that it goes on to say how it is.
    pub greets: bool,
    /// The broker starts anew at this virtual time, and knows nothing of its session.
    pub forgets: Option<u64>,
    /// The broker cannot be reached before this virtual time.
    pub cloud_from: u64,
    /// What the device published with QoS 1, oldest first: topic and payload, of a large one its beginning.
    pub received: Vec<(String, Vec<u8>)>,
    /// The final events among that, each different one once: what is told again under the same ids is no other.
    pub endings: Vec<Ending>,
    /// Files by URL, by link and path (`folder:/kit-2.0.0.img`), or by the path on the device where the operator put them.
    pub files: BTreeMap<String, Arc<Vec<u8>>>,
    /// Files on the medium that is plugged in, by name; none: there is no medium.
    pub medium: BTreeMap<String, Arc<Vec<u8>>>,
    /// Offsets at which the file server cuts the connection, each once.
    pub cuts: Vec<u64>,
    /// How the file server answers the next requests, oldest first; 200 serves the file, and so does it afterwards.
    pub statuses: Vec<u16>,
    /// When a file was asked for, in virtual time.
    pub requests: Vec<u64>,
    /// Bytes the file server sent.
    pub served: u64,
    /// The dock is not ready for an update before this virtual time.
    pub ready_after: u64,
    /// What the readiness check answers before that counts, one for each time it is asked.
    pub ready_answers: Vec<bool>,
    /// The lock file is there from the first of these virtual times to the second.
    pub locked: (u64, u64),
    /// The dock is well only after so much uptime.
    pub well_after: u64,
    /// Versions in which the dock is never well.
    pub ill: Vec<String>,
    /// Versions whose agent is newer and leaves rows of its own.
    pub newer_agents: Vec<String>,
    /// The boot loader does not hear the next time that a slot is marked bad.
    pub deaf_to_bad: bool,
    /// What the medium does to what is staged while the device is off.
    pub damage: Option<Damage>,
    /// What the wall clock shows.
    pub clock: WallClock,
    /// When power goes: in which boot, after how much uptime. What was not synced is lost.
    pub power_cuts: Vec<(u32, u64)>,
    /// What the operator does at the device: when, and the path of the file that is installed on the dock, or another word.
    pub operator: Vec<(u64, String)>,
    /// What he has asked for and was not answered. He asks again after the next boot.
    pub operator_asks: Vec<String>,
    /// What the operator was answered.
    pub operator_heard: Vec<String>,
    /// The drone.
    pub drone: Drone,
    /// The device that is handed a directory.
    pub emu: Emu,
    /// Who calls the device over HTTP.
    pub web: Web,
    /// The API that the device calls.
    pub api: Api,
    /// When a directory was listed, in virtual time.
    pub listings: Vec<u64>,
    /// Who is told of alerts.
    pub sinks: Vec<Sink>,
    /// What they were told, taken or not, oldest first.
    pub rung: Vec<Rung>,
    /// Rules of the outside that the device broke.
    pub faults: Vec<String>,
}

/// How an update ended, as the cloud was told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ending {
    /// The business.
    pub bid: String,
    /// The transaction: another one makes it another ending.
    pub tid: String,
    /// The vendor's word.
    pub status: String,
    /// The vendor's number.
    pub result: i64,
    /// What the vendor's page of today says of the step.
    pub sub_status: String,
    /// When it was made, by the device's wall clock.
    pub timestamp: u64,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The business.
    pub bid: String,
    /// The transaction.
    pub tid: String,
    /// The vendor's number.
    pub result: i64,
    /// The vendor's word.
    pub status: String,
}

impl Ending {
    fn of(message: &serde_json::Value) -> Self {
        let output = &message["data"]["output"];
        Ending {
            bid: word(&message["bid"]),
            tid: word(&message["tid"]),
            status: word(&output["status"]),
            result: number(message),
            sub_status: word(&output["sub_status"]),
            timestamp: message["timestamp"].as_u64().unwrap_or_default(),
        }
    }
}

const FINAL: [&str; 5] = ["ok", "failed", "rejected", "canceled", "timeout"];

impl World {
    /// The device published something.
    pub(super) fn receive(&mut self, topic: String, mut payload: Vec<u8>) {
        if self.greets
            && let Some(accepted) = accepted(&topic, &payload)
        {
            self.later.push((When::At(0), accepted));
        }
        // The world is noted at every operation of the disk.
        payload.truncate(KEPT);
        if topic.ends_with("/events")
            && let Ok(value) = serde_json::from_slice(&payload)
        {
            let ending = Ending::of(&value);
            if FINAL.contains(&ending.status.as_str()) && !self.endings.contains(&ending) {
                self.endings.push(ending);
            }
        }
        self.received.push((topic, payload));
    }

    /// The answers to commands, each different one once.
    pub fn answers(&self) -> Vec<Answer> {
        let mut answers: Vec<Answer> = Vec::new();
        let replies = self
            .received
            .iter()
            .filter(|(topic, _)| topic.ends_with("/services_reply"))
            .filter_map(|(_, payload)| serde_json::from_slice(payload).ok());
        for value in replies {
            let value: serde_json::Value = value;
            let answer = Answer {
                bid: word(&value["bid"]),
                tid: word(&value["tid"]),
                result: number(&value),
                status: word(&value["data"]["output"]["status"]),
            };
            if !answers.contains(&answer) {
                answers.push(answer);
            }
        }
        answers
    }

    /// Nobody outside has anything left to do.
    pub fn is_quiet(&self) -> bool {
        self.inbox.is_empty()
            && self.later.is_empty()
            && self.operator.is_empty()
            && self.operator_asks.is_empty()
            && self.web.is_quiet()
    }

    /// An image on trial did not come up, with so many tries before it was tried.
    pub(super) fn fails_to_boot(&mut self, version: String, tries: u64) {
        self.failed_boots += 1;
        if tries == u64::from(TRIES) {
            self.tried.push(version);
        }
    }

    /// What nobody has answered is asked again.
    pub(super) fn asks_again(&mut self) {
        for asks in std::mem::take(&mut self.operator_asks) {
            self.operator.insert(0, (self.past + ASKS_AGAIN, asks));
        }
    }

    /// Nothing differs but the time.
    pub(super) fn is_like(&self, other: &World) -> bool {
        let timeless = World {
            past: other.past,
            ..self.clone()
        };
        timeless == *other
    }

    /// Bytes of all files.
    pub fn offered(&self) -> u64 {
        self.files.values().map(|file| file.len() as u64).sum()
    }

    /// What is due by now goes into the broker's session; gives what is new there.
    pub(super) fn take_due(&mut self, virtual_now: u64) -> Vec<Delivery> {
        if self.later.is_empty() {
            return Vec::new();
        }
        let results = self.endings.len();
        let is_due = |when: &When| match when {
            When::At(at) => *at <= virtual_now,
            When::Results(wanted) => *wanted <= results,
        };
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.later)
            .into_iter()
            .partition(|(when, _)| is_due(when));
        self.later = later;
        let due: Vec<Delivery> = due.into_iter().map(|(_, delivery)| delivery).collect();
        self.inbox.extend(due.iter().cloned());
        due
    }

    /// The next virtual time at which something is due.
    pub(super) fn next_due(&self) -> Option<u64> {
        let at = |when: &When| match when {
            When::At(at) => Some(*at),
            When::Results(_) => None,
        };
        let later = self.later.iter().filter_map(|(when, _)| at(when));
        later.chain(self.forgets).min()
    }

    /// Whether the lock file is there.
    pub(super) fn is_locked(&self, virtual_now: u64) -> bool {
        (self.locked.0..self.locked.1).contains(&virtual_now)
    }

    /// Whether the dock can be done without, asked now.
    pub(super) fn is_ready(&mut self, virtual_now: u64) -> bool {
        if self.ready_answers.is_empty() {
            return self.ready_after <= virtual_now;
        }
        self.ready_answers.remove(0)
    }
}

/// The cloud's answer to an announcement.
fn accepted(topic: &str, payload: &[u8]) -> Option<Delivery> {
    let topic = topic
        .strip_prefix("sys/")?
        .strip_suffix("/status")
        .map(|device| format!("sys/{device}/status_reply"))?;
    let mut message: serde_json::Value = serde_json::from_slice(payload).ok()?;
    message["data"] = serde_json::json!({ "result": 0 });
    Some(Delivery {
        packet: GREETING,
        topic,
        payload: message.to_string().into_bytes(),
    })
}

fn word(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(message: &serde_json::Value) -> i64 {
    message["data"]["result"].as_i64().unwrap_or(-1)
}
