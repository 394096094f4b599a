//! Random numbers for keys: `arc4random_buf(3)`, which always has some, and starts anew in a child
//! of a fork.

/// Returns bytes of the system's source of random numbers.
#[expect(
    clippy::unnecessary_wraps,
    reason = "as in the backends of systems that may refuse"
)]
pub(crate) fn key() -> Option<[u8; 32]> {
    let mut key = [0; 32];
    // SAFETY: the array is as long as its length says, and may be written.
    unsafe { libc::arc4random_buf(key.as_mut_ptr().cast(), key.len()) };
    Some(key)
}
