//! What DragonFly and OpenBSD lack.

use hostmem_core::{
    probe::{LargePageSize, MAX_LARGE_SIZES, Setting},
    provider::{Error, ErrorKind},
};

/// There are none on request.
pub(crate) fn large_pages() -> [Option<LargePageSize>; MAX_LARGE_SIZES] {
    [None; MAX_LARGE_SIZES]
}

/// There is no such setting; the probe tries.
pub(crate) fn deny_write_execute() -> Setting {
    Setting::Absent
}

/// No call synchronizes the instruction streams of other cores.
pub(crate) fn core_sync() -> Result<(), Error> {
    Err(ErrorKind::Unsupported.into())
}

pub(crate) use core_sync as sync_cores;
