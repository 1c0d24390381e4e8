//! What is remembered between two events: how the device stands with the cloud, what is under way, what the cloud is still to be
//! told, and what is not to be tried again. No token and no password: those are the host's.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::wire::Firmware;

/// The most firmware of the last list that is remembered.
const LISTED_MAX: usize = 32;
/// The most firmware that is remembered as not to be tried again.
const SHELF_MAX: usize = 16;
/// The most firmware that the cloud does not let itself be told of.
const UNWANTED_MAX: usize = 16;

/// The longest sentence that is kept, in characters.
const WHY_MAX: usize = 400;

/// The adapter's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// How the device stands with the cloud, in a word.
    pub status: Status,
    /// The same in a sentence; empty where there is nothing to say.
    pub why: String,
    /// Number of the last request.
    pub requests: u64,
    /// Where the tokens come from next.
    pub auth: Auth,
    /// Grows with every new pair of tokens.
    pub tokens: u64,
    /// A sign-in happened less than an hour ago: a timer takes this back.
    pub signed_in_lately: bool,
    /// How often in a row a refresh was put off.
    pub put_off: u8,
    /// The question for newer firmware.
    pub poll: Errand,
    /// Polls that failed in a row.
    pub polls_failed: u8,
    /// The `update-result` that is under way.
    pub report: Errand,
    /// What the cloud is still to be told.
    pub owed: Option<Owed>,
    /// What the cloud listed last, the newest first.
    pub listed: Vec<Listed>,
    /// The firmware that the cloud is known to think is installed.
    pub reported: Option<u64>,
    /// Firmware that the cloud says does not belong to this device: told of no more.
    pub unwanted: Vec<u64>,
    /// Firmware that is not tried again, oldest first.
    pub shelf: Vec<Shelved>,
    /// The failed attempt whose answer waits for a new token.
    pub attempt: Option<Attempted>,
    /// The last failed attempt that a new token was given for.
    pub renewed_for: Option<Attempted>,
    /// Codes of alerts that were raised and whose cause has not gone.
    pub raised: BTreeSet<String>,
}

/// How the device stands with the cloud.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Not asked yet.
    #[default]
    Starting,
    /// There is nothing newer.
    UpToDate,
    /// An update is under way.
    Updating,
    /// Something newer is there, and policy says not now.
    Deferred,
    /// Something newer is there, and another job has the target.
    Busy,
    /// Something newer is there, and the host refuses it.
    Refused,
    /// Something newer is there, and it did not prove itself before.
    KnownBad,
    /// The running version is not known, or cannot be compared with the cloud's.
    VersionUnknown,
    /// No usable answer; it is tried again.
    Unreachable,
    /// The cloud does not know this device, this account or this address: a person has to look.
    Configuration,
    /// Logged out, and the last sign-in is less than an hour ago.
    LoggedOut,
    /// The cloud refuses the stored account, or there is none: a person has to look.
    SignInRefused,
    /// New tokens are refused: a person has to look.
    Unauthorized,
}

/// Where the tokens come from next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auth {
    /// Those in the vault are used until the cloud refuses them.
    #[default]
    Ready,
    /// A refresh with this number is under way.
    Refreshing(u64),
    /// The cloud asked to come back later with the refresh.
    PutOff,
    /// A sign-in with this number is under way.
    SigningIn(u64),
    /// A sign-in is needed and has to wait for its hour.
    Locked,
    /// The stored account was refused, or there is none. Until the next start.
    Stopped,
}

/// Whether a request is under way. One of each kind at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Errand {
    /// Nothing is.
    #[default]
    Idle,
    /// Sent.
    Sent {
        /// Its number.
        number: u64,
        /// The tokens it went with.
        tokens: u64,
        /// It is a repetition with new tokens.
        repeated: bool,
    },
    /// Waits for tokens.
    Waiting {
        /// The cloud refused it with the former ones.
        repeated: bool,
    },
}

/// Firmware that runs and that the cloud does not know of yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// Its id.
    pub firmware: u64,
    /// Told only while this version runs.
    pub version: String,
    /// How often it was told in vain.
    pub failures: u8,
    /// A timer says when it is told again.
    pub put_off: bool,
}

/// One firmware of the last list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its id.
    pub firmware: u64,
    /// Its version.
    pub version: String,
}

