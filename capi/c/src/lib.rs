//! The C interface of hostmem: `hostmem.h` is made of this crate by cbindgen.
//!
//! | file | what it has |
//! |---|---|
//! | `status` | the status that calls return, and the details of errors |
//! | `types` | ranges, accesses, requests |
//! | `host` | what memory comes from by itself; on other systems than Linux the program sets it |
//! | `source` | where memory comes from, as a provider |
//! | `provider` | providers of the program's own |
//! | `probe`, `pages` | the probe of the host; pages, dual mappings |
//! | `jit`, `retire` | executable memory; code that waits until no thread runs it |
//! | `code` | ranges of code that the program fills by itself |
//! | `heap` | heaps, and threads' handles of them |
//! | `region`, `mmap` | addresses of the program's own; mmap's signatures |
//! | `map` | range maps |
//! | `fork` | repairs in a forked child |
//! | `object`, `abi`, `abort` | handles; values from and to C; panics |
//!
//! Comments of public items are the header's: they are written for programs in C. The conditions
//! of a call are said there in words; where they can be checked they are, and the caller gets
//! `HM_INVALID_ARGUMENT`. Beyond that every call asks that pointers are null or point to what their
//! types say, and that functions which it is given do not unwind.
//!
//! Profile `capi` builds it without the standard library. Other profiles unwind, for which it is
//! linked.
#![no_std]
#![expect(
    non_camel_case_types,
    reason = "the types have their names in C, which the header has of them"
)]
#![expect(
    clippy::missing_safety_doc,
    reason = "the comments are a C header's, where all calls ask for what the crate's say"
)]

#[cfg(not(panic = "abort"))]
extern crate std;

#[cfg(panic = "abort")]
mod abort;

mod abi;
mod code;
mod fork;
mod heap;
mod host;
mod jit;
mod map;
#[cfg(target_os = "linux")]
mod mmap;
mod object;
mod pages;
mod probe;
mod provider;
mod region;
mod retire;
mod source;
mod status;
mod types;

pub use code::*;
pub use fork::*;
pub use heap::*;
pub use host::hm_set_host;
pub use jit::*;
pub use map::*;
#[cfg(target_os = "linux")]
pub use mmap::*;
pub use pages::*;
pub use probe::*;
pub use provider::*;
pub use region::*;
pub use retire::*;
pub use source::hm_source;
pub use status::*;
pub use types::*;

/// The version of this header: major, minor and patch, eight bits each.
pub const HM_VERSION: u32 = 0x00_01_00;

/// Returns the version of the library, as `HM_VERSION` is the header's: the same major number
/// serves, of the same minor number or a greater one; before 1.0 the same minor number.
///
/// Thread-safe, and safe in signal handlers.
#[unsafe(no_mangle)]
pub extern "C" fn hm_version() -> u32 {
    HM_VERSION
}

const _: () = {
    const fn number(text: &str) -> u32 {
        let (mut n, bytes, mut at) = (0, text.as_bytes(), 0);
        while at < bytes.len() {
            n = n * 10 + (bytes[at] - b'0') as u32;
            at += 1;
        }
        n
    }
    let package = number(env!("CARGO_PKG_VERSION_MAJOR")) << 16
        | number(env!("CARGO_PKG_VERSION_MINOR")) << 8
        | number(env!("CARGO_PKG_VERSION_PATCH"));
    assert!(
        package == HM_VERSION,
        "the header's version is the package's"
    );
};
