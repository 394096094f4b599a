//! Calls that change what is mapped.

use super::{Answer, host, number_of, within};
use crate::{
    access::Identity,
    elf::Protection,
    machine::Machine,
    space::{Content, FilePart, Mapping, PAGE, Place, Space},
};
use hostmem::page::AddressRange;
use syscalls::{Errno, Sysno, syscall};

const PROT: [u32; 3] = [1, 2, 4];
const MAP_SHARED: u32 = 1;
const MAP_FIXED: u32 = 0x10;
const MAP_ANONYMOUS: u32 = 0x20;
const MAP_FIXED_NOREPLACE: u32 = 0x10_0000;
const MREMAP_MAYMOVE: u32 = 1;
const MADV_DONTNEED: u32 = 4;
const MADV_FREE: u32 = 8;

fn protection(bits: u32) -> Protection {
    let [read, write, execute] = PROT.map(|bit| bits & bit != 0);
    Protection {
        read,
        write,
        execute,
    }
}

fn start(range: AddressRange) -> Answer {
    u32::try_from(range.start()).map_err(|_| Errno::ENOMEM)
}

pub(super) fn brk(machine: &Machine, to: u32) -> u32 {
    machine.space.move_break(to)
}

pub(super) fn mmap(machine: &Machine, args: [u32; 6]) -> Answer {
    let [addr, len, bits, flags, fd, page] = args;
    let file = if flags & MAP_ANONYMOUS != 0 {
        None
    } else if machine.files.is_open(fd) {
        Some(FilePart {
            fd: fd.cast_signed(),
            offset: u64::from(page) * u64::from(PAGE),
        })
    } else {
        return Err(Errno::EBADF);
    };
    let mapping = Mapping {
        content: match file {
            Some(_) if flags & MAP_SHARED != 0 => Content::Shared,
            Some(_) => Content::File,
            None => Content::Anonymous,
        },
        protection: protection(bits),
    };
    let place = if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) == 0 {
        Place::Anywhere { hint: addr, len }
    } else if !addr.is_multiple_of(PAGE) || len == 0 {
        return Err(Errno::EINVAL);
    } else {
        let range = Space::around(addr, len).map_err(|_| Errno::ENOMEM)?;
        if flags & MAP_FIXED_NOREPLACE != 0 {
            Place::Free(range)
        } else {
            Place::Over(range)
        }
    };
    let range = machine.space.map(place, mapping, file).map_err(number_of)?;
    if let Place::Over(_) = place {
        machine.invalidate(range);
    }
    start(range)
}

/// Checks the address and length of a call that asks for whole pages.
fn pages(addr: u32, len: u32) -> Result<AddressRange, Errno> {
    if !addr.is_multiple_of(PAGE) || len == 0 {
        return Err(Errno::EINVAL);
    }
    Space::around(addr, len).map_err(|_| Errno::ENOMEM)
}

pub(super) fn munmap(machine: &Machine, addr: u32, len: u32) -> Answer {
    let range = pages(addr, len).map_err(|_| Errno::EINVAL)?;
    machine.space.unmap(range).map_err(number_of)?;
    machine.invalidate(range);
    Ok(0)
}

pub(super) fn mremap(
    machine: &Machine,
    addr: u32,
    old_len: u32,
    new_len: u32,
    flags: u32,
) -> Answer {
    let range = pages(addr, old_len)?;
    if flags & !MREMAP_MAYMOVE != 0 {
        return Err(Errno::EINVAL);
    }
    let moved = machine
        .space
        .remap(range, new_len, flags & MREMAP_MAYMOVE != 0);
    machine.invalidate(range);
    start(moved.map_err(number_of)?)
}

pub(super) fn mprotect(machine: &Machine, addr: u32, len: u32, bits: u32) -> Answer {
    if len == 0 {
        return Ok(0);
    }
    let range = pages(addr, len)?;
    let changed = machine.space.protect(range, protection(bits));
    machine.invalidate(range);
    changed.map(|()| 0).map_err(number_of)
}

pub(super) fn msync(addr: u32, len: u32, flags: u32) -> Answer {
    let addr = within(addr, len)?;
    // SAFETY: the call changes no memory.
    host(unsafe { syscall!(Sysno::msync, addr, len, flags) })
}

pub(super) fn madvise(machine: &Machine, addr: u32, len: u32, advice: u32) -> Answer {
    if len == 0 {
        return Ok(0);
    }
    let range = pages(addr, len)?;
    if matches!(advice, MADV_DONTNEED | MADV_FREE) {
        machine.space.purge(range).map_err(number_of)?;
        machine.invalidate(range);
    }
    Ok(0)
}

/// Copies a program's segments, and gives its pages the access that they ask for. Segments may
/// share pages, which then get what both ask for.
///
/// # Errors
///
/// Without memory.
pub(crate) fn load(
    space: &Space,
    image: &crate::elf::Image<'_>,
) -> Result<(), hostmem::provider::Error> {
    let open = Mapping {
        content: Content::Image,
        protection: Protection::READ_WRITE,
    };
    for segment in &image.segments {
        let whole = Space::around(segment.addr, segment.len)?;
        for page in (whole.start()..=whole.last()).step_by(PAGE as usize) {
            let page = u32::try_from(page).unwrap_or(u32::MAX);
            if space.query(page).is_none() {
                // The rest of the segment: what an earlier one has is only its first page.
                let last = u32::try_from(whole.last()).unwrap_or(u32::MAX);
                space.map(Place::Over(Space::around(page, last - page)?), open, None)?;
                break;
            }
        }
        let bytes = image.bytes.get(segment.file.clone()).unwrap_or_default();
        let written = Identity.write(segment.addr, bytes);
        written.map_err(|_| hostmem::provider::ErrorKind::Exhausted)?;
    }
    for segment in &image.segments {
        let whole = Space::around(segment.addr, segment.len)?;
        let shared = |page: usize| {
            let on_it = image.segments.iter().filter(|other| {
                Space::around(other.addr, other.len).is_ok_and(|range| range.contains(page))
            });
            on_it.fold(Protection::NONE, |all, one| Protection {
                read: all.read | one.protection.read,
                write: all.write | one.protection.write,
                execute: all.execute | one.protection.execute,
            })
        };
        space.protect(whole, segment.protection)?;
        for edge in [whole.start(), whole.last() + 1 - PAGE as usize] {
            let page = u32::try_from(edge).unwrap_or(u32::MAX);
            space.protect(Space::around(page, PAGE)?, shared(edge))?;
        }
    }
    Ok(())
}
