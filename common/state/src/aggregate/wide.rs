//! A wrapping 256-bit integer: just what exact sums of squares need.

/// An integer modulo 2^256, read as two's complement where a sign matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wide {
    high: u128,
    low: u128,
}

impl Wide {
    /// Returns the product of two 128-bit numbers, which always fits.
    pub(crate) fn product(a: u128, b: u128) -> Self {
        const MASK: u128 = u64::MAX as u128;
        let (a1, a0, b1, b0) = (a >> 64, a & MASK, b >> 64, b & MASK);
        let (low, mid_a, mid_b) = (a0 * b0, a1 * b0, a0 * b1);
        let carry = (low >> 64) + (mid_a & MASK) + (mid_b & MASK);
        Self {
            high: a1 * b1 + (mid_a >> 64) + (mid_b >> 64) + (carry >> 64),
            low: (carry << 64) | (low & MASK),
        }
    }

    /// Returns the square of a number.
    pub(crate) fn square(a: i128) -> Self {
        Self::product(a.unsigned_abs(), a.unsigned_abs())
    }

    /// Adds, wrapping.
    #[must_use]
    pub(crate) fn add(self, other: Self) -> Self {
        let (low, carry) = self.low.overflowing_add(other.low);
        let high = self.high.wrapping_add(other.high).wrapping_add(carry.into());
        Self { high, low }
    }

    /// Returns the inverse under [`Wide::add`].
    #[must_use]
    pub(crate) fn negated(self) -> Self {
        Self { high: !self.high, low: !self.low }.add(Self { high: 0, low: 1 })
    }

    /// Multiplies, wrapping.
    #[must_use]
    pub(crate) fn times(self, factor: u64) -> Self {
        let factor = u128::from(factor);
        let low = Self::product(self.low, factor);
        Self { high: low.high.wrapping_add(self.high.wrapping_mul(factor)), low: low.low }
    }

    /// Returns the nearest float (ties to even); a negative number gives zero.
    pub(crate) fn to_f64(self) -> f64 {
        if self.high >> 127 == 1 {
            return 0.0;
        }
        let bits =
            if self.high == 0 { 128 - self.low.leading_zeros() } else { 256 - self.high.leading_zeros() };
        let shift = bits.saturating_sub(64);
        // The top 64 bits, the last of them set when anything below is: rounding
        // those to 53 rounds the whole number.
        let (top, below) = match shift {
            0 => (self.low, false),
            1..128 => {
                let rest = self.low & ((1 << shift) - 1);
                (self.low >> shift | self.high << (128 - shift), rest != 0)
            }
            _ => {
                let rest = self.high & ((1 << (shift - 128)) - 1);
                (self.high >> (shift - 128), rest != 0 || self.low != 0)
            }
        };
        (top as u64 | u64::from(below)) as f64 * f64::from_bits(u64::from(1023 + shift) << 52)
    }

    /// The number of 64-bit words.
    pub(crate) const WORDS: usize = 4;

    /// Returns the words, least first.
    pub(crate) fn to_words(self) -> [u64; Self::WORDS] {
        [self.low as u64, (self.low >> 64) as u64, self.high as u64, (self.high >> 64) as u64]
    }

    /// Reads what [`Wide::to_words`] wrote, from the first of these.
    pub(crate) fn from_words(words: &[u64]) -> Self {
        let half = |at: usize| u128::from(words[at + 1]) << 64 | u128::from(words[at]);
        Self { high: half(2), low: half(0) }
    }

    /// Returns the 32 bytes, least first.
    pub(crate) fn to_le_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.low.to_le_bytes());
        bytes[16..].copy_from_slice(&self.high.to_le_bytes());
        bytes
    }

    /// Reads what [`Wide::to_le_bytes`] wrote.
    pub(crate) fn from_le_bytes(bytes: [u8; 32]) -> Self {
        let half = |at: usize| u128::from_le_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"));
        Self { high: half(16), low: half(0) }
    }
}

/// Returns `10^exponent` as a float by repeated multiplication, which rounds
/// alike on every machine (the library's `powi` need not).
pub(crate) fn power_of_ten(exponent: u32) -> f64 {
    (0..exponent).fold(1.0, |power, _| power * 10.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wide(value: i128) -> Wide {
        let magnitude = Wide::product(value.unsigned_abs(), 1);
        if value < 0 { magnitude.negated() } else { magnitude }
    }

    proptest! {
        #![proptest_config(crate::aggregate::same_cases())]

        #[test]
        fn agrees_with_128_bits_where_they_suffice(a in any::<i64>(), b in any::<i64>(), f in any::<u64>()) {
            let (a, b) = (i128::from(a), i128::from(b));
            prop_assert_eq!(wide(a).add(wide(b)), wide(a + b));
            prop_assert_eq!(wide(a).negated(), wide(-a));
            prop_assert_eq!(Wide::square(a), wide(a * a));
            prop_assert_eq!(wide(a).times(f >> 1), wide(a * i128::from(f >> 1)));
        }

        #[test]
        fn is_a_ring(a in any::<i128>(), b in any::<u128>(), f in any::<u64>(), g in any::<u64>()) {
            let sum = u128::from(f) + u128::from(g);
            prop_assert_eq!(
                Wide::square(a).times(f).add(Wide::square(a).times(g)),
                Wide::square(a).times(sum as u64).add(if sum >> 64 == 1 {
                    let shifted = Wide::square(a).times(1 << 63);
                    shifted.add(shifted)
                } else {
                    Wide::default()
                })
            );
            prop_assert_eq!(Wide::product(b, u128::from(f)), Wide::product(b, 1).times(f));
            prop_assert_eq!(Wide::from_le_bytes(Wide::square(a).to_le_bytes()), Wide::square(a));
        }

        #[test]
        fn rounds_to_the_nearest_float(a in any::<u128>(), shift in 0_u32..127) {
            let a = a >> shift;
            prop_assert_eq!(Wide::product(a, 1).to_f64(), a as f64);
            let scaled = Wide::product(a >> 1, 1 << 127).to_f64();
            prop_assert_eq!(scaled, (a >> 1) as f64 * 2_f64.powi(127));
        }
    }

    #[test]
    fn a_bit_far_below_a_tie_decides_it() {
        let tie = 1_u128 << 127 | 1 << 74;
        for a in [tie, tie + 1, tie - 1, tie | 1 << 75, (tie | 1 << 75) - 1] {
            assert_eq!(Wide::product(a, 1).to_f64(), a as f64, "{a:x}");
        }
        let power = 2_f64.powi(255);
        let wide = |low| Wide { high: 1 << 126 | 1 << 73, low };
        assert_eq!(wide(0).to_f64(), power / 2.0, "to even");
        assert_eq!(wide(1).to_f64(), (1_u64 << 53 | 2) as f64 * 2_f64.powi(201));
    }
}
