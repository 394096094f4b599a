//! Memory for [cranelift-jit](https://docs.rs/cranelift-jit) on [hostmem], on Linux, FreeBSD and
//! NetBSD.
//!
//! [`CraneliftMemory`] is a [`JITMemoryProvider`]. That trait has one address for everything:
//! cranelift-jit writes a function there, relocates it for that address, and runs it there after
//! `finalize`. A writable view elsewhere, as the [JIT allocator](hostmem::jit) has, does not fit,
//! so the memory changes at one address instead, once and for good:
//!
//! ```text
//!    one reservation, less than 2 GiB: relative addresses reach from everywhere to everywhere
//!   ┌──────────────────────────┬──────────────────────────┬──────────────────────────┐
//!   │ code ─►                  │ read-only data ─►        │ writable data ─►         │
//!   └──────────────────────────┴──────────────────────────┴──────────────────────────┘
//!    allocate:  read/write          read/write                read/write
//!    finalize:  read/exec           read                      read/write
//! ```
//!
//! What `finalize` does to the pages of code depends on [`Mapping`]. With dual mappings it puts the
//! executable view of new pages in their place and copies their contents through the writable view:
//! no page ever gains the right to be executed, which hardened hosts refuse (`PaX MPROTECT`, MDWE),
//! and which is what one wants of a dual mapping. Toggling takes the right to write from the pages
//! and gives them the right to be executed; it never takes that back. Neither way is anything
//! writable and executable at once, and code that runs never changes, so that threads may run some
//! of it while more is compiled. The price is that each `finalize` begins new pages; small
//! functions that come one by one are better off in a [`JitRuntime`](hostmem::JitRuntime).
//!
//! The major version of this crate follows `cranelift-jit`, whose types it names; that of `hostmem`
//! does not.
#![cfg(all(
    any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"),
    any(target_arch = "x86_64", target_arch = "aarch64")
))]

mod config;
mod part;
mod seal;

pub use config::CraneliftConfig;

use cranelift_jit::{BranchProtection, JITMemoryKind, JITMemoryProvider};
use cranelift_module::{ModuleError, ModuleResult};
use hostmem::{
    OsProvider, arch,
    jit::Mapping,
    page::PageRange,
    provider::{
        DualMapProvider, DualMapping, Error, ErrorKind, Fork, Leave, PageProvider, Request,
    },
};
use part::Part;
use seal::Way;
use std::{ffi::CStr, fmt, io, mem, process};

/// The name of the memory in the process map, where the host keeps names.
const NAME: &CStr = c"hostmem: cranelift";

/// The fork policy of code: in a forked child it still runs, and is not written to any more.
const FORK: Fork = Fork::ChildLosesRw;

/// Memory from `P` for a `JITModule`, handed to it by `JITBuilder::memory_provider`; from the
/// system if nothing else is said.
///
/// As cranelift-jit has it, pointers to functions and data stay valid until
/// `JITModule::free_memory`: memory that was finalized is leaked when this is dropped, and memory
/// that never was is given back.
///
/// A forked child may run what was finalized before, and may compile more; `free_memory` gives
/// nothing back there.
pub struct CraneliftMemory<P: PageProvider + DualMapProvider = OsProvider> {
    provider: P,
    /// The process that this was made in.
    process: u32,
    way: Way,
    /// All addresses; `None` where they are given back, or no longer this memory's.
    region: Option<PageRange>,
    code: Part,
    read_only: Part,
    writable: Part,
    /// The contents of the sealed pages of code.
    mappings: Vec<DualMapping>,
    finalized: bool,
}

impl CraneliftMemory {
    /// Reserves addresses of the system for a module.
    ///
    /// # Errors
    ///
    /// The errors of [`CraneliftMemory::on`].
    pub fn new(config: CraneliftConfig) -> Result<Self, Error> {
        Self::on(OsProvider::new(), config)
    }
}

