//! Operations on the JIT allocator that a property test chooses and, where they find something,
//! shortens. The function that runs them is the suite's, and the fuzz target's too.
#![cfg(target_os = "linux")]

use hostmem_conformance::jit::{self, Op, Setup};
use hostmem_core::{
    page::PageSize,
    sim::{Policy, Sim},
};
use hostmem_linux::LinuxProvider;
use proptest::{
    collection::vec,
    prelude::{Just, ProptestConfig, Strategy, any},
    prop_oneof, proptest,
    sample::select,
};

/// Bytes of the simulated host, and of the metadata in it: little enough to be used up.
const SPACE: usize = 64 << 20;
const METADATA: usize = 1 << 20;

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        20 => 1_usize..300,
        8 => 300_usize..5000,
        2 => 5000_usize..500_000,
        1 => prop_oneof![Just(0), Just(usize::MAX), any::<usize>()],
    ]
}

fn op() -> impl Strategy<Value = Op> {
    // Spans are chosen modulo how many live; small numbers shorten better.
    let span = || 0_usize..40;
    let bytes = || 0_usize..5000;
    prop_oneof![
        24 => size().prop_map(Op::Alloc),
        5 => (size(), 0_usize..22, any::<usize>())
            .prop_map(|(size, align, place)| Op::AllocWith { size, align, place }),
        6 => (span(), bytes(), bytes())
            .prop_map(|(span, offset, len)| Op::Write { span, offset, len }),
        5 => (span(), bytes()).prop_map(|(span, keep)| Op::WriteWith { span, keep }),
        2 => (span(), 0_usize..90).prop_map(|(span, count)| Op::Batch { span, count }),
        6 => (span(), bytes()).prop_map(|(span, len)| Op::Shrink { span, len }),
        20 => span().prop_map(Op::Release),
        3 => (span(), bytes()).prop_map(|(span, offset)| Op::Query { span, offset }),
        2 => any::<usize>().prop_map(Op::QueryAny),
        1 => any::<bool>().prop_map(|hard| Op::Reset { hard }),
        1 => Just(Op::Decommit),
        2 => Just(Op::CheckAll),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    select(jit::configurations().collect::<Vec<_>>())
}

fn page() -> impl Strategy<Value = PageSize> {
    select(vec![PageSize::KIB_4, PageSize::KIB_16, PageSize::KIB_64])
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(256)
    })]

    #[test]
    fn every_sequence_agrees_with_the_oracle(
        setup in setup(),
        page in page(),
        ops in vec(op(), 1..250),
    ) {
        let policy = Policy::new(page).space(SPACE);
        let sim = Sim::new(LinuxProvider::new(), policy).expect("a simulated host");
        if jit::unable(&sim, &setup.config).is_none() {
            jit::check(&sim, setup.config.metadata(METADATA), &ops, setup.name);
        }
        assert_eq!(sim.take_misuse(), None, "a call from a wrong state");
        assert_eq!(sim.pages_in_use(), 0, "pages leaked");
    }
}
