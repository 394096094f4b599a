//! Says how the shared library is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../soname");
    // The name that programs which are linked to it look for.
    let number = include_str!("../soname").trim();
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libhostmem_malloc.so.{number}");
    // It is not unloaded: threads have its key, and programs have its blocks.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
