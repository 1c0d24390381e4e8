//! How long to wait before the next connection. Full jitter spreads a fleet whose broker came back: without it all devices knock at
//! the same moment.

use std::time::Duration;

/// A connection that was up this long counts as good: the waits start over.
const STABLE: Duration = Duration::from_secs(60);

/// The waits of one link. Pure: time comes in as a number.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    attempt: u32,
    random: SplitMix,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration, seed: u64) -> Self {
        Self {
            first,
            max,
            attempt: 0,
            random: SplitMix(seed),
        }
    }

    /// The wait after a connection (or an attempt, which was up for zero) ended.
    pub(super) fn next_wait(&mut self, was_up: Duration) -> Duration {
        if was_up >= STABLE {
            self.attempt = 0;
        }
        let limit = self
            .first
            .saturating_mul(1u32.checked_shl(self.attempt).unwrap_or(u32::MAX))
            .min(self.max);
        self.attempt = (self.attempt + 1).min(31);
        limit.mul_f64(self.random.unit())
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for jitter, never for secrets.
#[derive(Debug, Clone)]
struct SplitMix(u64);

impl SplitMix {
    /// Evenly in [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
        let unit = (z >> 11) as f64 / (1u64 << 53) as f64;
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(120);

    #[test]
    fn the_limits_double_from_the_first_to_the_largest_and_waits_fill_them() {
        let limits = [1, 2, 4, 8, 16, 32, 64, 120, 120, 120];
        let mut largest = [Duration::ZERO; 10];
        for seed in 0..2_000 {
            let mut backoff = Backoff::new(FIRST, MAX, seed);
            for (seen, limit) in largest.iter_mut().zip(limits) {
                let wait = backoff.next_wait(Duration::ZERO);
                assert!(wait <= Duration::from_secs(limit));
                *seen = wait.max(*seen);
            }
        }
        for (seen, limit) in largest.iter().zip(limits) {
            assert!(
                *seen > Duration::from_secs(limit).mul_f64(0.95),
                "{seen:?} of {limit} s"
            );
        }
    }

    #[test]
    fn only_a_connection_that_was_up_for_a_minute_starts_the_waits_over() {
        for seed in 0..500 {
            let mut backoff = Backoff::new(FIRST, MAX, seed);
            for _ in 0..10 {
                backoff.next_wait(Duration::from_secs(59));
            }
            assert_eq!(backoff.attempt, 10);
            assert!(backoff.next_wait(Duration::from_secs(60)) <= FIRST);
            assert_eq!(backoff.attempt, 1);
        }
    }

    /// M01: under ten connections a minute. Full jitter makes it a matter of chance, so the promise is about the fleet.
    #[test]
    fn m01_a_dead_broker_sees_fewer_than_ten_connections_a_minute_from_nearly_every_device() {
        let mut over = 0;
        for seed in 0..10_000 {
            let mut backoff = Backoff::new(FIRST, MAX, seed);
            let mut elapsed = Duration::ZERO;
            let mut connections = 0;
            while elapsed < Duration::from_secs(60) && connections < 100 {
                connections += 1;
                elapsed += backoff.next_wait(Duration::ZERO);
            }
            over += u32::from(connections >= 10);
            assert!(connections < 20, "seed {seed}");
        }
        assert!(
            over < 500,
            "{over} of 10,000 devices connect ten times or more"
        );
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff::new(FIRST, MAX, 7);
        for _ in 0..1_000 {
            assert!(backoff.next_wait(Duration::ZERO) <= MAX);
        }
    }
}
