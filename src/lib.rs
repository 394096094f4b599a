//! Host memory for emulators and JIT runtimes.
//!
//! This crate re-exports `hostmem-core`, and beside it the backend of this target:
//!
//! | feature | permits | active on |
//! |---|---|---|
//! | `linux` | `hostmem-linux` | Linux |
//! | `bsd` | `hostmem-bsd` | FreeBSD, DragonFly, OpenBSD |
//! | `netbsd` | `hostmem-netbsd` | NetBSD |
//! | `std` | `GlobalHeap` for `#[global_allocator]`, and `std_slot!` | where a backend is |
//! | `allocator-api2` | heaps for the collections of allocator-api2 | every target |
//! | `cranelift` | the module `cranelift`: memory for cranelift-jit | Linux, FreeBSD, NetBSD |
//! | `dynasm` | the module `dynasm`: assembling with dynasm-rs | Linux, FreeBSD, NetBSD |
//!
//! A feature *permits* a backend or an adapter and the target *activates* it, so `--all-features`
//! builds everywhere, and `--no-default-features` leaves the core for a provider of your own. The
//! adapters are for x86-64 and AArch64, bring the standard library with them, and are not permitted
//! by default.
//!
//! The active backend's provider is here by its own name and as `OsProvider`, beside it `OsLock`, a
//! lock whose waiting threads sleep in the kernel.
//!
//! On a target that has no backend, or none that is permitted, the crate still builds, as it does
//! without features: everything is there but what a backend gives. A program that names
//! `OsProvider` or `OsLock` then does not compile, and the error says which feature is missing, or
//! that there is no backend; `docs/PORTING.md` tells how to write a provider.
//!
//! ```
//! # #[cfg(not(any(
//! #     all(feature = "linux", target_os = "linux"),
//! #     all(feature = "bsd", any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd")),
//! #     all(feature = "netbsd", target_os = "netbsd"),
//! # )))]
//! # fn main() {}
//! # #[cfg(any(
//! #     all(feature = "linux", target_os = "linux"),
//! #     all(feature = "bsd", any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd")),
//! #     all(feature = "netbsd", target_os = "netbsd"),
//! # ))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use hostmem::{OsProvider, OsLock, jit::{JitConfig, JitRuntime}};
//!
//! let os = OsProvider::new();
//! let runtime = JitRuntime::<_, _, OsLock>::new(os, os, JitConfig::new())?;
//! # #[cfg(target_arch = "x86_64")]
//! let code = [0xb8, 42, 0, 0, 0, 0xc3]; // mov eax, 42; ret
//! # #[cfg(target_arch = "aarch64")]
//! # let code = [0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6]; // mov w0, #42; ret
//! let function = runtime.add(&code)?;
//! // SAFETY: it is a whole function of this type, and does no harm.
//! let answer = unsafe { runtime.typed::<extern "C" fn() -> i32>(&function)? };
//! assert_eq!(answer.call(), 42);
//! runtime.release(function)?;
//! # Ok(())
//! # }
//! ```

#![no_std]

#[cfg(all(
    any(feature = "cranelift", feature = "dynasm"),
    any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"),
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
extern crate std;

pub use hostmem_core::{
    arch, arena, counted, fork, heap, jit, page, probe, provider, range_map, region, sync,
};

#[cfg(feature = "sim")]
pub use hostmem_core::sim;

cfg_select! {
    all(
        feature = "std",
        any(
            all(feature = "linux", target_os = "linux"),
            all(
                feature = "bsd",
                any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd")
            ),
            all(feature = "netbsd", target_os = "netbsd"),
        )
    ) => {
        mod at_fork;
        mod global;
        mod purger;
        mod signal_stack;
        pub use signal_stack::is_on_signal_stack;
        pub use at_fork::register_fork_child;
        pub use global::{GlobalHeap, SystemHeap, SystemSlot};
        pub use purger::{Purger, spawn_purger};
    }
    _ => {}
}

cfg_select! {
    all(feature = "linux", target_os = "linux") => {
        pub use hostmem_linux::{LinuxProvider, LinuxProvider as OsProvider, OsLock};
    }
    all(
        feature = "bsd",
        any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd")
    ) => {
        pub use hostmem_bsd::{BsdProvider, BsdProvider as OsProvider, OsLock};
    }
    all(feature = "netbsd", target_os = "netbsd") => {
        pub use hostmem_netbsd::{NetBsdProvider, NetBsdProvider as OsProvider, OsLock};
    }
    _ => {
        mod absent;
        pub use absent::{OsProvider, OsLock};
    }
}

#[cfg(all(
    feature = "cranelift",
    any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"),
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub mod cranelift;

#[cfg(all(
    feature = "dynasm",
    any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"),
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub mod dynasm;

/// The example of the README, so that it keeps compiling and running.
#[cfg(all(
    doctest,
    feature = "linux",
    target_os = "linux",
    target_arch = "x86_64"
))]
#[doc = include_str!("../README.md")]
struct Readme;
