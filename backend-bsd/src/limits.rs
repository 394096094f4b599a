//! Limits: what is left of them.
//!
//! A limit that is not set costs one system call; one that is, a look at the process by
//! `sysctl(3)`.

use crate::{
    host,
    shared::limits::{left as left_of, limit},
};
use hostmem_core::provider::Resource;

/// Returns how much of a resource is left. How much is locked is not told, nor is there a limit of
/// mappings that is.
pub(crate) fn left(of: Resource) -> Option<usize> {
    match of {
        Resource::FileSize => limit(libc::RLIMIT_FSIZE),
        of if of == host::LIMITED => left_of(host::LIMIT, host::used),
        _ => None,
    }
}
