//! Where a thread keeps what a static heap made for it.
//!
//! ```text
//!   value of a slot     the thread
//!   null, FRESH         has not called yet
//!   BUSY                is in a call and has no cache: only a signal handler sees this that
//!                       interrupted it
//!   DETACHED            has ended, or nearly: it has nothing cached any more
//!   else                has this cache, which says whether the thread is in a call
//! ```
//!
//! All but null point to a mark, which caches begin with. Those of the first three say for good
//! that the thread is in a call: so quick calls that never see null look at no more than that.

use crate::atomic::{
    AtomicPtr, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use core::ptr::null_mut;

/// A thread's own place for one pointer, null at first: `hostmem::std_slot!` makes one of a
/// `thread_local!`, and a runtime without the standard library has its own, in its state of a
/// thread, say, or by a [`SlotTable`]. Every [`StaticHeap`](super::StaticHeap) needs one of its
/// own.
///
/// # Safety
///
/// `get` returns what the same thread set last, or null, or [`DETACHED`]; never what another live
/// thread set. A place that [`ThreadSlot::place`] returns may be written, by a thread that waits
/// for the one whose it is, until that one has called `exit` or
/// [`GlobalHeap::detach`](super::GlobalHeap::detach); `get` returns what was written. In a signal
/// handler both calls work as in the thread that it interrupted. Nothing here unwinds.
pub unsafe trait ThreadSlot: 'static {
    /// Whether `get` returns [`FRESH`] where nothing was set, and never null. Then a call that a
    /// cached block serves need not look at what there is.
    const IS_NEVER_NULL: bool = false;

    /// Returns what the calling thread set last; null or [`FRESH`] if nothing. [`DETACHED`] where
    /// there is no slot for this thread.
    fn get() -> *mut ();

    /// Sets the calling thread's value, if there is a slot for it.
    fn set(value: *mut ());

    /// Says whether the calling code runs on an alternate signal stack. If not, a call that began
    /// deeper in the stack has been left for good, by a `siglongjmp` out of a handler that
    /// interrupted it. Where nothing is known, true: then no call is taken for one that was left.
    fn is_on_signal_stack() -> bool {
        true
    }

    /// Runs `f` and returns its result. Where the system can see to that, the calling thread runs
    /// no signal handler meanwhile, but for signals that an instruction causes.
    ///
    /// Calls of a thread that has no cache are made within this: nothing notes how deep they are in
    /// the stack, and after a `siglongjmp` out of a handler that interrupted one of them, all later
    /// calls would fail. So are [`ThreadSlot::on_exit`] and
    /// [`StaticHeap::register`](super::StaticHeap::register), which take locks of the C library.
    fn without_signals<T>(f: impl FnOnce() -> T) -> T {
        f()
    }

    /// Sees to it that the calling thread calls `exit` when it ends; says whether it will. Called
    /// once a thread, after [`ThreadSlot::set`]; it may allocate.
    ///
    /// A runtime that knows when its threads end returns true here, and has them call
    /// [`GlobalHeap::detach`](super::GlobalHeap::detach).
    fn on_exit(exit: fn()) -> bool;

    /// Returns where the calling thread's value lies, or null where no other thread may write it.
    ///
    /// [`GlobalHeap::close`](super::GlobalHeap::close) writes [`DETACHED`] there for threads that
    /// go on living. It asks that a thread whose slot returns null has detached before.
    fn place() -> *mut *mut () {
        null_mut()
    }
}

/// The first value of a slot that is never null.
pub const FRESH: *mut () = absent(0);

/// The value of a slot whose thread is in a call.
pub(super) const BUSY: *mut () = absent(1);

/// The value of a slot whose thread has nothing cached, and never will: its calls take a lock each.
pub const DETACHED: *mut () = absent(2);

/// The place of a slot whose thread a forked child has not.
pub(super) const NOWHERE: *mut *mut () = core::ptr::dangling_mut();

/// Marks of no cache, which are never changed.
#[cfg(not(all(test, loom)))]
static ABSENT: [AtomicUsize; 3] = [const { AtomicUsize::new(usize::MAX) }; 3];

#[cfg(not(all(test, loom)))]
const fn absent(n: usize) -> *mut () {
    (&raw const ABSENT[n]).cast_mut().cast()
}

/// Returns an address for each, since the models have no such statics.
#[cfg(all(test, loom))]
const fn absent(n: usize) -> *mut () {
    core::ptr::without_provenance_mut(n + 1)
}

/// Says whether the thread has not called yet.
#[cfg(not(all(test, loom)))]
pub(super) fn is_fresh(value: *mut ()) -> bool {
    value.is_null() || value == FRESH
}

