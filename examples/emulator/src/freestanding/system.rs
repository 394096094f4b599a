//! What is the freestanding program's own: threads by `clone`, on guarded stacks of the region, and
//! the heap's place in them.
//!
//! ```text
//!   ├─ guard ─┼───── a thread's stack ─────┤ Block ┼─ guard ─┤
//!                                          ▲
//!                                          the thread pointer
//! ```

use crate::{
    code, cpu,
    host::region,
    machine::{Machine, Mutex, lock},
    sys::say,
};
use alloc::{boxed::Box, vec::Vec};
use core::{
    cell::Cell,
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicU32, Ordering},
};
use hostmem::{heap::ThreadSlot, region::GuardedStack};
use linux_raw_sys::general::{
    CLONE_CHILD_CLEARTID, CLONE_FILES, CLONE_FS, CLONE_SETTLS, CLONE_SIGHAND, CLONE_SYSVSEM,
    CLONE_THREAD, CLONE_VM,
};

/// Bytes of a thread's stack, and of its guards.
const STACK: usize = 1 << 20;
const GUARD: usize = 4 << 10;

/// What a thread shares with all others, and that the kernel is to tell when it is gone.
const FLAGS: u32 = CLONE_VM
    | CLONE_FS
    | CLONE_FILES
    | CLONE_SIGHAND
    | CLONE_THREAD
    | CLONE_SYSVSEM
    | CLONE_SETTLS
    | CLONE_CHILD_CLEARTID;

/// What the thread pointer leads to.
#[repr(C, align(16))]
pub(crate) struct Block {
    /// The block's own address: x86-64 reads behind its thread pointer only.
    this: *const Block,
    /// What the heap has of the thread.
    slot: Cell<*mut ()>,
    /// What is to be called when the thread ends.
    exit: Cell<Option<fn()>>,
    /// Not zero until the kernel has seen the thread's end.
    there: AtomicU32,
}

impl Block {
    const fn new(this: *const Self) -> Self {
        Self {
            this,
            slot: Cell::new(null_mut()),
            exit: Cell::new(None),
            there: AtomicU32::new(1),
        }
    }
}

/// The first thread's block.
struct First(Block);

// SAFETY: the first thread alone uses it.
unsafe impl Sync for First {}

static FIRST: First = First(Block::new(&raw const FIRST.0));

/// Gives the first thread its block.
///
/// # Safety
///
/// Called once, by the first thread, before it allocates.
pub(crate) unsafe fn begin_thread() {
    // SAFETY: the block begins with its own address, and stays.
    unsafe { cpu::set_thread(&raw const FIRST.0) };
}

/// Returns the calling thread's block.
fn own() -> &'static Block {
    // SAFETY: each thread was given a block before it ran, which stays as long as it runs.
    unsafe { &*cpu::thread() }
}

/// Where a thread keeps what it has cached of the program's heap: in its block.
#[derive(Debug)]
pub(crate) struct Slot;

// SAFETY: each thread has a block of its own, in which handlers of signals find the same. Nothing
// unwinds.
unsafe impl ThreadSlot for Slot {
    fn get() -> *mut () {
        own().slot.get()
    }

    fn set(value: *mut ()) {
        own().slot.set(value);
    }

    fn on_exit(exit: fn()) -> bool {
        own().exit.set(Some(exit));
        true
    }
}

/// The blocks of threads that were started, each above its stack. Stacks of threads that have ended
/// serve others.
struct Stacks(Vec<NonNull<Block>>);

// SAFETY: of blocks whose threads run only `there` is looked at, which is atomic.
unsafe impl Send for Stacks {}

static STACKS: Mutex<Stacks> = Mutex::new(Stacks(Vec::new()));

/// Finds or makes a stack; returns its block, which says that a thread is there.
fn take_stack() -> Option<NonNull<Block>> {
    let mut stacks = lock(&STACKS);
    let ended = stacks.0.iter().copied().find(|block| {
        // SAFETY: made below, and never released.
        unsafe { block.as_ref() }.there.load(Ordering::Acquire) == 0
    });
    let block = match ended {
        Some(block) => block,
        None => {
            // It stays mapped: the value only says where it is.
            let stack = GuardedStack::new(region().ok()?, STACK, GUARD).ok()?;
            let offset = stack.len_bytes() - size_of::<Block>();
            // SAFETY: the last bytes of the stack, which is aligned to pages.
            let block = unsafe { stack.base().add(offset) }.cast::<Block>();
            stacks.0.push(block);
            block
        }
    };
    // SAFETY: mapped, aligned, and used by no thread any more.
    unsafe { block.write(Block::new(block.as_ptr())) };
    Some(block)
}

type Run = Box<dyn FnOnce() + Send>;

/// Runs a function on a thread of its own; `None` where there can be no more threads.
pub(crate) fn spawn(run: Run) -> Option<()> {
    let block = take_stack()?;
    let argument = Box::into_raw(Box::new(run));
    // SAFETY: made just above, and never released.
    let there = unsafe { block.as_ref() }.there.as_ptr();
    let block = block.as_ptr();
    // SAFETY: the stack ends at its block and is this thread's alone; the argument is given to it.
    let number = unsafe { cpu::start_thread(FLAGS as usize, block, begin, argument.cast(), there) };
    if number < 0 {
        // SAFETY: there is no thread to use it.
        drop(unsafe { Box::from_raw(argument) });
        // SAFETY: a word of the block, whose stack others may have now.
        unsafe { AtomicU32::from_ptr(there) }.store(0, Ordering::Release);
        return None;
    }
    Some(())
}

/// What a thread does.
extern "C" fn begin(run: *mut u8) {
    // SAFETY: made by `spawn` of a box, and given to this thread.
    let run = unsafe { Box::from_raw(run.cast::<Run>()) };
    run();
    if let Some(exit) = own().exit.get() {
        exit();
    }
}

/// Says that there is no `--perf`.
///
/// # Errors
///
/// Always.
pub(crate) const fn names(_program: &[u8]) -> Result<code::Names, &'static str> {
    Err("this program has no --perf")
}

/// Called when the guest is about to start.
pub(crate) const fn begin_guest(_machine: &'static Machine) {}

/// Called when the guest has ended.
pub(crate) fn end_guest(machine: &Machine) {
    if machine.options.map.is_some() {
        say!("emulator: this program has no --map\n");
    }
}
