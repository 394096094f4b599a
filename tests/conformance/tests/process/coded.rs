//! A dual mapping that has code in it.

use hostmem_conformance::code::{self, MAX_CODE};
use hostmem_core::{
    arch,
    page::PageRange,
    provider::{
        DualMapProvider, DualMapping, DualRequest, DualStep, DualSteps, Error, Fork, Leave,
        PageProvider, Target,
    },
};
use std::ptr::NonNull;

/// Two views with a function at their start and another at their end. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Coded<P: DualMapProvider + Copy> {
    provider: P,
    /// None once unmapped.
    mapping: Option<DualMapping>,
}

impl<P: PageProvider + DualMapProvider + Copy> Coded<P> {
    /// Maps two pages, and writes functions that return `value`.
    #[track_caller]
    pub(crate) fn map(provider: P, fork: Fork, value: u16) -> Self {
        let request = DualRequest {
            fork,
            ..DualRequest::bytes(2 * provider.page_size().bytes())
        };
        // SAFETY: neither target is a range of anybody's.
        let mapping = unsafe { provider.map_dual(&request) };
        Self::own(
            provider,
            mapping.expect("the capability is a promise"),
            value,
        )
    }

    /// Owns a mapping that was just made, and writes functions that return `value`.
    #[track_caller]
    fn own(provider: P, mapping: DualMapping, value: u16) -> Self {
        let coded = Self {
            provider,
            mapping: Some(mapping),
        };
        coded.put(value);
        coded
    }
}

impl<P: PageProvider + DualMapProvider + DualSteps + Copy> Coded<P> {
    /// Maps by one strategy, as [`Coded::map`] does by any.
    #[track_caller]
    pub(crate) fn map_by(
        provider: P,
        step: DualStep,
        request: &DualRequest<'_>,
        value: u16,
    ) -> Result<Self, Error> {
        let into = [request.rw, request.rx]
            .iter()
            .any(|target| matches!(target, Target::Into(_)));
        assert!(!into, "the case lets the provider find room");
        // SAFETY: neither target is a range of anybody's, as just checked.
        let mapping = unsafe { provider.dual_step(step, request) }.map_err(|e| e.error)?;
        Ok(Self::own(provider, mapping, value))
    }
}

impl<P: DualMapProvider + Copy> Coded<P> {
    pub(crate) fn mapping(&self) -> &DualMapping {
        self.mapping
            .as_ref()
            .expect("only unmapping takes the mapping")
    }

    pub(crate) fn rw(&self) -> PageRange {
        self.mapping().rw()
    }

    pub(crate) fn rx(&self) -> PageRange {
        self.mapping().rx()
    }

    /// Returns where the functions begin in the writable view.
    pub(crate) fn rw_places(&self) -> [NonNull<u8>; 2] {
        Self::places(self.rw())
    }

    /// Returns where the functions begin in the executable view.
    pub(crate) fn rx_places(&self) -> [NonNull<u8>; 2] {
        Self::places(self.rx())
    }

    fn places(view: PageRange) -> [NonNull<u8>; 2] {
        // SAFETY: inside the view, which is at least a page long, as code is shorter.
        let last = unsafe { view.start().add(view.len_bytes() - MAX_CODE) };
        [view.start(), last]
    }

    /// Writes functions that return `value` through the writable view. In a child that has none,
    /// this faults.
    #[track_caller]
    pub(crate) fn put(&self, value: u16) {
        let function = code::returning(value).expect("the case is skipped on other CPUs");
        let bytes = function.bytes();
        for to in self.rw_places() {
            // SAFETY: inside the writable view, which is this value's, or it faults.
            unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        }
        self.publish();
    }

    /// Publishes what another process wrote.
    pub(crate) fn publish(&self) {
        for at in self.rx_places() {
            // SAFETY: inside the executable view, which is readable, or it faults.
            unsafe { arch::publish_code(at.as_ptr(), MAX_CODE) };
        }
    }

    /// Runs both functions, and returns what they return.
    #[track_caller]
    pub(crate) fn run(&self) -> u32 {
        // SAFETY: since the mapping was made there has been code of `returning` at both places,
        // published by who wrote it or after `publish`.
        let [first, last] = self.rx_places().map(|at| unsafe { code::call(at) });
        assert_eq!(first, last, "both functions were written");
        first
    }

    /// Unmaps, and leaves holes.
    #[track_caller]
    pub(crate) fn unmap(mut self) {
        assert!(self.try_unmap(), "unmapping succeeds");
    }

    fn try_unmap(&mut self) -> bool {
        let Some(mapping) = self.mapping.take() else {
            return true;
        };
        // SAFETY: the mapping came from this provider, and `&mut self` keeps users of its views
        // out.
        unsafe { self.provider.unmap_dual(mapping, Leave::Hole) }.is_ok()
    }
}

impl<P: DualMapProvider + Copy> Drop for Coded<P> {
    fn drop(&mut self) {
        // The case has its verdict already; what cannot be unmapped is leaked.
        self.try_unmap();
    }
}
