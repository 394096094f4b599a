//! The general heap on a simulated host, its pages and its metadata failing on demand, against the
//! oracle of the conformance suite.
#![no_main]

use hostmem::{
    OsProvider,
    heap::{HeapConfig, Return},
    page::PageSize,
    sim::{Calls, Faulty, Policy, Sim},
};
use hostmem_conformance::heap::{self, Op};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary, Unstructured},
    fuzz_target,
};

/// Bytes of the simulated host: little enough for a run to use it up.
const SPACE: usize = 48 << 20;

/// Bounds of the metadata: for few classes, for all.
const METADATA: [usize; 2] = [1 << 20, 8 << 20];

/// What can fail without a leak that cannot be helped: all but giving addresses back.
const FAILING: Calls = Calls::RESERVE.union(Calls::COMMIT).union(Calls::DECOMMIT);

/// A configuration and what is done with it.
#[derive(Debug)]
struct Run {
    page: PageSize,
    config: HeapConfig,
    /// A seed, and that one call in that many fails, of those for blocks and those for metadata.
    faults: Option<(u64, u64, u64)>,
    ops: Vec<Op>,
}

impl<'a> Arbitrary<'a> for Run {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let sizes = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64];
        let page = *u.choose(&sizes)?;
        let returns = [Return::After(1000), Return::Eager, Return::Never];
        let config = HeapConfig::new()
            .metadata(*u.choose(&METADATA)?)
            .segment(*u.choose(&[64 << 10, 1 << 20])?)
            .shards(u.int_in_range(1..=3)?)
            .magazine(*u.choose(&[0, 4 << 10, 64 << 10])?)
            .memory_return(*u.choose(&returns)?);
        let faults = if bool::arbitrary(u)? {
            let (pages, metadata) = (one_in(u)?, one_in(u)?);
            Some((u64::arbitrary(u)?, pages, metadata))
        } else {
            None
        };
        let mut ops = Vec::new();
        while !u.is_empty() && ops.len() < 1500 {
            ops.push(op(u)?);
        }
        Ok(Self {
            page,
            config,
            faults,
            ops,
        })
    }
}

/// One call in that many, or none.
fn one_in(u: &mut Unstructured<'_>) -> arbitrary::Result<u64> {
    Ok(*u.choose(&[0, 2, 4, 12, 40])?)
}

/// A number that tells blocks and bytes of blocks apart, from few bytes of input.
fn number(u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
    Ok(u16::arbitrary(u)?.into())
}

fn size(u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
    Ok(match u.int_in_range(0..=31)? {
        0..2 => number(u)? * 128,
        2..5 => number(u)? * 16,
        5..12 => number(u)?,
        _ => u8::arbitrary(u)?.into(),
    })
}

fn op(u: &mut Unstructured<'_>) -> arbitrary::Result<Op> {
    Ok(match u.int_in_range(0..=31)? {
        0..9 => Op::Alloc {
            size: size(u)?,
            align: u.int_in_range(0..=5)?,
            zeroed: u.ratio(1, 4)?,
        },
        9 => Op::Alloc {
            size: size(u)?,
            align: u.int_in_range(0..=24)?,
            zeroed: bool::arbitrary(u)?,
        },
        10 => Op::AllocTooMuch(usize::arbitrary(u)?),
        11..17 => Op::Free(number(u)?, bool::arbitrary(u)?),
        17 => Op::FreeTwice(number(u)?),
        18 => Op::FreeInside(number(u)?, number(u)?),
        19 => Op::FreeForeign(usize::arbitrary(u)?),
        20..23 => Op::Realloc(number(u)?, size(u)?),
        23 => Op::Query(number(u)?, number(u)?),
        24..26 => Op::Handle(u.int_in_range(0..=heap::CALLERS - 1)?),
        26 => Op::Renew,
        27 => Op::Flush,
        28 => Op::Trim,
        29 => Op::Collect,
        30 => Op::Tick(number(u)? as u64 % 3000),
        _ => Op::CheckAll,
    })
}

fuzz_target!(|run: Run| {
    let policy = Policy::new(run.page).space(SPACE);
    let sim = Sim::new(OsProvider::new(), policy).expect("a simulated host");
    let (pages, metadata) = (Faulty::new(&sim), Faulty::new(&sim));
    if let Some((seed, some, others)) = run.faults {
        pages.only(FAILING);
        metadata.only(FAILING);
        pages.fail_randomly(seed, some);
        metadata.fail_randomly(!seed, others);
    }
    heap::check(&pages, &metadata, run.config, run.ops.iter().copied());
    assert_eq!(sim.take_misuse(), None, "a call from a wrong state");
    assert_eq!(sim.pages_in_use(), 0, "pages leaked");
});
