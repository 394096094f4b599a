//! No peers: in their place the C library's heap, which is not measured twice.

use crate::subject::Malloc;

pub const PRESENT: bool = false;
pub const JEMALLOC: Malloc = Malloc;
pub const MIMALLOC: Malloc = Malloc;
