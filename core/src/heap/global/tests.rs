extern crate std;

use super::{super::fork::tests::Memory, *};
use crate::{
    arch::stack_pointer,
    heap::{HeapConfig, slot::BUSY},
    sync::Spin,
};
use core::{cell::Cell, ptr::null_mut};
use std::thread_local;

#[derive(Debug)]
struct Slot;

thread_local! {
    static VALUE: Cell<*mut ()> = const { Cell::new(null_mut()) };
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: each thread has a value of its own.
unsafe impl ThreadSlot for Slot {
    fn get() -> *mut () {
        VALUE.get()
    }

    fn set(value: *mut ()) {
        assert!(value != BUSY || QUIET.get(), "no handler may leave this");
        VALUE.set(value);
    }

    fn without_signals<T>(f: impl FnOnce() -> T) -> T {
        let before = QUIET.replace(true);
        let result = f();
        QUIET.set(before);
        result
    }

    fn on_exit(_: fn()) -> bool {
        QUIET.get()
    }
}

#[derive(Debug)]
struct Program;

// SAFETY: the state and the slot are this heap's alone.
unsafe impl StaticHeap for Program {
    type Pages = Memory;
    type Metadata = Memory;
    type Lock = Spin;
    type Slot = Slot;

    fn open() -> Result<HeapOf<Self>, HeapError> {
        Heap::on(Memory, Memory, HeapConfig::new())
    }

    fn state() -> &'static State<Self> {
        static STATE: State<Program> = State::new();
        &STATE
    }

    fn register() {
        assert!(QUIET.get(), "it may take locks of others");
    }
}

/// A call that takes a lock marks its thread with where its own frame ends, not that of a function
/// that has returned by then: a handler that interrupts it may begin in between.
#[test]
fn a_thread_with_a_lock_is_marked_by_the_frame_that_holds_it() {
    let block = GlobalHeap::<Program>::new().alloc_bytes(100);
    block.expect("memory");
    // SAFETY: slots hold what `attach` put there.
    let cache = unsafe { CacheRef::from_slot(Slot::get()) };
    assert_eq!(cache.depth(), 0);
    let heap = Program::state().get().expect("it is open");
    let space = heap.lock_space();
    assert_eq!(cache.depth(), stack_pointer());
    drop(space);
    let bin = heap.lock_bin(0, 0);
    assert_eq!(cache.depth(), stack_pointer());
    let space = heap.lock_space();
    assert_eq!(cache.depth(), stack_pointer());
    drop((space, bin));
    assert_eq!(cache.depth(), 0);
}
