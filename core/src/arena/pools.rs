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
    /// `object` is writable memory of the class's size and alignment, which is the pools' alone
    /// from now on, until it is taken.
    #[inline]
    pub(super) unsafe fn put(&mut self, object: NonNull<u8>, class: usize) {
        let object = object.cast::<Free>();
        let next = self.first[class];
        // SAFETY: write needs room and alignment for two words at most: every class has 16 bytes,
        // aligned to 16, and the object is the pools' alone, by this function's `# Safety`.
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
            // SAFETY: `done` is below `len`, and that many bytes lie behind `start`.
            let object = unsafe { start.add(done) };
            // SAFETY: the object lies in the memory that the caller gives, is not larger than what
            // is left of it, and is aligned as its class asks.
            unsafe { self.put(object, class) };
            done += class::size(class);
        }
    }

    /// Takes the smallest freed object that is larger than those of `class` and lies where one of
    /// them could, of those on top of their stacks; and its class.
    pub(super) fn take_larger(&mut self, class: usize) -> Option<(NonNull<u8>, usize)> {
        let align = class::align(class::size(class));
        let mut larger = self.filled & (u64::MAX << class << 1);
        while larger != 0 {
            let from = larger.trailing_zeros() as usize;
            // Objects of larger classes may be aligned to less: 160 bytes to 32, 128 bytes to 128.
            if self.first[from].is_some_and(|object| object.addr().get().is_multiple_of(align)) {
                return Some((self.take(from)?, from));
            }
            larger &= larger - 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(128))]
    struct Memory([u8; 4096]);

    #[test]
    fn smaller_objects_come_from_larger_ones_that_are_aligned_enough() {
        let mut memory = Memory([0; 4096]);
        let start = NonNull::from(&mut memory.0).cast::<u8>();
        let mut pools = Pools::new();
        let put = |pools: &mut Pools, at: usize, size: usize| {
            // SAFETY: an object of this size at this offset lies inside the array.
            let object = unsafe { start.add(at) };
            // SAFETY: a part of the array that is given once, aligned as its class asks.
            unsafe { pools.put(object, class::at_least(size)) };
        };
        put(&mut pools, 32, 160);
        assert_eq!(pools.take_larger(class::at_least(128)), None, "misaligned");
        put(&mut pools, 512, 320);
        let found = pools.take_larger(class::at_least(128));
        // SAFETY: 512 bytes lie inside the array.
        let aligned = unsafe { start.add(512) };
        assert_eq!(found, Some((aligned, class::at_least(320))));
        let (found, _) = pools.take_larger(class::at_least(96)).expect("160 bytes");
        assert!(found.addr().get().is_multiple_of(32));
    }

    #[test]
    fn memory_is_cut_into_objects_that_fill_it() {
        let mut memory = Memory([0; 4096]);
        let first = NonNull::from(&mut memory.0).cast::<u8>();
        for (from, len) in [(0, 4096), (16, 4080), (48, 16), (112, 2000), (64, 320)] {
            let mut pools = Pools::new();
            // SAFETY: `from` lies inside the array.
            let start = unsafe { first.add(from) };
            // SAFETY: a part of the array, which the pools alone use.
            unsafe { pools.put_all(start, len) };
            let mut total = 0;
            for class in 0..class::COUNT {
                while let Some(object) = pools.take(class) {
                    let size = class::size(class);
                    assert!(object.addr().get().is_multiple_of(class::align(size)));
                    total += size;
                }
            }
            assert_eq!(total, len);
            assert_eq!(pools.filled, 0);
        }
    }
}
