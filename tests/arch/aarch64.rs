//! AArch64: rewritten code is seen where the caches were maintained, and only there; landing pads.

use crate::common::{CODE_LEN, call, code_returning, map_dual, unmap_dual, write_code};
use hostmem::{
    OsLock, OsProvider,
    jit::{JitAllocator, JitConfig, JitError},
    provider::{Capabilities, PageProvider},
};
use hostmem_test_support::isolate::skip;

const OS: OsProvider = OsProvider::new();
const ROUNDS: u32 = 1000;

#[test]
fn code_rewritten_and_published_is_always_fresh() {
    let mapping = map_dual(&OS);
    for value in 0..ROUNDS {
        // Within one line of the caches, across two, and on the second page.
        for offset in [0, 60, 4096] {
            // SAFETY: two pages, and ours alone.
            unsafe { write_code(&mapping, offset, value) };
            // SAFETY: published just now.
            let got = unsafe { call(mapping.rx().start().as_ptr().wrapping_add(offset)) };
            assert_eq!(got, value, "at offset {offset}");
        }
    }
    unmap_dual(&OS, mapping);
}

#[test]
fn code_rewritten_through_the_allocator_is_always_fresh() {
    let jit = JitAllocator::<_, _, OsLock>::on(OS, OS, JitConfig::new()).expect("valid");
    let mut span = jit.alloc(CODE_LEN).expect("a strategy works");
    for value in 0..ROUNDS {
        jit.write(&mut span, 0, &code_returning(value))
            .expect("the span is ours");
        // SAFETY: published just now.
        assert_eq!(unsafe { call(span.rx().as_ptr()) }, value);
    }
    jit.release(span).expect("released once");
}

/// The control of the tests above: without maintenance the machine does run stale code.
#[test]
fn code_rewritten_and_not_published_is_stale() {
    let mapping = map_dual(&OS);
    let mut stale = 0;
    for value in 0..ROUNDS {
        // SAFETY: ours alone, and long enough.
        unsafe { mapping.rw().start().cast().write(code_returning(value)) };
        // SAFETY: a whole function: this one, or the one before it.
        let got = unsafe { call(mapping.rx().start().as_ptr()) };
        stale += u32::from(got != value);
    }
    unmap_dual(&OS, mapping);
    if stale == 0 {
        // Caches that need no maintenance (CTR_EL0.IDC and DIC) are allowed, but not under qemu,
        // where this control is what makes the other tests mean something.
        assert!(
            !crate::common::emulated(),
            "an emulator that runs no stale code proves nothing"
        );
        skip("this CPU ran no stale code, so the control says nothing here");
    }
}

/// Code that begins with `bti c`, and returns a value.
fn landing(value: u32) -> [u8; 4 + CODE_LEN] {
    let mut code = [0; 4 + CODE_LEN];
    code[..4].copy_from_slice(&0xd503_245fu32.to_le_bytes());
    code[4..].copy_from_slice(&code_returning(value));
    code
}

#[test]
fn guarded_pages_run_code_with_landing_pads_and_refuse_code_without() {
    let config = JitConfig::new().landing_pads(true);
    let jit = JitAllocator::<_, _, OsLock>::on(OS, OS, config);
    if !OS.capabilities().contains(Capabilities::LANDING_PADS) {
        assert_eq!(
            jit.map(drop).expect_err("not silently without"),
            JitError::Unsupported
        );
        skip("this host has no guarded pages");
        return;
    }
    let jit = jit.expect("valid");
    let mut with = jit.alloc(64).expect("a strategy works");
    jit.write(&mut with, 0, &landing(77))
        .expect("the span is ours");
    // SAFETY: published just now.
    assert_eq!(unsafe { call(with.rx().as_ptr()) }, 77);
    let mut without = jit.alloc(64).expect("a strategy works");
    jit.write(&mut without, 0, &code_returning(78))
        .expect("the span is ours");
    // SAFETY: the child makes one call and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: this is to fault.
        let value = unsafe { call(without.rx().as_ptr()) };
        // SAFETY: always allowed.
        unsafe { libc::_exit(i32::from(value == 78)) };
    }
    let mut status = 0;
    // SAFETY: status is a live int.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(
        libc::WIFSIGNALED(status),
        "the call went through: status {status:#x}"
    );
    assert_eq!(libc::WTERMSIG(status), libc::SIGILL);
    for span in [with, without] {
        jit.release(span).expect("released once");
    }
}