impl<P: PageProvider + DualMapProvider> CraneliftMemory<P> {
    /// Reserves addresses of `provider` for a module: of a [`Within`](hostmem::provider::Within)
    /// for instance, or of a region.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidArgument`] for parts of no bytes, or of 2 GiB and more together, and for
    /// [`Mapping::ReadWriteExec`]; [`ErrorKind::Unsupported`] where the provider has no such
    /// mappings, and on a CPU without known cache maintenance; and what [`PageProvider::reserve`]
    /// says.
    pub fn on(provider: P, config: CraneliftConfig) -> Result<Self, Error> {
        let page = provider.page_size();
        let [code, read_only, writable] = config.parts(page).ok_or(ErrorKind::InvalidArgument)?;
        let way = Way::choose(config.mapping_wanted(), provider.capabilities())?;
        if !arch::SUPPORTED {
            return Err(ErrorKind::Unsupported.into());
        }
        let request = Request::bytes(code + read_only + writable)
            .placement(config.placement_wanted())
            .name(NAME);
        let region = provider.reserve(&request)?;
        let part = |offset, len| {
            let range = region.part(offset, len, page);
            range.map(Part::new).ok_or(ErrorKind::Other)
        };
        Ok(Self {
            code: part(0, code)?,
            read_only: part(code, read_only)?,
            writable: part(code + read_only, writable)?,
            process: process::id(),
            way,
            region: Some(region),
            mappings: Vec::new(),
            finalized: false,
            provider,
        })
    }

    /// Returns the addresses of all code and data, known before the first function is compiled;
    /// none where they are given back.
    #[must_use]
    pub const fn region(&self) -> Option<PageRange> {
        self.region
    }

    /// Returns how code is mapped: what was asked for, or what [`Mapping::Auto`] has come to.
    #[must_use]
    pub const fn mapping(&self) -> Mapping {
        self.way.mapping()
    }

    /// Gives everything back, unless that would take something from somebody else.
    ///
    /// # Safety
    ///
    /// No other code uses any of the memory any more.
    unsafe fn free(&mut self) {
        // A child has no writable views: what lies at their addresses is not this memory's.
        if self.process != process::id() {
            return;
        }
        // The rest happens once, and memory leaks where it fails.
        let Some(region) = self.region.take() else {
            return;
        };
        for mapping in mem::take(&mut self.mappings) {
            let rw = mapping.rw();
            // SAFETY: the mapping came from this provider, and no other code uses any of the
            // memory, by this function's condition.
            if unsafe { self.provider.unmap_dual(mapping, Leave::Reserved) }.is_err() {
                return;
            }
            // SAFETY: a reservation of ours since the line above. A failure wastes addresses.
            let _ = unsafe { self.provider.release(rw) };
        }
        // SAFETY: reserved from this provider, no view lies in it any more, and no other code uses
        // it.
        let _ = unsafe { self.provider.release(region) };
    }
}

impl<P: PageProvider + DualMapProvider> JITMemoryProvider for CraneliftMemory<P> {
    fn allocate(&mut self, size: usize, align: u64, kind: JITMemoryKind) -> io::Result<*mut u8> {
        if self.region.is_none() {
            return Err(io_error(ErrorKind::RangeLost.into()));
        }
        let (part, how) = match kind {
            JITMemoryKind::Executable => (&mut self.code, self.way.commit()),
            JITMemoryKind::ReadOnly => (&mut self.read_only, seal::DATA),
            JITMemoryKind::Writable => (&mut self.writable, seal::DATA),
        };
        let start = part.allocate(&self.provider, size, align, how);
        start.map(|start| start.as_ptr()).map_err(io_error)
    }

    unsafe fn free_memory(&mut self) {
        // SAFETY: no function or datum of the module is used any more, by the contract of
        // `JITModule::free_memory`.
        unsafe { self.free() };
    }

    fn finalize(&mut self, branch_protection: BranchProtection) -> ModuleResult<()> {
        self.finalized = true;
        self.seal(branch_protection == BranchProtection::BTI)
            .map_err(|error| ModuleError::Allocation {
                err: io_error(error),
            })
    }
}

impl<P: PageProvider + DualMapProvider> Drop for CraneliftMemory<P> {
    fn drop(&mut self) {
        if !self.finalized {
            // SAFETY: cranelift-jit gives out pointers to what was finalized only.
            unsafe { self.free() };
        }
    }
}

impl<P: PageProvider + DualMapProvider> fmt::Debug for CraneliftMemory<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CraneliftMemory")
            .field("region", &self.region)
            .field("mapping", &self.mapping())
            .finish_non_exhaustive()
    }
}

/// Wraps an error of the seam, which stays inside as the source.
fn io_error(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::Exhausted => io::ErrorKind::OutOfMemory,
        ErrorKind::Denied => io::ErrorKind::PermissionDenied,
        ErrorKind::Unsupported => io::ErrorKind::Unsupported,
        ErrorKind::InvalidArgument => io::ErrorKind::InvalidInput,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// The example of the README, so that it keeps compiling and running.
#[cfg(all(doctest, target_os = "linux"))]
#[doc = include_str!("../README.md")]
struct Readme;
