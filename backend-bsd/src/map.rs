//! The process map, by `sysctl(3)`.
//!
//! FreeBSD gives all of it or nothing, so it goes to a buffer that is mapped for the call and is
//! not shown to the visitor. Nothing is allocated. OpenBSD gives it in pieces. DragonFly has none.

use crate::{host, pages::Bsd};
use hostmem_core::provider::{Error, MapEntry, ProcessMap};

impl ProcessMap for Bsd {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        host::walk(visit)
    }
}
