//! What is remembered between two events, kept small: the journal writes it at every step that changes it.
//!
//! Ids to answer with do not live here but in the job's context, which the host returns with every report.

use serde::{Deserialize, Serialize};

use crate::wire::{Code, Standing};

/// How many ended updates are remembered, so that a report that comes twice gives the same event twice. Only one update runs at a
/// time, so this reaches far further back than any redelivery.
const ENDINGS_MAX: usize = 8;

/// The adapter's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Messages that nobody could be answered for.
    pub dropped: u64,
    /// The update that is under way.
    pub running: Option<Running>,
    /// The last updates that ended, oldest first.
    pub endings: Vec<Ending>,
    /// How far the announcement to the cloud has come.
    pub presence: Presence,
    /// The link is known to be down: what is told again waits for it.
    pub down: bool,
    /// How often results were told again since the last sign that somebody may listen; decides on the next wait.
    pub told_again: u8,
}

impl State {
    /// The result already told for this job and this business.
    pub fn ending(&self, key: &str, bid: &str) -> Option<&Ending> {
        self.endings.iter().find(|e| e.key == key && e.bid == bid)
    }

    /// Remembers a result; the oldest is forgotten.
    pub fn remember(&mut self, ending: Ending) {
        if self.endings.len() >= ENDINGS_MAX {
            self.endings.drain(..=self.endings.len() - ENDINGS_MAX);
        }
        self.endings.push(ending);
    }

    /// The highest percent that was told of this job.
    pub fn percent(&self, key: &str) -> u8 {
        self.running
            .as_ref()
            .filter(|r| r.key == key)
            .map_or(0, |r| r.told.percent)
    }
}

/// The update that is under way, as the cloud was told of it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Key of the job.
    pub key: String,
    /// What the cloud was told.
    pub told: Standing,
    /// Uptime in milliseconds when a report made us tell it; none when that was before the last boot.
    pub at: Option<u64>,
}

/// A final event, with all its values: when it is sent again it must not differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Key of the job.
    pub key: String,
    /// The business it answers.
    pub bid: String,
    /// Its own transaction.
    pub tid: String,
    /// When it was made, in milliseconds since the epoch.
    pub timestamp: u64,
    /// The vendor's number.
    pub code: Code,
    /// How the update ended.
    pub standing: Standing,
    /// How often the cloud was told and did not answer; none once it did, or was told often enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unanswered: Option<u16>,
}

/// How far the announcement to the cloud has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// The link is down, or the presence is another process's.
    #[default]
    Away,
    /// `update_topo` is repeated until the cloud accepts it.
    Announcing {
        /// The business of these announcements; the cloud's reply copies it.
        bid: String,
    },
    /// The cloud knows the gateway.
    Online {
        /// Checksum of the sub-devices that were announced.
        topology: u64,
        /// The properties that were sent last.
        shown: Shown,
        /// The same of the sub-devices, where they are configured.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<ShownOf>,
    },
}

/// The properties of a sub-device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownOf {
    /// Its serial number.
    pub sn: String,
    /// What was sent of it.
    pub shown: Shown,
}

/// The properties of a device that are sent when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The version that runs, where it is known.
    pub version: Option<String>,
    /// An update is under way.
    pub upgrading: bool,
}

/// Correlation data of a job: of the command that was accepted last for it. At most 4 KiB as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The command's transaction.
    pub tid: String,
    /// The command's business: that of every event about the job.
    pub bid: String,
    /// How it was answered, so that the same command delivered twice gets the same answer twice.
    pub answer: Standing,
    /// When it was answered, in milliseconds since the epoch.
    pub timestamp: u64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::wire::ID_MAX;

    #[test]
    fn the_longest_context_fits_into_its_4_kib() {
        let id = "\u{1}".repeat(ID_MAX);
        let context = Context {
            tid: id.clone(),
            bid: id,
            answer: Standing::SENT,
            timestamp: (1 << 53) - 1,
        };
        assert!(serde_json::to_vec(&context).unwrap().len() <= 4 * 1024);
    }

    #[test]
    fn the_state_stays_small_whatever_ends() {
        let mut state = State::default();
        for n in 0..100 {
            state.remember(Ending {
                key: format!("{n:0>200}"),
                bid: "\u{1}".repeat(ID_MAX),
                tid: "t".repeat(36),
                timestamp: 1,
                code: Code::FAILED,
                standing: Standing::REJECTED,
                unanswered: Some(1),
            });
        }
        assert_eq!(state.endings.len(), ENDINGS_MAX);
        assert!(state.endings[ENDINGS_MAX - 1].key.ends_with("99"));
        assert!(serde_json::to_vec(&state).unwrap().len() < 20_000);
    }
}
