//! What the process map says of a range of addresses.

use alloc::vec::Vec;
use hostmem_core::{
    page::AddressRange,
    provider::{MapEntry, MapFlags, ProcessMap},
};

/// The most mappings that a snapshot can have. Room for them is made before the map is read, as
/// allocating would change it.
const MAX_ENTRIES: usize = 1024;

/// The mappings in a window, cut off at its ends. How a host divides equal neighbours into
/// mappings is its own affair, so they are joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    entries: Vec<MapEntry>,
}

impl Snapshot {
    /// Reads the map; `None` where the host does not show it.
    pub(crate) fn of(map: &impl ProcessMap, window: AddressRange) -> Option<Self> {
        let mut entries = Vec::with_capacity(MAX_ENTRIES);
        let walked = map.walk(&mut |entry| {
            if let Some(range) = entry.range.intersect(window) {
                push(&mut entries, MapEntry { range, ..entry });
            }
            entry.range.last() < window.last() && entries.len() < MAX_ENTRIES
        });
        walked.ok()?;
        Some(Self { entries })
    }

    /// Says whether nothing is mapped in the window.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the flags of the only mapping, if it fills `window`.
    pub(crate) fn uniform(&self, window: AddressRange) -> Option<MapFlags> {
        match self.entries.as_slice() {
            [only] if only.range == window => Some(only.flags),
            _ => None,
        }
    }
}

fn push(entries: &mut Vec<MapEntry>, entry: MapEntry) {
    if let Some(last) = entries.last_mut()
        && last.flags == entry.flags
        && last.range.last().checked_add(1) == Some(entry.range.start())
        && let Some(joined) = AddressRange::new(last.range.start(), entry.range.last())
    {
        last.range = joined;
        return;
    }
    entries.push(entry);
}
