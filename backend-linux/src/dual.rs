//! Dual mappings: two shared views of one memory file.

use crate::{
    errno::error,
    object::memory_file,
    pages::{Linux, address_of_stack, advise, landing_pads, protection},
};
use core::{
    ffi::{CStr, c_void},
    sync::atomic::{AtomicUsize, Ordering},
};
use hostmem_core::{
    page::{Access, PageRange, PageSize},
    provider::{
        DualRequest, DualStep, DualStepError, Error, ErrorKind,
        backend::{Answer, At, DualSystem, MappedViews, View, both_or_neither, map_both},
        order,
    },
};
use rustix::{
    fd::BorrowedFd,
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap},
};

/// Bytes between stacks and the views that children lose, at least: what a child maps before it
/// runs the hook is less.
const FAR_ENOUGH: usize = 1 << 30;

/// Returns where to map a view that forked children lose; `None` is anywhere.
///
/// The view leaves a hole in a child until the fork hook closes it. What is mapped before that, by
/// a handler of `pthread_atfork` that runs first, goes to the hole that is highest among those long
/// enough, or, in the old layout of a process, lowest from a third of all addresses on. A hole far
/// below the stacks, where nothing else is, has a much longer one above it.
fn out_of_the_way(len: usize, page: PageSize) -> Option<usize> {
    static MAPPED: AtomicUsize = AtomicUsize::new(0);
    let stack = address_of_stack();
    // 256 GiB for user addresses of 47 bits, one for 39.
    let far = stack.checked_next_power_of_two()? / 512;
    if far < FAR_ENOUGH {
        // Somebody put this stack there: the others may be anywhere.
        return None;
    }
    let used = MAPPED.fetch_add(len, Ordering::Relaxed);
    Some(page.round_down(stack - far - used % far))
}

/// Describes a view of a file.
fn view(
    file: BorrowedFd<'_>,
    protection: ProtFlags,
    (len, page): (usize, PageSize),
) -> View<impl Fn(At) -> Result<*mut c_void, Error>> {
    let map = move |at: At| {
        let mut flags = MapFlags::SHARED;
        flags.set(MapFlags::FIXED, at.replaces());
        // SAFETY: FIXED replaces a range that the view's caller gives up; else it is a new mapping
        // wherever the kernel likes.
        unsafe { mmap(at.pointer(), len, protection, flags, file, 0) }.map_err(error)
    };
    // SAFETY: the call maps as many bytes, and replaces no more than the range given.
    unsafe { View::new(len, page, map) }
}

/// Says whether this kernel can be asked to give pages their memory (Linux 5.14 and newer).
fn populates() -> bool {
    static KNOWN: Answer = Answer::new();
    KNOWN.or_ask(|| {
        let nowhere = core::ptr::null_mut();
        // SAFETY: advice about no bytes; EINVAL says that the kernel does not know it.
        unsafe { madvise(nowhere, 0, Advice::LinuxPopulateWrite) }.is_ok()
    })
}

// SAFETY: the views are shared mappings of one file that no other process can open; protections are
// as promised; what fails is undone.
unsafe impl DualSystem for Linux {
    const SYSTEM: Self = Self;
    const LANDING_PADS: bool = true;
    const ORDERS: [&'static [DualStep]; 3] =
        [order::LINUX, order::LINUX_LARGE, order::LINUX_ONLY_LARGE];

    /// Maps both views of the file, and then gives it its memory: a file system that allows no
    /// execution, or an address space without room, is found out before anything is filled.
    unsafe fn map_views(
        &self,
        step: DualStep,
        directory: Option<&CStr>,
        request: &DualRequest<'_>,
    ) -> Result<MappedViews, DualStepError> {
        let mut execution = protection(Access::ReadExec);
        if request.landing_pads {
            execution |= landing_pads()?;
        }
        let file = memory_file(step, directory, request)?;
        let (page, purges) = (file.page(), file.refills(populates));
        let both = {
            let size = (request.len, page);
            let (is_lost, _) = request.fork.lost_views();
            let hint = is_lost.then(|| out_of_the_way(request.len, page));
            let rw = view(file.file(), protection(Access::ReadWrite), size).hint(hint.flatten());
            let read_only = file.execution()?;
            let rx = view(read_only.unwrap_or(file.file()), execution, size);
            let (rw, rx) = ((&rw, request.rw), (&rx, request.rx));
            let both = if read_only.is_some() {
                // SAFETY: target ranges are the caller's, and no other code uses them.
                let (rx, rw) = unsafe { map_both(self, rx, || Ok(()), rw)? };
                (rw, rx)
            } else {
                // A view from before the seal could be made writable.
                // SAFETY: target ranges are the caller's, and no other code uses them.
                unsafe { map_both(self, rw, || file.seal(), rx)? }
            };
            // SAFETY: mapped just now, and no other code has their addresses yet.
            unsafe { both_or_neither(self, both, request, file.allocate())? }
        };
        file.close();
        Ok(MappedViews { both, page, purges })
    }

    unsafe fn purge_dual(&self, pages: PageRange) -> Result<(), Error> {
        // SAFETY: no other code uses those pages. Punching them out of the file empties both views.
        unsafe { advise(pages, Advice::LinuxRemove) }.map_err(error)
    }

    unsafe fn refill_dual(&self, pages: PageRange) -> Result<(), Error> {
        // SAFETY: the view is mapped; this advice changes no contents.
        match unsafe { advise(pages, Advice::LinuxPopulateWrite) } {
            Ok(()) => Ok(()),
            // An access would have been answered by SIGBUS: the file system, the pool of large
            // pages or the memory that may be charged is used up.
            Err(Errno::FAULT) => Err(Error::os(ErrorKind::Exhausted, Errno::FAULT.raw_os_error())),
            // Kernels that do not know the advice: only what gets memory on access purges there.
            Err(Errno::INVAL) if !populates() => Ok(()),
            Err(errno) => Err(error(errno)),
        }
    }
}
