//! Says how the shared library is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The name that programs which are linked to it look for.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libhostmem_malloc.so.0");
    // It is not unloaded: threads have its key, and programs have its blocks.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
