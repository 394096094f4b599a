//! Values and slices in an arena.

use super::{Arena, class};
use crate::{
    provider::{Error, ErrorKind, PageProvider},
    sync::RawMutex,
};
use core::{alloc::Layout, ptr::NonNull};

impl<P: PageProvider + Copy, R: RawMutex> Arena<P, R> {
    /// Allocates memory for `least` to `most` values of `unit`, one behind the other; returns it
    /// and for how many. It reads zero, is never freed before the arena, and takes no more than its
    /// size.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::alloc`].
    pub(crate) fn alloc_run(
        &self,
        unit: Layout,
        least: usize,
        most: usize,
    ) -> Result<(NonNull<u8>, usize), Error> {
        let (unit, align) = (unit.size(), unit.align().max(class::STEP));
        debug_assert!(unit.is_multiple_of(align), "units lie side by side");
        let size = unit.checked_mul(least).filter(|&size| size != 0);
        let size = size.ok_or(ErrorKind::InvalidArgument)?;
        let mut state = self.lock()?;
        let piece = self.piece_for(&mut state, size, align)?;
        // SAFETY: a piece in the chain has a header, which is the lock holder's alone.
        let room = unsafe { piece.as_ref() }.room(align) / unit;
        let count = room.min(most).max(least);
        let first = state.cut(piece, count * unit, align);
        state.used += count * unit;
        Ok((first, count))
    }

    /// Allocates a slice of `len` values, each `init`. It lives as long as the arena, unless it is
    /// given to [`Arena::free`].
    ///
    /// # Errors
    ///
    /// The errors of [`Arena::alloc`]; [`ErrorKind::InvalidArgument`] where the size overflows or
    /// is zero.
    pub fn alloc_slice<T>(
        &self,
        len: usize,
        mut init: impl FnMut() -> T,
    ) -> Result<NonNull<[T]>, Error> {
        let layout = Layout::array::<T>(len).map_err(|_| ErrorKind::InvalidArgument)?;
        let first = self.alloc(layout)?.cast::<T>();
        for n in 0..len {
            // SAFETY: n < len values of T fit behind first, by the layout.
            let slot = unsafe { first.add(n) };
            // SAFETY: slot lies in the fresh allocation and is aligned for T, by the layout.
            unsafe { slot.write(init()) };
        }
        Ok(NonNull::slice_from_raw_parts(first, len))
    }

    /// Allocates memory for a slice of `len` values, all of whose bytes are zero; fresh pages are
    /// not written for that. Whether such bytes are a `T` is for the caller to know. It lives as
    /// long as [`Arena::alloc_slice`]'s.
    ///
    /// # Errors
    ///
    /// Those of [`Arena::alloc_slice`].
    pub fn alloc_slice_zeroed<T>(&self, len: usize) -> Result<NonNull<[T]>, Error> {
        let layout = Layout::array::<T>(len).map_err(|_| ErrorKind::InvalidArgument)?;
        let first = self.alloc_zeroed(layout)?.cast::<T>();
        Ok(NonNull::slice_from_raw_parts(first, len))
    }

    /// Allocates memory for `value` and moves it there. It lives as long as the arena, unless its
    /// memory is given to [`Arena::free`], and is never dropped.
    ///
    /// # Errors
    ///
    /// The errors of [`Arena::alloc`]; `value` is dropped then.
    pub fn alloc_value<T>(&self, value: T) -> Result<NonNull<T>, Error> {
        let place = self.alloc(Layout::new::<T>())?.cast::<T>();
        // SAFETY: fresh memory with the layout of T.
        unsafe { place.write(value) };
        Ok(place)
    }
}
