//! Calls where memory is short.

use crate::code::{Jit, OS, allocator};
use hostmem::{
    OsProvider,
    jit::{JitConfig, JitError, Mapping},
    provider::{DualError, DualStep, ErrorKind},
};
use hostmem_test_support::{
    Unavailable,
    isolate::{isolated, or_skip},
    seccomp,
};
use std::{ffi::CStr, io};

/// Refuses `memfd_create`, and mounts a file system of `bytes` at `/dev/shm`, for this process
/// alone.
fn only_small_shm(bytes: usize) -> Result<(), Unavailable> {
    let refused = |e: io::Error| Unavailable::new("mounting a small file system", e);
    let call = |result: libc::c_int| match result {
        0 => Ok(()),
        _ => Err(refused(io::Error::last_os_error())),
    };
    let options = std::ffi::CString::new(format!("size={bytes}")).expect("no zero in it");
    // SAFETY: this process has one thread that looks at files.
    call(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: C strings, and pointers that may be null.
    call(unsafe { libc::mount(none, c"/".as_ptr(), none, private, none.cast()) })?;
    let (kind, at) = (c"tmpfs".as_ptr(), c"/dev/shm".as_ptr());
    // SAFETY: C strings.
    call(unsafe { libc::mount(kind, at, kind, 0, options.as_ptr().cast()) })?;
    seccomp::refuse(&[libc::SYS_memfd_create], libc::EPERM)
}

/// A provider that knows `/dev/shm` alone, when `memfd_create` is refused.
fn shm_alone() -> OsProvider {
    static NONE: &[&CStr] = &[];
    OsProvider::with_directories(NONE)
}

#[test]
fn blocks_are_halved_where_any_strategy_is_short_of_memory() {
    let test = "blocks_are_halved_where_any_strategy_is_short_of_memory";
    isolated!(test, || {
        const ROOM: usize = 8 << 20;
        if or_skip(only_small_shm(ROOM)).is_none() {
            return;
        }
        let provider = shm_alone();
        for size in [10_000, 100, 400_000] {
            let jit = Jit::on(provider, OS, JitConfig::new()).expect("it is valid");
            let mut spans = Vec::new();
            let error = loop {
                match jit.alloc(size) {
                    Ok(span) => spans.push(span),
                    Err(JitError::Map(error)) => break error,
                    Err(other) => panic!("{other}"),
                }
            };
            // What is left is less than a block that one more span would need.
            let reserved = jit.statistics().reserved;
            assert!(
                reserved + size + (8 << 10) >= ROOM,
                "{reserved} bytes for {size} each"
            );
            assert_shortage(&error);
            spans
                .into_iter()
                .for_each(|span| jit.release(span).expect("once"));
        }
        // Toggled memory comes from elsewhere, and there is enough of it: but not while dual
        // mappings can be had.
        let config = JitConfig::new().mapping(Mapping::Auto);
        let jit = Jit::on(provider, OS, config).expect("it is valid");
        let span = jit.alloc(10_000).expect("there is room again");
        assert_eq!(jit.mapping().0, Mapping::Dual);
        jit.release(span).expect("once");
        let jit = Jit::on(provider, OS, config).expect("it is valid");
        let span = jit.alloc(2 * ROOM).expect("memory that is not shared");
        let (mapping, refused) = jit.mapping();
        assert_eq!(mapping, Mapping::Toggle);
        assert_shortage(&refused.expect("it was tried"));
        jit.release(span).expect("once");
    });
}

/// One strategy was refused, and the other has no memory.
fn assert_shortage(error: &DualError) {
    let steps: Vec<_> = error.steps().map(|(step, e)| (step, e.kind())).collect();
    assert_eq!(
        steps,
        [
            (DualStep::Memfd, ErrorKind::Denied),
            (DualStep::DevShm, ErrorKind::Exhausted)
        ]
    );
    assert!(error.is_shortage(), "{error}");
    assert_eq!(error.unplaced(), None, "places there are");
}

#[test]
fn what_nobody_can_map_leaves_no_metadata() {
    isolated!("what_nobody_can_map_leaves_no_metadata", || {
        let jit = allocator(JitConfig::new());
        let small = jit.alloc(64).expect("there is memory");
        let before = jit.statistics().metadata;
        for shift in [30, 34, 40, 46, 50] {
            // Some of these can be mapped, without being touched.
            if let Ok(span) = jit.alloc(1 << shift) {
                assert!(span.len_bytes() >= 1 << shift);
                let inside = span.rx().addr().get() + (1 << (shift - 1));
                assert_eq!(jit.query(inside), Some(span.info()));
                jit.release(span).expect("once");
            }
            let metadata = jit.statistics().metadata;
            assert!(metadata <= before + (1 << 20), "2^{shift}: {metadata}");
        }
        jit.release(small).expect("once");
    });
}
