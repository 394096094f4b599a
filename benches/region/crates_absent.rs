//! The peers that are crates, where they were not built.

use crate::{
    space::{Lookup, Mapping, Tracker},
    trace::Trace,
    workloads::churn::Churning,
};

/// A map that is not there.
pub enum Rangemap {}

impl Lookup for Rangemap {
    const NAME: &'static str = "rangemap";

    fn tag_at(&self, _: u64) -> Option<u16> {
        match *self {}
    }
}

impl Tracker for Rangemap {
    const NAME: &'static str = "rangemap";

    fn insert(&mut self, _: Mapping) {
        match *self {}
    }

    fn remove(&mut self, _: Mapping) {
        match *self {}
    }

    fn each(&self, _: impl FnMut(u64, u16)) {
        match *self {}
    }
}

/// There are none.
pub fn churns(_: &Trace) -> Vec<Box<dyn Churning + '_>> {
    Vec::new()
}

/// There is none.
pub fn lookup(_: &Trace) -> Option<Rangemap> {
    None
}

/// There is none.
pub fn tracker(_: u32) -> Option<Rangemap> {
    None
}

/// There is none.
pub fn bytes(_: &Trace) -> Option<usize> {
    None
}
