//! The two kinds of maps that a handle may stand for.

use super::types::*;
use crate::{host::HostLock, source::Source};
use hostmem::{
    page::AddressRange,
    provider::Error,
    range_map::{RangeMap, Statistics, Value},
};

/// A value of 64 bits, of ranges that join where they touch, or do not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Number<const JOINS: bool>(pub(super) u64);

impl<const JOINS: bool> Value for Number<JOINS> {
    fn to_bits(self) -> u32 {
        // Not used: maps keep all 64.
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    fn from_bits(bits: u32) -> Self {
        Self(bits.into())
    }

    fn to_bits64(self) -> u64 {
        self.0
    }

    fn from_bits64(bits: u64) -> Self {
        Self(bits)
    }

    fn joins(self) -> bool {
        JOINS
    }
}

pub(super) enum Inner {
    Joining(RangeMap<Number<true>, Source, HostLock>),
    Apart(RangeMap<Number<false>, Source, HostLock>),
}

/// Calls a method of the map that it is.
macro_rules! pass {
    ($inner:expr, $map:ident => $call:expr) => {
        match $inner {
            Inner::Joining($map) => $call,
            Inner::Apart($map) => $call,
        }
    };
}
pub(super) use pass;

pub(super) fn told<const JOINS: bool>(found: (AddressRange, Number<JOINS>)) -> hm_mapped_range {
    hm_mapped_range {
        first: found.0.start(),
        last: found.0.last(),
        value: found.1.0,
    }
}

/// Asks what a piece becomes that has a value or none.
fn each<const JOINS: bool>(
    change: &mut impl FnMut(&mut hm_mapped_range, bool) -> bool,
    piece: AddressRange,
    old: Option<Number<JOINS>>,
) -> Option<Number<JOINS>> {
    let mut piece = told((piece, old.unwrap_or(Number(0))));
    change(&mut piece, old.is_some()).then_some(Number(piece.value))
}

impl Inner {
    pub(super) fn query(&self, addr: usize) -> Option<hm_mapped_range> {
        pass!(self, map => map.query(addr).map(told))
    }

    pub(super) fn next_from(&self, addr: usize) -> Option<hm_mapped_range> {
        pass!(self, map => map.next_from(addr).map(told))
    }

    pub(super) fn prev(&self, addr: usize) -> Option<hm_mapped_range> {
        pass!(self, map => map.prev(addr).map(told))
    }

    pub(super) fn rewrite(
        &self,
        range: AddressRange,
        mut change: impl FnMut(&mut hm_mapped_range, bool) -> bool,
    ) -> Result<usize, Error> {
        pass!(self, map => map.rewrite(range, |piece, old| each(&mut change, piece, old)))
    }

    pub(super) fn try_rewrite(
        &self,
        range: AddressRange,
        mut change: impl FnMut(&mut hm_mapped_range, bool) -> bool,
    ) -> Option<Result<usize, Error>> {
        pass!(self, map => map.try_rewrite(range, |piece, old| each(&mut change, piece, old)))
    }

    pub(super) fn statistics(&self) -> Statistics {
        pass!(self, map => map.statistics())
    }
}
