//! DragonFly: nothing to ask for.

use super::Order;
use hostmem_core::{
    probe::{LargePages, MAX_LARGE_SIZES, Setting},
    provider::{Capabilities, order},
};

pub(crate) const ORDER: Order = Order {
    base: order::DRAGONFLY,
    large: order::DRAGONFLY,
    only_large: &[],
};

/// What every DragonFly has. Mapping over unmaps first, in a step of its own.
pub(super) const CAPABILITIES: Capabilities = Capabilities::TOGGLE_EXEC
    .union(Capabilities::RWX)
    .union(Capabilities::DUAL)
    .union(Capabilities::EXEC_ONLY_WHERE_ASKED);

/// There are none on request.
pub(super) fn large_pages() -> [Option<LargePages>; MAX_LARGE_SIZES] {
    [None; MAX_LARGE_SIZES]
}

/// There is no such setting.
pub(super) fn deny_write_execute() -> Setting {
    Setting::Absent
}
