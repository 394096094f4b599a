//! Lengths of time.

use core::time::Duration;

/// Returns a length of time as system calls take it; zero if it is longer than they can be told.
#[must_use]
pub fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: time.as_secs().try_into().unwrap_or(0),
        tv_nsec: time.subsec_nanos().into(),
    }
}
