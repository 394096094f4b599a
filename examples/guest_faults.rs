//! A range map of a guest's memory that a SIGSEGV handler asks: its queries take no lock.
//!
//! ```text
//! cargo run --release --example guest_faults
//! ```

use hostmem::{RangeMap, page::AddressRange, page::PageSize};
use std::{mem, ptr, sync::OnceLock};

static GUEST: OnceLock<RangeMap<u32>> = OnceLock::new();

extern "C" fn on_fault(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives the handler what it knows of the fault.
    let info = unsafe { &*info };
    // SAFETY: SIGSEGV has an address.
    let addr = unsafe { info.si_addr() }.addr();
    let known = GUEST.get().and_then(|map| map.query(addr));
    // SAFETY: `_exit` may be called in a handler.
    unsafe { libc::_exit(known.map_or(1, |(_, value)| value.cast_signed())) }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let map = RangeMap::new(AddressRange::LOW_4G, PageSize::KIB_4, 16 << 20)?;
    map.insert_new(AddressRange::new(0, 0xffff).expect("not empty"), 0)?;
    let map = GUEST.get_or_init(|| map);
    println!("{:?} faults, and the handler knows it", map.query(0x100));
    // SAFETY: zero is a valid value of every field.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler only calls what handlers may.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut()) };
    // SAFETY: nothing is mapped there, which the handler is to see.
    unsafe { ptr::without_provenance::<u8>(0x100).read_volatile() };
    Err("the guest's memory was mapped".into())
}