/// Firmware that is not tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shelved {
    /// Its id.
    pub firmware: u64,
    /// Tells it from another file under the same id.
    pub stamp: u64,
    /// The host refuses it before the download too. When it no longer does, the operator has cleared it.
    pub host_knows: bool,
    /// Polls until it may be tried again; none: never by itself.
    pub polls: Option<u16>,
}

/// A failed attempt to fetch a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    /// Key of the job.
    pub job: String,
    /// Index of the install.
    pub install: u32,
    /// Number of the attempt. The host counts anew whenever bytes came.
    pub attempt: u32,
    /// Bytes of the file that were here.
    #[serde(default)]
    pub received: u64,
}

/// Correlation data of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// The firmware it installs.
    pub firmware: u64,
    /// Tells it from another file under the same id.
    pub stamp: u64,
}

impl State {
    /// A fresh number for a request.
    pub fn number(&mut self) -> u64 {
        self.requests = self.requests.wrapping_add(1);
        self.requests
    }

    /// Sets the status and its sentence.
    pub fn stands(&mut self, status: Status, why: impl Into<String>) {
        self.status = status;
        self.why = why.into();
        if let Some((end, _)) = self.why.char_indices().nth(WHY_MAX) {
            self.why.truncate(end);
        }
    }

    /// Remembers what the cloud listed: the first of them.
    pub fn remember_list<'a>(&mut self, list: impl Iterator<Item = &'a Firmware>) {
        self.listed = list
            .take(LISTED_MAX)
            .map(|f| Listed {
                firmware: f.id,
                version: f.version.clone(),
            })
            .collect();
    }

    /// The note that this firmware is not to be tried again.
    pub fn shelved(&mut self, firmware: u64, stamp: u64) -> Option<&mut Shelved> {
        self.shelf
            .iter_mut()
            .find(|s| s.firmware == firmware && s.stamp == stamp)
    }

    /// Notes that this firmware is not to be tried again; true when that is news. The oldest note is forgotten.
    pub fn shelve(&mut self, note: Shelved) -> bool {
        if let Some(known) = self.shelved(note.firmware, note.stamp) {
            known.host_knows |= note.host_knows;
            // What never comes back by itself stays so.
            known.polls = known.polls.and(note.polls);
            return false;
        }
        // Another file under the same id takes the place of the former.
        self.shelf.retain(|s| s.firmware != note.firmware);
        push(&mut self.shelf, note, SHELF_MAX);
        true
    }

    /// Notes that the cloud is not to be told of this firmware.
    pub fn give_up(&mut self, firmware: u64) {
        self.unwanted.retain(|id| *id != firmware);
        push(&mut self.unwanted, firmware, UNWANTED_MAX);
    }
}

fn push<T>(list: &mut Vec<T>, item: T, most: usize) {
    list.push(item);
    list.drain(..list.len().saturating_sub(most));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn note(firmware: u64, stamp: u64) -> Shelved {
        Shelved {
            firmware,
            stamp,
            host_knows: false,
            polls: None,
        }
    }

    #[test]
    fn the_state_stays_small_whatever_happens() {
        let mut state = State::default();
        for n in 0..1_000 {
            state.shelve(note(n, u64::MAX));
            state.give_up(n);
        }
        let list: Vec<_> = (0..1_000)
            .map(|n| Firmware {
                id: n,
                version: "9".repeat(64),
                hardware: None,
                active: true,
                stamp: 0,
            })
            .collect();
        state.remember_list(list.iter());
        assert_eq!(
            (state.shelf.len(), state.unwanted.len(), state.listed.len()),
            (SHELF_MAX, UNWANTED_MAX, LISTED_MAX)
        );
        assert_eq!(state.shelf[SHELF_MAX - 1].firmware, 999);
        assert!(serde_json::to_vec(&state).unwrap().len() < 8_000);
    }

    #[test]
    fn a_note_is_news_once_and_what_never_comes_back_by_itself_stays_so() {
        let mut state = State::default();
        assert!(state.shelve(note(7, 1)));
        let weaker = Shelved {
            polls: Some(3),
            host_knows: true,
            ..note(7, 1)
        };
        assert!(!state.shelve(weaker));
        assert_eq!(
            state.shelf,
            [Shelved {
                host_knows: true,
                ..note(7, 1)
            }]
        );
        assert!(state.shelve(note(7, 2)), "another file under the same id");
        assert_eq!(state.shelf.len(), 1);
    }
}