/// Says whether a value of a slot is a thread's cache.
#[cfg(not(all(test, loom)))]
#[inline]
pub(super) fn is_cache(value: *mut ()) -> bool {
    let place = value.addr().wrapping_sub(FRESH.addr());
    !value.is_null() && place >= size_of_val(&ABSENT)
}

/// No slot: no thread has cached blocks, and every call takes a lock. A signal handler must not
/// call a heap with this slot, since the thread that it interrupted may hold that lock.
#[derive(Debug)]
pub struct NoSlot;

// SAFETY: always DETACHED.
unsafe impl ThreadSlot for NoSlot {
    fn get() -> *mut () {
        DETACHED
    }

    fn set(_: *mut ()) {}

    fn on_exit(_: fn()) -> bool {
        true
    }
}

/// The key of an entry that no thread has.
const NO_THREAD: usize = 0;

/// Slots of up to `N` threads, found by a number that each live thread has for itself: its thread
/// pointer, say, or the address of its stack. Takes no lock.
///
/// ```
/// use hostmem_core::heap::{SlotTable, ThreadSlot};
///
/// static TABLE: SlotTable<64> = SlotTable::new();
///
/// /// A runtime's way to tell threads apart.
/// fn number() -> usize {
///     # 64
/// #   /*
///     ...
/// #   */
/// }
///
/// struct Slot;
/// // SAFETY: numbers of live threads differ.
/// unsafe impl ThreadSlot for Slot {
///     fn get() -> *mut () {
///         TABLE.get(number())
///     }
///     fn set(value: *mut ()) {
///         TABLE.set(number(), value);
///     }
///     fn on_exit(_: fn()) -> bool {
///         true // This runtime's threads detach themselves.
///     }
///     fn place() -> *mut *mut () {
///         TABLE.place(number())
///     }
/// }
/// # assert!(Slot::get().is_null());
/// ```
///
/// A number of zero is no thread's: such threads are [`DETACHED`]. Those for whom there is no room
/// have no cached blocks, and must not allocate in signal handlers. The entry of a thread that
/// ended serves another one only after the heap was detached; where a live thread has the number of
/// one that ended without that, it goes on with what that one had. A thread that calls the heap
/// after it was detached has an entry again, and must be detached again.
#[derive(Debug)]
pub struct SlotTable<const N: usize> {
    keys: [AtomicUsize; N],
    values: [AtomicPtr<()>; N],
}

impl<const N: usize> SlotTable<N> {
    /// Makes a table without threads.
    #[cfg(not(all(test, loom)))]
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(N.is_power_of_two(), "numbers of threads are hashed") };
        Self {
            keys: [const { AtomicUsize::new(NO_THREAD) }; N],
            values: [const { AtomicPtr::new(null_mut()) }; N],
        }
    }

    /// Makes a table without threads, which no constant can be with loom's atomics.
    #[cfg(all(test, loom))]
    fn new() -> Self {
        Self {
            keys: core::array::from_fn(|_| AtomicUsize::new(NO_THREAD)),
            values: core::array::from_fn(|_| AtomicPtr::new(null_mut())),
        }
    }

    /// Where a thread's entry may be, the likeliest place first.
    fn places(thread: usize) -> impl Iterator<Item = usize> {
        // Fibonacci hashing: the high bits of the product depend on all of the number.
        let hash = (thread as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let first = usize::try_from(hash).unwrap_or(0);
        (0..N).map(move |n| (first + n) % N)
    }

    /// Finds the entry of a thread. Only the thread itself makes and gives up entries by its
    /// number.
    fn find(&self, thread: usize) -> Option<usize> {
        Self::places(thread).find(|&n| self.keys[n].load(Relaxed) == thread)
    }

    /// Returns what the calling thread, whose number `thread` is, set last; null if nothing.
    #[must_use]
    pub fn get(&self, thread: usize) -> *mut () {
        if thread == NO_THREAD {
            return DETACHED;
        }
        let Some(n) = self.find(thread) else {
            return null_mut();
        };
        let value = self.values[n].load(Relaxed);
        // A handler interrupted `set` between its two stores.
        if value.is_null() { BUSY } else { value }
    }

    /// Sets the value of the calling thread, whose number `thread` is; null and [`DETACHED`] give
    /// up its entry. Where there is no room for one, nothing is set.
    pub fn set(&self, thread: usize, value: *mut ()) {
        if thread == NO_THREAD {
            return;
        }
        if value.is_null() || value == DETACHED {
            if let Some(n) = self.find(thread) {
                self.values[n].store(null_mut(), Relaxed);
                // Release, so that who takes the entry finds it without a value.
                self.keys[n].store(NO_THREAD, Release);
            }
            return;
        }
        let n = self.find(thread).or_else(|| self.take(thread));
        if let Some(n) = n {
            self.values[n].store(value, Relaxed);
        }
    }

    /// Returns where the value of the calling thread lies, whose number `thread` is; null where it
    /// has set none. For [`ThreadSlot::place`].
    #[cfg(not(all(test, loom)))]
    #[must_use]
    pub fn place(&self, thread: usize) -> *mut *mut () {
        let entry = (thread != NO_THREAD).then(|| self.find(thread)).flatten();
        entry.map_or(null_mut(), |n| self.values[n].as_ptr())
    }

    /// Makes an entry the calling thread's, if there is one that no thread has. Until it has a
    /// value a signal handler on this thread is told that the thread is in a call, so that it takes
    /// none.
    fn take(&self, thread: usize) -> Option<usize> {
        let taken = Self::places(thread).find(|&n| {
            let key = &self.keys[n];
            key.compare_exchange(NO_THREAD, thread, Acquire, Relaxed)
                .is_ok()
        })?;
        // One that interrupted the search has taken another, and is not to be found again.
        let all = Self::places(thread);
        for other in all.filter(|&n| n != taken && self.keys[n].load(Relaxed) == thread) {
            self.values[other].store(null_mut(), Relaxed);
            self.keys[other].store(NO_THREAD, Release);
        }
        Some(taken)
    }
}

