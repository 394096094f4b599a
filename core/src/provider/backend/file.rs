//! Files without a name: what they are called in the moment that they have one, how long they may
//! be, and zeros to fill them.

use crate::{
    page::PageSize,
    provider::{DualRequest, Error, ErrorKind, PageWish},
};
use core::{
    ffi::CStr,
    sync::atomic::{AtomicU32, Ordering},
};

/// Calls `create` with names of this process until one is new: `prefix`, the number of the process,
/// and a number from `counter`.
///
/// # Errors
///
/// The error of `create`; [`ErrorKind::Taken`] where all names tried are in use.
pub fn with_new_name<T>(
    prefix: &[u8],
    process: u32,
    counter: &AtomicU32,
    create: impl Fn(&CStr) -> Result<T, Error>,
) -> Result<T, Error> {
    /// Names tried. Others may only have taken them on purpose, or before a process of the same
    /// number died in between.
    const TRIES: u32 = 16;
    let mut result = Err(ErrorKind::Taken.into());
    for _ in 0..TRIES {
        let name = Text::new(prefix).number(process).byte(b'-');
        let name = name.number(counter.fetch_add(1, Ordering::Relaxed));
        result = create(name.as_c_str());
        if !matches!(&result, Err(error) if error.kind() == ErrorKind::Taken) {
            break;
        }
    }
    result
}

/// Asks whether a file may be `len` bytes long where the limit is `limit`: a system answers one
/// that grows beyond by `SIGXFSZ`. Its error would be `errno`.
///
/// # Errors
///
/// [`ErrorKind::Exhausted`] where a shorter file may be made, [`ErrorKind::Denied`] where not even
/// one page may.
pub fn check_file_limit(
    limit: Option<usize>,
    len: u64,
    page: PageSize,
    errno: i32,
) -> Result<(), Error> {
    let Some(limit) = limit.filter(|&limit| (limit as u64) < len) else {
        return Ok(());
    };
    let kind = if limit < page.bytes() {
        ErrorKind::Denied
    } else {
        ErrorKind::Exhausted
    };
    Err(Error::os(kind, errno))
}

/// Writes zeros into a file from `from` up to `len`, by a call that writes bytes at an offset, may
/// write less at once, and says how many.
///
/// # Errors
///
/// What the call says; [`ErrorKind::Exhausted`] where it writes nothing.
pub fn write_zeros(
    from: u64,
    len: u64,
    mut write: impl FnMut(&[u8], u64) -> Result<usize, Error>,
) -> Result<(), Error> {
    /// Bytes written at a time.
    const BLOCK: usize = 16 << 10;
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    let mut at = from;
    while at < len {
        let rest = usize::try_from(len - at).map_or(BLOCK, |rest| rest.min(BLOCK));
        match write(&ZEROS[..rest], at)? {
            0 => return Err(ErrorKind::Exhausted.into()),
            // A write is never longer than the block.
            written => at += written as u64,
        }
    }
    Ok(())
}

/// Returns the size of the large pages that a request asks for.
///
/// # Errors
///
/// [`ErrorKind::InvalidArgument`] where it asks for none, or its length is no multiple of it.
pub fn large_page_of(request: &DualRequest<'_>) -> Result<PageSize, Error> {
    let size = match request.pages {
        PageWish::Large { bytes, .. } => PageSize::new(bytes),
        _ => None,
    };
    size.filter(|size| size.is_aligned(request.len))
        .ok_or(ErrorKind::InvalidArgument.into())
}

