//! Accesses to the memory of the guest, which lies at its own addresses: a guest's address is a
//! host's. What the guest may not touch faults, and the handler of the fault makes the access
//! return.

use crate::{
    arch::Context,
    host::LOW_HEAP_START,
    interpret::{Fault, Kind, Memory},
    machine::machine,
    space::PAGE,
};
use core::sync::atomic::{AtomicUsize, Ordering, fence};

/// Where the second view of the guest's memory begins, on hosts that have one (`space/coarse.rs`).
static VIEW: AtomicUsize = AtomicUsize::new(0);

/// Says where the second view begins.
pub(crate) fn set_view(start: usize) {
    VIEW.store(start, Ordering::Relaxed);
}

/// Returns how far the second view of an address is from it; the low heap has none.
fn offset(addr: u32) -> usize {
    if addr < LOW_HEAP_START {
        VIEW.load(Ordering::Relaxed)
    } else {
        0
    }
}

/// Returns the address of guest memory that the kernel is to be told; null stays null.
pub(crate) fn for_kernel(addr: u32) -> usize {
    match addr as usize {
        0 => 0,
        start => start + offset(addr),
    }
}

/// Returns where an access is to be made that failed at the guest's own address, if it may be made.
/// Nothing is forbidden before the machine is there: then its memory is filled.
fn elsewhere(addr: u32, len: usize, kind: Kind) -> Option<u64> {
    let at = addr as usize + offset(addr);
    let allowed = || machine().is_none_or(|machine| machine.space.allows(addr, len, kind));
    (addr >= LOW_HEAP_START || at != addr as usize && allowed()).then_some(at as u64)
}

/// A way to the guest's memory.
pub(crate) trait Way {
    /// Makes an access of `len` bytes, in two pages at most: calls `access` with an address until
    /// it has not failed. Returns the low 32 bits of its value.
    ///
    /// # Errors
    ///
    /// Where the guest may not.
    fn attempt(
        addr: u32,
        len: usize,
        kind: Kind,
        access: impl Fn(u64) -> Outcome,
    ) -> Result<[u8; 4], Fault>;
}

impl Way for Identity {
    #[inline(always)]
    fn attempt(
        addr: u32,
        len: usize,
        kind: Kind,
        access: impl Fn(u64) -> Outcome,
    ) -> Result<[u8; 4], Fault> {
        match access(addr.into()).value() {
            Some(value) => Ok(value),
            None => Second::attempt(addr, len, kind, access),
        }
    }
}

impl Way for Second {
    #[cold]
    fn attempt(
        addr: u32,
        len: usize,
        kind: Kind,
        access: impl Fn(u64) -> Outcome,
    ) -> Result<[u8; 4], Fault> {
        let fault = Fault { addr, kind };
        let outcome = access(elsewhere(addr, len, kind).ok_or(fault)?);
        outcome.value().ok_or(fault)
    }
}

/// Makes an access of any length at once, or else page by page: `access` is told an address, how
/// many bytes were done before, and how many are to be.
fn attempt_pages(
    addr: u32,
    len: usize,
    kind: Kind,
    access: impl Fn(u64, usize, usize) -> Outcome,
) -> Result<(), Fault> {
    if (addr as usize).saturating_add(len) > 1 << 32 {
        return Err(Fault { addr, kind });
    }
    if access(addr.into(), 0, len).failed == 0 {
        return Ok(());
    }
    let (mut at, mut done) = (addr, 0);
    while done < len {
        let piece = (PAGE - at % PAGE).min(u32::try_from(len - done).unwrap_or(PAGE));
        Identity::attempt(at, piece as usize, kind, |at| {
            access(at, done, piece as usize)
        })?;
        at = at.wrapping_add(piece);
        done += piece as usize;
    }
    Ok(())
}

/// What an access returns: the value, and whether it failed.
#[repr(C)]
pub(crate) struct Outcome {
    value: u64,
    failed: u64,
}

