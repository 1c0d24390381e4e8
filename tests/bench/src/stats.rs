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

/// By how much a value grows when the work doubles, from its values at two sizes of the work: 2 where it grows with it, 1 where not at all.
pub(crate) fn doubling(work: [f64; 2], values: [f64; 2]) -> Option<f64> {
    let doublings = (work[1] / work[0]).log2();
    let factor = (values[1] / values[0]).powf(1.0 / doublings);
    (factor.is_finite() && doublings > 0.0).then_some(factor)
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
    fn what_grows_with_the_work_doubles_with_it() {
        let near = |found: Option<f64>, wanted: f64| (found.unwrap() - wanted).abs() < 1e-9;
        assert!(near(doubling([64.0, 512.0], [1.0, 8.0]), 2.0));
        assert!(near(doubling([64.0, 512.0], [5.0, 5.0]), 1.0));
        assert!(near(doubling([1.0, 4.0], [1.0, 16.0]), 4.0));
    }

    #[test]
    fn without_values_or_without_more_work_nothing_doubles() {
        assert_eq!(doubling([1.0, 2.0], [0.0, 1.0]), None);
        assert_eq!(doubling([1.0, 1.0], [1.0, 1.0]), None);
        assert_eq!(doubling([1.0, 2.0], [f64::NAN, 1.0]), None);
    }

    #[test]
    fn a_ratio_is_that_of_neighbouring_runs() {
        // The medians of each side alone would give 200 / 100.
        let found = ratios(&[100.0, 200.0, 300.0], &[100.0, 100.0, 300.0]);
        assert_eq!(Spread::of(&found).unwrap().median, 1.0);
    }
}
