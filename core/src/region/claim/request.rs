//! Requests for claims.

use crate::{
    page::{AddressRange, PageSize},
    provider::{AddressSpace, Error, ErrorKind, FLOOR},
};

/// The least room that a growing stack is left by default: what Linux itself keeps free between a
/// stack and what it maps below (`MIN_GAP` of its `mm/util.c`).
const STACK_ROOM: usize = 128 << 20;

/// The default room for an unlimited stack, whose needs are not known.
const UNLIMITED_STACK: usize = 1 << 30;

/// Room beyond the limit of a stack: the gap that Linux keeps between a growing stack and
/// accessible memory below it, 256 pages unless the kernel was told otherwise (`stack_guard_gap=`).
const GUARD_PAGES: usize = 256;

/// The part of an address space that a stack is left by default, at most: a limit may be set higher
/// than what there is.
const STACK_SHARE: usize = 8;

/// The least default share of other mappings where addresses are limited, and the unit of
/// what they are left.
const SPARE: usize = 1 << 30;

/// The part of what a limit of addresses leaves that other mappings are left by default.
const SPARE_SHARE: usize = 4;

/// The default room for the host's own choices where they fall into the range: as much as below
/// 4 GiB, where they fall elsewhere.
const OTHERS_ROOM: usize = 4 << 30;

/// Bytes at the start of a range that begins where a guest's memory ends: the largest page of any
/// host, so that what runs beyond that end faults.
const GUARD: usize = 64 << 10;

/// Asks for every gap of an address range.
///
/// ```
/// use hostmem_core::{page::AddressRange, region::ClaimRequest};
/// // A 32-bit guest: 4 GiB are its own, and what lies 4 GiB behind any of its pointers faults.
/// let hole = AddressRange::from_len(4 << 30, 4 << 30).expect("not empty");
/// let request = ClaimRequest::above(4 << 30).hole(hole).block_break();
/// assert!(request.range.contains_range(hole));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The range to claim. Parts beyond the host's user address space are ignored.
    pub range: AddressRange,
    /// A part of the range that is claimed to be inaccessible for good, and is no
    /// [`Purpose::Usable`] memory.
    ///
    /// [`Purpose::Usable`]: super::Purpose::Usable
    pub hole: Option<AddressRange>,
    /// How long, in bytes, a mapping that grows may come to be without meeting the claim. `None`:
    /// as long as the host's limit allows and some more, at least 128 MiB, at most an eighth of the
    /// address space.
    pub stack_room: Option<usize>,
    /// Addresses to leave as they are.
    pub leave: Option<AddressRange>,
    /// The length in bytes from which on a gap is claimed; rounded up to pages. Short gaps cost the
    /// host a mapping each.
    pub least: usize,
    /// Bytes that are not claimed where the host limits a process's addresses (`RLIMIT_AS`):
    /// without them nothing could be mapped after the claim. `None`: a quarter of what the limit
    /// leaves, rounded to whole gigabytes, and one at least. They are taken for the time of the
    /// claim, below the range, as far as there is room; without a limit that is all they cost.
    pub spare: Option<usize>,
    /// Bytes at the start of the range that are claimed to be inaccessible for good, so that what
    /// runs beyond the end of what lies below faults. A [hole](ClaimRequest::hole) there serves as
    /// well.
    pub guard: usize,
    /// Bytes that are left to others where the host chooses places in the range and nowhere else,
    /// as Linux does in its legacy layout: claimed all of it, no place would be left that it tries,
    /// and every `mmap` of the process would fail. See
    /// [`ClaimReport::others`](super::ClaimReport::others).
    pub others_room: usize,
    /// Whether a claim that is not [complete](super::ClaimReport::is_complete) is an error.
    pub complete: bool,
    /// Whether the program break is kept from growing. One that lies in the range is, asked or not.
    pub block_break: bool,
}

impl ClaimRequest {
    /// Asks for what is free in `range`.
    #[must_use]
    pub const fn range(range: AddressRange) -> Self {
        Self {
            range,
            hole: None,
            stack_room: None,
            leave: None,
            least: 1,
            spare: None,
            guard: 0,
            others_room: OTHERS_ROOM,
            complete: false,
            block_break: false,
        }
    }

    /// Asks for what is free from `start` upwards. The first 64 KiB of that are a
    /// [guard](ClaimRequest::guard).
    #[must_use]
    pub const fn above(start: usize) -> Self {
        let range = match AddressRange::new(start, usize::MAX) {
            Some(range) => range,
            None => unreachable!(),
        };
        Self::range(range).guard(GUARD)
    }

    /// Asks that the first `bytes` of the range stay inaccessible for good; 0 for none.
    #[must_use]
    pub const fn guard(mut self, bytes: usize) -> Self {
        self.guard = bytes;
        self
    }

