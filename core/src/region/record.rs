//! The record that the allocator keeps of every page.

use crate::{
    page::{Access, AddressRange, PageSize, RwxOptIn},
    provider::{Capabilities, Commit, Dump, PageWish, is_mapping_name},
    range_map::Value,
};
use core::{
    ffi::CStr,
    sync::atomic::{AtomicU64, Ordering},
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
    /// thread is not in the child, no call has them. Nothing else is placed there until they are
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
    /// Other properties of pages.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Notes: u8 {
        /// Large pages were wished for.
        const LARGE = 1 << 0;
        /// Large pages are not welcome.
        const NEVER = 1 << 1;
        /// They are left out of core files.
        const NO_DUMP = 1 << 2;
        /// The caller mapped them, not the provider below.
        const PLACED = 1 << 3;
        /// The caller mapped them, and they were writable once: Linux counts private memory against
        /// what may be committed from then on, and keeps it apart from what never was writable.
        const WAS_WRITABLE = 1 << 4;
        /// Both wishes about large pages.
        const WISHES = Self::LARGE.bits() | Self::NEVER.bits();
    }
}

impl Notes {
    /// Returns the notes of pages that were committed with this wish.
    const fn of_wish(pages: PageWish) -> Self {
        match pages {
            PageWish::Base => Self::empty(),
            PageWish::Transparent | PageWish::Large { .. } => Self::LARGE,
            PageWish::Never => Self::NEVER,
        }
    }
}

/// Tells mappings of the host that touch apart, though they are alike: each gets another colour
/// than its neighbours have when it is made, and parts of it keep that, so that they join again and
/// with nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Colour(u8);

impl Colour {
    /// The colour of pages that the host joins with any others that are alike.
    pub(super) const NONE: Self = Self(0);
    const MASK: u8 = 3;

    /// Returns one that neither neighbour has.
    pub(super) fn other_than(neighbours: [Self; 2]) -> Self {
        let free = [1, 2, 3].map(Self);
        let free = free.into_iter().find(|one| !neighbours.contains(one));
        free.expect("two neighbours have two colours at most")
    }
}

/// The number of a name that pages have in the process map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Name(u8);

impl Name {
    /// None.
    pub(super) const NONE: Self = Self(0);
    /// One of those that have no number.
    pub(super) const OTHER: Self = Self(Self::MASK);
    const MASK: u8 = 63;
}

/// Names that were given to pages, by their hashes: pages of one name are one mapping of the host.
pub(super) struct Names([AtomicU64; Name::MASK as usize - 1]);

impl Names {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Name::MASK as usize - 1])
    }

    /// Returns the number of a name, which gets one as long as there are some.
    pub(super) fn number(&self, name: &CStr) -> Name {
        if !is_mapping_name(name) {
            return Name::NONE;
        }
        // FNV-1a, <https://www.rfc-editor.org/rfc/rfc9923>.
        let hash = name
            .to_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
            });
        let hash = hash.max(1);
        for (slot, number) in self.0.iter().zip(1..) {
            let known = match slot.load(Ordering::Relaxed) {
                // Others may give it one at the same time: in a child, a call that was interrupted.
                0 => slot
                    .compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed)
                    .map_or_else(|known| known, |_| hash),
                known => known,
            };
            if known == hash {
                return Name(number);
            }
        }
        Name::OTHER
    }
}

/// The owner's tag, and what else is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) tag: u16,
    pub(super) notes: Notes,
    pub(super) name: Name,
    pub(super) colour: Colour,
}

impl Mark {
    pub(super) const fn of(tag: u16) -> Self {
        Self {
            tag,
            notes: Notes::empty(),
            name: Name::NONE,
            colour: Colour::NONE,
        }
    }

    /// The mark of what a caller mapped.
    pub(super) const fn placed(tag: u16, colour: Colour) -> Self {
        Self {
            notes: Notes::PLACED,
            colour,
            ..Self::of(tag)
        }
    }

    /// Returns the mark of pages that were given a name, or left out of core files.
    pub(super) fn described(
        mut self,
        name: Option<Name>,
        dump: Dump,
        colour: impl FnOnce() -> Colour,
    ) -> Self {
        if let Some(name) = name {
            self.name = name;
            if name == Name::OTHER && self.colour == Colour::NONE {
                self.colour = colour();
            }
        }
        if dump == Dump::Excluded {
            self.notes |= Notes::NO_DUMP;
        }
        self
    }

    /// Returns the mark of pages of whose sizes another thing is wished.
    pub(super) fn wished(mut self, wish: Notes) -> Self {
        self.notes.remove(Notes::WISHES);
        self.notes |= wish;
        self
    }

    /// Returns the part of the mark by which a host with these capabilities tells mappings apart.
    pub(super) fn seen_by(mut self, can: Capabilities) -> Self {
        // Who has pages, and who mapped them, is all the same to it.
        self.tag = 0;
        self.notes.remove(Notes::PLACED);
        if !can.contains(Capabilities::NAMES) {
            self.name = Name::NONE;
        }
        if !can.contains(Capabilities::CORE_FILES) {
            self.notes.remove(Notes::NO_DUMP);
        }
        if !can.contains(Capabilities::PAGE_ADVICE) {
            self.notes.remove(Notes::WISHES);
        }
        self
    }

