//! A stream of decisions that is the same for the same seed, everywhere and for ever.

/// SplitMix64 (Steele, Lea, Flood 2014): 64 bits of state are plenty for choosing what a power cut leaves.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to `bound`, both included.
    pub(super) fn up_to(&mut self, bound: u64) -> u64 {
        match bound.checked_add(1) {
            Some(choices) => self.next() % choices,
            None => self.next(),
        }
    }

    /// True this many times in a hundred.
    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.up_to(99) < chance
    }
}
