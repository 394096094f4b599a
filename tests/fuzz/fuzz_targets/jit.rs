//! The JIT allocator on a simulated host, in every configuration, against the oracle of the
//! conformance suite.
#![no_main]

use hostmem::{
    OsProvider,
    page::PageSize,
    sim::{Policy, Sim},
};
use hostmem_conformance::jit::{self, Op, Setup};
use libfuzzer_sys::{
    Corpus,
    arbitrary::{self, Arbitrary, Unstructured},
    fuzz_target,
};

/// Bytes of the simulated host: little enough for a run to use it up.
const SPACE: usize = 64 << 20;

/// Bytes of the metadata's bound in it.
const METADATA: usize = 1 << 20;

/// A configuration and what is done with it.
#[derive(Debug)]
struct Run {
    setup: Setup,
    ops: Vec<Op>,
}

impl<'a> Arbitrary<'a> for Run {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let setups: Vec<Setup> = jit::configurations().collect();
        let setup = *u.choose(&setups)?;
        let mut ops = Vec::new();
        while !u.is_empty() && ops.len() < 2000 {
            ops.push(op(u)?);
        }
        Ok(Self { setup, ops })
    }
}

/// A number that tells spans and bytes of spans apart, from few bytes of input.
fn number(u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
    Ok(u16::arbitrary(u)?.into())
}

fn size(u: &mut Unstructured<'_>) -> arbitrary::Result<usize> {
    Ok(match u.int_in_range(0..=15)? {
        0 => usize::arbitrary(u)?,
        1 => number(u)? * 16,
        2..6 => number(u)?,
        _ => u8::arbitrary(u)?.into(),
    })
}

fn op(u: &mut Unstructured<'_>) -> arbitrary::Result<Op> {
    Ok(match u.int_in_range(0..=31)? {
        0..10 => Op::Alloc(size(u)?),
        10..12 => Op::AllocWith {
            size: size(u)?,
            align: u8::arbitrary(u)?.into(),
            place: number(u)?,
        },
        12..15 => Op::Write {
            span: number(u)?,
            offset: number(u)?,
            len: number(u)?,
        },
        15..17 => Op::WriteWith {
            span: number(u)?,
            keep: number(u)?,
        },
        17 => Op::Batch {
            span: number(u)?,
            count: u8::arbitrary(u)?.into(),
        },
        18..20 => Op::Shrink {
            span: number(u)?,
            len: number(u)?,
        },
        20..27 => Op::Release(number(u)?),
        27 => Op::Query {
            span: number(u)?,
            offset: number(u)?,
        },
        28 => Op::QueryAny(usize::arbitrary(u)?),
        29 => Op::Decommit,
        30 => Op::CheckAll,
        _ => Op::Reset {
            hard: bool::arbitrary(u)?,
        },
    })
}

fuzz_target!(|run: Run| -> Corpus {
    let sizes = [PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64];
    let policy = Policy::new(sizes[run.ops.len() % sizes.len()]).space(SPACE);
    let sim = Sim::new(OsProvider::new(), policy).expect("a simulated host");
    if jit::unable(&sim, &run.setup.config).is_some() {
        return Corpus::Reject;
    }
    let config = run.setup.config.metadata(METADATA);
    jit::check(&sim, config, &run.ops, run.setup.name);
    assert_eq!(sim.take_misuse(), None, "a call from a wrong state");
    assert_eq!(sim.pages_in_use(), 0, "pages leaked");
    Corpus::Keep
});
