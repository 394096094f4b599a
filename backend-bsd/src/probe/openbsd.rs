//! OpenBSD: nobody has memory that is writable and executable, but programs linked for it, on file
//! systems mounted for it.

use super::Order;
use hostmem_core::{
    probe::{LargePages, MAX_LARGE_SIZES, Setting},
    provider::{Capabilities, order},
};

pub(crate) const ORDER: Order = Order {
    base: order::OPENBSD,
    large: order::OPENBSD,
    only_large: &[],
};

/// What every OpenBSD has. Mapping over is one step under the map's lock.
pub(super) const CAPABILITIES: Capabilities = Capabilities::TOGGLE_EXEC
    .union(Capabilities::ATOMIC_INTO)
    .union(Capabilities::DUAL)
    .union(Capabilities::EXEC_ONLY_WHERE_ASKED);

/// There are none.
pub(super) fn large_pages() -> [Option<LargePages>; MAX_LARGE_SIZES] {
    [None; MAX_LARGE_SIZES]
}

/// It is no setting, but the system's nature; the probe tries.
pub(super) fn deny_write_execute() -> Setting {
    Setting::Absent
}
