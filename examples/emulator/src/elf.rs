//! Reads ELF files of static RV32 programs: what is to be mapped where, and where the program
//! starts.
//!
//! Every number of a file is checked before it is used, so that no file does more harm than to be
//! refused. The format is that of the "System V Application Binary Interface", chapter 4 and 5.

#[cfg(test)]
#[path = "elf/tests.rs"]
mod tests;

use alloc::vec::Vec;
use core::{fmt, ops::Range};

/// The lowest address of guests; hosts keep what lies below inaccessible.
pub(crate) const LOWEST: u32 = 0x1_0000;

/// The address behind the highest of guests.
pub(crate) const USER_END: u32 = 0xffff_0000;

/// Where position-independent programs are loaded.
const BIAS: u32 = 0x1_0000;

/// The number of segments at most. Linkers make four to six.
const MAX_SEGMENTS: usize = 64;

/// Bytes of a page.
const PAGE: usize = 4096;

const HEADER: usize = 52;
const PROGRAM_HEADER: usize = 32;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_RISCV: u16 = 243;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
/// The bits of `e_flags` that say which floating-point registers pass arguments.
const EF_FLOAT_ABI: u32 = 6;

/// Why a file is no program that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElfError {
    NotElf,
    Truncated,
    Not32Bit,
    NotLittleEndian,
    WrongMachine(u16),
    FloatAbi,
    NotExecutable,
    Dynamic,
    NoSegments,
    TooManySegments,
    Overlapping,
    BadSegment,
    Unaligned,
    EntryOutside(u32),
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotElf => f.write_str("not an ELF file"),
            Self::Truncated => f.write_str("the file is truncated"),
            Self::Not32Bit => f.write_str("not a 32-bit program"),
            Self::NotLittleEndian => f.write_str("not a little-endian program"),
            Self::WrongMachine(machine) => {
                write!(f, "a program for machine {machine}, not for RISC-V (243)")
            }
            Self::FloatAbi => f.write_str("the program needs floating-point registers"),
            Self::NotExecutable => f.write_str("the file is not a program"),
            Self::Dynamic => f.write_str("the program is linked dynamically, not statically"),
            Self::NoSegments => f.write_str("the program has nothing to load"),
            Self::TooManySegments => f.write_str("the program has too many segments"),
            Self::Overlapping => f.write_str("segments of the program overlap"),
            Self::BadSegment => f.write_str("a segment lies outside of what a program may have"),
            Self::Unaligned => {
                f.write_str("a segment lies in the file otherwise than in its pages")
            }
            Self::EntryOutside(entry) => {
                write!(f, "the entry {entry:#x} lies in no executable segment")
            }
        }
    }
}

impl core::error::Error for ElfError {}

/// What a guest may do with pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Protection {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |allowed, letter| if allowed { letter } else { "-" };
        f.write_str(letter(self.read, "r"))?;
        f.write_str(letter(self.write, "w"))?;
        f.write_str(letter(self.execute, "x"))
    }
}

/// A part of the file that is to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) addr: u32,
    /// Bytes in memory: those of the file, then zeros.
    pub(crate) len: u32,
    pub(crate) file: Range<usize>,
    pub(crate) protection: Protection,
}

impl Segment {
    /// Returns the address behind the segment.
    pub(crate) const fn end(&self) -> u32 {
        self.addr + self.len
    }
}

/// A program that can be loaded.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) entry: u32,
    /// In the order of addresses.
    pub(crate) segments: Vec<Segment>,
    /// Where the program finds its own program headers, and how many there are.
    pub(crate) headers: (u32, u16),
}

fn half(bytes: &[u8], at: usize) -> Result<u16, ElfError> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field
        .map(|field| u16::from_le_bytes(*field))
        .ok_or(ElfError::Truncated)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, ElfError> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field
        .map(|field| u32::from_le_bytes(*field))
        .ok_or(ElfError::Truncated)
}

