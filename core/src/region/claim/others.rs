//! Addresses for others: spare ones under a limit, and room where the host chooses places.

use super::{Claim, Claimed, Others, Purpose, request::Terms};
use crate::{
    page::{AddressRange, PageRange, PageSize},
    provider::{Error, ErrorKind, FLOOR, PageProvider, Place, ProcessMap, Request},
};

/// The shortest spare range to try: a shorter one would be of no use.
const LEAST_SPARE: usize = 1 << 20;

/// Returns where the host places as many bytes as that, or half of them, and so on, if it chooses.
pub(super) fn chosen_place<P: PageProvider>(
    provider: &P,
    page: PageSize,
    bytes: usize,
) -> Option<PageRange> {
    let mut len = bytes;
    while len >= page.bytes() {
        if let Ok(place) = provider.reserve(&Request::bytes(len)) {
            // SAFETY: reserved just now, and no other code has its address yet.
            let released = unsafe { provider.release(place) };
            return released.is_ok().then_some(place);
        }
        len = page.round_down(len / 2);
    }
    None
}

/// Takes spare addresses while the range is claimed, so that a host that limits them has some left
/// afterwards: as many as asked, or half as many, and so on. They lie below the range, or where the
/// host chooses, if it is known to limit them and there is no room below.
pub(super) fn keep_spare<P: PageProvider>(
    provider: &P,
    terms: &Terms,
    range: AddressRange,
) -> Option<PageRange> {
    let below = range.start().checked_sub(1);
    let below = below.and_then(|last| AddressRange::new(FLOOR, last));
    let anywhere = terms.is_limited.then_some(AddressRange::ALL);
    [below, anywhere].into_iter().flatten().find_map(|within| {
        let mut len = terms.spare;
        while len >= LEAST_SPARE {
            match provider.reserve(&Request::bytes(len).within(within)) {
                Ok(spare) => return Some(spare),
                Err(_) => len /= 2,
            }
        }
        None
    })
}

impl<P: PageProvider + ProcessMap + Copy> Claim<'_, P> {
    /// Tries whether a page can be mapped where the host chooses, and leaves room in the range if
    /// it chooses places nowhere else.
    pub(super) fn place_others(
        &mut self,
        chosen: Option<PageRange>,
        range: AddressRange,
    ) -> Others {
        if self.list.iter().next().is_none() {
            return Others::NotTried;
        }
        let page = Request::bytes(self.page.bytes());
        let tried = self.try_place(&page);
        if let Ok(place) = tried {
            let in_it = |range: &AddressRange| range.contains(place.addr());
            if let Some(room) = self.terms.others.filter(in_it) {
                return Others::Room(room);
            }
            let leave = self.terms.leave;
            let is_free = self.report.missed.bytes != 0;
            if !in_it(&range) || is_free || leave.is_some_and(|leave| in_it(&leave)) {
                return Others::Outside;
            }
            // In the room of a stack, which is all that is free.
        }
        // If a page can be placed below by asking for it, the layout is the reason, and not a
        // limit.
        let below = range.start().checked_sub(1);
        let below = below.and_then(|last| AddressRange::new(FLOOR, last));
        let is_layout = below.is_some_and(|below| self.try_place(&page.within(below)).is_ok());
        let (true, Some(chosen), None) = (is_layout, chosen, self.terms.others) else {
            return tried.map_or_else(Others::Nowhere, |_| Others::Outside);
        };
        self.make_room(chosen).unwrap_or_else(Others::Nowhere)
    }

    /// Gives back what lies where the host would choose, and tries whether it does.
    fn make_room(&mut self, chosen: PageRange) -> Result<Others, Error> {
        let page = self.page;
        let common = |claimed: Claimed| {
            let start = claimed.range.addr().max(chosen.addr());
            let len = claimed.range.end().min(chosen.end()).checked_sub(start)?;
            claimed.range.part(start - claimed.range.addr(), len, page)
        };
        let usable = |claimed: &Claimed| claimed.purpose == Purpose::Usable;
        let parts = self.list.iter().filter(usable).filter_map(common);
        let room = parts.max_by_key(|part| part.len_bytes());
        let room = room.ok_or(ErrorKind::Exhausted)?;
        self.list.remove(room, page)?;
        // SAFETY: reserved by this claim, and not given out yet where this is the first scan; else
        // free since, and just claimed again.
        let released = unsafe { self.provider.release(room) };
        let purpose = Purpose::Usable;
        if let Err(error) = released {
            self.list.insert(Claimed {
                range: room,
                purpose,
            });
            return Err(error);
        }
        let tried = self.try_place(&Request::bytes(page.bytes()));
        if tried.is_ok_and(|place| room.contains_range(place)) {
            self.terms.others = Some(room.addresses());
            return Ok(Others::Room(room.addresses()));
        }
        let again = Request::bytes(room.len_bytes()).place(Place::Exact(room.addr()));
        if let Ok(range) = self.provider.reserve(&again) {
            self.list.insert(Claimed { range, purpose });
        }
        tried.map(|_| Others::Outside)
    }

    /// Reserves what is asked for and gives it back.
    fn try_place(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let place = self.provider.reserve(request)?;
        // SAFETY: reserved just now, and no other code has its address yet. A failure wastes a page
        // of addresses.
        let _ = unsafe { self.provider.release(place) };
        Ok(place)
    }
}
