//! Heaps in statics that are closed: what they had goes back, and every later call finds them so.

#[cfg(target_env = "gnu")]
mod plugin;

use crate::{
    common::{bare_fork, exit, threads::Patience, wait},
    system::OS,
};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::NonNull,
    sync::atomic::{
        AtomicUsize,
        Ordering::{AcqRel, Acquire},
    },
};
use hostmem::{
    OsLock, OsProvider,
    arch::thread_pointer,
    heap::{
        GlobalHeap, Heap, HeapConfig, HeapError, HeapOf, Level, SlotTable, State, StaticHeap,
        ThreadSlot,
    },
    page::AddressRange,
};
use hostmem_test_support::{isolate::isolated, maps};
use std::thread;

const MIB: usize = 1 << 20;

/// Describes a heap with this slot, which `$open` makes.
macro_rules! static_heap {
    ($Name:ident, $Slot:ident, $open:expr) => {
        #[derive(Debug)]
        struct $Name;

        // SAFETY: the state and the slot are this heap's alone, and what `open` does with the heap
        // itself fails.
        unsafe impl StaticHeap for $Name {
            type Pages = OsProvider;
            type Metadata = OsProvider;
            type Lock = OsLock;
            type Slot = $Slot;

            fn open() -> Result<HeapOf<Self>, HeapError> {
                $open
            }

            fn state() -> &'static State<Self> {
                static STATE: State<$Name> = State::new();
                &STATE
            }

            fn register() {
                hostmem::register_fork_child::<Self>().expect("memory for it");
            }
        }
    };
}

/// Makes a slot of a table, in which threads are found by their thread pointers.
macro_rules! table_slot {
    ($Slot:ident, $TABLE:ident, $place:expr) => {
        static $TABLE: SlotTable<64> = SlotTable::new();

        #[derive(Debug)]
        struct $Slot;

        // SAFETY: thread pointers of live threads differ, and those of the tests detach.
        unsafe impl ThreadSlot for $Slot {
            fn get() -> *mut () {
                $TABLE.get(own_number())
            }

            fn set(value: *mut ()) {
                $TABLE.set(own_number(), value);
            }

            fn on_exit(_: fn()) -> bool {
                true
            }

            fn place() -> *mut *mut () {
                $place
            }
        }
    };
}

mod within;

fn own_number() -> usize {
    // SAFETY: this is a program with a C library, which sets thread pointers.
    unsafe { thread_pointer() }
}

fn new_heap<C>() -> Result<HeapOf<C>, HeapError>
where
    C: StaticHeap<Pages = OsProvider, Metadata = OsProvider, Lock = OsLock>,
{
    Heap::on(OS, OS, HeapConfig::new())
}

fn close<C: StaticHeap>() -> Result<(), HeapError> {
    // SAFETY: where this succeeds, other threads of the tests wait, and no block is used
    // afterwards.
    unsafe { GlobalHeap::<C>::new().close() }
}

/// Where two threads wait for each other, again and again, but not for one that has failed.
struct Meeting(AtomicUsize);

impl Meeting {
    const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    fn wait(&self) {
        let arrived = self.0.fetch_add(1, AcqRel);
        let patience = Patience::new();
        while self.0.load(Acquire) / 2 == arrived / 2 {
            patience.check("the other thread");
            thread::yield_now();
        }
    }
}

/// Returns how many bytes of these addresses are mapped, without what the test itself allocates.
fn mapped_of(ranges: &[AddressRange]) -> usize {
    let mappings = maps::of_self().expect("/proc is mounted");
    let theirs = |m: &&maps::Mapping| !crate::common::is_of_test(m.start, &m.path);
    let within = |m: &maps::Mapping| {
        let overlaps = ranges.iter().map(|range| {
            let end = m.end.min(range.last() + 1);
            end.saturating_sub(m.start.max(range.start()))
        });
        overlaps.sum::<usize>()
    };
    mappings.iter().filter(theirs).map(within).sum()
}

/// Allocates and frees blocks of all kinds; some stay.
fn exercise<C: StaticHeap>() {
    let heap = GlobalHeap::<C>::new();
    for n in 0..200 {
        let size = [16, 300, 5000, 70_000, 600_000][n % 5];
        let block = heap.alloc_bytes(size).expect("memory");
        // SAFETY: a live block of this size.
        unsafe { block.write_bytes(1, size) };
        if n % 7 != 0 {
            // SAFETY: live, and used no more.
            unsafe { heap.free(block) }.expect("a live block");
        }
    }
    heap.alloc_bytes(5 * MIB).expect("memory");
}

