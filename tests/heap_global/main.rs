//! The process's heap as this program's own: everything here, the harness included, lives in it.
#![cfg(all(target_os = "linux", feature = "linux", feature = "std"))]

#[path = "../common/mod.rs"]
mod common;

use common::{
    emulated,
    signals::{handle, interrupted},
    threads::{Stop, await_more},
    wait,
};
use core::{
    cell::{Cell, RefCell},
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};
use hostmem::GlobalHeap;
use hostmem_test_support::isolate::isolated;
use std::{
    collections::{BTreeMap, HashMap},
    thread,
};

const HEAP: GlobalHeap = GlobalHeap::new();

fn owned<T>(at: *const T) -> bool {
    HEAP.heap().expect("it is open").owns(at.addr())
}

/// Uses collections of many sizes; panics if they are not what was put in.
fn exercise(seed: u64) {
    let mut map = BTreeMap::new();
    let mut texts = HashMap::new();
    for n in seed..seed + 300 {
        map.insert(n, vec![n; usize::try_from(n % 500).expect("small")]);
        texts.insert(
            n,
            format!("{n}").repeat(usize::try_from(n % 40).expect("small")),
        );
    }
    for n in (seed..seed + 300).step_by(3) {
        assert!(map.remove(&n).is_some_and(|v| v.iter().all(|&e| e == n)));
    }
    assert!(map.iter().all(|(n, v)| v.iter().all(|e| e == n)));
    assert!(
        texts
            .iter()
            .all(|(n, t)| t.starts_with(&n.to_string()) || n % 40 == 0)
    );
    let mut growing = Vec::new();
    (0..40_000_u32).for_each(|n| growing.push(n));
    assert!(growing.iter().zip(0..).all(|(a, b)| *a == b));
    assert!(vec![0_u8; 3 << 20].iter().all(|b| *b == 0));
}

#[test]
fn the_program_lives_in_the_heap() {
    let boxed = Box::new(7);
    assert!(owned(ptr::from_ref(&*boxed)));
    let stack = 0;
    assert!(!owned(&raw const stack));
    exercise(1);
    let statistics = HEAP.heap().expect("it is open").statistics();
    assert!(statistics.requested > 3 << 20 && statistics.used > 0);
}

/// H9.
#[test]
fn threads_by_the_dozen_share_it() {
    let threads: Vec<_> = (0..64)
        .map(|n| thread::spawn(move || exercise(n * 1000)))
        .collect();
    for thread in threads {
        thread.join().expect("no thread fails");
    }
}

thread_local! {
    static LAST_WORDS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static SPEAKER: Speaker = const { Speaker };
}

/// Allocates when its thread ends.
struct Speaker;

static SPOKEN: AtomicU64 = AtomicU64::new(0);

impl Drop for Speaker {
    fn drop(&mut self) {
        exercise(5);
        SPOKEN.fetch_add(1, Relaxed);
    }
}

/// H9: thread-local destructors run before and after the heap let go of the thread.
#[test]
fn destructors_of_threads_allocate_and_free() {
    for order in 0..20 {
        thread::spawn(move || {
            if order % 2 == 0 {
                SPEAKER.with(|_| ());
            }
            LAST_WORDS.with(|words| words.borrow_mut().push("words".repeat(100)));
            SPEAKER.with(|_| ());
        })
        .join()
        .expect("no thread fails");
    }
    assert_eq!(SPOKEN.load(Relaxed), 20);
}

/// H6.
#[test]
fn short_threads_leave_nothing() {
    isolated!("short_threads_leave_nothing", || {
        let heap = HEAP.heap().expect("it is open");
        let rounds = if emulated() { 50 } else { 2000 };
        let begin = |n| thread::spawn(move || drop(vec![n; 5000]));
        (0..rounds).for_each(|n| begin(n).join().expect("no thread fails"));
        let before = heap.statistics();
        (0..5 * rounds).for_each(|n| begin(n).join().expect("no thread fails"));
        let after = heap.statistics();
        assert!(after.metadata <= before.metadata && after.reserved <= before.reserved);
        assert!(after.committed <= before.committed + (256 << 10));
    });
}

/// H9: children of a process whose other threads are in the heap at that moment.
#[test]
fn children_of_fork_use_it() {
    isolated!("children_of_fork_use_it", || {
        let (stop, rounds) = (&AtomicBool::new(false), &AtomicU64::new(0));
        thread::scope(|scope| {
            let _stop = Stop(stop);
            for seed in 0..3 {
                scope.spawn(move || {
                    while !stop.load(Relaxed) {
                        exercise(seed);
                        rounds.fetch_add(1, Relaxed);
                    }
                });
            }
            let mut seen = 0;
            for n in 0..if emulated() { 5 } else { 100 } {
                seen = await_more(rounds, seen);
                // SAFETY: the child uses this heap, and ends without unwinding.
                let child = unsafe { libc::fork() };
                assert!(child >= 0, "a fork");
                if child == 0 {
                    let used = std::panic::catch_unwind(|| exercise(9));
                    let cached = HEAP.heap().map_or(usize::MAX, |h| h.statistics().cached);
                    // What three threads had cached went back: what one has is less.
                    let code = i32::from(used.is_err()) + 2 * i32::from(cached > 4 << 20);
                    // SAFETY: nothing of the parent's is flushed or torn down.
                    unsafe { libc::_exit(code) };
                }
                assert_eq!(wait(child), 0, "fork {n}");
            }
        });
    });
}

