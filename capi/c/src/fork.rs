//! Repairs in a forked child.

use crate::{
    code::Code,
    heap::HeapObject,
    map::Map,
    object::Kind,
    region::RegionObject,
    status::{Fault, answer, hm_error, hm_status},
};
use hostmem::{fork::ForkChild, provider::Error};

/// Repairs all regions, range maps, heaps and code ranges in the child of a fork, on its only
/// thread, before any other call: a thread that the child does not have may have been in a call of
/// them. The parent takes no lock for a fork. `pthread_atfork(NULL, NULL, child)` with a `child`
/// that calls this is enough; executable memory has hooks of its own, which come after this.
///
/// Children of `vfork`, and of `clone` with `CLONE_VM`, share their parent's memory and must not
/// call it. Where there is no memory for something, the rest is repaired all the same, and the call
/// may be made again.
///
/// For the only thread of a forked child, also where the fork was made in a signal handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hm_fork_child_all(error: *mut hm_error) -> hm_status {
    answer!(error, {
        let mut first = Ok::<(), Error>(());
        let mut note = |result: Result<(), Error>| {
            if first.is_ok() {
                first = result;
            }
            None::<()>
        };
        // Regions first, as others are made on them.
        RegionObject::for_each(|region| {
            // SAFETY: the caller in C promises that this is the only thread of a forked child.
            note(unsafe { region.fork_child() });
        });
        // SAFETY: the caller in C promises that this is the only thread of a forked child.
        Map::list().find(|_, map| note(unsafe { map.fork_child() }));
        HeapObject::list().find(|_, found| {
            // SAFETY: the caller in C promises that this is the only thread of a forked child.
            note(unsafe { found.heap.fork_child() })
        });
        // SAFETY: as above.
        Code::list().find(|_, code| note(unsafe { code.range().fork_child() }));
        first.map_err(Fault::Host)?;
    })
}