    /// Says whether the host keeps nothing for the pages beside their access.
    pub(super) fn is_plain(self) -> bool {
        self == Self::of(self.tag)
    }

    /// Returns the mark of the guards around pages with this one: what a request says of all of it,
    /// and nothing of what only the pages between them are.
    pub(super) fn of_guards(self) -> Self {
        let colour = match self.name {
            Name::OTHER => self.colour,
            _ => Colour::NONE,
        };
        Self {
            notes: self.notes & Notes::NO_DUMP,
            colour,
            ..self
        }
    }

    /// Returns the mark of pages that are in a state now.
    pub(super) fn known_as(mut self, state: PageState) -> Self {
        let writable = matches!(state, PageState::Committed(access) if access.writable());
        if writable && self.notes.contains(Notes::PLACED) {
            self.notes |= Notes::WAS_WRITABLE;
        }
        self
    }

    /// Returns the mark of pages that have got another mapping of the host.
    pub(super) const fn replaced(self) -> Self {
        Self::of(self.tag)
    }

    /// Returns the mark of pages committed with a wish, which got pages of `got` bytes where the
    /// host's have `page`.
    pub(super) fn committed(
        self,
        how: Commit,
        (got, page): (PageSize, PageSize),
        colour: impl FnOnce() -> Colour,
    ) -> Self {
        // Notes of pages go with them.
        let replaced = got != page || how.access.executable();
        let mut mark = if replaced { self.replaced() } else { self };
        if got != page {
            // A file of the host's own, for each commit another one.
            mark.colour = colour();
        }
        let is_base = got == page && matches!(how.pages, PageWish::Large { .. });
        let wish = Notes::of_wish(how.pages);
        if !wish.is_empty() && !is_base {
            mark = mark.wished(wish);
        }
        mark
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

/// ```text
///   31            16 15      12 11   10 9       4 3      0
///   ├───── tag ─────┼─ notes ──┼colour ┼─ name ──┼─ state ─┤
/// ```
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
    /// What an access has more where the pages [were writable](super::Notes::WAS_WRITABLE) once.
    pub(super) const WAS_WRITABLE: u8 = 6;

    /// The bits of a state.
    pub(super) const STATE: u16 = 15;
    /// Where the others begin.
    pub(super) const NAME: u32 = 4;
    pub(super) const COLOUR: u32 = 10;
    pub(super) const NOTES: u32 = 12;
    pub(super) const TAG: u32 = 16;
}

impl Value for Record {
    #[inline]
    fn to_bits(self) -> u32 {
        let (state, mark) = match self {
            Self::Foreign => (bits::FOREIGN, Mark::of(0)),
            Self::Ours(PageState::Reserved, mark) => (bits::RESERVED, mark),
            Self::Ours(PageState::Dual, mark) => (bits::DUAL, mark),
            Self::Ours(PageState::Interrupted, mark) => (bits::INTERRUPTED, mark),
            Self::Ours(PageState::Committed(access), mark) => {
                let access = match access {
                    Access::None => bits::INACCESSIBLE,
                    Access::Read => bits::READ,
                    Access::ReadWrite => bits::READ_WRITE,
                    Access::ReadExec => bits::READ_EXEC,
                    Access::ReadWriteExec(_) => bits::READ_WRITE_EXEC,
                };
                if mark.notes.contains(Notes::WAS_WRITABLE) {
                    (access + bits::WAS_WRITABLE, mark)
                } else {
                    (access, mark)
                }
            }
        };
        let notes = mark.notes - Notes::WAS_WRITABLE;
        u32::from(state)
            | u32::from(mark.name.0) << bits::NAME
            | u32::from(mark.colour.0) << bits::COLOUR
            | u32::from(notes.bits()) << bits::NOTES
            | u32::from(mark.tag) << bits::TAG
    }

    #[inline]
    fn from_bits(value: u32) -> Self {
        let [low, middle, tag @ ..] = value.to_le_bytes();
        let low = u16::from_le_bytes([low, middle]);
        let [state, ..] = (low & bits::STATE).to_le_bytes();
        let was_writable = state > bits::INTERRUPTED;
        let access = match state - if was_writable { bits::WAS_WRITABLE } else { 0 } {
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
        let [name, ..] = (low >> bits::NAME).to_le_bytes();
        let [colour, ..] = (low >> bits::COLOUR).to_le_bytes();
        let [notes, ..] = (low >> bits::NOTES).to_le_bytes();
        let mut notes = Notes::from_bits_retain(notes);
        notes.set(Notes::WAS_WRITABLE, was_writable);
        let mark = Mark {
            tag: u16::from_le_bytes(tag),
            notes,
            name: Name(name & Name::MASK),
            colour: Colour(colour & Colour::MASK),
        };
        Self::Ours(state, mark)
    }
}

#[cfg(test)]
mod tests;
