//! What is remembered of a target over jobs, reboots and years: images that did not prove themselves, activations, and how far its
//! rollback index has come.
//!
//! A platform that polls offers the same image again minutes after it was rolled back, and would have the device install, reboot and
//! roll back all day. So what was rolled back is refused until an operator says otherwise, and a day has only so many activations.

use serde::{Deserialize, Serialize};

use crate::model::{Instant, MAX_ID, Millis, Reason};

/// Most images that are remembered as bad; the one that was rolled back longest ago is forgotten first.
pub const MAX_BAD_IMAGES: usize = 32;
/// Most digests that are remembered of one image: as many files as may carry the same payload, differently signed.
pub const MAX_DIGESTS: usize = 8;
/// The highest number of activations a day that a policy can allow; so many are remembered.
pub const MAX_ACTIVATIONS: u32 = 32;

/// Rollbacks after which an image is refused to a job that no person asked for.
const ROLLBACKS_POLLED: u32 = 1;
/// Rollbacks after which it is refused to a job that a person asked for.
const ROLLBACKS_COMMANDED: u32 = 2;

/// The longest switch that is believed: a day.
const MAX_SWITCH: Millis = DAY;
/// The slowest flash that is believed, in bytes a second.
const MIN_FLASH_RATE: u64 = 1_000;

const DAY: Millis = 24 * 60 * 60 * 1_000;

/// An image that was activated, did not prove itself, and was rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BadImage {
    /// SHA-256 of its payload, lower-case hex: what it is, however it was signed and wherever it came from.
    pub sha256: String,
    /// Digests the platform gave of the file (`md5:<hex>`), by which it is known before it is fetched.
    #[serde(default)]
    pub digests: Vec<String>,
    /// How often it was rolled back.
    pub rollbacks: u32,
    /// The version it was announced as last.
    #[serde(default)]
    pub version: String,
}

/// The memory of one target. Kept in the journal; every part may be missing there, so that an older agent's memory can be read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct TargetMemory {
    /// Images that were rolled back, that of the last rollback at the end.
    pub bad: Vec<BadImage>,
    /// The last activations by the wall clock of their time, in the order in which they happened.
    pub activations: Vec<Instant>,
    /// The highest rollback index of an image that was confirmed.
    pub rollback_index: u64,
    /// How long the last successful update took behind its download.
    pub pace: Option<Pace>,
}

/// How long an update takes once everything is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pace {
    /// Bytes a second while the image is read back and handed over.
    pub flash_rate: u64,
    /// Milliseconds from the switch to the confirmation, the reboot included.
    pub switch: Millis,
}

impl Pace {
    /// What is assumed of a target that was never updated: 100 MB/s, and a minute for switch and reboot.
    pub const ASSUMED: Pace = Pace {
        flash_rate: 100_000_000,
        switch: 60_000,
    };
}

impl TargetMemory {
    /// An image was activated and rolled back. `sha256` is its payload's, `digests` are those of the plan.
    pub fn rolled_back(&mut self, sha256: &str, digests: &[String], version: &str) {
        let known = self.bad.iter().position(|bad| is_same(&bad.sha256, sha256));
        let mut bad = match known {
            Some(at) => self.bad.remove(at),
            None => BadImage {
                sha256: sha256.to_ascii_lowercase(),
                digests: Vec::new(),
                rollbacks: 0,
                version: String::new(),
            },
        };
        bad.rollbacks = bad.rollbacks.saturating_add(1);
        bad.version = version.chars().take(MAX_ID).collect();
        for digest in digests.iter().filter(|d| d.len() <= MAX_ID) {
            bad.digests.retain(|known| !is_same(known, digest));
            bad.digests.push(digest.to_ascii_lowercase());
        }
        drop_first(&mut bad.digests, MAX_DIGESTS);
        self.bad.push(bad);
        drop_first(&mut self.bad, MAX_BAD_IMAGES);
    }

    /// The target is being activated; to be remembered in the commit of `activating`.
    pub fn activated(&mut self, now: Instant) {
        self.activations.push(now);
        drop_first(&mut self.activations, MAX_ACTIVATIONS as usize);
    }

    /// An update succeeded, and took so long. Spans that a clock's jump has made are not believed.
    pub fn observed(&mut self, pace: Pace) {
        if pace.switch <= MAX_SWITCH && pace.flash_rate >= MIN_FLASH_RATE {
            self.pace = Some(pace);
        }
    }

    /// An image was confirmed: it is not bad, whatever was thought of it before, and nothing with a lower index comes after it.
    pub fn confirmed(&mut self, sha256: &str, rollback_index: Option<u64>) {
        self.bad.retain(|bad| !is_same(&bad.sha256, sha256));
        self.rollback_index = self.rollback_index.max(rollback_index.unwrap_or(0));
    }

