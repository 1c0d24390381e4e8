//! The order of two versions, as far as there is one.
//!
//! To the host a version is text; vendors write what they like (`05.01.0214`, `WM265E_07.01.10.05.zip`). Only where both texts are of a
//! form whose order everybody agrees on does "older" mean anything, and a wrong guess would keep a device from its updates.

use std::cmp::Ordering;

/// Which of two versions is newer; `None` when one of them has no known order.
///
/// Known are numbers with dots between, with or without a `v` before them and of any length (a missing number counts as 0), and
/// after them what Semantic Versioning 2.0.0 has: `-` and a pre-release, which comes before the release (section 11), and `+` and
/// a build, which does not count (section 10).
pub fn compare(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (Version::parse(a)?, Version::parse(b)?);
    Some(a.cmp_numbers(&b).then_with(|| a.cmp_pre_release(&b)))
}

struct Version<'a> {
    numbers: Vec<&'a str>,
    pre_release: Option<Vec<&'a str>>,
}

impl<'a> Version<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let (text, build) = split(text, '+');
        let (numbers, pre_release) = split(text, '-');
        if let Some(build) = build {
            identifiers(build)?;
        }
        let numbers: Vec<_> = numbers.split('.').collect();
        if !numbers.iter().all(|n| is_number(n)) {
            return None;
        }
        let pre_release = match pre_release {
            Some(text) => Some(identifiers(text)?),
            None => None,
        };
        Some(Version {
            numbers,
            pre_release,
        })
    }

    fn cmp_numbers(&self, other: &Self) -> Ordering {
        let longest = self.numbers.len().max(other.numbers.len());
        (0..longest)
            .map(|i| {
                let [a, b] = [self, other].map(|v| v.numbers.get(i).copied().unwrap_or("0"));
                cmp_number(a, b)
            })
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    fn cmp_pre_release(&self, other: &Self) -> Ordering {
        match (&self.pre_release, &other.pre_release) {
            (None, None) => Ordering::Equal,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a
                .iter()
                .zip(b)
                .map(|(a, b)| cmp_identifier(a, b))
                .find(|order| order.is_ne())
                .unwrap_or_else(|| a.len().cmp(&b.len())),
        }
    }
}

fn split(text: &str, at: char) -> (&str, Option<&str>) {
    match text.split_once(at) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn identifiers(text: &str) -> Option<Vec<&str>> {
    let all: Vec<_> = text.split('.').collect();
    let fits =
        |id: &&str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    all.iter().all(fits).then_some(all)
}

/// Digits compared as the number they write, however long.
fn cmp_number(a: &str, b: &str) -> Ordering {
    let [a, b] = [a, b].map(|n| n.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

fn cmp_identifier(a: &str, b: &str) -> Ordering {
    match (is_number(a), is_number(b)) {
        (true, true) => cmp_number(a, b),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let ascending = [
            "0",
            "0.9",
            "1.0-7",
            "1.0--a",
            "v1.0.0-alpha",
            "1.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0.1",
            "V1.2",
            "1.9",
            "1.10",
            "1.10.99999999999999999999999999",
            "1.10.100000000000000000000000000",
            "05.01.0214",
            "5.1.1000",
            "10",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), Some(i.cmp(&j)), "{a} and {b}");
            }
        }
    }

    #[test]
    fn what_does_not_count_makes_no_difference() {
        for (a, b) in [
            ("1.0", "1"),
            ("v1.2.3", "1.2.3"),
            ("01.02", "1.2"),
            ("1.0+build.7", "1.0.0+other"),
            ("1.0-rc.1+7", "1-rc.01"),
        ] {
            assert_eq!(compare(a, b), Some(Ordering::Equal), "{a} and {b}");
        }
    }

    #[test]
    fn a_text_of_another_form_has_no_order() {
        for text in [
            "",
            "v",
            "vv1",
            "1.",
            ".1",
            "1..2",
            "1.x",
            "1.2a",
            "WM265E_07.01.10.05.zip",
            "1.0-",
            "1.0-a..b",
            "1.0-ä",
            "1.0+",
            "1.0 ",
            "-1",
            "+1",
            "latest",
            "١.٢",
        ] {
            assert_eq!(compare(text, "1.0"), None, "{text}");
            assert_eq!(compare("1.0", text), None, "{text}");
            assert_eq!(compare(text, text), None, "{text}");
        }
    }

    /// Few numbers and words, so that equal and nearly equal versions are common.
    fn version() -> impl Strategy<Value = String> {
        "v?(0|1|2|01|10)(\\.(0|1|2|00|10)){0,3}(-(a|b|1|2|01|a1|-)(\\.(a|1|0)){0,2})?(\\+(x|1))?"
    }

    proptest! {
        #[test]
        fn the_order_is_total_where_it_is_defined(a in version(), b in version(), c in version()) {
            let (Some(ab), Some(bc), Some(ac)) = (compare(&a, &b), compare(&b, &c), compare(&a, &c)) else {
                return Err(TestCaseError::fail("a version of a known form has an order"));
            };
            prop_assert_eq!(compare(&b, &a), Some(ab.reverse()));
            prop_assert_eq!(compare(&a, &a), Some(Ordering::Equal));
            if ab.is_le() && bc.is_le() {
                prop_assert!(ac.is_le());
                prop_assert_eq!(ac.is_eq(), ab.is_eq() && bc.is_eq());
            }
        }

        #[test]
        fn any_two_texts_have_an_order_both_ways_or_none(a in "\\PC{0,12}", b in "[v0-9.+-]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).map(Ordering::reverse));
        }
    }
}
