//! Signal handlers that map, where a hook keeps them out of the lock.

use super::{OS, Region};
use core::ptr::null_mut;
use hostmem::{
    provider::{Commit, PageProvider, Request},
    region::{RegionConfig, SignalHook},
};
use std::sync::{
    OnceLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

static SIGNALLED: OnceLock<Region> = OnceLock::new();
static HANDLED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);

fn set_mask(how: libc::c_int, signals: &libc::sigset_t) -> libc::sigset_t {
    // SAFETY: a zeroed set is one.
    let mut old = unsafe { core::mem::zeroed() };
    // SAFETY: both sets are there for the call, which changes nothing but this thread's mask.
    unsafe { libc::pthread_sigmask(how, signals, &mut old) };
    old
}

fn user_signal() -> libc::sigset_t {
    // SAFETY: a zeroed set is one.
    let mut set = unsafe { core::mem::zeroed() };
    // SAFETY: the set is there, the signal exists.
    unsafe { libc::sigaddset(&mut set, libc::SIGUSR2) };
    set
}

/// Blocks the signal, and tells whether it was blocked before.
fn keep_out() -> usize {
    let before = set_mask(libc::SIG_BLOCK, &user_signal());
    // SAFETY: the set was written by the call.
    let was = unsafe { libc::sigismember(&before, libc::SIGUSR2) };
    usize::from(was == 1)
}

fn let_in(was_blocked: usize) {
    if was_blocked == 0 {
        set_mask(libc::SIG_UNBLOCK, &user_signal());
    }
}

extern "C" fn map_a_page(_: libc::c_int) {
    let Some(region) = SIGNALLED.get() else {
        return;
    };
    let page = OS.page_size().bytes();
    let mapped = region.map(&Request::bytes(page), Commit::READ_WRITE, 2);
    // SAFETY: mapped just now, for this handler.
    let done = mapped.and_then(|page| unsafe { region.unmap(page) });
    FAILED.fetch_add(usize::from(done.is_err()), Relaxed);
    HANDLED.fetch_add(1, Relaxed);
}

/// Without the hook the handler would wait for the lock that its own thread holds, forever.
#[test]
fn signal_handlers_map_where_the_hook_keeps_them_out_of_the_lock() {
    let hook = SignalHook {
        enter: keep_out,
        leave: let_in,
    };
    let page = OS.page_size().bytes();
    let region = SIGNALLED.get_or_init(|| {
        let region = Region::on(OS, OS, RegionConfig::new().signals(hook));
        let region = region.expect("metadata can be reserved");
        let space = OS.reserve(&Request::bytes(64 * page)).expect("addresses");
        // SAFETY: reserved just now, and the region's for good.
        unsafe { region.adopt(space) }.expect("fresh addresses");
        region
    });
    // SAFETY: a zeroed sigaction is one, with an empty mask.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = map_a_page as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler calls the allocator, which keeps it out while its lock is held.
    let set = unsafe { libc::sigaction(libc::SIGUSR2, &action, null_mut()) };
    assert_eq!(set, 0);
    // SAFETY: always successful.
    let me = unsafe { libc::pthread_self() };
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while done.load(Relaxed) == 0 {
                let before = HANDLED.load(Relaxed);
                // SAFETY: the thread that started this one waits for it to end.
                unsafe { libc::pthread_kill(me, libc::SIGUSR2) };
                // One at a time: the thread is to do more than to handle them.
                while HANDLED.load(Relaxed) == before && done.load(Relaxed) == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut rounds = 0;
        while rounds < 2000 || HANDLED.load(Relaxed) < 500 {
            let mapped = region.map(&Request::bytes(3 * page), Commit::READ_WRITE, 1);
            let mapped = mapped.expect("there is room for both");
            // SAFETY: mapped just now.
            unsafe { region.unmap(mapped) }.expect("it goes");
            rounds += 1;
        }
        done.store(1, Relaxed);
    });
    assert_eq!(FAILED.load(Relaxed), 0, "of {}", HANDLED.load(Relaxed));
    // SAFETY: ignores a signal that comes late; no handler runs any more.
    unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
    assert_eq!(region.statistics().used, 0);
}
