//! What is remembered between two events, kept small: the journal writes it at every step that changes it, and it must never pass
//! the contract's 60,000 bytes, whatever the platform sends.
//!
//! | part | most | bytes |
//! |---|---|---|
//! | commands, active and ended | 1,000 + 512 | 17 each |
//! | the last update of each EMU | 1,000 | 25 each |
//! | versions of the last updates | 16 | 490 each |
//!
//! Ids to answer with do not live here but in the job's context, which the host returns with every report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The most commands whose jobs have not ended: the host's own limit on an adapter's jobs.
const ACTIVE_MAX: usize = 1_000;
/// The most EMUs whose last update is remembered.
const EMUS_MAX: usize = 1_000;
/// How many ended updates keep their versions.
const VERSIONS_MAX: usize = 16;

/// The adapter's state.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Messages that were dropped.
    pub dropped: u64,
    /// Messages that were read although they have trailing commas.
    pub lenient: u64,
    /// The commands seen.
    pub commands: Commands,
    /// How the last update of each EMU ended, by its number.
    pub emus: BTreeMap<i64, Ended>,
    /// What the last results of `ota/upgrade` said of versions, oldest first.
    pub versions: Vec<Versions>,
}

/// How far the answer to a command has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Its job runs; nothing was said yet.
    Accepted,
    /// `ota/upgrade`: status 2 was said.
    Prepared,
    /// `ota/emu_upgrade`: 1 was said, the job still runs.
    Pushed,
    /// The last thing was said: this `status` or `download_status`. A `status` of 4 and more was preceded by a 2.
    Done(u8),
}

impl Told {
    /// Nothing follows.
    pub fn is_done(self) -> bool {
        matches!(self, Told::Done(_))
    }

    fn letter(self) -> char {
        match self {
            Told::Accepted => 'a',
            Told::Prepared => 'p',
            Told::Pushed => 'q',
            Told::Done(code) => char::from(b'0' + code.min(9)),
        }
    }

    fn of(letter: u8) -> Option<Told> {
        Some(match letter {
            b'a' => Told::Accepted,
            b'p' => Told::Prepared,
            b'q' => Told::Pushed,
            b'0'..=b'9' => Told::Done(letter - b'0'),
            _ => return None,
        })
    }
}

/// The commands seen, oldest first. As JSON one text: 16 hexadecimal digits and a letter for each.
#[derive(Debug, Default, PartialEq)]
pub struct Commands(Vec<(u64, Told)>);

impl Commands {
    /// How far the answer to this command has come; none for one that was never seen, or is forgotten.
    pub fn told(&self, id: u64) -> Option<Told> {
        let mut newest_first = self.0.iter().rev();
        newest_first
            .find(|(known, _)| *known == id)
            .map(|(_, told)| *told)
    }

    /// Remembers how far the answer has come; of the ended ones the oldest beyond `ended_max` are forgotten. A command whose job
    /// runs is not, or its result could be told twice.
    pub fn put(&mut self, id: u64, told: Told, ended_max: u16) {
        match self.0.iter_mut().rev().find(|(known, _)| *known == id) {
            Some((_, before)) => *before = told,
            None => self.0.push((id, told)),
        }
        let ended = self.0.iter().filter(|(_, told)| told.is_done()).count();
        if ended > usize::from(ended_max) {
            self.forget(ended - usize::from(ended_max), Told::is_done);
        }
        let active = self.0.len() - ended.min(usize::from(ended_max));
        if active > ACTIVE_MAX {
            self.forget(active - ACTIVE_MAX, |told| !told.is_done());
        }
    }

    fn forget(&mut self, mut count: usize, which: impl Fn(Told) -> bool) {
        self.0.retain(|(_, told)| {
            let goes = count > 0 && which(*told);
            count -= usize::from(goes);
            !goes
        });
    }

