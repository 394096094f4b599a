//! How the state of a hardened heap is made: keys, canaries, and the room of the quarantine.

use super::quarantine::{Quarantine, WAITING};
use super::{CANARIES, Hardened, Seals, Sip};
use crate::{
    arena::Arena,
    heap::{HeapConfig, error::HeapError},
    provider::{PageProvider, Resource, reserve_ahead},
    sync::RawMutex,
};
use core::{
    array,
    ptr::null_mut,
    sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize},
};

/// Makes the state of a heap whose metadata lies around `addr`, if it is hardened.
pub(in crate::heap) fn make<P: PageProvider, M: PageProvider + Copy, R: RawMutex>(
    provider: &P,
    metadata: &M,
    arena: &Arena<M, R>,
    config: &HeapConfig,
    addr: usize,
) -> Result<Option<Hardened>, HeapError> {
    if config.level() == crate::heap::Hardening::Checked {
        return Ok(None);
    }
    let random = || metadata.random_key().or_else(|| provider.random_key());
    let keys = config.own_keys().or_else(random);
    let keys = keys.unwrap_or_else(|| {
        let bytes = addr.to_le_bytes();
        array::from_fn(|n| bytes[n % bytes.len()])
    });
    let [canary, order] = [0, 16].map(|from| {
        let key: [u8; 16] = array::from_fn(|n| keys[from + n]);
        Sip::new(&key)
    });
    let is_full = config.is_full();
    let (bytes, addresses) = config.waiting();
    let quarantine = match bytes {
        0 => None,
        bytes => Some(make_quarantine(arena, bytes)?),
    };
    // A question of mappings costs a walk over all of them.
    let left = || {
        provider
            .left(Resource::Mappings)
            .map_or(usize::MAX, |left| left / 2)
    };
    let mappings = match config.mapping_count() {
        Some(count) => count,
        None if is_full => left(),
        None => 0,
    };
    let seals = if is_full {
        None
    } else {
        Some(make_seals(arena, &canary)?)
    };
    Ok(Some(Hardened {
        canary,
        order,
        seals,
        drawn: AtomicU64::new(0),
        corrupt: AtomicUsize::new(0),
        quarantine,
        most_addresses: if is_full {
            reserve_ahead(provider, 0, addresses)
        } else {
            0
        },
        mappings,
    }))
}

/// Makes the quarantine of blocks with a class, for `bytes` of them.
fn make_quarantine<M: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<M, R>,
    bytes: usize,
) -> Result<Quarantine, HeapError> {
    let slots = arena.alloc_slice(WAITING, || AtomicPtr::<u8>::new(null_mut()));
    let slots = slots.map_err(HeapError::Metadata)?;
    Ok(Quarantine::new(slots.cast(), bytes))
}

/// Makes the canaries of the lower level.
fn make_seals<M: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<M, R>,
    canary: &Sip,
) -> Result<Seals, HeapError> {
    let mut number = 0;
    let canaries = arena.alloc_slice(CANARIES, || {
        // No block starts at such an address.
        number += 1;
        canary.canary(number)
    });
    let canaries = canaries.map_err(HeapError::Metadata)?.cast();
    // SAFETY: `Seals::new` asks that the canaries stay as long as its copies: all of them were
    // initialised just now, and the arena, which is the heap's, never frees them.
    Ok(unsafe { Seals::new(canaries) })
}
