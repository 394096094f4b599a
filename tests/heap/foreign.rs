//! What foreign programs did on a malloc override, each reduced to the calls that showed a fault.

use crate::{
    common::{
        emulated,
        random::Random,
        signals::{handle, interrupted},
        threads::Stop,
        wait,
    },
    system::{OsHeap, OsLocal, heap},
};
use core::{
    ffi::{c_int, c_void},
    ptr::{NonNull, null_mut},
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed},
};
use hostmem::{GlobalHeap, heap::HeapConfig};
use hostmem_test_support::isolate::isolated;
use std::{collections::VecDeque, thread};

const HEAP: GlobalHeap = GlobalHeap::new();
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Grows a block by steps as a program's buffer does; returns how often it moved.
fn moves(heap: &OsLocal<'_>, most: usize, step: usize) -> usize {
    let mut block = heap.alloc_bytes(step).expect("memory");
    let mut moves = 0;
    for size in (step..=most).step_by(step).skip(1) {
        // SAFETY: live; the old address is used no more.
        let new = unsafe { heap.realloc_bytes(block, size) }.expect("memory");
        moves += usize::from(new != block);
        block = new;
        // SAFETY: the last byte of the block.
        let last = unsafe { block.add(size - 1) };
        // SAFETY: the last byte of the block, which is this thread's alone.
        unsafe { last.write(1) };
    }
    // SAFETY: live, and used no more.
    unsafe { heap.free(block) }.expect("a live block");
    moves
}

/// A buffer that grows by a constant: each move copies all of it, so that a move at every step
/// takes quadratic time.
#[test]
fn a_block_that_grows_by_small_steps_moves_seldom() {
    let heap = heap(HeapConfig::new());
    let local = heap.local().expect("metadata");
    for (most, step, limit) in [
        (8 * MIB, 100, 60),
        (8 * MIB, 4 * KIB, 60),
        (64 * MIB, 64 * KIB, 60),
        (64 * MIB, MIB, 60),
        (3 * MIB, 1, 60),
    ] {
        let moves = moves(&local, most, step);
        assert!(moves <= limit, "to {most} by {step}: {moves} moves");
    }
}

/// Below 1 MiB blocks grow in steps of their classes, and by granules where those behind are free.
#[test]
fn a_block_of_a_segment_moves_seldom() {
    let heap = heap(HeapConfig::new());
    let local = heap.local().expect("metadata");
    for step in [1, 16, 100, 1000, 10_000] {
        let moves = moves(&local, MIB - KIB, step);
        assert!(moves <= 60, "by {step}: {moves} moves");
    }
}

/// What 300 threads at once do, of which each ends: they keep a few blocks, and exchange some with
/// those that come after them.
fn generation(heap: &OsHeap, exchange: &mut [Option<NonNull<u8>>], random: &mut Random) {
    let free = |local: &OsLocal<'_>, block: Option<NonNull<u8>>| {
        if let Some(block) = block {
            // SAFETY: live, and used no more.
            unsafe { local.free(block) }.expect("a live block");
        }
    };
    let mut threads: Vec<_> = (0..300)
        .map(|_| (heap.local().expect("metadata"), [const { None }; 64]))
        .collect();
    // Each makes that many calls, mixed with those of the others.
    for _ in 0..4 {
        for (local, own) in &mut threads {
            for n in 0..100 {
                let place = random.below(own.len());
                free(local, own[place].take());
                let size = if random.below(200) == 0 {
                    100_000
                } else {
                    random.below(2000)
                };
                own[place] = Some(local.alloc_bytes(size).expect("memory"));
                if n % 8 == 0 {
                    let there = random.below(exchange.len());
                    let old = core::mem::replace(&mut exchange[there], own[place].take());
                    free(local, old);
                }
            }
        }
    }
    for (local, own) in &mut threads {
        own.iter_mut().for_each(|block| free(local, block.take()));
    }
}

/// Generations of threads that do the same need no more memory each.
#[test]
fn generations_of_threads_need_the_same_memory() {
    let heap = heap(HeapConfig::new());
    let mut exchange = vec![None; 4096];
    let mut random = Random(1);
    let mut resident = Vec::new();
    for _ in 0..6 {
        generation(&heap, &mut exchange, &mut random);
        let held = heap.statistics();
        resident.push(held.resident / KIB);
    }
    let first = resident[1];
    let last = resident[5];
    assert!(last <= first + first / 4, "KiB resident: {resident:?}");
}