impl<const N: usize> Default for SlotTable<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::ptr::without_provenance_mut;

    fn value(n: usize) -> *mut () {
        without_provenance_mut(n << 6)
    }

    #[cfg(not(loom))]
    #[test]
    fn threads_find_what_they_set_while_there_is_room() {
        let table = SlotTable::<8>::new();
        assert_eq!(table.get(0), DETACHED, "no thread has the number");
        table.set(0, value(1));
        for round in 0..3 {
            for n in 1..=9 {
                assert_eq!(table.get(n), null_mut(), "round {round}");
                table.set(n, value(n));
                let expected = if n == 9 { null_mut() } else { value(n) };
                assert_eq!(table.get(n), expected, "the ninth has no room");
                assert_eq!(table.place(n).is_null(), n == 9);
            }
            for n in 1..=8 {
                table.set(n, BUSY);
                assert_eq!(table.get(n), BUSY);
                table.set(n, if n % 2 == 0 { DETACHED } else { null_mut() });
                assert_eq!(table.get(n), null_mut());
            }
        }
    }

    /// A handler interrupts `set` between its two stores: there is no value yet, and no second
    /// entry.
    #[cfg(not(loom))]
    #[test]
    fn a_thread_that_is_taking_an_entry_is_in_a_call() {
        let table = SlotTable::<8>::new();
        let n = table.take(5).expect("there is room");
        assert_eq!(table.get(5), BUSY);
        // The value of a handler that interrupted the search is replaced.
        table.keys[(n + 1) % 8].store(5, Relaxed);
        table.values[(n + 1) % 8].store(value(1), Relaxed);
        table.keys[n].store(NO_THREAD, Relaxed);
        let n = table.take(5).expect("there is room");
        table.values[n].store(value(2), Relaxed);
        assert_eq!(table.get(5), value(2));
        let own = table.keys.iter().filter(|key| key.load(Relaxed) == 5);
        assert_eq!(own.count(), 1);
        table.set(5, null_mut());
        assert_eq!(table.get(5), null_mut());
        let free = |key: &&AtomicUsize| key.load(Relaxed) == NO_THREAD;
        assert_eq!(table.keys.iter().filter(free).count(), 8);
    }

    /// Three threads in turn for two entries: each sees what it set, or that there was no room, and
    /// never what another one did.
    #[cfg(loom)]
    #[test]
    fn model_threads_share_a_table_that_has_room_for_fewer() {
        use loom::{sync::Arc, thread};
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(|| {
            let table = Arc::new(SlotTable::<2>::new());
            let live = |table: &SlotTable<2>, n: usize| {
                assert_eq!(table.get(n), null_mut(), "nothing was set");
                table.set(n, value(n));
                let got = table.get(n);
                assert!(got == value(n) || got.is_null(), "{got:p} of {n}");
                table.set(n, DETACHED);
                assert_eq!(table.get(n), null_mut(), "it was given up");
            };
            let threads = [1, 2].map(|n| {
                let table = table.clone();
                thread::spawn(move || live(&table, n))
            });
            live(&table, 3);
            for thread in threads {
                thread.join().expect("it ends");
            }
            // All have ended, and all that they had serves again.
            live(&table, 4);
            table.set(5, value(5));
            assert_eq!(table.get(5), value(5));
        });
    }
}
