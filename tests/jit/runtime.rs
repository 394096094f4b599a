//! Functions by type on the real system: fix-ups, entries, batches, threads, failures.

use crate::{
    code::OS,
    common::{CODE_LEN, code_returning, emulated},
};
use core::{num::TryFromIntError, ptr::NonNull};
use hostmem::{
    OsLock, OsProvider,
    jit::{
        AddError, CodeProvider, Func, Function, JitConfig, JitError, JitRuntime, Mapping, Reset,
        SpanWriter,
    },
    provider::{Error, ErrorKind, PageProvider},
    sim::{Calls, Faulty, Policy, Sim},
};
use std::panic::{AssertUnwindSafe, catch_unwind};

type Runtime = JitRuntime<OsProvider, OsProvider, OsLock>;

fn runtime(config: JitConfig) -> Runtime {
    JitRuntime::on(OS, OS, config).expect("the configuration is valid")
}

/// Configurations that differ in what a fix-up writes to, and in what is left behind it.
fn configs() -> [JitConfig; 3] {
    [
        JitConfig::new(),
        JitConfig::new().granularity(16).pools(3).padding(false),
        JitConfig::new().mapping(Mapping::Toggle),
    ]
}

/// `extern "C" fn(..) -> u64` that returns the first, second or eighth of its integer arguments.
fn code_returning_argument(n: usize) -> Vec<u8> {
    let code: &[u8] = match (cfg!(target_arch = "x86_64"), n) {
        (true, 1) => &[0x48, 0x89, 0xf8, 0xc3], // mov rax, rdi; ret
        (true, 2) => &[0x48, 0x89, 0xf0, 0xc3], // mov rax, rsi; ret
        (true, _) => &[0x48, 0x8b, 0x44, 0x24, 0x10, 0xc3], // mov rax, [rsp + 16]; ret
        (false, 1) => &[0xc0, 0x03, 0x5f, 0xd6], // ret
        (false, 2) => &[0xe0, 0x03, 0x01, 0xaa, 0xc0, 0x03, 0x5f, 0xd6], // mov x0, x1; ret
        (false, _) => &[0xe0, 0x03, 0x07, 0xaa, 0xc0, 0x03, 0x5f, 0xd6], // mov x0, x7; ret
    };
    code.to_vec()
}

/// A jump whose distance is to be written by [`fix_jump`].
fn jump() -> Vec<u8> {
    if cfg!(target_arch = "x86_64") {
        vec![0xe9, 0, 0, 0, 0] // jmp rel32
    } else {
        0x1400_0000u32.to_le_bytes().to_vec() // b
    }
}

/// Makes the jump in the first bytes of `code`, which will run at `from`, one to `to`.
fn fix_jump(code: &mut [u8], from: usize, to: usize) -> Result<(), TryFromIntError> {
    let distance = i32::try_from(to.cast_signed() - from.cast_signed())?;
    if cfg!(target_arch = "x86_64") {
        code[1..5].copy_from_slice(&(distance - 5).to_le_bytes());
    } else {
        assert!(distance.unsigned_abs() < 128 << 20, "in reach of a branch");
        let jump = 0x1400_0000 | (distance >> 2).cast_unsigned() & 0x03ff_ffff;
        code[..4].copy_from_slice(&jump.to_le_bytes());
    }
    Ok(())
}

/// `extern "C" fn(n: u32) -> u32`: `at_zero` if n is 0, else what `other` says of n - 1.
fn parity(writer: &mut SpanWriter<'_>, at_zero: u32, other: NonNull<u8>) {
    let rx = writer.rx().addr().get();
    let (mut code, jump_at) = if cfg!(target_arch = "x86_64") {
        // test edi, edi; je +7; dec edi; jmp other
        let code = vec![0x85, 0xff, 0x74, 0x07, 0xff, 0xcf, 0xe9, 0, 0, 0, 0];
        (code, 6)
    } else {
        // cbz w0, +12; sub w0, w0, #1; b other
        let words = [0x3400_0060u32, 0x5100_0400, 0x1400_0000];
        (words.map(u32::to_le_bytes).concat(), 8)
    };
    fix_jump(&mut code[jump_at..], rx + jump_at, other.addr().get()).expect("in reach");
    code.extend(code_returning(at_zero));
    writer.bytes_mut()[..code.len()].copy_from_slice(&code);
    writer.shrink_to(code.len());
}

