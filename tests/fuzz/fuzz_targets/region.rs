//! The region allocator on a simulated host, its providers failing on demand, against the page
//! array of the conformance suite.
#![no_main]

use hostmem::{
    OsProvider,
    page::PageSize,
    sim::{Policy, Sim},
};
use hostmem_conformance::region::{self, LONGEST, Op, Order, Setup, Spot};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary, Unstructured},
    fuzz_target,
};

/// Bytes of the simulated host.
const SPACE: usize = 32 << 20;

/// Pages of the region.
const PAGES: usize = 130;

/// Bounds of the metadata: for no change but the first ones, for those of a small tree, for some
/// that a larger one wants, for all.
const METADATA: [usize; 4] = [16 << 10, 48 << 10, 64 << 10, 1 << 20];

/// A configuration and what is done with it.
#[derive(Debug)]
struct Run {
    page: PageSize,
    setup: Setup,
    ops: Vec<Op>,
}

impl<'a> Arbitrary<'a> for Run {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let sizes = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64];
        let page = *u.choose(&sizes)?;
        let setup = Setup {
            order: *u.choose(&[Order::Lowest, Order::Highest, Order::Recent])?,
            pages: PAGES,
            metadata: *u.choose(&METADATA)?,
            stride: 1,
        };
        let mut ops = Vec::new();
        while !u.is_empty() && ops.len() < 1000 {
            ops.push(op(u)?);
        }
        Ok(Self { page, setup, ops })
    }
}

/// A number of pages.
fn number(u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
    Ok(u8::arbitrary(u)?.into())
}

fn few(u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
    u.int_in_range(0..=LONGEST - 1)
}

fn tag(u: &mut Unstructured<'_>) -> arbitrary::Result<u16> {
    u.int_in_range(0..=3)
}

fn spot(u: &mut Unstructured<'_>) -> arbitrary::Result<Spot> {
    Ok(match u.int_in_range(0..=5)? {
        0 => Spot::Exact(number(u)?),
        1 => Spot::Hint(number(u)?),
        2 => Spot::Near(number(u)?),
        _ => Spot::Anywhere,
    })
}

fn op(u: &mut Unstructured<'_>) -> arbitrary::Result<Op> {
    Ok(match u.int_in_range(0..=31)? {
        0..9 => Op::Map {
            pages: few(u)?,
            spot: spot(u)?,
            guarded: u.ratio(1, 8)?,
            tag: tag(u)?,
        },
        9..12 => Op::Reserve {
            pages: few(u)?,
            spot: spot(u)?,
            align: few(u)?,
        },
        12..15 => Op::MapOver {
            first: number(u)?,
            pages: few(u)?,
            tag: tag(u)?,
        },
        15 => Op::Commit {
            first: number(u)?,
            pages: few(u)?,
        },
        16..18 => Op::Protect {
            first: number(u)?,
            pages: few(u)?,
            access: few(u)?,
        },
        18..20 => Op::Decommit {
            first: number(u)?,
            pages: few(u)?,
        },
        20..25 => Op::Unmap {
            first: number(u)?,
            pages: few(u)?,
        },
        25 => Op::Unmap {
            first: number(u)?,
            pages: number(u)?,
        },
        26 => Op::Resize {
            first: number(u)?,
            pages: few(u)?,
            new_pages: few(u)?,
            moves: bool::arbitrary(u)?,
        },
        27 => Op::ReleaseUnused(few(u)?),
        28 => Op::Adopt(number(u)?),
        29 => Op::Look {
            first: number(u)?,
            pages: few(u)?,
        },
        _ => Op::Fail {
            metadata: bool::arbitrary(u)?,
            after: few(u)?,
        },
    })
}

fuzz_target!(|run: Run| {
    let policy = Policy::new(run.page).space(SPACE);
    let sim = Sim::new(OsProvider::new(), policy).expect("a simulated host");
    region::check(&sim, &run.setup, run.ops.iter().copied(), "fuzz");
    assert_eq!(sim.take_misuse(), None, "a call from a wrong state");
    assert_eq!(sim.pages_in_use(), 0, "pages leaked");
});