impl<'a> Image<'a> {
    /// Reads the headers of a file.
    ///
    /// # Errors
    ///
    /// Why the file is no program for this emulator.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        if !bytes.starts_with(b"\x7fELF") {
            return Err(ElfError::NotElf);
        }
        if bytes.len() < HEADER {
            return Err(ElfError::Truncated);
        }
        if bytes[4] != 1 {
            return Err(ElfError::Not32Bit);
        }
        if bytes[5] != 1 {
            return Err(ElfError::NotLittleEndian);
        }
        let machine = half(bytes, 18)?;
        if machine != EM_RISCV {
            return Err(ElfError::WrongMachine(machine));
        }
        let bias = match half(bytes, 16)? {
            ET_EXEC => 0,
            ET_DYN => BIAS,
            _ => return Err(ElfError::NotExecutable),
        };
        if word(bytes, 36)? & EF_FLOAT_ABI != 0 {
            return Err(ElfError::FloatAbi);
        }
        let entry = word(bytes, 24)?.wrapping_add(bias);
        let offset = word(bytes, 28)?;
        let count = half(bytes, 44)?;
        if count != 0 && usize::from(half(bytes, 42)?) != PROGRAM_HEADER {
            return Err(ElfError::BadSegment);
        }
        let mut segments = Vec::new();
        for index in 0..usize::from(count) {
            let at = usize::try_from(offset).map_err(|_| ElfError::Truncated)?;
            let at = at.checked_add(index * PROGRAM_HEADER);
            let header = at.and_then(|at| bytes.get(at..)?.first_chunk());
            let header: &[u8; PROGRAM_HEADER] = header.ok_or(ElfError::Truncated)?;
            match word(header, 0)? {
                PT_INTERP => return Err(ElfError::Dynamic),
                PT_LOAD if word(header, 20)? != 0 => {
                    if segments.len() == MAX_SEGMENTS {
                        return Err(ElfError::TooManySegments);
                    }
                    segments.push(segment(header, bytes.len(), bias)?);
                }
                _ => {}
            }
        }
        segments.sort_by_key(|segment| segment.addr);
        if segments.is_empty() {
            return Err(ElfError::NoSegments);
        }
        if segments.is_sorted_by(|a, b| a.end() <= b.addr) {
            let holds = |s: &Segment| s.protection.execute && (s.addr..s.end()).contains(&entry);
            if !segments.iter().any(holds) {
                return Err(ElfError::EntryOutside(entry));
            }
            // Linux maps files by pages, and does not run other programs.
            let by_pages = |s: &Segment| {
                let distance = (s.addr as usize).wrapping_sub(s.file.start);
                s.file.is_empty() || distance.is_multiple_of(PAGE)
            };
            if !segments.iter().all(by_pages) {
                return Err(ElfError::Unaligned);
            }
            let headers = (address_of(&segments, offset), count);
            Ok(Self {
                bytes,
                entry,
                segments,
                headers,
            })
        } else {
            Err(ElfError::Overlapping)
        }
    }

    /// Returns the address behind the last segment: where the program's break starts.
    pub(crate) fn end(&self) -> u32 {
        self.segments.last().map_or(LOWEST, Segment::end)
    }
}

/// A function of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol<'a> {
    pub(crate) addr: u32,
    pub(crate) len: u32,
    pub(crate) name: &'a [u8],
}

/// Yields the names of a program's functions, as far as its file has them.
pub(crate) fn symbols(bytes: &[u8]) -> Vec<Symbol<'_>> {
    const SECTION_HEADER: usize = 40;
    const SYMBOL: usize = 16;
    const SHT_SYMTAB: u32 = 2;
    const STT_FUNC: u8 = 2;
    let bias = match half(bytes, 16) {
        Ok(ET_DYN) => BIAS,
        _ => 0,
    };
    let place = |word: u32| usize::try_from(word).ok();
    let section = |index: usize| {
        let at = place(word(bytes, 32).ok()?)?.checked_add(index * SECTION_HEADER)?;
        let header: &[u8; SECTION_HEADER] = bytes.get(at..)?.first_chunk()?;
        let start = place(word(header, 16).ok()?)?;
        let end = start.checked_add(place(word(header, 20).ok()?)?)?;
        Some((header, bytes.get(start..end).unwrap_or_default()))
    };
    let count = half(bytes, 48).unwrap_or(0);
    let mut found = Vec::new();
    for (header, table) in (0..usize::from(count)).map_while(section) {
        let names = word(header, 24)
            .ok()
            .and_then(|index| section(place(index)?));
        let Some((_, names)) = names.filter(|_| word(header, 4) == Ok(SHT_SYMTAB)) else {
            continue;
        };
        for entry in table.chunks_exact(SYMBOL) {
            let fields = [0, 4, 8].map(|at| word(entry, at).unwrap_or(0));
            let [name, addr, len] = fields;
            let name = place(name)
                .and_then(|at| names.get(at..))
                .unwrap_or_default();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            if entry[12] & 15 == STT_FUNC && !name.is_empty() {
                let addr = addr.wrapping_add(bias);
                found.push(Symbol { addr, len, name });
            }
        }
    }
    found
}

/// Returns where the byte at `offset` of the file is loaded; zero for nowhere.
fn address_of(segments: &[Segment], offset: u32) -> u32 {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let holding = segments.iter().find(|s| s.file.contains(&offset));
    let within = |s: &Segment| u32::try_from(offset - s.file.start).ok();
    holding.and_then(|s| Some(s.addr + within(s)?)).unwrap_or(0)
}

fn segment(header: &[u8; PROGRAM_HEADER], file_len: usize, bias: u32) -> Result<Segment, ElfError> {
    let (offset, in_file) = (word(header, 4)?, word(header, 16)?);
    let (addr, len) = (word(header, 8)?, word(header, 20)?);
    let flags = word(header, 24)?;
    let start = usize::try_from(offset).map_err(|_| ElfError::Truncated)?;
    let end = usize::try_from(in_file)
        .ok()
        .and_then(|n| start.checked_add(n));
    let end = end
        .filter(|end| *end <= file_len)
        .ok_or(ElfError::Truncated)?;
    let addr = addr.checked_add(bias).ok_or(ElfError::BadSegment)?;
    let behind = addr.checked_add(len).ok_or(ElfError::BadSegment)?;
    if in_file > len || addr < LOWEST || behind > USER_END {
        return Err(ElfError::BadSegment);
    }
    Ok(Segment {
        addr,
        len,
        file: start..end,
        protection: Protection {
            read: flags & 4 != 0,
            write: flags & 2 != 0,
            execute: flags & 1 != 0,
        },
    })
}
