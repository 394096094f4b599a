//! What can be asked of a provider, and the one place where requests are validated.

use super::{Error, ErrorKind, linux};
use crate::page::{Access, AddressRange, Ceiling, PageRange, PageSize, align_up};
use core::ffi::CStr;

/// Which place is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// Any place.
    Anywhere,
    /// The free place closest to this address.
    Near(usize),
    /// This address if it is free, else any place.
    Hint(usize),
    /// This address or none. Never replaces what is there.
    Exact(usize),
}

/// Where a range may lie. The addresses in [`Place`] mean the start of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The alignment in bytes of the first byte behind the leading guard: a power of two.
    pub align: usize,
    /// The range keeps inside these addresses, its guards too.
    pub within: AddressRange,
    /// Which place inside them.
    pub place: Place,
}

impl Placement {
    /// Anywhere at all.
    pub const ANYWHERE: Self = Self {
        align: 1,
        within: AddressRange::ALL,
        place: Place::Anywhere,
    };

    /// Anywhere within `range`.
    #[must_use]
    pub const fn within(range: AddressRange) -> Self {
        Self {
            within: range,
            ..Self::ANYWHERE
        }
    }

    /// As low as can be within `range`.
    #[must_use]
    pub const fn lowest(range: AddressRange) -> Self {
        Self {
            within: range,
            place: Place::Near(range.start()),
            ..Self::ANYWHERE
        }
    }

    /// As close to `anchor` as can be, at most `reach` bytes from it: what a relative branch needs.
    #[must_use]
    pub const fn near(anchor: usize, reach: usize) -> Self {
        Self {
            align: 1,
            within: AddressRange::around(anchor, reach),
            place: Place::Near(anchor),
        }
    }
}

/// Bytes at both ends of a reservation that stay inaccessible; rounded up to pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guards {
    /// Bytes before the usable part.
    pub before: usize,
    /// Bytes after the usable part.
    pub after: usize,
}

/// Whether a range belongs in a core file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dump {
    /// As the host does with any mapping. Untouched reservations are not written out anyway.
    #[default]
    Default,
    /// Left out, where the host can. On Linux this costs: the mapping no longer merges with its
    /// neighbours. It holds for pages as long as they are not replaced: a decommit, and a commit of
    /// large pages or of executable ones, put others in their place, which do not have it.
    Excluded,
}

/// A request for addresses.
///
/// ```
/// use hostmem_core::{page::AddressRange, provider::{Place, Request}};
/// let low = Request::bytes(1 << 20).align(1 << 16).within(AddressRange::LOW_4G).name(c"low");
/// assert_eq!(low.len, 1 << 20);
/// assert_eq!(low.placement.place, Place::Anywhere);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Usable bytes, rounded up to pages; not zero.
    pub len: usize,
    /// The fewest usable bytes that will do, rounded up to pages; `None` for no fewer than `len`.
    /// What is reserved is the longest hole between the two, so that a caller who can do with less
    /// needs to ask once.
    pub min_len: Option<usize>,
    /// Where.
    pub placement: Placement,
    /// What stays inaccessible around the usable bytes.
    pub guards: Guards,
    /// Whether it belongs in a core file.
    pub dump: Dump,
    /// A name for the process map, where the host keeps names: printable ASCII but for ``\\`$[]``,
    /// 79 bytes at most; others are left out. A named range is a mapping of its own. The name goes
    /// with the pages when they are replaced: by a decommit, and by a commit of large pages or
    /// executable ones.
    pub name: Option<&'a CStr>,
}

impl<'a> Request<'a> {
    /// Asks for `len` bytes anywhere.
    #[must_use]
    pub const fn bytes(len: usize) -> Self {
        Self {
            len,
            min_len: None,
            placement: Placement::ANYWHERE,
            guards: Guards {
                before: 0,
                after: 0,
            },
            dump: Dump::Default,
            name: None,
        }
    }

    /// Settles for as few as `min_len` usable bytes where no hole is longer.
    #[must_use]
    pub const fn at_least(mut self, min_len: usize) -> Self {
        self.min_len = Some(min_len);
        self
    }

    /// Asks for an alignment of `align` bytes.
    #[must_use]
    pub const fn align(mut self, align: usize) -> Self {
        self.placement.align = align;
        self
    }

    /// Asks for a place within `range`.
    #[must_use]
    pub const fn within(mut self, range: AddressRange) -> Self {
        self.placement.within = range;
        self
    }

    /// Asks for a place.
    #[must_use]
    pub const fn place(mut self, place: Place) -> Self {
        self.placement.place = place;
        self
    }

    /// Asks for a placement: alignment, range and place.
    #[must_use]
    pub const fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Asks for inaccessible bytes around the usable ones.
    #[must_use]
    pub const fn guards(mut self, before: usize, after: usize) -> Self {
        self.guards = Guards { before, after };
        self
    }

