//! The suite on this operating system, and on simulated hosts above it with pages of 4, 16 and
//! 64 KiB. Built for another system it is one program that needs no files beside it.
//!
//! One case after the other, in one thread: they look at the map of the process. Arguments that
//! are no options choose the cases whose names, with the host's in front, contain one of them.

mod long;
mod process;

use hostmem::OsProvider;
use hostmem_conformance::{Case, Outcome, Report, Summary, heap, run};
use hostmem_core::{
    heap::HeapConfig,
    page::PageSize,
    provider::{Capabilities, DualSteps, PageProvider, Provider, Purged, Request},
    region::{RegionAllocator, RegionConfig},
    sim::{Policy, Sim},
};
use long::{run_long, run_long_heap, run_long_region};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

type Region = RegionAllocator<OsProvider>;

/// The suite itself lives in what it tests; but on Linux alone, so that elsewhere a heap that fails
/// does not take the suite with it.
#[cfg(target_os = "linux")]
#[global_allocator]
static HEAP: hostmem::GlobalHeap = hostmem::GlobalHeap::new();

/// Prints each case as it begins and ends.
struct Print<'a> {
    host: &'a str,
    since: Instant,
}

impl<'a> Print<'a> {
    fn new(host: &'a str) -> Self {
        Self {
            host,
            since: Instant::now(),
        }
    }
}

impl Report for Print<'_> {
    fn begin(&mut self, name: &'static str) {
        print!("{} {name} ... ", self.host);
    }

    fn end(&mut self, _: &'static str, outcome: Outcome) {
        match outcome {
            Outcome::Passed => println!("ok, {} ms", self.since.elapsed().as_millis()),
            Outcome::Skipped(reason) => println!("skipped: {reason}"),
        }
    }
}

struct Filter(Vec<String>);

impl Filter {
    fn allows(&self, host: &str, name: &str) -> bool {
        let name = format!("{host} {name}");
        self.0.is_empty() || self.0.iter().any(|part| name.contains(part))
    }
}

/// How many cases ended how.
#[derive(Default)]
struct Totals {
    passed: usize,
    skipped: usize,
    failed: Vec<String>,
}

impl Totals {
    /// Runs one case; one that panics does not keep the others from running.
    fn run(&mut self, host: &str, name: &str, case: impl FnOnce() -> Summary) {
        match catch_unwind(AssertUnwindSafe(case)) {
            Ok(summary) => {
                self.passed += summary.passed;
                self.skipped += summary.skipped;
            }
            Err(_) => {
                println!("FAILED");
                self.failed.push(format!("{host} {name}"));
            }
        }
    }
}

/// Yields the cases for any provider.
fn cases<P: Provider + Copy>() -> impl Iterator<Item = Case<P>> {
    hostmem_conformance::cases().chain(process::cases())
}

/// Says why a case cannot hold where an emulator stands in for the kernel, as `ci/aarch64.sh` tells
/// by the environment.
fn emulator_lacks(case: &str) -> Option<&'static str> {
    std::env::var_os("HOSTMEM_EMULATED")?;
    match case {
        "jit::a_fragmented_window_is_filled"
        | "jit::a_page_is_enough_for_what_fits_in_it"
        | "jit::the_longest_hole_is_used_at_once" => {
            Some("the emulator has mappings that the process map does not show")
        }
        "jit::unused_pages_go_back_and_serve_again" => {
            Some("the emulator takes MADV_REMOVE for mere advice")
        }
        _ => None,
    }
}

fn run_all<P>(host: &str, provider: P, filter: &Filter, all: &mut Totals)
where
    P: Provider + DualSteps + Copy,
{
    let cases = cases().chain(process::host_cases());
    for case in cases.filter(|c: &Case<P>| filter.allows(host, c.name())) {
        if let Some(reason) = emulator_lacks(case.name()) {
            println!("{host} {} ... skipped: {reason}", case.name());
            all.skipped += 1;
            continue;
        }
        all.run(host, case.name(), || {
            run(provider, [case], &mut Print::new(host))
        });
    }
}

/// Runs every case on a new simulated host, and looks at what it left behind.
fn run_simulated(host: &str, policy: Policy, filter: &Filter, all: &mut Totals) {
    let names = cases::<&Sim<OsProvider>>().map(|case| case.name());
    for name in names.filter(|name| filter.allows(host, name)) {
        all.run(host, name, || {
            let sim = Sim::new(OsProvider::new(), policy).expect("a simulated host");
            let only = cases().filter(|c: &Case<&Sim<OsProvider>>| c.name() == name);
            let summary = run(&sim, only, &mut Print::new(host));
            assert_eq!(sim.take_misuse(), None, "a call from a wrong state");
            assert_eq!(sim.pages_in_use(), 0, "pages leaked");
            summary
        });
    }
}

