//! Signal handlers that ask, and signals that wait.

use super::{Map, PAGE, map_of, pages};
use hostmem::{page::AddressRange, range_map::SignalHook};
use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

static MAP: OnceLock<Map<u32>> = OnceLock::new();
static ANSWERS: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);

extern "C" fn ask(_: libc::c_int) {
    let Some(map) = MAP.get() else { return };
    let stays = (pages(500 * 4 * PAGE, 3), 77);
    let found = map.query(500 * 4 * PAGE + 5);
    let next = map.next_from(500 * 4 * PAGE - 1);
    let right = found == Some(stays) && next.is_some_and(|next| next.0.last() <= stays.0.last());
    WRONG.fetch_add(u64::from(!right), Relaxed);
    ANSWERS.fetch_add(1, Relaxed);
}

/// The handler interrupts changes on their own thread: it must neither wait nor see half of one.
#[test]
fn a_signal_handler_asks_while_the_map_is_changed() {
    let map = MAP.get_or_init(|| map_of(AddressRange::LOW_4G));
    map.insert_new(pages(500 * 4 * PAGE, 3), 77).expect("free");
    // SAFETY: a zeroed sigaction is one, with an empty mask.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = ask as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler only reads atomics and the map, by calls that take no lock.
    let set = unsafe { libc::sigaction(libc::SIGUSR1, &action, core::ptr::null_mut()) };
    assert_eq!(set, 0);
    // SAFETY: always successful.
    let me = unsafe { libc::pthread_self() };
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(Relaxed) == 0 {
                let before = ANSWERS.load(Relaxed);
                // SAFETY: the thread that started this one waits for it to end.
                unsafe { libc::pthread_kill(me, libc::SIGUSR1) };
                // One at a time: the thread is to do more than to answer.
                while ANSWERS.load(Relaxed) == before && done.load(Relaxed) == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut n = 0_u32;
        while ANSWERS.load(Relaxed) < 2000 || n < 100_000 {
            let slot = (n as usize).wrapping_mul(7919) % 1000;
            if slot != 500 {
                let range = pages(slot * 4 * PAGE, 2);
                if map.insert_new(range, n).is_err() {
                    map.remove(range).expect("there is memory");
                }
            }
            n += 1;
        }
        done.store(1, Relaxed);
    });
    assert_eq!(WRONG.load(Relaxed), 0, "of {}", ANSWERS.load(Relaxed));
}

#[test]
fn signals_are_kept_out_of_the_lock() {
    use core::ffi::c_void;
    /// How often it was entered, and how many are in.
    struct Counts(AtomicU64, AtomicU64);
    unsafe fn enter(counts: *const c_void) -> usize {
        // SAFETY: the context is the counts below, which outlive the map.
        let counts = unsafe { &*counts.cast::<Counts>() };
        counts.0.fetch_add(1, Relaxed);
        counts.1.fetch_add(1, Relaxed);
        7
    }
    unsafe fn leave(counts: *const c_void, token: usize) {
        assert_eq!(token, 7, "what enter returned");
        // SAFETY: the context is the counts below, which outlive the map.
        let counts = unsafe { &*counts.cast::<Counts>() };
        counts.1.fetch_sub(1, Relaxed);
    }
    let counts = Counts(AtomicU64::new(0), AtomicU64::new(0));
    // SAFETY: the counts outlive the map, and can be counted by any thread.
    let hook = unsafe { SignalHook::new((&raw const counts).cast(), enter, leave) };
    let map = map_of::<u32>(AddressRange::LOW_4G).with_signals(hook);
    let range = pages(0x1000, 2);
    map.insert(range, 1).expect("memory");
    let inside = map.update(range, |_| {
        assert_eq!(counts.1.load(Relaxed), 1, "within the lock");
        2
    });
    assert_eq!(inside, Ok(2));
    assert_eq!(map.try_remove(range), Some(Ok(2)));
    assert_eq!((counts.0.load(Relaxed), counts.1.load(Relaxed)), (3, 0));
    assert_eq!(map.query(0x1000), None);
    assert_eq!(counts.0.load(Relaxed), 3, "readers take no lock");
    drop(map);
}
