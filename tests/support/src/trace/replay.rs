//! Replays mapping calls on a model of an address space.

use std::collections::BTreeMap;

use super::event::Call;
use crate::maps::{Mapping, Perms};

/// The unit of mapping. A kernel with larger pages rounds to those; what the model then lacks
/// counts as memory of unknown history.
const PAGE: u64 = 4096;
/// A flag of personality(2).
const READ_IMPLIES_EXEC: u64 = 0x040_0000;
/// The argument of personality(2) that asks only, as the kernel reads it: an unsigned int.
const PERSONALITY_QUERY: u64 = 0xffff_ffff;
/// A flag of mremap(2).
const MREMAP_DONTUNMAP: u64 = 4;

/// What is known of the pages of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rights {
    write: bool,
    execute: bool,
    /// They were writable at some time, through this mapping.
    was_writable: bool,
}

/// Memory that no recorded call mapped: the heap of `brk`, or a stack that grew.
const UNKNOWN: Rights = Rights {
    write: true,
    execute: false,
    was_writable: true,
};

/// A range of addresses: start, and the address after the last.
pub(super) type Range = (u64, u64);

/// What a call exposed.
#[derive(Default)]
pub(super) struct Findings {
    /// Ranges that became writable and executable at once.
    pub(super) both: Vec<Range>,
    /// Ranges that became executable after they had been writable.
    pub(super) gained: Vec<Range>,
}

/// Models an address space: disjoint ranges with their rights, by start.
#[derive(Clone, Default)]
pub(super) struct Model {
    pieces: BTreeMap<u64, (u64, Rights)>,
    /// What can be read can be executed. Set for good by the first thread that asks for it, though
    /// the kernel keeps it per thread: rather a false alarm than a missed one.
    pub(super) read_implies_exec: bool,
}

impl Model {
    /// Maps what the kernel mapped for a program.
    pub(super) fn load(&mut self, mappings: &[Mapping], findings: &mut Findings) {
        for m in mappings {
            self.map((m.start as u64, m.end as u64), rights_of(m.perms), findings);
        }
    }

    /// Replays a call.
    pub(super) fn apply(&mut self, call: &Call, findings: &mut Findings) {
        let [first, second, third, ..] = call.args;
        let range = (first, first.saturating_add(round_up(second)));
        match (call.number, call.errno()) {
            (libc::SYS_mprotect | libc::SYS_pkey_mprotect, None) => {
                self.protect(range, self.rights(third), findings);
            }
            (libc::SYS_mprotect | libc::SYS_pkey_mprotect, Some(_)) => {
                for m in &call.left {
                    let part = (range.0.max(m.start as u64), range.1.min(m.end as u64));
                    self.protect(part, rights_of(m.perms), findings);
                }
            }
            (_, Some(_)) => {}
            (libc::SYS_mmap, None) => {
                let start = call.result.cast_unsigned();
                let end = start.saturating_add(round_up(second));
                self.map((start, end), self.rights(third), findings);
            }
            (libc::SYS_munmap, None) => drop(self.unmap(range)),
            (libc::SYS_mremap, None) => self.remap(call, findings),
            (libc::SYS_shmat, None) => self.load(&call.left, findings),
            (libc::SYS_personality, None) => {
                let asked = first & PERSONALITY_QUERY;
                self.read_implies_exec |=
                    asked != PERSONALITY_QUERY && asked & READ_IMPLIES_EXEC != 0;
            }
            // shmdt does not tell its length. What stays behind does no harm: before it can be
            // protected anew it must be mapped anew.
            _ => {}
        }
    }

    fn map(&mut self, range: Range, rights: Rights, findings: &mut Findings) {
        self.unmap(range);
        self.insert(range, rights);
        if rights.write && rights.execute {
            findings.both.push(range);
        }
    }

    fn protect(&mut self, (start, end): Range, rights: Rights, findings: &mut Findings) {
        if rights.write && rights.execute {
            findings.both.push((start, end));
        }
        let known = self.unmap((start, end));
        for (range, old) in with_gaps((start, end), known) {
            if rights.execute && !old.execute && old.was_writable {
                findings.gained.push(range);
            }
            let was_writable = old.was_writable || rights.write;
            self.insert(
                range,
                Rights {
                    was_writable,
                    ..rights
                },
            );
        }
    }

    /// Moves, grows, shrinks or duplicates a mapping.
    fn remap(&mut self, call: &Call, findings: &mut Findings) {
        let [old, old_len, new_len, flags, ..] = call.args;
        let (old_len, new_len) = (round_up(old_len), round_up(new_len));
        let new = call.result.cast_unsigned();
        // An old length of zero duplicates a shared mapping and leaves it in place.
        let source = self.unmap((old, old.saturating_add(old_len.max(PAGE))));
        if old_len == 0 || flags & MREMAP_DONTUNMAP != 0 {
            source
                .iter()
                .for_each(|&(range, rights)| self.insert(range, rights));
        }
        let target = (new, new.saturating_add(new_len));
        self.unmap(target);
        for (index, &((start, end), rights)) in source.iter().enumerate() {
            let moved = |address: u64| new.saturating_add(address - old).min(target.1);
            // What a mapping grows by is like its last page.
            let end = if index + 1 == source.len() {
                target.1
            } else {
                moved(end)
            };
            let range = (moved(start), end);
            self.insert(range, rights);
            if rights.write && rights.execute && range.0 < range.1 {
                findings.both.push(range);
            }
        }
    }

    fn insert(&mut self, (start, end): Range, rights: Rights) {
        if start < end {
            self.pieces.insert(start, (end, rights));
        }
    }

    /// Takes out what is known of a range.
    fn unmap(&mut self, (start, end): Range) -> Vec<(Range, Rights)> {
        if start >= end {
            return Vec::new();
        }
        self.split(start);
        self.split(end);
        let starts: Vec<u64> = self.pieces.range(start..end).map(|(&s, _)| s).collect();
        let take = |s| self.pieces.remove(&s).map(|(e, rights)| ((s, e), rights));
        starts.into_iter().filter_map(take).collect()
    }

    /// Makes `at` a border between pieces.
    fn split(&mut self, at: u64) {
        if let Some((_, (end, rights))) = self.pieces.range_mut(..at).next_back()
            && *end > at
        {
            let tail = (core::mem::replace(end, at), *rights);
            self.pieces.insert(at, tail);
        }
    }

    fn rights(&self, prot: u64) -> Rights {
        let has = |bit: i32| prot & u64::from(bit.cast_unsigned()) != 0;
        let implied = self.read_implies_exec && has(libc::PROT_READ);
        let write = has(libc::PROT_WRITE);
        Rights {
            write,
            execute: has(libc::PROT_EXEC) || implied,
            was_writable: write,
        }
    }
}

fn rights_of(perms: Perms) -> Rights {
    Rights {
        write: perms.write,
        execute: perms.execute,
        was_writable: perms.write,
    }
}

/// Fills the gaps between known pieces of a range with unknown memory.
fn with_gaps((start, end): Range, known: Vec<(Range, Rights)>) -> Vec<(Range, Rights)> {
    let mut all = Vec::with_capacity(2 * known.len() + 1);
    let mut reached = start;
    for piece in known {
        all.push(((reached, piece.0.0), UNKNOWN));
        reached = piece.0.1;
        all.push(piece);
    }
    all.push(((reached, end), UNKNOWN));
    all.retain(|((start, end), _)| start < end);
    all
}

/// Rounds a length up to pages, as the kernel does.
fn round_up(len: u64) -> u64 {
    len.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}
