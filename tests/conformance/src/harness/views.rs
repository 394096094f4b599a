//! A dual mapping that knows whose it is.

use super::{Region, fill, first_difference, first_nonzero};
use crate::code;
use core::{ops::Range, ptr::NonNull};
use hostmem_core::{
    arch,
    page::{PageRange, PageSize},
    provider::{
        DualError, DualMapProvider, DualMapping, DualRequest, Error, Leave, PageProvider, Target,
    },
};

/// Two views, by pages. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Views<P: PageProvider + DualMapProvider + Copy> {
    provider: P,
    page: PageSize,
    /// None once unmapped.
    mapping: Option<DualMapping>,
}

impl<P: PageProvider + DualMapProvider + Copy> Views<P> {
    /// Maps where the provider finds room, and holds it to what every dual mapping promises.
    #[track_caller]
    pub(crate) fn map(provider: P, request: &DualRequest<'_>) -> Result<Self, DualError> {
        let into = [request.rw, request.rx]
            .iter()
            .any(|t| matches!(t, Target::Into(_)));
        assert!(!into, "the case maps into reservations with map_into");
        Self::map_checked(provider, request)
    }

    /// Maps `pages` pages anywhere.
    #[track_caller]
    pub(crate) fn pages(provider: P, pages: usize) -> Result<Self, DualError> {
        Self::map(
            provider,
            &DualRequest::bytes(pages * provider.page_size().bytes()),
        )
    }

    /// Maps the writable view onto reserved pages of `rw` and the executable one onto those of
    /// `rx`, where they are given; else anywhere.
    #[track_caller]
    pub(crate) fn map_into(
        provider: P,
        len: usize,
        rw: Option<(&mut Region<P>, Range<usize>)>,
        rx: Option<(&mut Region<P>, Range<usize>)>,
    ) -> Result<Self, DualError> {
        let target = |at: &Option<(&mut Region<P>, Range<usize>)>| match at {
            None => Target::ANYWHERE,
            Some((region, pages)) => {
                assert!(
                    region.is_reserved(pages.clone()),
                    "the case maps into reserved pages"
                );
                Target::Into(region.part(pages))
            }
        };
        let request = DualRequest {
            rw: target(&rw),
            rx: target(&rx),
            ..DualRequest::bytes(len)
        };
        let views = Self::map_checked(provider, &request)?;
        for (region, pages) in [rw, rx].into_iter().flatten() {
            region.hand_over(pages);
        }
        Ok(views)
    }

    /// Maps the executable view onto the lower half of a reservation, the writable one onto the
    /// upper half.
    #[track_caller]
    pub(crate) fn map_into_halves(provider: P, region: &mut Region<P>) -> Result<Self, DualError> {
        let all = 0..region.len();
        assert!(
            region.is_reserved(all.clone()),
            "the case maps into reserved pages"
        );
        let half = all.end / 2;
        let (rx, rw) = (region.part(&(0..half)), region.part(&(half..all.end)));
        let (rw, rx, len) = (Target::Into(rw), Target::Into(rx), rw.len_bytes());
        let views = Self::map_checked(
            provider,
            &DualRequest {
                rw,
                rx,
                ..DualRequest::bytes(len)
            },
        )?;
        region.hand_over(all);
        Ok(views)
    }

    /// Asks for a mapping that must be refused; one that is made all the same is unmapped. Cases
    /// pass targets that are placements, or reserved pages of a region that they hold.
    pub(crate) fn refused(provider: P, request: &DualRequest<'_>) -> Result<(), DualError> {
        // SAFETY: Into targets are reserved, by what cases pass, and reserved pages are not used.
        let mapping = unsafe { provider.map_dual(request)? };
        drop(Self {
            provider,
            page: provider.page_size(),
            mapping: Some(mapping),
        });
        Ok(())
    }

    #[track_caller]
    fn map_checked(provider: P, request: &DualRequest<'_>) -> Result<Self, DualError> {
        let page = provider.page_size();
        // SAFETY: Into targets are reserved pages of a region, by the assertion in map_into, and
        // no other code uses them.
        let mapping = unsafe { provider.map_dual(request)? };
        assert!(
            mapping.page_size() >= page,
            "pages are at least the provider's"
        );
        for (view, target) in [(mapping.rw(), request.rw), (mapping.rx(), request.rx)] {
            assert_eq!(
                view.len_bytes(),
                request.len,
                "{request:?}: a view of another length"
            );
            match target {
                Target::Into(range) => assert_eq!(view, range, "{request:?}: into another range"),
                Target::Find(placement) => {
                    assert!(
                        placement.within.contains_range(view.addresses()),
                        "{request:?}: {view:?} lies outside the range asked for"
                    );
                    assert!(
                        view.addr().is_multiple_of(placement.align),
                        "{request:?}: {view:?} is misaligned"
                    );
                }
            }
        }
        assert!(
            !mapping.rw().overlaps(mapping.rx()),
            "{request:?}: the views overlap"
        );
        Ok(Self {
            provider,
            page,
            mapping: Some(mapping),
        })
    }

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

    /// Returns the pages of each view.
    pub(crate) fn all(&self) -> Range<usize> {
        0..self.mapping().len_bytes() / self.page.bytes()
    }