static FORKS: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);

/// Allocates and frees blocks of many sizes; returns 1 if a call failed.
fn allocate_some() -> c_int {
    let failed = (0..200).filter(|n| match HEAP.alloc_bytes(1 + n * 100) {
        Ok(block) => {
            // SAFETY: live, and used no more.
            unsafe { HEAP.free(block) }.is_err()
        }
        Err(_) => true,
    });
    c_int::from(failed.count() != 0)
}

extern "C" fn fork_in_handler(_signal: c_int) {
    // SAFETY: the child calls the heap, and ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: it ends this process if it hangs.
        unsafe { libc::alarm(100) };
        // SAFETY: nothing of the parent's is flushed or torn down.
        unsafe { libc::_exit(allocate_some()) };
    }
    let mut status = 0;
    // SAFETY: the child is this handler's alone.
    while child > 0 && unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {}
    FORKS.fetch_add(1, Relaxed);
    FAILED.fetch_add(usize::from(child < 0 || status != 0), Relaxed);
}

/// Allocates and frees until `done`, while signals come.
fn allocate_interrupted(signal: c_int, handled: &AtomicU64, done: impl Fn() -> bool) {
    let mut random = Random(1);
    let mut own: VecDeque<NonNull<u8>> = VecDeque::with_capacity(64);
    interrupted(signal, handled, done, || {
        let size = random.below(3000);
        own.push_back(HEAP.alloc_bytes(size).expect("the program's own call"));
        if own.len() == 64 {
            let block = own.pop_front().expect("a block");
            // SAFETY: live, and used no more.
            unsafe { HEAP.free(block) }.expect("a live block");
        }
    });
    for block in own {
        // SAFETY: live, and used no more.
        unsafe { HEAP.free(block) }.expect("a live block");
    }
}

/// A shell's trap or a crash reporter forks in a handler, and its child allocates.
#[test]
fn a_child_that_a_handler_forked_allocates() {
    isolated!("a_child_that_a_handler_forked_allocates", || {
        handle(libc::SIGUSR1, fork_in_handler);
        let most = if emulated() { 10 } else { 200 };
        allocate_interrupted(libc::SIGUSR1, &FORKS, || FORKS.load(Relaxed) >= most);
        assert_eq!(FAILED.load(Relaxed), 0, "of {FORKS:?}");
    });
}

/// How often a handler left the call that it interrupted; how often it is to.
static LEFT: AtomicU64 = AtomicU64::new(0);
const LEAVES: u64 = 300;

/// Where handlers go on.
static CONTEXT: AtomicPtr<libc::ucontext_t> = AtomicPtr::new(null_mut());

/// Begins anew whenever a handler left what this did, which never ends, as after `siglongjmp`.
extern "C" fn go_on() {
    while LEFT.load(Relaxed) < LEAVES {
        if let Ok(block) = HEAP.alloc_bytes(100) {
            // SAFETY: live, and used no more.
            let _ = unsafe { HEAP.free(block) };
        }
    }
    let failed = allocate_some();
    // SAFETY: there is nothing to return to.
    unsafe { libc::_exit(failed) };
}

extern "C" fn leave(_signal: c_int) {
    if LEFT.fetch_add(1, Relaxed) < LEAVES {
        // SAFETY: a context of `makecontext`, whose stack is there for good.
        unsafe { libc::setcontext(CONTEXT.load(Relaxed)) };
    }
}

/// POSIX leaves this undefined, but interpreters do it to end what takes long.
#[test]
#[cfg(target_arch = "x86_64")]
fn calls_that_a_handler_left_for_good_are_forgotten() {
    use hostmem_test_support::isolate::{is_isolated, isolated_command, run, test_path};
    let name = &test_path!("calls_that_a_handler_left_for_good_are_forgotten");
    if !is_isolated(name) {
        let output = run(&mut isolated_command(name));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        return;
    }
    // SAFETY: it ends this process if it hangs.
    unsafe { libc::alarm(100) };
    let stack: &'static mut [u128] = Box::leak(vec![0; 64 * KIB].into_boxed_slice());
    // SAFETY: all zero is a value of this type.
    let context: libc::ucontext_t = unsafe { core::mem::zeroed() };
    let context = Box::leak(Box::new(context));
    // SAFETY: there is room for a context.
    assert_eq!(unsafe { libc::getcontext(context) }, 0);
    context.uc_stack.ss_sp = stack.as_mut_ptr().cast();
    context.uc_stack.ss_size = size_of_val(stack);
    // SAFETY: it was got above, and has a stack of its own; the function takes no arguments.
    unsafe { libc::makecontext(context, go_on, 0) };
    CONTEXT.store(context, Relaxed);
    handle(libc::SIGUSR1, leave);
    allocate_interrupted(libc::SIGUSR1, &LEFT, || false);
}

