//! What a range map keeps for a range.

/// A small value, kept as 32 bits so that readers without a lock get it whole.
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
