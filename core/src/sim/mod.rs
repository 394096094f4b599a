//! A simulated host: a part of a real one with page tables, a page size, a size and a policy of its
//! own, that checks whoever uses it.
//!
//! Memory and aliasing come from a base provider, so that what runs on [`Sim`] really reads, writes
//! and executes. States are simulated, page by page; a call that starts from the wrong state does
//! not reach the base, is refused, and is remembered as a [`Misuse`].

mod faulty;
mod table;

pub use faulty::{Calls, Faulty};
pub use table::PageState;

use crate::{
    fork::{ForkChild, Renewable},
    page::{Access, AddressRange, PageRange, PageSize},
    provider::{
        AddressSpace, Capabilities, Clock, Commit, CoreSync, DualError, DualMapProvider,
        DualMapping, DualRequest, Dump, Error, ErrorKind, Leave, MapEntry, MapFlags, PageProvider,
        PageWish, Places, Plan, ProcessMap, Purged, Request, Resource, Target, place_views, search,
    },
    sync::{Guard, Lock, Spin},
};
use core::{ffi::CStr, fmt};
use table::{Page, Table};

/// What the simulated host is like.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Its page size; not less than the base's.
    pub page: PageSize,
    /// The bytes of its address space.
    pub space: usize,
    /// What it can do; limited to what the base can.
    pub capabilities: Capabilities,
    /// What its pages show after a purge: nothing it gives back is taken where that is not zero.
    pub purged: Purged,
}

impl Policy {
    /// A host with pages of `page`, 1 GiB of addresses, and all that the base can do.
    #[must_use]
    pub const fn new(page: PageSize) -> Self {
        Self {
            page,
            space: 1 << 30,
            capabilities: Capabilities::all(),
            purged: Purged::Zero,
        }
    }

    /// Sets what pages show after a purge.
    #[must_use]
    pub const fn purged(mut self, shown: Purged) -> Self {
        self.purged = shown;
        self
    }

    /// Takes capabilities away.
    #[must_use]
    pub const fn without(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = self.capabilities.difference(capabilities);
        self
    }

    /// Sets the bytes of the address space.
    #[must_use]
    pub const fn space(mut self, bytes: usize) -> Self {
        self.space = bytes;
        self
    }
}

/// A call that started from the wrong state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misuse {
    /// The call.
    pub call: &'static str,
    /// The first page that was in the wrong state.
    pub addr: usize,
    /// The state it was in.
    pub found: PageState,
}

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {:#x}, which is {:?}",
            self.call, self.addr, self.found
        )
    }
}

/// A simulated host on a base provider; used by reference, as it has state.
///
/// In a forked child, pages that another thread was changing are in a state of before or after,
/// each for itself. Whoever made the calls knows which they were, and takes those pages back.
pub struct Sim<B: PageProvider + Copy> {
    base: B,
    policy: Policy,
    table: Table<B>,
    misuse: Renewable<Lock<Option<Misuse>, Spin>>,
}

/// The lock of all changes, held.
struct State<'a, B: PageProvider + Copy> {
    table: &'a Table<B>,
    misuse: Guard<'a, Option<Misuse>, Spin>,
}

impl<B: PageProvider + Copy> Sim<B> {
    /// Makes a host in a part of `base`, with page tables in another part.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for pages smaller than the base's or a size that is not whole
    /// pages; what the base says of the reservations.
    pub fn new(base: B, policy: Policy) -> Result<Self, Error> {
        if policy.page < base.page_size() || !policy.page.is_aligned(policy.space) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let capabilities = policy.capabilities.intersection(base.capabilities());
        let table = Table::new(base, policy.page, policy.space)?;
        Ok(Self {
            base,
            policy: Policy {
                capabilities,
                ..policy
            },
            table,
            misuse: Renewable::new(Lock::new(None)),
        })
    }

