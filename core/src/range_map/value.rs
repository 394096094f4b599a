//! Values of ranges, and their bits.

/// A small value, kept as 32 bits, or 64, so that readers without a lock get it whole.
///
/// Values of 32 bits take less room. One of 64, a pointer to what is known of a mapping for
/// instance, overrides [`Value::to_bits64`] and [`Value::from_bits64`], which are all that a map
/// uses. What it points to may be asked for by readers for some time after the map has forgotten
/// it: it is retired, not freed, and freed once no reader from before is under way. A reader holds
/// what it got no longer than it says, by a counter of readers, an epoch, or a lock of its own
/// around `query` and the use of its answer. [`jit::retire`](crate::jit) does the same for code. A
/// map whose readers are the threads that change it needs nothing of that.
///
/// # Examples
///
/// ```
/// use hostmem_core::range_map::Value;
///
/// /// A mapping by its number: mappings that touch stay apart.
/// #[derive(Clone, Copy, PartialEq, Eq)]
/// struct Mapping(u32);
///
/// impl Value for Mapping {
///     fn to_bits(self) -> u32 {
///         self.0
///     }
///     fn from_bits(bits: u32) -> Self {
///         Self(bits)
///     }
///     fn joins(self) -> bool {
///         false
///     }
/// }
/// ```
pub trait Value: Copy + Eq {
    /// Returns the bits that stand for the value: the same for equal values, others for others.
    fn to_bits(self) -> u32;

    /// Returns the value that [`Value::to_bits`] made `bits` of. It is called with nothing else.
    fn from_bits(bits: u32) -> Self;

    /// As [`Value::to_bits`], of values that take more than 32 bits.
    #[inline]
    fn to_bits64(self) -> u64 {
        self.to_bits().into()
    }

    /// As [`Value::from_bits`], of what [`Value::to_bits64`] made.
    #[inline]
    fn from_bits64(bits: u64) -> Self {
        let [a, b, c, d, ..] = bits.to_le_bytes();
        Self::from_bits(u32::from_le_bytes([a, b, c, d]))
    }

    /// Says whether ranges that touch and both have this value become one. They do unless an
    /// implementation says otherwise.
    fn joins(self) -> bool {
        true
    }
}

impl Value for () {
    fn to_bits(self) -> u32 {
        0
    }
    fn from_bits(_: u32) -> Self {}
}

impl Value for bool {
    fn to_bits(self) -> u32 {
        self.into()
    }
    fn from_bits(bits: u32) -> Self {
        bits != 0
    }
}

impl Value for u8 {
    fn to_bits(self) -> u32 {
        self.into()
    }
    fn from_bits(bits: u32) -> Self {
        let [byte, ..] = bits.to_le_bytes();
        byte
    }
}

impl Value for u16 {
    fn to_bits(self) -> u32 {
        self.into()
    }
    fn from_bits(bits: u32) -> Self {
        let [low, high, ..] = bits.to_le_bytes();
        Self::from_le_bytes([low, high])
    }
}

impl Value for u32 {
    fn to_bits(self) -> u32 {
        self
    }
    fn from_bits(bits: u32) -> Self {
        bits
    }
}

/// All 64 bits are kept. `to_bits` and `from_bits` are of the lower half.
impl Value for u64 {
    fn to_bits(self) -> u32 {
        let [a, b, c, d, ..] = self.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
    fn from_bits(bits: u32) -> Self {
        bits.into()
    }
    #[inline]
    fn to_bits64(self) -> u64 {
        self
    }
    #[inline]
    fn from_bits64(bits: u64) -> Self {
        bits
    }
}

impl Value for i32 {
    fn to_bits(self) -> u32 {
        self.cast_unsigned()
    }
    fn from_bits(bits: u32) -> Self {
        bits.cast_signed()
    }
}

impl Value for [u8; 4] {
    fn to_bits(self) -> u32 {
        u32::from_le_bytes(self)
    }
    fn from_bits(bits: u32) -> Self {
        bits.to_le_bytes()
    }
}
