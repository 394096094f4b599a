//! How the views of a dual mapping are made, and taken back.

use super::{At, Call, Calls, System, Was, keep, map_at, range_at, reserve, reserve_over};
use crate::{
    page::{PageRange, PageSize},
    provider::{
        DualMapping, DualRequest, DualStepError, Error, ErrorKind, Leave, Placement, Request,
        Target,
    },
};
use core::ffi::c_void;

/// One view to be made.
#[derive(Clone, Copy, Debug)]
pub struct View<M> {
    len: usize,
    page: PageSize,
    hint: Option<usize>,
    map: M,
}

impl<M: Fn(At) -> Result<*mut c_void, Error>> View<M> {
    /// Describes a view of `len` bytes, with pages of `page`, that `map` maps.
    ///
    /// # Safety
    ///
    /// `map` maps `len` bytes and returns where: at [`At::Anywhere`] and [`At::Hint`] it replaces
    /// nothing, and at [`At::Over`] no more than the range.
    pub const unsafe fn new(len: usize, page: PageSize, map: M) -> Self {
        let hint = None;
        Self {
            len,
            page,
            hint,
            map,
        }
    }

    /// Says where the view is wanted if it may be anywhere.
    #[must_use]
    pub fn hint(self, hint: Option<usize>) -> Self {
        Self { hint, ..self }
    }

    /// Maps the view at its target.
    ///
    /// # Errors
    ///
    /// What the system says, and whether the target range was lost.
    ///
    /// # Safety
    ///
    /// A range in [`Target::Into`] is the caller's, and no other code uses it.
    pub unsafe fn map(
        &self,
        system: &impl System,
        target: Target,
    ) -> Result<PageRange, DualStepError> {
        match target {
            Target::Find(placement) => Ok(self.map_found(system, placement)?),
            // SAFETY: the caller gives the range up, and no other code uses it.
            Target::Into(range) => match unsafe { self.map_onto(system, range) } {
                Ok(()) => Ok(range),
                Err(error) => {
                    let lost = error.kind() == ErrorKind::RangeLost;
                    Err(DualStepError {
                        error,
                        lost: lost.then_some(range),
                    })
                }
            },
        }
    }

    fn map_found(&self, system: &impl System, placement: Placement) -> Result<PageRange, Error> {
        let (page, align) = (
            system.calls().page_size(),
            placement.align.max(self.page.bytes()),
        );
        let placement = Placement { align, ..placement };
        let request = Request::bytes(self.len).placement(placement);
        let is_free = request.plan(page)?.unconstrained();
        if is_free && (align == page.bytes() || self.hint.is_some()) {
            let at = self.hint.map_or(At::Anywhere, At::Hint);
            let range = range_at(page, (self.map)(at)?, self.len)?;
            if range.addr().is_multiple_of(align) {
                return Ok(range);
            }
            // SAFETY: mapped just now, and no other code has its address yet.
            unsafe { system.calls().unmap(range)? };
        }
        // The place is reserved first, so that mapping there replaces nothing but our own.
        let range = reserve(system, &request)?;
        // SAFETY: reserved just now, and no other code has its address yet.
        unsafe { self.map_onto(system, range) }
            .map(|()| range)
            .inspect_err(|error| {
                if error.kind() != ErrorKind::RangeLost {
                    // SAFETY: reserved above, and no other code has its address yet; a failure
                    // wastes addresses and no more.
                    let _ = unsafe { system.calls().unmap(range) };
                }
            })
    }

