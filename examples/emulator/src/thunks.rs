//! Functions of the host that the guest calls by an instruction of its own: opcode *custom-0*,
//! whose immediate says which. Arguments and results are in `a0`, `a1`, `a2`, as in the guest's own
//! calls.
//!
//! | number | function |
//! |---|---|
//! | 0 | `void *host_alloc(size_t len)` |
//! | 1 | `int host_free(void *block)`: zero, or one for what is no block of the host's |
//! | 2 | `uint32_t host_crc32(uint32_t seed, const void *bytes, size_t len)` |
//! | 3 | `void *host_deflate(const void *bytes, size_t len, size_t *out_len)` |
//! | 4 | `void *host_inflate(const void *bytes, size_t len, size_t *out_len)` |
//! | 5 | `int host_owns(const void *addr)` |
//!
//! Blocks lie in the low heap, where the guest can use them as its own. It also can write where it
//! should not: the heap keeps what it knows of blocks elsewhere, and refuses to free what is none.

use crate::{access::Identity, machine::Thread, signals::Raised};
use alloc::{vec, vec::Vec};
use core::{alloc::Layout, ptr::NonNull, sync::atomic::Ordering};

/// The most bytes that one call takes or makes, so that a guest cannot use up the host's memory.
const MOST: usize = 64 << 20;

/// Blocks are aligned as those of `malloc`.
const ALIGN: usize = 16;

/// Calls the function with this number.
///
/// # Errors
///
/// What the guest is told of a number without function, or of an address that it may not use.
pub(crate) fn call(thread: &mut Thread, number: u32) -> Result<(), Raised> {
    thread.machine.counts.thunks.fetch_add(1, Ordering::Relaxed);
    let x = &thread.hart.x;
    let (a, b, c) = (x[10], x[11], x[12]);
    let result = match number {
        0 => alloc(thread, a as usize),
        1 => u32::from(!free(thread, a)),
        2 => {
            let mut hasher = crc32fast::Hasher::new_with_initial(a);
            hasher.update(&bytes(thread, b, c)?);
            hasher.finalize()
        }
        3 => {
            let packed = miniz_oxide::deflate::compress_to_vec_zlib(&bytes(thread, a, b)?, 6);
            give(thread, &packed, c)?
        }
        4 => {
            let packed = bytes(thread, a, b)?;
            match miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, MOST) {
                Ok(plain) => give(thread, &plain, c)?,
                Err(_) => 0,
            }
        }
        5 => thread.machine.host.low_heap.owns(a as usize).into(),
        _ => return Err(Raised::ILLEGAL.at(thread.hart.pc)),
    };
    thread.hart.x[10] = result;
    Ok(())
}

/// Copies what the guest points to.
fn bytes(thread: &Thread, addr: u32, len: u32) -> Result<Vec<u8>, Raised> {
    let len = len as usize;
    let fault = |_| Raised::UNMAPPED.at(addr);
    let _ = thread;
    if len > MOST {
        return Err(Raised::UNMAPPED.at(addr));
    }
    let mut copy = vec![0; len];
    Identity.read(addr, &mut copy).map_err(fault)?;
    Ok(copy)
}

/// Puts bytes into a block of the low heap, and its length where the guest wants it.
fn give(thread: &Thread, bytes: &[u8], len_to: u32) -> Result<u32, Raised> {
    let block = alloc(thread, bytes.len());
    if block != 0 {
        let fault = |_| Raised::UNMAPPED.at(block);
        Identity.write(block, bytes).map_err(fault)?;
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let fault = |_| Raised::UNMAPPED.at(len_to);
        Identity.write(len_to, &len.to_le_bytes()).map_err(fault)?;
    }
    Ok(block)
}

/// Allocates in the low heap; zero where there is no room.
fn alloc(thread: &Thread, len: usize) -> u32 {
    let Ok(layout) = Layout::from_size_align(len.max(1), ALIGN) else {
        return 0;
    };
    let block = thread.machine.host.low_heap.alloc(layout);
    block.map_or(0, |block| {
        u32::try_from(block.as_ptr().expose_provenance()).unwrap_or(0)
    })
}

/// Frees a block of the low heap; says whether it was one.
fn free(thread: &Thread, addr: u32) -> bool {
    let heap = &thread.machine.host.low_heap;
    let Some(block) = NonNull::new(core::ptr::with_exposed_provenance_mut(addr as usize)) else {
        return true;
    };
    // SAFETY: the host keeps no reference to blocks that it gave to the guest, and the heap refuses
    // what is no live block.
    heap.owns(addr as usize) && unsafe { heap.free(block) }.is_ok()
}
