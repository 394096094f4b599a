//! dynasm-rs assembles into hostmem memory, for the address where the code will run.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

#[path = "../../../tests/common/mod.rs"]
mod common;

use dynasmrt::{
    AssemblyOffset, DynasmApi, DynasmError, DynasmLabelApi, LabelKind, TargetKind, VecAssembler,
    components::LitPool, dynasm, relocations::RelocationSize,
};
use hostmem::{
    JitRuntime as Runtime,
    jit::{AddError, Function, JitConfig, JitError, Mapping},
};
use hostmem_dynasm::Assembler;

#[cfg(target_arch = "aarch64")]
use dynasmrt::aarch64::Aarch64Relocation as Host;
#[cfg(target_arch = "x86_64")]
use {dynasmrt::x64::X64Relocation as Host, hostmem::provider::Placement};

type Unary = extern "C" fn(u64) -> u64;

/// Runtimes whose views differ, and whose views do not.
fn runtimes() -> [Runtime; 2] {
    [Mapping::Dual, Mapping::Toggle].map(|mapping| runtime(JitConfig::new().mapping(mapping)))
}

fn runtime(config: JitConfig) -> Runtime {
    Runtime::new(config).expect("the configuration is valid")
}

fn call(runtime: &Runtime, function: &Function, argument: u64) -> u64 {
    // SAFETY: the tests add functions of this type, which do no harm, and write to no memory
    // during a call.
    unsafe { runtime.typed::<Unary>(function) }
        .expect("ours")
        .call(argument)
}

/// The sum of 1 to n, with a label of every kind.
fn assemble_sum<A: DynasmLabelApi<Relocation = Host>>(ops: &mut A, done: dynasmrt::DynamicLabel) {
    #[cfg(target_arch = "x86_64")]
    dynasm!(ops
        ; .arch x64
        ; xor eax, eax
        ; jmp >test
        ; ->body:
        ; add rax, rdi
        ; dec rdi
        ; test:
        ; test rdi, rdi
        ; jz =>done
        ; jmp ->body
        ; =>done
        ; jmp >test // the next one of that name
        ; int3
        ; test:
        ; ret
    );
    #[cfg(target_arch = "aarch64")]
    dynasm!(ops
        ; .arch aarch64
        ; mov x1, x0
        ; mov x0, #0
        ; b >test
        ; ->body:
        ; add x0, x0, x1
        ; sub x1, x1, #1
        ; test:
        ; cbz x1, =>done
        ; b ->body
        ; =>done
        ; b >test // the next one of that name
        ; brk #0
        ; test:
        ; ret
    );
}

/// A function that returns the address of its own start, which is in a table behind it.
fn assemble_own_address<A: DynasmLabelApi<Relocation = Host>>(ops: &mut A) {
    let mut pool = LitPool::new();
    pool.push_global("start", RelocationSize::QWord, false);
    #[cfg(target_arch = "x86_64")]
    dynasm!(ops
        ; .arch x64
        ; ->start:
        ; mov rax, [->table]
        ; ret
        ; .align 8
        ; ->table:
    );
    #[cfg(target_arch = "aarch64")]
    dynasm!(ops
        ; .arch aarch64
        ; ->start:
        ; ldr x0, ->table
        ; ret
        ; .align 8
        ; ->table:
    );
    pool.emit(ops);
}

fn assemble_constant<A: DynasmApi>(ops: &mut A, value: u32) {
    #[cfg(target_arch = "x86_64")]
    dynasm!(ops ; .arch x64 ; mov eax, value.cast_signed() ; ret);
    #[cfg(target_arch = "aarch64")]
    dynasm!(ops ; .arch aarch64 ; movz w0, value ; ret);
}

#[test]
fn labels_of_every_kind_are_found() {
    for runtime in runtimes() {
        let mut ops = Assembler::<Host>::new();
        let done = ops.new_dynamic_label();
        assemble_sum(&mut ops, done);
        let sum = ops.finish(&runtime).expect("assembled");
        assert_eq!(call(&runtime, &sum, 1000), 500_500);
    }
}