    /// Why this image may not be tried again: it was rolled back, once for a job that no person asked for, twice for one that a person
    /// did (`commanded`). Asked before the download with the digests of the plan, and with the SHA-256 of the payload once that is
    /// known: the same image may come as another file.
    pub fn known_bad(
        &self,
        sha256: Option<&str>,
        digests: &[String],
        commanded: bool,
    ) -> Option<Reason> {
        let enough = if commanded {
            ROLLBACKS_COMMANDED
        } else {
            ROLLBACKS_POLLED
        };
        let bad = self
            .bad
            .iter()
            .filter(|bad| bad.rollbacks >= enough)
            .find(|bad| {
                sha256.is_some_and(|sha256| is_same(&bad.sha256, sha256))
                    || digests.iter().any(|digest| bad.has_digest(digest))
            })?;
        let times = match bad.rollbacks {
            1 => "once".to_owned(),
            n => format!("{n} times"),
        };
        let text = format!(
            "this image (version {}) was rolled back {times} on this target and is refused; the operator's `otahost clear TARGET` allows it again",
            bad.version
        );
        let stage = if sha256.is_some() { "verify" } else { "admit" };
        Some(Reason::new("known-bad", stage, text))
    }

    /// Forgets bad images: those with this SHA-256, digest or version, or all of them. Returns how many.
    pub fn clear(&mut self, which: Option<&str>) -> usize {
        let before = self.bad.len();
        self.bad.retain(|bad| {
            which.is_some_and(|which| {
                !is_same(&bad.sha256, which) && bad.version != which && !bad.has_digest(which)
            })
        });
        before - self.bad.len()
    }

    /// Activations within 24 hours before `now`, or after it: see [`TargetMemory::activations_exhausted`].
    pub fn activations_within_a_day(&self, now: Instant) -> u32 {
        let counts = |at: &&Instant| now.abs_diff(**at) < DAY;
        u32::try_from(self.activations.iter().filter(counts).count()).unwrap_or(u32::MAX)
    }

    /// When the target may be activated again, if it had `most` activations within 24 hours.
    ///
    /// After the clock was set back there are activations in the future. They count, since they just happened, but only those less than a
    /// day ahead: a clock that once was fifty years wrong must not keep a device from its updates for fifty years.
    pub fn activations_exhausted(&self, most: u32, now: Instant) -> Option<Instant> {
        let most = most.clamp(1, MAX_ACTIVATIONS);
        let exhausted = |now: Instant| self.activations_within_a_day(now) >= most;
        if !exhausted(now) {
            return None;
        }
        let ends = self.activations.iter().map(|at| at.saturating_add(DAY));
        // At the very end of time there is none.
        ends.filter(|end| *end > now && !exhausted(*end))
            .min()
            .or(Some(now))
    }
}

impl BadImage {
    fn has_digest(&self, digest: &str) -> bool {
        // A file that is its own payload may be announced by the very digest that names the image.
        let payload = digest.strip_prefix("sha256:");
        payload.is_some_and(|hex| is_same(&self.sha256, hex))
            || self.digests.iter().any(|known| is_same(known, digest))
    }
}

