//! Long runs, of which each takes minutes at full length.

use super::{Filter, Totals, process};
use hostmem::OsProvider;
use hostmem_conformance::{Summary, heap, jit, region};
use hostmem_core::{
    page::PageSize,
    provider::Provider,
    sim::{Policy, Sim},
};
use std::time::Instant;

/// Spans in the long run.
const LONG: usize = 100_000;

/// Bytes of a simulated host that has room for that many spans of the longest granules, twice.
const LONG_SPACE: usize = 8 << 30;

/// The tests of the JIT allocator at full length, where `HOSTMEM_LONG` asks for them.
pub(super) fn run_long(filter: &Filter, all: &mut Totals) {
    if std::env::var_os("HOSTMEM_LONG").is_none() {
        println!("{LONG} spans in every configuration ... skipped: HOSTMEM_LONG is not set");
        all.skipped += 1;
        return;
    }
    for setup in jit::configurations() {
        let os = OsProvider::new();
        run_long_on(std::env::consts::OS, os, setup, filter, all);
        let policy = Policy::new(PageSize::KIB_4).space(LONG_SPACE);
        let sim = Sim::new(os, policy).expect("a simulated host");
        run_long_on("sim 4 KiB", &sim, setup, filter, all);
        assert_eq!(sim.take_misuse(), None, "a call from a wrong state");
        assert_eq!(sim.pages_in_use(), 0, "pages leaked");
    }
}

fn run_long_on<P: Provider + Copy>(
    host: &str,
    provider: P,
    jit::Setup { name, config }: jit::Setup,
    filter: &Filter,
    all: &mut Totals,
) {
    let name = format!("long {LONG} spans ({name})");
    if !filter.allows(host, &name) {
        return;
    }
    print!("{host} {name} ... ");
    if let Some(reason) = jit::unable(provider, &config) {
        println!("skipped: {reason}");
        all.skipped += 1;
        return;
    }
    all.run(host, &name, || {
        let since = Instant::now();
        jit::stress(provider, config, LONG, 0x0a5a, &name);
        jit::last_in_first_out(provider, config, LONG, &name);
        println!("ok, {} ms", since.elapsed().as_millis());
        Summary {
            passed: 1,
            ..Summary::default()
        }
    });
}

/// Calls in the long run of the general heap, and handles.
const HEAP_CALLS: usize = 10_000_000;
const HANDLES: usize = 100_000;

/// H1 and H6 at full length, where `HOSTMEM_LONG` asks for it.
pub(super) fn run_long_heap(filter: &Filter, all: &mut Totals) {
    if std::env::var_os("HOSTMEM_LONG").is_none() {
        println!("{HEAP_CALLS} calls of a heap ... skipped: HOSTMEM_LONG is not set");
        all.skipped += 1;
        return;
    }
    let os = OsProvider::new();
    run_long_heap_on(std::env::consts::OS, os, filter, all);
    for (host, page) in [
        ("sim 4 KiB", PageSize::KIB_4),
        ("sim 16 KiB", PageSize::KIB_16),
        ("sim 64 KiB", PageSize::KIB_64),
    ] {
        let sim = Sim::new(os, Policy::new(page)).expect("a simulated host");
        run_long_heap_on(host, &sim, filter, all);
        assert_eq!(sim.take_misuse(), None, "a call from a wrong state");
        assert_eq!(sim.pages_in_use(), 0, "pages leaked");
    }
}

fn run_long_heap_on<P: Provider + Copy>(host: &str, p: P, filter: &Filter, all: &mut Totals) {
    let long = |what: &str, run: &dyn Fn(), all: &mut Totals| {
        let name = format!("long {what}");
        if !filter.allows(host, &name) {
            return;
        }
        print!("{host} {name} ... ");
        all.run(host, &name, || {
            let since = Instant::now();
            run();
            println!("ok, {} ms", since.elapsed().as_millis());
            Summary {
                passed: 1,
                ..Summary::default()
            }
        });
    };
    for threads in [1, 2, 4, 8] {
        let what = format!("{HEAP_CALLS} calls of a heap by {threads} threads");
        long(
            &what,
            &|| process::heap::exchange(p, threads, HEAP_CALLS),
            all,
        );
    }
    let what = format!("{HANDLES} handles of a heap");
    long(&what, &|| heap::short_handles(p, HANDLES), all);
}

/// Calls in the long run of the region allocator.
const CALLS: usize = 1_000_000;

/// R11 at full length, without faults and with some, where `HOSTMEM_LONG` asks for it.
pub(super) fn run_long_region(filter: &Filter, all: &mut Totals) {
    if std::env::var_os("HOSTMEM_LONG").is_none() {
        println!("{CALLS} calls of a region ... skipped: HOSTMEM_LONG is not set");
        all.skipped += 1;
        return;
    }
    for (host, page) in [
        ("sim 4 KiB", PageSize::KIB_4),
        ("sim 16 KiB", PageSize::KIB_16),
        ("sim 64 KiB", PageSize::KIB_64),
    ] {
        for (how, faults) in [("", false), (" with faults", true)] {
            let name = format!("long {CALLS} calls of a region{how}");
            if !filter.allows(host, &name) {
                continue;
            }
            print!("{host} {name} ... ");
            all.run(host, &name, || {
                let since = Instant::now();
                let sim = Sim::new(OsProvider::new(), Policy::new(page)).expect("a simulated host");
                let tally = region::stress(&sim, CALLS, faults, &name);
                assert_eq!(faults, tally.pages > 0, "{tally:?}");
                assert_eq!(faults, tally.metadata > 0, "{tally:?}");
                assert_eq!(faults, tally.used_up > 0, "{tally:?}");
                assert_eq!(sim.take_misuse(), None, "a call from a wrong state");
                assert_eq!(sim.pages_in_use(), 0, "pages leaked");
                println!("ok, {} ms, {tally:?}", since.elapsed().as_millis());
                Summary {
                    passed: 1,
                    ..Summary::default()
                }
            });
        }
    }
}