static HANDLED: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Allocates and frees whatever it interrupted.
extern "C" fn allocate(_signal: libc::c_int) {
    for len in [24_usize, 300, 5000] {
        let mut bytes: Vec<u8> = Vec::new();
        // Told apart from an error: it is refused rather than waited for.
        if bytes.try_reserve_exact(len).is_err() {
            REFUSED.fetch_add(1, Relaxed);
            continue;
        }
        bytes.resize(len, 0xa5);
        if bytes.iter().any(|b| *b != 0xa5) {
            std::process::abort();
        }
    }
    HANDLED.fetch_add(1, Relaxed);
}

#[test]
fn signal_handlers_allocate_whatever_they_interrupt() {
    isolated!("signal_handlers_allocate_whatever_they_interrupt", || {
        handle(libc::SIGUSR1, allocate);
        let rounds = if emulated() { 5 } else { 50 };
        let n = Cell::new(0);
        let done = || n.get() >= rounds && HANDLED.load(Relaxed) >= rounds;
        interrupted(libc::SIGUSR1, &HANDLED, done, || {
            exercise(n.get());
            n.set(n.get() + 1);
        });
        println!("{HANDLED:?} handlers, {REFUSED:?} blocks refused");
        assert!(REFUSED.load(Relaxed) < HANDLED.load(Relaxed), "seldom");
    });
}

/// H5: reported with the pointer, and the end of the program.
#[test]
fn a_block_that_is_freed_twice_ends_the_program() {
    use hostmem_test_support::isolate::{is_isolated, isolated_command, run};
    const NAME: &str = "a_block_that_is_freed_twice_ends_the_program";
    if is_isolated(NAME) {
        let block = Box::into_raw(Box::new([1_u64; 4]));
        println!("{block:p}");
        // SAFETY: allocated just now, freed once.
        drop(unsafe { Box::from_raw(block) });
        // SAFETY: it is not, which is what is tested: the heap looks before it does anything.
        drop(unsafe { Box::from_raw(block) });
        return;
    }
    let output = run(&mut isolated_command(NAME));
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    let block = printed
        .lines()
        .find_map(|line| line.find("0x").map(|at| &line[at..]));
    let block = block.expect("the address is printed");
    assert!(said.contains(&format!("{block} cannot be freed")), "{said}");
}

/// Limits of addresses in kB, as for `ulimit -v`, under which nine tenths of what the C library's
/// malloc serves are served.
const LIMITS: [u64; 6] = [30_000, 100_000, 300_000, 600_000, 1_200_000, 2_000_000];

/// A limit in kB under which a program starts and is served.
const LEAST: u64 = 20_000;

/// Says which allocator a program is to fill memory by.
const FILLS_BY: &str = "HOSTMEM_FILLS_BY";

/// Allocates blocks of 1 MiB until there are no more, and returns how many that were.
fn fill(alloc: impl Fn() -> *mut u8) -> usize {
    let mut count = 0;
    loop {
        let block = alloc();
        if block.is_null() {
            return count;
        }
        // SAFETY: a block of 1 MiB, allocated just now.
        unsafe { block.write(1) };
        count += 1;
    }
}

/// Runs this test again under a limit, and returns how many blocks `which` allocator served.
fn served(test: &str, kilobytes: u64, which: &str) -> usize {
    use hostmem_test_support::isolate::{isolated_command, run};
    let mut command = isolated_command(test);
    command.env(FILLS_BY, which);
    // A second arena takes 64 MiB of addresses for what the C library allocates for a thread, which
    // its own malloc then serves blocks from, and no other allocator can.
    command.env("MALLOC_ARENA_MAX", "1");
    let limit = libc::rlimit {
        rlim_cur: kilobytes << 10,
        rlim_max: kilobytes << 10,
    };
    let set = move || {
        // SAFETY: the structure outlives the call, which is safe after a fork.
        match unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: it makes one system call, and allocates nothing.
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, set) };
    let output = run(&mut command);
    let said = String::from_utf8_lossy(&output.stdout);
    let count = said.lines().find_map(|line| line.strip_prefix("served "));
    let count = count.and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("{which} under {kilobytes} kB: {output:?}"))
}

/// The program starts, with a harness and a thread, and fills what there is.
#[test]
fn a_limit_of_addresses_is_served_nearly_whole() {
    use std::{alloc::Layout, io::Write};
    const NAME: &str = "a_limit_of_addresses_is_served_nearly_whole";
    if emulated() {
        hostmem_test_support::isolate::skip("the emulator has no limit of addresses");
        return;
    }
    if let Some(which) = std::env::var_os(FILLS_BY) {
        let count = if which == "heap" {
            let layout = Layout::new::<[u8; 1 << 20]>();
            // SAFETY: the size is not zero.
            fill(|| unsafe { std::alloc::alloc(layout) })
        } else {
            // SAFETY: any size may be asked for.
            fill(|| unsafe { libc::malloc(1 << 20) }.cast())
        };
        // Nothing may be allocated any more, nor can the harness end as usual.
        let mut text = [0; 40];
        let mut rest = &mut text[..];
        let written = writeln!(rest, "\nserved {count}").is_ok();
        let left = rest.len();
        let used = &text[..text.len() - left];
        // SAFETY: writes what is there.
        unsafe { libc::write(1, used.as_ptr().cast(), used.len()) };
        // SAFETY: nothing is left to be flushed.
        unsafe { libc::_exit(i32::from(!written)) };
    }
    assert!(served(NAME, LEAST, "heap") >= 1, "a program is served");
    let mut short = Vec::new();
    for kilobytes in LIMITS {
        let own = served(NAME, kilobytes, "heap");
        let libc = served(NAME, kilobytes, "malloc");
        println!("{kilobytes} kB: {own} MiB, and {libc} by malloc");
        if 10 * own < 9 * libc {
            short.push((kilobytes, own, libc));
        }
    }
    assert!(
        short.is_empty(),
        "too little of what malloc serves: {short:?}"
    );
}
