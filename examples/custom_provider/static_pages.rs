//! A provider for a machine without an operating system: pages of a static array.
//!
//! There is no protection and no second mapping, so `capabilities` is empty and only what needs
//! neither works on it: arenas, counting, and whatever else asks for pages.

use core::{cell::UnsafeCell, ptr::NonNull};
use hostmem_core::{
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        Capabilities, Commit, Error, ErrorKind, MapEntry, MapFlags, PageProvider, PageWish,
        ProcessMap, Request, Resource, search,
    },
    sync::Lock,
};

/// The page size: what alignment and book-keeping are in.
const PAGE: PageSize = PageSize::KIB_4;
const PAGE_BYTES: usize = PAGE.bytes();

/// One page of the array.
#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// The state of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Hole,
    Reserved,
    Committed,
}

/// `PAGES` pages to be put in a `static`, and their states. A reference to it is the provider.
pub struct StaticPages<const PAGES: usize> {
    pages: UnsafeCell<[Page; PAGES]>,
    states: Lock<[State; PAGES]>,
}

// SAFETY: the states, under their lock, give every page to one caller at a time; the pages
// themselves are only touched by their callers, and by commit before it returns.
unsafe impl<const PAGES: usize> Sync for StaticPages<PAGES> {}

impl<const PAGES: usize> StaticPages<PAGES> {
    /// Makes the array, all of it free.
    pub const fn new() -> Self {
        Self {
            pages: UnsafeCell::new([const { Page([0; PAGE_BYTES]) }; PAGES]),
            states: Lock::new([State::Hole; PAGES]),
        }
    }

    /// Returns a pointer to the first page.
    fn start(&self) -> NonNull<u8> {
        NonNull::from(&self.pages).cast()
    }

    /// Returns the pages of a range; the contract of the seam keeps it inside the array.
    fn indices(&self, range: PageRange) -> core::ops::Range<usize> {
        let first = (range.addr() - self.start().addr().get()) / PAGE_BYTES;
        first..first + range.len_bytes() / PAGE_BYTES
    }

    fn set(&self, range: PageRange, state: State) {
        self.states.lock()[self.indices(range)].fill(state);
    }

    /// Takes the pages at `addr`, if they are all free.
    fn take(&self, addr: usize, len: usize) -> Result<PageRange, Error> {
        let taken = Error::of(ErrorKind::Taken);
        let offset = addr.checked_sub(self.start().addr().get()).ok_or(taken)?;
        let first = offset / PAGE_BYTES;
        let mut states = self.states.lock();
        let wanted = states
            .get_mut(first..first + len / PAGE_BYTES)
            .ok_or(taken)?;
        if wanted.iter().any(|&state| state != State::Hole) {
            return Err(taken);
        }
        // SAFETY: the offset lies inside the array, whose states were just looked up.
        let start = unsafe { self.start().add(offset) };
        let range = PageRange::new(start, len, PAGE).ok_or(taken)?;
        wanted.fill(State::Reserved);
        Ok(range)
    }
}

// SAFETY: a page goes from hole to one caller and back under the lock; commit zeroes it; there is
// no way to reach it but the range.
unsafe impl<const PAGES: usize> PageProvider for StaticPages<PAGES> {
    fn page_size(&self) -> PageSize {
        PAGE
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::empty()
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(PAGE)?;
        search(&plan, self, &mut |addr, len| self.take(addr, len))
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        if !how.ceiling.allows(how.access) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        if let PageWish::Large { or_base: false, .. } = how.pages {
            return Err(ErrorKind::Unsupported.into());
        }
        if how.access.executable() {
            // Whether it could run is the machine's affair; that no other code writes it is ours,
            // and without protection there is no saying.
            return Err(ErrorKind::Denied.into());
        }
        // SAFETY: the range is reserved from these static pages, which are always writable, and no
        // other code uses it, by this method's condition.
        unsafe { range.start().write_bytes(0, range.len_bytes()) };
        self.set(range, State::Committed);
        Ok(PAGE)
    }

    unsafe fn protect(&self, _: PageRange, access: Access) -> Result<(), Error> {
        // An access that cannot be enforced is granted as long as it takes nothing away.
        if access.executable() {
            Err(ErrorKind::Denied.into())
        } else {
            Ok(())
        }
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        self.set(range, State::Reserved);
        Ok(())
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        self.set(range, State::Hole);
        Ok(())
    }

    fn left(&self, of: Resource) -> Option<usize> {
        let free = |states: &[State]| states.iter().filter(|s| **s == State::Hole).count();
        (of == Resource::Addresses).then(|| free(&*self.states.lock()) * PAGE_BYTES)
    }

    fn addresses(&self) -> AddressRange {
        let range = AddressRange::from_len(self.start().addr().get(), PAGES * PAGE_BYTES);
        range.unwrap_or(AddressRange::ALL)
    }
}

impl<const PAGES: usize> ProcessMap for StaticPages<PAGES> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        // A copy: `visit` may come back here.
        let states = *self.states.lock();
        let start = self.start().addr().get();
        let outside = |first, last| {
            let range = AddressRange::new(first, last)?;
            Some(MapEntry {
                range,
                flags: MapFlags::OBJECT,
            })
        };
        let used = states
            .iter()
            .enumerate()
            .filter(|(_, state)| **state != State::Hole);
        let inside = used.filter_map(|(n, state)| {
            let range = AddressRange::from_len(start + n * PAGE_BYTES, PAGE_BYTES)?;
            let mut flags = MapFlags::empty();
            flags.set(MapFlags::READ | MapFlags::WRITE, *state == State::Committed);
            Some(MapEntry { range, flags })
        });
        let below = outside(0, start - 1).into_iter();
        let above = outside(start + PAGES * PAGE_BYTES, usize::MAX);
        for entry in below.chain(inside).chain(above) {
            if !visit(entry) {
                break;
            }
        }
        Ok(())
    }
}