    /// Asks that the range stays out of core files.
    #[must_use]
    pub const fn exclude_from_dump(mut self) -> Self {
        self.dump = Dump::Excluded;
        self
    }

    /// Names the range.
    #[must_use]
    pub const fn name(mut self, name: &'a CStr) -> Self {
        self.name = Some(name);
        self
    }

    /// Validates the request for a host with pages of `page`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for a length of zero, a least length of zero or above the
    /// length, an overflow, an alignment that is not a power of two or an exact place that is null or
    /// misaligned; [`ErrorKind::OutsideRange`] for an exact place that does not lie within the range
    /// asked for.
    pub fn plan(&self, page: PageSize) -> Result<Plan, Error> {
        let plan = Plan::new(self, page);
        match self.placement.place {
            Place::Exact(base) => plan?.placed(base),
            _ => plan,
        }
    }
}

/// Says whether a host with names of mappings takes this one: see [`Request::name`].
#[must_use]
pub fn is_mapping_name(name: &CStr) -> bool {
    /// Bytes of a name, the zero at its end included, that Linux takes (`PR_SET_VMA(2const)`).
    const MOST: usize = 80;
    let known = |byte: &u8| matches!(byte, b' '..=b'~') && !b"\\`$[]".contains(byte);
    name.count_bytes() < MOST && name.to_bytes().iter().all(known)
}

/// A validated request in whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    before: usize,
    body: usize,
    total: usize,
    min_total: usize,
    page: PageSize,
    align: usize,
    within: AddressRange,
    place: Place,
}

impl Plan {
    /// Validates all but the place; see [`Request::plan`].
    fn new(request: &Request<'_>, page: PageSize) -> Result<Self, Error> {
        let Request { len, guards, .. } = *request;
        let placement = &request.placement;
        let invalid = Error::of(ErrorKind::InvalidArgument);
        if len == 0 || !placement.align.is_power_of_two() {
            return Err(invalid);
        }
        let overflow = invalid.with_like(linux::ENOMEM);
        let round = |n| page.round_up(n).ok_or(overflow);
        let (before, body, after) = (round(guards.before)?, round(len)?, round(guards.after)?);
        let total = before
            .checked_add(body)
            .and_then(|n| n.checked_add(after))
            .ok_or(overflow)?;
        // Larger than any address space, and the sums below would overflow.
        if total > isize::MAX.unsigned_abs() {
            return Err(overflow);
        }
        if placement.align > isize::MAX.unsigned_abs() {
            return Err(invalid);
        }
        let min_total = match request.min_len {
            None => total,
            Some(0) => return Err(invalid),
            Some(min_len) => {
                let min_body = page.round_up(min_len).filter(|&min_body| min_body <= body);
                total - body + min_body.ok_or(invalid)?
            }
        };
        Ok(Self {
            before,
            body,
            total,
            min_total,
            page,
            align: placement.align.max(page.bytes()),
            within: placement.within,
            place: placement.place,
        })
    }

