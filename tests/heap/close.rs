//! Heaps in statics that are closed: what they had goes back, and every later call finds them so.

use crate::common::{bare_fork, exit, threads::Patience, wait};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::NonNull,
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};
use hostmem::{
    OsLock, OsProvider,
    arch::thread_pointer,
    heap::{
        DETACHED, GlobalHeap, Heap, HeapConfig, HeapError, HeapOf, Level, SlotTable, State,
        StaticHeap, ThreadSlot,
    },
    page::AddressRange,
};
use hostmem_test_support::{isolate::isolated, maps};
use std::thread;

const OS: OsProvider = OsProvider::new();
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
        // SAFETY: as above.
        assert_eq!(unsafe { heap.realloc_bytes(block, 9) }, closed);
        // SAFETY: the size is not zero.
        assert!(unsafe { heap.alloc(layout) }.is_null());
        // SAFETY: as above.
        assert!(unsafe { heap.alloc_zeroed(layout) }.is_null());
        // SAFETY: was allocated, and is used no more; what follows does not look at it.
        assert!(unsafe { heap.realloc(block.as_ptr(), layout, 9) }.is_null());
        // SAFETY: as above.
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

hostmem::std_slot! {
    struct InnerSlot;
}
static_heap!(Inner, InnerSlot, {
    note_inner();
    Heap::on(
        OS,
        OS,
        HeapConfig::new().clock(|| {
            note_inner();
            Some(1)
        }),
    )
});

static TRIED: AtomicUsize = AtomicUsize::new(0);
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// Tries to close a heap within a call of it, as a signal handler may.
fn note_inner() {
    TRIED.fetch_add(1, Relaxed);
    if close::<Inner>() == Err(HeapError::Busy) {
        REFUSED.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_heap_is_not_closed_within_a_call() {
    isolated!("a_heap_is_not_closed_within_a_call", || {
        exercise::<Inner>();
        GlobalHeap::<Inner>::new().detach();
        exercise::<Inner>();
        let tried = TRIED.load(Relaxed);
        assert!(tried > 2, "the clock is read in calls");
        assert_eq!(REFUSED.load(Relaxed), tried);
        assert_eq!(close::<Inner>(), Ok(()));
    });
}

table_slot!(ForkedSlot, FORKED, FORKED.place(own_number()));
static_heap!(
    Forked,
    ForkedSlot,
    Heap::on(OS, OS, HeapConfig::new().clock(fork_once))
);

/// Whether the next look at the clock forks, and whether this process is the child.
static FORKS: AtomicBool = AtomicBool::new(false);
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Forks within a call, as a signal handler does that interrupts it.
#[expect(clippy::unnecessary_wraps, reason = "it is a clock")]
fn fork_once() -> Option<u64> {
    if FORKS.swap(false, Relaxed) {
        let child = bare_fork();
        IS_CHILD.store(child == 0, Relaxed);
        if child != 0 {
            assert_eq!(wait(child), 0);
        }
    }
    Some(1)
}

/// What was a thread's in the parent is no slot in the child.
#[test]
fn a_child_of_a_call_leaves_slots_of_the_parent_alone() {
    isolated!("a_child_of_a_call_leaves_slots_of_the_parent_alone", || {
        let heap = GlobalHeap::<Forked>::new();
        exercise::<Forked>();
        let step = Meeting::new();
        let number = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                exercise::<Forked>();
                number.store(own_number(), Relaxed);
                step.wait();
                step.wait();
                check_closed::<Forked>(NonNull::from(&0_u8));
            });
            step.wait();
            let number = number.load(Relaxed);
            assert_ne!(FORKED.get(number), DETACHED);
            FORKS.store(true, Relaxed);
            exercise::<Forked>();
            assert!(!FORKS.load(Relaxed), "a call read the clock");
            let block = heap.alloc_bytes(64).expect("memory");
            assert_eq!(close::<Forked>(), Ok(()));
            check_closed::<Forked>(block);
            if IS_CHILD.load(Relaxed) {
                exit(i32::from(FORKED.get(number) == DETACHED));
            }
            assert_eq!(FORKED.get(number), DETACHED);
            step.wait();
        });
    });
}

/// Libraries that are loaded and unloaded, each with a heap of its own.
#[cfg(target_env = "gnu")]
mod plugin {
    use super::*;
    use crate::common::{at_length, copies_of, emulated};
    use core::{
        ffi::{CStr, c_void},
        mem::transmute,
        ptr::null_mut,
    };
    use std::{
        ffi::CString,
        os::unix::ffi::OsStrExt,
        path::{Path, PathBuf},
        thread::Scope,
    };

    /// What `examples/plugin.rs` exports.
    #[derive(Clone, Copy)]
    struct Calls {
        alloc: extern "C" fn(usize) -> *mut u8,
        free: unsafe extern "C" fn(*mut u8) -> bool,
        close: unsafe extern "C" fn() -> bool,
    }

    struct Library(*mut c_void);

    impl Library {
        fn open(path: &Path) -> Self {
            let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
            // SAFETY: a library whose constructors are the standard library's.
            let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
            assert!(!library.is_null(), "{path:?} is loaded");
            Self(library)
        }

        fn symbol(&self, name: &CStr) -> *mut c_void {
            // SAFETY: an open library, and a string.
            let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
            assert!(!symbol.is_null(), "{name:?} is there");
            symbol
        }