/// What a stream that a program makes itself calls (`fopencookie`, glibc).
#[repr(C)]
struct StreamCalls {
    read: Option<extern "C" fn(*mut c_void, *mut libc::c_char, usize) -> isize>,
    write: Option<extern "C" fn(*mut c_void, *const libc::c_char, usize) -> isize>,
    seek: Option<extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
    close: Option<extern "C" fn(*mut c_void) -> c_int>,
}

unsafe extern "C" {
    /// Makes a stream of calls; see `fopencookie(3)`.
    fn fopencookie(
        cookie: *mut c_void,
        mode: *const libc::c_char,
        calls: StreamCalls,
    ) -> *mut libc::FILE;
}

static READ: AtomicU64 = AtomicU64::new(0);

/// Allocates while stdio holds the stream's lock, as reading a long line does.
extern "C" fn allocate_in_stream(_: *mut c_void, buffer: *mut libc::c_char, len: usize) -> isize {
    let read = READ.fetch_add(1, Relaxed);
    // Most of them take a lock.
    for size in [
        100,
        300_000,
        MIB + usize::try_from(read % 4).unwrap_or(0) * MIB,
    ] {
        if let Ok(block) = HEAP.alloc_bytes(size) {
            // SAFETY: live, and used no more.
            let freed = unsafe { HEAP.free(block) };
            debug_assert!(freed.is_ok());
        }
    }
    // SAFETY: there is room for this many bytes.
    unsafe { buffer.write_bytes(b'x', len) };
    isize::try_from(len).unwrap_or(0)
}

/// One thread reads and allocates, another one flushes all streams, and so holds their list while
/// it waits for the first; a fork waits for the list after the handlers of forks ran.
#[test]
fn forks_do_not_wait_for_streams_whose_users_wait_for_the_heap() {
    isolated!(
        "forks_do_not_wait_for_streams_whose_users_wait_for_the_heap",
        || {
            // SAFETY: it ends this process if it hangs.
            unsafe { libc::alarm(100) };
            let stop = &AtomicBool::new(false);
            let readers = || {
                let calls = StreamCalls {
                    read: Some(allocate_in_stream),
                    write: None,
                    seek: None,
                    close: None,
                };
                // SAFETY: the mode is a string, and the call needs no cookie.
                let stream = unsafe { fopencookie(null_mut(), c"r".as_ptr(), calls) };
                assert!(!stream.is_null());
                let mut bytes = [0_u8; 8192];
                while !stop.load(Relaxed) {
                    let room = bytes.as_mut_ptr().cast();
                    // SAFETY: an open stream, and room for this many bytes.
                    unsafe { libc::fread(room, 1, bytes.len(), stream) };
                }
                // SAFETY: open, and used no more.
                unsafe { libc::fclose(stream) };
            };
            thread::scope(|scope| {
                let _stop = Stop(stop);
                (0..3).for_each(|_| {
                    scope.spawn(readers);
                });
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        // SAFETY: null stands for all streams.
                        unsafe { libc::fflush(null_mut()) };
                        // A fork waits for the list, too, and comes last if it never rests.
                        thread::sleep(core::time::Duration::from_micros(50));
                    }
                });
                let mut seen = 0;
                for n in 0..if emulated() { 10 } else { 100 } {
                    seen = crate::common::threads::await_more(&READ, seen);
                    // SAFETY: the child uses this heap, and ends without unwinding.
                    let child = unsafe { libc::fork() };
                    assert!(child >= 0, "a fork");
                    if child == 0 {
                        // SAFETY: it ends this process if it hangs.
                        unsafe { libc::alarm(100) };
                        // SAFETY: nothing of the parent's is flushed or torn down.
                        unsafe { libc::_exit(allocate_some()) };
                    }
                    assert_eq!(wait(child), 0, "fork {n}");
                }
            });
        },
    );
}
