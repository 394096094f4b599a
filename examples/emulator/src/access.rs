//! Accesses to the memory of the guest, which lies at its own addresses: a guest's address is a
//! host's. What the guest may not touch faults, and the handler of the fault makes the access
//! return.

use crate::{
    arch::Context,
    interpret::{Fault, Kind, Memory},
};
use core::sync::atomic::{Ordering, fence};

/// What an access returns: the value, and whether it failed.
#[repr(C)]
struct Outcome {
    value: u64,
    failed: u64,
}

// These are in `arch/`. Every function lies between the two labels, keeps the stack pointer and the
// address that it returns to, and says as its second result whether it failed; so the handler goes
// on at `guest_access_failed` in place of whichever of them faulted.
unsafe extern "C" {
    fn guest_access_begin();
    fn guest_access_end();
    fn guest_access_failed();
    fn guest_load_u8(addr: u64) -> Outcome;
    fn guest_load_u16(addr: u64) -> Outcome;
    fn guest_load_u32(addr: u64) -> Outcome;
    fn guest_store_u8(addr: u64, value: u32) -> Outcome;
    fn guest_store_u16(addr: u64, value: u32) -> Outcome;
    fn guest_store_u32(addr: u64, value: u32) -> Outcome;
    fn guest_compare_exchange(addr: u64, expected: u32, new: u32) -> Outcome;
    fn guest_copy(to: u64, from: u64, len: u64) -> Outcome;
}

/// Lets an access to guest memory that faulted return; says whether the thread was in one.
pub(crate) fn recover(context: &mut Context) -> bool {
    let begin = guest_access_begin as *const () as usize;
    let end = guest_access_end as *const () as usize;
    let found = (begin..end).contains(&context.pc());
    if found {
        context.go_on_at(guest_access_failed as *const () as usize, 0);
    }
    found
}

/// The low 4 GiB of this process, seen as a guest's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity;

impl Identity {
    /// Copies guest memory.
    ///
    /// # Errors
    ///
    /// Where the guest may not read; some bytes may have been copied.
    pub(crate) fn read(self, addr: u32, to: &mut [u8]) -> Result<(), Fault> {
        check(addr, to.len(), Kind::Load)?;
        // SAFETY: the destination is a slice of so many bytes, and a fault of the source returns.
        let outcome = unsafe { guest_copy(to.as_mut_ptr() as u64, addr.into(), to.len() as u64) };
        done(outcome, addr, Kind::Load)
    }

    /// Copies to guest memory.
    ///
    /// # Errors
    ///
    /// Where the guest may not write; some bytes may have been copied.
    pub(crate) fn write(self, addr: u32, from: &[u8]) -> Result<(), Fault> {
        check(addr, from.len(), Kind::Store)?;
        // SAFETY: the source is a slice of so many bytes. The destination lies below 4 GiB, where
        // nothing of Rust's lies; a fault returns.
        let outcome = unsafe { guest_copy(addr.into(), from.as_ptr() as u64, from.len() as u64) };
        done(outcome, addr, Kind::Store)
    }

    /// Reads a word, of a size that `N` bytes have.
    ///
    /// # Errors
    ///
    /// Those of [`Identity::read`].
    pub(crate) fn bytes<const N: usize>(self, addr: u32) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.read(addr, &mut bytes)?;
        Ok(bytes)
    }
}

/// Refuses what reaches above 4 GiB.
fn check(addr: u32, len: usize, kind: Kind) -> Result<(), Fault> {
    let fits = (addr as usize).saturating_add(len) <= 1 << 32;
    fits.then_some(()).ok_or(Fault { addr, kind })
}

#[inline(always)]
fn done(outcome: Outcome, addr: u32, kind: Kind) -> Result<(), Fault> {
    value(outcome, addr, kind).map(|_| ())
}

/// Returns the low 32 bits of what was loaded.
#[inline(always)]
fn value(outcome: Outcome, addr: u32, kind: Kind) -> Result<[u8; 4], Fault> {
    if outcome.failed != 0 {
        return Err(Fault { addr, kind });
    }
    let [a, b, c, d, ..] = outcome.value.to_le_bytes();
    Ok([a, b, c, d])
}

impl Memory for Identity {
    #[inline(always)]
    fn load_u8(&self, addr: u32) -> Result<u8, Fault> {
        // SAFETY: any address below 4 GiB may be read: it is the guest's, or faults and returns.
        let outcome = unsafe { guest_load_u8(addr.into()) };
        Ok(value(outcome, addr, Kind::Load)?[0])
    }

    #[inline(always)]
    fn load_u16(&self, addr: u32) -> Result<u16, Fault> {
        // SAFETY: as `load_u8`; the first page above 4 GiB is inaccessible.
        let outcome = unsafe { guest_load_u16(addr.into()) };
        let [low, high, ..] = value(outcome, addr, Kind::Load)?;
        Ok(u16::from_le_bytes([low, high]))
    }

    #[inline(always)]
    fn load_u32(&self, addr: u32) -> Result<u32, Fault> {
        // SAFETY: as `load_u16`.
        let outcome = unsafe { guest_load_u32(addr.into()) };
        value(outcome, addr, Kind::Load).map(u32::from_le_bytes)
    }

    #[inline(always)]
    fn store_u8(&self, addr: u32, value: u8) -> Result<(), Fault> {
        // SAFETY: nothing of Rust's lies below 4 GiB; what is not the guest's faults and returns.
        let outcome = unsafe { guest_store_u8(addr.into(), value.into()) };
        done(outcome, addr, Kind::Store)
    }

    #[inline(always)]
    fn store_u16(&self, addr: u32, value: u16) -> Result<(), Fault> {
        // SAFETY: as `store_u8`; the first page above 4 GiB is inaccessible.
        let outcome = unsafe { guest_store_u16(addr.into(), value.into()) };
        done(outcome, addr, Kind::Store)
    }

    #[inline(always)]
    fn store_u32(&self, addr: u32, value: u32) -> Result<(), Fault> {
        // SAFETY: as `store_u16`.
        let outcome = unsafe { guest_store_u32(addr.into(), value) };
        done(outcome, addr, Kind::Store)
    }

    fn compare_exchange(&self, addr: u32, expected: u32, new: u32) -> Result<u32, Fault> {
        // SAFETY: as `store_u32`.
        let outcome = unsafe { guest_compare_exchange(addr.into(), expected, new) };
        value(outcome, addr, Kind::Store).map(u32::from_le_bytes)
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}
