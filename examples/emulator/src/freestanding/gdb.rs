//! In the place of `gdb`, which needs the standard library: there is no debugger.

use crate::{
    interpret::Trap,
    machine::{End, Machine, Thread},
    signals::Raised,
};

/// A debugger, of which there is none.
pub(crate) enum Debugger {}

pub(crate) const fn debugger() -> Option<&'static Debugger> {
    None
}

/// Refuses to wait for a debugger.
///
/// # Errors
///
/// Always.
pub(crate) const fn begin(_: &'static Machine, _: &Thread, _: u16) -> Result<(), &'static str> {
    Err("only the hosted program waits for one")
}

impl Debugger {
    pub(crate) fn enter(&self, _: &mut Thread) -> Trap {
        match *self {}
    }

    pub(crate) fn calls(&self, _: &Thread, _: bool) {
        match *self {}
    }

    pub(crate) fn forget(&self, _: u32) {
        match *self {}
    }

    pub(crate) fn ended(&self, _: End) {
        match *self {}
    }
}

impl Thread {
    pub(crate) const fn debugged(&mut self, raised: Raised) -> Option<Raised> {
        debug_assert!(self.injected == 0, "only a debugger passes signals on");
        Some(raised)
    }
}
