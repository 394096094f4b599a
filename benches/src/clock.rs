//! The time that a thread runs, or all threads of the process together.

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
        Self(read(libc::CLOCK_THREAD_CPUTIME_ID))
    }

    /// Returns how long the thread ran since this moment, which was its own.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// A moment on the clock of the CPU time of all threads of the process, those that ended included.
#[derive(Clone, Copy, Debug)]
pub struct ProcessTime(Duration);

impl ProcessTime {
    /// Reads the clock.
    ///
    /// # Panics
    ///
    /// If the system has no such clock.
    #[must_use]
    pub fn now() -> Self {
        Self(read(libc::CLOCK_PROCESS_CPUTIME_ID))
    }

    /// Returns how long threads of the process ran since this moment.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the call needs room for a timespec, which this is.
    let failed = unsafe { libc::clock_gettime(clock, time.as_mut_ptr()) };
    assert_eq!(failed, 0, "there is no clock of CPU time");
    // SAFETY: the call succeeded, so it wrote the timespec.
    let time = unsafe { time.assume_init() };
    let seconds = u64::try_from(time.tv_sec).expect("CPU time is not negative");
    let nanos = u32::try_from(time.tv_nsec).expect("a second has 10^9 nanoseconds");
    Duration::new(seconds, nanos)
}

#[cfg(test)]
mod tests {
    use super::{CpuTime, ProcessTime};
    use std::{
        hint::black_box,
        thread::{self, sleep},
        time::Duration,
    };

    #[test]
    fn sleeping_does_not_count_and_working_does() {
        let start = CpuTime::now();
        sleep(Duration::from_millis(50));
        assert!(start.elapsed() < Duration::from_millis(40));
        while start.elapsed() < Duration::from_millis(5) {
            black_box(0);
        }
    }
    #[test]
    fn the_process_counts_what_its_threads_do() {
        let work = Duration::from_millis(5);
        let (own, all) = (CpuTime::now(), ProcessTime::now());
        let spin = move || {
            let start = CpuTime::now();
            while start.elapsed() < work {
                black_box(0);
            }
        };
        thread::spawn(spin).join().expect("it does not panic");
        assert!(all.elapsed() >= work);
        assert!(own.elapsed() < work);
    }
}
