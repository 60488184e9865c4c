//! Numbers that look random and follow from a seed.

/// A number that depends on all of `words`.
pub fn mix(words: &[u64]) -> u64 {
    words.iter().fold(0x9E37_79B9_7F4A_7C15, |state, &word| {
        // splitmix64.
        let mut z = (state ^ word).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// A row of them.
#[derive(Debug, Clone)]
pub struct Random {
    seed: u64,
    count: u64,
}

impl Random {
    /// The row of a seed.
    pub fn new(seed: u64) -> Random {
        Random { seed, count: 0 }
    }

    /// The next one.
    pub fn next(&mut self) -> u64 {
        self.count += 1;
        mix(&[self.seed, self.count])
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }
}