/// Bytes of addresses for a region that serves every case.
const REGION: usize = 64 << 30;

/// Runs every case on a region allocator, a provider itself, and looks at what it left behind;
/// those of many configurations in the default one.
fn run_in_region(filter: &Filter, all: &mut Totals) {
    let host = "region";
    let default = |name: &&str| !name.contains('(') || name.ends_with("(default)");
    let names = cases::<&Region>().map(|case| case.name());
    let names: Vec<_> = names.filter(default).collect();
    if !names.iter().any(|name| filter.allows(host, name)) {
        return;
    }
    let os = OsProvider::new();
    let region = Region::on(os, os, RegionConfig::new()).expect("metadata");
    let Ok(space) = os.reserve(&Request::bytes(REGION)) else {
        println!("{host}: skipped: {REGION} bytes of addresses cannot be had");
        all.skipped += 1;
        return;
    };
    // SAFETY: reserved just now, and the region's until the end.
    unsafe { region.adopt(space) }.expect("fresh addresses can be adopted");
    for name in names.into_iter().filter(|name| filter.allows(host, name)) {
        all.run(host, name, || {
            let only = cases().filter(|c: &Case<&Region>| c.name() == name);
            let summary = run(&region, only, &mut Print::new(host));
            assert_eq!(region.statistics().used, 0, "pages leaked");
            summary
        });
    }
    // SAFETY: reserved above; every case gave back what it took.
    unsafe { os.release(space) }.expect("what was reserved can be released");
}

/// Bytes of a simulated address space of 39 bits.
const BITS_39: usize = 1 << 39;

/// Five hundred handles of a heap with the default configuration, in an address space of 39 bits.
fn run_39_bits(filter: &Filter, all: &mut Totals) {
    let (host, name) = ("sim 39 bits", "heap::many_handles_take_little");
    if !filter.allows(host, name) {
        return;
    }
    let policy = Policy::new(PageSize::KIB_64).space(BITS_39);
    let Ok(sim) = Sim::new(OsProvider::new(), policy) else {
        println!("{host} {name} ... skipped: this many addresses cannot be had");
        all.skipped += 1;
        return;
    };
    print!("{host} {name} ... ");
    all.run(host, name, || {
        let since = Instant::now();
        heap::many_handles(&sim, HeapConfig::new(), 500);
        assert_eq!(sim.take_misuse(), None, "a call from a wrong state");
        assert_eq!(sim.pages_in_use(), 0, "pages leaked");
        println!("ok, {} ms", since.elapsed().as_millis());
        Summary {
            passed: 1,
            ..Summary::default()
        }
    });
}

fn main() {
    let arguments = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
    let filter = Filter(arguments.collect());
    let mut all = Totals::default();
    run_all(std::env::consts::OS, OsProvider::new(), &filter, &mut all);
    for (host, policy) in [
        ("sim 4 KiB", Policy::new(PageSize::KIB_4)),
        (
            "sim 16 KiB",
            Policy::new(PageSize::KIB_16).without(Capabilities::EXEC_ONLY_WHERE_ASKED),
        ),
        ("sim 64 KiB", Policy::new(PageSize::KIB_64)),
        // What was purged may show what it was before, or is still there.
        (
            "sim old",
            Policy::new(PageSize::KIB_4).purged(Purged::ZeroOrOld),
        ),
        (
            "sim keeping",
            Policy::new(PageSize::KIB_16).purged(Purged::Kept),
        ),
        (
            "sim bare",
            Policy::new(PageSize::KIB_4).without(Capabilities::all()),
        ),
        (
            "sim strict",
            Policy::new(PageSize::KIB_4)
                .without(Capabilities::RWX | Capabilities::TOGGLE_EXEC)
                .without(Capabilities::PURGE_DUAL | Capabilities::CORE_SYNC),
        ),
    ] {
        run_simulated(host, policy, &filter, &mut all);
    }
    run_in_region(&filter, &mut all);
    run_39_bits(&filter, &mut all);
    run_long(&filter, &mut all);
    run_long_heap(&filter, &mut all);
    run_long_region(&filter, &mut all);
    for name in &all.failed {
        println!("FAILED: {name}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        all.passed,
        all.failed.len(),
        all.skipped
    );
    assert!(all.failed.is_empty(), "some cases failed");
}
