//! cranelift-jit compiles into hostmem memory, and the functions run: arithmetic, calls, loops,
//! data.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

#[path = "../../../../tests/common/mod.rs"]
mod common;
mod compile;
mod memory;

use common::skip_emulated;
use compile::{Jit, call_of, data_address, define_add, define_sum};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, condcodes::IntCC, types::I64};
use cranelift_jit::{BranchProtection, JITMemoryKind, JITMemoryProvider};
use cranelift_module::{DataDescription, Linkage, Module, ModuleError};
use hostmem::{
    OsProvider,
    jit::Mapping,
    provider::{Capabilities, Error, ErrorKind, PageProvider},
    sim::{Calls, Faulty, Policy, Sim},
};
use hostmem_cranelift::{CraneliftConfig, CraneliftMemory};
use hostmem_test_support::{harden, isolate, maps};
use std::process::Command;

const OS: OsProvider = OsProvider::new();

/// Both ways to executable code.
const MAPPINGS: [Mapping; 2] = [Mapping::Dual, Mapping::Toggle];

/// The rights of the page at an address, and the name of its mapping.
fn page_at(address: usize) -> (String, String) {
    let mapping = maps::find(address).expect("procfs").expect("mapped");
    let right = |has, letter| if has { letter } else { '-' };
    let rights = [
        right(mapping.perms.read, 'r'),
        right(mapping.perms.write, 'w'),
        right(mapping.perms.execute, 'x'),
    ];
    (rights.iter().collect(), mapping.path)
}

fn check_that_nothing_is_writable_and_executable() {
    for mapping in maps::of_self().expect("procfs") {
        assert!(
            !(mapping.perms.write && mapping.perms.execute),
            "{mapping:?}"
        );
    }
}

/// Everything at once: arithmetic, calls, a loop, recursion, the host, data of both kinds.
fn check_everything(mut jit: Jit) {
    let add = define_add(&mut jit, "add");
    let sum = define_sum(&mut jit, add);

    let fib = jit.declare("fib", Linkage::Export, 1);
    jit.define("fib", 1, |module, f, arguments| {
        let (more, done) = (f.create_block(), f.create_block());
        f.append_block_param(done, I64);
        let n = arguments[0];
        let small = f.ins().icmp_imm_s(IntCC::SignedLessThan, n, 2);
        f.ins().brif(small, done, &[n.into()], more, &[]);
        f.switch_to_block(more);
        let before = f.ins().iadd_imm_s(n, -1);
        let before = call_of(module, f, fib, &[before]);
        let twice_before = f.ins().iadd_imm_s(n, -2);
        let twice_before = call_of(module, f, fib, &[twice_before]);
        let sum = f.ins().iadd(before, twice_before);
        f.ins().jump(done, &[sum.into()]);
        f.switch_to_block(done);
        f.block_params(done)[0]
    });

    let mut table = DataDescription::new();
    table.define([1i64, 10, 100, 1000].map(i64::to_le_bytes).concat().into());
    table.set_align(8);
    let table = jit.define_data("table", false, &table);
    let pick = jit.define("pick", 1, |module, f, arguments| {
        let start = data_address(module, f, table);
        let offset = f.ins().imul_imm_s(arguments[0], 8);
        let address = f.ins().iadd(start, offset);
        f.ins().load(I64, MemFlagsData::trusted(), address, 0)
    });

    let mut counter = DataDescription::new();
    counter.define_zeroinit(8);
    let counter = jit.define_data("counter", true, &counter);
    let count = jit.define("count", 1, |module, f, arguments| {
        let at = data_address(module, f, counter);
        let old = f.ins().load(I64, MemFlagsData::trusted(), at, 0);
        let new = f.ins().iadd(old, arguments[0]);
        f.ins().store(MemFlagsData::trusted(), new, at, 0);
        new
    });

    // A table of functions: code refers to data, which refers to code.
    let mut calls = DataDescription::new();
    calls.define_zeroinit(8);
    calls.set_align(8);
    let in_data = jit.module.declare_func_in_data(add, &mut calls);
    calls.write_function_addr(0, in_data);
    let calls = jit.define_data("calls", false, &calls);
    let signature = jit.signature(2);
    let indirect = jit.define("indirect", 2, |module, f, arguments| {
        let at = data_address(module, f, calls);
        let callee = f.ins().load(I64, MemFlagsData::trusted(), at, 0);
        let signature = f.import_signature(signature);
        let call = f.ins().call_indirect(signature, callee, arguments);
        f.inst_results(call)[0]
    });

    let triple = jit.declare("host_triple", Linkage::Import, 1);
    let host = jit.define("host", 1, |module, f, arguments| {
        call_of(module, f, triple, arguments)
    });

    jit.finalize();
    assert_eq!(jit.binary(add)(i64::MAX, 1), i64::MIN);
    assert_eq!(jit.unary(sum)(1000), 500_500);
    assert_eq!(jit.unary(fib)(20), 6765);
    assert_eq!([0, 1, 2, 3].map(|n| jit.unary(pick)(n)), [1, 10, 100, 1000]);
    assert_eq!([1, 2, 3].map(|n| jit.unary(count)(n)), [1, 3, 6]);
    assert_eq!(jit.binary(indirect)(20, 22), 42);
    assert_eq!(jit.unary(host)(14), 42);

    let (counter, len) = jit.module.get_finalized_data(counter);
    assert_eq!(len, 8);
    // SAFETY: eight bytes that only the function above writes to.
    assert_eq!(unsafe { counter.cast::<i64>().read() }, 6);
    jit.free();
}