/// Makes every call of a heap that is closed, which had `block` before.
fn check_closed<C: StaticHeap>(block: NonNull<u8>) {
    let heap = GlobalHeap::<C>::new();
    let closed = Err(HeapError::Closed);
    let layout = Layout::new::<[u64; 8]>();
    for _ in 0..3 {
        for size in [1, 100, 100_000, 8 * MIB] {
            assert_eq!(heap.alloc_bytes(size), closed);
            assert_eq!(heap.alloc_bytes_zeroed(size), closed);
            assert_eq!(heap.alloc_aligned(size, 256), closed);
        }
        // SAFETY: a block of a heap that is closed is no block.
        assert_eq!(unsafe { heap.free(block) }, Err(HeapError::Closed));
        // SAFETY: a block of a heap that is closed is no block: it is refused.
        assert_eq!(unsafe { heap.realloc_bytes(block, 9) }, closed);
        // SAFETY: the size is not zero.
        assert!(unsafe { heap.alloc(layout) }.is_null());
        // SAFETY: the size is not zero.
        assert!(unsafe { heap.alloc_zeroed(layout) }.is_null());
        // SAFETY: was allocated, and is used no more; what follows does not look at it.
        assert!(unsafe { heap.realloc(block.as_ptr(), layout, 9) }.is_null());
        // SAFETY: was allocated, and is used no more; what follows does not look at it.
        unsafe { heap.dealloc(block.as_ptr(), layout) };
        assert_eq!(heap.collect(Level::Deep), Err(HeapError::Closed));
        assert_eq!(heap.heap().err(), Some(HeapError::Closed));
        assert!(!heap.owns(block.addr().get()));
        assert_eq!(heap.usable_size(block), None);
        assert_eq!(heap.block_of(block.addr().get()), None);
        heap.flush();
        heap.detach();
        assert_eq!(close::<C>(), Ok(()), "it is closed already");
    }
}

/// Closes a heap that three threads use, of which one ended before, and asks all that go on.
fn check_threads<C: StaticHeap>() {
    let heap = GlobalHeap::<C>::new();
    let step = Meeting::new();
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            step.wait();
            exercise::<C>();
            let block = heap.alloc_bytes(64).expect("memory");
            step.wait();
            step.wait();
            check_closed::<C>(block);
        });
        step.wait();
        let ended = scope.spawn(|| {
            exercise::<C>();
            heap.detach();
        });
        assert!(ended.join().is_ok(), "the thread that ends before");
        exercise::<C>();
        let block = heap.alloc_bytes(64).expect("memory");
        step.wait();
        assert!(heap.owns(block.addr().get()));
        let open = heap.heap().expect("it is open");
        let ranges = open.ranges().chain(open.metadata_ranges());
        let ranges: Vec<_> = ranges.map(|range| range.addresses).collect();
        let before = mapped_of(&ranges);
        assert!(before > 16 * MIB, "what was allocated at least: {before}");
        assert_eq!(close::<C>(), Ok(()));
        assert_eq!(mapped_of(&ranges), 0, "of {before}");
        check_closed::<C>(block);
        step.wait();
        assert!(other.join().is_ok(), "the thread that goes on");
        let new = scope.spawn(|| check_closed::<C>(NonNull::from(&0_u8)));
        assert!(new.join().is_ok(), "a thread that comes later");
        let child = bare_fork();
        if child == 0 {
            check_closed::<C>(block);
            exit(0);
        }
        assert_eq!(wait(child), 0);
    });
}

hostmem::std_slot! {
    struct QuickSlot;
}

static_heap!(Quick, QuickSlot, new_heap::<Self>());

table_slot!(TableSlot, TABLE, TABLE.place(own_number()));

static_heap!(Table, TableSlot, new_heap::<Self>());

#[test]
fn threads_that_go_on_find_a_heap_closed() {
    isolated!("threads_that_go_on_find_a_heap_closed", || {
        check_threads::<Quick>();
    });
}

#[test]
fn threads_of_a_table_find_a_heap_closed() {
    isolated!("threads_of_a_table_find_a_heap_closed", || {
        check_threads::<Table>();
    });
}

table_slot!(HiddenSlot, HIDDEN, core::ptr::null_mut());

static_heap!(Hidden, HiddenSlot, new_heap::<Self>());

#[test]
fn threads_whose_slots_lie_anywhere_detach_first() {
    isolated!("threads_whose_slots_lie_anywhere_detach_first", || {
        let heap = GlobalHeap::<Hidden>::new();
        exercise::<Hidden>();
        let step = Meeting::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                exercise::<Hidden>();
                step.wait();
                step.wait();
                exercise::<Hidden>();
                heap.detach();
                step.wait();
            });
            step.wait();
            assert_eq!(close::<Hidden>(), Err(HeapError::Busy));
            exercise::<Hidden>();
            step.wait();
            step.wait();
            let block = heap.alloc_bytes(64).expect("memory");
            assert_eq!(close::<Hidden>(), Ok(()));
            check_closed::<Hidden>(block);
        });
    });
}

hostmem::std_slot! {
    struct UnopenedSlot;
}

static_heap!(Unopened, UnopenedSlot, panic!("it is closed"));

#[test]
fn a_heap_that_was_closed_is_never_opened() {
    isolated!("a_heap_that_was_closed_is_never_opened", || {
        assert_eq!(close::<Unopened>(), Ok(()));
        let other = NonNull::from(&0_u8);
        check_closed::<Unopened>(other);
        let new = thread::spawn(move || check_closed::<Unopened>(NonNull::from(&0_u8)));
        assert!(new.join().is_ok(), "a thread that comes later");
    });
}
