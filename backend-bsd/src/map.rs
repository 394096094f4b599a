//! The process map, by `sysctl(3)`.
//!
//! FreeBSD gives all of it or nothing, so it goes to a buffer that is mapped for the call and is
//! not shown to the visitor. Nothing is allocated. OpenBSD gives it in pieces. DragonFly has none.

#[cfg(target_os = "dragonfly")]
mod dragonfly;
#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "openbsd")]
mod openbsd;

#[cfg(target_os = "dragonfly")]
use dragonfly as host;
#[cfg(target_os = "freebsd")]
use freebsd as host;
#[cfg(target_os = "openbsd")]
use openbsd as host;

#[cfg(target_os = "freebsd")]
pub(crate) use host::sysctl_int;

use crate::{BsdProvider, pages::mappable};
use hostmem_core::provider::{AddressSpace, Error, MapEntry, ProcessMap};

impl ProcessMap for BsdProvider {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        host::walk(visit)
    }

    fn address_space(&self) -> AddressSpace {
        AddressSpace {
            user: mappable(),
            // A stack is mapped at its full length, inaccessible where it has not grown to.
            ..AddressSpace::default()
        }
    }
}
