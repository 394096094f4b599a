//! How a mapping is made: places for its views first, then one strategy after the other.

#[cfg(doc)]
use super::DualMapProvider;
use super::{DualError, DualMapping, DualRequest, DualStep, MAX_DUAL_STEPS, error::Reason};
use crate::{
    page::{PageRange, PageSize},
    provider::{Error, ErrorKind, PageProvider, PageWish, place::place_views},
};

/// The error of one strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DualStepError {
    /// What failed.
    pub error: Error,
    /// A target range that now belongs to somebody else.
    pub lost: Option<PageRange>,
}

impl From<Error> for DualStepError {
    fn from(error: Error) -> Self {
        Self { error, lost: None }
    }
}

/// The single strategies of an operating system, without policy. Only backends implement this;
/// decorators see [`DualMapProvider`].
///
/// # Safety
///
/// The promises of [`DualMapProvider`]. A strategy counts as working only when the executable view
/// could be mapped.
pub unsafe trait DualSteps: Send + Sync {
    /// Returns the strategies to try for `request`, best first; at most [`MAX_DUAL_STEPS`].
    fn dual_order(&self, request: &DualRequest<'_>) -> &'static [DualStep];

    /// Says whether a strategy can put an executable view onto a hole, but not onto a reservation
    /// without giving that up first. Its target is then the place where the reservation was, to be
    /// taken exactly.
    fn wants_hole(&self, step: DualStep) -> bool {
        let _ = step;
        false
    }

    /// Tries one strategy.
    ///
    /// # Errors
    ///
    /// What the host says, and whether a target range was lost.
    ///
    /// # Safety
    ///
    /// The promises of [`DualMapProvider::map_dual`].
    unsafe fn dual_step(
        &self,
        step: DualStep,
        request: &DualRequest<'_>,
    ) -> Result<DualMapping, DualStepError>;
}

/// Finds places for the views, and then tries the strategies of `backend` in order. Any failure of
/// a strategy moves on to the next, except a lost target range, of which its owner must hear.
///
/// A view that says where it wants to be is given a reservation, which the strategies replace. The
/// host chooses for one that may lie anywhere.
///
/// # Errors
///
/// [`DualError`] with the view that has no place, in which case no strategy was tried, or with
/// every strategy's error.
///
/// # Safety
///
/// The promises of [`DualMapProvider::map_dual`].
pub unsafe fn run_dual<B: DualSteps + PageProvider>(
    backend: &B,
    request: &DualRequest<'_>,
    page: PageSize,
) -> Result<DualMapping, DualError> {
    request.validate(page)?;
    let order = backend.dual_order(request);
    debug_assert!(order.len() <= MAX_DUAL_STEPS, "every step's error has room");
    let Some(&first) = order.first() else {
        return Err(DualError::of(ErrorKind::Unsupported));
    };
    let mut failure = DualError::of(ErrorKind::Unsupported);
    let mut host = Host(backend);
    let mut places = place_views(&mut host, request, page);
    // Where there is no room for large pages there may be some for the host's.
    let base = DualRequest {
        pages: PageWish::Base,
        ..*request
    };
    let too_tight = places.as_ref().err().map(DualError::cause);
    let too_tight = too_tight.filter(|_| first.has_large_pages() && order.len() > 1);
    if too_tight.is_some() {
        places = place_views(&mut host, &base, page);
    }
    let mut places = places?;
    for (n, (slot, &step)) in failure.steps.iter_mut().zip(order).enumerate() {
        let result = match too_tight.filter(|_| step.has_large_pages()) {
            Some(error) => Err(error.into()),
            // SAFETY: Into targets are reservations of the caller's that no other code uses, as
            // map_dual asks; other ranges were reserved for this call.
            None => unsafe { places.run(&mut host, step, request) },
        };
        let error = match result {
            Ok(mapping) => return Ok(mapping),
            Err(DualStepError { error, lost: None }) => error,
            Err(DualStepError {
                error,
                lost: Some(range),
            }) => {
                *slot = Some((step, error));
                failure.cause = error.with_kind(ErrorKind::RangeLost);
                failure.reason = Reason::Lost(range);
                break;
            }
        };
        *slot = Some((step, error));
        if n == 0 {
            failure.cause = error;
        }
        // Others may have got in where a strategy had to give a reservation up.
        if let Err(unplaced) = places.again(&mut host, request) {
            (failure.cause, failure.reason) = (unplaced.cause, unplaced.reason);
            break;
        }
    }
    places.release(&mut host);
    Err(failure)
}

/// A backend as where places come from.
pub(in crate::provider) struct Host<'a, B>(pub(in crate::provider) &'a B);
