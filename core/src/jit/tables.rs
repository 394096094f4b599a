//! Tables in the arena that are all zero at first.

use super::{block::Block, pool::Bin};
use crate::{
    arena::Arena,
    atomic::{AtomicPtr, AtomicU64, AtomicUsize},
    provider::{Error, PageProvider},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::{NonNull, null_mut},
};

/// A value that zero bytes stand for.
pub(super) trait Zero {
    /// Makes that value.
    fn zero() -> Self;
}

macro_rules! zero {
    ($($type:ty = $value:expr;)+) => {
        $(impl Zero for $type {
            #[inline]
            fn zero() -> Self {
                $value
            }
        })+
    };
}

zero! {
    u8 = 0;
    u64 = 0;
    AtomicU64 = Self::new(0);
    AtomicUsize = Self::new(0);
    AtomicPtr<Block> = Self::new(null_mut());
    Option<NonNull<Block>> = None;
    Bin = Self::EMPTY;
}

/// Allocates a table of `len` zeros.
pub(super) fn zeroed<T: Zero, P: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<P, R>,
    len: usize,
) -> Result<NonNull<[T]>, Error> {
    arena.alloc_slice(len, T::zero)
}

/// Gives a table back.
///
/// # Safety
///
/// It came from [`zeroed`] of this arena, and nobody uses it any more.
pub(super) unsafe fn free<T, P: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<P, R>,
    table: NonNull<[T]>,
) {
    let size = table.len() * size_of::<T>();
    if let Ok(layout) = Layout::from_size_align(size, align_of::<T>()) {
        // SAFETY: the layout is the one that the slice was allocated with, by the caller's promise.
        unsafe { arena.free(table.cast(), layout) };
    }
}
