//! Host memory for emulators and JIT runtimes.
//!
//! This crate re-exports `hostmem-core`, and beside it the backend of this target:
//!
//! | feature | permits | active on |
//! |---|---|---|
//! | `linux` | `hostmem-linux` | Linux |
//! | `bsd` | `hostmem-bsd` | FreeBSD, DragonFly, OpenBSD |
//! | `netbsd` | `hostmem-netbsd` | NetBSD |
//!
//! A feature *permits* a backend and the target *activates* it, so `--all-features` builds
//! everywhere, and `--no-default-features` leaves the core for a provider of your own. The active
//! backend's provider is here by its own name and as `OsProvider`, beside it `Yield`, its strategy of
//! waiting for locks.
//!
//! On a target that has no backend, or none that is permitted, the crate still builds, as it does
//! without features: everything is there but `OsProvider` and `Yield`. Where the compiler does not
//! find these names, that is why; `docs/PORTING.md` tells how to write a provider.
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
//! use hostmem::{OsProvider, Yield, jit::{JitAllocator, JitConfig}};
//!
//! let os = OsProvider::new();
//! let jit = JitAllocator::<_, _, Yield>::new(os, os, JitConfig::new())?;
//! # #[cfg(target_arch = "x86_64")]
//! let code = [0xb8, 42, 0, 0, 0, 0xc3]; // mov eax, 42; ret
//! # #[cfg(target_arch = "aarch64")]
//! # let code = [0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6]; // mov w0, #42; ret
//! let mut span = jit.alloc(code.len())?;
//! jit.write(&mut span, 0, &code)?;
//! // SAFETY: the span holds a whole function of this type, and outlives the call.
//! let answer: extern "C" fn() -> i32 = unsafe { core::mem::transmute(span.rx().as_ptr()) };
//! assert_eq!(answer(), 42);
//! jit.release(span)?;
//! # Ok(())
//! # }
//! ```

#![no_std]

pub use hostmem_core::{arch, arena, counted, fork, jit, page, probe, provider, sync};

#[cfg(feature = "sim")]
pub use hostmem_core::sim;

#[cfg(all(feature = "linux", target_os = "linux"))]
pub use hostmem_linux::{LinuxProvider, LinuxProvider as OsProvider, Yield};

#[cfg(all(
    feature = "bsd",
    any(target_os = "freebsd", target_os = "dragonfly", target_os = "openbsd")
))]
pub use hostmem_bsd::{BsdProvider, BsdProvider as OsProvider, Yield};

#[cfg(all(feature = "netbsd", target_os = "netbsd"))]
pub use hostmem_netbsd::{NetBsdProvider, NetBsdProvider as OsProvider, Yield};

/// The example of the README, so that it keeps compiling and running.
#[cfg(all(
    doctest,
    feature = "linux",
    target_os = "linux",
    target_arch = "x86_64"
))]
#[doc = include_str!("../README.md")]
struct Readme;