    fn lock(&self) -> State<'_, B> {
        loop {
            let lock = self.misuse.current();
            let misuse = lock.lock();
            // A handler may have forked before the lock was taken.
            if self.misuse.is_current(lock) {
                let table = &self.table;
                return State { table, misuse };
            }
        }
    }

    /// Returns the addresses of this host.
    pub fn space(&self) -> PageRange {
        self.table.space()
    }

    /// Returns the state of the page that holds `addr`.
    pub fn page_state(&self, addr: usize) -> PageState {
        self.lock()
            .table
            .get(addr)
            .map_or(PageState::Hole, |page| page.state)
    }

    /// Returns how many pages are not holes: zero when nothing has leaked.
    pub fn pages_in_use(&self) -> usize {
        self.lock()
            .table
            .pages()
            .filter(|(_, page)| page.state != PageState::Hole)
            .count()
    }

    /// Returns a number that changes with any page's state, access or ceiling.
    pub fn fingerprint(&self) -> u64 {
        // FNV-1a, which is enough to compare two moments of a test.
        self.lock()
            .table
            .pages()
            .fold(0xcbf2_9ce4_8422_2325, |hash, (_, page)| {
                (hash ^ u64::from(page.encode())).wrapping_mul(0x100_0000_01b3)
            })
    }

    /// Returns the first misuse since the last call, and forgets it.
    pub fn take_misuse(&self) -> Option<Misuse> {
        self.lock().misuse.take()
    }

    /// Returns the pages to ask the base for: large ones only where the policy has them.
    fn grant(&self, wish: PageWish) -> Result<PageWish, Error> {
        let able = self.policy.capabilities.contains(Capabilities::LARGE_PAGES);
        match wish {
            PageWish::Large { or_base: false, .. } if !able => Err(ErrorKind::Unsupported.into()),
            PageWish::Large { .. } if !able => Ok(PageWish::Base),
            wish => Ok(wish),
        }
    }

    /// Refuses what the policy does not have.
    fn allow(&self, access: Access) -> Result<(), Error> {
        let rwx = matches!(access, Access::ReadWriteExec(_));
        if rwx && !self.policy.capabilities.contains(Capabilities::RWX) {
            return Err(ErrorKind::Denied.into());
        }
        Ok(())
    }

    /// Takes `len` bytes of the hole at `addr`.
    fn take_at(
        &self,
        state: &mut State<'_, B>,
        plan: &Plan,
        addr: usize,
        len: usize,
    ) -> Result<PageRange, Error> {
        let space = state.table.space();
        let taken = Error::of(ErrorKind::Taken);
        let offset = addr.checked_sub(space.addr()).ok_or(taken)?;
        let range = space.part(offset, len, self.policy.page).ok_or(taken)?;
        let holes = state
            .table
            .pages_of(range)
            .all(|(_, page)| page.state == PageState::Hole);
        if !holes {
            return Err(taken);
        }
        state.table.set(range, Page::RESERVED);
        let (before, after) = (plan.before(), plan.after());
        let guards = [(0, before), (len - after, after)];
        for (offset, len) in guards {
            if let Some(guard) = range.part(offset, len, self.policy.page) {
                state.table.set(guard, Page::GUARD);
            }
        }
        Ok(range)
    }

    fn find(&self, state: &mut State<'_, B>, plan: &Plan) -> Result<PageRange, Error> {
        let state = core::cell::RefCell::new(state);
        search(plan, &View(&state), &mut |addr, len| {
            self.take_at(&mut state.borrow_mut(), plan, addr, len)
        })
    }
}

/// The map of a simulated host: everything outside it is in use.
struct View<'a, 'b, 'c, B: PageProvider + Copy>(&'a core::cell::RefCell<&'b mut State<'c, B>>);

// SAFETY: a View lives inside one call, on one thread, and no other code sees it.
unsafe impl<B: PageProvider + Copy> Send for View<'_, '_, '_, B> {}
// SAFETY: as for Send.
unsafe impl<B: PageProvider + Copy> Sync for View<'_, '_, '_, B> {}

impl<B: PageProvider + Copy> ProcessMap for View<'_, '_, '_, B> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.0.borrow().table.walk(visit);
        Ok(())
    }
}

