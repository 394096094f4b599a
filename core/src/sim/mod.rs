//! A simulated host: a part of a real one with page tables, a page size, a size and a policy of its
//! own, that checks whoever uses it.
//!
//! Memory and aliasing come from a base provider, so that what runs on [`Sim`] really reads, writes
//! and executes. States are simulated, page by page; a call that starts from the wrong state does
//! not reach the base, is refused, and is remembered as a [`Misuse`].
//!
//! `policy` says what the host is like; `pages` and `dual` have the calls, `map` where holes are,
//! `table` the page tables; `faulty` is a provider that fails on demand.

mod dual;
mod faulty;
mod map;
mod pages;
mod policy;
mod table;

pub use faulty::{Calls, Faulty};
pub use policy::{Misuse, Policy};
pub use table::SimState;

use crate::{
    fork::{ForkChild, Renewable},
    page::{Access, PageRange},
    provider::{
        Capabilities, Clock, CoreSync, Error, ErrorKind, PageProvider, PageWish, Plan, search,
    },
    sync::{Guard, Lock, Spin},
};
use core::fmt;
use map::View;
use table::{Page, Table};

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
    pub fn page_state(&self, addr: usize) -> SimState {
        self.lock()
            .table
            .get(addr)
            .map_or(SimState::Hole, |page| page.state)
    }

    /// Returns how many pages are not holes: zero when nothing has leaked.
    pub fn pages_in_use(&self) -> usize {
        self.lock()
            .table
            .pages()
            .filter(|(_, page)| page.state != SimState::Hole)
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
            .all(|(_, page)| page.state == SimState::Hole);
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

impl<B: PageProvider + Copy> State<'_, B> {
    /// Checks that every page of `range` may start `call`.
    fn check(
        &mut self,
        call: &'static str,
        range: PageRange,
        allowed: impl Fn(SimState) -> bool,
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
            if old.state == SimState::Guard {
                old
            } else {
                page
            }
        });
    }
}

// SAFETY: the base makes all cores see new instructions before it returns `Ok`.
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

// SAFETY: the lock is the child's own afterwards; the tables are atomics, each page's whole.
unsafe impl<B: PageProvider + Copy> ForkChild for Sim<B> {
    unsafe fn fork_child(&self) -> Result<(), Error> {
        let misuse = self.misuse.current();
        if misuse.is_locked() {
            // SAFETY: no other thread is there, as fork_child asks; Drop disposes with the same
            // provider.
            unsafe { self.misuse.renew(&self.base, || Lock::new(None))? };
            // SAFETY: the only thread of a forked child, which took the lock out of use just now.
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