impl Outcome {
    /// Returns the low 32 bits of the value, unless the access failed.
    #[inline(always)]
    fn value(&self) -> Option<[u8; 4]> {
        let [a, b, c, d, ..] = self.value.to_le_bytes();
        (self.failed == 0).then_some([a, b, c, d])
    }
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

/// The same by the second view, on hosts that have one: without faults of the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Second;

impl Identity {
    /// Copies guest memory.
    ///
    /// # Errors
    ///
    /// Where the guest may not read; some bytes may have been copied.
    pub(crate) fn read(self, addr: u32, to: &mut [u8]) -> Result<(), Fault> {
        let (to, len) = (to.as_mut_ptr() as u64, to.len());
        attempt_pages(addr, len, Kind::Load, |addr, done, len| {
            // SAFETY: the destination has `len` bytes from `done` on, and a fault of the source
            // returns.
            unsafe { guest_copy(to + done as u64, addr, len as u64) }
        })
    }

    /// Copies to guest memory.
    ///
    /// # Errors
    ///
    /// Where the guest may not write; some bytes may have been copied.
    pub(crate) fn write(self, addr: u32, from: &[u8]) -> Result<(), Fault> {
        let (from, len) = (from.as_ptr() as u64, from.len());
        attempt_pages(addr, len, Kind::Store, |addr, done, len| {
            // SAFETY: the source has `len` bytes from `done` on. The destination is the guest's,
            // where nothing of Rust's lies; a fault returns.
            unsafe { guest_copy(addr, from + done as u64, len as u64) }
        })
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

impl<W: Way> Memory for W {
    #[inline(always)]
    fn load_u8(&self, addr: u32) -> Result<u8, Fault> {
        // SAFETY: any address below 4 GiB may be read, and those of the second view: it is the
        // guest's, or faults and returns.
        let [byte, ..] = W::attempt(addr, 1, Kind::Load, |at| unsafe { guest_load_u8(at) })?;
        Ok(byte)
    }

    #[inline(always)]
    fn load_u16(&self, addr: u32) -> Result<u16, Fault> {
        // SAFETY: as `load_u8`; the first page above 4 GiB is inaccessible.
        let [low, high, ..] = W::attempt(addr, 2, Kind::Load, |at| unsafe { guest_load_u16(at) })?;
        Ok(u16::from_le_bytes([low, high]))
    }

    #[inline(always)]
    fn load_u32(&self, addr: u32) -> Result<u32, Fault> {
        // SAFETY: as `load_u16`.
        let loaded = W::attempt(addr, 4, Kind::Load, |at| unsafe { guest_load_u32(at) });
        loaded.map(u32::from_le_bytes)
    }

    #[inline(always)]
    fn store_u8(&self, addr: u32, value: u8) -> Result<(), Fault> {
        let value = value.into();
        // SAFETY: nothing of Rust's lies below 4 GiB, or in the second view; what is not the
        // guest's faults and returns.
        W::attempt(addr, 1, Kind::Store, |at| unsafe {
            guest_store_u8(at, value)
        })
        .map(|_| ())
    }

    #[inline(always)]
    fn store_u16(&self, addr: u32, value: u16) -> Result<(), Fault> {
        let value = value.into();
        // SAFETY: as `store_u8`; the first page above 4 GiB is inaccessible.
        W::attempt(addr, 2, Kind::Store, |at| unsafe {
            guest_store_u16(at, value)
        })
        .map(|_| ())
    }

    #[inline(always)]
    fn store_u32(&self, addr: u32, value: u32) -> Result<(), Fault> {
        // SAFETY: as `store_u16`.
        W::attempt(addr, 4, Kind::Store, |at| unsafe {
            guest_store_u32(at, value)
        })
        .map(|_| ())
    }

    fn compare_exchange(&self, addr: u32, expected: u32, new: u32) -> Result<u32, Fault> {
        // SAFETY: as `store_u32`.
        let access = |at| unsafe { guest_compare_exchange(at, expected, new) };
        W::attempt(addr, 4, Kind::Store, access).map(u32::from_le_bytes)
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}
