//! Random numbers for keys.
//!
//! Where a filter refuses `getrandom(2)`, the device of the same source is asked.

use rustix::{
    fs::{Mode, OFlags, open},
    io::{Errno, read},
    rand::{GetRandomFlags, getrandom},
};

/// Fills a key by a call that may fill less at once; `None` where it fails.
fn filled(mut some: impl FnMut(&mut [u8]) -> Result<usize, Errno>) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    let mut len = 0;
    while len < key.len() {
        match some(key.get_mut(len..)?) {
            Ok(0) => return None,
            Ok(more) => len += more,
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(key)
}

/// Returns bytes of the kernel's source of random numbers.
pub(crate) fn key() -> Option<[u8; 32]> {
    filled(|rest| getrandom(rest, GetRandomFlags::empty())).or_else(|| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = open(c"/dev/urandom", flags, Mode::empty()).ok()?;
        filled(|rest| read(&file, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ() {
        let (one, other) = (key().expect("a source"), key().expect("a source"));
        assert_ne!(one, other);
        assert!(filled(|_| Err(Errno::NOSYS)).is_none());
        let mut given = 0_u8;
        let by_one = filled(|rest| {
            given += 1;
            *rest.first_mut().ok_or(Errno::FAULT)? = given;
            Ok(1)
        });
        assert_eq!(by_one.map(|key| key[31]), Some(32));
    }
}
