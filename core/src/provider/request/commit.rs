//! How pages are committed, and what they show when their memory is given up.

use crate::page::{Access, Ceiling};

/// Which pages are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageWish {
    /// The host's pages.
    #[default]
    Base,
    /// The host's pages, and advice that larger ones would be welcome.
    Transparent,
    /// The host's pages, and advice that larger ones are not welcome, even where the host gives
    /// them unasked.
    Never,
    /// Pages of `bytes`, a size that the probe lists. Start and length must be multiples of it.
    Large {
        /// The page size in bytes.
        bytes: usize,
        /// Take the host's pages where there are none; what was got is returned.
        or_base: bool,
    },
}

/// What purged pages show until they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purged {
    /// Zero.
    Zero,
    /// Zero or, as long as the host has not taken the memory, the old contents; it may change from
    /// these to zero at any time before the page is written.
    ZeroOrOld,
    /// The old contents: the host keeps the memory, for instance because it is locked.
    Kept,
}

/// How to commit pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The access now.
    pub access: Access,
    /// The most that `protect` may ever ask: `PROT_MAX` on FreeBSD, `PROT_MPROTECT` on NetBSD. Not
    /// every host can hold the caller to it.
    pub ceiling: Ceiling,
    /// The pages wanted.
    pub pages: PageWish,
}

impl Commit {
    /// Ordinary data: readable and writable, never executable.
    pub const READ_WRITE: Self = Self {
        access: Access::ReadWrite,
        ceiling: Ceiling::ReadWrite,
        pages: PageWish::Base,
    };
}
