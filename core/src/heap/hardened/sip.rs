//! SipHash-1-3 of one word.

/// SipHash-1-3 of one word, by a key whose part of the state is computed once. The crate
/// `siphasher`, which tests compare it with, takes longer for a word, as it hashes bytes of any
/// number.
pub(super) struct Sip([u64; 4]);

impl Sip {
    pub(super) const fn new(key: &[u8; 16]) -> Self {
        let key = u128::from_le_bytes(*key);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let (low, high) = (key as u64, (key >> 64) as u64);
        Self([
            low ^ 0x736f_6d65_7073_6575,
            high ^ 0x646f_7261_6e64_6f6d,
            low ^ 0x6c79_6765_6e65_7261,
            high ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline]
    pub(super) const fn hash(&self, word: u64) -> u64 {
        const LENGTH: u64 = 8 << 56;
        let mut v = self.0;
        v[3] ^= word;
        v = Self::round(v);
        v[0] ^= word;
        v[3] ^= LENGTH;
        v = Self::round(v);
        v[0] ^= LENGTH;
        v[2] ^= 0xff;
        v = Self::round(Self::round(Self::round(v)));
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }

    /// Returns the canary of an address as it lies in memory, the first byte of which is zero.
    #[inline]
    pub(super) const fn canary(&self, addr: usize) -> u64 {
        (self.hash(addr as u64) & !0xff).to_le()
    }

    #[inline]
    const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        [a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::array;
    use siphasher::sip::SipHasher13;

    #[test]
    fn words_are_hashed_as_by_the_crate() {
        for n in 0..1000_u64 {
            let key = array::from_fn(|byte| {
                let [low, ..] = (n * 31 + 7 * byte as u64).to_le_bytes();
                low
            });
            let word = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let expected = SipHasher13::new_with_key(&key).hash(&word.to_le_bytes());
            assert_eq!(Sip::new(&key).hash(word), expected);
        }
    }
}
