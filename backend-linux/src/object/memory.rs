//! When and how a file gets its memory.

use crate::{errno::error, probe::read_number, raw};
use hostmem_core::{
    page::PageSize,
    provider::{
        Error,
        backend::{Answer, write_zeros},
    },
};
use rustix::{
    fd::OwnedFd,
    fs::{FallocateFlags, fallocate, fstatvfs},
    io::{Errno, pwrite, retry_on_intr},
};

/// When a file gets its memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// At the first access to a page, which cannot fail.
    OnAccess,
    /// Before it is used, since an access that finds none is answered by a signal.
    Ahead,
}

/// Says when a file of `memfd_create` gets its memory. Under strict accounting
/// (`vm.overcommit_memory` = 2) its pages are charged one by one as they are first used, and a page
/// that cannot be charged is a `SIGBUS`. What cannot be found out is taken for strict. An answer
/// serves for short files, which are many, until a longer one asks anew.
pub(super) fn memfd_memory(len: u64) -> Memory {
    /// Asking takes a part of what mapping this takes.
    const LONG: u64 = 1 << 20;
    static ON_ACCESS: Answer = Answer::new();
    let known = ON_ACCESS.known().filter(|_| len < LONG);
    let on_access = known.unwrap_or_else(|| {
        let setting = read_number(None, c"/proc/sys/vm/overcommit_memory");
        let on_access = matches!(setting, Some(0 | 1));
        ON_ACCESS.learn(on_access);
        on_access
    });
    if on_access {
        Memory::OnAccess
    } else {
        Memory::Ahead
    }
}

/// Allocates all of a file: a full file system shall fail here, not kill the process at a later
/// access.
pub(super) fn allocate(file: &OwnedFd, len: u64, page: PageSize) -> Result<(), Error> {
    /// Bytes asked for in one call. A signal that comes meanwhile undoes the call on some file
    /// systems, so that one long call would never end under a timer.
    const PIECE: u64 = 1 << 20;
    /// Signals that are sat out.
    const TRIES: u32 = 1000;
    // What cannot fit is not begun: pieces would take all that others have left.
    if len > room_for(file) {
        return Err(error(Errno::NOSPC));
    }
    let page = page.bytes() as u64;
    let (mut at, mut piece, mut tries) = (0, PIECE.max(page), TRIES);
    while at < len {
        let now = piece.min(len - at);
        match fallocate(file, FallocateFlags::KEEP_SIZE, at, now) {
            Ok(()) => at += now,
            Err(Errno::INTR) if tries > 0 => {
                tries -= 1;
                piece = (piece / 2).max(page);
            }
            // The file system knows no other way.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                return write_zeros(at, len, |zeros, at| {
                    retry_on_intr(|| pwrite(file, zeros, at)).map_err(error)
                });
            }
            Err(errno) => return Err(error(errno)),
        }
    }
    Ok(())
}

/// Returns how many bytes a file can have at most: what its file system has left, or the memory of
/// the host where the file system has no limit of its own.
fn room_for(file: &OwnedFd) -> u64 {
    let Ok(system) = fstatvfs(file) else {
        return u64::MAX;
    };
    if system.f_blocks != 0 {
        return system.f_bavail.saturating_mul(system.f_frsize);
    }
    raw::memory().unwrap_or(u64::MAX)
}
