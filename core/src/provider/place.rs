//! Places for the views of a dual mapping, found before any strategy is tried.

use super::{
    DualError, DualMapping, DualRequest, DualStep, DualStepError, DualSteps, DualView, Error,
    ErrorKind, PageProvider, PageWish, Place, Placement, Plan, Request, Target, dual::Host,
};
use crate::page::{PageRange, PageSize};

/// How often a strategy that needs a hole is tried where others take the hole in between.
const HOLES: usize = 8;

/// Who gives and takes places.
pub(crate) trait Places {
    /// Says whether the host is to choose the place, which is then not reserved.
    fn leaves_to_host(&self, plan: &Plan) -> bool;

    /// Reserves a place; see [`PageProvider::reserve`].
    fn reserve(&mut self, request: &Request<'_>) -> Result<PageRange, Error>;

    /// Gives back what was reserved, or a part of it.
    fn release(&mut self, range: PageRange);
}

impl<B: PageProvider> Places for Host<'_, B> {
    fn leaves_to_host(&self, plan: &Plan) -> bool {
        plan.unconstrained()
    }

    fn reserve(&mut self, request: &Request<'_>) -> Result<PageRange, Error> {
        self.0.reserve(request)
    }

    fn release(&mut self, range: PageRange) {
        // SAFETY: reserved for a view that was not mapped, or was taken back. A failure wastes
        // addresses and no more.
        let _ = unsafe { self.0.release(range) };
    }
}

/// Where one view goes.
#[derive(Clone, Copy, Debug)]
struct Spot {
    /// What was asked for; a placement with the alignment of the pages.
    target: Target,
    /// What was reserved for it.
    reserved: Option<PageRange>,
}

impl Spot {
    fn target(&self) -> Target {
        self.reserved.map_or(self.target, Target::Into)
    }

    /// Returns the range that the view will fill, if that is known.
    const fn range(&self) -> Option<PageRange> {
        match (self.reserved, self.target) {
            (None, Target::Into(range)) => Some(range),
            (reserved, _) => reserved,
        }
    }
}

/// Where both views go, and how long they are.
#[derive(Debug)]
pub(crate) struct Views {
    rw: Spot,
    rx: Spot,
    len: usize,
    page: PageSize,
}

/// Finds places for both views, equally long.
pub(crate) fn place_views(
    places: &mut impl Places,
    request: &DualRequest<'_>,
    page: PageSize,
) -> Result<Views, DualError> {
    let unit = match request.pages {
        PageWish::Large { bytes, .. } if bytes.is_power_of_two() => bytes.max(page.bytes()),
        _ => page.bytes(),
    };
    let fixed = [request.rw, request.rx].map(|target| matches!(target, Target::Into(_)));
    let mut least = request.min_len.unwrap_or(request.len);
    least = least.next_multiple_of(unit).min(request.len);
    if fixed.contains(&true) {
        least = request.len;
    }
    let spot = |target| match target {
        Target::Find(placement) => Target::Find(Placement {
            align: placement.align.max(unit),
            ..placement
        }),
        into @ Target::Into(_) => into,
    };
    let mut views = Views {
        rw: Spot {
            target: spot(request.rw),
            reserved: None,
        },
        rx: Spot {
            target: spot(request.rx),
            reserved: None,
        },
        len: request.len,
        page,
    };
    views.place(places, DualView::Rw, request, least)?;
    views.cut(places, views.len - views.len % unit, least);
    // The first view may have nearly all of a hole in which both have room.
    let half = (views.len / 2).next_multiple_of(unit).max(least);
    let shared = views.rw.reserved.is_some() && views.share_a_window() && half < views.len;
    let enough = if shared { half } else { least };
    if let Err(error) = views.place(places, DualView::Rx, request, enough) {
        if !(shared && error.kind() == ErrorKind::Exhausted) {
            views.release(places);
            return Err(error);
        }
        views.cut(places, half, least);
        views
            .place(places, DualView::Rx, request, least)
            .inspect_err(|_| views.release(places))?;
    }
    views.cut(places, views.len - views.len % unit, least);
    Ok(views)
}

impl Views {
    /// Returns how long both views are.
    pub(crate) const fn len_bytes(&self) -> usize {
        self.len
    }

    /// Returns both ranges, where the host chooses neither.
    pub(crate) fn ranges(&self) -> Option<(PageRange, PageRange)> {
        self.rw.range().zip(self.rx.range())
    }

    /// Says whether a range was reserved for this mapping, and is not the caller's.
    pub(crate) fn reserved(&self, range: PageRange) -> bool {
        [self.rw, self.rx]
            .iter()
            .any(|spot| spot.reserved == Some(range))
    }

    const fn spot(&mut self, view: DualView) -> &mut Spot {
        match view {
            DualView::Rw => &mut self.rw,
            DualView::Rx => &mut self.rx,
        }
    }

