//! The process map: `/proc/self/maps`, read into a fixed buffer.

use crate::{LinuxProvider, errno::error, pages::mappable, raw};
use core::ffi::c_void;
use hostmem_core::{
    page::{AddressRange, PageRange},
    provider::{AddressSpace, Error, MapEntry, MapFlags, ProcessMap},
};
use rustix::{
    fs::{Mode, OFlags, open},
    io::{Errno, read},
    ioctl::{self, Ioctl, IoctlOutput, Opcode},
};

/// Bytes read at a time. The kernel returns whole lines, as many as fit, and no more than a page of
/// them, however long the buffer.
const BUFFER: usize = 4096;

impl ProcessMap for LinuxProvider {
    fn walk(&self, visit: &mut dyn FnMut(MapEntry) -> bool) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = open(c"/proc/self/maps", flags, Mode::empty()).map_err(error)?;
        let mut buffer = [0; BUFFER];
        let mut parser = Parser::new();
        loop {
            let len = match read(&file, &mut buffer) {
                Err(Errno::INTR) => continue,
                result => result.map_err(error)?,
            };
            let Some(bytes) = buffer.get(..len).filter(|b| !b.is_empty()) else {
                return Ok(());
            };
            for &byte in bytes {
                if let Some(entry) = parser.step(byte)
                    && !visit(entry)
                {
                    return Ok(());
                }
            }
        }
    }

    fn address_space(&self) -> AddressSpace {
        let limit = raw::limit(raw::RLIMIT_STACK).ok();
        AddressSpace {
            user: mappable(),
            stack: raw::stack_address().ok().flatten(),
            stack_limit: limit.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            program_break: raw::program_break().ok(),
        }
    }
}

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

// SAFETY: PROCMAP_QUERY reads and writes a structure of the length that the opcode has and `size`
// says, which `Query` is.
unsafe impl Ioctl for Query {
    type Output = Self;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::read_write::<Self>(b'f', 17)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut *self).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, done: *mut c_void) -> Result<Self, Errno> {
        // SAFETY: the pointer is what `as_ptr` returned: a whole structure of integers.
        Ok(unsafe { done.cast::<Self>().read() })
    }
}

/// Says whether a range lies in one mapping; `None` where the kernel does not tell (before 6.11),
/// or shows no map.
pub(crate) fn is_one_mapping(range: PageRange) -> Option<bool> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = open(c"/proc/self/maps", flags, Mode::empty()).ok()?;
    let query = Query {
        size: size_of::<Query>() as u64,
        query_addr: range.addr() as u64,
        ..Query::default()
    };
    // SAFETY: the file is a process map, which knows this call; anything else refuses it.
    let found = unsafe { ioctl::ioctl(&file, query) }.ok()?;
    Some(found.vma_end >= range.end() as u64)
}

/// What the kernel calls the mapping of the main thread's stack, whichever thread asks. Other
/// mappings that grow (`MAP_GROWSDOWN`) have no name.
const STACK: &[u8] = b"[stack]";

/// Where in a line the parser is: `start-end perms offset dev inode path`.
#[derive(Clone, Copy, PartialEq)]
enum Field {
    Start,
    End,
    Permissions,
    Offset,
    Device,
    Inode,
    Rest,
    /// In a path of which so many bytes are those of [`STACK`].
    Path(usize),
}

/// Reads the map byte by byte, so that lines may be split between reads.
struct Parser {
    field: Field,
    number: usize,
    start: usize,
    end: usize,
    flags: MapFlags,
}

impl Parser {
    const fn new() -> Self {
        Self {
            field: Field::Start,
            number: 0,
            start: 0,
            end: 0,
            flags: MapFlags::empty(),
        }
    }

    /// Takes one byte; returns an entry at the end of its line.
    fn step(&mut self, byte: u8) -> Option<MapEntry> {
        if byte == b'\n' {
            let mut line = core::mem::replace(self, Self::new());
            let stack = line.field == Field::Path(STACK.len());
            line.flags.set(MapFlags::GROWS, stack);
            let range = AddressRange::new(line.start, line.end.checked_sub(1)?)?;
            return Some(MapEntry {
                range,
                flags: line.flags,
            });
        }
        match (self.field, byte) {
            (Field::Start, b'-') => {
                self.start = core::mem::take(&mut self.number);
                self.field = Field::End;
            }
            (Field::End, b' ') => {
                self.end = core::mem::take(&mut self.number);
                self.field = Field::Permissions;
            }
            (Field::Start | Field::End, _) => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                self.number = self.number << 4 | digit as usize;
            }
            (Field::Permissions, b' ') => self.field = Field::Offset,
            (Field::Permissions, _) => self.flags |= permission(byte),
            (Field::Offset, b' ') => self.field = Field::Device,
            (Field::Device, b' ') => self.field = Field::Inode,
            (Field::Inode, b' ') => self.field = Field::Rest,
            (Field::Inode, b'1'..=b'9') => self.flags |= MapFlags::OBJECT,
            (Field::Rest, b' ') => {}
            (Field::Rest, _) => self.field = Field::Path(usize::from(byte == STACK[0])),
            (Field::Path(0), _) => {}
            (Field::Path(n), _) => {
                self.field = Field::Path(if STACK.get(n) == Some(&byte) {
                    n + 1
                } else {
                    0
                });
            }
            _ => {}
        }
        None
    }
}

fn permission(byte: u8) -> MapFlags {
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
        let mut parser = Parser::new();
        let mut entries = [None; 6];
        let mut found = text.bytes().filter_map(|byte| parser.step(byte));
        for slot in &mut entries {
            *slot = found.next();
        }
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
        let entry = |start, end: usize, flags| {
            AddressRange::new(start, end - 1).map(|range| MapEntry { range, flags })
        };
        let (read, write, exec) = (MapFlags::READ, MapFlags::WRITE, MapFlags::EXEC);
        let expected = [
            entry(0x40_0000, 0x40_1000, read | exec | MapFlags::OBJECT),
            entry(0x7f00_0000_0000, 0x7f00_0002_1000, read | write),
            entry(
                0x7f10_0000_0000,
                0x7f10_0000_1000,
                read | write | MapFlags::SHARED | MapFlags::OBJECT,
            ),
            entry(
                0x7f20_0000_0000,
                0x7f20_0000_1000,
                read | write | MapFlags::GROWS,
            ),
            entry(
                0x7f30_0000_0000,
                0x7f30_0000_1000,
                read | write | MapFlags::OBJECT,
            ),
            entry(0xffff_ffff_ff60_0000, 0xffff_ffff_ff60_1000, exec),
        ];
        assert_eq!(parse(text), expected);
    }

    #[test]
    fn nonsense_is_no_entry() {
        assert_eq!(parse("\n-\n0-0 rw-p\n"), [None; 6]);
    }

    #[test]
    fn only_the_whole_name_is_the_stack() {
        let line = "1000-2000 rw-p 00000000 00:00 0  ";
        for name in ["[stack", "[stack]x", "[stack:7]", "x[stack]", "[heap]", ""] {
            let mut parser = Parser::new();
            let text = line.bytes().chain(name.bytes()).chain([b'\n']);
            let entry = text.filter_map(|byte| parser.step(byte)).next();
            let flags = entry.expect("a mapping").flags;
            assert!(!flags.contains(MapFlags::GROWS), "{name}");
        }
    }
}
