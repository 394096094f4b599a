//! A short list on the stack.

use core::mem::MaybeUninit;

/// At most `N` values.
pub(super) struct List<T, const N: usize> {
    /// The first `len` are initialised; the others would take longer to fill than most changes
    /// take.
    values: [MaybeUninit<T>; N],
    len: usize,
}

impl<T: Copy, const N: usize> List<T, N> {
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            values: [const { MaybeUninit::uninit() }; N],
            len: 0,
        }
    }

    /// Adds values behind the last one. Panics where there is no room: lists are as long as what
    /// they are made for.
    #[inline]
    pub(super) fn extend(&mut self, values: impl IntoIterator<Item = T>) {
        for value in values {
            self.values[self.len].write(value);
            self.len += 1;
        }
    }

    /// Adds values in front of the first one, in their order.
    pub(super) fn extend_front(&mut self, values: impl Iterator<Item = T>) {
        let old = self.len;
        self.extend(values);
        self.values[..self.len].rotate_left(old);
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[T] {
        // SAFETY: extend, which alone changes the length, wrote all values before it; rotating them
        // leaves them initialised.
        unsafe { self.values[..self.len].assume_init_ref() }
    }
}
