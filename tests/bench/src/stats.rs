//! What is made of several runs of the same thing.

/// Middle and ends of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The middle one, or the middle of the two in the middle.
    pub(crate) median: f64,
    /// The least.
    pub(crate) least: f64,
    /// The most.
    pub(crate) most: f64,
}

impl Spread {
    /// Of these values; of none there is nothing to say, and neither is of what is no number.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        if sorted.is_empty() || sorted.iter().any(|value| !value.is_finite()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Spread {
            median,
            least: sorted[0],
            most: sorted[sorted.len() - 1],
        })
    }
}

/// The median alone; not a number where there is none.
pub(crate) fn median(values: &[f64]) -> f64 {
    Spread::of(values).map_or(f64::NAN, |spread| spread.median)
}

/// The ratios of neighbouring runs. What one side has more of has no neighbour.
pub(crate) fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(a, b)| a / b).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_even_number_of_values_has_the_middle_of_two() {
        let spread = Spread::of(&[1.0, 2.0, 4.0, 3.0]).unwrap();
        assert_eq!((spread.median, spread.least, spread.most), (2.5, 1.0, 4.0));
        assert_eq!(Spread::of(&[7.0, 5.0, 6.0]).unwrap().median, 6.0);
    }

    #[test]
    fn of_nothing_and_of_no_number_there_is_no_median() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
        assert_eq!(Spread::of(&[1.0 / 0.0]), None);
    }

    #[test]
    fn a_ratio_is_that_of_neighbouring_runs() {
        // The medians of each side alone would give 200 / 100.
        let found = ratios(&[100.0, 200.0, 300.0], &[100.0, 100.0, 300.0]);
        assert_eq!(Spread::of(&found).unwrap().median, 1.0);
    }
}
