//! Which file of the kit's folder is the update: the newest one that the operator's pattern takes for firmware.
//!
//! The names come from a server and are not believed. The host has dropped what holds a separator or a control character; it is looked
//! at again here, and long names and long directories are cut short, because the work of one step is limited.

use std::cmp::Reverse;

use otahost_adapter::DirectoryEntry;
use regex_lite::Regex;

use crate::rules::{Files, Piece};
use crate::version::Part;

/// The longest name that is looked at, in bytes; it becomes part of a job's key.
pub const NAME_MAX: usize = 120;
/// The most bytes of names that are compared. The work of one step is limited, and a pattern's grows with this.
pub const CONSIDERED_MAX: usize = 8_000;
/// The longest version, in bytes.
const VERSION_MAX: usize = 100;
/// A file that may be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The file's name.
    pub name: String,
    /// The version it stands for.
    pub version: String,
    /// Its size in bytes, where the server tells it.
    pub size: Option<u64>,
    /// When it was modified, where the server tells it.
    pub modified: Option<u64>,
    key: Vec<Part>,
}

/// The rules of [`Files`], ready to be applied.
#[derive(Debug)]
pub struct Chooser<'a> {
    pub(crate) files: &'a Files,
    pub(crate) pattern: Regex,
    pub(crate) current: Option<Regex>,
    pub(crate) version: Vec<Piece>,
}

/// What a directory holds for us.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    /// The newest file that is firmware.
    pub newest: Option<Release>,
    /// How many names were not looked at, because there are too many.
    pub skipped: usize,
}

impl Chooser<'_> {
    /// The newest release of a directory; of several that are equally new, the one whose name comes last. The order of the entries
    /// does not matter.
    pub fn choose(&self, entries: &[DirectoryEntry]) -> Choice {
        let mut files: Vec<&DirectoryEntry> = entries
            .iter()
            .filter(|entry| {
                !entry.directory && entry.size != Some(0) && self.is_usable(&entry.name)
            })
            .collect();
        let found = files.len();
        if files.iter().map(|entry| entry.name.len()).sum::<usize>() > CONSIDERED_MAX {
            files.sort_unstable_by_key(|entry| Reverse((entry.modified, entry.name.as_str())));
            let mut left = CONSIDERED_MAX;
            let fit = files.iter().take_while(|entry| {
                let fits = entry.name.len() <= left;
                left = left.saturating_sub(entry.name.len());
                fits
            });
            files.truncate(fit.count());
        }
        let skipped = found - files.len();
        let newest = files
            .into_iter()
            .filter_map(|entry| self.release(entry))
            .max_by(|a, b| (&a.key, &a.name, a.size).cmp(&(&b.key, &b.name, b.size)));
        Choice { newest, skipped }
    }

    /// True when this release is newer than what runs. A version that runs and cannot be compared, or is not known, is older than
    /// any other: a device must not be stuck on it, and the host still refuses what is an older image by its signature.
    pub fn is_newer(&self, release: &Release, running: Option<&str>) -> bool {
        let Some(running) = running else { return true };
        if release.version == running {
            return false;
        }
        match self.running(running) {
            Some(key) => release.key > key,
            None => true,
        }
    }

    /// True when the version that runs can be compared.
    pub fn can_compare(&self, running: &str) -> bool {
        self.running(running).is_some()
    }

    fn running(&self, text: &str) -> Option<Vec<Part>> {
        if text.len() > NAME_MAX {
            return None;
        }
        self.key(self.current.as_ref().unwrap_or(&self.pattern), text)
            .map(|(key, _)| key)
    }

    fn is_usable(&self, name: &str) -> bool {
        !name.is_empty()
            && name.len() <= NAME_MAX
            && name != "."
            && name != ".."
            && !name
                .chars()
                .any(|c| matches!(c, '/' | '\\') || c.is_control())
            && !self.files.ignore.iter().any(|end| ends_with(name, end))
    }

    fn release(&self, entry: &DirectoryEntry) -> Option<Release> {
        let (key, captures) = self.key(&self.pattern, &entry.name)?;
        let mut version = String::new();
        for piece in &self.version {
            version.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Group(group) => captures.name(group).map_or("", |m| m.as_str()),
            });
        }
        if version.is_empty()
            || version.len() > VERSION_MAX
            || version.chars().any(char::is_control)
        {
            return None;
        }
        Some(Release {
            name: entry.name.clone(),
            version,
            size: entry.size,
            modified: entry.modified,
            key,
        })
    }

    /// The parts of a text that are compared, in order; nothing where one is not there or is not what it should be.
    fn key<'t>(
        &self,
        pattern: &Regex,
        text: &'t str,
    ) -> Option<(Vec<Part>, regex_lite::Captures<'t>)> {
        let captures = pattern.captures(text)?;
        let parts = self.files.order.iter().map(|key| {
            let part = captures.name(&key.group)?;
            Part::read(part.as_str(), key.how)
        });
        Some((parts.collect::<Option<_>>()?, captures))
    }
}