impl<B: PageProvider + Copy> State<'_, B> {
    /// Checks that every page of `range` may start `call`.
    fn check(
        &mut self,
        call: &'static str,
        range: PageRange,
        allowed: impl Fn(PageState) -> bool,
    ) -> Result<(), Error> {
        let space = self.table.space();
        let wrong = if space.contains_range(range) {
            self.table
                .pages_of(range)
                .find(|(_, page)| !allowed(page.state))
        } else {
            Some((range.addr(), Page::HOLE))
        };
        match wrong {
            None => Ok(()),
            Some((addr, page)) => {
                *self.misuse = self.misuse.or(Some(Misuse {
                    call,
                    addr,
                    found: page.state,
                }));
                Err(ErrorKind::InvalidArgument.into())
            }
        }
    }

    /// Sets every page of `range`, but leaves guards guards.
    fn set_but_guards(&mut self, range: PageRange, page: Page) {
        self.table.update(range, |old| {
            if old.state == PageState::Guard {
                old
            } else {
                page
            }
        });
    }
}

// SAFETY: the base keeps the promises, inside a range that is reserved from it for the whole life
// of this value; the tables make sure that no two callers get the same page.
unsafe impl<B: PageProvider + Copy> PageProvider for Sim<B> {
    fn page_size(&self) -> PageSize {
        self.policy.page
    }

    fn capabilities(&self) -> Capabilities {
        self.policy.capabilities
    }

    fn reserve(&self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(self.policy.page)?;
        self.find(&mut self.lock(), &plan)
    }

    unsafe fn commit(&self, range: PageRange, how: Commit) -> Result<PageSize, Error> {
        let mut state = self.lock();
        state.check("commit", range, |s| s == PageState::Reserved)?;
        self.allow(how.access)?;
        if !how.ceiling.allows(how.access) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let pages = self.grant(how.pages)?;
        // SAFETY: the caller's promise; the range lies in what this value reserved from the base,
        // and the tables say that it is reserved there.
        let got = unsafe { self.base.commit(range, Commit { pages, ..how })? };
        state
            .table
            .set(range, Page::committed(how.access, how.ceiling));
        Ok(got.max(self.policy.page))
    }

    unsafe fn protect(&self, range: PageRange, access: Access) -> Result<(), Error> {
        let mut state = self.lock();
        state.check("protect", range, |s| s == PageState::Committed)?;
        self.allow(access)?;
        let toggle = self.policy.capabilities.contains(Capabilities::TOGGLE_EXEC);
        let denied = state.table.pages_of(range).any(|(_, page)| {
            let gains_exec = access.executable() && !page.access.executable();
            !page.ceiling.allows(access) || (gains_exec && !toggle)
        });
        if denied {
            return Err(ErrorKind::Denied.into());
        }
        // SAFETY: the caller's promise; the tables say that the range is committed.
        unsafe { self.base.protect(range, access)? };
        state.table.update(range, |page| Page { access, ..page });
        Ok(())
    }

    unsafe fn decommit(&self, range: PageRange) -> Result<(), Error> {
        let mut state = self.lock();
        state.check("decommit", range, PageState::is_plain)?;
        // SAFETY: the caller's promise; the tables say that the range is reserved or committed.
        unsafe { self.base.decommit(range)? };
        state.set_but_guards(range, Page::RESERVED);
        Ok(())
    }

    unsafe fn purge(&self, range: PageRange) -> Result<Purged, Error> {
        let mut state = self.lock();
        state.check("purge", range, |s| s == PageState::Committed)?;
        match self.policy.purged {
            // SAFETY: the caller's promise; the tables say that the range is committed.
            Purged::Zero => unsafe { self.base.purge(range) },
            // The old contents are there, as they may be on such a host.
            shown => Ok(shown),
        }
    }

    unsafe fn move_pages(&self, from: PageRange, to: PageRange) -> Result<(), Error> {
        if !self.policy.capabilities.contains(Capabilities::MOVE_PAGES) {
            return Err(ErrorKind::Unsupported.into());
        }
        if from.len_bytes() != to.len_bytes() || from.overlaps(to) {
            return Err(ErrorKind::InvalidArgument.into());
        }
        let mut state = self.lock();
        state.check("move_pages", from, |s| s == PageState::Committed)?;
        state.check("move_pages", to, |s| s == PageState::Reserved)?;
        // SAFETY: the caller's promise; the tables say that one is committed and the other
        // reserved.
        unsafe { self.base.move_pages(from, to)? };
        state.table.copy(from, to);
        state.table.set(from, Page::RESERVED);
        Ok(())
    }