#[test]
fn absolute_addresses_are_those_of_the_executable_view() {
    for runtime in runtimes() {
        let mut ops = Assembler::<Host>::new();
        let functions: Vec<_> = (0..3)
            .map(|_| {
                assemble_own_address(&mut ops);
                ops.finish(&runtime).expect("assembled")
            })
            .collect();
        for function in &functions {
            let start = function.rx().addr().get() as u64;
            assert_eq!(call(&runtime, function, 0), start);
        }
    }
}

#[test]
fn one_assembler_serves_many_functions_with_several_entries() {
    let runtime = runtime(JitConfig::new());
    let mut ops = Assembler::<Host>::default();
    for value in 0..100 {
        let first = ops.new_dynamic_label();
        let second = ops.new_dynamic_label();
        dynasm!(ops ; =>first);
        assemble_constant(&mut ops, value);
        dynasm!(ops ; .align 16 ; =>second);
        assemble_constant(&mut ops, value + 1);
        let entries = [first, second].map(|l| ops.labels().resolve_dynamic(l).expect("defined"));
        assert_eq!(entries, [AssemblyOffset(0), AssemblyOffset(16)]);
        let function = ops.finish(&runtime).expect("assembled");
        assert_eq!(ops.offset(), AssemblyOffset(0));
        for (entry, returns) in entries.into_iter().zip([value, value + 1]) {
            // SAFETY: such a function begins at either label.
            let entry = unsafe { runtime.typed_at::<Unary>(&function, entry.0) };
            assert_eq!(entry.expect("inside").call(0), u64::from(returns));
        }
        if value % 2 == 0 {
            runtime.release(function).expect("ours");
        }
    }
}