/// Compares the ending without regard to the case of ASCII letters.
fn ends_with(name: &str, end: &str) -> bool {
    name.len() >= end.len()
        && name.as_bytes()[name.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use otahost_adapter::bench::file;
    use proptest::prelude::*;

    use super::*;
    use crate::version::As;

    fn newest(files: &Files, names: &[&str]) -> Option<String> {
        let entries: Vec<_> = names.iter().map(|name| file(name, 7)).collect();
        let choice = files.chooser().unwrap().choose(&entries);
        choice.newest.map(|release| release.version)
    }

    /// Board, hardware, build and date; the version is the whole name without its ending.
    fn k17() -> Files {
        serde_json::from_str(
            r#"{
                "pattern": "(?<version>B359_1029_B(?<build>\\d+)_D(?<date>\\d{8}))(?:\\.img)?",
                "order": [{ "group": "build", "as": "number" }, { "group": "date", "as": "number" }]
            }"#,
        )
        .unwrap()
    }

    #[test]
    fn semantic_versions_are_the_default() {
        let files = Files::default();
        for (names, version) in [
            (
                vec!["kit-0.0.9.img", "kit-0.0.22.img", "kit-0.0.21.img"],
                "0.0.22",
            ),
            (vec!["0.0.22", "0.0.3"], "0.0.22"),
            (vec!["kit_v1.10.0.tar.gz", "kit_v1.9.9.tar.gz"], "v1.10.0"),
            (vec!["kit-1.0.0-rc.1.img", "kit-0.9.0.img"], "1.0.0-rc.1"),
            (vec!["kit-1.0.0-rc.1.img", "kit-1.0.0.img"], "1.0.0"),
            (vec!["my_kit-2-1.0.0.bin", "README"], "1.0.0"),
        ] {
            assert_eq!(
                newest(&files, &names).as_deref(),
                Some(version),
                "{names:?}"
            );
        }
    }

    #[test]
    fn sidecars_uploads_and_what_is_no_version_are_no_firmware() {
        let names = [
            "kit-9.0.0.img.sha256",
            "kit-9.0.0.img.MD5",
            "kit-9.0.0.img.minisig",
            "kit-9.0.0.img.filepart",
            "kit.img",
            "1.2",
            "notes",
        ];
        assert_eq!(newest(&Files::default(), &names), None);
    }

    #[test]
    fn k17_the_patterns_groups_and_their_order_decide() {
        let files = k17();
        let names = [
            "B359_1029_B241_D25093001",
            "B359_1029_B242_D25080802",
            "B359_1029_B242_D25080801.img",
            "B359_1029_B99_D25123101",
            "B360_1029_B999_D25123101",
        ];
        assert_eq!(
            newest(&files, &names).as_deref(),
            Some("B359_1029_B242_D25080802")
        );
        // By date first another one is newer.
        let mut by_date = files.clone();
        by_date.order.reverse();
        assert_eq!(
            newest(&by_date, &names).as_deref(),
            Some("B359_1029_B99_D25123101")
        );
        let chooser = files.chooser().unwrap();
        let release = chooser.choose(&[file(names[1], 7)]).newest.unwrap();
        for (running, newer) in [
            ("B359_1029_B242_D25080801", true),
            ("B359_1029_B99_D25123101", true),
            ("B359_1029_B242_D25080802", false),
            ("B359_1029_B0242_D25080802", false),
            ("B359_1029_B243_D20010101", false),
        ] {
            assert_eq!(
                chooser.is_newer(&release, Some(running)),
                newer,
                "{running}"
            );
        }
    }

    #[test]
    fn the_version_may_be_written_otherwise_than_the_name() {
        let files: Files = serde_json::from_str(
            r#"{
                "pattern": "fw_(?<major>\\d+)_(?<minor>\\d+)\\.bin",
                "current": "V(?<major>\\d+)\\.(?<minor>\\d+)",
                "version": "V{major}.{minor}",
                "order": [{ "group": "major", "as": "number" }, { "group": "minor", "as": "number" }]
            }"#,
        )
        .unwrap();
        let chooser = files.chooser().unwrap();
        let release = chooser
            .choose(&[file("fw_2_9.bin", 7), file("fw_2_10.bin", 7)])
            .newest
            .unwrap();
        assert_eq!(release.version, "V2.10");
        assert!(chooser.is_newer(&release, Some("V2.9")));
        assert!(!chooser.is_newer(&release, Some("V2.10")));
        assert!(!chooser.is_newer(&release, Some("V3.0")));
    }

    #[test]
    fn a_version_that_cannot_be_compared_is_older_unless_it_is_the_same() {
        let files = Files::default();
        let chooser = files.chooser().unwrap();
        let release = chooser.choose(&[file("kit-1.0.0.img", 7)]).newest.unwrap();
        assert!(chooser.is_newer(&release, None));
        assert!(chooser.is_newer(&release, Some("factory")));
        assert!(!chooser.can_compare("factory"));
        assert!(chooser.is_newer(&release, Some(&"9".repeat(1_000_000))));
        assert!(!chooser.is_newer(&release, Some("1.0.0")));
        assert!(!chooser.is_newer(&release, Some("v1.0.0")));
    }

    #[test]
    fn hostile_names_directories_and_empty_files_are_never_taken() {
        let mut files = Files {
            pattern: "(?s)(?<version>.*)".into(),
            ..Files::default()
        };
        files.order[0].how = As::Text;
        let chooser = files.chooser().unwrap();
        let long = "9".repeat(NAME_MAX + 1);
        for name in [
            "",
            ".",
            "..",
            "../9",
            "a/9",
            "a\\9",
            "9\n",
            "9\0",
            "9\u{85}",
            long.as_str(),
        ] {
            assert_eq!(chooser.choose(&[file(name, 7)]).newest, None, "{name:?}");
        }
        let mut directory = file("9", 7);
        directory.directory = true;
        assert_eq!(chooser.choose(&[directory]).newest, None);
        assert_eq!(chooser.choose(&[file("9", 0)]).newest, None);
        assert!(chooser.choose(&[file("9", 7)]).newest.is_some());
    }

    #[test]
    fn of_too_many_files_those_modified_last_are_compared() {
        let entries: Vec<_> = (0..10_000u64)
            .map(|n| {
                let mut entry = file(&format!("kit-{}.0.0.img", 20_000 - n), 7);
                entry.modified = Some(n);
                entry
            })
            .collect();
        let files = Files::default();
        let choice = files.chooser().unwrap().choose(&entries);
        let considered = CONSIDERED_MAX / "kit-20000.0.0.img".len();
        assert_eq!(choice.skipped, 10_000 - considered);
        let oldest_considered = 20_000 - (10_000 - considered);
        assert_eq!(
            choice.newest.unwrap().version,
            format!("{oldest_considered}.0.0")
        );
    }

    #[test]
    fn a_pattern_means_the_whole_name_in_every_mode() {
        for pattern in [
            "(?<version>1)|(?<x>2)",
            "(?m)^(?<version>1)$",
            "(?x) (?<version> 1 )",
        ] {
            let files = Files {
                pattern: pattern.into(),
                ..Files::default()
            };
            assert_eq!(newest(&files, &["12", "21", "x1", "1x"]), None, "{pattern}");
            assert_eq!(newest(&files, &["1"]).as_deref(), Some("1"), "{pattern}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_choice_does_not_depend_on_the_order_of_the_listing(
            names in prop::collection::vec("(kit[-_])?v?[0-3]\\.[0-3]\\.[0-3](-(a|1))?(\\.img)?", 0..12),
            turn in 0usize..12,
        ) {
            let entries: Vec<_> = names.iter().map(|name| file(name, 7)).collect();
            let files = Files::default();
            let chooser = files.chooser().unwrap();
            let straight = chooser.choose(&entries);
            let mut other = entries.clone();
            other.reverse();
            other.rotate_left(turn.min(entries.len()));
            prop_assert_eq!(&straight, &chooser.choose(&other));
            // Nothing in the folder is newer than the choice.
            if let Some(best) = straight.newest {
                for entry in &entries {
                    let one = chooser.choose(std::slice::from_ref(entry)).newest.unwrap();
                    prop_assert!(!chooser.is_newer(&one, Some(&best.version)), "{} > {}", one.version, best.version);
                }
            }
        }

        #[test]
        fn any_names_are_survived(names in prop::collection::vec(".{0,200}", 0..20), running in ".{0,40}") {
            let entries: Vec<_> = names.iter().map(|name| file(name, 7)).collect();
            for files in [Files::default(), k17()] {
                let chooser = files.chooser().unwrap();
                if let Some(release) = chooser.choose(&entries).newest {
                    chooser.is_newer(&release, Some(&running));
                }
            }
        }
    }
}
