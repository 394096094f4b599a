//! The collections of `alloc`, in a heap for the whole program that lies in a region of its own
//! above 4 GiB.

extern crate alloc;

use crate::{
    out::say,
    region::{GUEST_END, Host},
    steps::{OS, Step, check},
    thread::Thread,
};
use alloc::{boxed::Box, collections::BTreeMap, format, string::String, vec::Vec};
use core::{
    cell::UnsafeCell,
    ffi::c_void,
    mem::MaybeUninit,
    ptr::NonNull,
    sync::atomic::{
        AtomicBool, AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
};
use hostmem::{
    OsLock,
    heap::{GlobalHeap, Heap, HeapConfig, HeapError, HeapOf, NoSlot, State, StaticHeap},
    page::AddressRange,
    provider::{PageProvider, Request},
    region::RegionConfig,
};

/// Bytes of addresses for the region.
const LEN: usize = 1 << 30;

/// The region, once it was made.
struct Place {
    host: UnsafeCell<MaybeUninit<Host>>,
    is_made: AtomicBool,
}

// SAFETY: written once, by `make`, before `is_made` says so by Release, and only read after that
// was seen. The region is Sync.
unsafe impl Sync for Place {}

static PLACE: Place = Place {
    host: UnsafeCell::new(MaybeUninit::uninit()),
    is_made: AtomicBool::new(false),
};

impl Place {
    fn get(&'static self) -> Option<&'static Host> {
        self.is_made.load(Acquire).then(|| {
            // SAFETY: it was written, and is not changed any more.
            let host = unsafe { &*self.host.get() };
            // SAFETY: it was written, and is not changed any more.
            unsafe { host.assume_init_ref() }
        })
    }

    /// Makes the region. Called once, before there are threads.
    fn make(&'static self) -> Option<&'static Host> {
        let host = Host::on(OS, OS, RegionConfig::new()).ok()?;
        let above = AddressRange::new(GUEST_END, usize::MAX)?;
        let space = OS.reserve(&Request::bytes(LEN).within(above)).ok()?;
        // SAFETY: reserved just now, and the region's for good.
        unsafe { host.adopt(space) }.ok()?;
        // SAFETY: no other code reads before `is_made` says so, nor writes: this is called once.
        unsafe { self.host.get().write(MaybeUninit::new(host)) };
        self.is_made.store(true, Release);
        self.get()
    }
}

/// The program's heap.
struct Primary;

// SAFETY: the state is this heap's alone, and the region does not allocate.
unsafe impl StaticHeap for Primary {
    type Pages = &'static Host;
    type Metadata = &'static Host;
    type Lock = OsLock;
    type Slot = NoSlot;

    fn open() -> Result<HeapOf<Self>, HeapError> {
        let host = PLACE.get().ok_or(HeapError::Busy)?;
        Heap::on(host, host, HeapConfig::new().metadata(64 << 20))
    }

    fn state() -> &'static State<Self> {
        static STATE: State<Primary> = State::new();
        &STATE
    }
}

#[global_allocator]
static HEAP: GlobalHeap<Primary> = GlobalHeap::new();

/// Threads that ended well.
static DONE: AtomicU32 = AtomicU32::new(0);

extern "C" fn collect(_: *mut c_void) {
    if fill(5000).is_some() {
        DONE.fetch_add(1, Relaxed);
    }
}

/// Makes collections and looks at what is in them.
fn fill(count: u32) -> Option<()> {
    let heap = HEAP.heap().ok()?;
    let inside = |addr: usize| heap.owns(addr) && addr >= GUEST_END;
    let mut numbers: Vec<u32> = Vec::new();
    numbers.extend(0..count);
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    for n in &numbers {
        names.insert(n.wrapping_mul(0x9e37_79b9), format!("number {n}"));
    }
    numbers.retain(|n| n % 3 != 0);
    for n in &numbers {
        let name = names.remove(&n.wrapping_mul(0x9e37_79b9))?;
        if name != format!("number {n}") || !inside(name.as_ptr().addr()) {
            return None;
        }
    }
    let large = alloc::vec![0x5a_u8; 3_000_000].into_boxed_slice();
    let right = large.iter().all(|byte| *byte == 0x5a) && inside(large.as_ptr().addr());
    let sum: u32 = names.values().map(|name| name.len() as u32).sum();
    let left = names.len() as u32;
    let kept = Box::new(left);
    let known = heap.block_of((&raw const *kept).addr()).is_some();
    (right && known && left == count.div_ceil(3) && sum > left).then_some(())
}

pub(crate) fn run() -> Result<(), Step> {
    let host = PLACE.make().ok_or(Step::Collections)?;
    fill(20_000).ok_or(Step::Collections)?;
    let nothing = NonNull::dangling().as_ptr();
    // SAFETY: it uses no argument.
    let threads = [(); 2].map(|()| unsafe { Thread::start(host, collect, nothing) });
    for thread in threads {
        thread.and_then(Thread::join).ok_or(Step::Collections)?;
    }
    check(DONE.load(Relaxed) == 2, Step::Collections)?;
    let heap = HEAP.heap().map_err(|_| Step::Collections)?;
    let held = heap.statistics();
    say!("collections asked for {} bytes", held.requested);
    check(held.used == 0, Step::Collections)
}
