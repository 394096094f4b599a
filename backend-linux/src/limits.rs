//! Limits: what is left of them.
//!
//! A limit that is not set costs one system call; one that is, a look into `/proc/self/status`.

use crate::{LinuxProvider, raw};
use hostmem_core::provider::{ProcessMap, Resource};
use rustix::{
    fs::{Mode, OFlags, open},
    io::{Errno, read},
};

/// `RLIM_INFINITY`.
const UNLIMITED: u64 = u64::MAX;

/// The bit of `CAP_IPC_LOCK` in a set of capabilities (`capabilities(7)`): its holder may lock
/// memory beyond the limit.
const CAP_IPC_LOCK: u64 = 1 << 14;

impl LinuxProvider {
    pub(crate) fn resource_left(&self, of: Resource) -> Option<usize> {
        match of {
            Resource::Addresses => left(raw::RLIMIT_AS, |status| status.size),
            Resource::Memory => left(raw::RLIMIT_DATA, |status| status.data),
            Resource::Locked => locked_left(),
            Resource::FileSize => limit(raw::RLIMIT_FSIZE),
            Resource::Mappings => self.mappings_left(),
            _ => None,
        }
    }

    fn mappings_left(&self) -> Option<usize> {
        let limit = crate::probe::read_number(None, c"/proc/sys/vm/max_map_count")?;
        let mut used = 0usize;
        self.walk(&mut |_| {
            used += 1;
            true
        })
        .ok()?;
        Some(limit.saturating_sub(used))
    }
}

/// Returns a limit in bytes; `None` where there is none.
fn limit(of: usize) -> Option<usize> {
    let limit = raw::limit(of).ok().filter(|limit| *limit != UNLIMITED)?;
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Returns what a limit leaves beside what is used, in bytes.
fn left(of: usize, used: impl FnOnce(&Status) -> u64) -> Option<usize> {
    let limit = limit(of)?;
    let used = Status::read().map_or(0, |status| used(&status));
    Some(limit.saturating_sub(usize::try_from(used).unwrap_or(usize::MAX)))
}

/// Returns how much more may be locked, where this process locks memory and is limited.
fn locked_left() -> Option<usize> {
    let limit = limit(raw::RLIMIT_MEMLOCK)?;
    let status = Status::read()?;
    if status.locked == 0 || status.capabilities & CAP_IPC_LOCK != 0 {
        return None;
    }
    let locked = usize::try_from(status.locked).unwrap_or(usize::MAX);
    Some(limit.saturating_sub(locked))
}

/// What `/proc/self/status` says, in bytes (`proc_pid_status(5)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    /// `VmSize`.
    size: u64,
    /// `VmLck`.
    locked: u64,
    /// `VmData`: private and writable memory.
    data: u64,
    /// `CapEff`.
    capabilities: u64,
}

impl Status {
    /// Reads the file; `None` where that is not possible.
    fn read() -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = open(c"/proc/self/status", flags, Mode::empty()).ok()?;
        // Longer than the file is, but for a process with hundreds of groups. What is wanted comes
        // behind these, so that it is read on until the end.
        let mut buffer = [0; 2048];
        let mut parser = Parser::default();
        loop {
            let len = match read(&file, &mut buffer) {
                Err(Errno::INTR) => continue,
                result => result.ok()?,
            };
            let bytes = buffer.get(..len)?;
            if bytes.is_empty() {
                return Some(parser.found);
            }
            bytes.iter().for_each(|&byte| parser.step(byte));
        }
    }
}

/// Reads lines of the form `Name:    1234 kB` byte by byte.
#[derive(Default)]
struct Parser {
    /// The start of the line.
    name: [u8; 8],
    len: usize,
    number: u64,
    in_number: bool,
    found: Status,
}

impl Parser {
    fn step(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                let name = self.name.get(..self.len).unwrap_or_default();
                let bytes = self.number.saturating_mul(1024);
                match name {
                    b"VmSize" => self.found.size = bytes,
                    b"VmLck" => self.found.locked = bytes,
                    b"VmData" => self.found.data = bytes,
                    b"CapEff" => self.found.capabilities = self.number,
                    _ => {}
                }
                *self = Self {
                    found: self.found,
                    ..Self::default()
                };
            }
            b':' => self.in_number = true,
            _ if !self.in_number => {
                if let Some(place) = self.name.get_mut(self.len) {
                    *place = byte;
                    self.len += 1;
                }
            }
            // Capabilities are hexadecimal, and so are no letters of `kB`.
            _ => {
                let radix = if self.name.starts_with(b"Cap") {
                    16
                } else {
                    10
                };
                if let Some(digit) = char::from(byte).to_digit(radix) {
                    let shifted = self.number.saturating_mul(radix.into());
                    self.number = shifted.saturating_add(digit.into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "Name:\tVmSize: 7\nVmPeak:\t  900 kB\nVmSize:\t  800 kB\nVmLck:\t       0 kB\n\
            VmData:\t    52 kB\nCapEff:\t000001ffffffffff\nGroups:\t1 2 3\n";
        let mut parser = Parser::default();
        text.bytes().for_each(|byte| parser.step(byte));
        let expected = Status {
            size: 800 << 10,
            locked: 0,
            data: 52 << 10,
            capabilities: 0x1ff_ffff_ffff,
        };
        assert_eq!(parser.found, expected);
    }

    #[test]
    fn this_process_has_a_size() {
        let status = Status::read().expect("there is /proc here");
        assert!(status.size > status.data && status.data > 0);
    }
}
