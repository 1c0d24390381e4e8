//! Numbers for people: three figures that mean something, and a unit of fitting size.

use crate::stats::Spread;

/// What a value counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Things in a second.
    PerSecond,
    /// How many of something.
    Count,
}

impl Unit {
    /// For programs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::PerSecond => "per_second",
            Unit::Count => "count",
        }
    }

    /// What values as large as this one are multiplied by, and the unit they then have.
    fn scale(self, value: f64) -> (f64, &'static str) {
        match self {
            Unit::Seconds if value.abs() < 1e-3 => (1e6, " µs"),
            Unit::Seconds if value.abs() < 1.0 => (1e3, " ms"),
            Unit::Seconds => (1.0, " s"),
            Unit::Bytes if value.abs() < 1e4 => (1.0, " B"),
            Unit::Bytes if value.abs() < 1e6 => (1e-3, " kB"),
            Unit::Bytes if value.abs() < 1e10 => (1e-6, " MB"),
            Unit::Bytes => (1e-9, " GB"),
            Unit::PerSecond => (1.0, "/s"),
            Unit::Count => (1.0, ""),
        }
    }

    /// One value.
    pub(crate) fn show(self, value: f64) -> String {
        let (scale, unit) = self.scale(value);
        format!("{}{unit}", figures(value * scale))
    }

    /// Median, and the ends where there are several, in the unit of the median.
    pub(crate) fn show_all(self, values: &[f64]) -> String {
        let Some(spread) = Spread::of(values) else {
            return "nothing".to_owned();
        };
        let (scale, unit) = self.scale(spread.median);
        let [median, least, most] =
            [spread.median, spread.least, spread.most].map(|value| figures(value * scale));
        if least == most {
            format!("{median}{unit}")
        } else {
            format!("{median}{unit} ({least}–{most})")
        }
    }
}

/// How many times something else, with its spread.
pub(crate) fn times(spread: Spread) -> String {
    if spread.least == spread.most {
        format!("×{:.2}", spread.median)
    } else {
        format!(
            "×{:.2} ({:.2}–{:.2})",
            spread.median, spread.least, spread.most
        )
    }
}

fn figures(value: f64) -> String {
    let digits = match value.abs() {
        whole if whole.fract() == 0.0 => 0,
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_unit_is_shown_in_a_fitting_size() {
        assert_eq!(Unit::Seconds.show(45.2e-6), "45.2 µs");
        assert_eq!(Unit::Bytes.show(29_400_000.0), "29.4 MB");
        assert_eq!(Unit::Bytes.show(512.0), "512 B");
        assert_eq!(Unit::PerSecond.show(1_234.4), "1234/s");
        assert_eq!(Unit::Count.show(3.0), "3");
    }

    #[test]
    fn the_ends_have_the_unit_of_the_median() {
        assert_eq!(
            Unit::Seconds.show_all(&[0.5, 0.25, 1.5]),
            "500 ms (250–1500)"
        );
        assert_eq!(Unit::Bytes.show_all(&[1.0, 1.0]), "1 B");
        assert_eq!(Unit::Bytes.show_all(&[]), "nothing");
    }

    #[test]
    fn a_ratio_has_its_spread() {
        let spread = Spread::of(&[1.0, 1.234, 2.0]).unwrap();
        assert_eq!(times(spread), "×1.23 (1.00–2.00)");
        assert_eq!(times(Spread::of(&[1.0]).unwrap()), "×1.00");
    }
}