    /// Replaces a range by the view.
    ///
    /// # Safety
    ///
    /// The range is the caller's, and no other code uses it.
    unsafe fn map_onto(&self, system: &impl System, range: PageRange) -> Result<(), Error> {
        if !self.page.is_aligned(range.addr()) || range.len_bytes() != self.len {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let call = if self.page > system.calls().page_size() {
            Call::MapLarge
        } else {
            Call::MapFile
        };
        let mapped = (self.map)(At::Over(range));
        mapped
            .map(drop)
            .map_err(|error| keep(system, call, range, Was::Plain, error))
    }
}

/// Maps two views of one object, one after the other, with `between` before the second. Where that
/// or the second view fails, the first is taken back.
///
/// # Errors
///
/// What the system or `between` says, and whether a target range was lost.
///
/// # Safety
///
/// A range in [`Target::Into`] is the caller's, and no other code uses it.
pub unsafe fn map_both<M, N>(
    system: &impl System,
    (first, first_target): (&View<M>, Target),
    between: impl FnOnce() -> Result<(), Error>,
    (second, second_target): (&View<N>, Target),
) -> Result<(PageRange, PageRange), DualStepError>
where
    M: Fn(At) -> Result<*mut c_void, Error>,
    N: Fn(At) -> Result<*mut c_void, Error>,
{
    // SAFETY: a target range is the caller's, and no other code uses it.
    let one = unsafe { first.map(system, first_target)? };
    let between = between().map_err(DualStepError::from);
    // SAFETY: a target range is the caller's, and no other code uses it.
    match between.and_then(|()| unsafe { second.map(system, second_target) }) {
        Ok(other) => Ok((one, other)),
        // SAFETY: mapped above, and no other code has its address yet.
        Err(failure) => Err(unsafe { undone(system, failure, one, first_target) }),
    }
}

/// Takes a view back that a later part of a strategy could not go with. Returns the target range,
/// if that was lost.
///
/// # Safety
///
/// The view was just mapped at `target`, and no other code uses it.
pub unsafe fn undo(system: &impl System, view: PageRange, target: Target) -> Option<PageRange> {
    match target {
        Target::Find(_) => {
            // SAFETY: no other code uses the view. Whole mappings can be unmapped; if not, they
            // leak.
            let _ = unsafe { system.calls().unmap(view) };
            None
        }
        Target::Into(range) => {
            // SAFETY: no other code uses the view, which the range is.
            let restored = unsafe { reserve_over(system, range, Was::View) };
            restored
                .err()
                .filter(|e| e.kind() == ErrorKind::RangeLost)
                .map(|_| range)
        }
    }
}

/// Takes a view back because of what failed after it, and notes whether its target was lost.
///
/// # Safety
///
/// The view was just mapped at `target`, and no other code uses it.
pub unsafe fn undone(
    system: &impl System,
    mut failure: DualStepError,
    view: PageRange,
    target: Target,
) -> DualStepError {
    // SAFETY: the view was just mapped at the target, and no other code uses it.
    let lost = unsafe { undo(system, view, target) };
    failure.lost = failure.lost.or(lost);
    failure
}

/// Returns the writable and the executable view, or takes both back where what came after them
/// failed.
///
/// # Errors
///
/// The error in `after`, and whether a target range was lost.
///
/// # Safety
///
/// The views were just mapped at the targets of `request`, and no other code uses them.
pub unsafe fn both_or_neither(
    system: &impl System,
    (rw, rx): (PageRange, PageRange),
    request: &DualRequest<'_>,
    after: Result<(), Error>,
) -> Result<(PageRange, PageRange), DualStepError> {
    let Err(error) = after else {
        return Ok((rw, rx));
    };
    // SAFETY: just mapped at this target, and no other code uses it.
    let failure = unsafe { undone(system, error.into(), rx, request.rx) };
    // SAFETY: just mapped at this target, and no other code uses it.
    Err(unsafe { undone(system, failure, rw, request.rw) })
}

/// Keeps out of forked children which views the request's policy says.
///
/// # Safety
///
/// The views are the caller's.
pub(super) unsafe fn hide_views(
    system: &impl System,
    (rw, rx): (PageRange, PageRange),
    request: &DualRequest<'_>,
) -> Result<(), Error> {
    let (hide_rw, hide_rx) = request.fork.lost_views();
    for (view, hide) in [(rw, hide_rw), (rx, hide_rx)] {
        if hide {
            // SAFETY: the view is the caller's, by this function's `# Safety`.
            unsafe { system.calls().hide_from_children(view)? };
        }
    }
    Ok(())
}

/// Unmaps one view, or makes it a reservation again.
///
/// # Safety
///
/// The view is the caller's, and no other code uses it.
unsafe fn leave_view(system: &impl System, view: PageRange, leave: Leave) -> Result<(), Error> {
    match leave {
        // SAFETY: the view is the caller's, and no other code uses it.
        Leave::Hole => unsafe { system.calls().unmap(view) },
        // SAFETY: the view is the caller's, and no other code uses it.
        Leave::Reserved => unsafe { reserve_over(system, view, Was::View) },
    }
}

/// Unmaps both views, one after the other.
///
/// # Safety
///
/// The mapping came from this system, and no other code uses either view.
pub(super) unsafe fn leave_views(
    system: &impl System,
    mapping: &DualMapping,
    leave: Leave,
) -> Result<(), Error> {
    // SAFETY: no other code uses the view, by this function's `# Safety`.
    unsafe { leave_view(system, mapping.rw(), leave)? };
    // SAFETY: no other code uses the view, by this function's `# Safety`.
    let Err(error) = (unsafe { leave_view(system, mapping.rx(), leave) }) else {
        return Ok(());
    };
    // The first view is gone. Its place is kept, so that the call can be made again without
    // unmapping what somebody else put there.
    if leave == Leave::Hole && map_at(system, mapping.rw().addr(), mapping.len_bytes()).is_err() {
        return Err(ErrorKind::RangeLost.into());
    }
    Err(error)
}

/// Returns the pages of the writable view that a purge or a refill is about.
pub(super) fn part_of(
    mapping: &DualMapping,
    offset: usize,
    len: usize,
    base: PageSize,
) -> Result<PageRange, Error> {
    let page = mapping.page_size();
    let aligned = page.is_aligned(offset) && page.is_aligned(len);
    let part = mapping.rw().part(offset, len, base);
    part.filter(|_| aligned)
        .ok_or(ErrorKind::InvalidArgument.into())
}

/// Reserves again what a forked child lost of a mapping.
pub(super) fn reserve_lost(system: &impl System, mapping: &DualMapping) -> Result<(), Error> {
    let (lost_rw, lost_rx) = mapping.fork().lost_views();
    for (view, lost) in [(mapping.rw(), lost_rw), (mapping.rx(), lost_rx)] {
        if lost && let Err(error) = map_at(system, view.addr(), view.len_bytes()) {
            let taken = error.kind() == ErrorKind::Taken;
            return Err(if taken {
                ErrorKind::RangeLost.into()
            } else {
                error
            });
        }
    }
    Ok(())
}
