//! Which of the offered versions is taken by itself.

use std::collections::BTreeSet;

use semver::Version;

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Take this one, counted from the first offered.
    Take(usize),
    /// Nothing, and why.
    Nothing(String),
}

/// Chooses among versions with their digests; `running` is the one that runs, if any does, `rejected` are the digests of those that
/// were left.
pub(super) fn choose<'a>(
    offered: impl Iterator<Item = (&'a str, &'a str)>,
    running: Option<(&str, &str)>,
    rejected: &BTreeSet<&str>,
) -> Choice {
    let runs = match running.map(|(version, _)| order(version).ok_or(version)) {
        None => None,
        Some(Ok(version)) => Some(version),
        Some(Err(version)) => {
            return Choice::Nothing(format!(
                "version `{version}` that runs is no semantic version, so nobody can say what is newer; nothing is taken by itself"
            ));
        }
    };
    let newer = |version: &Version| {
        runs.as_ref()
            .is_none_or(|runs| version.cmp_precedence(runs).is_gt())
    };
    let mut newest: Option<(usize, Version)> = None;
    let mut left: Option<Version> = None;
    let mut count = 0;
    for (n, (version, digest)) in offered.enumerate() {
        count += 1;
        let Some(version) = order(version) else {
            continue;
        };
        if running.is_some_and(|(_, runs)| digest == runs) {
            continue;
        }
        if rejected.contains(digest) {
            if left
                .as_ref()
                .is_none_or(|l| l.cmp_precedence(&version).is_lt())
            {
                left = Some(version);
            }
        } else if newest
            .as_ref()
            .is_none_or(|(_, best)| best.cmp_precedence(&version).is_lt())
        {
            newest = Some((n, version));
        }
    }
    if count == 0 {
        return Choice::Nothing("it offers no version of it".to_owned());
    }
    let left = left.filter(newer);
    match (newest, left) {
        (Some((_, newest)), Some(left)) if newest.cmp_precedence(&left).is_le() => Choice::Nothing(
            format!("version {left} was left and is not taken again, nor anything older"),
        ),
        (None, Some(left)) => {
            Choice::Nothing(format!("version {left} was left and is not taken again"))
        }
        (Some((n, newest)), _) if newer(&newest) => Choice::Take(n),
        _ => Choice::Nothing(match running {
            Some((version, _)) => format!("nothing newer than {version} that runs"),
            None => "no version that can be ordered".to_owned(),
        }),
    }
}

/// A version as it is ordered. `7` and `7.1` are complete versions to many vendors.
fn order(version: &str) -> Option<Version> {
    let dots = version.bytes().filter(|b| *b == b'.').count();
    let plain = version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match dots {
        0 if plain => Version::parse(&format!("{version}.0.0")).ok(),
        1 if plain => Version::parse(&format!("{version}.0")).ok(),
        _ => Version::parse(version).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(offered: &[(&str, &str)], running: &str, rejected: &[&str]) -> Option<String> {
        let rejected = rejected.iter().copied().collect();
        let choice = choose(
            offered.iter().copied(),
            Some((running, "running")),
            &rejected,
        );
        match choice {
            Choice::Take(n) => Some(offered[n].0.to_owned()),
            Choice::Nothing(_) => None,
        }
    }

    #[test]
    fn the_newest_by_the_order_of_versions_is_taken_and_nothing_that_is_not_newer() {
        let offered = [("1.9.0", "a"), ("1.10.0", "b"), ("1.2.0", "c")];
        assert_eq!(taken(&offered, "1.2.0", &[]).as_deref(), Some("1.10.0"));
        assert_eq!(taken(&offered, "1.10.0", &[]), None);
        assert_eq!(taken(&offered, "2.0.0", &[]), None);
        assert_eq!(taken(&[], "1.0.0", &[]), None);
        assert_eq!(
            taken(&[("8", "a"), ("7.5", "b")], "7.4.9", &[]).as_deref(),
            Some("8")
        );
    }

    #[test]
    fn what_was_left_is_not_taken_again_nor_anything_older_until_a_newer_one_comes() {
        let offered = [("1.1.0", "a"), ("1.2.0", "b")];
        assert_eq!(taken(&offered, "1.0.0", &["b"]), None);
        let mended = [("1.1.0", "a"), ("1.2.0", "b"), ("1.2.1", "c")];
        assert_eq!(taken(&mended, "1.0.0", &["b"]).as_deref(), Some("1.2.1"));
        // The publisher took it back.
        assert_eq!(
            taken(&offered[..1], "1.0.0", &["b"]).as_deref(),
            Some("1.1.0")
        );
        // One that was left long ago stands against nothing that is newer than what runs.
        assert_eq!(
            taken(&offered, "1.1.0", &["old", "a"]).as_deref(),
            Some("1.2.0")
        );
    }

    #[test]
    fn versions_without_an_order_are_passed_over() {
        let offered = [("new", "a"), ("1.1.0", "b"), ("1.2.0-rc.1", "c")];
        assert_eq!(taken(&offered, "1.0.0", &[]).as_deref(), Some("1.2.0-rc.1"));
        assert_eq!(taken(&offered, "1.2.0", &[]), None);
        assert_eq!(taken(&offered, "yesterday", &[]), None);
    }

    #[test]
    fn an_adapter_that_does_not_run_gets_the_newest_that_was_not_left() {
        let offered = [("1.0.0", "a"), ("1.2.0", "b")];
        let none = BTreeSet::new();
        assert_eq!(choose(offered.into_iter(), None, &none), Choice::Take(1));
        let left = BTreeSet::from(["b"]);
        assert!(matches!(
            choose(offered.into_iter(), None, &left),
            Choice::Nothing(_)
        ));
    }

    #[test]
    fn other_bytes_under_the_version_that_runs_are_not_taken() {
        assert_eq!(taken(&[("1.0.0", "other")], "1.0.0", &[]), None);
        assert_eq!(
            taken(&[("1.0.0+build.2", "other")], "1.0.0+build.1", &[]),
            None
        );
    }
}
