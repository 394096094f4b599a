//! The range map, its metadata bounded and its provider failing on demand, against the plain map of
//! the conformance suite.
#![no_main]

use hostmem::{
    OsProvider,
    page::PageSize,
    sim::{Policy, Sim},
};
use hostmem_conformance::range_map::{self, Op, Place, Setup};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary, Unstructured},
    fuzz_target,
};

/// Bytes of the simulated host, whose pages hold metadata only.
const SPACE: usize = 2 << 20;

/// Bounds of the metadata: for few changes, for some, for all.
const METADATA: [usize; 3] = [16 << 10, 64 << 10, 1 << 20];

/// A configuration and what is done with it.
#[derive(Debug)]
struct Run {
    setup: Setup,
    ops: Vec<Op>,
}

impl<'a> Arbitrary<'a> for Run {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let setup = Setup {
            joins: bool::arbitrary(u)?,
            metadata: *u.choose(&METADATA)?,
        };
        let mut ops = Vec::new();
        while !u.is_empty() && ops.len() < 2000 {
            ops.push(op(u)?);
        }
        Ok(Self { setup, ops })
    }
}

fn place(u: &mut Unstructured<'_>) -> arbitrary::Result<Place> {
    Ok(Place {
        far: u.int_in_range(0..=15)?,
        near: u16::arbitrary(u)?.into(),
        len: match u.int_in_range(0..=31)? {
            0 => 0,
            1 => u32::arbitrary(u)?.try_into().unwrap_or(1),
            2..4 => u16::arbitrary(u)?.into(),
            few => few - 3,
        },
    })
}

fn value(u: &mut Unstructured<'_>) -> arbitrary::Result<u32> {
    u.int_in_range(0..=3)
}

fn op(u: &mut Unstructured<'_>) -> arbitrary::Result<Op> {
    Ok(match u.int_in_range(0..=31)? {
        0..10 => Op::Insert(place(u)?, value(u)?),
        10..18 => Op::InsertNew(place(u)?, value(u)?),
        18..24 => Op::Remove(place(u)?),
        24..26 => Op::Update(place(u)?, value(u)?),
        26..29 => Op::Find {
            within: place(u)?,
            len: u8::arbitrary(u)?.into(),
            align: u.int_in_range(0..=11)?,
            offset: u8::arbitrary(u)?.into(),
            order: u16::arbitrary(u)?.into(),
            takes: Option::arbitrary(u)?,
        },
        29 => Op::Look(place(u)?),
        30 => Op::Fail(u.int_in_range(0..=2)?),
        _ => Op::CheckAll,
    })
}

fuzz_target!(|run: Run| {
    let policy = Policy::new(PageSize::KIB_4).space(SPACE);
    let sim = Sim::new(OsProvider::new(), policy).expect("a simulated host");
    range_map::check(&sim, &run.setup, run.ops.iter().copied(), "fuzz");
    assert_eq!(sim.take_misuse(), None, "a call from a wrong state");
    assert_eq!(sim.pages_in_use(), 0, "pages leaked");
});