    /// Asks that `bytes` are left to others where the host chooses places in the range only; 0 for
    /// none.
    #[must_use]
    pub const fn others_room(mut self, bytes: usize) -> Self {
        self.others_room = bytes;
        self
    }

    /// Asks for an error instead of a claim that is not
    /// [complete](super::ClaimReport::is_complete).
    #[must_use]
    pub const fn require_complete(mut self) -> Self {
        self.complete = true;
        self
    }

    /// Asks that `hole`, a part of the range, stays inaccessible for good.
    #[must_use]
    pub const fn hole(mut self, hole: AddressRange) -> Self {
        self.hole = Some(hole);
        self
    }

    /// Asks that growing mappings may come to be `bytes` long.
    #[must_use]
    pub const fn stack_room(mut self, bytes: usize) -> Self {
        self.stack_room = Some(bytes);
        self
    }

    /// Asks that nothing in `range` is claimed.
    #[must_use]
    pub const fn leave(mut self, range: AddressRange) -> Self {
        self.leave = Some(range);
        self
    }

    /// Asks that gaps of fewer than `bytes` are left.
    #[must_use]
    pub const fn least(mut self, bytes: usize) -> Self {
        self.least = bytes;
        self
    }

    /// Asks that `bytes` are left for other mappings where addresses are limited.
    #[must_use]
    pub const fn spare(mut self, bytes: usize) -> Self {
        self.spare = Some(bytes);
        self
    }

    /// Asks that the program break cannot grow any more.
    #[must_use]
    pub const fn block_break(mut self) -> Self {
        self.block_break = true;
        self
    }

    /// Validates the request and cuts it to what the host has.
    pub(super) fn terms(
        &self,
        page: PageSize,
        space: AddressSpace,
        limit: Option<usize>,
    ) -> Result<Terms, Error> {
        let invalid = ErrorKind::InvalidArgument;
        if self
            .hole
            .is_some_and(|hole| !self.range.contains_range(hole))
        {
            return Err(invalid.into());
        }
        let least = page.round_up(self.least.max(1)).ok_or(invalid)?;
        let possible =
            AddressRange::new(FLOOR, usize::MAX).and_then(|all| all.intersect(self.range));
        let range = match space.user {
            Some(user) => possible.and_then(|range| range.intersect(user)),
            None => possible,
        };
        let stack_room = self.stack_room.unwrap_or_else(|| {
            let limit = match space.stack_limit.unwrap_or(0) {
                usize::MAX => UNLIMITED_STACK,
                limit => limit.saturating_add(GUARD_PAGES * page.bytes()),
            };
            let share = space
                .user
                .map_or(usize::MAX, |user| user.last() / STACK_SHARE);
            limit.min(share).max(STACK_ROOM)
        });
        let quarter = limit.unwrap_or(0) / SPARE_SHARE;
        let in_units = quarter.saturating_add(SPARE / 2) / SPARE * SPARE;
        let hole = self.hole.zip(range);
        let hole = hole.and_then(|(hole, range)| hole.intersect(range));
        // In whole pages, as what is claimed behind it is.
        let guard = page
            .round_up(self.range.start())
            .zip(page.round_up(self.guard))
            .and_then(|(start, len)| AddressRange::from_len(start, len))
            .zip(range)
            .and_then(|(guard, range)| guard.intersect(range));
        Ok(Terms {
            range,
            // A hole is inaccessible anyway.
            guard: guard.filter(|guard| hole.is_none_or(|hole| hole.intersect(*guard).is_none())),
            hole,
            stack: space.stack,
            stack_room,
            leave: self.leave,
            least,
            spare: self.spare.unwrap_or(in_units.max(SPARE)),
            is_limited: limit.is_some(),
            others_room: page.round_up(self.others_room).ok_or(invalid)?,
            others: None,
            caller: 0,
        })
    }
}

/// A validated request, in whole pages where it counts bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// The part of the range that the host has.
    pub(super) range: Option<AddressRange>,
    pub(super) guard: Option<AddressRange>,
    pub(super) hole: Option<AddressRange>,
    /// An address in the main thread's stack.
    pub(super) stack: Option<usize>,
    pub(super) stack_room: usize,
    pub(super) leave: Option<AddressRange>,
    pub(super) least: usize,
    pub(super) spare: usize,
    /// Whether the host is known to limit addresses.
    pub(super) is_limited: bool,
    /// How much to leave to others where the host chooses places in the range only.
    pub(super) others_room: usize,
    /// The room that was left to others.
    pub(super) others: Option<AddressRange>,
    /// Where the stack of the first caller was.
    pub(super) caller: usize,
}