/// A short C string, made without allocating.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl Text {
    /// Room for a prefix of 14 characters, two numbers of ten digits, one dash, and the end.
    const CAPACITY: usize = 40;

    /// Begins a text.
    #[must_use]
    pub fn new(prefix: &[u8]) -> Self {
        let text = Self {
            bytes: [0; Self::CAPACITY],
            len: 0,
        };
        prefix.iter().fold(text, |text, &byte| text.byte(byte))
    }

    /// Appends a byte, where there is room for it.
    #[must_use]
    pub fn byte(mut self, byte: u8) -> Self {
        // The last byte stays zero.
        debug_assert!(self.len + 1 < Self::CAPACITY, "texts made here fit");
        if self.len + 1 < Self::CAPACITY {
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        self
    }

    /// Appends a number in decimal digits.
    #[must_use]
    pub fn number(self, n: u32) -> Self {
        let text = if n >= 10 { self.number(n / 10) } else { self };
        text.byte(b"0123456789"[(n % 10) as usize])
    }

    /// Returns the text.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn texts_are_c_strings() {
        let text = Text::new(b"/proc/self/fd/").number(0);
        assert_eq!(text.as_c_str(), c"/proc/self/fd/0");
        let longest = Text::new(b"/proc/self/fd/").number(u32::MAX).byte(b'-');
        let longest = longest.number(u32::MAX);
        assert_eq!(longest.as_c_str(), c"/proc/self/fd/4294967295-4294967295");
    }

    #[test]
    fn names_are_tried_until_one_is_new() {
        let (counter, tried) = (AtomicU32::new(7), Cell::new(0));
        let create = |taken: u32, name: &CStr| {
            tried.set(tried.get() + 1);
            if tried.get() <= taken {
                return Err(Error::os(ErrorKind::Taken, 17));
            }
            Ok(name == Text::new(b"x-12-").number(7 + taken).as_c_str())
        };
        let found = with_new_name(b"x-", 12, &counter, |name| create(3, name));
        assert_eq!((found, tried.take()), (Ok(true), 4));
        let none = with_new_name(b"x-", 12, &counter, |name| create(u32::MAX, name));
        assert_eq!(none, Err(Error::os(ErrorKind::Taken, 17)));
        assert_eq!(tried.take(), 16);
        let denied = with_new_name::<()>(b"x-", 12, &counter, |_| {
            tried.set(tried.get() + 1);
            Err(ErrorKind::Denied.into())
        });
        assert_eq!((denied, tried.get()), (Err(ErrorKind::Denied.into()), 1));
    }

    #[test]
    fn a_limit_is_asked_for_a_page_and_for_all() {
        let ask = |limit, len| {
            let asked = check_file_limit(limit, len, PageSize::KIB_4, 27);
            asked.map_err(|e| (e.kind(), e.errno()))
        };
        assert_eq!(ask(None, u64::MAX), Ok(()));
        assert_eq!(ask(Some(8192), 8192), Ok(()));
        let exhausted = Err((ErrorKind::Exhausted, Some(27)));
        assert_eq!(ask(Some(8191), 8192), exhausted);
        assert_eq!(ask(Some(4096), 8192), exhausted);
        assert_eq!(ask(Some(4095), 8192), Err((ErrorKind::Denied, Some(27))));
    }

    #[test]
    fn zeros_are_written_up_to_the_end() {
        let mut end = 100;
        let written = write_zeros(100, 50_000, |bytes, at| {
            assert_eq!(at, end);
            assert!(bytes.iter().all(|&byte| byte == 0));
            let some = bytes.len().min(10_000);
            end += some as u64;
            Ok(some)
        });
        assert_eq!((written, end), (Ok(()), 50_000));
        let full = write_zeros(0, 1, |_, _| Ok(0));
        assert_eq!(full, Err(ErrorKind::Exhausted.into()));
    }

    #[test]
    fn large_pages_are_those_asked_for() {
        let asked = |pages, len| {
            large_page_of(&DualRequest {
                pages,
                ..DualRequest::bytes(len)
            })
        };
        let large = |bytes| PageWish::Large {
            bytes,
            or_base: true,
        };
        let size = PageSize::new(2 << 20).expect("a power of two");
        assert_eq!(asked(large(2 << 20), 4 << 20), Ok(size));
        let invalid = Err(ErrorKind::InvalidArgument.into());
        assert_eq!(asked(large(2 << 20), 1 << 20), invalid);
        assert_eq!(asked(large(3 << 20), 3 << 20), invalid);
        assert_eq!(asked(PageWish::Base, 4 << 20), invalid);
    }
}
