//! What the allocator keeps of every page.

use crate::{
    page::{Access, AddressRange, RwxOptIn},
    range_map::Value,
};

/// The state of pages in a [`RegionAllocator`](super::RegionAllocator).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageState {
    /// Given out, and inaccessible.
    Reserved,
    /// Given out, with memory.
    Committed(Access),
    /// A view of a dual mapping.
    Dual,
}

/// Pages that were given out, all in one state and of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionRange {
    /// Where they lie.
    pub addresses: AddressRange,
    /// Their state.
    pub state: PageState,
    /// The owner's tag, 0 where none was given.
    pub tag: u16,
}

/// The record of pages that are not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// No pages of the allocator.
    Foreign,
    /// Given out.
    Ours(PageState, u16),
}

/// The lowest bits say which state, the upper half is the tag.
mod bits {
    pub(super) const FOREIGN: u8 = 0;
    pub(super) const RESERVED: u8 = 1;
    pub(super) const DUAL: u8 = 2;
    pub(super) const INACCESSIBLE: u8 = 3;
    pub(super) const READ: u8 = 4;
    pub(super) const READ_WRITE: u8 = 5;
    pub(super) const READ_EXEC: u8 = 6;
    pub(super) const READ_WRITE_EXEC: u8 = 7;
}

impl Value for Record {
    fn to_bits(self) -> u32 {
        let (state, tag) = match self {
            Self::Foreign => (bits::FOREIGN, 0),
            Self::Ours(PageState::Reserved, tag) => (bits::RESERVED, tag),
            Self::Ours(PageState::Dual, tag) => (bits::DUAL, tag),
            Self::Ours(PageState::Committed(access), tag) => (
                match access {
                    Access::None => bits::INACCESSIBLE,
                    Access::Read => bits::READ,
                    Access::ReadWrite => bits::READ_WRITE,
                    Access::ReadExec => bits::READ_EXEC,
                    Access::ReadWriteExec(_) => bits::READ_WRITE_EXEC,
                },
                tag,
            ),
        };
        u32::from(tag) << 16 | u32::from(state)
    }

    fn from_bits(value: u32) -> Self {
        let [state, _, low, high] = value.to_le_bytes();
        let access = match state {
            bits::FOREIGN => return Self::Foreign,
            bits::INACCESSIBLE => Some(Access::None),
            bits::READ => Some(Access::Read),
            bits::READ_WRITE => Some(Access::ReadWrite),
            bits::READ_EXEC => Some(Access::ReadExec),
            // SAFETY: the value was made of an access that carried the consent.
            bits::READ_WRITE_EXEC => Some(Access::ReadWriteExec(unsafe { RwxOptIn::accept() })),
            _ => None,
        };
        let state = match (access, state) {
            (Some(access), _) => PageState::Committed(access),
            (None, bits::DUAL) => PageState::Dual,
            _ => PageState::Reserved,
        };
        Self::Ours(state, u16::from_le_bytes([low, high]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_their_bits() {
        // SAFETY: nothing is mapped here.
        let opt_in = unsafe { RwxOptIn::accept() };
        let accesses = [
            Access::None,
            Access::Read,
            Access::ReadWrite,
            Access::ReadExec,
            Access::ReadWriteExec(opt_in),
        ];
        let committed = accesses.map(PageState::Committed);
        let states = [PageState::Reserved, PageState::Dual];
        assert_eq!(
            Record::from_bits(Record::Foreign.to_bits()),
            Record::Foreign
        );
        for state in committed.into_iter().chain(states) {
            for tag in [0, 1, 0xabcd, u16::MAX] {
                let record = Record::Ours(state, tag);
                assert_eq!(Record::from_bits(record.to_bits()), record);
            }
        }
    }
}
