//! Which of the listed versions is taken: by the order of semantic versions, never by that of the list.

use std::cmp::Ordering;

use semver::Version;

use crate::config::Config;
use crate::wire::Firmware;

/// The most candidates that are looked at.
const CANDIDATES_MAX: usize = 16;

/// A version of the cloud's or of the device's; a `v` before it does not count.
pub fn parse(text: &str) -> Option<Version> {
    let text = text.trim();
    Version::parse(text.strip_prefix(['v', 'V']).unwrap_or(text)).ok()
}

/// True for the same version, however it is written.
pub fn is_same(a: &str, b: &str) -> bool {
    a.trim() == b.trim()
        || matches!((parse(a), parse(b)), (Some(a), Some(b)) if a.cmp_precedence(&b).is_eq() && a.build == b.build)
}

/// The order of two listed firmwares, newest first: those whose version has no order come last.
pub fn newest_first(a: &Firmware, b: &Firmware) -> Ordering {
    match (parse(&a.version), parse(&b.version)) {
        (Some(a_is), Some(b_is)) => b_is.cmp_precedence(&a_is).then(b.id.cmp(&a.id)),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => b.id.cmp(&a.id),
    }
}

/// True where this is for the device's hardware, as far as that is known.
pub fn fits(firmware: &Firmware, config: &Config) -> bool {
    config
        .hardware_id
        .is_none_or(|id| firmware.hardware == Some(id))
}

/// What may be taken, the best first: given out, for this hardware, above the running version. Of one version under two ids the
/// higher id comes first.
pub fn candidates<'a>(
    list: &'a [Firmware],
    config: &Config,
    running: &Version,
) -> Vec<&'a Firmware> {
    let mut candidates: Vec<(Version, &Firmware)> = list
        .iter()
        .filter(|f| f.active && fits(f, config))
        .filter_map(|f| Some((parse(&f.version)?, f)))
        .filter(|(version, _)| version.cmp_precedence(running).is_gt())
        .collect();
    candidates.sort_by(|(a_is, a), (b_is, b)| {
        let order = a_is.cmp_precedence(b_is);
        let order = if config.stepwise {
            order
        } else {
            order.reverse()
        };
        order.then(b.id.cmp(&a.id))
    });
    candidates
        .into_iter()
        .map(|(_, firmware)| firmware)
        .take(CANDIDATES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn firmware(id: u64, version: &str) -> Firmware {
        Firmware {
            id,
            version: version.into(),
            hardware: Some(3),
            active: true,
            stamp: 0,
        }
    }

    fn config(more: &str) -> Config {
        serde_json::from_str(&format!(
            r#"{{"target":"cam","device_id":1,"user_id":1{more}}}"#
        ))
        .unwrap()
    }

    fn ids(list: &[Firmware], config: &Config, running: &str) -> Vec<u64> {
        let running = parse(running).unwrap();
        candidates(list, config, &running)
            .iter()
            .map(|f| f.id)
            .collect()
    }

    #[test]
    fn r03_the_highest_active_version_wins_wherever_it_stands() {
        let mut inactive = firmware(4, "2.0.0");
        inactive.active = false;
        let mut list = vec![
            firmware(1, "1.2.0"),
            inactive,
            firmware(3, "1.10.0"),
            firmware(2, "1.0.0"),
        ];
        for _ in 0..list.len() {
            list.rotate_left(1);
            assert_eq!(ids(&list, &config(""), "0.9.0"), [3, 1, 2]);
            assert_eq!(ids(&list, &config(r#","stepwise":true"#), "1.0.0"), [1, 3]);
        }
    }

    #[test]
    fn equal_lower_and_foreign_hardware_are_left_alone() {
        let list = [
            firmware(1, "1.2.0"),
            firmware(2, "1.2.0+b7"),
            firmware(3, "v1.1.9"),
        ];
        assert_eq!(ids(&list, &config(""), "v1.2.0"), [0_u64; 0]);
        assert_eq!(
            ids(&list, &config(r#","hardware_id":4"#), "1.0.0"),
            [0_u64; 0]
        );
        assert_eq!(ids(&list, &config(r#","hardware_id":3"#), "1.1.9"), [2, 1]);
    }

    #[test]
    fn a_pre_release_comes_before_its_release_and_what_is_no_version_is_never_taken() {
        let list = [
            firmware(1, "1.3.0-rc.1"),
            firmware(2, "1.3.0"),
            firmware(3, "latest"),
            firmware(4, "9"),
            firmware(5, "99999999999999999999.0.0"),
        ];
        assert_eq!(ids(&list, &config(""), "1.2.9"), [2, 1]);
    }

    #[test]
    fn the_same_version_may_be_written_in_two_ways_and_a_build_is_another_one() {
        assert!(is_same("v1.2.0", "1.2.0"));
        assert!(is_same("odd name", "odd name "));
        assert!(!is_same("1.2.0", "1.2.1"));
        assert!(!is_same("1.2.0+a", "1.2.0+b"));
        assert!(!is_same("odd", "other"));
    }
}
