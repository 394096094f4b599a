//! Memory for metadata: a small heap over reservations that are made as it grows.
//!
//! Every structure of hostmem keeps its book-keeping in an arena, outside what it describes, so
//! that nothing here needs a global allocator and no stray write into user memory can reach it.
//!
//! ```text
//!   newest                                                                        oldest
//!   ┌───────────────────────────────┐   ┌───────────────────────┐   ┌────────────────────┐
//!   │ header │ used │ fresh │ later │──►│ header │ used │ fresh │──►│ header │    used    │
//!   └───────────────────────────────┘   └───────────────────────┘   └────────────────────┘
//!    256 KiB         committed, zero     128 KiB                     64 KiB
//!                            reserved
//! ```
//!
//! An arena is a chain of *pieces*, a reservation each. There is none before the first allocation;
//! the first is 64 KiB long, and each next one twice as long, up to 4 MiB or an eighth of what
//! there is. What is reserved before it is needed is bounded by what the host's limits leave, see
//! [`reserve_ahead`]. A piece is committed by steps, and objects are cut from it one behind the
//! other, so that no page is written before something lies in it.
//!
//! | objects | freed ones wait in |
//! |---|---|
//! | up to 32 KiB | stacks, one a size class: allocating and freeing take a few instructions |
//! | above that, or aligned to more than 128 bytes | a list, by `linked_list_allocator` |
//! | above 1 MiB | nothing: each is a piece of its own, which is released |
//!
//! A smaller object is cut from a larger freed one only where the arena can grow no more.
//!
//! A request comes by `class`, the size classes; `state`, what the lock guards; `pools`, the stacks
//! of freed objects; `grow` and `piece`, how the next piece is made; `own`, objects that have one
//! to themselves. `values` has the calls for values and slices.
//!
//! [`reserve_ahead`]: crate::provider::reserve_ahead

mod class;
mod grow;
mod own;
mod piece;
mod pools;
mod state;
mod values;