    /// Validates an exact place, and cuts what is wanted down to what fits there.
    fn placed(self, base: usize) -> Result<Self, Error> {
        if base == 0 || !self.aligned(base) || base.checked_add(self.total).is_none() {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let room = self.within.last().checked_sub(base);
        let room = room.map_or(0, |n| self.page.round_down(n.saturating_add(1)));
        let fitting = self.of_total(self.total.min(room.max(self.min_total)));
        if !fitting.fits(base) {
            return Err(ErrorKind::OutsideRange.into());
        }
        Ok(fitting)
    }

    /// Returns the same plan with another length of the whole reservation, guards included, between
    /// [`Plan::min_total`] and [`Plan::total`].
    #[must_use]
    pub(crate) const fn of_total(self, total: usize) -> Self {
        Self {
            body: self.body - (self.total - total),
            total,
            ..self
        }
    }

    /// Returns half of `total`, in whole pages and no less than [`Plan::min_total`]; `None` where
    /// `total` is as little as that.
    #[must_use]
    pub(super) fn half_of(&self, total: usize) -> Option<usize> {
        let half = self.page.round_down(total / 2).max(self.min_total);
        (half < total).then_some(half)
    }

    /// Calls `map` with this plan and, as long as that says [`ErrorKind::Exhausted`], with plans of
    /// half the length, down to the least that will do: for a host that chooses the place, and does
    /// not tell how much it has.
    ///
    /// # Errors
    ///
    /// The last error of `map`.
    pub fn halving<T>(&self, mut map: impl FnMut(&Self) -> Result<T, Error>) -> Result<T, Error> {
        let mut plan = *self;
        loop {
            match map(&plan) {
                Err(error) if error.kind() == ErrorKind::Exhausted => {
                    plan = plan.of_total(self.half_of(plan.total).ok_or(error)?);
                }
                result => return result,
            }
        }
    }

    /// Returns the bytes of the leading guard.
    #[must_use]
    pub const fn before(&self) -> usize {
        self.before
    }

    /// Returns the usable bytes.
    #[must_use]
    pub const fn body(&self) -> usize {
        self.body
    }

    /// Returns the bytes of the whole reservation, guards included.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Returns the bytes of the trailing guard.
    #[must_use]
    pub const fn after(&self) -> usize {
        self.total - self.body - self.before
    }

    /// Returns the fewest bytes of a whole reservation, guards included, that will do.
    #[must_use]
    pub const fn min_total(&self) -> usize {
        self.min_total
    }

    /// Returns the page size that the plan was made for.
    #[must_use]
    pub const fn page(&self) -> PageSize {
        self.page
    }

    /// Returns the alignment of the usable part; at least a page.
    #[must_use]
    pub const fn align(&self) -> usize {
        self.align
    }

    /// Returns the addresses that the reservation keeps inside.
    #[must_use]
    pub const fn within(&self) -> AddressRange {
        self.within
    }

    /// Returns the place asked for.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// Says whether every address will do, so that the host may choose by itself.
    #[must_use]
    pub fn unconstrained(&self) -> bool {
        self.within == AddressRange::ALL && self.place == Place::Anywhere
    }

    /// Says whether a reservation may start at `base` as far as alignment goes.
    #[must_use]
    pub const fn aligned(&self, base: usize) -> bool {
        base.wrapping_add(self.before) & (self.align - 1) == 0
    }

    /// Says whether a reservation that starts at `base` keeps within its range. None starts at null,
    /// which no pointer to memory can be.
    #[must_use]
    pub fn fits(&self, base: usize) -> bool {
        let range = AddressRange::from_len(base, self.total);
        base != 0 && range.is_some_and(|range| self.within.contains_range(range))
    }

    /// Returns the lowest aligned start at or above `floor`; `None` on overflow.
    #[must_use]
    pub fn start_at_or_above(&self, floor: usize) -> Option<usize> {
        align_up(floor.checked_add(self.before)?, self.align).map(|body| body - self.before)
    }

    /// Returns how many bytes to map so that the reservation lies somewhere in them, wherever a host
    /// that aligns to pages puts them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] on overflow.
    pub fn len_with_slack(&self, page: PageSize) -> Result<usize, Error> {
        let slack = self.align - page.bytes();
        let len = self.total.checked_add(slack);
        len.ok_or(ErrorKind::InvalidArgument.into())
    }

    /// Cuts the lowest aligned reservation out of `whole`, which is [`Plan::len_with_slack`] bytes
    /// long; returns it, and what is left before and behind it. `None` where it does not fit.
    #[must_use]
    pub fn carve(
        &self,
        whole: PageRange,
        page: PageSize,
    ) -> Option<(PageRange, [Option<PageRange>; 2])> {
        let head = self.start_at_or_above(whole.addr())? - whole.addr();
        let kept = whole.part(head, self.total, page)?;
        let behind = head + self.total;
        let tail = whole.part(behind, whole.len_bytes() - behind, page);
        Some((kept, [whole.part(0, head, page), tail]))
    }

    /// Returns the highest aligned start at or below `ceiling`, if there is one.
    #[must_use]
    pub fn start_at_or_below(&self, ceiling: usize) -> Option<usize> {
        let body = ceiling.checked_add(self.before)? & !(self.align - 1);
        body.checked_sub(self.before)
    }
}

/// Which pages are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageWish {
    /// The host's pages.
    #[default]
    Base,
    /// The host's pages, and advice that larger ones would be welcome.
    Transparent,
    /// The host's pages, and advice that larger ones are not welcome, even where the host gives
    /// them unasked.
    Never,
    /// Pages of `bytes`, a size that the probe lists. Start and length must be multiples of it.
    Large {
        /// The page size in bytes.
        bytes: usize,
        /// Take the host's pages where there are none; what was got is returned.
        or_base: bool,
    },
}

/// What purged pages show until they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purged {
    /// Zero.
    Zero,
    /// Zero or, as long as the host has not taken the memory, the old contents; it may change from
    /// these to zero at any time before the page is written.
    ZeroOrOld,
    /// The old contents: the host keeps the memory, for instance because it is locked.
    Kept,
}

/// How to commit pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The access now.
    pub access: Access,
    /// The most that `protect` may ever ask: `PROT_MAX` on FreeBSD, `PROT_MPROTECT` on NetBSD. Not
    /// every host can hold the caller to it.
    pub ceiling: Ceiling,
    /// The pages wanted.
    pub pages: PageWish,
}

impl Commit {
    /// Ordinary data: readable and writable, never executable.
    pub const READ_WRITE: Self = Self {
        access: Access::ReadWrite,
        ceiling: Ceiling::ReadWrite,
        pages: PageWish::Base,
    };
}