#[test]
fn functions_and_data_work_together() {
    for mapping in MAPPINGS {
        check_everything(Jit::new(mapping));
    }
    check_everything(Jit::over(OS, CraneliftConfig::new()));
}

#[test]
fn pages_have_the_rights_that_they_need_and_no_more() {
    for (mapping, named) in [
        (Mapping::Dual, "memfd:hostmem: cranelift"),
        (Mapping::Toggle, "hostmem: cranelift"),
    ] {
        let mut jit = Jit::new(mapping);
        let add = define_add(&mut jit, "add");
        let sum = define_sum(&mut jit, add);
        let mut bytes = DataDescription::new();
        bytes.define(vec![1; 100].into());
        let constant = jit.define_data("constant", false, &bytes);
        let variable = jit.define_data("variable", true, &bytes);
        check_that_nothing_is_writable_and_executable();
        jit.finalize();
        check_that_nothing_is_writable_and_executable();
        assert_eq!(jit.unary(sum)(10), 55);
        let constant = jit.module.get_finalized_data(constant).0.addr();
        let variable = jit.module.get_finalized_data(variable).0.addr();
        for (address, rights) in [
            (jit.address(add).addr(), "r-x"),
            (jit.address(sum).addr(), "r-x"),
            (constant, "r--"),
            (variable, "rw-"),
        ] {
            assert!(
                jit.region.contains(address),
                "{address:x} in {:?}",
                jit.region
            );
            let (has, name) = page_at(address);
            assert_eq!(has, rights, "{mapping:?} {name}");
            // Anonymous memory has a name only where the kernel was built so.
            if rights == "r-x" && (mapping == Mapping::Dual || !name.is_empty()) {
                assert!(name.contains(named), "{name}");
            }
        }
        jit.free();
    }
}

#[test]
fn code_runs_while_more_is_compiled() {
    for mapping in MAPPINGS {
        let mut jit = Jit::new(mapping);
        let add = define_add(&mut jit, "add");
        let sum = define_sum(&mut jit, add);
        jit.finalize();
        let running = jit.unary(sum);
        let stop = core::sync::atomic::AtomicBool::new(false);
        let mut last = (add, jit.binary(add));
        std::thread::scope(|scope| {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(core::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(running(100), 5050);
                }
            });
            for n in 0..50 {
                let (previous, before) = last;
                let next = jit.define(&format!("next{n}"), 2, |module, f, arguments| {
                    let sum = call_of(module, f, previous, arguments);
                    f.ins().iadd_imm_s(sum, 1)
                });
                jit.finalize();
                assert_eq!(before(1, 2), 3 + n, "what was there still works");
                last = (next, jit.binary(next));
            }
            stop.store(true, core::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(last.1(0, 0), 50);
        jit.free();
    }
}

/// Runs `check` in a process of its own that may never make a page executable that was not.
fn under_mdwe(test: &str, check: impl FnOnce()) {
    if skip_emulated("has no PR_SET_MDWE") {
        return;
    }
    let start = |mut command: Command| {
        harden::mdwe_from_start(&mut command)?;
        Ok(isolate::run(&mut command))
    };
    isolate::isolated_by(test, start, check);
}

#[test]
fn dual_mappings_work_where_memory_may_not_become_executable() {
    under_mdwe(
        "dual_mappings_work_where_memory_may_not_become_executable",
        || {
            // The control: cranelift-jit's own memory does not.
            let mut theirs = cranelift_jit::ArenaMemoryProvider::new_with_size(1 << 20)
                .expect("addresses are allowed");
            theirs
                .allocate(64, 16, JITMemoryKind::Executable)
                .expect("memory is allowed");
            let refused = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
                theirs.finalize(BranchProtection::None).is_ok()
            }));
            assert!(!matches!(refused, Ok(true)), "MDWE is in force");

            check_everything(Jit::new(Mapping::Dual));
            check_everything(Jit::over(OS, CraneliftConfig::new()));
        },
    );
}

