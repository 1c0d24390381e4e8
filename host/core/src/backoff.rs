//! When to try again.

use crate::model::Millis;

/// Waits that double from `first` to `max`, with full jitter: a random share of the wait, so that a fleet does not come back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Millis,
    /// The longest.
    pub max: Millis,
}

impl Backoff {
    /// The wait before attempt `failed + 1`, when `failed` (at least 1) attempts failed in a row. `random` is any number; the
    /// wait is between a half and the whole of the doubled value, so that it never hammers.
    pub fn wait(&self, failed: u32, random: u64) -> Millis {
        let doubled = self
            .first
            .checked_shl(failed.saturating_sub(1).min(62))
            .unwrap_or(u64::MAX);
        // `checked_shl` only looks at the shift, not at lost bits.
        let whole = if failed > 40 {
            self.max
        } else {
            doubled.clamp(self.first.min(self.max), self.max)
        };
        let half = whole / 2;
        half + random % (whole - half + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff {
            first: 1_000,
            max: 60_000,
        };
        let longest: Vec<Millis> = (1..=8)
            .map(|n| {
                (0..200)
                    .map(|r| backoff.wait(n, r * 7919))
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for (n, (longest, whole)) in longest
            .iter()
            .zip([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000])
            .enumerate()
        {
            assert!(
                *longest <= whole && *longest > whole * 9 / 10,
                "attempt {n}: {longest} of {whole}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_never_above_the_longest_nor_below_half_the_first(failed in 1u32..10_000, random: u64, first in 1u64..10_000, more in 0u64..1_000_000) {
            let backoff = Backoff { first, max: first + more };
            let wait = backoff.wait(failed, random);
            prop_assert!(wait >= first / 2 && wait <= first + more);
        }
    }
}
