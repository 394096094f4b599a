//! What [`dynasm!`] expands to calls, without the standard library: a vector of bytes, with labels.
//!
//! The macro asks for a crate `dynasmrt`, whose place this one takes: users rename it to that. It
//! has what the two code generators of the emulator use, and no more: x86-64 and AArch64,
//! references to local labels that are to come, and to dynamic ones.

#![no_std]

extern crate alloc;

pub use dynasm::dynasm;

use alloc::vec::Vec;

/// A label without a name.
#[derive(Clone, Copy, Debug)]
pub struct DynamicLabel(usize);

/// What a distance is an operand of, as the macro numbers them.
#[derive(Clone, Copy, Debug)]
enum Field {
    Byte,
    Long,
    /// `b`, `bl`: 26 bits.
    Branch,
    /// `b.cond`, `cbz`, `cbnz`, `ldr`: 19 bits.
    Conditional,
}

impl Field {
    const fn of(encoding: u8) -> Self {
        match encoding {
            0 => Self::Byte,
            2 => Self::Long,
            4 => Self::Branch,
            5 => Self::Conditional,
            _ => panic!("the generators use no such operand"),
        }
    }

    /// Writes a distance into what the macro emitted.
    ///
    /// # Panics
    ///
    /// Where the operand does not reach so far.
    fn write(self, field: &mut [u8], distance: isize) {
        // Instructions of AArch64 have the distance in words: `len_bits` of it, from bit `shift`
        // on.
        let (shift, len_bits) = match self {
            Self::Byte => {
                let byte = i8::try_from(distance);
                field[0] = byte.expect("a near label").cast_unsigned();
                return;
            }
            Self::Long => {
                let word = i32::try_from(distance).expect("a label of this block");
                field[..4].copy_from_slice(&word.to_le_bytes());
                return;
            }
            Self::Branch => (0, 26),
            Self::Conditional => (5, 19),
        };
        let words = distance >> 2;
        let fits = words >> (len_bits - 1) == 0 || words >> (len_bits - 1) == -1;
        assert!(fits && words << 2 == distance, "a label out of reach");
        let [a, b, c, d, ..] = words.to_le_bytes();
        let bits = (u32::from_le_bytes([a, b, c, d]) & ((1 << len_bits) - 1)) << shift;
        for (byte, more) in field.iter_mut().zip(bits.to_le_bytes()) {
            *byte |= more;
        }
    }
}

/// A place that is to have the distance to a label.
#[derive(Clone, Copy, Debug)]
struct Reference {
    label: DynamicLabel,
    /// Where the operand is, and where the distance is counted from.
    field_at: usize,
    from: usize,
    field: Field,
}

/// Code in the making.
#[derive(Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
    /// Where labels are defined.
    labels: Vec<Option<usize>>,
    /// What local labels stand for: of one name, the last is current.
    names: Vec<(&'static str, DynamicLabel)>,
    references: Vec<Reference>,
}

impl Extend<u8> for Assembler {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.bytes.extend(bytes);
    }
}

impl<'a> Extend<&'a u8> for Assembler {
    fn extend<I: IntoIterator<Item = &'a u8>>(&mut self, bytes: I) {
        self.bytes.extend(bytes);
    }
}

