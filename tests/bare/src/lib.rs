//! The core on pages of a static array, as firmware or a kernel would use it.
//!
//! A `staticlib`, which is only made where nothing is missing: neither `std` nor an allocator.

#![no_std]

#[path = "../../../examples/custom_provider/static_pages.rs"]
mod static_pages;

use core::{alloc::Layout, panic::PanicInfo};
use hostmem_core::{
    arena::Arena,
    counted::{Counted, Limits},
    page::PageSize,
    provider::{Commit, Error, ErrorKind, PageProvider, Request},
    sim::{Faulty, Policy, Sim},
};
use static_pages::StaticPages;

static HOST: StaticPages<1024> = StaticPages::new();

/// Runs everything that works without an operating system; zero if all is well.
#[unsafe(no_mangle)]
pub extern "C" fn hostmem_bare_check() -> i32 {
    i32::from(check().is_err())
}

fn check() -> Result<(), Error> {
    let sim = Sim::new(&HOST, Policy::new(PageSize::KIB_16).space(1 << 20))?;
    let faulty = Faulty::new(&sim);
    let counted: Counted<_> = Counted::with_metadata(&faulty, "bare", Limits::NONE, 64 << 10)?;
    let range = counted.reserve(&Request::bytes(1 << 16))?;
    // SAFETY: reserved just now, and no other code has its address yet.
    unsafe { counted.commit(range, Commit::READ_WRITE)? };
    let arena: Arena<_> = Arena::new(&HOST, 1 << 20)?;
    arena.alloc(Layout::new::<u64>())?;
    // SAFETY: ours, and not used any more.
    unsafe { counted.release(range)? };
    match sim.take_misuse() {
        None => Ok(()),
        Some(_) => Err(ErrorKind::Other.into()),
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