        fn calls(&self) -> Calls {
            Calls {
                // SAFETY: the example exports a function of this type by this name.
                alloc: unsafe {
                    transmute::<*mut c_void, extern "C" fn(usize) -> *mut u8>(
                        self.symbol(c"plugin_alloc"),
                    )
                },
                // SAFETY: as above.
                free: unsafe {
                    transmute::<*mut c_void, unsafe extern "C" fn(*mut u8) -> bool>(
                        self.symbol(c"plugin_free"),
                    )
                },
                // SAFETY: as above.
                close: unsafe {
                    transmute::<*mut c_void, unsafe extern "C" fn() -> bool>(
                        self.symbol(c"plugin_close"),
                    )
                },
            }
        }

        fn unload(self) {
            // SAFETY: open, and used no more but by threads whose ends keep it.
            assert_eq!(unsafe { libc::dlclose(self.0) }, 0);
        }
    }

    impl Calls {
        /// Allocates blocks of all kinds, and frees most.
        fn exercise(self) {
            for n in 0..100 {
                let size = [16, 300, 5000, 70_000, 3 * MIB][n % 5];
                let block = (self.alloc)(size);
                assert!(!block.is_null(), "memory for {size} bytes");
                // SAFETY: a live block of this size.
                unsafe { block.write_bytes(1, size) };
                if n % 7 != 0 {
                    // SAFETY: live, and used no more.
                    assert!(unsafe { (self.free)(block) });
                }
            }
        }

        fn check_closed(self) {
            assert_eq!((self.alloc)(100), null_mut());
            // SAFETY: no block.
            assert!(!unsafe { (self.free)(NonNull::<u8>::dangling().as_ptr()) });
            self.close();
        }

        fn close(self) {
            // SAFETY: the other threads wait, and blocks are used no more.
            assert!(unsafe { (self.close)() });
        }
    }

    fn is_loaded(path: &Path) -> bool {
        let mappings = maps::of_self().expect("/proc is mounted");
        mappings.iter().any(|m| Path::new(&m.path) == path)
    }

    /// A child runs what libraries registered for it, if they are still there.
    fn check_fork() {
        let child = bare_fork();
        if child == 0 {
            exit(0);
        }
        assert_eq!(wait(child), 0);
    }

    /// Loads a plugin, uses it from a thread that ends, from one that goes on and from one that
    /// comes after it was closed, and unloads it: before that one ends, if it `outlives` the
    /// plugin.
    fn cycle<'s>(scope: &'s Scope<'s, '_>, step: &'s Meeting, path: &Path, outlives: bool) {
        let library = Library::open(path);
        let calls = library.calls();
        let ended = scope.spawn(move || calls.exercise()).join();
        assert!(ended.is_ok(), "a thread that ended before");
        let other = scope.spawn(move || {
            calls.exercise();
            step.wait();
            step.wait();
            calls.check_closed();
            step.wait();
            step.wait();
        });
        step.wait();
        if outlives {
            calls.close();
        } else {
            let closed = scope.spawn(move || calls.close()).join();
            assert!(closed.is_ok(), "a thread that never allocated closes");
        }
        step.wait();
        step.wait();
        check_fork();
        if outlives {
            library.unload();
            assert!(
                is_loaded(path),
                "the thread is still to end by a call of it"
            );
            step.wait();
            assert!(other.join().is_ok(), "a thread that ends after");
        } else {
            step.wait();
            assert!(other.join().is_ok(), "a thread that goes on");
            library.unload();
            assert!(!is_loaded(path), "no thread is to end by it");
        }
        check_fork();
    }

    /// Returns the bytes of addresses of this process, those that are resident, and how many
    /// mappings it has.
    fn held() -> [usize; 3] {
        let mappings = maps::of_self().expect("/proc is mounted");
        let mapped = mappings.iter().map(|m| m.end - m.start).sum();
        let text = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
        let resident = text.split(' ').nth(1).and_then(|n| n.parse().ok());
        let resident: usize = resident.expect("a number of pages");
        [mapped, resident << 12, mappings.len()]
    }

    /// Builds the plugin example and returns where two copies of it lie, which are two libraries
    /// for a loader.
    fn plugins() -> [PathBuf; 2] {
        // With what the tests were built with, which is there then.
        let features = match cfg!(feature = "sim") {
            true => "--features=std,sim",
            false => "--features=std",
        };
        let copies = ["plugin-for-tests-1.so", "plugin-for-tests-2.so"];
        copies_of(&["plugin", features], "libplugin.so", copies)
    }

    #[test]
    fn libraries_that_are_unloaded_leave_nothing() {
        let paths = plugins();
        isolated!("libraries_that_are_unloaded_leave_nothing", || {
            let (warm, rounds) = match (at_length(), emulated()) {
                (_, true) => (4, 10),
                (true, _) => (20, 1000),
                _ => (20, 80),
            };
            let step = Meeting::new();
            let mut before = [0; 3];
            for n in 0..rounds {
                // One that outlived its plugin has that go when the next one is unloaded.
                thread::scope(|scope| cycle(scope, &step, &paths[n % 2], n % 2 == 0));
                assert!(n % 2 == 0 || paths.iter().all(|path| !is_loaded(path)));
                if n + 1 == warm {
                    before = held();
                }
            }
            let after = held();
            println!("{before:?}, and {after:?} after {rounds} plugins");
            // Less than any two of them would leave: addresses for dozens of megabytes, one of
            // memory, and six mappings each.
            for (n, most) in [64 * MIB, 2 * MIB, 8].into_iter().enumerate() {
                assert!(after[n] <= before[n] + most, "{before:?}, then {after:?}");
            }
        });
    }
}
