//! Sorts by the C library's `qsort`, with a closure that counts as its function.
//!
//! ```text
//! cargo run -p hostmem-closure-ffi --example callback
//! ```

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use closure_ffi::BareFnMut;
    use hostmem::JitConfig;
    use hostmem_closure_ffi::ClosureMemory;
    use std::ffi::{c_int, c_void};

    type Compare = unsafe extern "C" fn(*const c_void, *const c_void) -> c_int;

    unsafe extern "C" {
        fn qsort(base: *mut c_void, count: usize, size: usize, compare: Compare);
    }

    let memory = ClosureMemory::new(JitConfig::new())?;
    let mut numbers = [5_u32, 3, 9, 1];
    let mut calls = 0;
    let compare = |a: *const c_void, b: *const c_void| {
        calls += 1;
        // SAFETY: qsort passes pointers to two of the numbers.
        let a = unsafe { *a.cast::<u32>() };
        // SAFETY: the other one.
        let b = unsafe { *b.cast::<u32>() };
        a.cmp(&b) as c_int
    };
    let thunk = BareFnMut::new_c_in(compare, &memory);
    // SAFETY: as many numbers are there, and the thunk lives longer than the call.
    unsafe { qsort(numbers.as_mut_ptr().cast(), numbers.len(), 4, thunk.bare()) };
    drop(thunk);
    println!("{numbers:?} after {calls} calls");
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this example runs on Linux");
}