    unsafe fn describe(&self, range: PageRange, name: Option<&CStr>, dump: Dump) {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.base.describe(range, name, dump) }
    }

    unsafe fn avoid_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.base.avoid_large_pages(range) }
    }

    unsafe fn wish_large_pages(&self, range: PageRange) {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.base.wish_large_pages(range) }
    }

    unsafe fn release(&self, range: PageRange) -> Result<(), Error> {
        let mut state = self.lock();
        state.check("release", range, PageState::is_plain)?;
        // SAFETY: as in decommit; the base keeps the addresses reserved for this value.
        unsafe { self.base.decommit(range)? };
        state.table.set(range, Page::HOLE);
        Ok(())
    }

    fn left(&self, of: Resource) -> Option<usize> {
        match of {
            Resource::Addresses => {
                Some(self.policy.space - self.pages_in_use() * self.policy.page.bytes())
            }
            _ => self.base.left(of),
        }
    }

    fn random_key(&self) -> Option<[u8; 32]> {
        self.base.random_key()
    }

    fn addresses(&self) -> AddressRange {
        self.space().addresses()
    }
}

/// A simulated host as where places come from, under its lock.
struct Spots<'a, 's, B: PageProvider + Copy>(&'a Sim<B>, &'a mut State<'s, B>);

impl<B: PageProvider + Copy> Places for Spots<'_, '_, B> {
    fn leaves_to_host(&self, _: &Plan) -> bool {
        false
    }

    fn reserve(&mut self, request: &Request<'_>) -> Result<PageRange, Error> {
        let plan = request.plan(self.0.policy.page)?;
        self.0.find(self.1, &plan)
    }

    fn release(&mut self, range: PageRange) {
        self.1.table.set(range, Page::HOLE);
    }
}

// SAFETY: as for PageProvider; both views lie in the range reserved from the base.
unsafe impl<B: PageProvider + DualMapProvider + Copy> DualMapProvider for Sim<B> {
    unsafe fn map_dual(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        if !self.policy.capabilities.contains(Capabilities::DUAL) {
            return Err(DualError::of(ErrorKind::Unsupported));
        }
        request.validate(self.policy.page)?;
        let pads = self
            .policy
            .capabilities
            .contains(Capabilities::LANDING_PADS);
        if request.landing_pads && !pads {
            return Err(DualError::of(ErrorKind::Unsupported));
        }
        let pages = self.grant(request.pages)?;
        let mut state = self.lock();
        let state = &mut state;
        for target in [request.rw, request.rx] {
            if let Target::Into(range) = target {
                state.check("map_dual", range, |s| s == PageState::Reserved)?;
            }
        }
        let mut views = place_views(&mut Spots(self, state), request, self.policy.page)?;
        let Some((rw, rx)) = views.ranges() else {
            return Err(DualError::of(ErrorKind::Other)); // Every place was reserved.
        };
        let (into_rw, into_rx) = (Target::Into(rw), Target::Into(rx));
        // SAFETY: both ranges are reserved from the base, and the tables say that no other code
        // uses them.
        match unsafe {
            self.base.map_dual(&DualRequest {
                len: views.len_bytes(),
                min_len: None,
                rw: into_rw,
                rx: into_rx,
                pages,
                ..*request
            })
        } {
            Ok(mapping) => {
                state.table.set(rw, Page::RW_VIEW);
                state.table.set(rx, Page::RX_VIEW);
                let page = mapping.page_size().max(self.policy.page);
                let able = self.policy.capabilities.contains(Capabilities::PURGE_DUAL);
                // SAFETY: the base's token is replaced by this one, which says the same but for
                // the page size, and what the policy takes away.
                let made = unsafe {
                    DualMapping::from_parts(rw, rx, mapping.step(), page, mapping.fork())
                };
                Ok(if able && mapping.purges() {
                    made
                } else {
                    made.without_purge()
                })
            }
            Err(error) => {
                views.release(&mut Spots(self, state));
                Err(error)
            }
        }
    }

    unsafe fn unmap_dual(
        &self,
        mapping: DualMapping,
        leave: Leave,
    ) -> Result<(), (DualMapping, Error)> {
        let mut state = self.lock();
        let (rw, rx) = (mapping.rw(), mapping.rx());
        for view in [rw, rx] {
            if let Err(error) = state.check("unmap_dual", view, |s| s == PageState::Dual) {
                return Err((mapping, error));
            }
        }
        // SAFETY: the caller's promise; the base keeps the addresses reserved for this value.
        unsafe { self.base.unmap_dual(mapping, Leave::Reserved)? };
        let page = match leave {
            Leave::Hole => Page::HOLE,
            Leave::Reserved => Page::RESERVED,
        };
        state.table.set(rw, page);
        state.table.set(rx, page);
        Ok(())
    }

    unsafe fn purge_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        if !mapping.purges() {
            return Err(ErrorKind::Unsupported.into());
        }
        let part = mapping.rw().part(offset, len, self.policy.page);
        let part = part.ok_or(ErrorKind::InvalidArgument)?;
        self.lock()
            .check("purge_dual", part, |s| s == PageState::Dual)?;
        // SAFETY: the caller's promise, passed on.
        unsafe { self.base.purge_dual(mapping, offset, len) }
    }

    unsafe fn refill_dual(
        &self,
        mapping: &DualMapping,
        offset: usize,
        len: usize,
    ) -> Result<(), Error> {
        let part = mapping.rw().part(offset, len, self.policy.page);
        let part = part.ok_or(ErrorKind::InvalidArgument)?;
        self.lock()
            .check("refill_dual", part, |s| s == PageState::Dual)?;
        // SAFETY: the caller's promise, passed on.
        unsafe { self.base.refill_dual(mapping, offset, len) }
    }

    unsafe fn fork_child_dual(&self, mapping: &DualMapping) -> Result<(), Error> {
        // SAFETY: the caller's promise, passed on.
        unsafe { self.base.fork_child_dual(mapping) }
    }
}

