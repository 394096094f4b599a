//! Threads by a raw clone, on guarded stacks.

use crate::cpu;
use core::{
    ffi::c_void,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};
use hostmem::{
    page::PageRange,
    provider::{Commit, PageProvider, Request},
};

/// `CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
/// CLONE_CHILD_CLEARTID`: clone(2).
const FLAGS: usize = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000 | 0x20_0000;

/// Bytes of a stack, with what lies above it: whether the thread is there.
const LEN: usize = 64 << 10;

/// Bytes of that, as many as keep the stack aligned.
const ABOVE: usize = 16;

/// A thread that was started. It and its stack stay unless it is joined.
#[must_use]
pub(crate) struct Thread<P: PageProvider> {
    provider: P,
    range: PageRange,
    /// Not zero until the kernel has seen the thread's end.
    there: NonNull<AtomicU32>,
    number: isize,
}

impl<P: PageProvider> Thread<P> {
    /// Starts a thread that calls `entry(argument)`, on a stack of the provider's pages with a
    /// guard below.
    ///
    /// # Safety
    ///
    /// `entry` may be called once with `argument` on any thread.
    pub(crate) unsafe fn start(
        provider: P,
        entry: extern "C" fn(*mut c_void),
        argument: *mut c_void,
    ) -> Option<Self> {
        let page = provider.page_size();
        let request = Request::bytes(LEN).guards(page.bytes(), 0);
        let range = provider.reserve(&request).ok()?;
        let body = range.part(page.bytes(), LEN, page)?;
        // SAFETY: reserved just now.
        unsafe { provider.commit(body, Commit::READ_WRITE) }.ok()?;
        // SAFETY: in the range, ABOVE bytes from its end.
        let top = unsafe { body.start().add(LEN - ABOVE) };
        let there = top.cast::<AtomicU32>();
        // SAFETY: committed, aligned as the top of a stack is, and no other code's.
        unsafe { there.write(AtomicU32::new(1)) };
        // SAFETY: the stack was made for this thread, and entry is as the caller promised. What the
        // kernel changes lies above the stack, and goes with it when it is zero.
        let number = unsafe {
            cpu::start_thread(FLAGS, top.as_ptr(), entry, argument, there.as_ptr().cast())
        };
        (number >= 0).then_some(Self {
            provider,
            range,
            there,
            number,
        })
    }

    /// Returns the thread's number.
    pub(crate) const fn number(&self) -> isize {
        self.number
    }

    /// Waits for the thread's end, and gives its stack back.
    pub(crate) fn join(self) -> Option<()> {
        // SAFETY: written by `start`, in a range that is released below.
        while unsafe { self.there.as_ref() }.load(Ordering::Acquire) != 0 {
            core::hint::spin_loop();
        }
        // SAFETY: the thread will not run again, and the range is this value's.
        unsafe { self.provider.release(self.range) }.ok()
    }
}
