//! A value that is made once, by the first thread that asks for it.

use super::{Lock, RawMutex};
use core::{
    cell::UnsafeCell,
    fmt,
    mem::MaybeUninit,
    sync::atomic::{AtomicBool, Ordering},
};

/// A value that the first caller makes; `R` is how others wait meanwhile.
pub struct Once<T, R> {
    is_made: AtomicBool,
    making: Lock<(), R>,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written under the lock, before `is_made` is stored with Release, and only
// read after that was seen with Acquire. It is made by one thread and used by others, hence both.
unsafe impl<T: Send + Sync, R: RawMutex + Sync> Sync for Once<T, R> {}

impl<T: Copy, R: RawMutex> Once<T, R> {
    /// Makes an empty one.
    pub const fn new() -> Self {
        Self {
            is_made: AtomicBool::new(false),
            making: Lock::new(()),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Returns the value, which `make` makes if no other call has. Where `make` panics, the next
    /// call tries again. It must not ask for the same value.
    pub fn get_or_make(&self, make: impl FnOnce() -> T) -> &T {
        if !self.is_made.load(Ordering::Acquire) {
            let _making = self.making.lock();
            if !self.is_made.load(Ordering::Relaxed) {
                let value = make();
                // SAFETY: the lock is held and no value was made, so nothing else refers to the
                // cell.
                let place = unsafe { &mut *self.value.get() };
                place.write(value);
                self.is_made.store(true, Ordering::Release);
            }
        }
        // SAFETY: shared references alone exist once `is_made` is set, which it was seen to be.
        let place = unsafe { &*self.value.get() };
        // SAFETY: written before `is_made` was.
        unsafe { place.assume_init_ref() }
    }
}

impl<T: Copy, R: RawMutex> Default for Once<T, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, R> fmt::Debug for Once<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Once(..)")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;
    use super::*;
    use crate::sync::Spin;
    use core::sync::atomic::AtomicU32;

    #[test]
    fn a_value_is_made_once() {
        static VALUE: Once<u64, Spin> = Once::new();
        static MADE: AtomicU32 = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let value = VALUE.get_or_make(|| {
                        MADE.fetch_add(1, Ordering::Relaxed);
                        42
                    });
                    assert_eq!(*value, 42);
                });
            }
        });
        assert_eq!(MADE.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_failed_is_tried_again() {
        let value: Once<u32, Spin> = Once::new();
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            value.get_or_make(|| panic!("as it should"));
        }));
        assert!(made.is_err());
        assert_eq!(*value.get_or_make(|| 7), 7);
    }
}