/// A provider on a simulated host, which must outlive any module.
fn simulated(policy: Policy) -> &'static Sim<OsProvider> {
    Box::leak(Box::new(Sim::new(OS, policy).expect("mapped")))
}

fn small(mapping: Mapping) -> CraneliftConfig {
    CraneliftConfig::new()
        .sizes(1 << 20, 1 << 20, 1 << 20)
        .mapping(mapping)
}

#[test]
fn a_host_without_dual_mappings_toggles_and_the_other_way_round() {
    let policy = Policy::new(OS.page_size());
    for (lacks, wanted, gets) in [
        (Capabilities::DUAL, Mapping::Auto, Ok(Mapping::Toggle)),
        (Capabilities::TOGGLE_EXEC, Mapping::Auto, Ok(Mapping::Dual)),
        (
            Capabilities::DUAL,
            Mapping::Dual,
            Err(ErrorKind::Unsupported),
        ),
        (
            Capabilities::TOGGLE_EXEC,
            Mapping::Toggle,
            Err(ErrorKind::Unsupported),
        ),
    ] {
        let sim = simulated(policy.without(lacks));
        let memory = CraneliftMemory::on(sim, small(wanted));
        let got = memory.map(|memory| memory.mapping()).map_err(Error::kind);
        assert_eq!(got, gets, "{lacks:?} {wanted:?}");
        assert_eq!(sim.take_misuse(), None);
    }
}

#[test]
fn a_host_that_refuses_dual_mappings_toggles() {
    for (mapping, works) in [(Mapping::Auto, true), (Mapping::Dual, false)] {
        let sim = simulated(Policy::new(OS.page_size()));
        let refused = Error::os(ErrorKind::Denied, libc::EACCES);
        let faulty: &'static _ = Box::leak(Box::new(Faulty::new(sim).with_error(refused)));
        faulty.only(Calls::MAP_DUAL);
        faulty.fail_randomly(1, 1);
        let mut jit = Jit::over(faulty, small(mapping));
        let add = define_add(&mut jit, "add");
        let sum = define_sum(&mut jit, add);
        match jit.module.finalize_definitions() {
            Ok(()) => {
                assert!(works);
                assert_eq!(jit.unary(sum)(100), 5050);
            }
            Err(ModuleError::Allocation { err }) => {
                assert!(!works);
                assert_eq!(err.kind(), std::io::ErrorKind::PermissionDenied);
                let cause = err.get_ref().and_then(|e| e.downcast_ref::<Error>());
                assert_eq!(cause.and_then(|e| e.errno()), Some(libc::EACCES));
            }
            Err(other) => panic!("{other}"),
        }
        assert_ne!(faulty.failures(), 0);
        jit.free();
        assert_eq!(sim.take_misuse(), None);
    }
}

#[test]
fn a_forked_child_runs_what_was_finalized_and_frees_nothing() {
    isolate::isolated(
        "a_forked_child_runs_what_was_finalized_and_frees_nothing",
        || {
            for mapping in MAPPINGS {
                let mut jit = Jit::new(mapping);
                let add = define_add(&mut jit, "add");
                let sum = define_sum(&mut jit, add);
                jit.finalize();
                let running = jit.unary(sum);
                let before = maps::of_self().expect("procfs");
                // SAFETY: one thread of this process, the harness's other one, waits.
                let pid = unsafe { libc::fork() };
                if pid == 0 {
                    let mut right = running(10) == 55;
                    jit.free();
                    right &= running(100) == 5050;
                    // SAFETY: the end of the child.
                    unsafe { libc::_exit(i32::from(!right)) };
                }
                let mut status = -1;
                // SAFETY: a child of ours, and a place for its status.
                assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
                assert_eq!(status, 0, "{mapping:?}");
                assert_eq!(running(10), 55);
                let ours = |maps: Vec<maps::Mapping>| {
                    let name = |m: &maps::Mapping| m.path.contains("hostmem: cranelift");
                    maps.into_iter().filter(name).count()
                };
                assert_eq!(ours(maps::of_self().expect("procfs")), ours(before));
                jit.free();
            }
        },
    );
}
