//! What can be asked of a claim.

use crate::{
    page::{AddressRange, PageSize},
    provider::{AddressSpace, Error, ErrorKind, FLOOR},
};

/// The least room that a growing stack is left by default: what Linux itself keeps free between a
/// stack and what it maps below (`MIN_GAP` of its `mm/util.c`).
const STACK_ROOM: usize = 128 << 20;

/// What an unlimited stack is left by default. Nothing says what it needs.
const UNLIMITED_STACK: usize = 1 << 30;

/// Room beyond the limit of a stack: the gap that Linux keeps between a growing stack and accessible
/// memory below it, 256 pages unless the kernel was told otherwise (`stack_guard_gap=`).
const GUARD_PAGES: usize = 256;

/// The part of an address space that a stack is left by default, at most: a limit may be set higher
/// than what there is.
const STACK_SHARE: usize = 8;

/// What other mappings are left by default where addresses are limited.
const SPARE: usize = 1 << 30;

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
    /// Where. What the host has no such addresses of is left out.
    pub range: AddressRange,
    /// A part of the range that is claimed to be inaccessible for ever, and is no [`Purpose::Usable`]
    /// memory.
    ///
    /// [`Purpose::Usable`]: super::Purpose::Usable
    pub hole: Option<AddressRange>,
    /// How long, in bytes, a mapping that grows may come to be without meeting the claim. `None`: as
    /// long as the host's limit allows and some more, at least 128 MiB, at most an eighth of the
    /// address space.
    pub stack_room: Option<usize>,
    /// Addresses to leave as they are.
    pub leave: Option<AddressRange>,
    /// The length in bytes from which on a gap is claimed; rounded up to pages. Short gaps cost the
    /// host a mapping each.
    pub least: usize,
    /// Bytes that are not claimed where the host limits a process's addresses (`RLIMIT_AS`): without
    /// them nothing could be mapped after the claim. They are taken for the time of the claim,
    /// below the range, as far as there is room; without a limit that is all they cost.
    pub spare: usize,
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
            spare: SPARE,
            block_break: false,
        }
    }

    /// Asks for what is free from `start` upwards.
    #[must_use]
    pub const fn above(start: usize) -> Self {
        Self::range(match AddressRange::new(start, usize::MAX) {
            Some(range) => range,
            None => unreachable!(),
        })
    }

    /// Asks that `hole`, a part of the range, stays inaccessible for ever.
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
        self.spare = bytes;
        self
    }

    /// Asks that the program break cannot grow any more.
    #[must_use]
    pub const fn block_break(mut self) -> Self {
        self.block_break = true;
        self
    }

    /// Validates the request and cuts it to what the host has.
    pub(super) fn terms(&self, page: PageSize, space: AddressSpace) -> Result<Terms, Error> {
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
        Ok(Terms {
            range,
            hole: self
                .hole
                .zip(range)
                .and_then(|(hole, range)| hole.intersect(range)),
            stack: space.stack,
            stack_room,
            leave: self.leave,
            least,
            spare: self.spare,
        })
    }
}

/// A validated request, in whole pages where it counts bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// What the host has of the range.
    pub(super) range: Option<AddressRange>,
    pub(super) hole: Option<AddressRange>,
    /// An address in the main thread's stack.
    pub(super) stack: Option<usize>,
    pub(super) stack_room: usize,
    pub(super) leave: Option<AddressRange>,
    pub(super) least: usize,
    pub(super) spare: usize,
}