use crate::{
    page::{PageRange, PageSize},
    provider::{Error, ErrorKind, PageProvider},
    sync::{Guard, Lock, RawMutex, Spin},
};
use core::{
    alloc::Layout,
    fmt,
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use piece::{Chain, Piece};
use state::State;

/// Objects above this are pieces of their own.
const OWN: usize = 1 << 20;

/// A bounded heap for metadata.
pub struct Arena<P: PageProvider + Copy, R = Spin> {
    provider: P,
    page: PageSize,
    /// The bound of what is reserved.
    max: usize,
    chain: Chain,
    state: Lock<State, R>,
    is_abandoned: AtomicBool,
}

/// Which way an object goes.
#[derive(Clone, Copy)]
enum Kind {
    /// To the pools.
    Small { class: usize },
    /// To the list.
    Large(Layout),
    /// To the provider.
    Own(Layout),
}

/// Memory, and whether it has never been written and reads zero.
type Found = (NonNull<u8>, bool);

impl<P: PageProvider + Copy, R: RawMutex> Arena<P, R> {
    /// Makes an arena that reserves `max_len` bytes at most, in whole pages. It reserves nothing
    /// yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for a bound that no page ends behind.
    pub fn new(provider: P, max_len: usize) -> Result<Self, Error> {
        let page = provider.page_size();
        let max = page.round_up(max_len).ok_or(ErrorKind::InvalidArgument)?;
        Ok(Self {
            provider,
            page,
            max,
            chain: Chain::new(),
            state: Lock::new(State::new()),
            is_abandoned: AtomicBool::new(false),
        })
    }

    /// Returns the lowest piece that ends above `from`.
    pub(crate) fn next_range(&self, from: usize) -> Option<PageRange> {
        let _state = self.state.lock();
        let mut lowest: Option<PageRange> = None;
        self.chain.visit(|piece| {
            let range = piece.range;
            let lower = lowest.is_none_or(|lowest| range.addr() < lowest.addr());
            if range.end() > from && lower {
                lowest = Some(range);
            }
        });
        lowest
    }

    /// Says whether an object is being allocated or freed.
    pub(crate) fn is_locked(&self) -> bool {
        self.state.is_locked()
    }

    /// Takes the lock for good.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn hold(&self) {
        core::mem::forget(self.state.lock());
    }

    /// Leaves an arena behind whose lock a forked child found held. Nothing is allocated or freed
    /// any more, but by the one who holds the lock.
    ///
    /// # Safety
    ///
    /// This is the only thread of a forked child, which has taken the arena out of use.
    pub(crate) unsafe fn abandon(&self) {
        self.is_abandoned.store(true, Relaxed);
        // SAFETY: the only thread of a forked child, which took the lock out of use with the arena:
        // this function's `# Safety`.
        unsafe { self.state.abandon() };
    }

    /// Takes the lock.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`] where the arena was left behind.
    #[inline]
    fn lock(&self) -> Result<Guard<'_, State, R>, Error> {
        let state = self.state.lock();
        if self.is_abandoned.load(Relaxed) {
            return Err(ErrorKind::Unsupported.into());
        }
        Ok(state)
    }

    /// Says whether an address lies in one of the pieces.
    pub(crate) fn holds(&self, addr: usize) -> bool {
        let _state = self.state.lock();
        let holds = |piece: &Piece| piece.range.addresses().contains(addr);
        self.chain.find(holds).is_some()
    }

    /// Allocates memory of `layout`; its contents are undefined.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Exhausted`] at the arena's bound, [`ErrorKind::InvalidArgument`] for a layout
    /// of size zero; what the provider says of a reservation or a commit. Nothing changes then.
    #[inline]
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, Error> {
        self.find(layout).map(|(memory, _)| memory)
    }

    /// Allocates memory of `layout` that reads zero. Fresh pages are not written for that.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::alloc`].
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, Error> {
        let (memory, fresh) = self.find(layout)?;
        if !fresh {
            // SAFETY: memory of this layout, allocated just now.
            unsafe { memory.write_bytes(0, layout.size()) };
        }
        Ok(memory)
    }

    #[inline]
    fn find(&self, layout: Layout) -> Result<Found, Error> {
        if layout.size() == 0 {
            return Err(ErrorKind::InvalidArgument.into());
        }
        match self.kind(layout)? {
            Kind::Small { class } => {
                let mut state = self.lock()?;
                let size = class::size(class);
                let found = match state.pools.take(class) {
                    Some(object) => (object, false),
                    None => self.fresh_small(&mut state, class)?,
                };
                state.used += size;
                Ok(found)
            }
            Kind::Large(layout) => self.find_large(layout),
            Kind::Own(layout) => self.find_own(layout),
        }
    }

    /// Returns which way objects of a layout go. Depends on nothing but the layout and the arena.
    #[inline]
    fn kind(&self, layout: Layout) -> Result<Kind, Error> {
        let (size, align) = (layout.size(), layout.align());
        if align <= class::ALIGN && size <= class::LARGEST {
            // No larger than LARGEST, which is a multiple of every alignment up to ALIGN.
            let class = class::at_least(size.next_multiple_of(align));
            return Ok(Kind::Small { class });
        }
        // A layout's size leaves room for rounding.
        let size = size.next_multiple_of(class::STEP);
        let layout = Layout::from_size_align(size, align.max(class::STEP));
        let layout = layout.map_err(|_| ErrorKind::Exhausted)?;
        Ok(if size > OWN {
            Kind::Own(layout)
        } else {
            Kind::Large(layout)
        })
    }

    #[inline(never)]
    fn fresh_small(&self, state: &mut State, class: usize) -> Result<Found, Error> {
        let size = class::size(class);
        let align = class::align(size);
        match self.piece_for(state, size, align) {
            Ok(piece) => Ok((state.cut(piece, size, align), true)),
            Err(error) => state.split(class).map(|found| (found, false)).ok_or(error),
        }
    }

    fn find_large(&self, layout: Layout) -> Result<Found, Error> {
        let (size, align) = (layout.size(), layout.align());
        let mut state = self.lock()?;
        let found = match state.holes.allocate_first_fit(layout) {
            Ok((hole, _)) => (hole, false),
            Err(()) => {
                let piece = self.piece_for(&mut state, size, align)?;
                (state.cut(piece, size, align), true)
            }
        };
        state.used += size;
        Ok(found)
    }

    /// Frees what `alloc` returned.
    ///
    /// # Safety
    ///
    /// `memory` came from this arena, allocated with the same `layout`, was not freed since, and
    /// no other code uses it.
    pub unsafe fn free(&self, memory: NonNull<u8>, layout: Layout) {
        let Ok(kind) = self.kind(layout) else {
            return debug_assert!(false, "no memory has such a layout");
        };
        match kind {
            Kind::Small { class } => {
                let Ok(mut state) = self.lock() else {
                    return;
                };
                state.used -= class::size(class);
                // SAFETY: put asks for memory of the class that is the pools' from now on: it was
                // allocated for the same layout, hence of this class, and its user gives it up.
                unsafe { state.pools.put(memory, class) };
            }
            Kind::Large(layout) => {
                let Ok(mut state) = self.lock() else {
                    return;
                };
                state.used -= layout.size();
                // SAFETY: deallocate asks for memory of this layout that no other code uses. It may
                // lie anywhere: a list without bounds keeps holes in the order of addresses, and
                // joins those that touch.
                unsafe { state.holes.deallocate(memory, layout) };
            }
            // SAFETY: the memory came from here with this layout, by this function's `# Safety`,
            // and such layouts have pieces of their own.
            Kind::Own(layout) => unsafe { self.free_own(memory, layout) },
        }
    }

    /// Returns how many bytes of addresses the arena holds.
    pub fn reserved_bytes(&self) -> usize {
        self.state.lock().reserved
    }

    /// Returns how much memory the arena holds, in bytes: what is committed, whether it was ever
    /// written or not.
    pub fn committed_bytes(&self) -> usize {
        self.state.lock().committed
    }

    /// Returns how much of it is in use, in bytes: the sizes of live objects, rounded up as they
    /// are.
    pub fn used_bytes(&self) -> usize {
        self.state.lock().used
    }

    /// Returns the bound of [`Arena::reserved_bytes`].
    pub const fn max_bytes(&self) -> usize {
        self.max
    }
}

impl<P: PageProvider + Copy, R> Drop for Arena<P, R> {
    fn drop(&mut self) {
        while let Some(range) = self.chain.pop() {
            // SAFETY: the range came from reserve and was never released; whoever uses memory of
            // the arena borrows it or promised, in free and alloc_slice, to end before it.
            let released = unsafe { self.provider.release(range) };
            // The error has no receiver: the range stays reserved, which wastes addresses.
            let _ = released;
        }
    }
}

impl<P: PageProvider + Copy, R> fmt::Debug for Arena<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}
