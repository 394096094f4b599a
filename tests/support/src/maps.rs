//! Reads the mappings and the file descriptors of a process from `/proc` (proc(5)).

use std::fs;
use std::io;
use std::path::PathBuf;

/// Holds the access rights of a mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Perms {
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// It can be executed.
    pub execute: bool,
    /// Writes reach the mapped object; otherwise they are private.
    pub shared: bool,
}

/// Holds one line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first address.
    pub start: usize,
    /// The address after the last.
    pub end: usize,
    /// The access rights.
    pub perms: Perms,
    /// The offset in the mapped file.
    pub offset: u64,
    /// The device of the mapped file, `major:minor`.
    pub device: String,
    /// The inode of the mapped file; two views of one object share it.
    pub inode: u64,
    /// The path or the bracketed name; empty for anonymous memory.
    pub path: String,
}

impl Mapping {
    /// Says whether `address` lies within.
    pub fn contains(&self, address: usize) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// Says whether any byte of `start..end` lies within.
    pub fn overlaps(&self, start: usize, end: usize) -> bool {
        self.start < end && start < self.end
    }
}

/// Reads the mappings of this process.
///
/// # Errors
///
/// `/proc` is not mounted.
pub fn of_self() -> io::Result<Vec<Mapping>> {
    read("/proc/self/maps")
}

/// Reads the mappings of the process `pid`.
///
/// # Errors
///
/// There is no such process, or it is not the caller's to look into.
pub fn of(pid: libc::pid_t) -> io::Result<Vec<Mapping>> {
    read(&format!("/proc/{pid}/maps"))
}

/// Finds the mapping of this process that holds `address`.
///
/// # Errors
///
/// As [`of_self`].
pub fn find(address: usize) -> io::Result<Option<Mapping>> {
    Ok(of_self()?.into_iter().find(|m| m.contains(address)))
}

/// Parses the text of a `maps` file; none if a line is malformed.
pub fn parse(text: &str) -> Option<Vec<Mapping>> {
    text.lines().map(parse_line).collect()
}

/// Reads and parses a `maps` file.
fn read(path: &str) -> io::Result<Vec<Mapping>> {
    let text = fs::read_to_string(path)?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
}

/// Parses `start-end perms offset device inode   path`.
fn parse_line(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut field = || {
        let (field, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = tail;
        field
    };
    let (start, end) = parse_range(field())?;
    let perms = parse_perms(field())?;
    let offset = u64::from_str_radix(field(), 16).ok()?;
    let device = field().to_owned();
    let inode = field().parse().ok()?;
    // The path is the rest of the line: it may hold spaces.
    Some(Mapping {
        start,
        end,
        perms,
        offset,
        device,
        inode,
        path: rest.trim_start().to_owned(),
    })
}

/// Parses `start-end`.
fn parse_range(field: &str) -> Option<(usize, usize)> {
    let (start, end) = field.split_once('-')?;
    Some((
        usize::from_str_radix(start, 16).ok()?,
        usize::from_str_radix(end, 16).ok()?,
    ))
}

/// Parses `rwxp`.
fn parse_perms(field: &str) -> Option<Perms> {
    let &[r, w, x, s] = field.as_bytes() else {
        return None;
    };
    Some(Perms {
        read: r == b'r',
        write: w == b'w',
        execute: x == b'x',
        shared: s == b's',
    })
}

/// Reads the size in bytes of the pages that back `address`; none if it is not mapped.
///
/// # Errors
///
/// As [`of_self`].
pub fn kernel_page_size(address: usize) -> io::Result<Option<usize>> {
    Ok(smaps_field(address, "KernelPageSize")?.map(|kib| kib * 1024))
}

/// Reads the number of a field of `/proc/self/smaps` (in kB for sizes) for the mapping of
/// `address`.
///
/// None if the address is not mapped or the kernel has no such field.
///
/// # Errors
///
/// As [`of_self`].
pub fn smaps_field(address: usize, field: &str) -> io::Result<Option<usize>> {
    let text = fs::read_to_string("/proc/self/smaps")?;
    let mut inside = false;
    for line in text.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if let Some((start, end)) = parse_range(first) {
            inside = (start..end).contains(&address);
        } else if inside && first.strip_suffix(':') == Some(field) {
            return Ok(line.split_whitespace().nth(1).and_then(|n| n.parse().ok()));
        }
    }
    Ok(None)
}

/// Describes an open file descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFd {
    /// The descriptor.
    pub number: i32,
    /// It is closed by `execve`.
    pub cloexec: bool,
    /// What it is open on.
    pub target: PathBuf,
}

/// Lists the open file descriptors of this process, in ascending order.
///
/// # Errors
///
/// As [`of_self`].
pub fn open_fds() -> io::Result<Vec<OpenFd>> {
    let entries: Vec<_> = fs::read_dir("/proc/self/fd")?.collect::<io::Result<_>>()?;
    // The directory's own descriptor is closed by now, and falls out as one that has no info.
    let numbers = entries
        .iter()
        .filter_map(|e| e.file_name().to_str()?.parse().ok());
    let mut fds: Vec<OpenFd> = numbers.filter_map(describe).collect();
    fds.sort_by_key(|fd| fd.number);
    Ok(fds)
}

/// Counts the open file descriptors of this process.
///
/// # Errors
///
/// As [`of_self`].
pub fn count_fds() -> io::Result<usize> {
    Ok(open_fds()?.len())
}

/// Describes the descriptor `number`; none if it was closed in the meantime.
fn describe(number: i32) -> Option<OpenFd> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
    let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    Some(OpenFd {
        number,
        cloexec: flags & libc::O_CLOEXEC != 0,
        target,
    })
}