// SAFETY: the base keeps the promise.
unsafe impl<B: PageProvider + CoreSync + Copy> CoreSync for Sim<B> {
    fn sync_cores(&self) -> Result<(), Error> {
        if !self.policy.capabilities.contains(Capabilities::CORE_SYNC) {
            return Err(ErrorKind::Unsupported.into());
        }
        self.base.sync_cores()
    }
}

impl<B: PageProvider + Clock + Copy> Clock for Sim<B> {
    fn now_ms(&self) -> Option<u64> {
        self.base.now_ms()
    }
}

impl<B: PageProvider + Copy> ProcessMap for Sim<B> {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        self.lock().table.walk(&mut |entry: MapEntry| {
            let outside = entry.flags == MapFlags::OBJECT;
            outside || visit(entry)
        });
        Ok(())
    }

    fn address_space(&self) -> AddressSpace {
        AddressSpace {
            user: Some(self.space().addresses()),
            ..AddressSpace::default()
        }
    }
}

// SAFETY: the lock is the child's own afterwards; the tables are atomics, each page's whole.
unsafe impl<B: PageProvider + Copy> ForkChild for Sim<B> {
    unsafe fn fork_child(&self) -> Result<(), Error> {
        let misuse = self.misuse.current();
        if misuse.is_locked() {
            // SAFETY: the caller's promise: the only thread; Drop disposes with the same provider.
            unsafe { self.misuse.renew(&self.base, || Lock::new(None))? };
            // SAFETY: as above; it was taken out of use just now.
            unsafe { misuse.abandon() };
        }
        Ok(())
    }
}

impl<B: PageProvider + Copy> Drop for Sim<B> {
    fn drop(&mut self) {
        self.misuse.dispose(&self.base);
    }
}

impl<B: PageProvider + Copy> fmt::Debug for Sim<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Everything outside a simulated host, as its map shows it to the search.
fn outside(start: usize, last: usize) -> Option<MapEntry> {
    AddressRange::new(start, last).map(|range| MapEntry {
        range,
        flags: MapFlags::OBJECT,
    })
}
