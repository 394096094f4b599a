//! Views that are not as a dual mapping's should be.

use super::{Fault, Faulted};
use hostmem_core::{
    page::{Access, PageRange, PageSize},
    provider::{
        Commit, DualError, DualMapProvider, DualMapping, DualRequest, DualStep, Error, ErrorKind,
        Fork, PageProvider, Request, Target,
    },
};
use std::{
    fs::File,
    os::fd::{AsRawFd, FromRawFd},
    ptr::{self, NonNull},
};

const READ_WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
const READ_EXEC: libc::c_int = libc::PROT_READ | libc::PROT_EXEC;

impl Faulted {
    /// Maps views with the provider's fault, if it has one that shows in new views.
    pub(super) fn wrong_views(
        &self,
        request: &DualRequest<'_>,
    ) -> Option<Result<DualMapping, DualError>> {
        let page = self.page_size();
        let map = |rw, rx| map(request, page, rw, rx);
        Some(match self.fault {
            Fault::ViewsShowDifferentPages => self.two_strangers(request),
            Fault::ExecutableViewIsWritable => map(READ_WRITE, READ_WRITE | READ_EXEC),
            Fault::ExecutableViewCanBecomeWritable => map(READ_WRITE, READ_EXEC),
            Fault::WritableViewIsExecutable => map(READ_WRITE | READ_EXEC, READ_EXEC),
            Fault::ChildrenShare => self.map_for(Fork::Share, request),
            Fault::ChildrenLoseBoth => self.map_for(Fork::ChildLosesBoth, request),
            Fault::DetachingKeepsThePages => self.map_or_keep(request),
            _ => return None,
        })
    }

    /// Maps two views that have nothing to do with each other.
    fn two_strangers(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        let view = |access| {
            let range = self.inner.reserve(&Request::bytes(request.len))?;
            // SAFETY: reserved just now, and no other code has its address yet.
            unsafe {
                self.inner.commit(
                    range,
                    Commit {
                        access,
                        ..Commit::READ_WRITE
                    },
                )
            }?;
            Ok::<_, Error>(range)
        };
        let (rw, rx) = (view(Access::ReadWrite)?, view(Access::Read)?);
        let page = self.page_size();
        // SAFETY: none: that they do not show the same pages is the fault.
        Ok(unsafe { DualMapping::from_parts(rw, rx, DualStep::Provider, page, request.fork) })
    }

    /// Maps for another fork policy than is asked for, and does not say so.
    fn map_for(&self, fork: Fork, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        let changed = DualRequest { fork, ..*request };
        // SAFETY: the caller vouches for targets that no other code uses.
        let made = unsafe { self.inner.map_dual(&changed) }?;
        let (rw, rx, step, page) = (made.rw(), made.rx(), made.step(), made.page_size());
        // SAFETY: takes the place of the token above. That it tells a lie is the fault.
        Ok(unsafe { DualMapping::from_parts(rw, rx, step, page, request.fork) })
    }

    /// Shares new mappings with children, and takes old ones for new where a child maps into what
    /// its parent's mapping left reserved.
    fn map_or_keep(&self, request: &DualRequest<'_>) -> Result<DualMapping, DualError> {
        let (Target::Into(rw), Target::Into(rx)) = (request.rw, request.rx) else {
            return self.map_for(Fork::Share, request);
        };
        let page = self.page_size();
        // SAFETY: none: that the pages are the parent's is the fault.
        Ok(unsafe { DualMapping::from_parts(rw, rx, DualStep::Memfd, page, request.fork) })
    }
}

/// Maps one memory file twice, each view with the protection given and wherever the system likes,
/// and both from a descriptor that is open for everything.
fn map(
    request: &DualRequest<'_>,
    page: PageSize,
    rw: libc::c_int,
    rx: libc::c_int,
) -> Result<DualMapping, DualError> {
    request.validate(page)?;
    let refused = || DualError::of(ErrorKind::Unsupported);
    if [request.rw, request.rx]
        .iter()
        .any(|t| matches!(t, Target::Into(_)))
    {
        return Err(refused());
    }
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"hostmem".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "a memory file can be had");
    // SAFETY: opened just now, and no other code's.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(request.len as u64)
        .expect("a memory file can grow");
    let view = |protection| {
        let (fd, flags) = (file.as_raw_fd(), libc::MAP_SHARED);
        // SAFETY: a new mapping wherever the system likes; nothing is replaced.
        let got = unsafe { libc::mmap(ptr::null_mut(), request.len, protection, flags, fd, 0) };
        assert_ne!(got, libc::MAP_FAILED, "a memory file can be mapped");
        NonNull::new(got.cast()).and_then(|start| PageRange::new(start, request.len, page))
    };
    let (Some(rw), Some(rx)) = (view(rw), view(rx)) else {
        return Err(refused());
    };
    let (lost_rw, lost_rx) = request.fork.lost_views();
    for (view, lost) in [(rw, lost_rw), (rx, lost_rx)] {
        if lost {
            let start = view.start().as_ptr().cast();
            // SAFETY: mapped just now; this changes nothing in this process.
            let hidden = unsafe { libc::madvise(start, request.len, libc::MADV_DONTFORK) };
            assert_eq!(hidden, 0, "a mapping can be kept out of children");
        }
    }
    // SAFETY: two new mappings of one file, and no other code has their addresses yet. What they
    // allow is the fault.
    Ok(unsafe { DualMapping::from_parts(rw, rx, DualStep::Memfd, page, request.fork) })
}
