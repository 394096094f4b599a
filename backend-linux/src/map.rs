//! The process map: `/proc/self/maps`, read into a fixed buffer.

mod lines;

pub(crate) use lines::visit_lines;

use crate::{errno::error, pages::Linux, raw};
use hostmem_core::{
    page::{AddressRange, PageRange},
    provider::{AddressSpace, Error, MapEntry, MapFlags, ProcessMap},
};
use rustix::{
    fs::{Mode, OFlags, open},
    ioctl,
};

impl ProcessMap for Linux {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        visit_lines(c"/proc/self/maps", &mut |line| {
            entry(line).is_none_or(&mut *visit)
        })
        .map_err(error)
    }

    fn address_space(&self) -> AddressSpace {
        let limit = raw::limit(raw::RLIMIT_STACK).ok();
        AddressSpace {
            stack: raw::stack_address().ok().flatten(),
            stack_limit: limit.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            program_break: raw::program_break().ok(),
            ..AddressSpace::default()
        }
    }
}

/// `PROCMAP_QUERY` of `linux/fs.h`.
const PROCMAP_QUERY: ioctl::Opcode = ioctl::opcode::read_write::<Query>(b'f', 17);

/// `struct procmap_query` of `linux/fs.h`, for a query that asks for neither name nor build number.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Query {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    /// What else the kernel tells, and could be asked for.
    rest: [u64; 8],
}

/// Says whether a range lies in one mapping; `None` where the kernel does not tell (before 6.11),
/// or shows no map.
pub(crate) fn is_one_mapping(range: PageRange) -> Option<bool> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = open(c"/proc/self/maps", flags, Mode::empty()).ok()?;
    let mut query = Query {
        size: size_of::<Query>() as u64,
        query_addr: range.addr() as u64,
        ..Query::default()
    };
    // SAFETY: PROCMAP_QUERY reads and writes a structure of the length that the opcode has and
    // `size` says, which `Query` is.
    let call = unsafe { ioctl::Updater::<PROCMAP_QUERY, Query>::new(&mut query) };
    // SAFETY: the file is a process map, which knows this call; anything else refuses it.
    unsafe { ioctl::ioctl(&file, call) }.ok()?;
    Some(query.vma_end >= range.end() as u64)
}

/// What the kernel calls the mapping of the main thread's stack, whichever thread asks. Other
/// mappings that grow (`MAP_GROWSDOWN`) have no name.
const STACK: &[u8] = b"[stack]";

/// Reads a line of the map: `start-end perms offset dev inode path`.
fn entry(line: &[u8]) -> Option<MapEntry> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut ends = fields.next()?.split(|&byte| byte == b'-').map(hexadecimal);
    let (start, end) = (ends.next()?, ends.next()?);
    let mut flags: MapFlags = fields.next()?.iter().map(permission).collect();
    let inode = fields.nth(2).unwrap_or_default();
    let has_object = inode.iter().any(|byte| (b'1'..=b'9').contains(byte));
    let path = fields.next().unwrap_or_default();
    flags.set(MapFlags::OBJECT, has_object);
    flags.set(MapFlags::GROWS, path.trim_ascii_start() == STACK);
    let range = AddressRange::new(start, end.checked_sub(1)?)?;
    Some(MapEntry { range, flags })
}

fn hexadecimal(digits: &[u8]) -> usize {
    let value = |&digit: &u8| char::from(digit).to_digit(16).unwrap_or(0);
    digits
        .iter()
        .map(value)
        .fold(0, |number, digit| number << 4 | digit as usize)
}

fn permission(byte: &u8) -> MapFlags {
    match byte {
        b'r' => MapFlags::READ,
        b'w' => MapFlags::WRITE,
        b'x' => MapFlags::EXEC,
        b's' => MapFlags::SHARED,
        _ => MapFlags::empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> [Option<MapEntry>; 6] {
        let mut found = text.lines().filter_map(|line| entry(line.as_bytes()));
        let entries = [(); 6].map(|()| found.next());
        assert_eq!(found.next(), None, "six entries at most");
        entries
    }

    #[test]
    fn lines_become_entries() {
        let text = "00400000-00401000 r-xp 00000000 08:01 1234 /bin/a b\n\
            7f0000000000-7f0000021000 rw-p 00000000 00:00 0 \n\
            7f1000000000-7f1000001000 rw-s 00000000 00:01 10 /memfd:x (deleted)\n\
            7f2000000000-7f2000001000 rw-p 00000000 00:00 0  [stack]\n\
            7f3000000000-7f3000001000 rw-p 00000000 08:01 9  /a/[stack]\n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n";
        let made = |start, end: usize, flags| {
            AddressRange::new(start, end - 1).map(|range| MapEntry { range, flags })
        };
        let (read, exec) = (MapFlags::READ, MapFlags::EXEC);
        let both = read | MapFlags::WRITE;
        let (shared, object, grows) = (MapFlags::SHARED, MapFlags::OBJECT, MapFlags::GROWS);
        let expected = [
            made(0x40_0000, 0x40_1000, read | exec | object),
            made(0x7f00_0000_0000, 0x7f00_0002_1000, both),
            made(0x7f10_0000_0000, 0x7f10_0000_1000, both | shared | object),
            made(0x7f20_0000_0000, 0x7f20_0000_1000, both | grows),
            made(0x7f30_0000_0000, 0x7f30_0000_1000, both | object),
            made(0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_1000, exec),
        ];
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn nonsense_is_no_entry() {
        assert_eq!(parse("\n-\n0-0 rw-p\n"), [None; 6]);
    }

    #[test]
    fn only_the_whole_name_is_the_stack() {
        for other in [
            "1000-2000 rw-p 00000000 00:00 0  [stack",
            "1000-2000 rw-p 00000000 00:00 0  [stack]x",
            "1000-2000 rw-p 00000000 00:00 0  [stack:7]",
            "1000-2000 rw-p 00000000 00:00 0  x[stack]",
            "1000-2000 rw-p 00000000 00:00 0  [heap]",
            "1000-2000 rw-p 00000000 00:00 0  ",
            "1000-2000 rw-p 00000000 00:00 0",
        ] {
            let flags = entry(other.as_bytes()).expect("a mapping").flags;
            assert_eq!(flags, MapFlags::READ | MapFlags::WRITE, "{other}");
        }
    }
}
