//! DragonFly and OpenBSD: no call synchronizes the instruction streams of other cores.

use hostmem_core::provider::{Error, ErrorKind};

/// Says that this host cannot.
pub(crate) fn core_sync() -> Result<(), Error> {
    Err(ErrorKind::Unsupported.into())
}

pub(super) fn sync_cores() -> Result<(), Error> {
    core_sync()
}
