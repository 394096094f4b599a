//! Tables in the arena that are all zero at first.

use super::{block::Block, pool::Hint};
use crate::{
    arena::Arena,
    atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize},
    provider::{Error, PageProvider},
    sync::RawMutex,
};
use core::{
    alloc::Layout,
    ptr::{NonNull, null_mut},
};

/// A value that zero bytes stand for.
///
/// # Safety
///
/// Zero bytes are a value of the type, the same that [`Zero::zero`] makes; but in the models, whose
/// atomics are more than bytes.
pub(super) unsafe trait Zero {
    /// Makes that value.
    fn zero() -> Self;
}

macro_rules! zero {
    ($($type:ty = $value:expr;)+) => {
        // SAFETY: integers and atomic integers of zero are zero bytes, and so are null pointers and
        // `None` of a pointer that is not null.
        $(unsafe impl Zero for $type {
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
    AtomicU32 = Self::new(0);
    AtomicU64 = Self::new(0);
    AtomicUsize = Self::new(0);
    AtomicPtr<Block> = Self::new(null_mut());
    Option<NonNull<Block>> = None;
    Hint = Self::ZERO;
}

/// Allocates a table of `len` zeros. Fresh memory is not written, so that what is not used of it
/// takes none.
pub(super) fn zeroed<T: Zero, P: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<P, R>,
    len: usize,
) -> Result<NonNull<[T]>, Error> {
    let table = arena.alloc_slice_zeroed::<T>(len)?;
    if cfg!(all(test, loom)) {
        for n in 0..len {
            // SAFETY: n is below len, and len values of T fit behind the table's start, by its
            // layout.
            let place = unsafe { table.cast::<T>().add(n) };
            // SAFETY: in the memory allocated just now, which is aligned for T.
            unsafe { place.write(T::zero()) };
        }
    }
    Ok(table)
}

/// Gives a table back.
///
/// # Safety
///
/// It came from [`zeroed`] of this arena, and no other code uses it any more.
pub(super) unsafe fn free<T, P: PageProvider + Copy, R: RawMutex>(
    arena: &Arena<P, R>,
    table: NonNull<[T]>,
) {
    let size = table.len() * size_of::<T>();
    if size != 0
        && let Ok(layout) = Layout::from_size_align(size, align_of::<T>())
    {
        // SAFETY: zeroed allocated the slice from this arena with this layout, and no other code
        // uses it any more: this function's `# Safety`.
        unsafe { arena.free(table.cast(), layout) };
    }
}
