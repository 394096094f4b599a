//! A short list on the stack.

/// At most `N` values.
#[derive(Clone, Copy)]
pub(super) struct List<T, const N: usize> {
    values: [T; N],
    len: usize,
}

impl<T: Copy, const N: usize> List<T, N> {
    /// Makes an empty list; `filler` is what it holds where it holds nothing.
    pub(super) const fn new(filler: T) -> Self {
        Self {
            values: [filler; N],
            len: 0,
        }
    }

    /// Adds values behind the last one. Panics where there is no room: lists are as long as what
    /// they are made for.
    pub(super) fn extend(&mut self, values: impl IntoIterator<Item = T>) {
        for value in values {
            self.values[self.len] = value;
            self.len += 1;
        }
    }

    /// Adds values in front of the first one, in their order.
    pub(super) fn extend_front(&mut self, values: impl Iterator<Item = T>) {
        let old = self.len;
        self.extend(values);
        self.values[..self.len].rotate_left(old);
    }

    pub(super) fn as_slice(&self) -> &[T] {
        &self.values[..self.len]
    }
}