/// What the macro calls to emit numbers.
macro_rules! push {
    ($($(#[$doc:meta])* $name:ident($number:ty);)*) => {$(
        $(#[$doc])*
        #[inline]
        pub fn $name(&mut self, value: $number) {
            self.bytes.extend(value.to_le_bytes());
        }
    )*};
}

impl Assembler {
    /// Makes an assembler without code.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many bytes there are.
    #[must_use]
    pub const fn offset(&self) -> usize {
        self.bytes.len()
    }

    push! {
        /// Emits a byte.
        push(u8);
        /// Emits a signed byte.
        push_i8(i8);
        /// Emits four bytes.
        push_u32(u32);
        /// Emits a signed number of four bytes.
        push_i32(i32);
    }

    /// Makes a label, to be defined later.
    pub fn new_dynamic_label(&mut self) -> DynamicLabel {
        self.labels.push(None);
        DynamicLabel(self.labels.len() - 1)
    }

    /// Defines a label here.
    pub fn dynamic_label(&mut self, label: DynamicLabel) {
        self.labels[label.0] = Some(self.bytes.len());
    }

    /// Returns the last label of a name that was defined, or was not.
    fn find(&self, name: &str, defined: bool) -> Option<DynamicLabel> {
        let mut found = self.names.iter().rev().filter(|(other, _)| *other == name);
        let (_, label) = found.find(|(_, label)| self.labels[label.0].is_some() == defined)?;
        Some(*label)
    }

    /// Returns the label of a name that is to be defined next.
    fn next(&mut self, name: &'static str) -> DynamicLabel {
        self.find(name, false).unwrap_or_else(|| {
            let label = self.new_dynamic_label();
            self.names.push((name, label));
            label
        })
    }

    /// Defines a local label here.
    pub fn local_label(&mut self, name: &'static str) {
        let label = self.next(name);
        self.dynamic_label(label);
    }

    /// Notes a reference to a local label that is to come.
    pub fn forward_reloc(&mut self, name: &'static str, plus: isize, at: u8, from: u8, kind: u8) {
        let label = self.next(name);
        self.dynamic_reloc(label, plus, at, from, kind);
    }

    /// Notes a reference to a local label that was defined.
    ///
    /// # Panics
    ///
    /// Where it was not.
    pub fn backward_reloc(&mut self, name: &'static str, plus: isize, at: u8, from: u8, kind: u8) {
        let label = self.find(name, true).expect("a label behind");
        self.dynamic_reloc(label, plus, at, from, kind);
    }

    /// Notes a reference to a label: its operand begins `at` bytes before here, and distances are
    /// counted from `from` bytes before here on.
    ///
    /// # Panics
    ///
    /// Where something is to be added to the label's address.
    pub fn dynamic_reloc(&mut self, label: DynamicLabel, plus: isize, at: u8, from: u8, kind: u8) {
        assert!(plus == 0, "the generators use no such operand");
        self.references.push(Reference {
            label,
            field_at: self.bytes.len() - usize::from(at),
            from: self.bytes.len() - usize::from(from),
            field: Field::of(kind),
        });
    }

    /// Returns the code.
    ///
    /// # Panics
    ///
    /// Where a label was not defined, or is out of reach.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        for reference in self.references {
            let at = self.labels[reference.label.0].expect("a label that was defined");
            let field = &mut self.bytes[reference.field_at..];
            let distance = at.wrapping_sub(reference.from).cast_signed();
            reference.field.write(field, distance);
        }
        self.bytes
    }
}

/// What the macro calls for AArch64.
pub mod aarch64 {
    /// Ends the program: a number is no operand of its instruction.
    #[cold]
    pub fn immediate_out_of_range_unsigned_32(number: u32) -> ! {
        panic!("{number} is no operand of this instruction")
    }

    /// Ends the program: a number is no operand of its instruction.
    #[cold]
    pub fn immediate_out_of_range_signed_32(number: i32) -> ! {
        panic!("{number} is no operand of this instruction")
    }

    /// Encodes the operand of `and`, `orr` and `eor`: a run of ones in each element of 2, 4, 8, 16
    /// or 32 bits, turned to the right (Arm ARM, `DecodeBitMasks`). `None` for other numbers.
    #[must_use]
    pub fn encode_logical_immediate_32bit(number: u32) -> Option<u16> {
        let size = [2, 4, 8, 16, 32]
            .into_iter()
            .find(|size| number.rotate_right(*size) == number)?;
        let mask = u32::MAX >> (32 - size);
        let element = number & mask;
        let ones = element.count_ones();
        if ones == 0 || ones == size {
            return None;
        }
        let run = mask >> (size - ones);
        let turned = |right: &u32| (run >> right | run << (size - right)) & mask == element;
        let right = if run == element {
            0
        } else {
            (1..size).find(turned)?
        };
        u16::try_from(right << 6 | !(2 * size - 1) & 0x3f | (ones - 1)).ok()
    }
}
