//! What the allocator keeps of every page.

use crate::{
    page::{Access, AddressRange, RwxOptIn},
    provider::PageWish,
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
    /// In a forked child: a call was mapping or unmapping these pages when the process forked.
    /// Where it was interrupted on the thread that forked, it completes when it resumes; where its
    /// thread is not in the child, nobody has them. Nothing else is placed there until they are
    /// [unmapped](super::RegionAllocator::unmap), for instance by
    /// [`free_interrupted`](super::RegionAllocator::free_interrupted).
    Interrupted,
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

bitflags::bitflags! {
    /// What else is remembered of pages.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Notes: u8 {
        /// Large pages were wished for.
        const LARGE = 1 << 0;
        /// They are a mapping of their own, which does not join its neighbours: they were moved,
        /// have a name, or are left out of core files.
        const APART = 1 << 1;
    }
}

impl Notes {
    pub(super) const fn of_wish(pages: PageWish) -> Self {
        match pages {
            PageWish::Base => Self::empty(),
            PageWish::Transparent | PageWish::Large { .. } => Self::LARGE,
        }
    }
}

/// The owner's tag, and what else is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) tag: u16,
    pub(super) notes: Notes,
}

impl Mark {
    pub(super) const fn of(tag: u16) -> Self {
        Self {
            tag,
            notes: Notes::empty(),
        }
    }
}

/// The record of pages that are not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// No pages of the allocator.
    Foreign,
    /// Given out.
    Ours(PageState, Mark),
}

/// The lowest bits say which state, the next eight are notes, the upper half is the tag.
mod bits {
    pub(super) const FOREIGN: u8 = 0;
    pub(super) const RESERVED: u8 = 1;
    pub(super) const DUAL: u8 = 2;
    pub(super) const INACCESSIBLE: u8 = 3;
    pub(super) const READ: u8 = 4;
    pub(super) const READ_WRITE: u8 = 5;
    pub(super) const READ_EXEC: u8 = 6;
    pub(super) const READ_WRITE_EXEC: u8 = 7;
    pub(super) const INTERRUPTED: u8 = 8;
}

impl Value for Record {
    #[inline]
    fn to_bits(self) -> u32 {
        let (state, mark) = match self {
            Self::Foreign => (bits::FOREIGN, Mark::of(0)),
            Self::Ours(PageState::Reserved, mark) => (bits::RESERVED, mark),
            Self::Ours(PageState::Dual, mark) => (bits::DUAL, mark),
            Self::Ours(PageState::Interrupted, mark) => (bits::INTERRUPTED, mark),
            Self::Ours(PageState::Committed(access), mark) => (
                match access {
                    Access::None => bits::INACCESSIBLE,
                    Access::Read => bits::READ,
                    Access::ReadWrite => bits::READ_WRITE,
                    Access::ReadExec => bits::READ_EXEC,
                    Access::ReadWriteExec(_) => bits::READ_WRITE_EXEC,
                },
                mark,
            ),
        };
        let [low, high] = mark.tag.to_le_bytes();
        u32::from_le_bytes([state, mark.notes.bits(), low, high])
    }

    #[inline]
    fn joins(self) -> bool {
        !matches!(self, Self::Ours(_, mark) if mark.notes.contains(Notes::APART))
    }

    #[inline]
    fn from_bits(value: u32) -> Self {
        let [state, notes, low, high] = value.to_le_bytes();
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
            (None, bits::INTERRUPTED) => PageState::Interrupted,
            _ => PageState::Reserved,
        };
        let mark = Mark {
            tag: u16::from_le_bytes([low, high]),
            notes: Notes::from_bits_retain(notes),
        };
        Self::Ours(state, mark)
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
        let states = [PageState::Reserved, PageState::Dual, PageState::Interrupted];
        assert_eq!(
            Record::from_bits(Record::Foreign.to_bits()),
            Record::Foreign
        );
        for state in committed.into_iter().chain(states) {
            for tag in [0, 1, 0xabcd, u16::MAX] {
                for notes in [Notes::empty(), Notes::LARGE, Notes::all()] {
                    let record = Record::Ours(state, Mark { tag, notes });
                    assert_eq!(Record::from_bits(record.to_bits()), record);
                }
            }
        }
    }
}
