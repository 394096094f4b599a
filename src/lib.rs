//! Host memory for emulators and JIT runtimes.
//!
//! The types of the root are made by a configuration alone: [`Heap`], [`JitAllocator`],
//! [`JitRuntime`], [`RegionAllocator`], [`RangeMap`]. They have the provider and the lock of this
//! target filled in. Those of [`generic`] take a provider of yours; those of the modules are what
//! both are made of.
//!
//! ```
//! # #[cfg(not(all(feature = "linux", target_os = "linux")))]
//! # fn main() {}
//! # #[cfg(all(feature = "linux", target_os = "linux"))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use hostmem::{Func, JitConfig, JitRuntime};
//!
//! let runtime = JitRuntime::new(JitConfig::new())?;
//! # #[cfg(target_arch = "x86_64")]
//! let code = [0xb8, 42, 0, 0, 0, 0xc3]; // x86-64: mov eax, 42; ret
//! # #[cfg(target_arch = "aarch64")]
//! # let code = [0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6]; // mov w0, #42; ret
//! let function = runtime.add(&code)?;
//! // SAFETY: it is a whole function of this type, and does no harm.
//! let answer: Func<'_, extern "C" fn() -> i32> = unsafe { runtime.typed(&function)? };
//! assert_eq!(answer.call(), 42);
//! runtime.release(function)?;
//! # Ok(())
//! # }
//! ```
//!
//! | you want | use |
//! |---|---|
//! | all of a program's memory from this heap | [`GlobalHeap`] |
//! | a heap that is a value, one of several | [`Heap::new`](heap::Heap::new) |
//! | a heap below 4 GiB, which a 32-bit guest can see | [`low_heap`] |
//! | a heap in a static, which opens itself at the first call | [`global_heap!`] |
//! | everything above an address for the host | [`region_above`]; [`StaticRegion`] in a static |
//! | a heap, or code, in there | [`RegionHeap`], [`generic::JitRuntime`] |
//! | functions from bytes | [`JitRuntime`] |
//! | functions that are replaced while they run | [`FuncCell`] |
//! | to know what lies where | [`RangeMap`] |
//!
//! # Features
//!
//! | feature | permits | active on |
//! |---|---|---|
//! | `linux` (default) | `hostmem-linux` | Linux |
//! | `bsd` (default) | `hostmem-bsd` | FreeBSD, DragonFly, OpenBSD |
//! | `netbsd` (default) | `hostmem-netbsd` | NetBSD |
//! | `std` (default) | `GlobalHeap`, `global_heap!`, `std_slot!` | where a backend is |
//! | `sim` | a simulated provider and a fault injector, for tests | every target |
//! | `allocator-api2` | heaps for the collections of allocator-api2 | every target |
//!
//! A feature *permits* a backend and the target *activates* it, so `--all-features` builds
//! everywhere, and `--no-default-features` leaves the core for a provider of your own.
//!
//! The active backend's provider is here by its own name and as `OsProvider`, beside it `OsLock`, a
//! lock whose waiting threads sleep in the kernel.
//!
//! On a target that has no backend, or none that is permitted, the crate still builds, as it does
//! without features: everything is there but what a backend gives. A program that names
//! `OsProvider` or `OsLock`, or `GlobalHeap` without the feature `std`, then does not compile, and
//! the error says which feature is missing, or that there is no backend; `docs/PORTING.md` tells
//! how to write a provider.
//!
//! Memory for cranelift-jit and an assembler for dynasm-rs are crates of their own,
//! `hostmem-cranelift` and `hostmem-dynasm`.

#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use hostmem_core::ConfigError;
pub use hostmem_core::{
    arch, arena, counted, fork, heap, jit, page, probe, provider, range_map, region, sync,
};
#[doc(no_inline)]
pub use hostmem_core::{
    heap::HeapConfig,
    jit::{CodeRangeConfig, Func, Function, JitConfig, RetireConfig},
    region::RegionConfig,
};

#[cfg(feature = "sim")]
#[cfg_attr(docsrs, doc(cfg(feature = "sim")))]
pub use hostmem_core::sim;

pub mod generic;

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
        pub use absent::{
            CodeRange, FuncCell, GlobalHeap, Heap, JitAllocator, JitRuntime, LocalHeap, LowHeap,
            OsLock, OsProvider, RangeMap, RegionAllocator, RegionHeap, RetireQueue,
        };
    }
}

// What needs a backend, and what needs the standard library beside it.
cfg_select! {
    any(
        all(feature = "linux", target_os = "linux"),
        all(
            feature = "bsd",
            any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd")
        ),
        all(feature = "netbsd", target_os = "netbsd"),
    ) => {
        mod names;
        mod place;
        mod static_region;
        pub use names::{
            CodeRange, FuncCell, Heap, JitAllocator, JitRuntime, LocalHeap, LowHeap, RangeMap,
            RegionAllocator, RegionHeap, RetireQueue,
        };
        pub use place::{adopt_claim, adopt_claim_into, low_heap, region_above};
        pub use static_region::StaticRegion;

        cfg_select! {
            feature = "std" => {
                mod at_fork;
                mod global;
                mod purger;
                mod signals;
                #[cfg_attr(docsrs, doc(cfg(feature = "std")))]
                pub use at_fork::register_fork_child;
                #[cfg_attr(docsrs, doc(cfg(feature = "std")))]
                pub use global::{GlobalHeap, SystemHeap, SystemSlot};
                #[doc(hidden)]
                pub use global::HeapTypes;
                #[cfg_attr(docsrs, doc(cfg(feature = "std")))]
                pub use purger::{Purger, spawn_purger};
                #[cfg_attr(docsrs, doc(cfg(feature = "std")))]
                pub use signals::{is_on_signal_stack, without_signals};
            }
            _ => {
                mod absent_std;
                pub use absent_std::GlobalHeap;
            }
        }

        mod lock {
            pub(crate) type Lock = crate::OsLock;
        }
    }
    _ => {
        mod lock {
            pub(crate) type Lock = crate::sync::Spin;
        }
    }
}

/// The examples of the README, so that they keep compiling and running.
#[cfg(all(
    doctest,
    feature = "linux",
    feature = "std",
    target_os = "linux",
    target_arch = "x86_64"
))]
#[doc = include_str!("../README.md")]
struct Readme;
