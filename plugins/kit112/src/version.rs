//! Which of two versions is newer. The vendors' names are no semantic versions as a rule, so each part of a name is compared in the way
//! that the operator says.
//!
//! Every reading brings a text into a normal form first, so that what compares as equal is equal and the order is total.

use std::cmp::Ordering;

use serde::Deserialize;

/// How a part of a name is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum As {
    /// By the precedence of semantic versions (semver.org 2.0.0, §11). A `v` before it, and one to eight numbers in place of three, are
    /// read too; numbers that are not there are 0.
    Semver,
    /// As a whole number of any length.
    Number,
    /// By bytes.
    Text,
}

/// A part of a name that can be compared with the same part of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// See [`As::Semver`].
    Semver(Semver),
    /// See [`As::Number`].
    Number(Number),
    /// See [`As::Text`].
    Text(String),
}

impl Part {
    /// The part, or nothing where the text is no such thing.
    pub fn read(text: &str, how: As) -> Option<Self> {
        match how {
            As::Semver => Semver::read(text).map(Part::Semver),
            As::Number => Number::read(text).map(Part::Number),
            As::Text => Some(Part::Text(text.to_owned())),
        }
    }
}

/// A whole number of any length: its digits without zeros in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(String);

impl Number {
    fn read(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| Number(text.trim_start_matches('0').to_owned()))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0
            .len()
            .cmp(&other.0.len())
            .then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A semantic version without its build metadata, which has no part in the order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Semver {
    /// The numbers, without zeros at the end.
    core: Vec<Number>,
    stage: Stage,
}

/// A pre-release comes before its release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Pre(Vec<Identifier>),
    Release,
}

/// Numbers come before words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(Number),
    Word(String),
}

impl Semver {
    /// The most numbers of a version.
    const NUMBERS_MAX: usize = 8;

    fn read(text: &str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let text = match text.split_once('+') {
            Some((version, build)) if build.split('.').all(is_identifier) => version,
            Some(_) => return None,
            None => text,
        };
        let (core, stage) = match text.split_once('-') {
            Some((core, pre)) => {
                let identifiers = pre.split('.').map(|word| {
                    is_identifier(word).then(|| match Number::read(word) {
                        Some(number) => Identifier::Number(number),
                        None => Identifier::Word(word.to_owned()),
                    })
                });
                (core, Stage::Pre(identifiers.collect::<Option<_>>()?))
            }
            None => (text, Stage::Release),
        };
        let mut core: Vec<Number> = core.split('.').map(Number::read).collect::<Option<_>>()?;
        if core.len() > Self::NUMBERS_MAX {
            return None;
        }
        while core.last().is_some_and(|number| number.0.is_empty()) {
            core.pop();
        }
        Some(Semver { core, stage })
    }
}

fn is_identifier(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn semver(text: &str) -> Part {
        Part::read(text, As::Semver).unwrap_or_else(|| panic!("{text} is no version"))
    }

    #[test]
    fn semantic_versions_are_ordered_as_their_page_says() {
        let ascending = [
            "0.0.9",
            "0.0.21",
            "0.0.22",
            "0.1.0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0.1",
            "1.2",
            "2.0.0",
            "18446744073709551616.0.0",
        ];
        for (i, low) in ascending.iter().enumerate() {
            for high in &ascending[i + 1..] {
                assert!(semver(low) < semver(high), "{low} < {high}");
            }
        }
    }

    #[test]
    fn versions_written_differently_are_the_same() {
        for (one, other) in [
            ("1.0.0", "v1"),
            ("1.0.0+build.7", "1.0.0"),
            ("1.02.3", "1.2.3"),
            ("0", "0.0.0"),
        ] {
            assert_eq!(semver(one), semver(other));
        }
    }

    #[test]
    fn what_is_no_version_is_not_read_as_one() {
        for text in [
            "",
            "v",
            "1.",
            ".1",
            "1..2",
            "1.a",
            "1.0-",
            "1.0+",
            "1.0-a..b",
            "-1",
            "1.0 ",
            "1.0-ä",
            "1.2.3.4.5.6.7.8.9",
        ] {
            assert_eq!(Part::read(text, As::Semver), None, "{text}");
        }
        for text in ["", "-1", "1.0", "٣", "0x1"] {
            assert_eq!(Part::read(text, As::Number), None, "{text}");
        }
    }

    fn any_part() -> impl Strategy<Value = (String, As)> {
        let text = prop_oneof![
            "[0-9.]{0,6}",
            "[0-9]{1,3}(\\.[0-9]{1,2}){0,3}(-[a-b0-1]{1,2}(\\.[0-9]){0,2})?",
            "[0-9]{0,25}",
            ".{0,6}",
        ];
        let how = prop::sample::select(vec![As::Semver, As::Number, As::Text]);
        (text, how)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_order_is_total_and_consistent(how in any_part(), a in any_part(), b in any_part(), c in any_part()) {
            let read = |(text, _): &(String, As)| Part::read(text, how.1);
            let (Some(a), Some(b), Some(c)) = (read(&a), read(&b), read(&c)) else { return Ok(()) };
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
            prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
            prop_assert_eq!(a.partial_cmp(&b), Some(a.cmp(&b)));
            if a <= b && b <= c {
                prop_assert!(a <= c);
            }
        }

        #[test]
        fn numbers_are_ordered_as_numbers(a: u64, b: u64, zeros in 0usize..4) {
            let padded = format!("{}{b}", "0".repeat(zeros));
            let (one, other) = (Part::read(&a.to_string(), As::Number).unwrap(), Part::read(&padded, As::Number).unwrap());
            prop_assert_eq!(one.cmp(&other), a.cmp(&b));
        }
    }
}
