//! FreeBSD: superpages and `kern.elf64.allow_wx`.

use super::Order;
use crate::{errno::check, object::page_sizes};
use core::ffi::c_int;
use hostmem_core::{
    page::PageSize,
    probe::{LargePages, MAX_LARGE_SIZES, Setting},
    provider::{Capabilities, order},
};

pub(crate) const ORDER: Order = Order {
    base: order::FREEBSD,
    large: order::FREEBSD_LARGE,
    only_large: order::FREEBSD_ONLY_LARGE,
};

/// What every FreeBSD has. Mapping over is one step under the map's lock.
pub(super) const CAPABILITIES: Capabilities = Capabilities::TOGGLE_EXEC
    .union(Capabilities::RWX)
    .union(Capabilities::ATOMIC_INTO)
    .union(Capabilities::DUAL)
    .union(Capabilities::EXEC_ONLY_WHERE_ASKED);

/// Lists the sizes of large pages, smallest first. No pool is set aside for them.
pub(super) fn large_pages() -> [Option<LargePages>; MAX_LARGE_SIZES] {
    let mut found = [None; MAX_LARGE_SIZES];
    // The first is the host's ordinary page.
    for (slot, &bytes) in found.iter_mut().zip(&page_sizes()[1..]) {
        *slot = PageSize::new(bytes).map(|size| LargePages {
            size,
            total: None,
            free: None,
        });
    }
    found
}

/// Says whether this process may not have memory that is writable and executable; procctl(2).
pub(super) fn deny_write_execute() -> Setting {
    let mut status: c_int = 0;
    let data = (&raw mut status).cast();
    // The calling process.
    let id = 0;
    // SAFETY: this command writes an integer, for which there is room.
    let done = unsafe { libc::procctl(libc::P_PID, id, libc::PROC_WXMAP_STATUS, data) };
    match check(done) {
        Err(_) => Setting::Absent,
        Ok(_) if status & libc::PROC_WXORX_ENFORCE != 0 => Setting::On,
        Ok(_) => Setting::Off,
    }
}