fn constant(runtime: &Runtime, value: u32) -> Function {
    runtime.add(&code_returning(value)).expect("memory")
}

/// Returns a function of [`code_returning`] to be called.
fn returning<'rt, P: CodeProvider>(
    runtime: &'rt JitRuntime<P, OsProvider, OsLock>,
    function: &'rt Function,
) -> Func<'rt, extern "C" fn() -> u32> {
    // SAFETY: such a function is there; the tests that use it do not write through a toggled
    // mapping during a call.
    unsafe { runtime.typed(function) }.expect("this runtime's")
}

#[test]
fn functions_take_and_return_what_their_type_says() {
    for config in configs() {
        let runtime = runtime(config);
        let none = constant(&runtime, 42);
        let first = runtime.add(&code_returning_argument(1)).expect("memory");
        let second = runtime.add(&code_returning_argument(2)).expect("memory");
        let eighth = runtime.add(&code_returning_argument(8)).expect("memory");
        assert_eq!(returning(&runtime, &none).call(), 42);

        // SAFETY: it takes one argument or more, and does no harm.
        let call = unsafe { runtime.typed::<extern "C" fn(u64) -> u64>(&first) };
        assert_eq!(call.expect("ours").call(1 << 63 | 7), 1 << 63 | 7);

        // SAFETY: a pointer is passed as an integer is.
        let call = unsafe { runtime.typed::<extern "C" fn(*const u8) -> *const u8>(&first) };
        let data = [1, 2];
        assert_eq!(call.expect("ours").call(data.as_ptr()), data.as_ptr());

        // SAFETY: it takes two integers, and asks nothing of its callers.
        let call = unsafe { runtime.typed::<unsafe extern "C" fn(u64, u64) -> u64>(&second) };
        let call = call.expect("ours");
        // SAFETY: it asks nothing of its callers.
        assert_eq!(unsafe { call.call(1, 2) }, 2);

        type Eight = extern "C" fn(u64, u64, u64, u64, u64, u64, u64, u64) -> u64;
        // SAFETY: it takes eight integers, and asks nothing of its callers.
        let call = unsafe { runtime.typed::<Eight>(&eighth) }.expect("ours");
        assert_eq!(call.call(1, 2, 3, 4, 5, 6, 7, 8), 8);
        // SAFETY: called before the function goes.
        let pointer = unsafe { call.get() };
        assert_eq!(pointer as usize, eighth.rx().addr().get());
        assert_eq!(pointer(1, 2, 3, 4, 5, 6, 7, 9), 9);

        for function in [none, first, second, eighth] {
            runtime.release(function).expect("ours");
        }
        assert_eq!(runtime.allocator().statistics().spans, 0);
    }
}

#[test]
fn a_fix_up_learns_both_addresses() {
    for config in configs() {
        let runtime = runtime(config);
        let callee = constant(&runtime, 4711);
        let to = callee.rx().addr().get();
        let mut seen = None;
        let caller = runtime
            .add_with(&jump(), |code, rx| {
                assert_eq!(code, jump(), "the code, and not a byte more");
                seen = Some((code.as_ptr().addr(), rx.addr().get()));
                fix_jump(code, rx.addr().get(), to)
            })
            .expect("memory, and in reach");
        let (rw, rx) = seen.expect("it ran");
        assert_eq!(rx, caller.rx().addr().get());
        let info = runtime.allocator().query(rx).expect("live");
        assert_eq!(info.rw.addr().get(), rw);
        let toggled = runtime.allocator().mapping().0 == Mapping::Toggle;
        assert_eq!(rx == rw, toggled);
        assert_eq!(returning(&runtime, &caller).call(), 4711);
    }
}

extern "C" fn host_function(n: u64) -> u64 {
    n * 3
}

#[test]
fn a_fix_up_reaches_functions_of_the_host() {
    let runtime = runtime(JitConfig::new());
    let (code, at) = if cfg!(target_arch = "x86_64") {
        // movabs rax, 0; jmp rax
        (vec![0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0], 2)
    } else {
        // ldr x16, #8; br x16; .quad 0
        let mut code = [0x5800_0050u32, 0xd61f_0200].map(u32::to_le_bytes).concat();
        code.extend([0; 8]);
        (code, 8)
    };
    let caller = runtime.add_with(&code, |code, _| {
        let to = host_function as *const () as u64;
        code[at..at + 8].copy_from_slice(&to.to_le_bytes());
        Ok::<(), JitError>(())
    });
    let caller = caller.expect("memory");
    // SAFETY: it jumps to a function of this type, which outlives everything.
    let call = unsafe { runtime.typed::<extern "C" fn(u64) -> u64>(&caller) };
    assert_eq!(call.expect("ours").call(14), 42);
}

