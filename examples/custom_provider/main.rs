//! A provider of one's own: a static array as the host, and what works on it.
//!
//! ```text
//! cargo run --release --example custom_provider
//! ```
//!
//! `static_pages.rs` is the provider; it builds for machines without an operating system too.

mod static_pages;

use core::alloc::Layout;
use hostmem::{
    arena::Arena,
    counted::{Counted, Limits},
    provider::{Commit, Error, PageProvider, Place, Request},
};
use static_pages::StaticPages;

/// 4 MiB of host.
static HOST: StaticPages<1024> = StaticPages::new();

fn main() -> Result<(), Error> {
    let limits = Limits {
        memory: 256 << 10,
        ..Limits::NONE
    };
    let counted: Counted<_> = Counted::with_metadata(&HOST, "example", limits, 64 << 10)?;

    let range = counted.reserve(&Request::bytes(100_000).align(64 << 10))?;
    println!("reserved {range:?}");
    // SAFETY: reserved just now, and no other code has its address yet.
    unsafe { counted.commit(range, Commit::READ_WRITE)? };
    // SAFETY: committed just now.
    unsafe { range.start().write_bytes(0xa5, range.len_bytes()) };

    let taken = counted.reserve(&Request::bytes(1).place(Place::Exact(range.addr())));
    println!("the same place again: {}", taken.expect_err("it is in use"));
    let too_much = counted.reserve(&Request::bytes(200 << 10))?;
    // SAFETY: reserved just now, and no other code has its address yet.
    let refused = unsafe { counted.commit(too_much, Commit::READ_WRITE) };
    println!(
        "more than the limit: {}",
        refused.expect_err("the limit holds")
    );

    let arena: Arena<_> = Arena::new(&HOST, 1 << 20)?;
    let memory = arena.alloc(Layout::new::<[u64; 1000]>())?;
    println!(
        "metadata at {memory:p}, {} bytes committed",
        arena.committed_bytes()
    );

    for range in [range, too_much] {
        // SAFETY: ours, and not used any more.
        unsafe { counted.release(range)? };
    }
    println!("{}: {:?}", counted.name(), counted.counters());
    Ok(())
}