    #[track_caller]
    fn part(&self, view: PageRange, pages: &Range<usize>) -> PageRange {
        let (offset, len) = (
            pages.start * self.page.bytes(),
            pages.len() * self.page.bytes(),
        );
        view.part(offset, len, self.page)
            .expect("the pages lie in the view")
    }

    /// Fills pages through the writable view.
    #[track_caller]
    pub(crate) fn fill(&mut self, pages: Range<usize>, seed: u64) {
        let part = self.part(self.rw(), &pages);
        // SAFETY: the view is mapped and writable while self has the mapping, and self's alone.
        unsafe { fill(part.start(), part.len_bytes(), seed) };
    }

    /// Asserts that pages are as `fill` of the same range left them, in both views.
    #[track_caller]
    pub(crate) fn expect_pattern(&self, pages: Range<usize>, seed: u64) {
        for view in [self.rx(), self.rw()] {
            let part = self.part(view, &pages);
            // SAFETY: both views are mapped and readable while self has the mapping.
            let wrong = unsafe { first_difference(part.start(), part.len_bytes(), seed) };
            assert_eq!(
                wrong, None,
                "view {view:?}: contents differ at this offset of {part:?}"
            );
        }
    }

    /// Asserts that pages read zero in both views.
    #[track_caller]
    pub(crate) fn expect_zero(&self, pages: Range<usize>) {
        for view in [self.rx(), self.rw()] {
            let part = self.part(view, &pages);
            // SAFETY: both views are mapped and readable while self has the mapping.
            let wrong = unsafe { first_nonzero(part.start(), part.len_bytes()) };
            assert_eq!(
                wrong, None,
                "view {view:?}: not zero at this offset of {part:?}"
            );
        }
    }

    /// Writes code that returns `value` at the start of a page and runs it; `None` where no code
    /// is known for this CPU.
    #[track_caller]
    pub(crate) fn run(&mut self, page: usize, value: u16) -> Option<u32> {
        let function = code::returning(value).filter(|_| arch::SUPPORTED)?;
        let bytes = function.bytes();
        let to = self.part(self.rw(), &(page..page + 1)).start();
        let at = self.part(self.rx(), &(page..page + 1)).start();
        // SAFETY: the page is writable and self's alone, and code is shorter than any page.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        // SAFETY: the same bytes through the executable view, which is readable.
        unsafe { arch::publish_code(at.as_ptr(), bytes.len()) };
        // SAFETY: code of `returning` was just written there and published, and the view is
        // executable.
        Some(unsafe { code::call(at) })
    }

    #[track_caller]
    pub(crate) fn purge(&mut self, pages: Range<usize>) -> Result<(), Error> {
        let part = self.part(self.rw(), &pages);
        self.purge_bytes(part.addr() - self.rw().addr(), part.len_bytes())
    }

    /// Purges bytes that may be none that can be purged.
    pub(crate) fn purge_bytes(&mut self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: the mapping came from this provider, and `&mut self` keeps users of its pages
        // out.
        unsafe { self.provider.purge_dual(self.mapping(), offset, len) }
    }

    /// Asks for the memory of pages that were purged.
    #[track_caller]
    pub(crate) fn refill(&mut self, pages: Range<usize>) -> Result<(), Error> {
        let part = self.part(self.rw(), &pages);
        self.refill_bytes(part.addr() - self.rw().addr(), part.len_bytes())
    }

    /// Asks for the memory of bytes that may be none that could be purged.
    pub(crate) fn refill_bytes(&mut self, offset: usize, len: usize) -> Result<(), Error> {
        // SAFETY: the mapping came from this provider.
        unsafe { self.provider.refill_dual(self.mapping(), offset, len) }
    }

    /// Unmaps, and leaves holes. On failure the views come back.
    pub(crate) fn unmap(mut self) -> Result<(), (Self, Error)> {
        match self.unmap_leaving(Leave::Hole) {
            Ok(()) => Ok(()),
            Err(error) => Err((self, error)),
        }
    }

    /// Unmaps, and returns what is left reserved: the writable view's pages, then the executable
    /// view's.
    pub(crate) fn unmap_reserved(mut self) -> Result<(Region<P>, Region<P>), (Self, Error)> {
        let (provider, rw, rx) = (self.provider, self.rw(), self.rx());
        match self.unmap_leaving(Leave::Reserved) {
            Ok(()) => Ok((Region::own(provider, rw), Region::own(provider, rx))),
            Err(error) => Err((self, error)),
        }
    }

    fn unmap_leaving(&mut self, leave: Leave) -> Result<(), Error> {
        let Some(mapping) = self.mapping.take() else {
            return Ok(());
        };
        // SAFETY: the mapping came from this provider, and `&mut self` keeps users of its views
        // out.
        match unsafe { self.provider.unmap_dual(mapping, leave) } {
            Ok(()) => Ok(()),
            Err((mapping, error)) => {
                self.mapping = Some(mapping);
                Err(error)
            }
        }
    }
}

impl<P: PageProvider + DualMapProvider + Copy> Drop for Views<P> {
    fn drop(&mut self) {
        // The case has its verdict already; what cannot be unmapped is leaked.
        let _ = self.unmap_leaving(Leave::Hole);
    }
}