#[test]
fn what_a_fix_up_refuses_leaves_nothing_behind() {
    for config in configs() {
        let runtime = runtime(config);
        let refused = runtime.add_with(&code_returning(1), |_, _| Err("out of reach"));
        assert_eq!(
            refused.expect_err("refused"),
            AddError::FixUp("out of reach")
        );
        let empty = runtime.add(&[]).expect_err("no code");
        assert_eq!(empty, JitError::InvalidSize);
        let none = runtime.emit(64, |_, _| Ok::<_, ()>(0)).expect_err("none");
        assert_eq!(none, AddError::Jit(JitError::InvalidSize));
        let more = runtime.emit(64, |_, _| Ok::<_, ()>(65)).expect_err("more");
        assert_eq!(more, AddError::Jit(JitError::OutOfBounds));
        assert_eq!(runtime.allocator().statistics().spans, 0);
    }
}

#[test]
fn a_fix_up_that_panics_leaves_a_working_runtime() {
    for config in configs() {
        let runtime = runtime(config);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            runtime.add_with::<()>(&code_returning(1), |_, _| panic!("on purpose"))
        }));
        assert!(panicked.is_err());
        let function = constant(&runtime, 2);
        assert_eq!(returning(&runtime, &function).call(), 2);
    }
}

#[test]
fn emitting_keeps_what_was_used_and_no_more() {
    for config in configs() {
        let granule = config.granularity_bytes();
        let runtime = runtime(config);
        let capacity = 20 * granule + 1;
        let function = runtime.emit(capacity, |bytes, _| {
            assert_eq!(bytes.len(), capacity);
            bytes[..CODE_LEN].copy_from_slice(&code_returning(9));
            Ok::<_, ()>(CODE_LEN)
        });
        let function = function.expect("memory");
        assert_eq!(function.len_bytes(), granule);
        assert_eq!(runtime.allocator().statistics().used, granule);
        assert_eq!(returning(&runtime, &function).call(), 9);
    }
}

#[test]
fn a_function_has_as_many_entries_as_it_has_bytes() {
    let runtime = runtime(JitConfig::new());
    let two = [code_returning(1), code_returning(2)].concat();
    let function = runtime.add(&two).expect("memory");
    type Entry = extern "C" fn() -> u32;
    for (n, offset) in [(1, 0), (2, CODE_LEN)] {
        // SAFETY: such a function begins there.
        let entry = unsafe { runtime.typed_at::<Entry>(&function, offset) };
        assert_eq!(entry.expect("inside").call(), n);
    }
    // SAFETY: refused, so nothing is called.
    let outside = unsafe { runtime.typed_at::<Entry>(&function, function.len_bytes()) };
    assert_eq!(outside.expect_err("outside"), JitError::OutOfBounds);
}

#[test]
fn a_runtime_refuses_what_is_not_its_own() {
    let (one, other) = (runtime(JitConfig::new()), runtime(JitConfig::new()));
    let function = constant(&one, 1);
    type Entry = extern "C" fn() -> u32;
    // SAFETY: refused, so nothing is called.
    let foreign = unsafe { other.typed::<Entry>(&function) };
    assert_eq!(foreign.expect_err("foreign"), JitError::NotOwned);
    let refused = other.release(function).expect_err("foreign");
    assert_eq!(refused.error, JitError::NotOwned);
    assert_eq!(returning(&one, &refused.function).call(), 1);
    // SAFETY: no thread calls it any more.
    unsafe { one.allocator().reset(Reset::Soft) };
    // SAFETY: refused, so nothing is called.
    let gone = unsafe { one.typed::<Entry>(&refused.function) };
    assert_eq!(gone.expect_err("gone"), JitError::NotOwned);
}

