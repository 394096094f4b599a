//! Freed small objects, a stack a class, linked through the objects themselves.

use super::class;
use core::ptr::NonNull;

/// What a freed object begins with.
struct Free {
    next: Option<NonNull<Free>>,
}

/// Freed objects by class.
pub(super) struct Pools {
    first: [Option<NonNull<Free>>; class::COUNT],
    /// A bit a class: whether it has an object.
    filled: u64,
}

const _: () = assert!(class::COUNT <= 64, "a bit for every class");

impl Pools {
    pub(super) const fn new() -> Self {
        Self {
            first: [None; class::COUNT],
            filled: 0,
        }
    }

    /// Takes the object of a class that was freed last.
    #[inline]
    pub(super) fn take(&mut self, class: usize) -> Option<NonNull<u8>> {
        let found = self.first[class]?;
        // SAFETY: `put` wrote it, and a freed object belongs to the pools alone.
        let next = unsafe { found.read() }.next;
        self.first[class] = next;
        if next.is_none() {
            self.filled &= !(1 << class);
        }
        Some(found.cast())
    }

    /// Adds a freed object.
    ///
    /// # Safety
    ///
    /// `object` is writable memory of the class's size and alignment, which is the pools' alone from
    /// now on, until it is taken.
    #[inline]
    pub(super) unsafe fn put(&mut self, object: NonNull<u8>, class: usize) {
        let object = object.cast::<Free>();
        let next = self.first[class];
        // SAFETY: write needs room and alignment for two words at most: every class has 16 bytes,
        // aligned to 16, and the object is nobody else's, by the caller's promise.
        unsafe { object.write(Free { next }) };
        self.first[class] = Some(object);
        self.filled |= 1 << class;
    }

    /// Adds memory as objects of whatever classes fill it.
    ///
    /// # Safety
    ///
    /// `len` bytes at `start`, both multiples of [`class::STEP`], are writable memory which is the
    /// pools' alone from now on.
    pub(super) unsafe fn put_all(&mut self, start: NonNull<u8>, len: usize) {
        let mut done = 0;
        while done < len {
            // The largest class that fits, or a smaller one that may lie there.
            let addr = start.addr().get() + done;
            let mut class = class::at_most(len - done);
            while !addr.is_multiple_of(class::align(class::size(class))) {
                class -= 1;
            }
            // SAFETY: done < len bytes behind start.
            let object = unsafe { start.add(done) };
            // SAFETY: the object lies in the memory that the caller gives, is not larger than what is
            // left of it, and is aligned as its class asks.
            unsafe { self.put(object, class) };
            done += class::size(class);
        }
    }

    /// Takes the smallest freed object that is larger than those of `class`, and its class.
    pub(super) fn take_larger(&mut self, class: usize) -> Option<(NonNull<u8>, usize)> {
        let larger = self.filled & (u64::MAX << class << 1);
        let found = (larger != 0).then(|| larger.trailing_zeros() as usize)?;
        Some((self.take(found)?, found))
    }
}