/// Hex digits come in both cases.
fn is_same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn drop_first<T>(list: &mut Vec<T>, most: usize) {
    list.drain(..list.len().saturating_sub(most));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    const HOUR: Millis = 60 * 60 * 1_000;
    const NOON: Instant = 1_785_715_200_000;
    const YEARS: Millis = 50 * 365 * DAY;

    fn md5(text: &str) -> Vec<String> {
        vec![format!("md5:{text}")]
    }

    fn refused(memory: &TargetMemory, sha256: Option<&str>, digests: &[String]) -> [bool; 2] {
        [false, true].map(|commanded| memory.known_bad(sha256, digests, commanded).is_some())
    }

    #[test]
    fn a_rolled_back_image_is_refused_to_polled_jobs_after_one_rollback_to_commanded_ones_after_two()
     {
        let mut memory = TargetMemory::default();
        assert_eq!(refused(&memory, Some("aa"), &md5("11")), [false, false]);
        memory.rolled_back("aa", &md5("11"), "7.1");
        assert_eq!(refused(&memory, Some("aa"), &[]), [true, false]);
        assert_eq!(refused(&memory, None, &md5("11")), [true, false]);
        memory.rolled_back("aa", &md5("11"), "7.1");
        assert_eq!(refused(&memory, Some("aa"), &[]), [true, true]);
        assert_eq!(refused(&memory, None, &md5("11")), [true, true]);
        assert_eq!(refused(&memory, Some("bb"), &md5("22")), [false, false]);
        assert_eq!(refused(&memory, None, &[]), [false, false]);
    }

    #[test]
    fn an_image_is_known_however_it_was_signed_and_written() {
        let mut memory = TargetMemory::default();
        memory.rolled_back("Ab", &md5("1F"), "7.1");
        memory.rolled_back("aB", &md5("2e"), "7.1-resigned");
        assert_eq!((memory.bad.len(), memory.bad[0].rollbacks), (1, 2));
        for digest in ["md5:1f", "MD5:1F", "md5:2E", "sha256:AB"] {
            assert_eq!(
                refused(&memory, None, &[digest.into()]),
                [true, true],
                "{digest}"
            );
        }
        assert_eq!(refused(&memory, None, &["md5:ab".into()]), [false, false]);
        // The digest of the plan is new; the payload is not.
        assert_eq!(refused(&memory, Some("AB"), &md5("99")), [true, true]);
    }

    #[test]
    fn a_refusal_says_when_it_was_known_and_what_to_do() {
        let mut memory = TargetMemory::default();
        memory.rolled_back("aa", &md5("11"), "7.1");
        let before = memory.known_bad(None, &md5("11"), false).unwrap();
        assert_eq!(
            (before.code.as_str(), before.stage.as_str()),
            ("known-bad", "admit")
        );
        assert!(before.text.contains("version 7.1") && before.text.contains("once"));
        assert!(
            before
                .text
                .contains("`otahost clear TARGET` allows it again")
        );
        memory.rolled_back("aa", &md5("11"), "7.1");
        let after = memory.known_bad(Some("aa"), &[], true).unwrap();
        assert_eq!(after.stage, "verify");
        assert!(after.text.contains("2 times"), "{}", after.text);
    }

    #[test]
    fn the_operator_clears_one_image_or_all() {
        let mut full = TargetMemory::default();
        for (sha256, digest, version) in [("aa", "11", "1"), ("bb", "22", "2"), ("cc", "33", "2")] {
            full.rolled_back(sha256, &md5(digest), version);
        }
        for (which, left) in [
            (Some("AA"), vec!["bb", "cc"]),
            (Some("md5:22"), vec!["aa", "cc"]),
            (Some("2"), vec!["aa"]),
            (Some("dd"), vec!["aa", "bb", "cc"]),
            (None, vec![]),
        ] {
            let mut memory = full.clone();
            assert_eq!(memory.clear(which), 3 - left.len(), "{which:?}");
            let names: Vec<_> = memory.bad.iter().map(|b| b.sha256.as_str()).collect();
            assert_eq!(names, left, "{which:?}");
        }
    }

    #[test]
    fn a_confirmed_image_is_bad_no_more_and_the_index_never_falls() {
        let mut memory = TargetMemory::default();
        memory.rolled_back("aa", &[], "1");
        memory.rolled_back("bb", &[], "2");
        for (sha256, index, expected) in [
            ("AA", Some(7), 7),
            ("cc", Some(3), 7),
            ("cc", None, 7),
            ("cc", Some(8), 8),
        ] {
            memory.confirmed(sha256, index);
            assert_eq!(memory.rollback_index, expected);
        }
        assert_eq!(memory.bad.len(), 1);
        assert_eq!(refused(&memory, Some("aa"), &[]), [false, false]);
        assert_eq!(refused(&memory, Some("bb"), &[]), [true, false]);
    }

    #[test]
    fn the_image_rolled_back_longest_ago_is_forgotten_first() {
        let mut memory = TargetMemory::default();
        for n in 0..MAX_BAD_IMAGES {
            memory.rolled_back(&format!("a{n}"), &[], "1");
        }
        memory.rolled_back("a0", &[], "1");
        memory.rolled_back("new", &[], "1");
        assert_eq!(memory.bad.len(), MAX_BAD_IMAGES);
        assert!(memory.known_bad(Some("a0"), &[], true).is_some());
        assert!(memory.known_bad(Some("a1"), &[], false).is_none());
        assert!(memory.known_bad(Some("new"), &[], false).is_some());
    }

    #[test]
    fn one_image_cannot_fill_the_memory() {
        let mut memory = TargetMemory::default();
        for n in 0..100 {
            memory.rolled_back("aa", &md5(&n.to_string()), &"v".repeat(10_000));
        }
        memory.rolled_back("aa", &md5(&"f".repeat(10_000)), "1");
        assert_eq!(memory.bad[0].digests.len(), MAX_DIGESTS);
        assert!(
            memory.known_bad(None, &md5("99"), true).is_some(),
            "the newest stay"
        );
        memory.rolled_back("aa", &[], &"ä".repeat(10_000));
        assert!(serde_json::to_vec(&memory).unwrap().len() < 1_000);
    }

    #[test]
    fn a_day_has_only_so_many_activations() {
        let mut memory = TargetMemory::default();
        assert_eq!(memory.activations_exhausted(4, NOON), None);
        for hour in 0..4 {
            assert_eq!(memory.activations_exhausted(4, NOON + hour * HOUR), None);
            memory.activated(NOON + hour * HOUR);
        }
        let first_ends = NOON + DAY;
        assert_eq!(
            memory.activations_exhausted(4, NOON + 3 * HOUR),
            Some(first_ends)
        );
        assert_eq!(
            memory.activations_exhausted(4, first_ends - 1),
            Some(first_ends)
        );
        assert_eq!(memory.activations_exhausted(4, first_ends), None);
        // Two have to end when two are too many.
        assert_eq!(
            memory.activations_exhausted(3, NOON + 3 * HOUR),
            Some(NOON + HOUR + DAY)
        );
        assert_eq!(memory.activations_exhausted(5, NOON + 3 * HOUR), None);
    }

    #[test]
    fn a_clock_that_jumps_neither_frees_nor_blocks_a_target_for_ever() {
        let busy_day = TargetMemory {
            activations: vec![NOON, NOON, NOON, NOON],
            ..TargetMemory::default()
        };
        for (name, now, expected) in [
            ("an hour back", NOON - HOUR, Some(NOON + DAY)),
            (
                "just less than a day back",
                NOON - DAY + 1,
                Some(NOON + DAY),
            ),
            ("a day back", NOON - DAY, None),
            ("fifty years back", NOON - YEARS, None),
            ("1970", 0, None),
            ("an hour forward", NOON + HOUR, Some(NOON + DAY)),
            ("fifty years forward", NOON + YEARS, None),
        ] {
            assert_eq!(busy_day.activations_exhausted(4, now), expected, "{name}");
        }
        let mut memory = busy_day.clone();
        memory.activated(NOON + YEARS);
        assert!(
            memory.activations_exhausted(4, NOON + HOUR).is_some(),
            "a jump forward and back does not make a new day"
        );
    }

    #[test]
    fn a_policy_cannot_ask_for_none_nor_for_more_than_is_remembered() {
        let mut memory = TargetMemory::default();
        assert_eq!(memory.activations_exhausted(0, NOON), None);
        for _ in 0..100 {
            memory.activated(NOON);
        }
        assert_eq!(memory.activations.len(), MAX_ACTIVATIONS as usize);
        assert!(memory.activations_exhausted(u32::MAX, NOON).is_some());
    }

    #[test]
    fn memory_of_an_older_agent_can_be_read() {
        assert_eq!(
            serde_json::from_str::<TargetMemory>("{}").unwrap(),
            TargetMemory::default()
        );
        let old =
            r#"{"bad":[{"sha256":"aa","rollbacks":1}],"rollback-index":7,"newer-field":true}"#;
        let memory: TargetMemory = serde_json::from_str(old).unwrap();
        assert_eq!(memory.rollback_index, 7);
        assert!(memory.known_bad(Some("aa"), &[], false).is_some());
        let json = serde_json::to_string(&memory).unwrap();
        assert_eq!(serde_json::from_str::<TargetMemory>(&json).unwrap(), memory);
    }

    proptest! {
        #[test]
        fn waiting_for_the_end_that_was_told_is_enough_and_not_too_long(
            activations in prop::collection::vec(0..4 * DAY, 0..40), now in 0..4 * DAY, most in 0u32..8,
        ) {
            let memory = TargetMemory { activations, ..TargetMemory::default() };
            if let Some(until) = memory.activations_exhausted(most, now) {
                prop_assert!(until > now);
                prop_assert_eq!(memory.activations_exhausted(most, until), None);
                prop_assert_eq!(memory.activations_exhausted(most, until - 1), Some(until));
                let last = memory.activations.iter().max().copied().unwrap_or(0);
                prop_assert!(until <= last + DAY);
            }
        }

        #[test]
        fn with_a_clock_that_only_goes_forward_no_day_has_more_than_allowed(
            steps in prop::collection::vec(0..DAY, 1..60), most in 1u32..6,
        ) {
            let mut memory = TargetMemory::default();
            let (mut now, mut all) = (NOON, Vec::new());
            for step in steps {
                now += step / 4;
                if memory.activations_exhausted(most, now).is_none() {
                    memory.activated(now);
                    all.push(now);
                }
            }
            for (i, at) in all.iter().enumerate() {
                if let Some(later) = all.get(i + most as usize) {
                    prop_assert!(later - at >= DAY);
                }
            }
        }

        #[test]
        fn no_clock_makes_the_memory_panic(activations: Vec<u64>, now: u64, most: u32) {
            let memory = TargetMemory { activations, ..TargetMemory::default() };
            for now in [now, 0, u64::MAX] {
                let _ = memory.activations_exhausted(most, now);
            }
        }
    }
}