#[cfg(target_arch = "x86_64")]
extern "C" fn host_triple(n: u64) -> u64 {
    n * 3
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_the_host_are_encoded_for_the_final_address() {
    let host = host_triple as *const () as usize;
    let assemble = || {
        let mut ops = Assembler::<Host>::new();
        dynasm!(ops
            ; .arch x64
            ; sub rsp, 8
            ; call extern host
            ; add rsp, 8
            ; ret
        );
        ops
    };
    let near = runtime(JitConfig::new().rx(Placement::near(host, 1 << 30)));
    let function = assemble().finish(&near).expect("in reach");
    assert_eq!(call(&near, &function, 14), 42);

    let far = host.wrapping_add(1 << 40) % (1 << 46);
    let far = runtime(JitConfig::new().rx(Placement::near(far, 1 << 30)));
    let mut ops = assemble();
    let refused = ops.finish(&far).expect_err("out of reach");
    let target = TargetKind::Value(host);
    assert_eq!(
        refused,
        AddError::FixUp(DynasmError::ImpossibleRelocation(target))
    );
    assert_eq!(far.allocator().statistics().spans, 0);
    // Refused code is forgotten.
    assemble_constant(&mut ops, 5);
    let function = ops.finish(&far).expect("assembled");
    assert_eq!(call(&far, &function, 0), 5);
}

/// Adds what `assemble` makes, which is refused, and a function with the same assembler.
fn refusal(assemble: impl FnOnce(&mut Assembler<Host>)) -> AddError<DynasmError> {
    let runtime = runtime(JitConfig::new());
    let mut ops = Assembler::<Host>::new();
    assemble(&mut ops);
    let refused = ops.finish(&runtime).expect_err("refused");
    assert_eq!(runtime.allocator().statistics().spans, 0);
    assemble_constant(&mut ops, 6);
    let function = ops.finish(&runtime).expect("assembled");
    assert_eq!(call(&runtime, &function, 0), 6);
    refused
}

#[test]
fn what_is_wrong_is_told_and_forgotten() {
    let unknown = |kind| AddError::FixUp(DynasmError::UnknownLabel(kind));
    let duplicate = |kind| AddError::FixUp(DynasmError::DuplicateLabel(kind));
    let push_address = |ops: &mut Assembler<Host>, push: fn(&mut LitPool)| {
        let mut pool = LitPool::new();
        push(&mut pool);
        pool.emit(ops);
    };
    let global = refusal(|ops| {
        push_address(ops, |pool| {
            pool.push_global("nowhere", RelocationSize::QWord, true);
        });
    });
    assert_eq!(global, unknown(LabelKind::Global("nowhere")));
    let forward = refusal(|ops| {
        push_address(ops, |pool| {
            pool.push_forward("later", RelocationSize::QWord, true);
        });
    });
    assert_eq!(forward, unknown(LabelKind::Local("later")));
    let backward = refusal(|ops| {
        push_address(ops, |pool| {
            pool.push_backward("before", RelocationSize::QWord, true);
        });
        // The first error counts.
        dynasm!(ops ; ->twice: ; ->twice:);
    });
    assert_eq!(backward, unknown(LabelKind::Local("before")));
    let twice = refusal(|ops| dynasm!(ops ; ->twice: ; ->twice:));
    assert_eq!(twice, duplicate(LabelKind::Global("twice")));
    let byte = refusal(|ops| {
        push_address(ops, |pool| {
            pool.push_relative_as_absolute(0, RelocationSize::Byte);
        });
    });
    let impossible = DynasmError::ImpossibleRelocation(TargetKind::Value(0));
    assert_eq!(byte, AddError::FixUp(impossible));
    let empty = refusal(|_| ());
    assert_eq!(empty, AddError::Jit(JitError::InvalidSize));
}

#[test]
fn an_assembler_of_dynasm_gets_the_address_it_asks_for() {
    for runtime in runtimes() {
        let function = runtime.emit(256, |bytes, rx| {
            let mut ops = VecAssembler::<Host>::new(rx.addr().get());
            assemble_own_address(&mut ops);
            let code = ops.finalize()?;
            bytes[..code.len()].copy_from_slice(&code);
            Ok::<_, DynasmError>(code.len())
        });
        let function = function.expect("assembled");
        let start = function.rx().addr().get() as u64;
        assert_eq!(call(&runtime, &function, 0), start);
        assert_eq!(function.len_bytes(), 64);
    }
}

#[test]
fn a_patch_is_encoded_for_where_it_goes() {
    for runtime in runtimes() {
        let mut ops = Assembler::<Host>::new();
        assemble_constant(&mut ops, 7);
        dynasm!(ops ; .align 64);
        assemble_constant(&mut ops, 8);
        let mut function = ops.finish(&runtime).expect("assembled");
        assemble_own_address(&mut ops);
        ops.patch(&runtime, &mut function, 64).expect("it fits");
        let start = function.rx().addr().get() as u64;
        assert_eq!(call(&runtime, &function, 0), 7);
        // SAFETY: such a function begins there.
        let second = unsafe { runtime.typed_at::<Unary>(&function, 64) };
        assert_eq!(second.expect("inside").call(0), start + 64);
        // The assembler serves for more.
        assemble_constant(&mut ops, 9);
        ops.patch(&runtime, &mut function, 0).expect("it fits");
        assert_eq!(call(&runtime, &function, 0), 9);
    }
}

#[test]
fn a_patch_that_does_not_fit_changes_nothing() {
    for runtime in runtimes() {
        let mut ops = Assembler::<Host>::new();
        assemble_constant(&mut ops, 7);
        let mut function = ops.finish(&runtime).expect("assembled");
        let len = function.len_bytes();
        for offset in [len - 1, len, len + 1, usize::MAX] {
            assemble_constant(&mut ops, 8);
            let refused = ops.patch(&runtime, &mut function, offset);
            assert_eq!(refused, Err(AddError::Jit(JitError::OutOfBounds)));
        }
        dynasm!(ops ; ->twice: ; ->twice:);
        let refused = ops.patch(&runtime, &mut function, 0);
        let twice = DynasmError::DuplicateLabel(LabelKind::Global("twice"));
        assert_eq!(refused, Err(AddError::FixUp(twice)));
        assert_eq!(call(&runtime, &function, 0), 7);
        let other = self::runtime(JitConfig::new());
        assemble_constant(&mut ops, 8);
        let refused = ops.patch(&other, &mut function, 0);
        assert_eq!(refused, Err(AddError::Jit(JitError::NotOwned)));
        assert_eq!(call(&runtime, &function, 0), 7);
    }
}
