//! Limits: what is left of them.
//!
//! A limit that is not set costs one system call; one that is, a look into `/proc/self/status`.

use crate::{
    map::visit_lines,
    pages::Linux,
    probe::{number, read_number},
    raw,
};
use hostmem_core::provider::{ProcessMap, Resource};

/// `RLIM_INFINITY`.
const UNLIMITED: u64 = u64::MAX;

/// The bit of `CAP_IPC_LOCK` in a set of capabilities (`capabilities(7)`): its holder may lock
/// memory beyond the limit.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// Returns how much of a resource is left.
pub(crate) fn left(of: Resource) -> Option<usize> {
    match of {
        Resource::Addresses => left_of(raw::RLIMIT_AS, |status| status.size),
        Resource::Memory => left_of(raw::RLIMIT_DATA, |status| status.data),
        Resource::Locked => locked_left(),
        Resource::FileSize => limit(raw::RLIMIT_FSIZE),
        Resource::Mappings => mappings_left(),
        _ => None,
    }
}

fn mappings_left() -> Option<usize> {
    let limit = read_number(None, c"/proc/sys/vm/max_map_count")?;
    let mut used = 0usize;
    let walked = Linux.walk(&mut |_| {
        used += 1;
        true
    });
    walked.ok().map(|()| limit.saturating_sub(used))
}

/// Returns a limit in bytes; `None` where there is none.
pub(crate) fn limit(of: usize) -> Option<usize> {
    let limit = raw::limit(of).ok().filter(|limit| *limit != UNLIMITED)?;
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Returns what a limit leaves beside what is used, in bytes.
fn left_of(of: usize, used: impl FnOnce(&Status) -> usize) -> Option<usize> {
    let limit = limit(of)?;
    let used = Status::read().map_or(0, |status| used(&status));
    Some(limit.saturating_sub(used))
}

/// Returns how much more may be locked, where this process locks memory and is limited.
fn locked_left() -> Option<usize> {
    let limit = limit(raw::RLIMIT_MEMLOCK)?;
    let status = Status::read()?;
    if status.locked == 0 || status.capabilities & CAP_IPC_LOCK != 0 {
        return None;
    }
    Some(limit.saturating_sub(status.locked))
}

/// What `/proc/self/status` says, in bytes (`proc_pid_status(5)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    /// `VmSize`.
    size: usize,
    /// `VmLck`.
    locked: usize,
    /// `VmData`: private and writable memory.
    data: usize,
    /// `CapEff`.
    capabilities: u64,
}

impl Status {
    /// Reads the file; `None` where that is not possible.
    fn read() -> Option<Self> {
        let mut found = Self::default();
        visit_lines(c"/proc/self/status", &mut |line| {
            found.note(line).unwrap_or_default();
            true
        })
        .ok()?;
        Some(found)
    }

    /// Notes what a line of the form `Name:    1234 kB` says.
    fn note(&mut self, line: &[u8]) -> Option<()> {
        let mut parts = line.splitn(2, |&byte| byte == b':');
        let (name, value) = (parts.next()?, parts.next()?);
        let bytes = || number(value.strip_suffix(b" kB")?).map(|n| n.saturating_mul(1024));
        match name {
            b"VmSize" => self.size = bytes()?,
            b"VmLck" => self.locked = bytes()?,
            b"VmData" => self.data = bytes()?,
            b"CapEff" => {
                let text = core::str::from_utf8(value).ok()?;
                self.capabilities = u64::from_str_radix(text.trim_ascii(), 16).ok()?;
            }
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "Name:\tVmSize: 7\nVmPeak:\t  900 kB\nVmSize:\t  800 kB\nVmLck:\t       0 kB\n\
            VmData:\t    52 kB\nCapEff:\t000001ffffffffff\nGroups:\t1 2 3\n";
        let mut found = Status::default();
        let noted = text
            .lines()
            .filter(|line| found.note(line.as_bytes()).is_some());
        assert_eq!(noted.count(), 7);
        let expected = Status {
            size: 800 << 10,
            locked: 0,
            data: 52 << 10,
            capabilities: 0x1ff_ffff_ffff,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn this_process_has_a_size() {
        let status = Status::read().expect("there is /proc here");
        assert!(status.size > status.data && status.data > 0);
    }
}