    /// The updates of EMUs that were told to be pushed and run on.
    pub fn pushed(&self) -> BTreeSet<u64> {
        let pushed = self.0.iter().filter(|(_, told)| *told == Told::Pushed);
        pushed.map(|(id, _)| *id).collect()
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Commands {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(17 * self.0.len());
        for (id, told) in &self.0 {
            write!(text, "{id:016x}{}", told.letter()).map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Commands {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (entries, rest) = text.as_bytes().as_chunks::<17>();
        let read = |entry: &[u8; 17]| {
            let (id, letter) = entry.split_at(16);
            let id = u64::from_str_radix(str::from_utf8(id).ok()?, 16).ok()?;
            Some((id, Told::of(letter[0])?))
        };
        let commands: Option<Vec<_>> = entries.iter().map(read).collect();
        match commands {
            Some(commands) if rest.is_empty() => Ok(Commands(commands)),
            _ => Err(de::Error::custom(
                "the remembered commands are not entries of 16 hexadecimal digits and a letter",
            )),
        }
    }
}

/// How the last update of an EMU ended. As JSON one number: 256, or what was reached in percent, plus 128 when the package had arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u16", into = "u16")]
pub enum Ended {
    /// The new version runs.
    Well,
    /// It does not.
    Badly {
        /// Percent of the transfer that was reached.
        percent: u8,
        /// The EMU had the whole package.
        transferred: bool,
    },
}

impl From<u16> for Ended {
    fn from(number: u16) -> Self {
        if number >= 256 {
            return Ended::Well;
        }
        Ended::Badly {
            percent: (number & 127).min(100) as u8,
            transferred: number & 128 != 0,
        }
    }
}

impl From<Ended> for u16 {
    fn from(ended: Ended) -> u16 {
        match ended {
            Ended::Well => 256,
            Ended::Badly {
                percent,
                transferred,
            } => u16::from(percent.min(100)) | (u16::from(transferred) << 7),
        }
    }
}

/// What a result of `ota/upgrade` says of versions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The command it answers.
    pub id: u64,
    /// What ran before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What the package says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What runs in the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

impl State {
    /// Remembers how the update of this EMU ended. `known` are the numbers of all EMUs there are: those of others make room first.
    pub fn emu_ended(&mut self, device_id: i64, ended: Ended, known: impl Fn() -> BTreeSet<i64>) {
        if self.emus.len() >= EMUS_MAX && !self.emus.contains_key(&device_id) {
            let known = known();
            self.emus.retain(|id, _| known.contains(id));
            while self.emus.len() >= EMUS_MAX {
                self.emus.pop_first();
            }
        }
        self.emus.insert(device_id, ended);
    }

    /// Remembers the versions of a result; the oldest are forgotten.
    pub fn remember(&mut self, versions: Versions) {
        self.versions.retain(|other| other.id != versions.id);
        if self.versions.len() >= VERSIONS_MAX {
            self.versions.drain(..=self.versions.len() - VERSIONS_MAX);
        }
        self.versions.push(versions);
    }

    /// The versions of the result to this command, as far as they are remembered.
    pub fn versions_of(&self, id: u64) -> Versions {
        let known = self.versions.iter().find(|versions| versions.id == id);
        known.cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::target::VERSION_MAX;

    #[test]
    fn the_state_at_its_largest_stays_below_60_000_bytes() {
        let mut state = State {
            dropped: u64::MAX,
            lenient: u64::MAX,
            ..State::default()
        };
        for id in 0..5_000 {
            state.commands.put(u64::MAX - id, Told::Done(6), 512);
            state.commands.put(id, Told::Pushed, 512);
            let device_id = i64::MIN + id as i64;
            let ended = Ended::Badly {
                percent: 99,
                transferred: true,
            };
            state.emu_ended(device_id, ended, || {
                (0..=id).map(|n| i64::MIN + n as i64).collect()
            });
            let longest = || Some("\"".repeat(VERSION_MAX));
            state.remember(Versions {
                id: u64::MAX - id,
                before: longest(),
                target: longest(),
                last: longest(),
            });
        }
        assert_eq!(state.commands.len(), 1_512);
        assert_eq!(state.emus.len(), 1_000);
        assert_eq!(state.versions.len(), 16);
        let bytes = serde_json::to_vec(&state).unwrap();
        assert!(bytes.len() < 60_000, "{} bytes", bytes.len());
        assert_eq!(serde_json::from_slice::<State>(&bytes).unwrap(), state);
    }

    #[test]
    fn the_oldest_ended_command_is_forgotten_and_none_whose_job_runs() {
        let mut commands = Commands::default();
        commands.put(1, Told::Accepted, 256);
        for id in 2..=400 {
            commands.put(id, Told::Done(1), 256);
        }
        assert_eq!(commands.told(1), Some(Told::Accepted));
        assert_eq!(commands.told(400 - 256), None);
        assert_eq!(commands.told(400 - 255), Some(Told::Done(1)));
        assert_eq!(commands.len(), 257);
        commands.put(1, Told::Done(3), 256);
        assert_eq!(commands.told(1), None, "it was the oldest");
    }

    #[test]
    fn a_remembered_command_survives_its_json() {
        let mut commands = Commands::default();
        for (id, told) in [
            (0, Told::Accepted),
            (u64::MAX, Told::Prepared),
            (1 << 60, Told::Pushed),
            (8, Told::Done(1)),
            (9, Told::Done(6)),
        ] {
            commands.put(id, told, 256);
        }
        let text = serde_json::to_string(&commands).unwrap();
        assert_eq!(text.len(), 5 * 17 + 2);
        assert_eq!(serde_json::from_str::<Commands>(&text).unwrap(), commands);
        for broken in [
            "\"0\"",
            "\"0000000000000000z\"",
            "\"000000000000000ga\"",
            "7",
            "\"+00000000000000aa\"x",
        ] {
            assert!(
                serde_json::from_str::<Commands>(broken).is_err(),
                "{broken}"
            );
        }
    }

    #[test]
    fn how_an_update_ended_survives_its_number() {
        for percent in [0, 1, 99, 100] {
            for transferred in [false, true] {
                let ended = Ended::Badly {
                    percent,
                    transferred,
                };
                assert_eq!(Ended::from(u16::from(ended)), ended);
            }
        }
        assert_eq!(Ended::from(u16::from(Ended::Well)), Ended::Well);
    }

    #[test]
    fn an_emu_that_is_gone_makes_room_first() {
        let mut state = State::default();
        let well =
            |state: &mut State, id| state.emu_ended(id, Ended::Well, || (1..=1_000).collect());
        for id in 0..1_000 {
            well(&mut state, id);
        }
        well(&mut state, 1_000);
        assert!(!state.emus.contains_key(&0));
        assert_eq!(state.emus.len(), 1_000);
    }
}
