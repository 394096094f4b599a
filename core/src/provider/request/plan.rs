//! A request in whole pages, and where it may go.

use super::{Place, Request};
use crate::{
    page::{AddressRange, PageRange, PageSize, align_up},
    provider::{Error, ErrorKind, linux},
};

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
    pub(super) fn new(request: &Request<'_>, page: PageSize) -> Result<Self, Error> {
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
    pub(super) fn placed(self, base: usize) -> Result<Self, Error> {
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
    pub(in crate::provider) fn half_of(&self, total: usize) -> Option<usize> {
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

    /// Says whether a reservation that starts at `base` keeps within its range. None starts at
    /// null, which no pointer to memory can be.
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

    /// Returns how many bytes to map so that the reservation lies somewhere in them, wherever a
    /// host that aligns to pages puts them.
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
