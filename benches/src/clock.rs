//! The time that a thread runs.

use std::{mem::MaybeUninit, time::Duration};

/// A moment on the clock of the calling thread's CPU time, which stands while others run: on a busy
/// machine, time on the wall says more about them. Reading it is a system call.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime(Duration);

impl CpuTime {
    /// Reads the clock.
    ///
    /// # Panics
    ///
    /// If the system has no such clock.
    #[must_use]
    pub fn now() -> Self {
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the call needs room for a timespec, which this is.
        let failed =
            unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
        assert_eq!(failed, 0, "there is no clock of a thread's CPU time");
        // SAFETY: the call succeeded, so it wrote the timespec.
        let time = unsafe { time.assume_init() };
        let seconds = u64::try_from(time.tv_sec).expect("CPU time is not negative");
        let nanos = u32::try_from(time.tv_nsec).expect("a second has 10^9 nanoseconds");
        Self(Duration::new(seconds, nanos))
    }

    /// Returns how long the thread ran since this moment, which was its own.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::CpuTime;
    use std::{hint::black_box, thread::sleep, time::Duration};

    #[test]
    fn sleeping_does_not_count_and_working_does() {
        let start = CpuTime::now();
        sleep(Duration::from_millis(50));
        assert!(start.elapsed() < Duration::from_millis(40));
        while start.elapsed() < Duration::from_millis(5) {
            black_box(0);
        }
    }
}
