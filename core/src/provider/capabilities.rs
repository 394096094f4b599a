//! What a provider can do.

#[cfg(doc)]
use super::{
    CoreSync, DualMapProvider, DualMapping, Dump, ErrorKind, PageProvider, PageWish, Target,
};

bitflags::bitflags! {
    /// What a provider can do, as far as its host tells without anything being tried. An absent bit
    /// is an obligation of the caller; one that is present may still meet a filter or a security
    /// module, which the [probe](crate::probe) finds out.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Capabilities: u32 {
        /// `protect` can take a page from writable to executable and back, where the ceiling of its
        /// commit says so. Without it (Linux under MDWE) code needs a dual mapping.
        const TOGGLE_EXEC = 1 << 0;
        /// Memory can be writable and executable at once.
        const RWX = 1 << 1;
        /// [`Target::Into`] replaces a reservation in one step. Without it another thread's mapping
        /// may get in between, which is reported as [`ErrorKind::RangeLost`].
        const ATOMIC_INTO = 1 << 2;
        /// There are strategies for dual mappings.
        const DUAL = 1 << 3;
        /// [`DualMapProvider::purge_dual`] works, for mappings that [purge](DualMapping::purges).
        const PURGE_DUAL = 1 << 4;
        /// Large pages may be asked for with a chance of getting them.
        const LARGE_PAGES = 1 << 5;
        /// [`CoreSync::sync_cores`] works.
        const CORE_SYNC = 1 << 6;
        /// Pages can refuse indirect branches that do not land on a landing pad (AArch64 BTI).
        const LANDING_PADS = 1 << 7;
        /// [`PageProvider::move_pages`] works.
        const MOVE_PAGES = 1 << 8;
        /// Memory is executable only where that was asked for. Without it (Linux under
        /// `personality(READ_IMPLIES_EXEC)`) whatever is readable is executable too: writable views
        /// and committed pages are both at once, though nothing asked for it.
        const EXEC_ONLY_WHERE_ASKED = 1 << 9;
        /// The host keeps names of private mappings, and keeps mappings with different ones apart.
        const NAMES = 1 << 10;
        /// The host leaves mappings [out of core files](Dump::Excluded), and keeps those apart from
        /// others.
        const CORE_FILES = 1 << 11;
        /// The host takes advice about the sizes of pages ([`PageWish::Transparent`],
        /// [`PageWish::Never`]), and keeps mappings apart that were given different advice.
        const PAGE_ADVICE = 1 << 12;
    }
}
