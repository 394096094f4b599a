//! Lines of the files that the kernel writes in `/proc`.

use core::ffi::CStr;
use rustix::{
    fs::{Mode, OFlags, open},
    io::{Errno, read, retry_on_intr},
};

/// Bytes read at a time. Of the process map the kernel returns whole lines, as many as fit, and no
/// more than a page of them, however long the buffer.
const BUFFER: usize = 4096;

/// Bytes that are kept of a line longer than the buffer: more than those of which anything is
/// wanted.
const LINE: usize = 128;

/// Calls `visit` for every line of a file until it returns `false`.
pub(crate) fn visit_lines(path: &CStr, visit: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Errno> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    visit_read(|bytes| retry_on_intr(|| read(&file, &mut *bytes)), visit)
}

fn visit_read(
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
    visit: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(), Errno> {
    let (mut buffer, mut kept) = ([0; BUFFER], 0);
    loop {
        let len = read(&mut buffer[kept..])?;
        let (mut start, end) = (0, kept + len);
        if len == 0 {
            return Ok(());
        }
        while let Some(len) = buffer[start..end].iter().position(|&byte| byte == b'\n') {
            if !visit(&buffer[start..start + len]) {
                return Ok(());
            }
            start += len + 1;
        }
        kept = end - start;
        if kept == BUFFER {
            kept = LINE;
        }
        buffer.copy_within(start..start + kept, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a text by pieces; returns how many lines there were, each of which `check` is shown.
    fn count(mut text: &[u8], piece: usize, check: impl Fn(usize, &[u8]) -> bool) -> usize {
        let mut seen = 0;
        let read = |bytes: &mut [u8]| {
            let len = piece.min(text.len()).min(bytes.len());
            let (now, later) = text.split_at(len);
            bytes[..len].copy_from_slice(now);
            text = later;
            Ok(len)
        };
        let visited = visit_read(read, &mut |line| {
            seen += 1;
            check(seen - 1, line)
        });
        assert_eq!(visited, Ok(()));
        seen
    }

    #[test]
    fn lines_are_whole_wherever_reads_split_them() {
        let text = b"one\n\nthree 3\nfour and more\nnot ended";
        let expected: [&[u8]; 4] = [b"one", b"", b"three 3", b"four and more"];
        for piece in 1..=text.len() {
            let seen = count(text, piece, |n, line| line == expected[n]);
            assert_eq!(seen, expected.len(), "read by {piece}");
        }
        assert_eq!(count(text, 9, |n, _| n == 0), 2, "the second was enough");
    }

    #[test]
    fn of_long_lines_the_start_is_kept() {
        let mut text = [b'x'; 3 * BUFFER];
        text[..LINE].fill(b'a');
        text[3 * BUFFER - 3..].copy_from_slice(b"\nb\n");
        for piece in [1000, BUFFER] {
            let seen = count(&text, piece, |n, line| match n {
                0 => line.starts_with(&[b'a'; LINE]),
                _ => line == b"b",
            });
            assert_eq!(seen, 2);
        }
    }
}