    /// Says whether what one view leaves may serve the other.
    fn share_a_window(&self) -> bool {
        match (self.rw.target, self.rx.target) {
            (Target::Find(rw), Target::Find(rx)) => rw.within.intersect(rx.within).is_some(),
            _ => false,
        }
    }

    /// Reserves a place for one view, of the length of both or as little as `least`, unless it has
    /// one or the host chooses it.
    fn place(
        &mut self,
        places: &mut impl Places,
        view: DualView,
        request: &DualRequest<'_>,
        least: usize,
    ) -> Result<(), DualError> {
        let (len, page) = (self.len, self.page);
        let spot = self.spot(view);
        let (Target::Find(placement), None) = (spot.target, spot.reserved) else {
            return Ok(());
        };
        let unplaced = |error| DualError::unplaceable(view, error);
        let wanted = Request::bytes(len).at_least(least).placement(placement);
        if places.leaves_to_host(&wanted.plan(page).map_err(unplaced)?) {
            // The alignment that large pages need is the affair of the strategy that has them.
            spot.target = match view {
                DualView::Rw => request.rw,
                DualView::Rx => request.rx,
            };
            return Ok(());
        }
        let range = places.reserve(&wanted).map_err(unplaced)?;
        spot.reserved = Some(range);
        self.len = range.len_bytes();
        Ok(())
    }

    /// Makes both views `len` bytes long, or as long as they are, but never shorter than `least`.
    fn cut(&mut self, places: &mut impl Places, len: usize, least: usize) {
        self.len = self.len.min(len.max(least));
        for spot in [&mut self.rw, &mut self.rx] {
            let Some(whole) = spot.reserved else { continue };
            let rest = whole.len_bytes() - self.len;
            if let Some(tail) = whole.part(self.len, rest, self.page) {
                places.release(tail);
                spot.reserved = whole.part(0, self.len, self.page);
            }
        }
    }

    /// Gives back what was reserved.
    pub(crate) fn release(&mut self, places: &mut impl Places) {
        for spot in [&mut self.rw, &mut self.rx] {
            if let Some(range) = spot.reserved.take() {
                places.release(range);
            }
        }
    }

    /// Forgets a range that was reserved for this mapping, and is somebody else's now.
    pub(crate) fn forget(&mut self, range: PageRange) {
        for spot in [&mut self.rw, &mut self.rx] {
            spot.reserved.take_if(|reserved| *reserved == range);
        }
    }

    /// Finds a new place of the same length for a view that lost the one it had.
    pub(super) fn again(
        &mut self,
        places: &mut impl Places,
        request: &DualRequest<'_>,
    ) -> Result<(), DualError> {
        let len = self.len;
        self.place(places, DualView::Rw, request, len)?;
        self.place(places, DualView::Rx, request, len)
    }

    /// Tries one strategy.
    ///
    /// # Safety
    ///
    /// The promises of [`DualMapProvider::map_dual`](super::DualMapProvider::map_dual).
    pub(super) unsafe fn run<B: DualSteps + PageProvider>(
        &mut self,
        host: &mut Host<'_, B>,
        step: DualStep,
        request: &DualRequest<'_>,
    ) -> Result<DualMapping, DualStepError> {
        for _ in 1..HOLES {
            // SAFETY: Into targets are reservations of the caller's, by this function's `# Safety`.
            let result = unsafe { self.run_once(host, step, request) };
            let taken = result
                .as_ref()
                .is_err_and(|failure| failure.error.kind() == ErrorKind::Taken);
            if !(taken && host.0.wants_hole(step) && self.again(host, request).is_ok()) {
                return result;
            }
        }
        // SAFETY: Into targets are reservations of the caller's, by this function's `# Safety`.
        unsafe { self.run_once(host, step, request) }
    }

    /// Tries one strategy, once.
    ///
    /// # Safety
    ///
    /// The promises of [`Views::run`].
    unsafe fn run_once<B: DualSteps + PageProvider>(
        &mut self,
        host: &mut Host<'_, B>,
        step: DualStep,
        request: &DualRequest<'_>,
    ) -> Result<DualMapping, DualStepError> {
        let hole = self.rx.reserved.filter(|_| host.0.wants_hole(step));
        let mut rx = self.rx.target();
        if let Some(range) = hole {
            host.release(range);
            self.rx.reserved = None;
            rx = Target::Find(Placement {
                place: Place::Exact(range.addr()),
                ..Placement::ANYWHERE
            });
        }
        let placed = DualRequest {
            len: self.len,
            min_len: None,
            rw: self.rw.target(),
            rx,
            ..*request
        };
        // SAFETY: a target is a reservation of the caller's, by this function's `# Safety`, or was
        // reserved for this call; no other code uses either.
        let result = unsafe { host.0.dual_step(step, &placed) };
        result.map_err(|failure| match failure.lost {
            Some(range) if self.reserved(range) => {
                // The caller never had it, and another will do.
                self.forget(range);
                failure.error.into()
            }
            _ => failure,
        })
    }
}

#[cfg(test)]
mod tests;
