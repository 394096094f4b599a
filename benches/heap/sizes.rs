//! What sizes are asked for.

use hostmem_bench::random::Random;

/// A mix of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// 8 to 256 bytes, all alike.
    P1,
    /// 16 to 4096 bytes, all alike.
    P2,
    /// Of 1024, 992 of 8 to 512 bytes, 31 up to 8 KiB, and one up to 256 KiB.
    P3,
    /// 5 to 25 million bytes, all alike.
    Large,
    /// Each block has this number of bytes.
    Exactly(usize),
}

impl Mix {
    /// Draws a size.
    #[inline]
    pub fn draw(self, random: &mut Random) -> usize {
        match self {
            Self::P1 => random.within(&(8..=256)),
            Self::P2 => random.within(&(16..=4096)),
            Self::P3 => match random.below(1024) {
                0..992 => random.within(&(8..=512)),
                992..1023 => random.within(&(513..=8 << 10)),
                _ => random.within(&((8 << 10) + 1..=256 << 10)),
            },
            Self::Large => random.within(&(5_000_000..=25_000_000)),
            Self::Exactly(size) => size,
        }
    }
}