#[test]
fn a_batch_publishes_functions_that_call_each_other() {
    for config in configs() {
        let runtime = runtime(config);
        let jit = runtime.allocator();
        let (mut even, mut odd) = (
            jit.alloc(64).expect("memory"),
            jit.alloc(64).expect("memory"),
        );
        let (at_even, at_odd) = (even.rx(), odd.rx());
        let mut batch = jit.batch();
        let written = batch.write_with(&mut even, |writer| parity(writer, 1, at_odd));
        written.expect("ours");
        let written = batch.write_with(&mut odd, |writer| parity(writer, 0, at_even));
        written.expect("ours");
        batch.finish().expect("synchronized");
        let even = Function::from(even);
        // SAFETY: it is one, and what it jumps to lives as long.
        let is_even = unsafe { runtime.typed::<extern "C" fn(u32) -> u32>(&even) };
        let is_even = is_even.expect("ours");
        for n in 0..100 {
            assert_eq!(is_even.call(n) == 1, n % 2 == 0, "{n}");
        }
        runtime.release(even).expect("ours");
        runtime.release(odd.into()).expect("ours");
    }
}

#[test]
fn a_function_can_be_rewritten_between_calls() {
    for config in configs() {
        let runtime = runtime(config);
        let mut function = constant(&runtime, 0);
        for value in 1..20 {
            let span = function.span_mut();
            let written = runtime.allocator().write(span, 0, &code_returning(value));
            written.expect("ours");
            assert_eq!(returning(&runtime, &function).call(), value);
        }
    }
}

#[test]
fn threads_call_while_others_add_and_release() {
    const THREADS: u32 = 4;
    let rounds = if emulated() { 200 } else { 5_000 };
    let runtime = &runtime(JitConfig::new());
    let shared = &constant(runtime, 7);
    let call_shared = returning(runtime, shared);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for round in 0..rounds {
                    let value = (round * THREADS + thread) % 65_536;
                    let own = constant(runtime, value);
                    assert_eq!(returning(runtime, &own).call(), value);
                    assert_eq!(call_shared.call(), 7);
                    runtime.release(own).expect("ours");
                }
            });
        }
    });
    assert_eq!(runtime.allocator().statistics().spans, 1);
}

/// Adds, fixes up and calls, which takes calls of all kinds to the provider.
fn script(runtime: &JitRuntime<&Faulty<&Sim<OsProvider>>, OsProvider, OsLock>) -> Vec<JitError> {
    let mut errors = Vec::new();
    // Twice, so that code is written where code was before.
    for value in 0..2 {
        let added = runtime.add_with(&code_returning(0), |code, _| {
            code.copy_from_slice(&code_returning(value));
            Ok::<(), JitError>(())
        });
        match added {
            Ok(function) => {
                assert_eq!(returning(runtime, &function).call(), value);
                runtime.release(function).expect("ours");
            }
            Err(AddError::Jit(error)) => errors.push(error),
            Err(AddError::FixUp(never)) => panic!("the fix-up succeeds: {never}"),
        }
        assert_eq!(runtime.allocator().statistics().spans, 0, "nothing leaks");
    }
    errors
}

#[test]
fn every_call_to_the_provider_may_fail() {
    for (mapping, calls) in [
        (Mapping::Dual, Calls::MAP_DUAL | Calls::SYNC_CORES),
        (
            Mapping::Toggle,
            Calls::RESERVE | Calls::COMMIT | Calls::PROTECT | Calls::SYNC_CORES,
        ),
    ] {
        let mut failed = 0;
        for n in 0.. {
            let sim = Sim::new(OS, Policy::new(OS.page_size())).expect("mapped");
            // Not for want of memory, of which less would be tried next.
            let refused = Error::os(ErrorKind::Denied, libc::EPERM);
            let faulty = Faulty::new(&sim).with_error(refused);
            let config = JitConfig::new().mapping(mapping);
            let runtime = JitRuntime::on(&faulty, OS, config).expect("valid");
            faulty.only(calls);
            faulty.fail_nth(n);
            let errors = script(&runtime);
            if faulty.failures() == 0 {
                assert!(errors.is_empty(), "{errors:?}");
                break;
            }
            assert_eq!(errors.len(), 1, "call {n}: {errors:?}");
            assert!(
                matches!(
                    errors[0],
                    JitError::Map(_) | JitError::Protect(_) | JitError::SyncCores(_)
                ),
                "{errors:?}"
            );
            failed += 1;
        }
        assert!(failed >= 2, "{mapping:?}: only {failed} calls were made");
    }
}
